//! PromQL: the language is `promql-parser`'s, the meaning is Prometheus 3's.
//!
//! A query is evaluated for all of its steps at once: a value is a table of series by steps ([`value::Row`]), so that labels
//! are compared once and not once a step. Native histograms do not exist here, and functions on them are refused by name.

mod aggregate;
mod binary;
mod eval;
mod fold;
mod function;
mod histogram;
mod parse;
mod range;
mod value;

use std::time::{Duration, Instant};

use promql_parser::parser::value::ValueType;
use thiserror::Error;

pub(crate) use parse::{parse, selector};
pub(crate) use value::format_number;

use super::chunk::{Millis, Sample};
use super::labels::Labels;
use super::tsdb::Tsdb;
use eval::Evaluator;
use value::{Grid, Row, Value};

/// A sample counts for so long, if no newer one comes.
pub(crate) const LOOKBACK: Millis = 300_000;
/// A subquery's resolution, if it names none: Prometheus' evaluation interval.
const SUBQUERY_STEP: Millis = 60_000;
/// A thread that evaluates needs so much stack for the most deeply nested query that is taken.
pub(crate) const STACK: usize = 64 << 20;
/// Prometheus' own limit.
const MAX_STEPS: i64 = 11_000;

/// Why a query has no answer.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub(crate) enum QueryError {
    /// It is not PromQL, or its parameters are wrong.
    #[error("{0}")]
    Bad(String),
    /// It went wrong while it was evaluated.
    #[error("{0}")]
    Execution(String),
    /// It took too long.
    #[error("query timed out in expression evaluation")]
    Timeout,
}

pub(crate) type Result<T> = std::result::Result<T, QueryError>;

/// What may be spent on one query.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Budget {
    pub(crate) timeout: Duration,
    /// Most values (series times steps, or raw samples) that are computed on the way.
    pub(crate) values: usize,
}

impl Default for Budget {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(30), values: 20_000_000 }
    }
}

/// The answer to a query at one time.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Answer {
    Scalar(f64),
    Text(String),
    Vector(Vec<(Labels, Sample)>),
    Matrix(Vec<(Labels, Vec<Sample>)>),
}

/// Evaluates `query` at `time`.
pub(crate) fn instant(tsdb: &Tsdb, query: &str, time: Millis, budget: Budget) -> Result<Answer> {
    let expression = parse(query)?;
    let grid = Grid::at(time);
    let evaluator = Evaluator::new(tsdb, (time, time), Instant::now() + budget.timeout, budget.values);
    if expression.value_type() == ValueType::Matrix {
        let mut series = evaluator.raw(&expression, grid)?;
        series.sort_by(|a, b| a.0.cmp(&b.0));
        return Ok(Answer::Matrix(series));
    }
    Ok(match evaluator.eval(&expression, grid)? {
        Value::Scalar(values) => Answer::Scalar(values.first().copied().unwrap_or(f64::NAN)),
        Value::Text(text) => Answer::Text(text),
        Value::Vector(mut rows) => {
            if !parse::orders(&expression) {
                rows.sort_by(|a, b| a.labels.cmp(&b.labels));
            }
            let sample = |row: Row| Some((row.labels, Sample { time, value: (*row.values.first()?)? }));
            Answer::Vector(rows.into_iter().filter_map(sample).collect())
        }
    })
}

/// Evaluates `query` at `start`, and every `step` from there up to `end`.
pub(crate) fn range(
    tsdb: &Tsdb,
    query: &str,
    (start, end, step): (Millis, Millis, Millis),
    budget: Budget,
) -> Result<Vec<(Labels, Vec<Sample>)>> {
    let bad = |reason: String| Err(QueryError::Bad(reason));
    if end < start {
        return bad("invalid parameter \"end\": end timestamp must not be before start time".to_owned());
    }
    if step <= 0 {
        return bad(
            "invalid parameter \"step\": zero or negative query resolution step widths are not accepted. Try a positive integer"
                .to_owned(),
        );
    }
    if (end - start) / step > MAX_STEPS {
        return bad(
            "exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query resolution (?step=XX)"
                .to_owned(),
        );
    }
    let expression = parse(query)?;
    let kind = match expression.value_type() {
        ValueType::Matrix => Some("range vector"),
        ValueType::String => Some("string"),
        ValueType::Vector | ValueType::Scalar => None,
    };
    if let Some(kind) = kind {
        return bad(format!(
            "invalid parameter \"query\": invalid expression type \"{kind}\" for range query, must be Scalar or instant Vector"
        ));
    }
    let grid = Grid::new(start, end, step);
    let rows = match Evaluator::new(tsdb, (start, end), Instant::now() + budget.timeout, budget.values).eval(&expression, grid)? {
        Value::Scalar(values) => vec![Row { labels: Labels::default(), values: values.into_iter().map(Some).collect() }],
        Value::Vector(rows) => rows,
        Value::Text(_) => Vec::new(),
    };
    let samples = |row: Row| {
        let samples = grid.times().zip(row.values).filter_map(|(time, value)| Some(Sample { time, value: value? }));
        (row.labels, samples.collect::<Vec<_>>())
    };
    let mut series: Vec<_> = rows.into_iter().map(samples).filter(|(_, samples)| !samples.is_empty()).collect();
    series.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(series)
}

#[cfg(test)]
mod tests;
