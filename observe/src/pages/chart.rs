//! Line charts, as numbers that a template draws.

use serde::Serialize;

use super::readable;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 220.0;
const LEFT: f64 = 48.0;
const RIGHT: f64 = 8.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 22.0;
/// Lines drawn; more could not be told apart.
const MAX_LINES: usize = 24;
/// Colors of the style sheet.
const COLORS: usize = 12;

/// A chart.
#[derive(Debug, Serialize, PartialEq)]
pub(crate) struct Chart {
    width: f64,
    height: f64,
    left: f64,
    right: f64,
    lines: Vec<Line>,
    /// Position and label.
    y_ticks: Vec<(f64, String)>,
    x_ticks: Vec<(f64, String)>,
    /// Lines that were left out.
    more: usize,
    unit: String,
}

#[derive(Debug, Serialize, PartialEq)]
struct Line {
    name: String,
    path: String,
    color: usize,
    last: String,
}

/// Draws series (a name, and seconds with values) from `start` to `end`.
pub(crate) fn chart(series: &[(String, Vec<(f64, f64)>)], start: f64, end: f64, unit: &str) -> Chart {
    let finite = || series.iter().flat_map(|(_, points)| points).map(|point| point.1).filter(|value| value.is_finite());
    let highest = nice(finite().fold(0.0, f64::max));
    let lowest = -nice(-finite().fold(0.0, f64::min));
    let span = if highest - lowest > 0.0 { highest - lowest } else { 1.0 };
    let x = |time: f64| LEFT + (time - start) / (end - start).max(1.0) * (WIDTH - LEFT - RIGHT);
    let y = |value: f64| TOP + (highest.max(lowest + span) - value) / span * (HEIGHT - TOP - BOTTOM);
    let path = |points: &[(f64, f64)]| {
        let mut path = String::new();
        let mut before: Option<f64> = None;
        let step = points.windows(2).map(|pair| pair[1].0 - pair[0].0).fold(f64::INFINITY, f64::min);
        for (time, value) in points.iter().filter(|(_, value)| value.is_finite()) {
            // A gap is not bridged.
            let joined = before.is_some_and(|before| time - before <= step * 1.5);
            path.push_str(&format!("{}{:.1} {:.1}", if joined { "L" } else { "M" }, x(*time), y(*value)));
            if !joined {
                path.push_str("h0.1");
            }
            before = Some(*time);
        }
        path
    };
    let lines = series.iter().take(MAX_LINES).enumerate().map(|(index, (name, points))| Line {
        name: name.clone(),
        path: path(points),
        color: index % COLORS,
        last: points.last().map(|point| readable(point.1)).unwrap_or_default(),
    });
    let clock = |time: f64| {
        let time = jiff::Timestamp::from_second(time as i64).unwrap_or_default();
        time.strftime("%H:%M:%S").to_string()
    };
    Chart {
        width: WIDTH,
        height: HEIGHT,
        left: LEFT,
        right: WIDTH - RIGHT,
        lines: lines.collect(),
        y_ticks: (0..=4).map(|tick| lowest + span * f64::from(tick) / 4.0).map(|value| (y(value), readable(value))).collect(),
        x_ticks: (0..=3).map(|tick| start + (end - start) * f64::from(tick) / 3.0).map(|time| (x(time), clock(time))).collect(),
        more: series.len().saturating_sub(MAX_LINES),
        unit: unit.to_owned(),
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
