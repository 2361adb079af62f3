//! Binary operators, and which series of one side meet which of the other.

use ahash::AHashMap;
use promql_parser::parser::token::{
    T_ADD, T_ATAN2, T_DIV, T_EQLC, T_GTE, T_GTR, T_LAND, T_LOR, T_LSS, T_LTE, T_LUNLESS, T_MOD, T_MUL, T_NEQ, T_POW, T_SUB,
    TokenId,
};
use promql_parser::parser::{BinModifier, BinaryExpr, LabelModifier, VectorMatchCardinality};

use super::eval::execution;
use super::value::{Row, Value, combine};
use super::{QueryError, Result};
use crate::metrics::labels::{Labels, NAME};

/// Applies an operator to both sides' values.
pub(super) fn apply(operation: &BinaryExpr, left: Value, right: Value) -> Result<Value> {
    let operator = Operator { token: operation.op.id(), as_bool: operation.return_bool() };
    let default = BinModifier::default();
    let modifier = operation.modifier.as_ref().unwrap_or(&default);
    if modifier.fill_values.lhs.is_some() || modifier.fill_values.rhs.is_some() {
        return Err(QueryError::Bad(
            "invalid parameter \"query\": the modifiers fill, fill_left and fill_right are not supported".to_owned(),
        ));
    }
    match (left, right) {
        (Value::Scalar(left), Value::Scalar(right)) => {
            let both = left.into_iter().zip(right);
            both.map(|(left, right)| operator.number(left, right)).collect::<Result<_>>().map(Value::Scalar)
        }
        (Value::Vector(rows), Value::Scalar(scalar)) => with_scalar(operator, rows, &scalar, |value, scalar| (value, scalar)),
        (Value::Scalar(scalar), Value::Vector(rows)) => with_scalar(operator, rows, &scalar, |value, scalar| (scalar, value)),
        (Value::Vector(left), Value::Vector(right)) => match operator.token {
            T_LAND | T_LOR | T_LUNLESS => set(operator.token, modifier, left, right),
            _ => matched(operator, modifier, left, right),
        }
        .map(Value::Vector),
        _ => Err(execution(&format!("operator {} is not for strings", operation.op))),
    }
}

#[derive(Debug, Clone, Copy)]
struct Operator {
    token: TokenId,
    as_bool: bool,
}

impl Operator {
    fn is_comparison(self) -> bool {
        matches!(self.token, T_EQLC | T_NEQ | T_GTR | T_LSS | T_GTE | T_LTE)
    }

    /// Whether the result is another thing than the left side, and has no name therefore.
    fn drops_name(self) -> bool {
        self.as_bool || !self.is_comparison()
    }

    fn holds(self, left: f64, right: f64) -> bool {
        match self.token {
            T_EQLC => left == right,
            T_NEQ => left != right,
            T_GTR => left > right,
            T_LSS => left < right,
            T_GTE => left >= right,
            _ => left <= right,
        }
    }

    /// Both as numbers; a comparison is 0 or 1.
    fn number(self, left: f64, right: f64) -> Result<f64> {
        Ok(match self.token {
            T_ADD => left + right,
            T_SUB => left - right,
            T_MUL => left * right,
            T_DIV => left / right,
            T_MOD => left % right,
            T_POW => left.powf(right),
            T_ATAN2 => left.atan2(right),
            _ if self.is_comparison() => f64::from(u8::from(self.holds(left, right))),
            _ => return Err(execution("this operator is not supported")),
        })
    }

    /// Of vector elements: a comparison without `bool` keeps `kept` or nothing.
    fn element(self, left: f64, right: f64, kept: f64) -> Result<Option<f64>> {
        if self.is_comparison() && !self.as_bool {
            return Ok(self.holds(left, right).then_some(kept));
        }
        self.number(left, right).map(Some)
    }
}

fn with_scalar(operator: Operator, rows: Vec<Row>, scalar: &[f64], order: fn(f64, f64) -> (f64, f64)) -> Result<Value> {
    let mut result = Vec::with_capacity(rows.len());
    for row in rows {
        let values = row.values.iter().zip(scalar).map(|(value, scalar)| {
            let Some(value) = *value else { return Ok(None) };
            let (left, right) = order(value, *scalar);
            operator.element(left, right, value)
        });
        let values = values.collect::<Result<Vec<_>>>()?;
        if values.iter().any(Option::is_some) {
            result.push(Row { labels: if operator.drops_name() { row.labels.without_name() } else { row.labels }, values });
        }
    }
    combine(result).map(Value::Vector)
}

/// The labels by which series meet.
fn signature(modifier: &BinModifier, labels: &Labels) -> Labels {
    match &modifier.matching {
        Some(LabelModifier::Include(on)) => labels.filtered(|name| on.labels.iter().any(|kept| kept == name)),
        Some(LabelModifier::Exclude(ignoring)) => {
            labels.filtered(|name| name != NAME && !ignoring.labels.iter().any(|dropped| dropped == name))
        }
        None => labels.without_name(),
    }
}

fn by_signature(modifier: &BinModifier, rows: &[Row]) -> AHashMap<Labels, Vec<usize>> {
    let mut groups: AHashMap<Labels, Vec<usize>> = AHashMap::with_capacity(rows.len());
    for (index, row) in rows.iter().enumerate() {
        groups.entry(signature(modifier, &row.labels)).or_default().push(index);
    }
    groups
}

fn set(operator: TokenId, modifier: &BinModifier, left: Vec<Row>, right: Vec<Row>) -> Result<Vec<Row>> {
    // Keeps a row's values where, among `others` of the same signature, there is a value (or is none).
    let keep = |rows: &[Row], others: &[Row], there: bool| -> Vec<Row> {
        let groups = by_signature(modifier, others);
        let filtered = rows.iter().map(|row| {
            let group = groups.get(&signature(modifier, &row.labels)).map_or(&[][..], Vec::as_slice);
            let present = |step: usize| group.iter().any(|other| others[*other].values[step].is_some());
            let values = row.values.iter().enumerate().map(|(step, value)| value.filter(|_| present(step) == there)).collect();
            Row { labels: row.labels.clone(), values }
        });
        filtered.filter(|row| row.values.iter().any(Option::is_some)).collect()
    };
    match operator {
        T_LAND => Ok(keep(&left, &right, true)),
        T_LUNLESS => Ok(keep(&left, &right, false)),
        _ => {
            let more = keep(&right, &left, false);
            combine(left.into_iter().chain(more).collect())
        }
    }
}

fn matched(operator: Operator, modifier: &BinModifier, left: Vec<Row>, right: Vec<Row>) -> Result<Vec<Row>> {
    let swapped = matches!(modifier.card, VectorMatchCardinality::OneToMany(_));
    let (many, one) = if swapped { (right, left) } else { (left, right) };
    let groups = by_signature(modifier, &one);
    unique(&groups, &one, if swapped { "left" } else { "right" })?;
    let mut result: Vec<Row> = Vec::with_capacity(many.len());
    let mut known: AHashMap<Labels, usize> = AHashMap::with_capacity(many.len());
    for row in &many {
        for other in groups.get(&signature(modifier, &row.labels)).into_iter().flatten() {
            let other = &one[*other];
            let values = row.values.iter().zip(&other.values).map(|(value, other)| {
                let (Some(value), Some(other)) = (*value, *other) else { return Ok(None) };
                let (left, right) = if swapped { (other, value) } else { (value, other) };
                operator.element(left, right, left)
            });
            let values = values.collect::<Result<Vec<_>>>()?;
            if !values.iter().any(Option::is_some) {
                continue;
            }
            let labels = result_labels(operator, modifier, &row.labels, &other.labels);
            let index = *known.entry(labels).or_insert_with_key(|labels| {
                result.push(Row { labels: labels.clone(), values: vec![None; values.len()] });
                result.len() - 1
            });
            for (there, value) in result[index].values.iter_mut().zip(values) {
                if there.is_some() && value.is_some() {
                    return Err(ambiguous(modifier));
                }
                *there = there.or(value);
            }
        }
    }
    Ok(result)
}

fn ambiguous(modifier: &BinModifier) -> QueryError {
    execution(match modifier.card {
        VectorMatchCardinality::OneToOne => {
            "multiple matches for labels: many-to-one matching must be explicit (group_left/group_right)"
        }
        _ => "multiple matches for labels: grouping labels must ensure unique matches",
    })
}

/// At no step may two series of the "one" side have the same signature.
fn unique(groups: &AHashMap<Labels, Vec<usize>>, rows: &[Row], side: &str) -> Result<()> {
    for (signature, group) in groups.iter().filter(|(_, group)| group.len() > 1) {
        let Some(first) = group.first() else { continue };
        for step in 0..rows[*first].values.len() {
            let mut present = group.iter().filter(|row| rows[**row].values[step].is_some());
            if let (Some(a), Some(b)) = (present.next(), present.next()) {
                return Err(execution(&format!(
                    "found duplicate series for the match group {signature} on the {side} hand-side of the operation: [{}, {}];\
                     many-to-many matching not allowed: matching labels must be unique on one side",
                    rows[*b].labels, rows[*a].labels
                )));
            }
        }
    }
    Ok(())
}

fn result_labels(operator: Operator, modifier: &BinModifier, many: &Labels, one: &Labels) -> Labels {
    let labels = if operator.drops_name() { many.without_name() } else { many.clone() };
    match (&modifier.card, &modifier.matching) {
        (VectorMatchCardinality::ManyToOne(include) | VectorMatchCardinality::OneToMany(include), _) => {
            include.labels.iter().fold(labels, |labels, name| labels.with(name, one.get(name)))
        }
        (_, Some(LabelModifier::Include(on))) => labels.filtered(|name| on.labels.iter().any(|kept| kept == name)),
        (_, Some(LabelModifier::Exclude(ignoring))) => {
            labels.filtered(|name| !ignoring.labels.iter().any(|dropped| dropped == name))
        }
        (_, None) => labels,
    }
}
