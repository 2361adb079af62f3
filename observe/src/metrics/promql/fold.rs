//! Aggregations that take one series after the other: sums, means, extremes.

use ahash::{AHashMap, RandomState};
use promql_parser::parser::LabelModifier;

use super::value::{Grid, Row, Sum};
use crate::metrics::labels::{Labels, NAME, Pair};

/// Whether an aggregation's result has label `name`.
pub(super) fn kept(modifier: Option<&LabelModifier>, name: &str) -> bool {
    match modifier {
        None => false,
        Some(LabelModifier::Include(by)) => by.labels.iter().any(|kept| kept == name),
        Some(LabelModifier::Exclude(without)) => name != NAME && !without.labels.iter().any(|dropped| dropped == name),
    }
}

/// What the values of one group and step come to.
pub(super) trait Accumulator: Clone + Default + Send {
    fn add(&mut self, value: f64);
    /// Adds what another one has been given.
    fn merge(&mut self, other: &Self);
    fn value(&self) -> f64;
}

impl Accumulator for Sum {
    fn add(&mut self, value: f64) {
        Self::add(self, value);
    }

    fn merge(&mut self, other: &Self) {
        Self::merge(self, *other);
    }

    fn value(&self) -> f64 {
        self.total()
    }
}

/// How many there are.
#[derive(Debug, Clone, Default)]
pub(super) struct Count(f64);

impl Accumulator for Count {
    fn add(&mut self, _: f64) {
        self.0 += 1.0;
    }

    fn merge(&mut self, other: &Self) {
        self.0 += other.0;
    }

    fn value(&self) -> f64 {
        self.0
    }
}

/// 1 where there is any.
#[derive(Debug, Clone, Default)]
pub(super) struct There;

impl Accumulator for There {
    fn add(&mut self, _: f64) {}

    fn merge(&mut self, _: &Self) {}

    fn value(&self) -> f64 {
        1.0
    }
}

/// The smallest number; NaN if there is none.
#[derive(Debug, Clone)]
pub(super) struct Least(f64);

impl Default for Least {
    fn default() -> Self {
        Self(f64::NAN)
    }
}

impl Accumulator for Least {
    fn add(&mut self, value: f64) {
        // What is not a number gives way to everything.
        self.0 = self.0.min(value);
    }

    fn merge(&mut self, other: &Self) {
        self.add(other.0);
    }

    fn value(&self) -> f64 {
        self.0
    }
}

/// The largest number; NaN if there is none.
#[derive(Debug, Clone)]
pub(super) struct Greatest(f64);

impl Default for Greatest {
    fn default() -> Self {
        Self(f64::NAN)
    }
}

impl Accumulator for Greatest {
    fn add(&mut self, value: f64) {
        self.0 = self.0.max(value);
    }

    fn merge(&mut self, other: &Self) {
        self.add(other.0);
    }

    fn value(&self) -> f64 {
        self.0
    }
}

/// A mean that survives sums beyond the largest number.
#[derive(Debug, Clone, Default)]
pub(super) struct Mean {
    sum: Sum,
    count: f64,
    incremental: f64,
    infinite: bool,
}

impl Accumulator for Mean {
    fn add(&mut self, value: f64) {
        self.sum.add(value);
        self.count += 1.0;
        self.infinite |= !value.is_finite();
        self.incremental += value / self.count - self.incremental / self.count;
    }

    fn merge(&mut self, other: &Self) {
        let count = self.count + other.count;
        if count > 0.0 {
            self.incremental = self.incremental * (self.count / count) + other.incremental * (other.count / count);
        }
        self.sum.merge(other.sum);
        self.count = count;
        self.infinite |= other.infinite;
    }

    fn value(&self) -> f64 {
        let sum = self.sum.total();
        if sum.is_infinite() && !self.infinite { self.incremental } else { sum / self.count }
    }
}

/// Groups of series, folded.
pub(super) struct Folded<'m, A> {
    modifier: Option<&'m LabelModifier>,
    steps: usize,
    /// Whether the series' names are labels as the others are; a function has taken them away otherwise.
    named: bool,
    groups: Vec<Group<A>>,
    /// Places in `groups`, by the hash of their labels.
    places: AHashMap<u64, Vec<usize>>,
    hasher: RandomState,
}

struct Group<A> {
    labels: Labels,
    there: Vec<bool>,
    values: Vec<A>,
}

impl<'m, A: Accumulator> Folded<'m, A> {
    pub(super) fn new(modifier: Option<&'m LabelModifier>, grid: Grid, named: bool) -> Self {
        Self { modifier, steps: grid.len(), named, groups: Vec::new(), places: AHashMap::new(), hasher: RandomState::new() }
    }

    /// Adds a series' values, one for each step.
    pub(super) fn add(&mut self, labels: &Labels, values: &[Option<f64>]) {
        let kept = |pair: &&Pair| kept(self.modifier, &pair.0) && (self.named || &*pair.0 != NAME);
        let group = self.group(labels.pairs().iter().filter(kept).collect());
        for ((there, accumulator), value) in group.there.iter_mut().zip(&mut group.values).zip(values) {
            if let Some(value) = value {
                accumulator.add(*value);
                *there = true;
            }
        }
    }

    /// The group with these labels.
    fn group(&mut self, pairs: Vec<&Pair>) -> &mut Group<A> {
        let places = self.places.entry(self.hasher.hash_one(&pairs)).or_default();
        let known = places.iter().copied().find(|place| self.groups[*place].labels.pairs().iter().eq(pairs.iter().copied()));
        let place = known.unwrap_or_else(|| {
            places.push(self.groups.len());
            self.groups.push(Group {
                labels: Labels::new(pairs.into_iter().cloned().collect()),
                there: vec![false; self.steps],
                values: vec![A::default(); self.steps],
            });
            self.groups.len() - 1
        });
        &mut self.groups[place]
    }

    /// Adds what another one has been given.
    pub(super) fn merge(&mut self, other: Self) {
        for from in other.groups {
            let into = self.group(from.labels.pairs().iter().collect());
            for (step, accumulator) in from.values.iter().enumerate() {
                if from.there[step] {
                    into.values[step].merge(accumulator);
                    into.there[step] = true;
                }
            }
        }
    }

    /// A row for each group.
    pub(super) fn rows(self) -> Vec<Row> {
        let row = |group: Group<A>| {
            let values = group.there.iter().zip(&group.values).map(|(there, accumulator)| there.then(|| accumulator.value()));
            Row { values: values.collect(), labels: group.labels }
        };
        self.groups.into_iter().map(row).collect()
    }
}
