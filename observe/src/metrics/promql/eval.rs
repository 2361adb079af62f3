//! Expressions to values.

use std::cell::Cell;
use std::time::Instant;

use promql_parser::parser::{AtModifier, Call, Expr, MatrixSelector, Offset, SubqueryExpr, VectorSelector};

use super::parse::{bare, matchers, millis, offset, since_epoch};
use super::range::{self, Window};
use super::value::{Grid, Row, Value, combine};
use super::{LOOKBACK, QueryError, Result, SUBQUERY_STEP, aggregate, binary, function};
use crate::metrics::chunk::{Millis, Sample, is_stale};
use crate::metrics::labels::Labels;
use crate::metrics::tsdb::Tsdb;

/// One query under way.
pub(super) struct Evaluator<'a> {
    tsdb: &'a Tsdb,
    /// What `start()` and `end()` mean.
    span: (Millis, Millis),
    deadline: Instant,
    /// Values that may still be computed.
    left: Cell<usize>,
}

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
        Self { tsdb, span, deadline, left: Cell::new(values) }
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
            let mut rows = Vec::new();
            self.each_range(ranges, grid, |labels, samples, windows| {
                let mut window = Window::default();
                let values: Vec<_> = (0..grid.len())
                    .map(|index| {
                        let end = windows.end(index);
                        let parameter = parameter.as_ref().and_then(|values| values.get(index)).copied().unwrap_or(f64::NAN);
                        let inside = window.advance(samples, end - windows.range, end);
                        if inside.is_empty() {
                            None
                        } else {
                            function(inside, &range::At { end, range: windows.range, time: grid.time(index), parameter })
                        }
                    })
                    .collect();
                if values.iter().any(Option::is_some) {
                    rows.push(Row { labels: if keep_name { labels.clone() } else { labels.without_name() }, values });
                }
                Ok(())
            })?;
            return Ok(Value::Vector(combine(rows)?));
        }
        if name == "absent_over_time" {
            let argument = arguments.first().ok_or_else(|| execution("absent_over_time() expects a range vector"))?;
            let mut present = vec![false; grid.len()];
            self.each_range(argument, grid, |_, samples, windows| {
                let mut window = Window::default();
                for (index, present) in present.iter_mut().enumerate() {
                    let end = windows.end(index);
                    *present |= !window.advance(samples, end - windows.range, end).is_empty();
                }
                Ok(())
            })?;
            return function::absent(argument, &present).map(Value::Vector);
        }
        function::call(self, name, &arguments, grid)
    }

    /// The raw samples of a range vector at one time, for an instant query of it.
    pub(super) fn raw(&self, expression: &Expr, grid: Grid) -> Result<Vec<(Labels, Vec<Sample>)>> {
        let mut series = Vec::new();
        self.each_range(expression, grid, |labels, samples, windows| {
            let inside = Window::default().advance(samples, windows.end(0) - windows.range, windows.end(0));
            if !inside.is_empty() {
                series.push((labels.clone(), inside.to_vec()));
            }
            Ok(())
        })?;
        Ok(series)
    }

    /// Calls `visit` with each series of a range vector: all samples that any window may need, marks of ends left out.
    fn each_range(
        &self,
        expression: &Expr,
        grid: Grid,
        mut visit: impl FnMut(&Labels, &[Sample], &Windows) -> Result<()>,
    ) -> Result<()> {
        match bare(expression) {
            Expr::MatrixSelector(MatrixSelector { vs, range }) => {
                let windows = self.windows(vs.at.as_ref(), vs.offset.as_ref(), millis(*range), grid);
                let (after, until) = windows.span();
                let mut samples = Vec::new();
                for series in self.tsdb.select(&matchers(vs)?, after, until) {
                    samples.clear();
                    samples.extend(series.samples(after, until).filter(|sample| !is_stale(sample.value)));
                    self.spend(samples.len() + grid.len())?;
                    visit(&series.labels, &samples, &windows)?;
                }
                Ok(())
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
                for row in rows {
                    self.spend(grid.len())?;
                    let samples: Vec<_> = inner
                        .times()
                        .zip(&row.values)
                        .filter_map(|(time, value)| Some(Sample { time, value: (*value)? }))
                        .collect();
                    visit(&row.labels, &samples, &windows)?;
                }
                Ok(())
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
        if inner.len() > self.left.get() {
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
        self.left.set(self.left.get().checked_sub(values).ok_or_else(too_many)?);
        Ok(())
    }

    fn checked(&self, value: Value) -> Result<Value> {
        if let Value::Vector(rows) = &value {
            self.spend(rows.iter().map(|row| row.values.len()).sum())?;
        }
        Ok(value)
    }
}

/// An error of the evaluation.
pub(super) fn execution(reason: &str) -> QueryError {
    QueryError::Execution(reason.to_owned())
}

fn too_many() -> QueryError {
    execution("query processing would load too many samples into memory in query execution")
}
