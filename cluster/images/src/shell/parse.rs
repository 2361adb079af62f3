//! Parsing, with a bound on nesting: the parser is recursive.

use brush_parser::ast::{ArithmeticExpr, Program};
use brush_parser::word::WordPieceWithSource;
use brush_parser::{ParseError, Parser, ParserOptions};

/// The longest script.
const MAX_SCRIPT: usize = 1 << 20;

/// How deep parentheses, braces and compound commands may be nested.
const MAX_NESTING: usize = 60;

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

/// Parses an expanded arithmetic expression.
pub(super) fn arithmetic(text: &str) -> Result<ArithmeticExpr, String> {
    check_bounds(text)?;
    brush_parser::arithmetic::parse(text).map_err(|_| format!("arithmetic syntax error: {text}"))
}

/// Refuses what would take the parser too deep. Brackets in quotes are counted too, which errs on the safe side only.
fn check_bounds(text: &str) -> Result<(), String> {
    if text.len() > MAX_SCRIPT {
        return Err(format!("the script is over {} KiB", MAX_SCRIPT >> 10));
    }
    let (mut depth, mut deepest) = (0_usize, 0);
    let mut open = |more: bool| {
        depth = if more { depth + 1 } else { depth.saturating_sub(1) };
        deepest = deepest.max(depth);
    };
    for word in text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_') {
        match word {
            "if" | "do" | "case" => open(true),
            "fi" | "done" | "esac" => open(false),
            _ => {}
        }
    }
    let words = deepest;
    let (mut depth, mut deepest, mut run) = (0_usize, 0, 0_usize);
    let mut longest_run = 0;
    for byte in text.bytes() {
        match byte {
            b'(' | b'{' => depth += 1,
            b')' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
        // Prefix operators nest without brackets: `$((!!!!1))`.
        run = if matches!(byte, b'!' | b'~' | b'-' | b'+') { run + 1 } else { 0 };
        longest_run = longest_run.max(run);
    }
    // A rule of dashes in a text is no expression, but only an expression is short of spaces and letters.
    let prefix_chain = longest_run > MAX_NESTING && !text.contains(char::is_alphabetic);
    match words > MAX_NESTING || deepest > MAX_NESTING || prefix_chain {
        true => Err(format!("nested more than {MAX_NESTING} deep")),
        false => Ok(()),
    }
}
