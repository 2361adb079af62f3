//! The arithmetic of a rollout: how large each replica set should be next. No input or output here.

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use meshlab_controller_runtime::scaled_value;

/// A replica set as far as a rollout is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Size {
    /// Pods asked for.
    pub(super) replicas: i32,
    /// Pods that are available.
    pub(super) available: i32,
}

/// What a deployment allows while it changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bounds {
    /// Pods wanted in the end.
    pub(super) replicas: i32,
    /// Pods there may be beyond that.
    pub(super) max_surge: i32,
    /// Pods that may be missing.
    pub(super) max_unavailable: i32,
}

impl Bounds {
    /// The bounds of a deployment's specification, percentages resolved. Surge rounds up, unavailability down, and they are not
    /// both zero, or nothing could ever move.
    pub(super) fn of(spec: &DeploymentSpec) -> Self {
        let replicas = spec.replicas.unwrap_or(1);
        let strategy = spec.strategy.as_ref();
        if strategy.is_some_and(|strategy| strategy.type_.as_deref() == Some("Recreate")) {
            return Self { replicas, max_surge: 0, max_unavailable: 0 };
        }
        let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
        let quarter = IntOrString::String("25%".to_owned());
        let surge = rolling.and_then(|rolling| rolling.max_surge.as_ref()).unwrap_or(&quarter);
        let unavailable = rolling.and_then(|rolling| rolling.max_unavailable.as_ref()).unwrap_or(&quarter);
        let max_surge = scaled_value(surge, replicas, true).max(0);
        let mut max_unavailable = scaled_value(unavailable, replicas, false).clamp(0, replicas);
        if max_surge == 0 && max_unavailable == 0 {
            max_unavailable = 1;
        }
        Self { replicas, max_surge, max_unavailable }
    }

    /// Pods there may be at most; what the `max-replicas` annotation says.
    pub(super) fn most(self) -> i32 {
        self.replicas + self.max_surge
    }

    /// Pods that must be available at least.
    pub(super) fn least_available(self) -> i32 {
        self.replicas - self.max_unavailable
    }
}

/// Whether a deployment replaces all its pods at once.
pub(super) fn is_recreate(deployment: &Deployment) -> bool {
    let strategy = deployment.spec.as_ref().and_then(|spec| spec.strategy.as_ref());
    strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("Recreate")
}

/// How large the new replica set may be now, given the sum of all sizes (`total`, itself included).
pub(super) fn next_new_size(bounds: Bounds, new: i32, total: i32) -> i32 {
    if new >= bounds.replicas {
        return bounds.replicas;
    }
    let room = (bounds.most() - total).max(0);
    new + room.min(bounds.replicas - new)
}

/// How large the old replica sets (oldest first) may be now: pods that are not available go first, then as many available ones
/// as can be missed.
pub(super) fn next_old_sizes(bounds: Bounds, new: Size, old: &[Size]) -> Vec<i32> {
    let mut sizes: Vec<i32> = old.iter().map(|set| set.replicas).collect();
    let total: i32 = sizes.iter().sum::<i32>() + new.replicas;
    let mut spare = total - bounds.least_available() - (new.replicas - new.available);
    if spare <= 0 {
        return sizes;
    }
    for (size, set) in sizes.iter_mut().zip(old) {
        let unhealthy = (set.replicas - set.available).max(0).min(spare);
        *size -= unhealthy;
        spare -= unhealthy;
    }
    let available: i32 = old.iter().map(|set| set.available).sum::<i32>() + new.available;
    let mut surplus = available - bounds.least_available();
    for size in &mut sizes {
        let removed = (*size).min(surplus).max(0);
        *size -= removed;
        surplus -= removed;
    }
    sizes
}

/// A replica set that takes part in proportional scaling.
#[derive(Debug, Clone, Copy)]
pub(super) struct Share {
    /// Pods asked for now.
    pub(super) replicas: i32,
    /// The most the deployment allowed when this size was set (`max-replicas` annotation).
    pub(super) most_then: i32,
}

/// Spreads a change of the deployment's size over its replica sets in the middle of a rollout, in proportion to their sizes.
/// `shares` stand in the order in which remainders are given: largest first.
pub(super) fn proportional_sizes(bounds: Bounds, shares: &[Share]) -> Vec<i32> {
    let allowed = if bounds.replicas > 0 { bounds.most() } else { 0 };
    let total: i32 = shares.iter().map(|share| share.replicas).sum();
    let to_add = allowed - total;
    let mut added = 0;
    let mut sizes: Vec<i32> = Vec::with_capacity(shares.len());
    for share in shares {
        let mut size = share.replicas;
        if to_add != 0 {
            let fraction = fraction(*share, allowed);
            let left = to_add - added;
            let part = if to_add > 0 { fraction.min(left).max(0) } else { fraction.max(left).min(0) };
            size += part;
            added += part;
        }
        sizes.push(size);
    }
    if let Some(first) = sizes.first_mut() {
        *first = (*first + to_add - added).max(0);
    }
    sizes
}

fn fraction(share: Share, allowed: i32) -> i32 {
    if allowed == 0 {
        return -share.replicas;
    }
    let then = if share.most_then > 0 { share.most_then } else { allowed };
    let ideal = f64::from(share.replicas) * f64::from(allowed) / f64::from(then);
    #[expect(clippy::cast_possible_truncation, reason = "both factors are replica counts, their ratio is near 1")]
    let rounded = ideal.round() as i32;
    rounded - share.replicas
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const BOUNDS: Bounds = Bounds { replicas: 10, max_surge: 3, max_unavailable: 2 };

    fn size(replicas: i32, available: i32) -> Size {
        Size { replicas, available }
    }

    #[test]
    fn defaults_and_percentages() {
        let spec =
            |strategy| serde_json::from_value(json!({"replicas": 4, "strategy": strategy, "selector": {}, "template": {}}));
        let bounds = Bounds::of(&spec(json!({})).unwrap());
        assert_eq!(bounds, Bounds { replicas: 4, max_surge: 1, max_unavailable: 1 });
        let none = json!({"rollingUpdate": {"maxSurge": 0, "maxUnavailable": "10%"}});
        assert_eq!(Bounds::of(&spec(none).unwrap()), Bounds { replicas: 4, max_surge: 0, max_unavailable: 1 });
    }

    #[test]
    fn the_new_set_grows_into_the_surge_only() {
        assert_eq!(next_new_size(BOUNDS, 0, 10), 3);
        assert_eq!(next_new_size(BOUNDS, 3, 13), 3);
        assert_eq!(next_new_size(BOUNDS, 0, 0), 10);
        assert_eq!(next_new_size(BOUNDS, 12, 12), 10);
    }

    #[test]
    fn old_pods_go_as_far_as_availability_allows() {
        assert_eq!(next_old_sizes(BOUNDS, size(3, 0), &[size(10, 10)]), [8]);
        assert_eq!(next_old_sizes(BOUNDS, size(5, 3), &[size(8, 8)]), [5]);
        assert_eq!(next_old_sizes(BOUNDS, size(3, 0), &[size(10, 4)]), [8], "unhealthy pods go first");
        assert_eq!(next_old_sizes(BOUNDS, size(10, 10), &[size(1, 1), size(2, 2)]), [0, 0]);
    }

    #[test]
    fn a_rollout_ends_whatever_the_bounds() {
        for replicas in 0..12 {
            for (max_surge, max_unavailable) in [(1, 0), (0, 1), (3, 2), (12, 12)] {
                let bounds = Bounds { replicas, max_surge, max_unavailable: max_unavailable.min(replicas) };
                let bounds = if bounds.most() == replicas && bounds.max_unavailable == 0 { continue } else { bounds };
                let (mut new, mut old) = (0, replicas);
                for _ in 0..=2 * replicas + 2 {
                    let available_before = new + old;
                    new = next_new_size(bounds, new, new + old);
                    assert!(new + old <= bounds.most());
                    old = next_old_sizes(bounds, size(new, new), &[size(old, old)])[0];
                    assert!(new + old >= bounds.least_available().min(available_before));
                }
                assert_eq!((new, old), (replicas, 0), "{bounds:?}");
            }
        }
    }

    #[test]
    fn scaling_in_the_middle_of_a_rollout_keeps_the_proportions() {
        let shares = [Share { replicas: 8, most_then: 13 }, Share { replicas: 5, most_then: 13 }];
        let bounds = Bounds { replicas: 15, max_surge: 3, max_unavailable: 2 };
        assert_eq!(proportional_sizes(bounds, &shares), [11, 7]);
        let down = Bounds { replicas: 5, max_surge: 2, max_unavailable: 1 };
        assert_eq!(proportional_sizes(down, &shares).iter().sum::<i32>(), 7);
        let zero = Bounds { replicas: 0, max_surge: 0, max_unavailable: 1 };
        assert_eq!(proportional_sizes(zero, &shares), [0, 0]);
    }
}
