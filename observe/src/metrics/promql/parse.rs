//! From text to an expression, with bounds on both.

use std::time::{Duration, SystemTime};

use promql_parser::label::{MatchOp, Matchers as ParsedMatchers};
use promql_parser::parser::token::{T_BOTTOMK, T_TOPK};
use promql_parser::parser::{Expr, Offset, VectorSelector};

use super::{QueryError, Result};
use crate::metrics::chunk::Millis;
use crate::metrics::labels::NAME;
use crate::metrics::matcher::{Condition, Matcher, Matchers};

/// Longest query, in bytes.
const MAX_LENGTH: usize = 32 << 10;
/// Most operators and parentheses; the evaluation goes one call deeper for each.
const MAX_OPERATORS: usize = 400;

/// Most of them in a selector, which has none that mean anything.
const MAX_SELECTOR_OPERATORS: usize = 4;

/// Parses a query. Deep ones need a stack of [`super::STACK`].
pub(crate) fn parse(query: &str) -> Result<Expr> {
    parse_bounded(query, MAX_OPERATORS)
}

fn parse_bounded(query: &str, operators_allowed: usize) -> Result<Expr> {
    let bad = |reason: &str| QueryError::Bad(format!("invalid parameter \"query\": parse error: {reason}"));
    if query.trim().is_empty() {
        return Err(bad("no expression found in input"));
    }
    if query.len() > MAX_LENGTH {
        return Err(bad(&format!("the query is longer than {MAX_LENGTH} bytes")));
    }
    if operators(query) > operators_allowed {
        return Err(bad(&format!("the query has more than {operators_allowed} operators and parentheses")));
    }
    // Prometheus' names for the types.
    let named = |reason: String| reason.replace("type matrix", "type range vector").replace("got vector", "got instant vector");
    promql_parser::parser::parse(query).map_err(|reason| bad(&named(reason)))
}

/// A selector alone, as `match[]` has it.
pub(crate) fn selector(text: &str) -> Result<Matchers> {
    let unwanted = |reason: &str| QueryError::Bad(format!("invalid parameter \"match[]\": {reason}"));
    match parse_bounded(text, MAX_SELECTOR_OPERATORS)
        .map_err(|error| unwanted(&error.to_string().replace("invalid parameter \"query\": ", "")))?
    {
        Expr::VectorSelector(selector) if selector.offset.is_none() && selector.at.is_none() => matchers(&selector),
        _ => Err(unwanted("parse error: a series selector is expected")),
    }
}

/// What nests, outside of quotes.
fn operators(query: &str) -> usize {
    let (mut quote, mut escaped, mut count) = (None, false, 0);
    for character in query.chars() {
        match (quote, character) {
            (Some(_), _) if escaped => escaped = false,
            (Some('"' | '\''), '\\') => escaped = true,
            (Some(open), _) if open == character => quote = None,
            (None, '"' | '\'' | '`') => quote = Some(character),
            (None, '(' | '[' | '+' | '-' | '*' | '/' | '%' | '^' | '<' | '>') => count += 1,
            _ => {}
        }
    }
    let words = query.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let equals = query.matches("==").count() + query.matches("!=").count();
    count
        + equals
        + words.filter(|word| ["and", "or", "unless", "atan2"].iter().any(|name| name.eq_ignore_ascii_case(word))).count()
}

/// The conditions of a selector.
pub(super) fn matchers(selector: &VectorSelector) -> Result<Matchers> {
    let ParsedMatchers { matchers, or_matchers } = &selector.matchers;
    if !or_matchers.is_empty() {
        return Err(QueryError::Bad("invalid parameter \"query\": \"or\" within a selector is not supported".to_owned()));
    }
    let name = selector.name.iter().map(|name| Ok(Matcher { name: NAME.to_owned(), condition: Condition::Equal(name.clone()) }));
    let others = matchers.iter().filter(|matcher| selector.name.is_none() || matcher.name != NAME).map(|matcher| {
        let regex = || {
            Matcher::regex(&matcher.value)
                .map_err(|error| QueryError::Bad(format!("invalid parameter \"query\": parse error: {error}")))
        };
        let condition = match &matcher.op {
            MatchOp::Equal => Condition::Equal(matcher.value.clone()),
            MatchOp::NotEqual => Condition::NotEqual(matcher.value.clone()),
            MatchOp::Re(_) => Condition::Matches(regex()?),
            MatchOp::NotRe(_) => Condition::MatchesNot(regex()?),
        };
        Ok(Matcher { name: matcher.name.clone(), condition })
    });
    name.chain(others).collect()
}

/// Whether a selector names the metric, and so finds no other.
pub(super) fn names_one_metric(selector: &VectorSelector) -> bool {
    let equal = |matcher: &Matcher| matcher.name == NAME && matches!(matcher.condition, Condition::Equal(_));
    matchers(selector).is_ok_and(|matchers| matchers.iter().any(equal))
}

/// The longest time span, a thousand years: however many of them are added up, the sum is a time.
const LONGEST: Millis = 1000 * 366 * 86_400_000;

/// A time span in milliseconds.
pub(super) fn millis(duration: Duration) -> Millis {
    Millis::try_from(duration.as_millis()).unwrap_or(LONGEST).min(LONGEST)
}

/// How far back `offset` goes; negative: ahead.
pub(super) fn offset(offset: Option<&Offset>) -> Millis {
    match offset {
        None => 0,
        Some(Offset::Pos(duration)) => millis(*duration),
        Some(Offset::Neg(duration)) => -millis(*duration),
    }
}

/// A point in time in milliseconds since 1970.
pub(super) fn since_epoch(time: SystemTime) -> Millis {
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => millis(after),
        Err(before) => -millis(before.duration()),
    }
}

/// Without parentheses around it.
pub(super) fn bare(mut expression: &Expr) -> &Expr {
    while let Expr::Paren(inner) = expression {
        expression = &inner.expr;
    }
    expression
}

/// Whether the expression yields its series in an order that means something.
pub(super) fn orders(expression: &Expr) -> bool {
    match bare(expression) {
        Expr::Call(call) => matches!(call.func.name, "sort" | "sort_desc"),
        Expr::Aggregate(aggregate) => matches!(aggregate.op.id(), T_TOPK | T_BOTTOMK),
        _ => false,
    }
}
