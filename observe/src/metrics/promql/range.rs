//! Functions of range vectors: what becomes of the samples in one window.

use std::ops::Range;

use super::value::{Grid, Sum, quantile, variance};
use crate::metrics::chunk::{Millis, Sample};
use crate::metrics::columns::Samples;

/// Where a window is.
#[derive(Debug, Clone, Copy)]
pub(super) struct At {
    /// The step it is evaluated for; not the window's end if there is an offset.
    pub(super) time: Millis,
    /// The function's other argument.
    pub(super) parameter: f64,
}

/// A function of range vectors.
#[derive(Clone, Copy)]
pub(super) enum Function {
    /// `rate`, `increase` and `delta`.
    Growth(Growth),
    /// Takes at least one sample.
    Window(fn(Samples<'_>, &At) -> Option<f64>),
}

/// How much a series grew within a window, up to the window's edges where samples come close to them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Growth {
    /// What falls began anew at zero.
    counter: bool,
    per_second: bool,
}

/// The windows of a range vector: at every step, the samples with `end - range < time <= end`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Windows {
    pub(super) grid: Grid,
    pub(super) at: Option<Millis>,
    pub(super) offset: Millis,
    pub(super) range: Millis,
}

impl Windows {
    pub(super) fn end(&self, step: usize) -> Millis {
        self.at.unwrap_or_else(|| self.grid.time(step)) - self.offset
    }

    /// What all windows together need: after, until.
    pub(super) fn span(&self) -> (Millis, Millis) {
        (self.end(0) - self.range, self.end(self.grid.len().saturating_sub(1)))
    }
}

/// What windows hold of samples with certain times. It is found once for all series with these times.
#[derive(Debug, Default)]
pub(super) struct Plan {
    places: Vec<Range<usize>>,
    edges: Vec<Edges>,
}

/// What the growth within a window is multiplied by, as far as the times tell.
#[derive(Debug, Clone, Copy, Default)]
struct Edges {
    /// Seconds from the first sample to the last.
    sampled: f64,
    /// Seconds that are added at the window's start, and at its end.
    to_start: f64,
    to_end: f64,
    /// `sampled` with both, by `sampled`.
    factor: f64,
}

impl Edges {
    fn of(times: &[Millis], end: Millis, range: Millis) -> Self {
        let (Some(first), Some(last)) = (times.first(), times.last()) else { return Self::default() };
        let seconds = |millis: Millis| millis as f64 / 1000.0;
        let sampled = seconds(last - first);
        let distance = sampled / (times.len() - 1) as f64;
        // Further away than this from its first or last sample, a series is taken to begin or end half a distance off.
        let extended = |to_edge: f64| if to_edge >= distance * 1.1 { distance / 2.0 } else { to_edge };
        let (to_start, to_end) = (extended(seconds(first - (end - range))), extended(seconds(end - last)));
        Self { sampled, to_start, to_end, factor: (sampled + to_start + to_end) / sampled }
    }
}

impl Plan {
    /// For samples with `times`.
    pub(super) fn make(&mut self, times: &[Millis], windows: &Windows) {
        let (mut from, mut to) = (0, 0);
        self.places.clear();
        self.places.extend((0..windows.grid.len()).map(|step| {
            let end = windows.end(step);
            from += times[from..].iter().take_while(|time| **time <= end - windows.range).count();
            to = from.max(to);
            to += times[to..].iter().take_while(|time| **time <= end).count();
            from..to
        }));
        self.edges.clear();
        let edges = |(step, place): (usize, &Range<usize>)| Edges::of(&times[place.clone()], windows.end(step), windows.range);
        self.edges.extend(self.places.iter().enumerate().map(edges));
    }

    /// The samples of every window.
    pub(super) fn windows<'s>(&self, samples: Samples<'s>) -> impl Iterator<Item = Samples<'s>> {
        self.places.iter().map(move |place| samples.part(place.clone()))
    }

    /// Fills `row` with what a function makes of every window. `parameter`: the function's other argument at each step.
    pub(super) fn apply(
        &self,
        function: Function,
        samples: Samples<'_>,
        windows: &Windows,
        parameter: Option<&[f64]>,
        row: &mut Vec<Option<f64>>,
    ) {
        row.clear();
        match function {
            Function::Growth(growth) => {
                let seconds = if growth.per_second { windows.range as f64 / 1000.0 } else { 1.0 };
                // Most counters never fall.
                let falls = growth.counter && falls(samples.values);
                let places = self.places.iter().zip(&self.edges);
                row.extend(places.map(|(place, edges)| growth.of(samples.values.get(place.clone())?, edges, falls, seconds)));
            }
            Function::Window(function) => row.extend(self.windows(samples).enumerate().map(|(step, samples)| {
                let parameter = parameter.and_then(|values| values.get(step)).copied().unwrap_or(f64::NAN);
                if samples.is_empty() { None } else { function(samples, &At { time: windows.grid.time(step), parameter }) }
            })),
        }
    }
}

impl Growth {
    /// `falls`: whether the values may do that; `seconds`: what the growth is divided by.
    fn of(self, values: &[f64], edges: &Edges, falls: bool, seconds: f64) -> Option<f64> {
        let (first, last) = match values {
            [first, .., last] => (*first, *last),
            _ => return None,
        };
        let mut growth = last - first;
        if falls {
            growth += values.windows(2).filter(|pair| pair[1] < pair[0]).map(|pair| pair[0]).sum::<f64>();
        }
        let mut factor = edges.factor;
        if self.counter && growth > 0.0 && first >= 0.0 {
            // A counter was not below zero: it cannot be extended further back than there.
            let Edges { sampled, to_start, to_end, .. } = *edges;
            if sampled * first < to_start * growth {
                factor = (sampled + sampled * (first / growth) + to_end) / sampled;
            }
        }
        Some(growth * (factor / seconds))
    }
}

/// Whether a value is less than the one before. It looks at all of them, as that takes several at once.
fn falls(values: &[f64]) -> bool {
    let next = values.get(1..).unwrap_or_default();
    next.iter().zip(values).fold(false, |falls, (next, value)| falls | (next < value))
}

/// The function called `name`, if it is one of range vectors.
pub(super) fn function(name: &str) -> Option<Function> {
    Some(Function::Window(match name {
        "rate" => return Some(Function::Growth(Growth { counter: true, per_second: true })),
        "increase" => return Some(Function::Growth(Growth { counter: true, per_second: false })),
        "delta" => return Some(Function::Growth(Growth { counter: false, per_second: false })),
        "irate" => |samples, _| {
            let (before, last) = last_two(samples)?;
            // A counter that fell began anew at zero.
            let increase = if last.value < before.value { last.value } else { last.value - before.value };
            Some(increase / ((last.time - before.time) as f64 / 1000.0))
        },
        "idelta" => |samples, _| last_two(samples).map(|(before, last)| last.value - before.value),
        "deriv" => |samples, _| Some(regression(samples, *samples.times.first()?)?.0),
        "predict_linear" => |samples, at| {
            let (slope, intercept) = regression(samples, at.time)?;
            Some(slope * at.parameter + intercept)
        },
        "changes" => |samples, _| {
            let changed = |pair: &&[f64]| pair[0] != pair[1] && !(pair[0].is_nan() && pair[1].is_nan());
            Some(samples.values.windows(2).filter(changed).count() as f64)
        },
        "resets" => |samples, _| Some(samples.values.windows(2).filter(|pair| pair[1] < pair[0]).count() as f64),
        "sum_over_time" => |samples, _| Some(sum(samples.values)),
        "avg_over_time" => |samples, _| Some(mean(samples.values)),
        "count_over_time" => |samples, _| Some(samples.len() as f64),
        "present_over_time" => |_, _| Some(1.0),
        "last_over_time" => |samples, _| samples.values.last().copied(),
        "min_over_time" => |samples, _| extreme(samples.values, |value, best| value < best),
        "max_over_time" => |samples, _| extreme(samples.values, |value, best| value > best),
        "stddev_over_time" => |samples, _| Some(variance(samples.values.iter().copied()).sqrt()),
        "stdvar_over_time" => |samples, _| Some(variance(samples.values.iter().copied())),
        "quantile_over_time" => |samples, at| Some(quantile(at.parameter, samples.values.to_vec())),
        _ => return None,
    }))
}

fn last_two(samples: Samples<'_>) -> Option<(Sample, Sample)> {
    let mut latest = samples.iter().rev();
    let last = latest.next()?;
    Some((latest.next()?, last))
}

fn sum(values: &[f64]) -> f64 {
    let mut sum = Sum::default();
    sum.extend(values.iter().copied());
    sum.total()
}

fn mean(values: &[f64]) -> f64 {
    let (sum, count) = (sum(values), values.len() as f64);
    if sum.is_infinite() && values.iter().all(|value| value.is_finite()) {
        values.iter().map(|value| value / count).sum()
    } else {
        sum / count
    }
}

fn extreme(values: &[f64], better: fn(f64, f64) -> bool) -> Option<f64> {
    values.iter().copied().reduce(|best, value| if better(value, best) || best.is_nan() { value } else { best })
}

/// Least squares: slope per second, and value at `origin`.
fn regression(samples: Samples<'_>, origin: Millis) -> Option<(f64, f64)> {
    let first = *samples.values.first()?;
    if samples.len() < 2 {
        return None;
    }
    if samples.values.iter().all(|value| *value == first) {
        return Some(if first.is_infinite() { (f64::NAN, f64::NAN) } else { (0.0, first) });
    }
    let [mut x, mut y, mut xy, mut xx] = [Sum::default(); 4];
    for sample in samples.iter() {
        let seconds = (sample.time - origin) as f64 / 1000.0;
        x.add(seconds);
        y.add(sample.value);
        xy.add(seconds * sample.value);
        xx.add(seconds * seconds);
    }
    let (count, x, y) = (samples.len() as f64, x.total(), y.total());
    let slope = (xy.total() - x * y / count) / (xx.total() - x * x / count);
    Some((slope, y / count - slope * x / count))
}
