//! When a probe is made, and which tries count. No input or output here.

use std::time::Duration;

use tokio::time::Instant;

/// The first extra try of an eager probe comes so soon after the start; each further one waits twice as long.
const EAGER: Duration = Duration::from_millis(5);

/// The times of one probe.
///
/// An eager probe is also tried between its regular times, until its first success or until one period has passed, so that a
/// container is ready milliseconds after it listens. The failures of that first period do not count: nobody listens yet.
pub(super) struct Schedule {
    begin: Instant,
    period: Duration,
    regular: Instant,
    extra: Option<Duration>,
}

impl Schedule {
    /// A schedule that begins with a try at `begin`.
    pub(super) fn new(begin: Instant, period: Duration, eager: bool) -> Self {
        Self { begin, period, regular: begin, extra: eager.then_some(EAGER) }
    }

    /// Whether a failure of the try made at `made` counts.
    pub(super) fn counts_failure(&self, made: Instant) -> bool {
        self.extra.is_none() || made >= self.begin + self.period
    }

    /// When to try next, after a try made at `made` that has ended at `now`.
    pub(super) fn next(&mut self, made: Instant, now: Instant, succeeded: bool) -> Instant {
        if made >= self.regular {
            // After a long pause (a suspended laptop) there is no catching up.
            self.regular = (self.regular + self.period).max(now);
        }
        if succeeded || now >= self.begin + self.period {
            self.extra = None;
        }
        match &mut self.extra {
            Some(wait) => {
                let next = (now + *wait).min(self.regular);
                *wait *= 2;
                next
            }
            None => self.regular,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(eager: bool, ready_at: u64, tries: usize) -> Vec<(u64, bool)> {
        let begin = Instant::now();
        let mut schedule = Schedule::new(begin, Duration::from_secs(1), eager);
        let mut at = begin;
        let mut times = Vec::new();
        for _ in 0..tries {
            let elapsed = u64::try_from(at.duration_since(begin).as_millis()).unwrap();
            times.push((elapsed, schedule.counts_failure(at)));
            at = schedule.next(at, at, elapsed >= ready_at);
        }
        times
    }

    #[test]
    fn a_plain_probe_keeps_its_period_and_every_failure_counts() {
        assert_eq!(times(false, 0, 3), [(0, true), (1000, true), (2000, true)]);
    }

    #[test]
    fn an_eager_probe_finds_a_listener_soon_and_then_keeps_its_period() {
        assert_eq!(times(true, 30, 6), [(0, false), (5, false), (15, false), (35, false), (1000, true), (2000, true)]);
    }

    #[test]
    fn an_eager_probe_without_success_becomes_a_plain_one() {
        let times = times(true, u64::MAX, 11);
        assert_eq!(times[7..], [(635, false), (1000, true), (2000, true), (3000, true)]);
    }
}
