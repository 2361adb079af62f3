//! The time series, in memory, bounded by age, number and bytes. What does not fit is counted.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ahash::{AHashMap, AHashSet, RandomState};
use hashbrown::HashTable;
use parking_lot::{RwLock, RwLockWriteGuard};

use super::chunk::{Chunk, Millis, Sample};
use super::columns::Columns;
use super::labels::{Labels, Pair, pair};
use super::matcher::{Condition, Matcher};
use super::times::Moment;

/// How much is kept.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Samples older than this are forgotten, in milliseconds.
    pub retention: i64,
    /// Most series at a time.
    pub series: usize,
    /// Most bytes of samples; when there are more, the oldest go before their time.
    pub bytes: usize,
    /// Most samples of one scrape.
    pub samples_per_scrape: usize,
    /// Most labels of one series.
    pub labels: usize,
    /// Longest label value, in bytes.
    pub label_value: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            retention: 3_600_000,
            series: 300_000,
            bytes: 128 << 20,
            samples_per_scrape: 50_000,
            labels: 64,
            label_value: 4096,
        }
    }
}

/// Times of samples, far beyond what a clock can show, whose distances and sums are times as well.
const TIMES: std::ops::Range<Millis> = -(1 << 52)..1 << 52;

/// What was not kept, by reason.
#[derive(Debug, Default)]
pub(crate) struct Dropped {
    /// There were too many series.
    pub(crate) series_limit: AtomicU64,
    /// A series had too many or too long labels.
    pub(crate) label_limit: AtomicU64,
    /// A sample was not newer than the one before.
    pub(crate) out_of_order: AtomicU64,
    /// A sample was of a time that cannot be.
    pub(crate) out_of_bounds: AtomicU64,
    /// Chunks were forgotten before their time.
    pub(crate) early: AtomicU64,
}

impl Dropped {
    pub(crate) fn read(&self) -> [(&'static str, u64); 5] {
        [
            ("series_limit", self.series_limit.load(Ordering::Relaxed)),
            ("label_limit", self.label_limit.load(Ordering::Relaxed)),
            ("out_of_order", self.out_of_order.load(Ordering::Relaxed)),
            ("out_of_bounds", self.out_of_bounds.load(Ordering::Relaxed)),
            ("memory_limit", self.early.load(Ordering::Relaxed)),
        ]
    }
}

/// A series' place; invalid once the series is forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SeriesRef {
    slot: u32,
    generation: u32,
}

/// The store.
#[derive(Debug)]
pub(crate) struct Tsdb {
    pub(crate) limits: Limits,
    pub(crate) dropped: Dropped,
    head: RwLock<Head>,
}

#[derive(Debug, Default)]
struct Head {
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// Slots by the hash of their series' labels, which are there already.
    by_labels: HashTable<u32>,
    hasher: RandomState,
    /// Name, value: the label itself, which its series share, and their slots in ascending order.
    index: AHashMap<Box<str>, AHashMap<Box<str>, Posting>>,
    appended: u64,
}

#[derive(Debug)]
struct Posting {
    pair: Pair,
    slots: Vec<u32>,
}

#[derive(Debug)]
struct Slot {
    generation: u32,
    series: Option<Series>,
}

#[derive(Debug)]
struct Series {
    labels: Labels,
    /// A reader shares them; the last one is copied if it is appended to meanwhile.
    chunks: Vec<Arc<Chunk>>,
}

/// A sample is not newer than the one before.
struct OutOfOrder;

impl Series {
    fn append(&mut self, moment: &Moment, value: f64) -> Result<(), OutOfOrder> {
        let next = match self.chunks.last_mut() {
            None => Chunk::new(moment, value),
            Some(last) if last.last().time >= moment.time => return Err(OutOfOrder),
            Some(last) if last.takes(moment) => {
                Arc::make_mut(last).push(moment, value);
                return Ok(());
            }
            Some(last) => {
                let lone = last.is_out_of_step(moment);
                Arc::make_mut(last).close();
                Chunk::new(&if lone { Moment::lone(moment.time) } else { moment.clone() }, value)
            }
        };
        // There are few: room for exactly them.
        self.chunks.reserve_exact(1);
        self.chunks.push(Arc::new(next));
        Ok(())
    }
}

/// A series that was asked for, with the chunks that may have samples of the time asked for.
#[derive(Debug, Clone)]
pub(crate) struct Selected {
    pub(crate) labels: Labels,
    chunks: Vec<Arc<Chunk>>,
}

impl Selected {
    pub(crate) fn chunks(&self) -> &[Arc<Chunk>] {
        &self.chunks
    }

    /// The latest sample that is not after `until`, which may be the mark of an end.
    pub(crate) fn latest(&self, until: Millis) -> Option<Sample> {
        let chunk = self.chunks.iter().rev().find(|chunk| chunk.first() <= until)?;
        let last = chunk.last();
        if last.time <= until {
            return Some(last);
        }
        let mut columns = Columns::default();
        columns.read_chunk(chunk);
        columns.latest(until)
    }
}

/// How full the store is.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Size {
    pub(crate) series: usize,
    pub(crate) chunks: usize,
    pub(crate) samples: usize,
    pub(crate) bytes: usize,
    pub(crate) appended: u64,
}

impl Tsdb {
    pub(crate) fn new(limits: Limits) -> Self {
        Self { limits, dropped: Dropped::default(), head: RwLock::default() }
    }

    /// Exclusive access for a batch of samples.
    pub(crate) fn appender(&self) -> Appender<'_> {
        Appender { tsdb: self, head: self.head.write() }
    }

    /// The series that fulfil `matchers` and have chunks within `after < time <= until`.
    pub(crate) fn select(&self, matchers: &[Matcher], after: Millis, until: Millis) -> Vec<Selected> {
        let head = self.head.read();
        let overlaps = |chunk: &&Arc<Chunk>| chunk.last().time > after && chunk.first() <= until;
        head.matching(matchers)
            .filter_map(|series| {
                let chunks: Vec<_> = series.chunks.iter().filter(overlaps).cloned().collect();
                (!chunks.is_empty()).then(|| Selected { labels: series.labels.clone(), chunks })
            })
            .collect()
    }

    /// Every label name of the series selected.
    pub(crate) fn label_names(&self, selectors: &[Vec<Matcher>], after: Millis, until: Millis) -> BTreeSet<String> {
        let mut names = BTreeSet::new();
        for selected in self.select_any(selectors, after, until) {
            selected
                .pairs()
                .iter()
                .filter(|pair| !names.contains(&*pair.0))
                .map(|pair| pair.0.to_string())
                .collect::<Vec<_>>()
                .into_iter()
                .for_each(|name| {
                    names.insert(name);
                });
        }
        names
    }

    /// Every value of label `name` among the series selected.
    pub(crate) fn label_values(&self, name: &str, selectors: &[Vec<Matcher>], after: Millis, until: Millis) -> BTreeSet<String> {
        let selected = self.select_any(selectors, after, until);
        selected.iter().map(|labels| labels.get(name)).filter(|value| !value.is_empty()).map(str::to_owned).collect()
    }

    /// The label sets that any of `selectors` selects, sorted; all if there is no selector.
    pub(crate) fn select_any(&self, selectors: &[Vec<Matcher>], after: Millis, until: Millis) -> BTreeSet<Labels> {
        let everything = [Vec::new()];
        let selectors = if selectors.is_empty() { &everything } else { selectors };
        selectors.iter().flat_map(|matchers| self.select(matchers, after, until)).map(|selected| selected.labels).collect()
    }

    /// How full it is; walks every series.
    pub(crate) fn size(&self) -> Size {
        let head = self.head.read();
        let mut size = Size { series: head.by_labels.len(), appended: head.appended, ..Size::default() };
        for chunk in head.slots.iter().filter_map(|slot| slot.series.as_ref()).flat_map(|series| &series.chunks) {
            size.chunks += 1;
            size.samples += chunk.len();
            size.bytes += chunk.size();
        }
        size
    }

    /// Forgets what is too old at `now`, and the oldest of the rest while it takes too much memory.
    pub(crate) fn collect_garbage(&self, now: Millis) {
        let mut cutoff = now - self.limits.retention;
        let mut head = self.head.write();
        head.forget_before(cutoff);
        head.shrink();
        drop(head);
        while self.size().bytes > self.limits.bytes && cutoff < now {
            cutoff += (self.limits.retention / 10).max(1);
            let early = self.head.write().forget_before(cutoff);
            self.dropped.early.fetch_add(early, Ordering::Relaxed);
        }
    }
}

/// Appends samples; readers wait meanwhile.
pub(crate) struct Appender<'a> {
    tsdb: &'a Tsdb,
    head: RwLockWriteGuard<'a, Head>,
}

impl Appender<'_> {
    /// As [`place`](Self::place).
    pub(crate) fn series(&mut self, labels: Labels) -> Option<SeriesRef> {
        self.place(&borrowed(&labels).collect::<Vec<_>>())
    }

    /// The place of the series with `labels`, new or known; `None` when a limit forbids a new one (which is counted). The labels are
    /// as in [`Labels`]: sorted, distinct, not empty. Nothing is allocated for those that other series have.
    pub(crate) fn place(&mut self, labels: &[(&str, &str)]) -> Option<SeriesRef> {
        let hash = hash(&self.head.hasher, labels.iter().copied());
        if let Some(slot) = self.head.find(hash, labels) {
            return Some(SeriesRef { slot, generation: self.head.slots[slot as usize].generation });
        }
        let (limits, dropped) = (&self.tsdb.limits, &self.tsdb.dropped);
        if labels.len() > limits.labels || labels.iter().any(|(name, value)| name.len() > 256 || value.len() > limits.label_value)
        {
            dropped.label_limit.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        if self.head.by_labels.len() >= limits.series {
            dropped.series_limit.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        Some(self.head.create(hash, labels))
    }

    /// Appends a sample whose time nobody shares.
    pub(crate) fn append(&mut self, reference: SeriesRef, sample: Sample) -> bool {
        self.append_at(reference, &Moment::lone(sample.time), sample.value)
    }

    /// Appends to a series; `false` if the series has been forgotten meanwhile. A sample that is not newer, or of a time that cannot
    /// be, is dropped and counted.
    pub(crate) fn append_at(&mut self, reference: SeriesRef, moment: &Moment, value: f64) -> bool {
        let slot = self.head.slots.get_mut(reference.slot as usize).filter(|slot| slot.generation == reference.generation);
        let Some(series) = slot.and_then(|slot| slot.series.as_mut()) else { return false };
        if !TIMES.contains(&moment.time) {
            self.tsdb.dropped.out_of_bounds.fetch_add(1, Ordering::Relaxed);
        } else if series.append(moment, value).is_err() {
            self.tsdb.dropped.out_of_order.fetch_add(1, Ordering::Relaxed);
        } else {
            self.head.appended += 1;
        }
        true
    }
}

/// Names and values.
fn borrowed(labels: &Labels) -> impl Iterator<Item = (&str, &str)> {
    labels.pairs().iter().map(|pair| (&*pair.0, &*pair.1))
}

fn hash<'a>(hasher: &RandomState, labels: impl Iterator<Item = (&'a str, &'a str)>) -> u64 {
    let mut hasher = hasher.build_hasher();
    labels.for_each(|label| label.hash(&mut hasher));
    hasher.finish()
}

impl Head {
    fn find(&self, hash: u64, labels: &[(&str, &str)]) -> Option<u32> {
        let is_it = |slot: &u32| {
            let series = self.slots[*slot as usize].series.as_ref();
            series.is_some_and(|series| borrowed(&series.labels).eq(labels.iter().copied()))
        };
        self.by_labels.find(hash, is_it).copied()
    }

    fn create(&mut self, hash_of_labels: u64, labels: &[(&str, &str)]) -> SeriesRef {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { generation: 0, series: None });
            (self.slots.len() - 1) as u32
        });
        let mut shared = Vec::with_capacity(labels.len());
        for (name, value) in labels {
            if !self.index.contains_key(*name) {
                self.index.insert((*name).into(), AHashMap::new());
            }
            let Some(values) = self.index.get_mut(*name) else { continue };
            if !values.contains_key(*value) {
                values.insert((*value).into(), Posting { pair: pair(name, value), slots: Vec::new() });
            }
            let Some(posting) = values.get_mut(*value) else { continue };
            let at = posting.slots.partition_point(|known| *known < slot);
            posting.slots.insert(at, slot);
            shared.push(posting.pair.clone());
        }
        let place = &mut self.slots[slot as usize];
        place.series = Some(Series { labels: Labels::new(shared), chunks: Vec::new() });
        let reference = SeriesRef { slot, generation: place.generation };
        let (slots, hasher) = (&self.slots, &self.hasher);
        let rehash =
            |slot: &u32| slots[*slot as usize].series.as_ref().map_or(0, |series| hash(hasher, borrowed(&series.labels)));
        self.by_labels.insert_unique(hash_of_labels, slot, rehash);
        reference
    }

    /// Series that fulfil `matchers`, found by the shortest list of the index.
    fn matching<'a>(&'a self, matchers: &'a [Matcher]) -> impl Iterator<Item = &'a Series> + 'a {
        let equal = matchers.iter().enumerate().filter_map(|(place, matcher)| match &matcher.condition {
            Condition::Equal(value) if !value.is_empty() => {
                let posting = self.index.get(&*matcher.name).and_then(|values| values.get(&**value));
                Some((place, posting.map_or(&[][..], |posting| &posting.slots)))
            }
            _ => None,
        });
        let shortest = equal.min_by_key(|(_, slots)| slots.len());
        let chosen = shortest.map(|(place, _)| place);
        let candidates: Box<dyn Iterator<Item = u32>> = match shortest {
            Some((_, slots)) => Box::new(slots.iter().copied()),
            None => match matchers.iter().find(|matcher| !matcher.matches("")) {
                Some(matcher) => {
                    let values = self.index.get(&*matcher.name);
                    let matching = values.into_iter().flatten().filter(|(value, _)| matcher.matches(value));
                    let mut slots: Vec<u32> = matching.flat_map(|(_, posting)| posting.slots.iter().copied()).collect();
                    // In the order in which they were made, lest equal questions have unequal answers where there is a tie.
                    slots.sort_unstable();
                    Box::new(slots.into_iter())
                }
                None => Box::new(0..self.slots.len() as u32),
            },
        };
        candidates.filter_map(|slot| self.slots.get(slot as usize)?.series.as_ref()).filter(move |series| {
            let rest = matchers.iter().enumerate().filter(|(place, _)| Some(*place) != chosen);
            rest.map(|(_, matcher)| matcher).all(|matcher| matcher.matches(series.labels.get(&matcher.name)))
        })
    }

    /// Gives back the room that lists of series had for more, where it is a lot.
    fn shrink(&mut self) {
        for posting in self.index.values_mut().flat_map(|values| values.values_mut()) {
            let few = posting.slots.len() + posting.slots.len() / 8;
            if posting.slots.capacity() > few {
                posting.slots.shrink_to(few);
            }
        }
    }

    /// Forgets chunks that end before `cutoff`, and series without chunks. Yields how many chunks.
    fn forget_before(&mut self, cutoff: Millis) -> u64 {
        let mut chunks = 0;
        let mut dead = AHashSet::new();
        for (slot, place) in self.slots.iter_mut().enumerate() {
            let Some(series) = &mut place.series else { continue };
            let old = series.chunks.iter().take_while(|chunk| chunk.last().time < cutoff).count();
            series.chunks.drain(..old);
            chunks += old as u64;
            if series.chunks.is_empty() {
                let of_it =
                    self.by_labels.find_entry(hash(&self.hasher, borrowed(&series.labels)), |there| *there as usize == slot);
                if let Ok(entry) = of_it {
                    entry.remove();
                }
                place.series = None;
                place.generation = place.generation.wrapping_add(1);
                dead.insert(slot as u32);
            }
        }
        if !dead.is_empty() {
            self.index.retain(|_, values| {
                values.retain(|_, posting| {
                    posting.slots.retain(|slot| !dead.contains(slot));
                    !posting.slots.is_empty()
                });
                !values.is_empty()
            });
            self.free.extend(dead);
        }
        chunks
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::times::{BLOCK, Timeline};

    fn add(tsdb: &Tsdb, labels: &[(&str, &str)], time: Millis, value: f64) -> Option<SeriesRef> {
        let mut appender = tsdb.appender();
        let reference = appender.series(Labels::of(labels.iter().copied()))?;
        appender.append(reference, Sample { time, value });
        Some(reference)
    }

    fn equal(name: &str, value: &str) -> Matcher {
        Matcher { name: name.to_owned(), condition: Condition::Equal(value.to_owned()) }
    }

    #[test]
    fn series_are_bounded_and_what_is_dropped_is_counted() {
        let tsdb = Tsdb::new(Limits { series: 2, label_value: 10, ..Limits::default() });
        for value in ["a", "b", "c", "b"] {
            add(&tsdb, &[("__name__", "m"), ("x", value)], 1000, 1.0);
        }
        add(&tsdb, &[("__name__", "m"), ("x", "12345678901")], 1000, 1.0);
        assert_eq!(tsdb.size().series, 2);
        add(&tsdb, &[("__name__", "m"), ("x", "a")], Millis::MAX, 1.0);
        add(&tsdb, &[("__name__", "m"), ("x", "a")], Millis::MIN, 1.0);
        let dropped = tsdb.dropped.read();
        assert_eq!(
            dropped,
            [("series_limit", 1), ("label_limit", 1), ("out_of_order", 1), ("out_of_bounds", 2), ("memory_limit", 0)]
        );
    }

    #[test]
    fn a_forgotten_series_is_gone_from_the_index_and_its_place_is_invalid() {
        let tsdb = Tsdb::new(Limits { retention: 10_000, ..Limits::default() });
        let old = add(&tsdb, &[("__name__", "old"), ("x", "1")], 1000, 1.0).unwrap();
        add(&tsdb, &[("__name__", "new"), ("x", "1")], 20_000, 1.0);
        tsdb.collect_garbage(21_000);
        assert!(tsdb.select(&[equal("__name__", "old")], 0, i64::MAX).is_empty());
        assert_eq!(tsdb.select(&[equal("x", "1")], 0, i64::MAX).len(), 1);
        let again = add(&tsdb, &[("__name__", "other")], 20_000, 1.0).unwrap();
        assert_eq!(again.slot, old.slot);
        assert!(!tsdb.appender().append(old, Sample { time: 30_000, value: 2.0 }));
    }

    #[test]
    fn memory_is_bounded_by_forgetting_the_oldest() {
        let tsdb = Tsdb::new(Limits { bytes: 20_000, retention: 1_000_000, ..Limits::default() });
        for tick in 1..=1000 {
            for series in ["a", "b", "c", "d"] {
                add(&tsdb, &[("__name__", series)], tick * 1000, f64::from(tick as u32).sqrt());
            }
        }
        tsdb.collect_garbage(1_000_000);
        assert!(tsdb.size().bytes <= 20_000);
        assert_eq!(tsdb.size().series, 4);
        assert!(tsdb.dropped.early.load(Ordering::Relaxed) > 0);
    }

    #[test]
    fn a_readers_samples_do_not_change_under_it() {
        let tsdb = Tsdb::new(Limits::default());
        add(&tsdb, &[("__name__", "m")], 1000, 1.0);
        let read = tsdb.select(&[equal("__name__", "m")], 0, 9000);
        add(&tsdb, &[("__name__", "m")], 2000, 2.0);
        let samples = |selected: &Selected, after, until| {
            let mut columns = Columns::default();
            columns.read(selected, None, (after, until));
            columns.samples().values.to_vec()
        };
        assert_eq!(samples(&read[0], 0, 9000), [1.0]);
        assert_eq!(samples(&tsdb.select(&[], 0, 9000)[0], 1000, 2000), [2.0]);
    }

    #[test]
    fn series_of_one_target_share_their_times_and_one_that_was_missing_has_its_own() {
        const TICKS: Millis = 2 * BLOCK as Millis + 20;
        let (tsdb, mut timeline) = (Tsdb::new(Limits::default()), Timeline::default());
        let mut appender = tsdb.appender();
        let series: Vec<_> =
            ["always", "gap"].into_iter().map(|name| appender.series(Labels::of([("__name__", name)])).unwrap()).collect();
        for tick in 0..TICKS {
            let moment = timeline.at(tick * 5000);
            assert!(appender.append_at(series[0], &moment, tick as f64));
            if tick != 100 {
                assert!(appender.append_at(series[1], &moment, tick as f64));
            }
        }
        drop(appender);
        let of = |name| tsdb.select(&[equal("__name__", name)], -1, i64::MAX).remove(0);
        let (always, gap) = (of("always"), of("gap"));
        assert_eq!([always.chunks.len(), gap.chunks.len()], [3, 4]);
        assert!(gap.chunks[3].has_times_of(&always.chunks[2]), "the next block is shared again");
        let mut columns = Columns::default();
        columns.read(&gap, None, (-1, i64::MAX));
        let expected: Vec<f64> = (0..TICKS).filter(|tick| *tick != 100).map(|tick| tick as f64).collect();
        assert_eq!(columns.samples().values, expected);
        assert_eq!(columns.samples().times.iter().map(|time| *time as f64 / 5000.0).collect::<Vec<_>>(), expected);
        let latest = |until| gap.latest(until).map(|sample| (sample.time, sample.value));
        assert_eq!(
            [latest(-1), latest(502_000), latest(i64::MAX)],
            [None, Some((495_000, 99.0)), Some(((TICKS - 1) * 5000, (TICKS - 1) as f64))]
        );
    }
}
