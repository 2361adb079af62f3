//! Aggregations that need all series of a group at once; the others are in [`fold`](super::fold).

use ahash::AHashMap;
use promql_parser::parser::token::{T_BOTTOMK, T_COUNT_VALUES, T_QUANTILE, T_STDDEV, T_STDVAR, T_TOPK};
use promql_parser::parser::{AggregateExpr, LabelModifier};

use super::Result;
use super::eval::execution;
use super::fold::kept;
use super::value::{Grid, Row, Value, combine, format_number, quantile, variance};
use crate::metrics::labels::{Labels, is_label_name};

/// Applies an aggregation; `parameter` is that of `topk` and its like.
pub(super) fn apply(operation: &AggregateExpr, parameter: Option<Value>, rows: Vec<Row>, grid: Grid) -> Result<Vec<Row>> {
    let groups = Groups::new(operation.modifier.as_ref(), rows);
    let scalar = |parameter: Option<Value>| match parameter {
        Some(Value::Scalar(values)) => Ok(values),
        _ => Err(execution(&format!("{} expects a scalar parameter", operation.op))),
    };
    Ok(match operation.op.id() {
        T_STDDEV => groups.columns(grid, |_, values| variance(values.into_iter()).sqrt()),
        T_STDVAR => groups.columns(grid, |_, values| variance(values.into_iter())),
        T_QUANTILE => {
            let q = scalar(parameter)?;
            groups.columns(grid, |step, values| quantile(q[step], values))
        }
        T_TOPK => groups.select(grid, &scalar(parameter)?, true),
        T_BOTTOMK => groups.select(grid, &scalar(parameter)?, false),
        T_COUNT_VALUES => match parameter {
            Some(Value::Text(label)) if is_label_name(&label) => groups.count_values(&label, grid)?,
            Some(Value::Text(label)) => return Err(execution(&format!("invalid label name {label:?}"))),
            _ => return Err(execution("count_values expects a string parameter")),
        },
        _ => return Err(execution(&format!("aggregation {} is experimental and not supported", operation.op))),
    })
}

struct Groups {
    groups: Vec<(Labels, Vec<Row>)>,
}

impl Groups {
    fn new(modifier: Option<&LabelModifier>, rows: Vec<Row>) -> Self {
        let mut groups: Vec<(Labels, Vec<Row>)> = Vec::new();
        let mut known: AHashMap<Labels, usize> = AHashMap::new();
        for row in rows {
            let labels = row.labels.filtered(|name| kept(modifier, name));
            let index = *known.entry(labels).or_insert_with_key(|labels| {
                groups.push((labels.clone(), Vec::new()));
                groups.len() - 1
            });
            groups[index].1.push(row);
        }
        Self { groups }
    }

    /// Computes each group's value of a step from all values of that step.
    fn columns(self, grid: Grid, compute: impl Fn(usize, Vec<f64>) -> f64) -> Vec<Row> {
        let group = |(labels, rows): (Labels, Vec<Row>)| {
            let value = |step: usize| {
                let column: Vec<f64> = rows.iter().filter_map(|row| row.values[step]).collect();
                (!column.is_empty()).then(|| compute(step, column))
            };
            Row { labels, values: (0..grid.len()).map(value).collect() }
        };
        self.groups.into_iter().map(group).collect()
    }

    /// The largest or smallest `k` of each group, with their own labels. At a single step they come in order.
    fn select(self, grid: Grid, k: &[f64], largest: bool) -> Vec<Row> {
        let mut selected = Vec::new();
        for (_, mut rows) in self.groups {
            let mut order: Vec<usize> = Vec::new();
            let mut kept = vec![vec![None; grid.len()]; rows.len()];
            for step in 0..grid.len() {
                order.clear();
                order.extend((0..rows.len()).filter(|row| rows[*row].values[step].is_some()));
                let value = |row: usize| rows[row].values[step].unwrap_or(f64::NAN);
                order.sort_by(|a, b| {
                    let (a, b) = (value(*a), value(*b));
                    let numbers = if largest { b.total_cmp(&a) } else { a.total_cmp(&b) };
                    a.is_nan().cmp(&b.is_nan()).then(numbers)
                });
                order.truncate(if k[step] >= 1.0 { k[step] as usize } else { 0 });
                for row in &order {
                    kept[*row][step] = rows[*row].values[step];
                }
            }
            let in_order = if grid.len() == 1 { order } else { (0..rows.len()).collect() };
            for index in in_order {
                let values = std::mem::take(&mut kept[index]);
                if values.iter().any(Option::is_some) {
                    selected.push(Row { labels: std::mem::take(&mut rows[index].labels), values });
                }
            }
        }
        selected
    }

    fn count_values(self, label: &str, grid: Grid) -> Result<Vec<Row>> {
        let mut counted = Vec::new();
        for (labels, rows) in self.groups {
            let mut counts: AHashMap<String, Vec<Option<f64>>> = AHashMap::new();
            for row in &rows {
                for (step, value) in row.values.iter().enumerate() {
                    let Some(value) = value else { continue };
                    let counts = counts.entry(format_number(*value)).or_insert_with(|| vec![None; grid.len()]);
                    *counts[step].get_or_insert(0.0) += 1.0;
                }
            }
            counted.extend(counts.into_iter().map(|(value, values)| Row { labels: labels.with(label, &value), values }));
        }
        combine(counted)
    }
}
