//! How long to wait before something that failed is tried again.

use std::time::Duration;

use tokio::time::Instant;

const FIRST: Duration = Duration::from_secs(10);
const LAST: Duration = Duration::from_secs(300);

/// Kubernetes' back-off: the first retry is at once, the next after 10 s, then twice as long each time, up to 5 minutes. Whatever
/// ran well for twice the longest wait starts from the beginning.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct BackOff {
    current: Option<(Duration, Instant)>,
}

impl BackOff {
    /// How long the wait is that a failure at `failed_at` has begun, and when it ends; `None` if a retry may be made `now`.
    pub(crate) fn until(&self, failed_at: Instant, now: Instant) -> Option<(Duration, Instant)> {
        let (wait, last) = self.current?;
        let expired = failed_at.saturating_duration_since(last) > 2 * LAST;
        let end = failed_at + wait;
        (!expired && now < end).then_some((wait, end))
    }

    /// Notes a retry after a failure at `failed_at`: the next wait will be longer.
    pub(crate) fn retried(&mut self, failed_at: Instant, now: Instant) {
        let next = match self.current {
            Some((wait, last)) if failed_at.saturating_duration_since(last) <= 2 * LAST => (wait * 2).min(LAST),
            _ => FIRST,
        };
        self.current = Some((next, now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_five_minutes_and_start_over_after_a_long_run() {
        let begin = Instant::now();
        let mut back_off = BackOff::default();
        let mut now = begin;
        let mut waits = Vec::new();
        for _ in 0..8 {
            let wait = back_off.until(now, now).map_or(0, |(wait, _)| wait.as_secs());
            waits.push(wait);
            let failed = now;
            now += Duration::from_secs(wait);
            assert!(back_off.until(failed, now).is_none());
            back_off.retried(failed, now);
        }
        assert_eq!(waits, [0, 10, 20, 40, 80, 160, 300, 300]);
        let later = now + Duration::from_secs(601);
        assert!(back_off.until(later, later).is_none());
    }
}
