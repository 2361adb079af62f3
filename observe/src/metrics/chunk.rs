//! Samples of one series, compressed.
//!
//! Times are written as the change of their distance, values as the difference of their bits to the ones before; a counter
//! that stands still costs two bytes a scrape.

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
    bytes: Vec<u8>,
}

impl Chunk {
    pub(crate) fn new(sample: Sample) -> Self {
        let mut chunk = Self { first: sample.time, last: sample.time, distance: 0, bits: 0, count: 0, bytes: Vec::new() };
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
        write(&mut self.bytes, zigzag(distance - self.distance));
        // Small whole numbers differ in the highest bits only: reversed, they are short.
        write(&mut self.bytes, (sample.value.to_bits() ^ self.bits).reverse_bits());
        (self.last, self.distance, self.bits) = (sample.time, distance, sample.value.to_bits());
        self.count += 1;
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Sample> + '_ {
        let (mut at, mut time, mut distance, mut bits) = (0, self.first, 0_i64, 0_u64);
        std::iter::from_fn(move || {
            let change = unzigzag(read(&self.bytes, &mut at)?);
            bits ^= read(&self.bytes, &mut at)?.reverse_bits();
            distance += change;
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

    proptest! {
        #[test]
        fn what_is_written_is_read(samples in prop::collection::vec((1..100_000_i64, any::<u64>()), 1..120)) {
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
    fn a_counter_that_stands_still_costs_two_bytes_a_sample() {
        let mut chunk = Chunk::new(Sample { time: 1_700_000_000_000, value: 1234.0 });
        (1..100).for_each(|tick| chunk.push(Sample { time: 1_700_000_000_000 + tick * 5000, value: 1234.0 }));
        assert!(chunk.bytes.len() < 210, "{}", chunk.bytes.len());
    }
}
