//! Functions of range vectors: what becomes of the samples in one window.

use super::value::{Sum, quantile, variance};
use crate::metrics::chunk::{Millis, Sample};

/// Where a window is.
#[derive(Debug, Clone, Copy)]
pub(super) struct At {
    /// The window's end.
    pub(super) end: Millis,
    /// Its length.
    pub(super) range: Millis,
    /// The step it is evaluated for; not `end` if there is an offset.
    pub(super) time: Millis,
    /// The function's other argument.
    pub(super) parameter: f64,
    /// Whether the series fell anywhere, in this window or another: most counters never do.
    pub(super) falls: bool,
}

/// Whether a value is less than the one before.
pub(super) fn falls(samples: &[Sample]) -> bool {
    samples.windows(2).any(|pair| pair[1].value < pair[0].value)
}

/// Takes at least one sample.
pub(super) type Function = fn(&[Sample], &At) -> Option<f64>;

/// The samples of a window that only moves forward.
#[derive(Debug, Default)]
pub(super) struct Window {
    from: usize,
    to: usize,
}

impl Window {
    /// The samples with `after < time <= until`.
    pub(super) fn advance<'s>(&mut self, samples: &'s [Sample], after: Millis, until: Millis) -> &'s [Sample] {
        self.from += samples[self.from..].iter().take_while(|sample| sample.time <= after).count();
        self.to = self.to.max(self.from);
        self.to += samples[self.to..].iter().take_while(|sample| sample.time <= until).count();
        &samples[self.from..self.to]
    }
}

/// The function called `name`, if it is one of range vectors.
pub(super) fn function(name: &str) -> Option<Function> {
    Some(match name {
        "rate" => |samples, at| extrapolated(samples, at, true).map(|value| value / (at.range as f64 / 1000.0)),
        "increase" => |samples, at| extrapolated(samples, at, true),
        "delta" => |samples, at| extrapolated(samples, at, false),
        "irate" => |samples, _| {
            let (before, last) = last_two(samples)?;
            // A counter that fell began anew at zero.
            let increase = if last.value < before.value { last.value } else { last.value - before.value };
            Some(increase / ((last.time - before.time) as f64 / 1000.0))
        },
        "idelta" => |samples, _| last_two(samples).map(|(before, last)| last.value - before.value),
        "deriv" => |samples, _| Some(regression(samples, samples.first()?.time)?.0),
        "predict_linear" => |samples, at| {
            let (slope, intercept) = regression(samples, at.time)?;
            Some(slope * at.parameter + intercept)
        },
        "changes" => |samples, _| {
            let changed =
                |pair: &&[Sample]| pair[0].value != pair[1].value && !(pair[0].value.is_nan() && pair[1].value.is_nan());
            Some(samples.windows(2).filter(changed).count() as f64)
        },
        "resets" => |samples, _| Some(samples.windows(2).filter(|pair| pair[1].value < pair[0].value).count() as f64),
        "sum_over_time" => |samples, _| Some(sum(samples)),
        "avg_over_time" => |samples, _| Some(mean(samples)),
        "count_over_time" => |samples, _| Some(samples.len() as f64),
        "present_over_time" => |_, _| Some(1.0),
        "last_over_time" => |samples, _| samples.last().map(|sample| sample.value),
        "min_over_time" => |samples, _| extreme(samples, |value, best| value < best),
        "max_over_time" => |samples, _| extreme(samples, |value, best| value > best),
        "stddev_over_time" => |samples, _| Some(variance(samples.iter().map(|sample| sample.value)).sqrt()),
        "stdvar_over_time" => |samples, _| Some(variance(samples.iter().map(|sample| sample.value))),
        "quantile_over_time" => |samples, at| Some(quantile(at.parameter, samples.iter().map(|sample| sample.value).collect())),
        _ => return None,
    })
}

fn last_two(samples: &[Sample]) -> Option<(Sample, Sample)> {
    match samples {
        [.., before, last] => Some((*before, *last)),
        _ => None,
    }
}

fn sum(samples: &[Sample]) -> f64 {
    let mut sum = Sum::default();
    sum.extend(samples.iter().map(|sample| sample.value));
    sum.total()
}

fn mean(samples: &[Sample]) -> f64 {
    let (sum, count) = (sum(samples), samples.len() as f64);
    if sum.is_infinite() && samples.iter().all(|sample| sample.value.is_finite()) {
        samples.iter().map(|sample| sample.value / count).sum()
    } else {
        sum / count
    }
}

fn extreme(samples: &[Sample], better: fn(f64, f64) -> bool) -> Option<f64> {
    samples
        .iter()
        .map(|sample| sample.value)
        .reduce(|best, value| if better(value, best) || best.is_nan() { value } else { best })
}

/// How much a counter (or gauge) grew within the window, up to its edges where samples come close to them.
fn extrapolated(samples: &[Sample], at: &At, counter: bool) -> Option<f64> {
    let (first, last) = match samples {
        [first, .., last] => (*first, *last),
        _ => return None,
    };
    let mut growth = last.value - first.value;
    if counter && at.falls {
        growth += samples.windows(2).filter(|pair| pair[1].value < pair[0].value).map(|pair| pair[0].value).sum::<f64>();
    }
    let seconds = |millis: Millis| millis as f64 / 1000.0;
    let sampled = seconds(last.time - first.time);
    let distance = sampled / (samples.len() - 1) as f64;
    // Further away than this from its first or last sample, a series is taken to begin or end half a distance off.
    let threshold = distance * 1.1;
    let (mut to_start, mut to_end) = (seconds(first.time - (at.end - at.range)), seconds(at.end - last.time));
    if to_start >= threshold {
        to_start = distance / 2.0;
    }
    // A counter was not below zero: it cannot be extended further back than there.
    if counter && growth > 0.0 && first.value >= 0.0 {
        to_start = to_start.min(sampled * (first.value / growth));
    }
    if to_end >= threshold {
        to_end = distance / 2.0;
    }
    Some(growth * ((sampled + to_start + to_end) / sampled))
}

/// Least squares: slope per second, and value at `origin`.
fn regression(samples: &[Sample], origin: Millis) -> Option<(f64, f64)> {
    let first = samples.first()?;
    if samples.len() < 2 {
        return None;
    }
    if samples.iter().all(|sample| sample.value == first.value) {
        return Some(if first.value.is_infinite() { (f64::NAN, f64::NAN) } else { (0.0, first.value) });
    }
    let [mut x, mut y, mut xy, mut xx] = [Sum::default(); 4];
    for sample in samples {
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
