//! Line charts, as numbers that a template draws.

use serde::Serialize;

use super::{measured, readable};

const WIDTH: f64 = 520.0;
const HEIGHT: f64 = 210.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 508.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 182.0;
/// Lines drawn; more could not be told apart.
const MAX_LINES: usize = 24;
/// Colors of the style sheet.
const COLORS: usize = 12;
/// Most parts of the value axis.
const PARTS: f64 = 4.0;
/// Seconds between two marks on the time axis; of these, the first that makes no more than [`TIMES`].
const STEPS: [f64; 9] = [5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 900.0, 1800.0];
const TIMES: f64 = 5.0;

/// A chart.
#[derive(Debug, Serialize, PartialEq)]
pub(crate) struct Chart {
    width: f64,
    height: f64,
    left: f64,
    right: f64,
    top: f64,
    bottom: f64,
    /// Values at the bottom and at the top.
    low: f64,
    high: f64,
    lines: Vec<Line>,
    /// Position and label.
    y_ticks: Vec<(f64, String)>,
    x_ticks: Vec<(f64, String)>,
    /// Lines that were left out.
    more: usize,
    unit: String,
}

impl Chart {
    /// Whether there is no line.
    pub(crate) fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }
}

#[derive(Debug, Serialize, PartialEq)]
struct Line {
    name: String,
    path: String,
    /// What lies under the line, where there is only one.
    area: String,
    color: usize,
    last: String,
}

/// A name, and seconds with values.
pub(crate) type Named = (String, Vec<(f64, f64)>);

/// Draws series from `start` to `end`, in seconds.
pub(crate) fn chart(series: &[Named], start: f64, end: f64, unit: &str) -> Chart {
    // A quotient or quantile of nothing is not a number, and no line.
    let is_drawn = |named: &&Named| named.1.iter().any(|(_, value)| value.is_finite());
    let series: Vec<&Named> = series.iter().filter(is_drawn).collect();
    let finite = || series.iter().flat_map(|named| &named.1).map(|point| point.1).filter(|value| value.is_finite());
    let axis = Axis::new(finite().fold(0.0, f64::min), finite().fold(0.0, f64::max), unit);
    let x = |time: f64| LEFT + (time - start) / (end - start).max(1.0) * (RIGHT - LEFT);
    let y = |value: f64| TOP + (axis.high - value) / (axis.high - axis.low) * (BOTTOM - TOP);
    let lines = series.iter().take(MAX_LINES).enumerate().map(|(index, named)| {
        let (name, points) = named;
        let path = path(points, x, y);
        Line {
            name: name.clone(),
            area: if series.len() == 1 { area(&path, y(axis.low.max(0.0))) } else { String::new() },
            path,
            color: index % COLORS,
            last: points.last().map(|point| measured(point.1, unit)).unwrap_or_default(),
        }
    });
    Chart {
        width: WIDTH,
        height: HEIGHT,
        left: LEFT,
        right: RIGHT,
        top: TOP,
        bottom: BOTTOM,
        low: axis.low,
        high: axis.high,
        lines: lines.collect(),
        y_ticks: axis.marks().map(|value| (y(value), label(value, unit))).collect(),
        x_ticks: times(start, end).map(|(time, label)| (x(time), label)).collect(),
        more: series.len().saturating_sub(MAX_LINES),
        unit: unit.to_owned(),
    }
}

/// A line without axes, 100 wide and 28 high; empty if there is no point.
pub(crate) fn sparkline(points: &[(f64, f64)], start: f64, end: f64) -> (String, String) {
    let highest = points.iter().map(|point| point.1).filter(|value| value.is_finite()).fold(0.0, f64::max).max(f64::MIN_POSITIVE);
    let line =
        path(points, |time| (time - start) / (end - start).max(1.0) * 100.0, |value| 26.0 - value.max(0.0) / highest * 24.0);
    let area = area(&line, 28.0);
    (line, area)
}

/// The axes of a picture of things that took some time.
#[derive(Debug, Serialize, PartialEq)]
pub(crate) struct Scatter {
    width: f64,
    height: f64,
    left: f64,
    right: f64,
    y_ticks: Vec<(f64, String)>,
    x_ticks: Vec<(f64, String)>,
}

/// Where one of them is.
#[derive(Debug, Clone, Copy, Serialize, PartialEq)]
pub(crate) struct Dot {
    x: f64,
    y: f64,
    /// Its radius.
    size: f64,
}

/// Dots for things that began and took so long, in seconds, each consisting of so many parts.
pub(crate) fn scatter(times: &[(f64, f64)], parts: &[usize]) -> (Scatter, Vec<Dot>) {
    const WIDTH: f64 = 960.0;
    const HEIGHT: f64 = 190.0;
    const RIGHT: f64 = 944.0;
    const BOTTOM: f64 = 164.0;
    let first = times.iter().map(|time| time.0).fold(f64::INFINITY, f64::min);
    let last = times.iter().map(|time| time.0).fold(0.0, f64::max).max(first + 1.0);
    let axis = Axis::new(0.0, times.iter().map(|time| time.1 * 1000.0).fold(0.0, f64::max), "ms");
    let y = |millis: f64| TOP + (axis.high - millis) / (axis.high - axis.low) * (BOTTOM - TOP);
    let x = |time: f64| LEFT + 8.0 + (time - first) / (last - first) * (RIGHT - LEFT - 16.0);
    let dot = |((time, took), parts): (&(f64, f64), &usize)| Dot {
        x: (x(*time) * 10.0).round() / 10.0,
        y: (y(took * 1000.0) * 10.0).round() / 10.0,
        size: 4.0 + (*parts as f64).sqrt().min(10.0),
    };
    let dots = times.iter().zip(parts).map(dot).collect();
    let clock = |time: f64| jiff::Timestamp::from_second(time as i64).unwrap_or_default().strftime("%H:%M:%S").to_string();
    let x_ticks = if times.is_empty() {
        Vec::new()
    } else {
        (0..=3).map(|part| first + (last - first) * f64::from(part) / 3.0).map(|time| (x(time), clock(time))).collect()
    };
    let y_ticks = axis.marks().map(|value| (y(value), label(value, "ms"))).collect();
    (Scatter { width: WIDTH, height: HEIGHT, left: LEFT, right: RIGHT, y_ticks, x_ticks }, dots)
}

/// The path through the points. A gap is not bridged: there, the next stretch begins.
fn path(points: &[(f64, f64)], x: impl Fn(f64) -> f64, y: impl Fn(f64) -> f64) -> String {
    let mut path = String::new();
    let mut before: Option<f64> = None;
    let step = points.windows(2).map(|pair| pair[1].0 - pair[0].0).fold(f64::INFINITY, f64::min);
    for (time, value) in points.iter().filter(|(_, value)| value.is_finite()) {
        let joined = before.is_some_and(|before| time - before <= step * 1.5);
        path.push_str(&format!("{}{:.1} {:.1}", if joined { "L" } else { "M" }, x(*time), y(*value)));
        if !joined {
            path.push_str("h0.1");
        }
        before = Some(*time);
    }
    path
}

/// Each stretch of a path, closed along `ground`.
fn area(path: &str, ground: f64) -> String {
    let close = |stretch: &str| {
        let first = stretch.split(' ').next().unwrap_or_default();
        let last = stretch.rsplit('L').next().unwrap_or_default().split(' ').next().unwrap_or_default();
        format!("M{stretch}L{last} {ground:.1}L{first} {ground:.1}Z")
    };
    path.split('M').filter(|stretch| stretch.contains('L')).map(|stretch| close(&stretch.replacen("h0.1", "", 1))).collect()
}

/// The values that the chart spans, in steps that are easily read.
struct Axis {
    low: f64,
    high: f64,
    step: f64,
}

impl Axis {
    fn new(lowest: f64, highest: f64, unit: &str) -> Self {
        if unit == "%" && lowest >= 0.0 && highest <= 100.0 {
            return Self { low: 0.0, high: 100.0, step: 25.0 };
        }
        let step = match nice((highest - lowest) / PARTS) {
            0.0 => 0.25,
            step => step,
        };
        let (low, high) = ((lowest / step).floor() * step, (highest / step - 1e-9).ceil() * step);
        Self { low, high: if high > low { high } else { low + PARTS * step }, step }
    }

    fn marks(&self) -> impl Iterator<Item = f64> {
        let (low, step) = (self.low, self.step);
        (0..=((self.high - low) / step).round() as u32).map(move |mark| low + f64::from(mark) * step)
    }
}

/// The next of 1, 2, 2.5, 5 and 10 times a power of ten.
fn nice(value: f64) -> f64 {
    if value <= 0.0 || !value.is_finite() {
        return 0.0;
    }
    let power = 10_f64.powf(value.log10().floor());
    [1.0, 2.0, 2.5, 5.0, 10.0].into_iter().map(|factor| factor * power).find(|nice| *nice >= value * 0.999_999).unwrap_or(value)
}

fn label(value: f64, unit: &str) -> String {
    if value == 0.0 { readable(0.0) } else { measured(value, unit) }
}

/// Round times between `start` and `end`, with their labels.
fn times(start: f64, end: f64) -> impl Iterator<Item = (f64, String)> {
    let step = STEPS.into_iter().find(|step| (end - start) / step <= TIMES).unwrap_or(3600.0);
    let format = if step < 60.0 { "%H:%M:%S" } else { "%H:%M" };
    let first = (start / step).ceil() * step;
    let count = if end > first { ((end - first) / step).floor() as u32 } else { 0 };
    (0..=count.min(TIMES as u32)).map(move |mark| {
        let time = first + f64::from(mark) * step;
        (time, jiff::Timestamp::from_second(time as i64).unwrap_or_default().strftime(format).to_string())
    })
}
