//! `sort`, `uniq`, `cut`, `tr`, `rev`, `base64`, `sha256sum`.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use meshlab_program::Process;

use super::{Options, Tool, each_line, read_input, read_inputs};
use crate::output::{Failure, Outcome, print, read_stdin};
use crate::shell::decode_escapes;

pub(super) const TOOLS: &[(&str, Tool)] = &[
    ("sort", |process| Box::pin(sort(process))),
    ("uniq", |process| Box::pin(uniq(process))),
    ("cut", |process| Box::pin(cut(process))),
    ("tr", |process| Box::pin(tr(process))),
    ("rev", |process| Box::pin(rev(process))),
    ("base64", |process| Box::pin(base64(process))),
    ("sha256sum", |process| Box::pin(sha256sum(process))),
];

async fn sort(process: &mut Process) -> Outcome {
    let options = Options::parse(&process.argv, "rnufk:t:", &[("reverse", 'r'), ("numeric-sort", 'n'), ("unique", 'u')])?;
    let content = read_inputs(process, &options.operands).await?;
    let text = String::from_utf8_lossy(&content);
    let column: Option<usize> = match options.value('k') {
        Some(key) => {
            let first = key.split([',', '.']).next().unwrap_or_default().trim_end_matches(|c: char| c.is_ascii_alphabetic());
            Some(first.parse().map_err(|_| Failure::new(format!("bad field specification '{key}'")))?)
        }
        None => None,
    };
    let numeric = options.has('n') || options.value('k').is_some_and(|key| key.contains('n'));
    let reverse = options.has('r') || options.value('k').is_some_and(|key| key.contains('r'));
    let key = |line: &str| -> String {
        let key = match (column, options.value('t')) {
            (None, _) => line.to_owned(),
            (Some(column), Some(separator)) => {
                line.split(separator).skip(column.saturating_sub(1)).collect::<Vec<_>>().join(separator)
            }
            (Some(column), None) => line.split_whitespace().skip(column.saturating_sub(1)).collect::<Vec<_>>().join(" "),
        };
        if options.has('f') { key.to_uppercase() } else { key }
    };
    let value = |text: &str| -> f64 {
        let text = text.trim_start();
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.' && c != '-').unwrap_or(text.len());
        text[..end].parse().unwrap_or(0.0)
    };
    let mut lines: Vec<(String, &str)> = text.lines().map(|line| (key(line), line)).collect();
    lines.sort_by(|(left, left_line), (right, right_line)| {
        let by_key = if numeric { value(left).total_cmp(&value(right)) } else { left.cmp(right) };
        let order = by_key.then_with(|| left_line.cmp(right_line));
        if reverse { order.reverse() } else { order }
    });
    if options.has('u') {
        lines.dedup_by(|(left, _), (right, _)| if numeric { value(left) == value(right) } else { left == right });
    }
    let output: String = lines.iter().map(|(_, line)| format!("{line}\n")).collect();
    print(process, output).await?;
    Ok(0)
}

async fn uniq(process: &mut Process) -> Outcome {
    let options = Options::parse(&process.argv, "cdui", &[("count", 'c'), ("repeated", 'd'), ("unique", 'u')])?;
    let content = read_inputs(process, &options.operands).await?;
    let text = String::from_utf8_lossy(&content);
    let same = |left: &str, right: &str| if options.has('i') { left.eq_ignore_ascii_case(right) } else { left == right };
    let mut groups: Vec<(usize, &str)> = Vec::new();
    for line in text.lines() {
        match groups.last_mut() {
            Some((count, before)) if same(before, line) => *count += 1,
            _ => groups.push((1, line)),
        }
    }
    let wanted = |count: usize| !(options.has('d') && count == 1 || options.has('u') && count > 1);
    let mut output = String::new();
    for (count, line) in groups.into_iter().filter(|(count, _)| wanted(*count)) {
        output.push_str(&if options.has('c') { format!("{count:>7} {line}\n") } else { format!("{line}\n") });
    }
    print(process, output).await?;
    Ok(0)
}

/// `1,3-5,7-`: positions from 1.
fn parse_ranges(list: &str) -> Result<Vec<(usize, usize)>, Failure> {
    let wrong = || Failure::new(format!("invalid range '{list}'"));
    let number = |text: &str, default| if text.is_empty() { Ok(default) } else { text.parse().map_err(|_| wrong()) };
    let range = |item: &str| match item.split_once('-') {
        Some((from, to)) => Ok((number(from, 1)?, number(to, usize::MAX)?)),
        None => item.parse().map(|only| (only, only)).map_err(|_| wrong()),
    };
    list.split(',').map(range).collect()
}

async fn cut(process: &mut Process) -> Outcome {
    let options = Options::parse(&process.argv, "d:f:c:b:s", &[("delimiter", 'd'), ("fields", 'f'), ("characters", 'c')])?;
    let characters = options.value('c').or(options.value('b'));
    let list =
        characters.or(options.value('f')).ok_or_else(|| Failure::new("expected a list of bytes, characters, or fields"))?;
    let ranges = parse_ranges(list)?;
    let delimiter = options.value('d').unwrap_or("\t").to_owned();
    let wanted = |position: usize| ranges.iter().any(|(from, to)| (*from..=*to).contains(&position));
    let (by_character, only_delimited) = (characters.is_some(), options.has('s'));
    each_line(process, &options.operands, |_, line, output| {
        let line = String::from_utf8_lossy(line);
        let line = line.trim_end_matches('\n');
        let result = if by_character {
            line.chars().enumerate().filter(|(at, _)| wanted(at + 1)).map(|(_, c)| c).collect()
        } else if line.contains(&delimiter) {
            let fields = line.split(&delimiter).enumerate().filter(|(at, _)| wanted(at + 1));
            fields.map(|(_, field)| field).collect::<Vec<_>>().join(&delimiter)
        } else if only_delimited {
            return ControlFlow::Continue(());
        } else {
            line.to_owned()
        };
        output.extend(format!("{result}\n").bytes());
        ControlFlow::Continue(())
    })
    .await
}

/// A named class of characters, as `tr` knows them.
type CharacterClass = (&'static str, fn(&char) -> bool);

/// `a-z`, `[:upper:]`, `\n` of a `tr` set.
fn expand_set(set: &str) -> Vec<char> {
    let classes: [CharacterClass; 7] = [
        ("[:upper:]", |c| c.is_ascii_uppercase()),
        ("[:lower:]", |c| c.is_ascii_lowercase()),
        ("[:digit:]", |c| c.is_ascii_digit()),
        ("[:alpha:]", |c| c.is_ascii_alphabetic()),
        ("[:alnum:]", |c| c.is_ascii_alphanumeric()),
        ("[:space:]", |c| c.is_ascii_whitespace() || *c == '\u{b}'),
        ("[:punct:]", |c| c.is_ascii_punctuation()),
    ];
    let mut set = decode_escapes(set).text();
    for (name, belongs) in classes {
        let members: String = (0..128_u8).map(char::from).filter(belongs).collect();
        set = set.replace(name, &members);
    }
    let (chars, mut expanded, mut at): (Vec<char>, Vec<char>, usize) = (set.chars().collect(), Vec::new(), 0);
    while at < chars.len() {
        match chars[at..] {
            [from, '-', to, ..] if from < to && from.is_ascii() && to.is_ascii() => {
                expanded.extend(from..=to);
                at += 3;
            }
            _ => {
                expanded.push(chars[at]);
                at += 1;
            }
        }
    }
    expanded
}

async fn tr(process: &mut Process) -> Outcome {
    let options = Options::parse(&process.argv, "dscC", &[("delete", 'd'), ("squeeze-repeats", 's'), ("complement", 'c')])?;
    let mut sets = options.operands.iter().map(|set| expand_set(set));
    let from = sets.next().ok_or_else(|| Failure::new("usage: tr [-cds] STRING1 [STRING2]"))?;
    let to = sets.next();
    if to.is_none() && !options.has('d') && !options.has('s') {
        return Err(Failure::new("a second STRING is needed to translate"));
    }
    let members: BTreeSet<char> = from.iter().copied().collect();
    let complement = options.has('c') || options.has('C');
    let content = read_stdin(process).await?;
    let text = String::from_utf8_lossy(&content);
    let (mut output, mut last) = (String::with_capacity(text.len()), None);
    for c in text.chars() {
        let matches = members.contains(&c) != complement;
        if matches && options.has('d') {
            continue;
        }
        let translated = match &to {
            Some(to) if matches && !options.has('d') => {
                let index = if complement { usize::MAX } else { from.iter().rposition(|member| *member == c).unwrap_or(0) };
                to.get(index).or(to.last()).copied().unwrap_or(c)
            }
            _ => c,
        };
        let squeezes = options.has('s') && (matches || options.has('d')) && last == Some(translated);
        if !squeezes {
            output.push(translated);
        }
        last = Some(translated);
    }
    print(process, output).await?;
    Ok(0)
}

async fn rev(process: &mut Process) -> Outcome {
    let files = process.argv[1..].to_vec();
    each_line(process, &files, |_, line, output| {
        let line = String::from_utf8_lossy(line);
        output.extend(line.trim_end_matches('\n').chars().rev().chain(['\n']).collect::<String>().bytes());
        ControlFlow::Continue(())
    })
    .await
}

async fn base64(process: &mut Process) -> Outcome {
    let options = Options::parse(&process.argv, "diw:", &[("decode", 'd'), ("wrap", 'w')])?;
    let content = read_inputs(process, &options.operands).await?;
    if options.has('d') {
        let text: Vec<u8> = content.into_iter().filter(|byte| !byte.is_ascii_whitespace()).collect();
        let decoded = STANDARD.decode(text).map_err(|_| Failure::new("truncated input"))?;
        print(process, decoded).await?;
        return Ok(0);
    }
    let columns: usize = options.number('w')?.unwrap_or(76);
    let encoded = STANDARD.encode(content);
    let lines: Vec<&str> = match columns {
        0 => vec![&encoded],
        // Base64 is ASCII, so that any cut is between characters.
        columns => encoded.as_bytes().chunks(columns).map(|line| std::str::from_utf8(line).unwrap_or_default()).collect(),
    };
    let end = if columns == 0 { "" } else { "\n" };
    print(process, lines.iter().map(|line| format!("{line}{end}")).collect::<String>()).await?;
    Ok(0)
}

async fn sha256sum(process: &mut Process) -> Outcome {
    use sha2::{Digest, Sha256};
    let files = if process.argv.len() > 1 { process.argv[1..].to_vec() } else { vec!["-".to_owned()] };
    for file in files {
        let content = read_input(process, &file).await?;
        let digest: String = Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect();
        print(process, format!("{digest}  {file}\n")).await?;
    }
    Ok(0)
}
