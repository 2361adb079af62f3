//! Parsing, with a bound on nesting: the parser is recursive.

use brush_parser::ast::{ArithmeticExpr, Program};
use brush_parser::word::{BraceExpressionOrText, WordPieceWithSource};
use brush_parser::{ParseError, Parser, ParserOptions};

/// The longest script.
const MAX_SCRIPT: usize = 1 << 20;

/// How deep parentheses and braces, and compound commands, may be nested. The parser backtracks: each level of `$((…))` takes it
/// five times as long as the one inside, and twelve brackets take a tenth of a second.
const MAX_NESTING: usize = 12;

/// The most operators of one expression.
const MAX_OPERATORS: usize = 100;

/// Why a script cannot be run.
#[derive(Debug)]
pub(super) enum SyntaxError {
    /// It ends in the middle of a command: an interactive shell asks for more.
    Incomplete(String),
    Wrong(String),
}

impl SyntaxError {
    pub(super) fn message(&self) -> &str {
        match self {
            Self::Incomplete(message) | Self::Wrong(message) => message,
        }
    }
}

fn options() -> ParserOptions {
    ParserOptions { enable_extended_globbing: false, ..ParserOptions::default() }
}

/// Parses a script.
pub(super) fn program(text: &str) -> Result<Program, SyntaxError> {
    check_bounds(text).map_err(SyntaxError::Wrong)?;
    Parser::new(text.as_bytes(), &options()).parse_program().map_err(|err| {
        let message = format!("syntax error: {}", err.to_string().trim_start_matches("syntax error "));
        match err {
            ParseError::ParsingAtEndOfInput => SyntaxError::Incomplete("syntax error: unexpected end of file".to_owned()),
            ParseError::Tokenizing { inner, .. } if inner.is_incomplete() => SyntaxError::Incomplete(message),
            _ => SyntaxError::Wrong(message),
        }
    })
}

/// Parses a word into text, quotes and expansions.
pub(super) fn word(text: &str) -> Result<Vec<WordPieceWithSource>, String> {
    check_bounds(text)?;
    brush_parser::word::parse(text, &options()).map_err(|_| format!("{text}: bad substitution"))
}

/// Parses a text in which quotes mean nothing: a here-document, or an arithmetic expression before it is expanded.
pub(super) fn unquoted(text: &str) -> Result<Vec<WordPieceWithSource>, String> {
    check_bounds(text)?;
    brush_parser::word::parse_heredoc(text, &options()).map_err(|_| format!("{text}: bad substitution"))
}

/// Finds `{a,b}` and `{1..3}` in a word; None where there are none.
pub(super) fn braces(text: &str) -> Result<Option<Vec<BraceExpressionOrText>>, String> {
    check_bounds(text)?;
    match text.contains('{') {
        true => brush_parser::word::parse_brace_expansions(text, &options()).map_err(|_| format!("{text}: bad braces")),
        false => Ok(None),
    }
}

/// Parses an expanded arithmetic expression.
pub(super) fn arithmetic(text: &str) -> Result<ArithmeticExpr, String> {
    check_bounds(text)?;
    // Many operators nest without brackets: `!!!1`, `a=b=c`, `1?2:3?4:5`.
    if text.bytes().filter(|byte| b"!~-+*/%<>=&|^?:,".contains(byte)).count() > MAX_OPERATORS {
        return Err(format!("an expression has more than {MAX_OPERATORS} operators"));
    }
    brush_parser::arithmetic::parse(text).map_err(|_| format!("arithmetic syntax error: {text}"))
}

/// Refuses what would take the parser too deep. Brackets in quotes are counted too, which errs on the safe side only.
fn check_bounds(text: &str) -> Result<(), String> {
    if text.len() > MAX_SCRIPT {
        return Err(format!("the script is over {} KiB", MAX_SCRIPT >> 10));
    }
    let brackets = text.bytes().filter_map(|byte| match byte {
        b'(' | b'{' => Some(true),
        b')' | b'}' => Some(false),
        _ => None,
    });
    // `[[ a && b && … ]]` is a tree as deep as it is long.
    let long_test = text.contains("[[") && text.matches("&&").count() + text.matches("||").count() > MAX_OPERATORS;
    // `! ! ! true`: each of these takes a command.
    let prefixes = text.split_whitespace().map(|word| matches!(word, "!" | "coproc" | "time" | "("));
    let mut run = 0;
    let long_run = prefixes
        .map(|prefix| {
            if prefix {
                run += 1;
                run
            } else {
                run = 0;
                0
            }
        })
        .max()
        .unwrap_or(0)
        > MAX_NESTING;
    match long_test || long_run || deepest(keywords(text)) > MAX_NESTING || deepest(brackets) > MAX_NESTING {
        true => Err(format!("nested more than {MAX_NESTING} deep")),
        false => Ok(()),
    }
}

/// The keywords that begin and end compound commands, where a command can begin: elsewhere they are words like any other.
fn keywords(text: &str) -> impl Iterator<Item = bool> {
    let mut at_command = true;
    text.split_inclusive(|c: char| c.is_whitespace() || ";&|({`".contains(c)).filter_map(move |piece| {
        let word = piece.trim_end_matches(|c: char| c.is_whitespace() || ";&|({`".contains(c));
        let step = match word {
            "if" | "while" | "until" | "for" | "case" if at_command => Some(true),
            "fi" | "done" | "esac" => Some(false),
            _ => None,
        };
        let leads_on = matches!(word, "if" | "while" | "until" | "coproc" | "!" | "then" | "else" | "elif" | "do" | "in");
        let separated = piece.ends_with([';', '&', '|', '(', '{', '`', '\n']) || word.ends_with(')');
        at_command = separated || (at_command && (leads_on || word.is_empty()));
        step
    })
}

/// The deepest nesting of what opens (`true`) and closes.
fn deepest(steps: impl Iterator<Item = bool>) -> usize {
    let depths = steps.scan(0_usize, |depth, opens| {
        *depth = if opens { *depth + 1 } else { depth.saturating_sub(1) };
        Some(*depth)
    });
    depths.max().unwrap_or(0)
}
