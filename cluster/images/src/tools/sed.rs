//! `sed`: addresses, and the commands `s`, `p`, `d`, `q`, `a`, `i`, `c`, `y` and `=`.

use std::ops::ControlFlow;

use meshlab_program::Process;
use regex::{Regex, RegexBuilder};

use super::grep::basic_to_extended;
use super::{Options, Tool, each_line};
use crate::output::{Failure, Outcome, print};

pub(super) const TOOLS: &[(&str, Tool)] = &[("sed", |process| Box::pin(sed(process)))];

enum Address {
    Line(u64),
    Last,
    Pattern(Regex),
}

enum Action {
    Substitute { regex: Regex, replacement: String, all: bool, nth: usize, print: bool },
    Print,
    Delete,
    Quit,
    Append(String),
    Insert(String),
    Change(String),
    Translate(Vec<char>, Vec<char>),
    Number,
}

struct Command {
    from: Option<Address>,
    to: Option<Address>,
    negated: bool,
    in_range: bool,
    action: Action,
}

async fn sed(process: &mut Process) -> Outcome {
    let long = [("quiet", 'n'), ("silent", 'n'), ("expression", 'e'), ("regexp-extended", 'E'), ("in-place", 'i'), ("file", 'f')];
    let options = Options::parse(&process.argv, "nEriue:f:", &long)?;
    let mut operands = options.operands.clone();
    let mut scripts: Vec<String> = options.values('e').map(str::to_owned).collect();
    for file in options.values('f') {
        scripts.push(process.container.fs.read_text(&process.path(file)).map_err(|err| Failure::at(file, &err))?);
    }
    if scripts.is_empty() {
        if operands.is_empty() {
            return Err(Failure::new("usage: sed [-nEi] [-e] SCRIPT [FILE]..."));
        }
        scripts.push(operands.remove(0));
    }
    let script = scripts.join("\n");
    let parse = || Parser { rest: &script, extended: options.has('E') || options.has('r') }.commands();
    let quiet = options.has('n');
    if !options.has('i') {
        let mut editor = Editor { commands: parse()?, quiet, number: 0 };
        // `$` needs to know the last line, which a stream shows only by its end: hold one line back.
        let mut held: Option<Vec<u8>> = None;
        let mut done = false;
        let code = each_line(process, &operands, |_, line, output| {
            if let Some(before) = held.replace(line.to_vec()) {
                done = editor.line(&before, false, output).is_break();
            }
            if done { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
        .await?;
        let mut output = Vec::new();
        if let Some(last) = held.filter(|_| !done) {
            let _ = editor.line(&last, true, &mut output);
        }
        print(process, output).await?;
        return Ok(code);
    }
    for file in &operands {
        let mut editor = Editor { commands: parse()?, quiet, number: 0 };
        let path = process.path(file);
        let content = process.container.fs.read(&path).map_err(|err| Failure::at(file, &err))?;
        let lines: Vec<&[u8]> = content.split_inclusive(|byte| *byte == b'\n').collect();
        let mut output = Vec::new();
        for (index, line) in lines.iter().enumerate() {
            if editor.line(line, index + 1 == lines.len(), &mut output).is_break() {
                break;
            }
        }
        process.container.fs.write(&path, output).map_err(|err| Failure::at(file, &err))?;
    }
    Ok(0)
}

struct Editor {
    commands: Vec<Command>,
    quiet: bool,
    number: u64,
}

impl Editor {
    fn line(&mut self, line: &[u8], last: bool, output: &mut Vec<u8>) -> ControlFlow<()> {
        self.number += 1;
        let text = String::from_utf8_lossy(line);
        let ended = text.ends_with('\n');
        let mut text = text.strip_suffix('\n').unwrap_or(&text).to_owned();
        let (mut appended, mut quit, mut deleted) = (Vec::new(), false, false);
        let say = |output: &mut Vec<u8>, text: &str| output.extend(format!("{text}\n").bytes());
        for command in &mut self.commands {
            if !command.applies(self.number, last, &text) {
                continue;
            }
            match &command.action {
                Action::Substitute { regex, replacement, all, nth, print } => {
                    if let Some(replaced) = substitute(&text, regex, replacement, *all, *nth) {
                        text = replaced;
                        if *print {
                            say(output, &text);
                        }
                    }
                }
                Action::Print => say(output, &text),
                Action::Delete => deleted = true,
                Action::Quit => quit = true,
                Action::Append(more) => appended.push(more.clone()),
                Action::Insert(more) => say(output, more),
                Action::Change(more) => {
                    say(output, more);
                    deleted = true;
                }
                Action::Translate(from, to) => {
                    let translate = |c| from.iter().position(|member| *member == c).map_or(c, |at| to[at]);
                    text = text.chars().map(translate).collect();
                }
                Action::Number => say(output, &self.number.to_string()),
            }
            if deleted || quit {
                break;
            }
        }
        if !deleted && !self.quiet {
            output.extend(text.bytes());
            if ended || !appended.is_empty() {
                output.push(b'\n');
            }
        }
        for more in appended {
            say(output, &more);
        }
        if quit { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

impl Command {
    fn applies(&mut self, number: u64, last: bool, text: &str) -> bool {
        let matches = |address: &Address| match address {
            Address::Line(wanted) => number == *wanted,
            Address::Last => last,
            Address::Pattern(regex) => regex.is_match(text),
        };
        let selected = match (&self.from, &self.to) {
            (None, _) => true,
            (Some(only), None) => matches(only),
            (Some(_), Some(to)) if self.in_range => {
                self.in_range = !matches(to) && !matches!(to, Address::Line(end) if number >= *end);
                true
            }
            (Some(from), Some(to)) => {
                let starts = matches(from);
                self.in_range = starts && !matches!(to, Address::Line(end) if *end <= number);
                starts
            }
        };
        selected != self.negated
    }
}

/// None where nothing matched.
fn substitute(text: &str, regex: &Regex, replacement: &str, all: bool, nth: usize) -> Option<String> {
    let (mut result, mut end, mut changed) = (String::new(), 0, false);
    for (index, captures) in regex.captures_iter(text).enumerate() {
        if index + 1 < nth || (changed && !all) {
            continue;
        }
        let whole = captures.get(0)?;
        result.push_str(&text[end..whole.start()]);
        end = whole.end();
        changed = true;
        let mut chars = replacement.chars();
        while let Some(c) = chars.next() {
            match c {
                '&' => result.push_str(whole.as_str()),
                '\\' => match chars.next() {
                    Some(digit @ '0'..='9') => {
                        let group = digit.to_digit(10).unwrap_or(0) as usize;
                        result.push_str(captures.get(group).map_or("", |group| group.as_str()));
                    }
                    Some('n') => result.push('\n'),
                    Some('t') => result.push('\t'),
                    Some(other) => result.push(other),
                    None => {}
                },
                c => result.push(c),
            }
        }
    }
    result.push_str(&text[end..]);
    changed.then_some(result)
}

struct Parser<'a> {
    rest: &'a str,
    extended: bool,
}

impl<'a> Parser<'a> {
    fn commands(mut self) -> Result<Vec<Command>, Failure> {
        let mut commands = Vec::new();
        loop {
            self.rest = self.rest.trim_start_matches(|c: char| c.is_whitespace() || c == ';');
            if self.rest.is_empty() {
                return Ok(commands);
            }
            if self.rest.starts_with('#') {
                self.rest = self.rest.split_once('\n').map_or("", |(_, rest)| rest);
                continue;
            }
            let from = self.address()?;
            let to = match self.rest.strip_prefix(',') {
                Some(rest) => {
                    self.rest = rest.trim_start();
                    Some(self.address()?.ok_or_else(|| Failure::new("no address after comma"))?)
                }
                None => None,
            };
            self.rest = self.rest.trim_start();
            let negated = self.rest.starts_with('!');
            self.rest = self.rest.trim_start_matches(['!', ' ']);
            let action = self.action()?;
            commands.push(Command { from, to, negated, in_range: false, action });
        }
    }

    fn next(&mut self) -> Option<char> {
        let c = self.rest.chars().next()?;
        self.rest = &self.rest[c.len_utf8()..];
        Some(c)
    }

    fn address(&mut self) -> Result<Option<Address>, Failure> {
        let digits = self.rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(self.rest.len());
        if digits > 0 {
            let (number, rest) = self.rest.split_at(digits);
            self.rest = rest;
            return Ok(Some(Address::Line(number.parse().map_err(|_| Failure::new("line number too large"))?)));
        }
        match self.rest.chars().next() {
            Some('$') => {
                self.next();
                Ok(Some(Address::Last))
            }
            Some('/') => {
                self.next();
                let pattern = self.until('/')?;
                Ok(Some(Address::Pattern(self.regex(&pattern, false)?)))
            }
            _ => Ok(None),
        }
    }

    /// Text up to an unescaped delimiter; an escaped delimiter is the delimiter itself.
    fn until(&mut self, delimiter: char) -> Result<String, Failure> {
        let mut text = String::new();
        while let Some(c) = self.next() {
            match c {
                c if c == delimiter => return Ok(text),
                '\\' => match self.next() {
                    Some(c) if c == delimiter => text.push(c),
                    Some(c) => text.extend(['\\', c]),
                    None => break,
                },
                c => text.push(c),
            }
        }
        Err(Failure::new(format!("unmatched '{delimiter}'")))
    }

    fn regex(&self, pattern: &str, ignore_case: bool) -> Result<Regex, Failure> {
        let pattern = if self.extended { pattern.to_owned() } else { basic_to_extended(pattern) };
        let regex = RegexBuilder::new(&pattern).case_insensitive(ignore_case).build();
        regex.map_err(|_| Failure::new(format!("bad regex '{pattern}'")))
    }

    fn action(&mut self) -> Result<Action, Failure> {
        match self.next() {
            Some('p') => Ok(Action::Print),
            Some('d') => Ok(Action::Delete),
            Some('q') => Ok(Action::Quit),
            Some('=') => Ok(Action::Number),
            Some(letter @ ('a' | 'i' | 'c')) => {
                let (line, rest) = self.rest.split_once('\n').unwrap_or((self.rest, ""));
                self.rest = rest;
                let text = line.trim_start().trim_start_matches('\\').trim_start().to_owned();
                Ok(match letter {
                    'a' => Action::Append(text),
                    'i' => Action::Insert(text),
                    _ => Action::Change(text),
                })
            }
            Some('y') => {
                let delimiter = self.next().ok_or_else(|| Failure::new("bad format in y"))?;
                let (from, to): (Vec<char>, Vec<char>) =
                    (self.until(delimiter)?.chars().collect(), self.until(delimiter)?.chars().collect());
                match from.len() == to.len() {
                    true => Ok(Action::Translate(from, to)),
                    false => Err(Failure::new("the strings of y have different lengths")),
                }
            }
            Some('s') => {
                let delimiter = self.next().ok_or_else(|| Failure::new("bad format in substitution expression"))?;
                let (pattern, replacement) = (self.until(delimiter)?, self.until(delimiter)?);
                let end = self.rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(self.rest.len());
                let (flags, rest) = self.rest.split_at(end);
                self.rest = rest;
                if let Some(unknown) = flags.chars().find(|c| !"gpiI".contains(*c) && !c.is_ascii_digit()) {
                    return Err(Failure::new(format!("unknown flag '{unknown}' of s")));
                }
                let nth: String = flags.chars().filter(char::is_ascii_digit).collect();
                Ok(Action::Substitute {
                    regex: self.regex(&pattern, flags.contains(['i', 'I']))?,
                    replacement,
                    all: flags.contains('g'),
                    nth: nth.parse().unwrap_or(1),
                    print: flags.contains('p'),
                })
            }
            Some(other) => Err(Failure::new(format!("unsupported command {other}"))),
            None => Err(Failure::new("missing command")),
        }
    }
}
