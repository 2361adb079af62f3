//! Samples of one series, compressed.
//!
//! Whole numbers, which counters are, are written as the change of their growth: a counter under steady traffic takes a byte a
//! sample, and one that stands still, or grows evenly, two bytes for 255. Other values are written as the difference of their
//! bits to the ones before. Times are those of the target's scrapes ([`Block`]), or are kept as they are.

use std::sync::Arc;

use super::times::{BLOCK, Block, Moment};

/// A point in time: milliseconds since 1970.
pub(crate) type Millis = i64;

/// The NaN that says: this series has ended here.
const STALE_BITS: u64 = 0x7ff0_0000_0000_0002;

/// The value that marks the end of a series.
pub(crate) fn stale() -> f64 {
    f64::from_bits(STALE_BITS)
}

/// Whether `value` marks the end of a series; an ordinary NaN does not.
pub(crate) fn is_stale(value: f64) -> bool {
    value.to_bits() == STALE_BITS
}

/// One measurement.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Sample {
    pub(crate) time: Millis,
    pub(crate) value: f64,
}

/// A run of samples in ascending order of time, at least one.
#[derive(Debug, Clone)]
pub(crate) struct Chunk {
    times: Times,
    values: Values,
}

#[derive(Debug, Clone)]
enum Times {
    /// From this place on, one for each value.
    Shared(Arc<Block>, u16),
    /// Of a series that brings its own times, or is not in every scrape of its target.
    Own(Vec<Millis>),
}

impl Chunk {
    /// Of one sample, with its target's times if it has a place among them.
    pub(crate) fn new(moment: &Moment, value: f64) -> Self {
        let times = match &moment.place {
            Some((block, start)) => Times::Shared(block.clone(), *start),
            None => Times::Own(vec![moment.time]),
        };
        Self { times, values: Values::of(value) }
    }

    /// Whether its series is not in every scrape of one target, as `moment`, which it does not [take](Self::takes), tells.
    pub(crate) fn is_out_of_step(&self, moment: &Moment) -> bool {
        match (&self.times, &moment.place) {
            (Times::Shared(own, _), Some((block, _))) => Arc::ptr_eq(own, block) || self.len() == 1,
            _ => false,
        }
    }

    /// Whether a sample of `moment` can be appended.
    pub(crate) fn takes(&self, moment: &Moment) -> bool {
        match (&self.times, &moment.place) {
            (Times::Shared(own, start), Some((block, index))) => {
                Arc::ptr_eq(own, block) && usize::from(*index) == usize::from(*start) + self.len()
            }
            (Times::Shared(..), None) => false,
            (Times::Own(times), _) => times.len() < BLOCK,
        }
    }

    /// Appends a sample of a later moment that it [takes](Self::takes).
    pub(crate) fn push(&mut self, moment: &Moment, value: f64) {
        if let Times::Own(times) = &mut self.times {
            times.push(moment.time);
        }
        self.values.push(value);
    }

    /// Nothing more will come.
    pub(crate) fn close(&mut self) {
        self.values.tokens.shrink_to_fit();
        if let Times::Own(times) = &mut self.times {
            times.shrink_to_fit();
        }
    }

    pub(crate) fn first(&self) -> Millis {
        match &self.times {
            Times::Shared(block, start) => block.get(usize::from(*start)),
            Times::Own(times) => times.first().copied().unwrap_or_default(),
        }
    }

    pub(crate) fn last(&self) -> Sample {
        let time = match &self.times {
            Times::Shared(block, start) => block.get(usize::from(*start) + self.len() - 1),
            Times::Own(times) => times.last().copied().unwrap_or_default(),
        };
        Sample { time, value: f64::from_bits(self.values.last) }
    }

    pub(crate) fn len(&self) -> usize {
        usize::from(self.values.count)
    }

    /// Whether the mark of an end is among the values.
    pub(crate) fn has_end(&self) -> bool {
        self.values.has_end
    }

    /// Memory used, in bytes.
    pub(crate) fn size(&self) -> usize {
        let times = match &self.times {
            Times::Shared(..) => 0,
            Times::Own(times) => times.capacity() * size_of::<Millis>(),
        };
        size_of::<Self>() + self.values.tokens.capacity() + times
    }

    /// Whether it has the times of `other` without a look at them.
    pub(crate) fn has_times_of(&self, other: &Self) -> bool {
        match (&self.times, &other.times) {
            (Times::Shared(block, start), Times::Shared(others, at)) => {
                Arc::ptr_eq(block, others) && start == at && self.len() == other.len()
            }
            _ => false,
        }
    }

    /// Appends its times.
    pub(crate) fn times(&self, times: &mut Vec<Millis>) {
        match &self.times {
            Times::Shared(block, start) => block.copy(usize::from(*start)..usize::from(*start) + self.len(), times),
            Times::Own(own) => times.extend(own),
        }
    }

    /// Appends its values.
    pub(crate) fn values(&self, values: &mut Vec<f64>) {
        self.values.read(values);
    }
}

/// Token: the growth is as before; the byte behind it says for how many values.
const RUN: u8 = 0;
/// Token: what follows is the difference of the bits, reversed, as those of short numbers differ in the highest ones only. Every
/// other token is one more than the [`zigzag`] of the change of the growth.
const BITS: u8 = 1;

/// Most bytes of a token with what follows it.
const TOKEN: usize = 11;

/// Values, and the state in which the next one is written.
#[derive(Debug, Clone)]
struct Values {
    /// Bits of the first one.
    first: u64,
    /// Tokens of the others.
    tokens: Vec<u8>,
    /// Bits of the last one.
    last: u64,
    /// How much it was more than the one before; 0 unless both are whole.
    growth: i64,
    count: u16,
    /// The last byte is the length of a run.
    running: bool,
    /// A mark of an end is among them.
    has_end: bool,
}

impl Values {
    fn of(value: f64) -> Self {
        let bits = value.to_bits();
        Self { first: bits, tokens: Vec::new(), last: bits, growth: 0, count: 1, running: false, has_end: is_stale(value) }
    }

    fn push(&mut self, value: f64) {
        let growth = match (whole(f64::from_bits(self.last)), whole(value)) {
            (Some(before), Some(now)) => Some(now - before),
            _ => (self.last == value.to_bits()).then_some(0),
        };
        let change = growth.map(|growth| growth - self.growth);
        if self.tokens.capacity() - self.tokens.len() < TOKEN {
            // Twice as much, as a vector takes, would be half empty on the average.
            self.tokens.reserve_exact(TOKEN + self.tokens.len() / 8);
        }
        match (change, self.tokens.last_mut()) {
            (Some(0), Some(length)) if self.running && *length < u8::MAX => *length += 1,
            (Some(0), _) => self.tokens.extend([RUN, 1]),
            (Some(change), _) => write(&mut self.tokens, zigzag(change) + u64::from(BITS)),
            (None, _) => {
                self.tokens.push(BITS);
                write(&mut self.tokens, (value.to_bits() ^ self.last).reverse_bits());
            }
        }
        (self.last, self.growth, self.running) = (value.to_bits(), growth.unwrap_or(0), change == Some(0));
        self.count += 1;
        self.has_end |= is_stale(value);
    }

    fn read(&self, values: &mut Vec<f64>) {
        let start = values.len();
        let mut value = f64::from_bits(self.first);
        values.resize(start + usize::from(self.count), value);
        let values = &mut values[start..];
        // `number` is the value as long as it is whole; if it is not, nothing grows.
        let (mut number, mut growth) = (whole(value).unwrap_or_default(), 0);
        let (mut done, mut at) = (1, 0);
        while let (Some(slot), Some(&token)) = (values.get_mut(done), self.tokens.get(at)) {
            done += 1;
            if token > BITS {
                growth += unzigzag(read(&self.tokens, &mut at) - u64::from(BITS));
                number += growth;
                value = number as f64;
                *slot = value;
            } else if token == BITS {
                at += 1;
                value = f64::from_bits(value.to_bits() ^ read(&self.tokens, &mut at).reverse_bits());
                (number, growth) = (whole(value).unwrap_or_default(), 0);
                *slot = value;
            } else {
                let length = usize::from(self.tokens.get(at + 1).copied().unwrap_or_default());
                at += 2;
                let end = (done + length - 1).min(values.len());
                let run = &mut values[done - 1..end];
                done = end;
                if growth == 0 {
                    run.fill(value);
                } else {
                    for slot in run {
                        number += growth;
                        *slot = number as f64;
                    }
                    value = number as f64;
                }
            }
        }
    }
}

/// The value as a whole number, if it is one that keeps all its bits.
fn whole(value: f64) -> Option<i64> {
    const EXACT: u64 = 1 << f64::MANTISSA_DIGITS;
    let number = value as i64;
    (number.unsigned_abs() <= EXACT && (number as f64).to_bits() == value.to_bits()).then_some(number)
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -((value & 1).cast_signed())
}

fn write(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

/// What [`write`] wrote at `at`, which is moved behind it.
#[inline]
fn read(bytes: &[u8], at: &mut usize) -> u64 {
    let (mut value, mut shift) = (0, 0);
    while let Some(byte) = bytes.get(*at) {
        *at += 1;
        value |= u64::from(byte & 0x7f) << shift;
        if *byte < 0x80 {
            break;
        }
        shift += 7;
    }
    value
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::metrics::times::Timeline;

    /// Values as those of counters, gauges and nonsense, many of them the ones before.
    fn values() -> impl Strategy<Value = Vec<f64>> {
        let value = prop_oneof![
            4 => Just(7.0),
            2 => (0..100_i64).prop_map(|value| value as f64),
            1 => any::<i64>().prop_map(|value| value as f64),
            1 => -1e3..1e3_f64,
            1 => any::<u64>().prop_map(f64::from_bits),
            1 => prop::sample::select(vec![-0.0, f64::NAN, f64::INFINITY, stale(), 9_007_199_254_740_992.0, -9_007_199_254_740_993.0]),
        ];
        let differences = prop::collection::vec(0..50_u32, 1..=BLOCK).prop_map(|differences| {
            let sums = differences.into_iter().scan(0.0, |sum, difference| {
                *sum += f64::from(difference / 5);
                Some(*sum)
            });
            sums.collect()
        });
        prop_oneof![prop::collection::vec(value, 1..=BLOCK), differences]
    }

    fn chunk(timeline: &mut Timeline, shared: bool, values: &[f64]) -> Chunk {
        let mut moment = |tick: usize| {
            let time = 1_700_000_000_000 + tick as Millis * 5000;
            if shared { timeline.at(time) } else { Moment::lone(time) }
        };
        let mut chunk = Chunk::new(&moment(0), values[0]);
        for (tick, value) in values.iter().enumerate().skip(1) {
            let moment = moment(tick);
            assert!(chunk.takes(&moment));
            chunk.push(&moment, *value);
        }
        chunk
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(values in values(), shared in any::<bool>()) {
            let chunk = chunk(&mut Timeline::default(), shared, &values);
            let (mut times, mut read) = (vec![0], vec![0.5]);
            chunk.times(&mut times);
            chunk.values(&mut read);
            prop_assert_eq!(times[1..].iter().map(|time| (time - 1_700_000_000_000) / 5000).collect::<Vec<_>>(), (0..values.len() as i64).collect::<Vec<_>>());
            let bits = |values: &[f64]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
            prop_assert_eq!(bits(&read[1..]), bits(&values));
            prop_assert_eq!(chunk.last().value.to_bits(), values[values.len() - 1].to_bits());
            prop_assert_eq!(chunk.has_end(), values.iter().any(|value| is_stale(*value)));
        }
    }

    #[test]
    fn a_counter_costs_a_byte_a_sample_and_hardly_any_while_it_stands_still() {
        let tokens = |values: &[f64]| chunk(&mut Timeline::default(), true, values).values.tokens.len();
        assert_eq!(tokens(&[1234.0; BLOCK]), 4);
        assert_eq!(tokens(&[0.25; 256]), 2);
        let busy: Vec<_> = (0..BLOCK).map(|tick| (tick * 250 + tick * tick % 23) as f64).collect();
        assert!(tokens(&busy) <= BLOCK + 2, "{}", tokens(&busy));
    }

    #[test]
    fn a_chunk_takes_what_follows_only() {
        let mut timeline = Timeline::default();
        let moments: Vec<_> = (0..=BLOCK as Millis).map(|time| timeline.at(time)).collect();
        let mut shared = Chunk::new(&moments[3], 1.0);
        assert!(!shared.takes(&moments[3]) && !shared.takes(&moments[5]) && !shared.takes(&Moment::lone(4)));
        assert!(shared.takes(&moments[4]) && shared.is_out_of_step(&moments[5]));
        shared.push(&moments[4], 2.0);
        assert!(!shared.takes(&moments[BLOCK]) && !shared.is_out_of_step(&moments[BLOCK]), "the next block has begun");
        let own = Chunk::new(&Moment::lone(3), 1.0);
        assert!(own.takes(&moments[5]) && own.takes(&Moment::lone(4)));
        assert_eq!(timeline.at(BLOCK as Millis).place.map(|place| place.1), Some(0), "equal times are one moment");
        assert!(timeline.at(0).place.is_none());
    }
}
