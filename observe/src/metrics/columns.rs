//! The samples of a series as two columns, times and values, as queries read them.

use super::chunk::{Chunk, Millis, Sample, is_stale};
use super::tsdb::Selected;

/// Some samples of one series, in ascending order of time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Samples<'a> {
    pub(crate) times: &'a [Millis],
    pub(crate) values: &'a [f64],
}

impl<'a> Samples<'a> {
    pub(crate) fn len(self) -> usize {
        self.times.len()
    }

    pub(crate) fn is_empty(self) -> bool {
        self.times.is_empty()
    }

    /// Those from one place up to another.
    pub(crate) fn part(self, range: std::ops::Range<usize>) -> Self {
        Self { times: &self.times[range.clone()], values: &self.values[range] }
    }

    pub(crate) fn iter(self) -> impl DoubleEndedIterator<Item = Sample> + 'a {
        self.times.iter().zip(self.values).map(|(time, value)| Sample { time: *time, value: *value })
    }
}

/// Columns that are filled with one series after another. Series of one target have equal times, which are read once.
#[derive(Debug, Default)]
pub(crate) struct Columns {
    times: Vec<Millis>,
    values: Vec<f64>,
    /// Places of the samples asked for.
    asked: std::ops::Range<usize>,
    /// No sample has been left out.
    complete: bool,
}

impl Columns {
    /// Reads the samples of `series` with `after < time <= until`, without marks of ends. Yields whether their times are those of
    /// `before`, the series that was read before with the same bounds.
    pub(crate) fn read(&mut self, series: &Selected, before: Option<&Selected>, (after, until): (Millis, Millis)) -> bool {
        let chunks = series.chunks();
        let same = before.map(Selected::chunks).is_some_and(|before| {
            before.len() == chunks.len() && before.iter().zip(chunks).all(|(before, chunk)| chunk.has_times_of(before))
        });
        let has_end = chunks.iter().any(|chunk| chunk.has_end());
        let known = same && self.complete && !has_end;
        self.values.clear();
        chunks.iter().for_each(|chunk| chunk.values(&mut self.values));
        if !known {
            self.times.clear();
            chunks.iter().for_each(|chunk| chunk.times(&mut self.times));
            if has_end {
                let mut values = self.values.iter();
                self.times.retain(|_| values.next().is_some_and(|value| !is_stale(*value)));
                self.values.retain(|value| !is_stale(*value));
            }
            self.complete = !has_end;
            let place = |time| self.times.partition_point(|there| *there <= time);
            self.asked = place(after)..place(until).max(place(after));
        }
        known
    }

    /// Reads all of a chunk, marks of ends included.
    pub(crate) fn read_chunk(&mut self, chunk: &Chunk) {
        self.times.clear();
        self.values.clear();
        chunk.times(&mut self.times);
        chunk.values(&mut self.values);
        (self.asked, self.complete) = (0..self.times.len(), false);
    }

    /// Reads all of a series, marks of ends included.
    pub(crate) fn read_all(&mut self, series: &Selected) {
        self.times.clear();
        self.values.clear();
        for chunk in series.chunks() {
            chunk.times(&mut self.times);
            chunk.values(&mut self.values);
        }
        (self.asked, self.complete) = (0..self.times.len(), false);
    }

    /// What was read.
    pub(crate) fn samples(&self) -> Samples<'_> {
        Samples { times: &self.times, values: &self.values }.part(self.asked.clone())
    }

    /// The latest sample read that is not after `until`.
    pub(crate) fn latest(&self, until: Millis) -> Option<Sample> {
        let samples = self.samples();
        let place = samples.times.partition_point(|time| *time <= until).checked_sub(1)?;
        Some(Sample { time: samples.times[place], value: samples.values[place] })
    }
}
