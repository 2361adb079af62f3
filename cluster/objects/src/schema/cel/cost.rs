//! What rules cost at most, before they are run: nothing stops a rule under way, and one that compares all items of a list with
//! all others takes minutes for a list that is long enough.

use kube_cel::CompiledSchema;
use kube_cel::cel::common::ast::{EntryExpr, Expr, IdedExpr};
use serde_json::Value;

/// Steps that the rules of one object may take together, Kubernetes' `RuntimeCELCostBudget`.
const BUDGET: u64 = 10_000_000;

/// The path of the value at which the budget for an object is used up.
pub(super) fn over_budget(schema: &CompiledSchema, object: &Value) -> Option<String> {
    spend(schema, object, &mut String::new(), &mut { BUDGET })
}

fn spend(schema: &CompiledSchema, value: &Value, path: &mut String, budget: &mut u64) -> Option<String> {
    if !schema.validations.is_empty() {
        let breadth = breadth(value);
        for rule in schema.validations.iter().flatten() {
            match budget.checked_sub(cost(rule.program.expression(), breadth)) {
                Some(rest) => *budget = rest,
                None => return Some(path.clone()),
            }
        }
    }
    for branch in schema.all_of.iter().chain(&schema.one_of).chain(&schema.any_of) {
        if let Some(path) = spend(branch, value, path, budget) {
            return Some(path);
        }
    }
    let length = path.len();
    match value {
        Value::Object(fields) => fields.iter().find_map(|(name, value)| {
            let schema = schema.properties.get(name).or(schema.additional_properties.as_deref())?;
            if !path.is_empty() {
                path.push('.');
            }
            path.push_str(name);
            let over = spend(schema, value, path, budget);
            path.truncate(length);
            over
        }),
        Value::Array(items) => items.iter().enumerate().find_map(|(index, item)| {
            path.push_str(&format!("[{index}]"));
            let over = spend(schema.items.as_deref()?, item, path, budget);
            path.truncate(length);
            over
        }),
        _ => None,
    }
}

/// The length of the longest list or map in a value: no loop of a rule is longer.
fn breadth(value: &Value) -> u64 {
    let (own, below) = match value {
        Value::Array(items) => (items.len(), items.iter().map(breadth).max()),
        Value::Object(fields) => (fields.len(), fields.values().map(breadth).max()),
        _ => (0, None),
    };
    (own as u64).max(below.unwrap_or(0))
}

/// The steps of an expression whose loops have so many rounds.
fn cost(expression: &IdedExpr, rounds: u64) -> u64 {
    let of = |expression: &IdedExpr| cost(expression, rounds);
    let sum = |costs: &mut dyn Iterator<Item = u64>| costs.fold(1, u64::saturating_add);
    let entry = |entry: &EntryExpr| match entry {
        EntryExpr::StructField(field) => of(&field.value),
        EntryExpr::MapEntry(entry) => of(&entry.key).saturating_add(of(&entry.value)),
    };
    match &expression.expr {
        Expr::Call(call) => sum(&mut call.target.iter().map(|target| of(target)).chain(call.args.iter().map(of))),
        Expr::Comprehension(looped) => {
            let round = of(&looped.loop_cond).saturating_add(of(&looped.loop_step));
            let around = [&looped.iter_range, &looped.accu_init, &looped.result];
            sum(&mut around.into_iter().map(of).chain([round.saturating_mul(rounds)]))
        }
        Expr::List(list) => sum(&mut list.elements.iter().map(of)),
        Expr::Map(map) => sum(&mut map.entries.iter().map(|one| entry(&one.expr))),
        Expr::Struct(fields) => sum(&mut fields.entries.iter().map(|one| entry(&one.expr))),
        Expr::Select(select) => sum(&mut std::iter::once(of(&select.operand))),
        _ => 1,
    }
}
