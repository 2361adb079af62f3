//! Samples of one series, compressed.
//!
//! Times are written as the change of their distance, values as the difference of their bits to the ones before. A run of samples
//! at equal distances with one value, as of a counter that stands still, takes two bytes however long it is.

/// A point in time: milliseconds since 1970.
pub(crate) type Millis = i64;

/// After so many samples a new chunk is begun, as Prometheus does.
const FULL: u16 = 120;

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

/// A run of samples in ascending order of time.
#[derive(Debug, Clone)]
pub(crate) struct Chunk {
    first: Millis,
    last: Millis,
    distance: i64,
    bits: u64,
    count: u16,
    /// The last byte is the length of a run that goes on.
    running: bool,
    bytes: Vec<u8>,
}

/// What begins a run; its length, less than [`FULL`], is in the byte behind it. Otherwise the lowest bit says whether the value is
/// the one before, and the others are the change of the distance; the value's difference follows if there is one.
const RUN: u64 = SAME;
const SAME: u64 = 1;

impl Chunk {
    pub(crate) fn new(sample: Sample) -> Self {
        let mut chunk =
            Self { first: sample.time, last: sample.time, distance: 0, bits: 0, count: 0, running: false, bytes: Vec::new() };
        chunk.push(sample);
        chunk
    }

    pub(crate) fn is_full(&self) -> bool {
        self.count >= FULL
    }

    /// Nothing more will come.
    pub(crate) fn close(&mut self) {
        self.bytes.shrink_to_fit();
    }

    pub(crate) fn first(&self) -> Millis {
        self.first
    }

    pub(crate) fn last(&self) -> Sample {
        Sample { time: self.last, value: f64::from_bits(self.bits) }
    }

    pub(crate) fn len(&self) -> usize {
        usize::from(self.count)
    }

    /// Memory used, in bytes.
    pub(crate) fn size(&self) -> usize {
        size_of::<Self>() + self.bytes.capacity()
    }

    /// Appends; `sample.time` is later than the last one's.
    pub(crate) fn push(&mut self, sample: Sample) {
        let distance = sample.time - self.last;
        // The change of a distance that the clock can have fits in 63 bits.
        let change = zigzag(distance - self.distance) << 1;
        let difference = sample.value.to_bits() ^ self.bits;
        let run = change == 0 && difference == 0;
        match self.bytes.last_mut() {
            Some(length) if run && self.running => *length += 1,
            _ if run => {
                write(&mut self.bytes, RUN);
                self.bytes.push(1);
            }
            _ if difference == 0 => write(&mut self.bytes, change | SAME),
            _ => {
                write(&mut self.bytes, change);
                // Small whole numbers differ in the highest bits only: reversed, they are short.
                write(&mut self.bytes, difference.reverse_bits());
            }
        }
        (self.last, self.distance, self.bits, self.running) = (sample.time, distance, sample.value.to_bits(), run);
        self.count += 1;
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Sample> + '_ {
        let (mut at, mut time, mut distance, mut bits, mut run) = (0, self.first, 0_i64, 0_u64, 0_u8);
        std::iter::from_fn(move || {
            if run > 0 {
                run -= 1;
            } else {
                let head = read(&self.bytes, &mut at)?;
                if head == RUN {
                    run = self.bytes.get(at)?.saturating_sub(1);
                    at += 1;
                } else {
                    distance += unzigzag(head >> 1);
                    if head & SAME == 0 {
                        bits ^= read(&self.bytes, &mut at)?.reverse_bits();
                    }
                }
            }
            time += distance;
            Some(Sample { time, value: f64::from_bits(bits) })
        })
    }
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

fn read(bytes: &[u8], at: &mut usize) -> Option<u64> {
    // Most numbers are short.
    let first = *bytes.get(*at)?;
    if first < 0x80 {
        *at += 1;
        return Some(u64::from(first));
    }
    let (mut value, mut shift) = (0, 0);
    loop {
        let byte = *bytes.get(*at)?;
        *at += 1;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
        shift += 7;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Distances and values, many of them the ones before.
    fn samples() -> impl Strategy<Value = Vec<(i64, u64)>> {
        let distance = prop_oneof![4 => Just(5000), 1 => 1..100_000_i64];
        let bits = prop_oneof![4 => Just(7), 1 => any::<u64>()];
        prop::collection::vec((distance, bits), 1..=usize::from(FULL))
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(samples in samples()) {
            let mut time = 1_700_000_000_000;
            let samples: Vec<_> = samples.into_iter().map(|(distance, bits)| { time += distance; (time, bits) }).collect();
            let sample = |(time, bits): (i64, u64)| Sample { time, value: f64::from_bits(bits) };
            let mut chunk = Chunk::new(sample(samples[0]));
            samples[1..].iter().for_each(|at| chunk.push(sample(*at)));
            let read: Vec<_> = chunk.iter().map(|sample| (sample.time, sample.value.to_bits())).collect();
            prop_assert_eq!(read, samples);
        }
    }

    #[test]
    fn a_counter_that_stands_still_costs_nothing() {
        let mut chunk = Chunk::new(Sample { time: 1_700_000_000_000, value: 1234.0 });
        (1..100).for_each(|tick| chunk.push(Sample { time: 1_700_000_000_000 + tick * 5000, value: 1234.0 }));
        assert!(chunk.bytes.len() < 20, "{}", chunk.bytes.len());
        assert_eq!(chunk.iter().map(|sample| sample.time).last(), Some(1_700_000_000_000 + 99 * 5000));
    }
}
