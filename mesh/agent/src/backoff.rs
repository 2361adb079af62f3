//! Pauses between attempts to reach the control plane.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(25);
const LONGEST: Duration = Duration::from_secs(5);

/// Doubles from 25 ms to 5 s, with jitter, so that the proxies of a restarted control plane do not all come at once.
pub(crate) struct Backoff {
    next: Duration,
    /// Differs between proxies; no quality is needed of it.
    seed: u64,
}

impl Backoff {
    /// `seed` should differ between proxies.
    pub(crate) fn new(seed: u64) -> Self {
        Self { next: FIRST, seed: seed | 1 }
    }

    /// The attempt was a success: the next pause is short again.
    pub(crate) fn reset(&mut self) {
        self.next = FIRST;
    }

    /// The next pause, between half and all of the current step.
    pub(crate) fn pause(&mut self) -> Duration {
        // xorshift64 (Marsaglia 2003).
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        let share = u32::try_from(self.seed % 1000).unwrap_or(0);
        let pause = self.next / 2 + self.next / 2 * share / 1000;
        self.next = (self.next * 2).min(LONGEST);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_limit_and_start_over() {
        let mut backoff = Backoff::new(7);
        let pauses: Vec<_> = (0..20).map(|_| backoff.pause()).collect();
        assert!(pauses[0] <= FIRST && pauses[0] >= FIRST / 2);
        assert!(pauses[19] <= LONGEST && pauses[19] >= LONGEST / 2);
        backoff.reset();
        assert!(backoff.pause() <= FIRST);
    }
}
