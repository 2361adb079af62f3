//! `grep`, `egrep`, `fgrep`.

use std::collections::VecDeque;
use std::ops::ControlFlow;

use meshlab_program::{FileType, Process};
use regex::bytes::{Regex, RegexBuilder};

use super::{Options, Tool, each_line};
use crate::output::{Failure, Outcome, base_name};

pub(super) const TOOLS: &[(&str, Tool)] = &[
    ("grep", |process| Box::pin(grep(process))),
    ("egrep", |process| Box::pin(grep(process))),
    ("fgrep", |process| Box::pin(grep(process))),
];

/// The most files that `-r` looks into.
const MAX_FILES: usize = 10_000;

async fn grep(process: &mut Process) -> Outcome {
    let long = [
        ("ignore-case", 'i'),
        ("invert-match", 'v'),
        ("count", 'c'),
        ("line-number", 'n'),
        ("quiet", 'q'),
        ("only-matching", 'o'),
        ("extended-regexp", 'E'),
        ("fixed-strings", 'F'),
        ("recursive", 'r'),
        ("files-with-matches", 'l'),
        ("word-regexp", 'w'),
        ("after-context", 'A'),
        ("before-context", 'B'),
        ("context", 'C'),
        ("regexp", 'e'),
        ("max-count", 'm'),
        ("line-buffered", 'u'),
        ("color", 'K'),
    ];
    let options = Options::parse(&process.argv, "ivcnqoEFGPrRlLwxhHsauKA:B:C:e:m:", &long).map_err(trouble)?;
    let mut patterns: Vec<String> = options.values('e').map(str::to_owned).collect();
    let mut operands = options.operands.clone();
    if patterns.is_empty() {
        if operands.is_empty() {
            return Err(Failure::with_code(2, "usage: grep [OPTIONS] PATTERN [FILE]..."));
        }
        patterns.push(operands.remove(0));
    }
    let regex = compile(&options, &patterns, base_name(&process.argv[0]))?;
    let recursive = options.has('r') || options.has('R');
    let files = if recursive { walk(process, &operands) } else { operands };
    let names = (files.len() > 1 || recursive || options.has('H')) && !options.has('h');
    let context: usize = options.number('C').map_err(trouble)?.unwrap_or(0);
    let before: usize = options.number('B').map_err(trouble)?.unwrap_or(context);
    let after: usize = options.number('A').map_err(trouble)?.unwrap_or(context);
    let most: u64 = options.number('m').map_err(trouble)?.unwrap_or(u64::MAX);

    let mut search =
        Search { file: String::new(), number: 0, count: 0, earlier: VecDeque::new(), after_left: 0, counts: Vec::new() };
    let code = each_line(process, &files, |file, line, output| {
        if search.file != file {
            search.next_file(file);
        }
        if search.count >= most {
            return ControlFlow::Continue(());
        }
        search.number += 1;
        let content = line.strip_suffix(b"\n").unwrap_or(line);
        let matches = regex.is_match(content) != options.has('v');
        let mut show = |number: u64, content: &[u8], mark: char| {
            if names {
                output.extend(format!("{file}{mark}").bytes());
            }
            if options.has('n') {
                output.extend(format!("{number}{mark}").bytes());
            }
            output.extend(content);
            output.push(b'\n');
        };
        let silent = options.has('q') || options.has('c') || options.has('l') || options.has('L');
        if !matches {
            if search.after_left > 0 && !silent {
                search.after_left -= 1;
                show(search.number, content, '-');
            } else if before > 0 {
                search.earlier.push_back((search.number, content.to_vec()));
                if search.earlier.len() > before {
                    search.earlier.pop_front();
                }
            }
            return ControlFlow::Continue(());
        }
        search.count += 1;
        if options.has('q') {
            return ControlFlow::Break(());
        }
        if !silent {
            for (number, content) in search.earlier.drain(..) {
                show(number, &content, '-');
            }
            if options.has('o') && !options.has('v') {
                for found in regex.find_iter(content).filter(|found| !found.is_empty()) {
                    show(search.number, found.as_bytes(), ':');
                }
            } else {
                show(search.number, content, ':');
            }
            search.after_left = after;
        }
        // One file that has had enough need not be read to its end.
        if search.count >= most && files.len() <= 1 && after == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })
    .await?;
    search.next_file("");
    let found = search.counts.iter().any(|(_, count)| *count > 0);
    let mut summary = String::new();
    let all = if files.is_empty() { vec!["-".to_owned()] } else { files };
    for file in &all {
        let count = search.counts.iter().find(|(name, _)| name == file).map_or(0, |(_, count)| *count);
        if options.has('c') && !options.has('q') {
            let name = if names { format!("{file}:") } else { String::new() };
            summary.push_str(&format!("{name}{count}\n"));
        } else if (options.has('l') && count > 0) || (options.has('L') && count == 0) {
            summary.push_str(&format!("{file}\n"));
        }
    }
    crate::output::print(process, summary).await?;
    match (found, code) {
        (true, _) if options.has('q') => Ok(0),
        (_, 1..) => Ok(2),
        (found, _) => Ok(i32::from(!found)),
    }
}

struct Search {
    file: String,
    number: u64,
    count: u64,
    earlier: VecDeque<(u64, Vec<u8>)>,
    after_left: usize,
    counts: Vec<(String, u64)>,
}

impl Search {
    fn next_file(&mut self, file: &str) {
        let done = std::mem::replace(&mut self.file, file.to_owned());
        if !done.is_empty() {
            self.counts.push((done, self.count));
        }
        (self.number, self.count, self.after_left) = (0, 0, 0);
        self.earlier.clear();
    }
}

/// Exit code 1 of `grep` means that nothing was found, so that trouble is 2.
fn trouble(failure: Failure) -> Failure {
    Failure { code: 2, ..failure }
}

fn compile(options: &Options, patterns: &[String], name: &str) -> Result<Regex, Failure> {
    let fixed = options.has('F') || name == "fgrep";
    let extended = options.has('E') || options.has('P') || name == "egrep";
    let lines = patterns.iter().flat_map(|pattern| pattern.split('\n'));
    let alternatives: Vec<String> = lines
        .map(|pattern| {
            let pattern = match (fixed, extended) {
                (true, _) => regex::escape(pattern),
                (_, true) => pattern.to_owned(),
                _ => basic_to_extended(pattern),
            };
            match (options.has('w'), options.has('x')) {
                (_, true) => format!("^(?:{pattern})$"),
                (true, _) => format!(r"\b(?:{pattern})\b"),
                _ => format!("(?:{pattern})"),
            }
        })
        .collect();
    let regex = RegexBuilder::new(&alternatives.join("|")).case_insensitive(options.has('i')).build();
    regex.map_err(|_| Failure::with_code(2, format!("bad regex '{}'", patterns.join("\n"))))
}

/// A POSIX basic regular expression in the syntax of the `regex` crate: `\(`, `\|`, `\+`, `\?`, `\{` are the operators, and
/// the bare characters stand for themselves.
pub(super) fn basic_to_extended(pattern: &str) -> String {
    let (mut extended, mut chars, mut in_brackets) = (String::new(), pattern.chars().peekable(), false);
    while let Some(c) = chars.next() {
        match c {
            '[' if !in_brackets => {
                in_brackets = true;
                extended.push('[');
            }
            ']' => {
                in_brackets = false;
                extended.push(']');
            }
            '[' if chars.peek() != Some(&':') => extended.push_str("\\["),
            c if in_brackets => extended.push(c),
            '\\' => match chars.next() {
                Some(c @ ('(' | ')' | '{' | '}' | '|' | '+' | '?')) => extended.push(c),
                Some(c) => extended.extend(['\\', c]),
                None => extended.push_str("\\\\"),
            },
            '(' | ')' | '{' | '}' | '|' | '+' | '?' => extended.extend(['\\', c]),
            '*' if extended.is_empty() => extended.push_str("\\*"),
            c => extended.push(c),
        }
    }
    extended
}

/// The files below the operands (`.` if there are none).
fn walk(process: &Process, operands: &[String]) -> Vec<String> {
    let here = [".".to_owned()];
    let mut todo: Vec<String> = if operands.is_empty() { here.to_vec() } else { operands.to_vec() };
    let mut files = Vec::new();
    while let Some(path) = todo.pop() {
        let fs = &process.container.fs;
        let absolute = process.path(&path);
        // Links are not followed, so that a circle of them has an end; operands are.
        match fs.metadata(&absolute).map(|metadata| metadata.file_type) {
            Ok(FileType::Directory) => {
                for (name, metadata) in fs.list(&absolute).unwrap_or_default() {
                    if metadata.file_type != FileType::Symlink {
                        todo.push(format!("{}/{name}", path.trim_end_matches('/')));
                    }
                }
            }
            _ if files.len() < MAX_FILES => files.push(path),
            _ => break,
        }
    }
    files.sort();
    files
}
