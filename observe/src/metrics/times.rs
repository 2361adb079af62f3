//! When samples were taken. The series of one target are scraped at the same moments: they share them, which saves the memory of
//! writing them down for each, and the time of reading them.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use super::chunk::Millis;

/// Most moments of a block, and samples of a chunk: forty minutes of a lab. Nineteen of twenty series of a lab stand still: what
/// they take is their chunks' heads.
pub(crate) const BLOCK: usize = 480;

/// Some moments of one target, in ascending order. Whoever knows of a place has been told after it was filled.
pub(crate) struct Block([AtomicI64; BLOCK]);

impl Block {
    pub(crate) fn get(&self, index: usize) -> Millis {
        self.0[index].load(Ordering::Relaxed)
    }

    pub(crate) fn copy(&self, range: std::ops::Range<usize>, times: &mut Vec<Millis>) {
        times.extend(self.0[range].iter().map(|time| time.load(Ordering::Relaxed)));
    }
}

impl std::fmt::Debug for Block {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Block")
    }
}

/// A time, and where it is written down for all who share it.
#[derive(Debug, Clone)]
pub(crate) struct Moment {
    pub(crate) time: Millis,
    /// The block, and the place in it.
    pub(crate) place: Option<(Arc<Block>, u16)>,
}

impl Moment {
    /// A time that nobody shares.
    pub(crate) fn lone(time: Millis) -> Self {
        Self { time, place: None }
    }
}

/// The moments of one target.
#[derive(Debug, Default)]
pub(crate) struct Timeline {
    /// The latest moment.
    last: Option<Moment>,
}

impl Timeline {
    /// The moment of `time`: the latest one again, or a new one. A time before that has no place.
    pub(crate) fn at(&mut self, time: Millis) -> Moment {
        let place = match &self.last {
            Some(last) if last.time == time => return last.clone(),
            Some(last) if last.time > time => return Moment::lone(time),
            Some(Moment { place: Some((block, index)), .. }) if usize::from(*index) + 1 < BLOCK => (block.clone(), index + 1),
            _ => (Arc::new(Block([const { AtomicI64::new(0) }; BLOCK])), 0),
        };
        place.0.0[usize::from(place.1)].store(time, Ordering::Relaxed);
        let moment = Moment { time, place: Some(place) };
        self.last = Some(moment.clone());
        moment
    }
}
