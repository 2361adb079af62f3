//! Brace expansion: `{a,b}`, `{1..10}`, `{a..e}`.

use brush_parser::word::{BraceExpressionMember as Member, BraceExpressionOrText as Piece};

use super::parse;

/// The words that a word stands for, up to `most`.
pub(super) fn expand(word: &str, most: usize) -> Result<Vec<String>, String> {
    let Some(pieces) = parse::braces(word)? else { return Ok(vec![word.to_owned()]) };
    pieces_of(&pieces, most)
}

fn pieces_of(pieces: &[Piece], most: usize) -> Result<Vec<String>, String> {
    let mut words = vec![String::new()];
    for piece in pieces {
        let parts = match piece {
            Piece::Text(text) => vec![text.clone()],
            Piece::Expr(members) => {
                let mut parts = Vec::new();
                for member in members {
                    parts.extend(member_words(member, most)?);
                }
                parts
            }
        };
        if words.len().saturating_mul(parts.len()) > most {
            return Err("argument list too long".to_owned());
        }
        words = words.iter().flat_map(|word| parts.iter().map(move |part| format!("{word}{part}"))).collect();
    }
    Ok(words)
}

fn member_words(member: &Member, most: usize) -> Result<Vec<String>, String> {
    Ok(match member {
        Member::NumberSequence { start, end, increment } => {
            sequence(*start, *end, *increment).take(most + 1).map(|number| number.to_string()).collect()
        }
        Member::CharSequence { start, end, increment } => {
            let numbers = sequence(i64::from(u32::from(*start)), i64::from(u32::from(*end)), *increment);
            numbers.filter_map(|number| char::from_u32(u32::try_from(number).ok()?)).map(String::from).collect()
        }
        Member::Child(pieces) => pieces_of(pieces, most)?,
    })
}

/// Up or down, whatever the sign of the step.
fn sequence(start: i64, end: i64, step: i64) -> impl Iterator<Item = i64> {
    let step = i64::try_from(step.unsigned_abs().max(1)).unwrap_or(i64::MAX);
    let step = if start <= end { step } else { -step };
    let next = move |number: &i64| number.checked_add(step).filter(|next| if step > 0 { *next <= end } else { *next >= end });
    std::iter::successors(Some(start), next)
}
