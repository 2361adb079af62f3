//! Expressions to values.

use std::num::NonZero;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use promql_parser::parser::{AtModifier, Call, Expr, MatrixSelector, Offset, SubqueryExpr, VectorSelector};

use super::parse::{bare, matchers, millis, offset, since_epoch};
use super::range::{self, Window};
use super::value::{Grid, Row, Value, combine};
use super::{LOOKBACK, QueryError, Result, SUBQUERY_STEP, aggregate, binary, function};
use crate::metrics::chunk::{Millis, Sample, is_stale};
use crate::metrics::labels::Labels;
use crate::metrics::tsdb::{Selected, Tsdb};

/// One query under way.
pub(super) struct Evaluator<'a> {
    tsdb: &'a Tsdb,
    /// What `start()` and `end()` mean.
    span: (Millis, Millis),
    deadline: Instant,
    /// Values that may still be computed.
    left: AtomicUsize,
}

/// Series that are worth a thread of their own.
const SERIES_PER_THREAD: usize = 500;
/// Most threads of one query.
const THREADS: usize = 4;

/// What an instant selector yields of the sample it finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Emit {
    Value,
    Time,
}

/// The windows of a range vector: at every step, the samples with `end - range < time <= end`.
#[derive(Debug, Clone, Copy)]
struct Windows {
    grid: Grid,
    at: Option<Millis>,
    offset: Millis,
    range: Millis,
}

impl Windows {
    fn end(&self, index: usize) -> Millis {
        self.at.unwrap_or_else(|| self.grid.time(index)) - self.offset
    }

    /// What all windows together need: after, until.
    fn span(&self) -> (Millis, Millis) {
        (self.end(0) - self.range, self.end(self.grid.len().saturating_sub(1)))
    }
}

impl<'a> Evaluator<'a> {
    pub(super) fn new(tsdb: &'a Tsdb, span: (Millis, Millis), deadline: Instant, values: usize) -> Self {
        Self { tsdb, span, deadline, left: AtomicUsize::new(values) }
    }

    pub(super) fn eval(&self, expression: &Expr, grid: Grid) -> Result<Value> {
        match expression {
            Expr::NumberLiteral(number) => Ok(Value::Scalar(vec![number.val; grid.len()])),
            Expr::StringLiteral(text) => Ok(Value::Text(text.val.clone())),
            Expr::Paren(inner) => self.eval(&inner.expr, grid),
            Expr::Unary(unary) => match self.eval(&unary.expr, grid)? {
                Value::Scalar(values) => Ok(Value::Scalar(values.into_iter().map(|value| -value).collect())),
                Value::Vector(rows) => Ok(Value::Vector(combine(rows.into_iter().map(|row| row.map(|value| -value)).collect())?)),
                Value::Text(_) => Err(execution("a string has no sign")),
            },
            Expr::VectorSelector(selector) => self.select(selector, grid, Emit::Value).map(Value::Vector),
            Expr::Binary(operation) => {
                let (left, right) = (self.eval(&operation.lhs, grid)?, self.eval(&operation.rhs, grid)?);
                self.checked(binary::apply(operation, left, right)?)
            }
            Expr::Aggregate(operation) => {
                let parameter = operation.param.as_ref().map(|parameter| self.eval(parameter, grid)).transpose()?;
                let rows = self.vector(&operation.expr, grid)?;
                self.checked(Value::Vector(aggregate::apply(operation, parameter, rows, grid)?))
            }
            Expr::Call(call) => {
                let value = self.call(call, grid)?;
                self.checked(value)
            }
            Expr::MatrixSelector(_) | Expr::Subquery(_) => {
                Err(execution("a range vector can only be the argument of a function"))
            }
            Expr::Extension(extension) => Err(execution(&format!("{} is not supported", extension.expr.name()))),
        }
    }

    /// An instant vector.
    pub(super) fn vector(&self, expression: &Expr, grid: Grid) -> Result<Vec<Row>> {
        match self.eval(expression, grid)? {
            Value::Vector(rows) => Ok(rows),
            Value::Scalar(_) | Value::Text(_) => Err(execution("an instant vector is expected")),
        }
    }

    /// A number for each step.
    pub(super) fn scalar(&self, expression: &Expr, grid: Grid) -> Result<Vec<f64>> {
        match self.eval(expression, grid)? {
            Value::Scalar(values) => Ok(values),
            Value::Vector(_) | Value::Text(_) => Err(execution("a scalar is expected")),
        }
    }

    /// A text.
    pub(super) fn text(&self, expression: &Expr) -> Result<String> {
        match bare(expression) {
            Expr::StringLiteral(text) => Ok(text.val.clone()),
            _ => Err(execution("a string is expected")),
        }
    }

    /// An instant selector: at each step the latest sample that is not too old and not the mark of an end.
    pub(super) fn select(&self, selector: &VectorSelector, grid: Grid, emit: Emit) -> Result<Vec<Row>> {
        let matchers = matchers(selector)?;
        let windows = self.windows(selector.at.as_ref(), selector.offset.as_ref(), LOOKBACK, grid);
        let (after, until) = windows.span();
        let mut rows = Vec::new();
        for series in self.tsdb.select(&matchers, after, until) {
            self.spend(grid.len())?;
            let mut samples = series.samples(after, until).peekable();
            let mut latest: Option<Sample> = None;
            let values: Vec<_> = (0..grid.len())
                .map(|index| {
                    let end = windows.end(index);
                    while let Some(sample) = samples.next_if(|sample| sample.time <= end) {
                        latest = Some(sample);
                    }
                    let current = latest.filter(|sample| sample.time > end - LOOKBACK && !is_stale(sample.value))?;
                    Some(match emit {
                        Emit::Value => current.value,
                        Emit::Time => current.time as f64 / 1000.0,
                    })
                })
                .collect();
            if values.iter().any(Option::is_some) {
                rows.push(Row { labels: series.labels.clone(), values });
            }
        }
        Ok(rows)
    }

    fn call(&self, call: &Call, grid: Grid) -> Result<Value> {
        let arguments: Vec<&Expr> = call.args.args.iter().map(|argument| &**argument).collect();
        let name = call.func.name;
        if let Some(function) = range::function(name) {
            let (index, ranges) = arguments
                .iter()
                .enumerate()
                .find(|(_, argument)| matches!(bare(argument), Expr::MatrixSelector(_) | Expr::Subquery(_)))
                .ok_or_else(|| execution(&format!("{name}() expects a range vector")))?;
            let parameter = match arguments.iter().enumerate().find(|(at, _)| *at != index) {
                Some((_, parameter)) => Some(self.scalar(parameter, grid)?),
                None => None,
            };
            let keep_name = name == "last_over_time";
            let counter = matches!(name, "rate" | "increase");
            let rows: Vec<Row> = self.each_range(ranges, grid, |labels, samples, windows| {
                let (mut window, falls) = (Window::default(), counter && range::falls(samples));
                let values: Vec<_> = (0..grid.len())
                    .map(|index| {
                        let end = windows.end(index);
                        let parameter = parameter.as_ref().and_then(|values| values.get(index)).copied().unwrap_or(f64::NAN);
                        let inside = window.advance(samples, end - windows.range, end);
                        if inside.is_empty() {
                            None
                        } else {
                            function(inside, &range::At { end, range: windows.range, time: grid.time(index), parameter, falls })
                        }
                    })
                    .collect();
                values.iter().any(Option::is_some).then(|| Row { labels: labels.clone(), values })
            })?;
            if keep_name {
                return Ok(Value::Vector(combine(rows)?));
            }
            // Series of one metric do not become equal without its name.
            let one_metric = rows.windows(2).all(|pair| pair[0].labels.name() == pair[1].labels.name());
            let unnamed = rows.into_iter().map(|row| Row { labels: row.labels.without_name(), ..row }).collect();
            return Ok(Value::Vector(if one_metric { unnamed } else { combine(unnamed)? }));
        }
        if name == "absent_over_time" {
            let argument = arguments.first().ok_or_else(|| execution("absent_over_time() expects a range vector"))?;
            let of_series: Vec<Vec<bool>> = self.each_range(argument, grid, |_, samples, windows| {
                let mut window = Window::default();
                let end = |index| windows.end(index);
                let present = |index| !window.advance(samples, end(index) - windows.range, end(index)).is_empty();
                Some((0..grid.len()).map(present).collect())
            })?;
            let present: Vec<bool> = (0..grid.len()).map(|index| of_series.iter().any(|present| present[index])).collect();
            return function::absent(argument, &present).map(Value::Vector);
        }
        function::call(self, name, &arguments, grid)
    }

    /// The raw samples of a range vector at one time, for an instant query of it.
    pub(super) fn raw(&self, expression: &Expr, grid: Grid) -> Result<Vec<(Labels, Vec<Sample>)>> {
        self.each_range(expression, grid, |labels, samples, windows| {
            let inside = Window::default().advance(samples, windows.end(0) - windows.range, windows.end(0));
            (!inside.is_empty()).then(|| (labels.clone(), inside.to_vec()))
        })
    }

    /// What `visit` makes of each series of a range vector: it gets all samples that any window may need, marks of ends left out.
    fn each_range<T: Send>(
        &self,
        expression: &Expr,
        grid: Grid,
        visit: impl Fn(&Labels, &[Sample], &Windows) -> Option<T> + Sync,
    ) -> Result<Vec<T>> {
        match bare(expression) {
            Expr::MatrixSelector(MatrixSelector { vs, range }) => {
                let windows = self.windows(vs.at.as_ref(), vs.offset.as_ref(), millis(*range), grid);
                let (after, until) = windows.span();
                let found = self.tsdb.select(&matchers(vs)?, after, until);
                let read = |series: &[Selected]| {
                    let (mut samples, mut visited) = (Vec::new(), Vec::with_capacity(series.len()));
                    for series in series {
                        samples.clear();
                        series.read(after, until, &mut samples);
                        self.spend(samples.len() + grid.len())?;
                        visited.extend(visit(&series.labels, &samples, &windows));
                    }
                    Ok(visited)
                };
                in_parallel(&found, &read)
            }
            Expr::Subquery(subquery) => {
                let (windows, inner) = self.subquery(subquery, grid)?;
                let rows = match self.eval(&subquery.expr, inner)? {
                    Value::Vector(rows) => rows,
                    Value::Scalar(values) => {
                        vec![Row { labels: Labels::default(), values: values.into_iter().map(Some).collect() }]
                    }
                    Value::Text(_) => return Err(execution("a subquery of a string has no meaning")),
                };
                let mut visited = Vec::new();
                for row in rows {
                    self.spend(grid.len())?;
                    let samples: Vec<_> = inner
                        .times()
                        .zip(&row.values)
                        .filter_map(|(time, value)| Some(Sample { time, value: (*value)? }))
                        .collect();
                    visited.extend(visit(&row.labels, &samples, &windows));
                }
                Ok(visited)
            }
            _ => Err(execution("a range vector is expected")),
        }
    }

    /// A subquery's own steps are multiples of its resolution, whatever the steps around it are.
    fn subquery(&self, subquery: &SubqueryExpr, grid: Grid) -> Result<(Windows, Grid)> {
        let windows = self.windows(subquery.at.as_ref(), subquery.offset.as_ref(), millis(subquery.range), grid);
        let step = subquery.step.map_or(SUBQUERY_STEP, millis).max(1);
        let (after, until) = windows.span();
        let inner = Grid::new((after.div_euclid(step) + 1) * step, until, step);
        if inner.len() > self.left.load(Ordering::Relaxed) {
            return Err(too_many());
        }
        Ok((windows, inner))
    }

    fn windows(&self, at: Option<&AtModifier>, back: Option<&Offset>, range: Millis, grid: Grid) -> Windows {
        let at = at.map(|at| match at {
            AtModifier::Start => self.span.0,
            AtModifier::End => self.span.1,
            AtModifier::At(time) => since_epoch(*time),
        });
        Windows { grid, at, offset: offset(back), range }
    }

    /// Counts what was computed against the query's budget.
    fn spend(&self, values: usize) -> Result<()> {
        if Instant::now() > self.deadline {
            return Err(QueryError::Timeout);
        }
        let less = |left: usize| left.checked_sub(values);
        self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).map(drop).map_err(|_| too_many())
    }

    fn checked(&self, value: Value) -> Result<Value> {
        if let Value::Vector(rows) = &value {
            self.spend(rows.iter().map(|row| row.values.len()).sum())?;
        }
        Ok(value)
    }
}

/// Shares many series among threads; the order of the results is that of the series.
fn in_parallel<T: Send>(series: &[Selected], read: &(impl Fn(&[Selected]) -> Result<Vec<T>> + Sync)) -> Result<Vec<T>> {
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get).min(THREADS).min(series.len() / SERIES_PER_THREAD);
    if threads < 2 {
        return read(series);
    }
    std::thread::scope(|scope| {
        let parts = series.chunks(series.len().div_ceil(threads));
        let running: Vec<_> = parts.map(|part| scope.spawn(move || read(part))).collect();
        let mut results = Vec::with_capacity(series.len());
        for thread in running {
            results.extend(thread.join().map_err(|_| execution("the evaluation was broken off by a bug"))??);
        }
        Ok(results)
    })
}

/// An error of the evaluation.
pub(super) fn execution(reason: &str) -> QueryError {
    QueryError::Execution(reason.to_owned())
}

fn too_many() -> QueryError {
    execution("query processing would load too many samples into memory in query execution")
}
