//! Pauses between attempts to reach the control plane.

use std::time::{Duration, Instant};

const SHORTEST: Duration = Duration::from_millis(25);
const LONGEST: Duration = Duration::from_secs(5);

/// An eighth of the time for which nothing has worked, from 25 ms to 5 s: a control plane that comes up is found soon after, however
/// long it took, and one that is away for long is not asked all the time. With jitter, so that proxies do not all come at once.
pub(crate) struct Backoff {
    failing_since: Option<Instant>,
    /// Differs between proxies; no quality is needed of it.
    seed: u64,
}

impl Backoff {
    /// `seed` should differ between proxies.
    pub(crate) fn new(seed: u64) -> Self {
        Self { failing_since: None, seed: seed | 1 }
    }

    /// The attempt was a success: the next pause is short again.
    pub(crate) fn reset(&mut self) {
        self.failing_since = None;
    }

    /// The pause after an attempt that failed.
    pub(crate) fn pause(&mut self) -> Duration {
        let failing = self.failing_since.get_or_insert_with(Instant::now).elapsed();
        // xorshift64 (Marsaglia 2003).
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        pause(failing, self.seed)
    }
}

/// Between half and all of the step.
fn pause(failing: Duration, random: u64) -> Duration {
    let step = (failing / 8).clamp(SHORTEST, LONGEST);
    step / 2 + step / 2 * u32::try_from(random % 1000).unwrap_or(0) / 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_with_the_outage() {
        for (failing, step) in [(0, 25), (200, 25), (800, 100), (40_000, 5000), (3_600_000, 5000)] {
            let step = Duration::from_millis(step);
            for random in [0, 500, 999, u64::MAX] {
                let pause = pause(Duration::from_millis(failing), random);
                assert!(pause >= step / 2 && pause <= step, "{failing}: {pause:?}");
            }
        }
    }

    #[test]
    fn a_success_starts_over() {
        let mut backoff = Backoff::new(7);
        backoff.pause();
        backoff.failing_since = Instant::now().checked_sub(Duration::from_secs(60));
        assert!(backoff.pause() > SHORTEST);
        backoff.reset();
        assert!(backoff.pause() <= SHORTEST);
    }
}
