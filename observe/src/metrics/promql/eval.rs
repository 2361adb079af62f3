//! Expressions to values.

use std::num::NonZero;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use promql_parser::parser::token::{T_AVG, T_COUNT, T_GROUP, T_MAX, T_MIN, T_SUM};
use promql_parser::parser::{AggregateExpr, AtModifier, Call, Expr, MatrixSelector, Offset, SubqueryExpr, VectorSelector};

use super::fold::{Accumulator, Count, Folded, Greatest, Least, Mean, There};
use super::parse::{bare, matchers, millis, names_one_metric, offset, since_epoch};
use super::range::{self, Plan, Windows};
use super::value::{Grid, Row, Sum, Value, combine};
use super::{LOOKBACK, QueryError, Result, SUBQUERY_STEP, aggregate, binary, function};
use crate::metrics::chunk::{Millis, Sample, is_stale};
use crate::metrics::columns::{Columns, Samples};
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

/// A call of a function of range vectors.
struct RangeCall<'e> {
    function: range::Function,
    ranges: &'e Expr,
    /// The other argument, at each step.
    parameter: Option<Vec<f64>>,
    keeps_name: bool,
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
                let rows = self.aggregate(operation, grid)?;
                self.checked(Value::Vector(rows))
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
        let (mut rows, mut columns) = (Vec::new(), Columns::default());
        for series in self.tsdb.select(&matchers, after, until) {
            self.spend(grid.len())?;
            let current = |latest: Option<Sample>, end: Millis| {
                let current = latest.filter(|sample| sample.time > end - LOOKBACK && !is_stale(sample.value))?;
                Some(match emit {
                    Emit::Value => current.value,
                    Emit::Time => current.time as f64 / 1000.0,
                })
            };
            let values: Vec<_> = if grid.len() == 1 {
                vec![current(series.latest(until), until)]
            } else {
                columns.read_all(&series);
                let mut samples = columns.samples().iter().peekable();
                let mut latest = None;
                let at = |step| {
                    let end = windows.end(step);
                    while let Some(sample) = samples.next_if(|sample| sample.time <= end) {
                        latest = Some(sample);
                    }
                    current(latest, end)
                };
                (0..grid.len()).map(at).collect()
            };
            if values.iter().any(Option::is_some) {
                rows.push(Row { labels: series.labels, values });
            }
        }
        Ok(rows)
    }

    fn aggregate(&self, operation: &AggregateExpr, grid: Grid) -> Result<Vec<Row>> {
        match operation.op.id() {
            T_SUM => self.fold::<Sum>(operation, grid),
            T_COUNT => self.fold::<Count>(operation, grid),
            T_GROUP => self.fold::<There>(operation, grid),
            T_AVG => self.fold::<Mean>(operation, grid),
            T_MIN => self.fold::<Least>(operation, grid),
            T_MAX => self.fold::<Greatest>(operation, grid),
            _ => {
                let parameter = operation.param.as_ref().map(|parameter| self.eval(parameter, grid)).transpose()?;
                aggregate::apply(operation, parameter, self.vector(&operation.expr, grid)?, grid)
            }
        }
    }

    /// An aggregation that needs no more than one series at a time. What a function of range vectors yields is folded as it comes:
    /// the rates of ten thousand series are never there at once.
    fn fold<A: Accumulator>(&self, operation: &AggregateExpr, grid: Grid) -> Result<Vec<Row>> {
        let modifier = operation.modifier.as_ref();
        if let Expr::Call(call) = bare(&operation.expr)
            && let Some(call) = self.range_call(call, grid)?
            && !call.keeps_name
            && let Expr::MatrixSelector(selector) = bare(call.ranges)
            // Series of several metrics may become equal without their names, which is an error.
            && names_one_metric(&selector.vs)
        {
            let new = || (Folded::<A>::new(modifier, grid, false), Vec::new());
            let parts = self.each_range(call.ranges, grid, new, |(folded, row), labels, samples, (plan, windows)| {
                plan.apply(call.function, samples, windows, call.parameter.as_deref(), row);
                if row.iter().any(Option::is_some) {
                    folded.add(labels, row);
                }
            });
            let mut parts = parts?.into_iter().map(|(folded, _)| folded);
            let Some(mut all) = parts.next() else { return Ok(Vec::new()) };
            parts.for_each(|part| all.merge(part));
            return Ok(all.rows());
        }
        let mut folded = Folded::<A>::new(modifier, grid, true);
        self.vector(&operation.expr, grid)?.iter().for_each(|row| folded.add(&row.labels, &row.values));
        Ok(folded.rows())
    }

    /// A call, if it is of a function of range vectors.
    fn range_call<'e>(&self, call: &'e Call, grid: Grid) -> Result<Option<RangeCall<'e>>> {
        let Some(function) = range::function(call.func.name) else { return Ok(None) };
        let is_range = |argument: &&Expr| matches!(bare(argument), Expr::MatrixSelector(_) | Expr::Subquery(_));
        let arguments = || call.args.args.iter().map(|argument| &**argument);
        let ranges =
            arguments().find(is_range).ok_or_else(|| execution(&format!("{}() expects a range vector", call.func.name)))?;
        let parameter = arguments().find(|argument| !is_range(argument));
        let parameter = parameter.map(|parameter| self.scalar(parameter, grid)).transpose()?;
        Ok(Some(RangeCall { function, ranges, parameter, keeps_name: call.func.name == "last_over_time" }))
    }

    fn call(&self, call: &Call, grid: Grid) -> Result<Value> {
        let arguments: Vec<&Expr> = call.args.args.iter().map(|argument| &**argument).collect();
        if let Some(call) = self.range_call(call, grid)? {
            let parts = self.each_range(call.ranges, grid, Vec::new, |rows, labels, samples, (plan, windows)| {
                let mut values = Vec::with_capacity(grid.len());
                plan.apply(call.function, samples, windows, call.parameter.as_deref(), &mut values);
                if values.iter().any(Option::is_some) {
                    rows.push(Row { labels: labels.clone(), values });
                }
            });
            let rows: Vec<Row> = parts?.into_iter().flatten().collect();
            if call.keeps_name {
                return Ok(Value::Vector(combine(rows)?));
            }
            // Series of one metric do not become equal without its name.
            let one_metric = rows.windows(2).all(|pair| pair[0].labels.name() == pair[1].labels.name());
            let unnamed = rows.into_iter().map(|row| Row { labels: row.labels.without_name(), ..row }).collect();
            return Ok(Value::Vector(if one_metric { unnamed } else { combine(unnamed)? }));
        }
        if call.func.name == "absent_over_time" {
            let argument = arguments.first().ok_or_else(|| execution("absent_over_time() expects a range vector"))?;
            let parts = self.each_range(
                argument,
                grid,
                || vec![false; grid.len()],
                |present, _, samples, (plan, _)| {
                    present.iter_mut().zip(plan.windows(samples)).for_each(|(present, window)| *present |= !window.is_empty());
                },
            )?;
            let present: Vec<bool> = (0..grid.len()).map(|step| parts.iter().any(|present| present[step])).collect();
            return function::absent(argument, &present).map(Value::Vector);
        }
        function::call(self, call.func.name, &arguments, grid)
    }

    /// The raw samples of a range vector at one time, for an instant query of it.
    pub(super) fn raw(&self, expression: &Expr, grid: Grid) -> Result<Vec<(Labels, Vec<Sample>)>> {
        let parts = self.each_range(expression, grid, Vec::new, |series, labels, samples, (plan, _)| {
            let window = plan.windows(samples).next().filter(|window| !window.is_empty());
            series.extend(window.map(|window| (labels.clone(), window.iter().collect())));
        });
        Ok(parts?.into_iter().flatten().collect())
    }

    /// Shows each series of a range vector to `visit`: all samples that any window may need, marks of ends left out, and which of them
    /// are in which window. Several threads share the series, each with a state of its own, which are the result in the order of the
    /// series.
    fn each_range<S: Send>(
        &self,
        expression: &Expr,
        grid: Grid,
        new: impl Fn() -> S + Sync,
        visit: impl Fn(&mut S, &Labels, Samples<'_>, (&Plan, &Windows)) + Sync,
    ) -> Result<Vec<S>> {
        match bare(expression) {
            Expr::MatrixSelector(MatrixSelector { vs, range }) => {
                let windows = self.windows(vs.at.as_ref(), vs.offset.as_ref(), millis(*range), grid);
                let span = windows.span();
                let found = self.tsdb.select(&matchers(vs)?, span.0, span.1);
                in_parallel(&found, &|series: &[Selected]| {
                    let (mut state, mut columns, mut plan, mut before) = (new(), Columns::default(), Plan::default(), None);
                    for series in series {
                        if !columns.read(series, before, span) {
                            plan.make(columns.samples().times, &windows);
                        }
                        before = Some(series);
                        self.spend(columns.samples().len() + grid.len())?;
                        visit(&mut state, &series.labels, columns.samples(), (&plan, &windows));
                    }
                    Ok(state)
                })
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
                let (mut state, mut plan) = (new(), Plan::default());
                for row in rows {
                    self.spend(grid.len())?;
                    let samples = inner.times().zip(&row.values).filter_map(|(time, value)| Some((time, (*value)?)));
                    let (times, values): (Vec<_>, Vec<_>) = samples.unzip();
                    plan.make(&times, &windows);
                    visit(&mut state, &row.labels, Samples { times: &times, values: &values }, (&plan, &windows));
                }
                Ok(vec![state])
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
fn in_parallel<S: Send>(series: &[Selected], read: &(impl Fn(&[Selected]) -> Result<S> + Sync)) -> Result<Vec<S>> {
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get).min(THREADS).min(series.len() / SERIES_PER_THREAD);
    if threads < 2 {
        return read(series).map(|state| vec![state]);
    }
    std::thread::scope(|scope| {
        let parts = series.chunks(series.len().div_ceil(threads));
        let running: Vec<_> = parts.map(|part| scope.spawn(move || read(part))).collect();
        let result = |thread: std::thread::ScopedJoinHandle<'_, Result<S>>| {
            thread.join().map_err(|_| execution("the evaluation was broken off by a bug"))?
        };
        running.into_iter().map(result).collect()
    })
}

/// An error of the evaluation.
pub(super) fn execution(reason: &str) -> QueryError {
    QueryError::Execution(reason.to_owned())
}

fn too_many() -> QueryError {
    execution("query processing would load too many samples into memory in query execution")
}
