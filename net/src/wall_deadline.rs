//! Deadlines that go on while the machine sleeps. They stand here because cluster and mesh need them and share nothing else.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

/// How late a deadline may be noticed after the machine slept.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// A moment by the clock on the wall, such as the end of a token's or a certificate's life.
///
/// The timers of a process stand still while a laptop is closed (`CLOCK_MONOTONIC` on Linux), but tokens and certificates expire
/// meanwhile: one that was to be renewed in half an hour by such a timer would be of no use for that half hour after a night.
#[derive(Debug, Clone, Copy)]
pub struct WallDeadline {
    at: SystemTime,
    /// When the clock on the wall is set back, the deadline does not move away.
    latest: Instant,
}

impl WallDeadline {
    /// The moment `pause` from now.
    pub fn after(pause: Duration) -> Self {
        Self { at: SystemTime::now() + pause, latest: Instant::now() + pause }
    }

    /// Whether it has come.
    pub fn is_over(&self) -> bool {
        self.left().is_zero()
    }

    /// Waits until it has come, or until at most ten seconds after the machine woke up.
    pub async fn wait(&self) {
        loop {
            let left = self.left();
            if left.is_zero() {
                return;
            }
            tokio::time::sleep(left.min(LOOK_AGAIN)).await;
        }
    }

    fn left(&self) -> Duration {
        let by_wall = self.at.duration_since(SystemTime::now()).unwrap_or_default();
        by_wall.min(self.latest.saturating_duration_since(Instant::now()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_comes_by_either_clock() {
        let deadline = WallDeadline::after(Duration::from_secs(3600));
        assert!(!deadline.is_over());
        // The machine slept: an hour has gone on the wall only.
        assert!(WallDeadline { at: SystemTime::now() - Duration::from_secs(1), ..deadline }.is_over());
        // The clock on the wall was set back by a day: the time has gone for the process only.
        let soon = WallDeadline::after(Duration::from_millis(20));
        let set_back = WallDeadline { at: soon.at + Duration::from_secs(86_400), ..soon };
        set_back.wait().await;
        assert!(set_back.is_over());
    }
}
