//! Expansion of words: parameters, commands, arithmetic, field splitting and file names.

use brush_parser::word::{
    Parameter, ParameterExpr, ParameterTestType, SpecialParameter, SubstringMatchKind, TildeExpr, WordPiece, WordPieceWithSource,
};
use futures::future::BoxFuture;
use meshlab_program::FileType;
use regex::Regex;

use super::builtins::decode_escapes;
use super::parse;
use super::state::{Flow, Shell};

/// Words that one command line may expand to.
const MAX_WORDS: usize = 10_000;

/// Bytes that one word may expand to.
const MAX_WORD: usize = 8 << 20;

/// The value, or a message; or control leaves the command altogether.
pub(super) type Expanded<T> = Result<Result<T, String>, Flow>;

/// Unwraps the inner result, and returns its message from an `Expanded` function.
macro_rules! attempt {
    ($result:expr) => {
        match $result {
            Ok(value) => value,
            Err(message) => return Ok(Err(message.into())),
        }
    };
}

/// Part of a field. Quoted text is neither split nor taken for a pattern.
#[derive(Debug)]
struct Part {
    text: String,
    quoted: bool,
}

/// The fields of a word while it is expanded.
#[derive(Debug, Default)]
struct Fields {
    done: Vec<Vec<Part>>,
    current: Option<Vec<Part>>,
}

impl Fields {
    fn push(&mut self, text: &str, quoted: bool) {
        self.current.get_or_insert_default().push(Part { text: text.to_owned(), quoted });
    }

    fn end_field(&mut self) {
        self.done.extend(self.current.take());
    }

    /// Takes the result of an unquoted expansion, which is split at the characters of `IFS`.
    fn push_split(&mut self, text: &str, separators: &str) {
        if separators.is_empty() {
            if !text.is_empty() {
                self.push(text, false);
            }
            return;
        }
        let is_blank = |c: char| separators.contains(c) && c.is_ascii_whitespace();
        let mut rest = text;
        if rest.starts_with(is_blank) {
            self.end_field();
            rest = rest.trim_start_matches(is_blank);
        }
        while !rest.is_empty() {
            let end = rest.find(|c: char| separators.contains(c)).unwrap_or(rest.len());
            self.push(&rest[..end], false);
            rest = &rest[end..];
            if rest.is_empty() {
                break;
            }
            self.end_field();
            // One visible separator, with the blanks around it, is one end of a field.
            rest = rest.trim_start_matches(is_blank);
            if let Some(after) = rest.strip_prefix(|c: char| separators.contains(c)) {
                rest = after.trim_start_matches(is_blank);
            }
        }
    }

    fn finish(mut self) -> Vec<Vec<Part>> {
        self.end_field();
        self.done
    }

    /// All fields as one text, for places where nothing is split.
    fn join(self) -> String {
        let fields = self.finish();
        let texts = fields.iter().map(|field| field.iter().map(|part| part.text.as_str()).collect::<String>());
        texts.collect::<Vec<_>>().join(" ")
    }

    /// As [`Fields::join`], with quoted text escaped so that a pattern takes it literally.
    fn join_as_pattern(self) -> String {
        let fields = self.finish();
        fields.iter().map(|field| pattern(field)).collect::<Vec<_>>().join(" ")
    }

    fn is_too_long(&self) -> bool {
        let parts = self.done.iter().flatten().chain(self.current.iter().flatten());
        self.done.len() > MAX_WORDS || parts.map(|part| part.text.len()).sum::<usize>() > MAX_WORD
    }
}

/// A parameter's value: one text, or the positional parameters.
enum Value {
    One(String),
    Positional { joined: bool },
}

/// How an expansion's result is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Split into fields.
    Unquoted,
    /// In double quotes.
    Quoted,
    /// Not split although not quoted: an assignment's value, a pattern.
    Whole,
}

impl Shell {
    /// Expands the words of a command line.
    pub(super) async fn expand_words<'a>(
        &mut self,
        words: impl Iterator<Item = &'a brush_parser::ast::Word> + Send,
    ) -> Expanded<Vec<String>> {
        let mut expanded = Vec::new();
        for word in words {
            // `{1..3}` is bash's; other shells leave it as it is.
            let words =
                if self.is_bash { attempt!(super::braces::expand(&word.value, MAX_WORDS)) } else { vec![word.value.clone()] };
            for word in words {
                let fields = attempt!(self.fields(&word, Mode::Unquoted).await?);
                for field in fields.finish() {
                    self.file_names(&field, &mut expanded);
                }
                if expanded.len() > MAX_WORDS {
                    return Ok(Err("argument list too long".to_owned()));
                }
            }
        }
        Ok(Ok(expanded))
    }

    /// Expands a word without splitting: a value, a file name.
    pub(super) async fn expand_to_text(&mut self, word: &str) -> Expanded<String> {
        Ok(self.fields(word, Mode::Whole).await?.map(Fields::join))
    }

    /// Expands a word that is a pattern; its quoted characters are escaped.
    pub(super) async fn expand_to_pattern(&mut self, word: &str) -> Expanded<String> {
        Ok(self.fields(word, Mode::Whole).await?.map(Fields::join_as_pattern))
    }

    /// Expands a text in which quotes have no meaning (a here-document).
    pub(super) async fn expand_unquoted(&mut self, text: &str) -> Expanded<String> {
        let pieces = attempt!(parse::unquoted(text));
        let mut fields = Fields::default();
        attempt!(self.pieces(&pieces, Mode::Quoted, &mut fields).await?);
        Ok(Ok(fields.join()))
    }

    /// Expands and evaluates an arithmetic expression.
    pub(super) async fn arithmetic(&mut self, text: &str) -> Expanded<i64> {
        let text = attempt!(self.expand_unquoted(text).await?);
        if text.trim().is_empty() {
            return Ok(Ok(0));
        }
        let expression = attempt!(parse::arithmetic(&text));
        Ok(self.evaluate(&expression))
    }

    async fn fields(&mut self, word: &str, mode: Mode) -> Expanded<Fields> {
        let mut fields = Fields::default();
        let pieces = attempt!(parse::word(word));
        attempt!(self.pieces(&pieces, mode, &mut fields).await?);
        Ok(Ok(fields))
    }

    fn pieces<'a>(
        &'a mut self,
        pieces: &'a [WordPieceWithSource],
        mode: Mode,
        fields: &'a mut Fields,
    ) -> BoxFuture<'a, Expanded<()>> {
        Box::pin(async move {
            let quoted = mode == Mode::Quoted;
            for piece in pieces {
                match &piece.piece {
                    WordPiece::Text(text) => fields.push(text, quoted),
                    WordPiece::SingleQuotedText(text) => fields.push(text, true),
                    WordPiece::AnsiCQuotedText(text) => fields.push(&decode_escapes(text).text(), true),
                    WordPiece::EscapeSequence(escape) => {
                        let literal = escape.strip_prefix('\\').unwrap_or(escape);
                        // A backslash before a line feed joins the lines.
                        if literal != "\n" {
                            fields.push(literal, true);
                        }
                    }
                    WordPiece::DoubleQuotedSequence(inner) | WordPiece::GettextDoubleQuotedSequence(inner) => {
                        // `""` is an empty word, but `"$@"` without parameters is none.
                        if !inner.iter().any(|piece| is_all_parameters(&piece.piece)) {
                            fields.push("", true);
                        }
                        attempt!(self.pieces(inner, Mode::Quoted, fields).await?);
                    }
                    WordPiece::TildeExpansion(tilde) => {
                        let text = match tilde {
                            TildeExpr::Home => self.get("HOME").unwrap_or("/root").to_owned(),
                            TildeExpr::UserHome(user) if user == "root" => "/root".to_owned(),
                            TildeExpr::UserHome(user) => format!("~{user}"),
                            TildeExpr::WorkingDir => self.cwd.clone(),
                            TildeExpr::OldWorkingDir => self.get("OLDPWD").unwrap_or("~-").to_owned(),
                            _ => return Ok(Err("the directory stack is not supported by this shell".to_owned())),
                        };
                        fields.push(&text, true);
                    }
                    WordPiece::CommandSubstitution(command) | WordPiece::BackquotedCommandSubstitution(command) => {
                        let output = self.substitute(command).await?;
                        self.push(&output, mode, fields);
                    }
                    WordPiece::ArithmeticExpression(expression) => {
                        let value = attempt!(self.arithmetic(&expression.value).await?);
                        self.push(&value.to_string(), mode, fields);
                    }
                    WordPiece::ParameterExpansion(expression) => {
                        attempt!(self.parameter_expression(expression, mode, fields).await?);
                    }
                }
                if fields.is_too_long() {
                    return Ok(Err("the word expands to too much text".to_owned()));
                }
            }
            Ok(Ok(()))
        })
    }

    /// Takes the result of an expansion.
    fn push(&self, text: &str, mode: Mode, fields: &mut Fields) {
        match mode {
            Mode::Quoted => fields.push(text, true),
            Mode::Whole => fields.push(text, false),
            Mode::Unquoted => fields.push_split(text, self.get("IFS").unwrap_or(" \t\n")),
        }
    }

    fn push_value(&self, value: &Value, mode: Mode, fields: &mut Fields) {
        match value {
            Value::One(text) => self.push(text, mode, fields),
            Value::Positional { joined: false } if mode != Mode::Whole => {
                for (index, text) in self.positional.iter().enumerate() {
                    if index > 0 {
                        fields.end_field();
                    }
                    self.push(text, mode, fields);
                }
            }
            Value::Positional { .. } if mode == Mode::Unquoted => {
                for (index, text) in self.positional.iter().enumerate() {
                    if index > 0 {
                        fields.end_field();
                    }
                    self.push(text, mode, fields);
                }
            }
            Value::Positional { .. } => {
                let separator = self.get("IFS").unwrap_or(" ").chars().next().map(String::from).unwrap_or_default();
                self.push(&self.positional.join(&separator), mode, fields);
            }
        }
    }

    fn value(&self, parameter: &Parameter) -> Result<Option<Value>, String> {
        let one = |text: String| Ok(Some(Value::One(text)));
        match parameter {
            Parameter::Positional(0) => one(self.name.clone()),
            Parameter::Positional(index) => Ok(self.positional.get(*index as usize - 1).map(|text| Value::One(text.clone()))),
            Parameter::Named(name) if name == "RANDOM" => one(rand::random_range(0..=0x7fff_u32).to_string()),
            Parameter::Named(name) => Ok(self.get(name).map(|text| Value::One(text.to_owned()))),
            Parameter::Special(special) => match special {
                SpecialParameter::AllPositionalParameters { concatenate } => {
                    Ok((!self.positional.is_empty()).then_some(Value::Positional { joined: *concatenate }))
                }
                SpecialParameter::PositionalParameterCount => one(self.positional.len().to_string()),
                SpecialParameter::LastExitStatus => one(self.status.to_string()),
                SpecialParameter::CurrentOptionFlags => one(self.options.letters()),
                SpecialParameter::ProcessId => one("1".to_owned()),
                SpecialParameter::LastBackgroundProcessId => Ok(self.last_background.map(|pid| Value::One(pid.to_string()))),
                SpecialParameter::ShellName => one(self.name.clone()),
            },
            Parameter::NamedWithIndex { .. } | Parameter::NamedWithAllIndices { .. } => {
                Err("arrays are not supported by this shell".to_owned())
            }
        }
    }

    fn text(&self, value: &Value) -> String {
        let mut fields = Fields::default();
        self.push_value(value, Mode::Whole, &mut fields);
        fields.join()
    }

    /// The value's text; an unset parameter is empty, or an error under `set -u`.
    fn text_of(&self, parameter: &Parameter) -> Result<String, String> {
        match self.value(parameter)? {
            Some(value) => Ok(self.text(&value)),
            None if self.options.nounset && !is_positional_list(parameter) => {
                Err(format!("{}: parameter not set", bare_name(parameter)))
            }
            None => Ok(String::new()),
        }
    }

    async fn parameter_expression(&mut self, expression: &ParameterExpr, mode: Mode, fields: &mut Fields) -> Expanded<()> {
        let unsupported = || Ok(Err("this form of ${…} is not supported by this shell".to_owned()));
        match expression {
            ParameterExpr::Parameter { parameter, indirect } => {
                if *indirect {
                    let name = attempt!(self.text_of(parameter));
                    let text = self.get(&name).unwrap_or_default().to_owned();
                    self.push(&text, mode, fields);
                    return Ok(Ok(()));
                }
                match attempt!(self.value(parameter)) {
                    Some(value) => self.push_value(&value, mode, fields),
                    None => {
                        attempt!(self.text_of(parameter));
                        if !is_positional_list(parameter) {
                            self.push("", mode, fields);
                        }
                    }
                }
            }
            ParameterExpr::UseDefaultValues { parameter, test_type, default_value, .. } => {
                match self.set_value(attempt!(self.value(parameter)), test_type) {
                    Some(value) => self.push_value(&value, mode, fields),
                    None => return self.word_in(default_value.as_deref(), mode, fields).await,
                }
            }
            ParameterExpr::UseAlternativeValue { parameter, test_type, alternative_value, .. } => {
                if self.set_value(attempt!(self.value(parameter)), test_type).is_some() {
                    return self.word_in(alternative_value.as_deref(), mode, fields).await;
                }
            }
            ParameterExpr::AssignDefaultValues { parameter, test_type, default_value, .. } => {
                let value = match self.set_value(attempt!(self.value(parameter)), test_type) {
                    Some(value) => value,
                    None => {
                        let Parameter::Named(name) = parameter else {
                            return Ok(Err(format!("{}: cannot be assigned", bare_name(parameter))));
                        };
                        let text = attempt!(self.expand_to_text(default_value.as_deref().unwrap_or_default()).await?);
                        attempt!(self.set(name, text.clone()));
                        Value::One(text)
                    }
                };
                self.push_value(&value, mode, fields);
            }
            ParameterExpr::IndicateErrorIfNullOrUnset { parameter, test_type, error_message, .. } => {
                match self.set_value(attempt!(self.value(parameter)), test_type) {
                    Some(value) => self.push_value(&value, mode, fields),
                    None => {
                        let message = attempt!(self.expand_to_text(error_message.as_deref().unwrap_or_default()).await?);
                        let message = if message.is_empty() { "parameter not set".to_owned() } else { message };
                        return Ok(Err(format!("{}: {message}", bare_name(parameter))));
                    }
                }
            }
            ParameterExpr::ParameterLength { parameter, .. } => {
                let length = match is_positional_list(parameter) {
                    true => self.positional.len(),
                    false => attempt!(self.text_of(parameter)).chars().count(),
                };
                self.push(&length.to_string(), mode, fields);
            }
            ParameterExpr::RemoveSmallestSuffixPattern { parameter, pattern, .. } => {
                return self.trim(parameter, pattern.as_deref(), Trim { suffix: true, largest: false }, mode, fields).await;
            }
            ParameterExpr::RemoveLargestSuffixPattern { parameter, pattern, .. } => {
                return self.trim(parameter, pattern.as_deref(), Trim { suffix: true, largest: true }, mode, fields).await;
            }
            ParameterExpr::RemoveSmallestPrefixPattern { parameter, pattern, .. } => {
                return self.trim(parameter, pattern.as_deref(), Trim { suffix: false, largest: false }, mode, fields).await;
            }
            ParameterExpr::RemoveLargestPrefixPattern { parameter, pattern, .. } => {
                return self.trim(parameter, pattern.as_deref(), Trim { suffix: false, largest: true }, mode, fields).await;
            }
            ParameterExpr::Substring { parameter, offset, length, .. } => {
                let text: Vec<char> = attempt!(self.text_of(parameter)).chars().collect();
                let count = i64::try_from(text.len()).unwrap_or(i64::MAX);
                let offset = attempt!(self.arithmetic(&offset.value).await?);
                let start = if offset < 0 { count.saturating_add(offset).max(0) } else { offset.min(count) };
                let end = match length {
                    Some(length) => match attempt!(self.arithmetic(&length.value).await?) {
                        length @ ..0 => count.saturating_add(length),
                        length => start.saturating_add(length).min(count),
                    },
                    None => count,
                };
                let range = usize::try_from(start).unwrap_or(0)..usize::try_from(end.max(start)).unwrap_or(0);
                let part: String = text[range].iter().collect();
                self.push(&part, mode, fields);
            }
            ParameterExpr::ReplaceSubstring { parameter, pattern, replacement, match_kind, .. } => {
                let text = attempt!(self.text_of(parameter));
                let pattern = attempt!(self.expand_to_pattern(pattern).await?);
                let replacement = attempt!(self.expand_to_text(replacement.as_deref().unwrap_or_default()).await?);
                let anchored = match match_kind {
                    SubstringMatchKind::Prefix => regex_of(&pattern, "^", ""),
                    SubstringMatchKind::Suffix => regex_of(&pattern, "", "$"),
                    SubstringMatchKind::FirstOccurrence | SubstringMatchKind::Anywhere => regex_of(&pattern, "", ""),
                };
                let Some(regex) = anchored else { return Ok(Err(format!("{pattern}: bad pattern"))) };
                let times = if matches!(match_kind, SubstringMatchKind::Anywhere) { 0 } else { 1 };
                let replaced = regex.replacen(&text, times, regex::NoExpand(&replacement)).into_owned();
                self.push(&replaced, mode, fields);
            }
            ParameterExpr::UppercasePattern { parameter, pattern: None, .. } => {
                let text = attempt!(self.text_of(parameter)).to_uppercase();
                self.push(&text, mode, fields);
            }
            ParameterExpr::LowercasePattern { parameter, pattern: None, .. } => {
                let text = attempt!(self.text_of(parameter)).to_lowercase();
                self.push(&text, mode, fields);
            }
            _ => return unsupported(),
        }
        Ok(Ok(()))
    }

    /// The value if `${name-…}`, or with the colon `${name:-…}`, takes the parameter as set.
    fn set_value(&self, value: Option<Value>, test: &ParameterTestType) -> Option<Value> {
        value.filter(|value| match test {
            ParameterTestType::Unset => true,
            ParameterTestType::UnsetOrNull => !self.text(value).is_empty(),
        })
    }

    /// Expands the word inside of `${name:-word}`.
    async fn word_in(&mut self, word: Option<&str>, mode: Mode, fields: &mut Fields) -> Expanded<()> {
        let Some(word) = word else {
            self.push("", mode, fields);
            return Ok(Ok(()));
        };
        let pieces = attempt!(parse::word(word));
        if pieces.is_empty() && mode == Mode::Quoted {
            fields.push("", true);
        }
        self.pieces(&pieces, mode, fields).await
    }

    async fn trim(
        &mut self,
        parameter: &Parameter,
        pattern: Option<&str>,
        trim: Trim,
        mode: Mode,
        fields: &mut Fields,
    ) -> Expanded<()> {
        let text = attempt!(self.text_of(parameter));
        let pattern = attempt!(self.expand_to_pattern(pattern.unwrap_or_default()).await?);
        let Some(regex) = pattern_regex(&pattern, true) else { return Ok(Err(format!("{pattern}: bad pattern"))) };
        self.push(trim.apply(&text, &regex), mode, fields);
        Ok(Ok(()))
    }

    /// File names that a field matches; the field itself if it is no pattern or nothing matches.
    fn file_names(&self, field: &[Part], words: &mut Vec<String>) {
        let literal: String = field.iter().map(|part| part.text.as_str()).collect();
        let is_pattern = field.iter().any(|part| !part.quoted && part.text.contains(['*', '?', '[']));
        if !is_pattern || self.options.noglob {
            words.push(literal);
            return;
        }
        let pattern = pattern(field);
        let mut found = vec![if pattern.starts_with('/') { "/".to_owned() } else { String::new() }];
        let mut segments = pattern.split('/').filter(|segment| !segment.is_empty()).peekable();
        while let Some(segment) = segments.next() {
            let Some(regex) = pattern_regex(segment, true) else { return words.push(literal) };
            let mut next = Vec::new();
            for directory in &found {
                let listed = self.fs().list(&self.path(if directory.is_empty() { "." } else { directory }));
                for (name, metadata) in listed.unwrap_or_default() {
                    let hidden = name.starts_with('.') && !segment.starts_with('.');
                    let leads_on = segments.peek().is_none() || metadata.file_type != FileType::File;
                    if !hidden && leads_on && regex.is_match(&name) && next.len() < MAX_WORDS {
                        next.push(if segments.peek().is_some() {
                            format!("{directory}{name}/")
                        } else {
                            format!("{directory}{name}")
                        });
                    }
                }
            }
            found = next;
        }
        if found.is_empty() { words.push(literal) } else { words.append(&mut found) }
    }
}

/// What `${name%pattern}` and its like take off.
#[derive(Clone, Copy)]
struct Trim {
    suffix: bool,
    largest: bool,
}

impl Trim {
    fn apply<'a>(&self, text: &'a str, regex: &Regex) -> &'a str {
        let mut cuts: Vec<usize> = text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
        // From the smallest piece to the largest.
        if self.suffix != self.largest {
            cuts.reverse();
        }
        for cut in cuts {
            let (before, after) = text.split_at(cut);
            if self.suffix && regex.is_match(after) {
                return before;
            }
            if !self.suffix && regex.is_match(before) {
                return after;
            }
        }
        text
    }
}

fn pattern(field: &[Part]) -> String {
    let mut pattern = String::new();
    for part in field {
        for c in part.text.chars() {
            if part.quoted && matches!(c, '*' | '?' | '[' | ']' | '\\' | '-' | '!' | '^') {
                pattern.push('\\');
            }
            pattern.push(c);
        }
    }
    pattern
}

/// A shell pattern as a regular expression; `whole` anchors it at both ends.
pub(crate) fn pattern_regex(pattern: &str, whole: bool) -> Option<Regex> {
    if whole { regex_of(pattern, "^", "$") } else { regex_of(pattern, "", "") }
}

fn regex_of(pattern: &str, before: &str, after: &str) -> Option<Regex> {
    let body = brush_parser::pattern::pattern_to_regex_str(pattern, false).ok()?;
    Regex::new(&format!("(?s){before}(?:{body}){after}")).ok()
}

fn is_all_parameters(piece: &WordPiece) -> bool {
    matches!(
        piece,
        WordPiece::ParameterExpansion(ParameterExpr::Parameter {
            parameter: Parameter::Special(SpecialParameter::AllPositionalParameters { concatenate: false }),
            ..
        })
    )
}

fn is_positional_list(parameter: &Parameter) -> bool {
    matches!(parameter, Parameter::Special(SpecialParameter::AllPositionalParameters { .. }))
}

fn bare_name(parameter: &Parameter) -> String {
    match parameter {
        Parameter::Named(name) => name.clone(),
        Parameter::Positional(index) => index.to_string(),
        other => other.to_string(),
    }
}
