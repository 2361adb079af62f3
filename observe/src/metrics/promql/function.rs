//! Functions of instant vectors and scalars.

use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use promql_parser::parser::Expr;

use super::eval::{Emit, Evaluator, execution};
use super::histogram::histogram_quantile;
use super::parse::{bare, matchers};
use super::value::{Grid, Row, Value, combine};
use super::{QueryError, Result};
use crate::metrics::labels::{Labels, NAME, is_label_name};
use crate::metrics::matcher::{Condition, Matcher};

/// Calls the function `name`.
pub(super) fn call(evaluator: &Evaluator<'_>, name: &str, arguments: &[&Expr], grid: Grid) -> Result<Value> {
    let argument =
        |index: usize| arguments.get(index).copied().ok_or_else(|| execution(&format!("{name}() has too few arguments")));
    let vector = |index: usize| evaluator.vector(argument(index)?, grid);
    let scalar = |index: usize| evaluator.scalar(argument(index)?, grid);
    let seconds = || grid.times().map(|time| time as f64 / 1000.0).collect::<Vec<_>>();
    if let Some(function) = of_number(name) {
        return mapped(vector(0)?, |_, value| function(value));
    }
    if let Some(function) = of_time(name) {
        let rows = if arguments.is_empty() { constant(seconds()) } else { vector(0)? };
        return mapped(rows, |_, value| function(value));
    }
    match name {
        "time" => Ok(Value::Scalar(seconds())),
        "pi" => Ok(Value::Scalar(vec![std::f64::consts::PI; grid.len()])),
        "vector" => Ok(Value::Vector(constant(scalar(0)?))),
        "scalar" => {
            let rows = vector(0)?;
            let only = |step| {
                let mut values = rows.iter().filter_map(|row| row.values[step]);
                values.next().filter(|_| values.next().is_none()).unwrap_or(f64::NAN)
            };
            Ok(Value::Scalar((0..grid.len()).map(only).collect()))
        }
        "timestamp" => match bare(argument(0)?) {
            Expr::VectorSelector(selector) => mapped(evaluator.select(selector, grid, Emit::Time)?, |_, time| time),
            _ => {
                let times = seconds();
                mapped(vector(0)?, |step, _| times[step])
            }
        },
        "round" => {
            let to = if arguments.len() > 1 { scalar(1)? } else { vec![1.0; grid.len()] };
            mapped(vector(0)?, |step, value| (value * (1.0 / to[step]) + 0.5).floor() / (1.0 / to[step]))
        }
        "clamp_min" => {
            let least = scalar(1)?;
            mapped(vector(0)?, |step, value| at_least(value, least[step]))
        }
        "clamp_max" => {
            let most = scalar(1)?;
            mapped(vector(0)?, |step, value| at_most(value, most[step]))
        }
        "clamp" => {
            let (least, most) = (scalar(1)?, scalar(2)?);
            let clamp =
                |step: usize, value| (least[step] <= most[step]).then(|| at_least(at_most(value, most[step]), least[step]));
            kept(vector(0)?, clamp)
        }
        "histogram_quantile" => combine(histogram_quantile(&scalar(0)?, vector(1)?)).map(Value::Vector),
        "absent" => {
            let rows = vector(0)?;
            let present: Vec<_> = (0..grid.len()).map(|step| rows.iter().any(|row| row.values[step].is_some())).collect();
            absent(argument(0)?, &present).map(Value::Vector)
        }
        "sort" | "sort_desc" => {
            let mut rows = vector(0)?;
            // The order of a range query's series is that of their labels.
            if grid.len() == 1 {
                rows.sort_by(|a, b| {
                    let (a, b) = (a.values[0].unwrap_or(f64::NAN), b.values[0].unwrap_or(f64::NAN));
                    a.is_nan().cmp(&b.is_nan()).then(if name == "sort" { a.total_cmp(&b) } else { b.total_cmp(&a) })
                });
            }
            Ok(Value::Vector(rows))
        }
        "label_replace" => {
            let text = |index: usize| evaluator.text(argument(index)?);
            label_replace(vector(0)?, &text(1)?, &text(2)?, &text(3)?, &text(4)?)
        }
        "label_join" => {
            let texts = arguments.iter().skip(1).map(|argument| evaluator.text(argument)).collect::<Result<Vec<_>>>()?;
            let [destination, separator, sources @ ..] = texts.as_slice() else {
                return Err(execution("label_join() has too few arguments"));
            };
            label_join(vector(0)?, destination, separator, sources)
        }
        _ => Err(QueryError::Bad(format!("invalid parameter \"query\": function {name}() is not supported"))),
    }
}

fn of_number(name: &str) -> Option<fn(f64) -> f64> {
    Some(match name {
        "abs" => f64::abs,
        "ceil" => f64::ceil,
        "floor" => f64::floor,
        "exp" => f64::exp,
        "ln" => f64::ln,
        "log2" => f64::log2,
        "log10" => f64::log10,
        "sqrt" => f64::sqrt,
        "sgn" => |value| {
            if value > 0.0 {
                1.0
            } else if value < 0.0 {
                -1.0
            } else {
                value
            }
        },
        "sin" => f64::sin,
        "cos" => f64::cos,
        "tan" => f64::tan,
        "asin" => f64::asin,
        "acos" => f64::acos,
        "atan" => f64::atan,
        "sinh" => f64::sinh,
        "cosh" => f64::cosh,
        "tanh" => f64::tanh,
        "asinh" => f64::asinh,
        "acosh" => f64::acosh,
        "atanh" => f64::atanh,
        "deg" => f64::to_degrees,
        "rad" => f64::to_radians,
        _ => return None,
    })
}

/// Parts of a UTC date, given seconds since 1970.
fn of_time(name: &str) -> Option<fn(f64) -> f64> {
    fn part(seconds: f64, part: fn(&Zoned) -> i16) -> f64 {
        Timestamp::from_second(seconds as i64).map_or(f64::NAN, |time| f64::from(part(&time.to_zoned(TimeZone::UTC))))
    }
    Some(match name {
        "minute" => |seconds| part(seconds, |time| i16::from(time.minute())),
        "hour" => |seconds| part(seconds, |time| i16::from(time.hour())),
        "day_of_month" => |seconds| part(seconds, |time| i16::from(time.day())),
        "day_of_week" => |seconds| part(seconds, |time| i16::from(time.weekday().to_sunday_zero_offset())),
        "day_of_year" => |seconds| part(seconds, Zoned::day_of_year),
        "days_in_month" => |seconds| part(seconds, |time| i16::from(time.days_in_month())),
        "month" => |seconds| part(seconds, |time| i16::from(time.month())),
        "year" => |seconds| part(seconds, Zoned::year),
        _ => return None,
    })
}

fn at_least(value: f64, least: f64) -> f64 {
    if value.is_nan() || least.is_nan() { f64::NAN } else { value.max(least) }
}

fn at_most(value: f64, most: f64) -> f64 {
    if value.is_nan() || most.is_nan() { f64::NAN } else { value.min(most) }
}

/// One series without labels.
fn constant(values: Vec<f64>) -> Vec<Row> {
    vec![Row { labels: Labels::default(), values: values.into_iter().map(Some).collect() }]
}

fn mapped(rows: Vec<Row>, f: impl Fn(usize, f64) -> f64) -> Result<Value> {
    kept(rows, |step, value| Some(f(step, value)))
}

/// Changes or drops values; the result has no name.
fn kept(rows: Vec<Row>, f: impl Fn(usize, f64) -> Option<f64>) -> Result<Value> {
    let row = |row: Row| Row {
        labels: row.labels.without_name(),
        values: row.values.into_iter().enumerate().map(|(step, value)| f(step, value?)).collect(),
    };
    combine(rows.into_iter().map(row).collect()).map(Value::Vector)
}

/// 1 where nothing was `present`, with the labels that the selector asks for by `=`.
pub(super) fn absent(argument: &Expr, present: &[bool]) -> Result<Vec<Row>> {
    if present.iter().all(|present| *present) {
        return Ok(Vec::new());
    }
    let selector = match argument {
        Expr::VectorSelector(selector) => Some(selector),
        Expr::MatrixSelector(selector) => Some(&selector.vs),
        _ => None,
    };
    let matchers = selector.map(matchers).transpose()?.unwrap_or_default();
    let once = |matcher: &&Matcher| matchers.iter().filter(|other| other.name == matcher.name).count() == 1;
    let labels =
        matchers.iter().filter(|matcher| matcher.name != NAME).filter(once).filter_map(|matcher| match &matcher.condition {
            Condition::Equal(value) => Some((matcher.name.as_str(), value.as_str())),
            _ => None,
        });
    let values = present.iter().map(|present| (!present).then_some(1.0)).collect();
    Ok(vec![Row { labels: Labels::of(labels), values }])
}

fn label_replace(rows: Vec<Row>, destination: &str, replacement: &str, source: &str, pattern: &str) -> Result<Value> {
    let regex =
        Matcher::regex(pattern).map_err(|_| execution(&format!("invalid regular expression in label_replace(): {pattern}")))?;
    if !is_label_name(destination) {
        return Err(execution(&format!("invalid destination label name in label_replace(): {destination}")));
    }
    let replace = |row: Row| match regex.captures(row.labels.get(source)) {
        None => row,
        Some(captures) => {
            let mut value = String::new();
            captures.expand(replacement, &mut value);
            Row { labels: row.labels.with(destination, &value), values: row.values }
        }
    };
    combine(rows.into_iter().map(replace).collect()).map(Value::Vector)
}

fn label_join(rows: Vec<Row>, destination: &str, separator: &str, sources: &[String]) -> Result<Value> {
    if let Some(invalid) = sources.iter().find(|name| !is_label_name(name)) {
        return Err(execution(&format!("invalid source label name in label_join(): {invalid}")));
    }
    if !is_label_name(destination) {
        return Err(execution(&format!("invalid destination label name in label_join(): {destination}")));
    }
    let join = |row: Row| {
        let value = sources.iter().map(|source| row.labels.get(source)).collect::<Vec<_>>().join(separator);
        Row { labels: row.labels.with(destination, &value), values: row.values }
    };
    combine(rows.into_iter().map(join).collect()).map(Value::Vector)
}
