//! The members of a cluster, arranged for choosing one: by priority, health, weight.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use meshlab_proxy_config::LoadBalancer;
use rand::Rng;

use super::hash::HashTable;
use super::host::Host;
use crate::options::milliseconds;

/// A host with its place in the cluster.
#[derive(Clone)]
pub(crate) struct Member {
    pub(crate) host: Arc<Host>,
    pub(crate) weight: u32,
    pub(crate) priority: u32,
}

/// All members. Rebuilt when one comes, goes, is ejected or taken back.
#[derive(Default)]
pub(crate) struct Members {
    pub(crate) all: Vec<Member>,
    levels: Vec<Level>,
}

/// The members of one priority.
struct Level {
    /// Those that may be chosen.
    usable: Vec<Member>,
    /// Hundredths of the traffic that this priority gets.
    load: u32,
    /// Round robin order, with heavier members more often, spread out.
    cycle: Vec<u32>,
    /// All weights are the same.
    uniform: bool,
    total_weight: u64,
    table: Option<HashTable>,
}

/// What a choice depends on.
#[derive(Default, Clone, Copy)]
pub(crate) struct Choice<'a> {
    /// For consistent hashing.
    pub(crate) hash: Option<u64>,
    /// Hosts that were tried already.
    pub(crate) avoid: &'a [SocketAddr],
    /// For clusters that connect where the client wanted to.
    pub(crate) original_destination: Option<SocketAddr>,
}

/// How often a choice is repeated to avoid a host that was tried (Istio's `host_selection_retry_max_attempts`).
const SELECTION_ATTEMPTS: u32 = 5;

/// Envoy's over-provisioning: a priority keeps all traffic until less than 1/1.4 of its members are healthy.
const OVERPROVISIONING: u32 = 140;

/// Longest round robin cycle: weights are scaled down to fit.
const MAXIMUM_CYCLE: u64 = 2048;

impl Members {
    pub(crate) fn new(all: Vec<Member>, balancer: LoadBalancer, min_health_percent: u32) -> Self {
        let mut priorities: Vec<u32> = all.iter().map(|member| member.priority).collect();
        priorities.sort_unstable();
        priorities.dedup();
        let mut remaining = 100;
        let mut levels = Vec::new();
        for priority in priorities {
            let members: Vec<Member> = all.iter().filter(|member| member.priority == priority).cloned().collect();
            let healthy: Vec<Member> = members.iter().filter(|member| !member.host.health.ejected()).cloned().collect();
            let percent = (100 * healthy.len() / members.len().max(1)) as u32;
            // Panic: with too few healthy ones all are used. Istio switches it off (fact 29).
            let panic = min_health_percent > 0 && percent < min_health_percent;
            let load = if panic { remaining } else { (OVERPROVISIONING * percent / 100).min(remaining) };
            remaining -= load;
            levels.push(Level::new(if panic { members } else { healthy }, load, balancer));
        }
        // What no priority was healthy enough to take goes to those that are left, in proportion.
        let taken: u32 = levels.iter().map(|level| level.load).sum();
        if taken > 0 && taken < 100 {
            for level in &mut levels {
                level.load = level.load * 100 / taken;
            }
        }
        Self { all, levels }
    }

    /// Chooses a host, or `None` when none is healthy.
    pub(crate) fn choose(&self, balancer: LoadBalancer, rotation: &AtomicUsize, choice: Choice<'_>) -> Option<Arc<Host>> {
        let level = self.level()?;
        let mut chosen = level.choose(balancer, rotation, choice.hash, 0)?;
        for attempt in 1..=SELECTION_ATTEMPTS {
            if !choice.avoid.contains(&chosen.host.address) {
                break;
            }
            chosen = level.choose(balancer, rotation, choice.hash, attempt)?;
        }
        Some(chosen.host.clone())
    }

    fn level(&self) -> Option<&Level> {
        let mut usable = self.levels.iter().filter(|level| level.load > 0 && !level.usable.is_empty());
        let first = usable.next()?;
        if first.load >= 100 {
            return Some(first);
        }
        let mut draw = rand::rng().random_range(0..100);
        for level in self.levels.iter().filter(|level| level.load > 0 && !level.usable.is_empty()) {
            if draw < level.load {
                return Some(level);
            }
            draw -= level.load;
        }
        Some(first)
    }
}

impl Level {
    fn new(usable: Vec<Member>, load: u32, balancer: LoadBalancer) -> Self {
        let uniform = usable.windows(2).all(|pair| pair[0].weight == pair[1].weight);
        let keys = || -> Vec<(String, u32)> {
            usable.iter().map(|member| (member.host.address_text.clone(), member.weight.max(1))).collect()
        };
        let table = match balancer {
            LoadBalancer::RingHash { minimum_ring_size } => Some(HashTable::ring(&keys(), minimum_ring_size)),
            LoadBalancer::Maglev { table_size } => Some(HashTable::maglev(&keys(), table_size)),
            _ => None,
        };
        let cycle = match balancer {
            LoadBalancer::RoundRobin { .. } if !uniform => smooth_cycle(&usable),
            _ => Vec::new(),
        };
        let total_weight = usable.iter().map(|member| u64::from(member.weight.max(1))).sum();
        Self { usable, load, cycle, uniform, total_weight, table }
    }

    fn choose(&self, balancer: LoadBalancer, rotation: &AtomicUsize, hash: Option<u64>, attempt: u32) -> Option<&Member> {
        match self.usable.len() {
            0 => return None,
            1 => return self.usable.first(),
            _ => {}
        }
        match balancer {
            LoadBalancer::LeastRequest { warmup_ms } => Some(self.warm(warmup_ms, || self.less_loaded())),
            LoadBalancer::RoundRobin { warmup_ms } => Some(self.warm(warmup_ms, || self.next(rotation))),
            LoadBalancer::Random | LoadBalancer::Passthrough => Some(self.at_random()),
            LoadBalancer::RingHash { .. } | LoadBalancer::Maglev { .. } => {
                // Without anything to hash Envoy takes a random place on the ring.
                let hash = hash.unwrap_or_else(|| rand::rng().random());
                self.usable.get(self.table.as_ref()?.pick(hash, attempt)?)
            }
        }
    }

    /// Power of two choices.
    fn less_loaded(&self) -> &Member {
        let (first, second) = (self.at_random(), self.at_random());
        // Load per weight, compared without dividing.
        let load = |member: &Member, other: &Member| u64::from(member.host.active() + 1) * u64::from(other.weight.max(1));
        if load(second, first) < load(first, second) { second } else { first }
    }

    fn next(&self, rotation: &AtomicUsize) -> &Member {
        let turn = rotation.fetch_add(1, Ordering::Relaxed);
        if self.cycle.is_empty() {
            &self.usable[turn % self.usable.len()]
        } else {
            &self.usable[self.cycle[turn % self.cycle.len()] as usize]
        }
    }

    fn at_random(&self) -> &Member {
        if self.uniform {
            return &self.usable[rand::rng().random_range(0..self.usable.len())];
        }
        let mut draw = rand::rng().random_range(0..self.total_weight);
        for member in &self.usable {
            let weight = u64::from(member.weight.max(1));
            if draw < weight {
                return member;
            }
            draw -= weight;
        }
        &self.usable[0]
    }

    /// A newcomer is taken with a probability that grows from a tenth to one over the warm-up time (Envoy's slow start).
    fn warm<'a>(&'a self, warmup_ms: u64, pick: impl Fn() -> &'a Member) -> &'a Member {
        let mut picked = pick();
        if warmup_ms == 0 {
            return picked;
        }
        let window = milliseconds(warmup_ms);
        for _ in 0..SELECTION_ATTEMPTS {
            let age = picked.host.added.elapsed();
            if age >= window || rand::rng().random_range(0.0..1.0) < (age.as_secs_f64() / window.as_secs_f64()).max(0.1) {
                break;
            }
            picked = pick();
        }
        picked
    }
}

/// Smooth weighted round robin (nginx's), unrolled.
fn smooth_cycle(members: &[Member]) -> Vec<u32> {
    let divisor = members.iter().fold(0, |sum, member| greatest_common_divisor(sum, u64::from(member.weight.max(1)))).max(1);
    let mut weights: Vec<i64> = members.iter().map(|member| (u64::from(member.weight.max(1)) / divisor) as i64).collect();
    let total: i64 = weights.iter().sum();
    if total as u64 > MAXIMUM_CYCLE {
        for weight in &mut weights {
            *weight = (*weight * MAXIMUM_CYCLE as i64 / total).max(1);
        }
    }
    let total: i64 = weights.iter().sum();
    let mut credit = vec![0_i64; weights.len()];
    let mut cycle = Vec::with_capacity(total as usize);
    for _ in 0..total {
        let mut best = 0;
        for index in 0..weights.len() {
            credit[index] += weights[index];
            if credit[index] > credit[best] {
                best = index;
            }
        }
        credit[best] -= total;
        cycle.push(best as u32);
    }
    cycle
}

fn greatest_common_divisor(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::net::SocketAddr;

    use super::*;
    use crate::telemetry::peer::Peers;

    const LEAST_REQUEST: LoadBalancer = LoadBalancer::LeastRequest { warmup_ms: 0 };
    const ROUND_ROBIN: LoadBalancer = LoadBalancer::RoundRobin { warmup_ms: 0 };

    fn member(last: u8, weight: u32, priority: u32) -> Member {
        Member {
            host: Host::new(SocketAddr::from(([10, 0, 0, last], 80)), Default::default(), &Peers::new(10)),
            weight,
            priority,
        }
    }

    fn shares(members: &Members, balancer: LoadBalancer, picks: usize) -> BTreeMap<SocketAddr, usize> {
        let rotation = AtomicUsize::new(0);
        let mut shares = BTreeMap::new();
        for _ in 0..picks {
            let host = members.choose(balancer, &rotation, Choice::default()).unwrap();
            *shares.entry(host.address).or_default() += 1;
        }
        shares
    }

    #[test]
    fn weighted_round_robin_is_exact_over_a_cycle() {
        let members = Members::new(vec![member(1, 3, 0), member(2, 1, 0)], ROUND_ROBIN, 0);
        assert_eq!(shares(&members, ROUND_ROBIN, 400).into_values().collect::<Vec<_>>(), [300, 100]);
    }

    #[test]
    fn fact_27_least_request_prefers_the_less_loaded_of_two() {
        let (busy, idle) = (member(1, 1, 0), member(2, 1, 0));
        let _requests: Vec<_> = (0..10).map(|_| busy.host.start_request()).collect();
        let members = Members::new(vec![busy.clone(), idle], LEAST_REQUEST, 0);
        let shares = shares(&members, LEAST_REQUEST, 1000);
        assert!(shares[&busy.host.address] < 350, "only drawn twice in a row a quarter of the time: {shares:?}");
    }

    #[test]
    fn the_next_priority_takes_what_the_first_is_too_unhealthy_for() {
        let first: Vec<Member> = (1..=4).map(|n| member(n, 1, 0)).collect();
        let spare = member(9, 1, 1);
        let all: Vec<Member> = first.iter().cloned().chain([spare.clone()]).collect();
        let members = Members::new(all.clone(), LEAST_REQUEST, 0);
        assert!(!shares(&members, LEAST_REQUEST, 200).contains_key(&spare.host.address), "all healthy: priority 0 takes all");
        for member in &first[..2] {
            member.host.health.set_ejected(true);
        }
        let members = Members::new(all.clone(), LEAST_REQUEST, 0);
        let share = shares(&members, LEAST_REQUEST, 2000)[&spare.host.address];
        assert!((450..750).contains(&share), "half healthy × 1.4 leaves 30 %: {share}");
        for member in &first {
            member.host.health.set_ejected(true);
        }
        let members = Members::new(all, LEAST_REQUEST, 0);
        assert_eq!(shares(&members, LEAST_REQUEST, 100)[&spare.host.address], 100);
    }

    #[test]
    fn fact_29_with_panic_off_no_healthy_host_means_no_host() {
        let only = member(1, 1, 0);
        only.host.health.set_ejected(true);
        let rotation = AtomicUsize::new(0);
        let members = Members::new(vec![only.clone()], LEAST_REQUEST, 0);
        assert!(members.choose(LEAST_REQUEST, &rotation, Choice::default()).is_none());
        let panicking = Members::new(vec![only], LEAST_REQUEST, 50);
        assert!(panicking.choose(LEAST_REQUEST, &rotation, Choice::default()).is_some());
    }

    #[test]
    fn fact_17_a_retry_prefers_another_host() {
        let (first, second) = (member(1, 1, 0), member(2, 1, 0));
        let members = Members::new(vec![first.clone(), second], LEAST_REQUEST, 0);
        let rotation = AtomicUsize::new(0);
        let avoid = [first.host.address];
        let same = (0..1000)
            .filter(|_| {
                let choice = Choice { avoid: &avoid, ..Choice::default() };
                members.choose(LEAST_REQUEST, &rotation, choice).unwrap().address == first.host.address
            })
            .count();
        assert!(same < 60, "1/64 is expected after five re-draws: {same}");
    }
}
