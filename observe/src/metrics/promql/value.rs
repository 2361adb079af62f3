//! What expressions yield.

use ahash::AHashMap;

use super::{QueryError, Result};
use crate::metrics::chunk::Millis;
use crate::metrics::labels::Labels;

/// The times at which an expression is evaluated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Grid {
    start: Millis,
    step: Millis,
    count: usize,
}

impl Grid {
    /// One time only.
    pub(super) fn at(time: Millis) -> Self {
        Self { start: time, step: 1, count: 1 }
    }

    /// From `start` to `end`, both included; `step` is positive. Empty when `end` is before `start`.
    pub(super) fn new(start: Millis, end: Millis, step: Millis) -> Self {
        Self { start, step, count: if end < start { 0 } else { ((end - start) / step + 1) as usize } }
    }

    pub(super) fn len(&self) -> usize {
        self.count
    }

    pub(super) fn time(&self, index: usize) -> Millis {
        self.start + self.step * index as i64
    }

    pub(super) fn times(self) -> impl Iterator<Item = Millis> {
        (0..self.count).map(move |index| self.time(index))
    }
}

/// One series: a value for each step of the grid, or none.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Row {
    pub(super) labels: Labels,
    pub(super) values: Vec<Option<f64>>,
}

impl Row {
    /// The same labels (without the metric's name, as the value has another meaning now) with other values.
    pub(super) fn map(self, f: impl Fn(f64) -> f64) -> Self {
        Self { labels: self.labels.without_name(), values: self.values.into_iter().map(|value| value.map(&f)).collect() }
    }
}

/// The value of an expression.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    /// A number for each step.
    Scalar(Vec<f64>),
    /// An instant vector for each step.
    Vector(Vec<Row>),
    /// A text.
    Text(String),
}

/// Joins rows that have equal labels now. At no step may two of them have a value.
pub(super) fn combine(rows: Vec<Row>) -> Result<Vec<Row>> {
    let mut known: AHashMap<Labels, usize> = AHashMap::with_capacity(rows.len());
    let mut combined: Vec<Row> = Vec::with_capacity(rows.len());
    for row in rows {
        match known.get(&row.labels) {
            None => {
                known.insert(row.labels.clone(), combined.len());
                combined.push(row);
            }
            Some(index) => merge(&mut combined[*index], row)?,
        }
    }
    Ok(combined)
}

fn merge(into: &mut Row, row: Row) -> Result<()> {
    for (there, value) in into.values.iter_mut().zip(row.values) {
        match (&there, value) {
            (Some(_), Some(_)) => {
                return Err(QueryError::Execution("vector cannot contain metrics with the same labelset".to_owned()));
            }
            (None, Some(_)) => *there = value,
            (_, None) => {}
        }
    }
    Ok(())
}

/// A sum that does not lose small numbers beside large ones (Kahan, Neumaier), as Prometheus computes it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Sum {
    sum: f64,
    compensation: f64,
}

impl Sum {
    pub(super) fn add(&mut self, value: f64) {
        let sum = self.sum + value;
        if sum.is_infinite() {
            self.compensation = 0.0;
        } else if self.sum.abs() >= value.abs() {
            self.compensation += (self.sum - sum) + value;
        } else {
            self.compensation += (value - sum) + self.sum;
        }
        self.sum = sum;
    }

    /// Adds the numbers of another sum.
    pub(super) fn merge(&mut self, other: Self) {
        self.add(other.sum);
        if self.sum.is_finite() {
            self.compensation += other.compensation;
        }
    }

    pub(super) fn total(self) -> f64 {
        self.sum + self.compensation
    }
}

impl Extend<f64> for Sum {
    fn extend<I: IntoIterator<Item = f64>>(&mut self, values: I) {
        values.into_iter().for_each(|value| self.add(value));
    }
}

/// Population variance (Welford).
pub(super) fn variance(values: impl Iterator<Item = f64>) -> f64 {
    let (mut count, mut mean, mut squares) = (0.0, 0.0, 0.0);
    for value in values {
        count += 1.0;
        let delta = value - mean;
        mean += delta / count;
        squares += delta * (value - mean);
    }
    squares / count
}

/// The quantile `q` of `values`, interpolated between neighbours.
pub(super) fn quantile(q: f64, mut values: Vec<f64>) -> f64 {
    if values.is_empty() || q.is_nan() {
        return f64::NAN;
    }
    if q < 0.0 {
        return f64::NEG_INFINITY;
    }
    if q > 1.0 {
        return f64::INFINITY;
    }
    // NaN is the smallest.
    values.sort_by(|a, b| b.is_nan().cmp(&a.is_nan()).then(a.total_cmp(b)));
    let rank = q * (values.len() - 1) as f64;
    let lower = rank.floor() as usize;
    let upper = (lower + 1).min(values.len() - 1);
    let weight = rank - rank.floor();
    values[lower] * (1.0 - weight) + values[upper] * weight
}

/// A number as Go's `strconv.FormatFloat(v, 'f', -1, 64)` writes it.
pub(crate) fn format_number(value: f64) -> String {
    match value {
        value if value.is_nan() => "NaN".to_owned(),
        f64::INFINITY => "+Inf".to_owned(),
        f64::NEG_INFINITY => "-Inf".to_owned(),
        value => value.to_string(),
    }
}
