//! `ls`, `stat`, `find`, `du`.

use std::time::SystemTime;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use meshlab_program::{FileType, Metadata, Process};

use super::{Options, Tool};
use crate::output::{Failure, Outcome, base_name, complain, print};
use crate::shell::pattern_regex;

pub(super) const TOOLS: &[(&str, Tool)] = &[
    ("ls", |process| Box::pin(ls(process))),
    ("stat", |process| Box::pin(stat(process))),
    ("find", |process| Box::pin(find(process))),
    ("du", |process| Box::pin(du(process))),
];

/// The most entries that are walked.
const MAX_ENTRIES: usize = 100_000;

fn time(modified: SystemTime, format: &str) -> String {
    Timestamp::try_from(modified).map(|time| time.to_zoned(TimeZone::UTC).strftime(format).to_string()).unwrap_or_default()
}

fn mode_text(metadata: &Metadata) -> String {
    let kind = match metadata.file_type {
        FileType::File => '-',
        FileType::Directory => 'd',
        FileType::Symlink => 'l',
        FileType::Null => 'c',
    };
    let bits = (0..9).rev().map(|bit| if metadata.mode >> bit & 1 == 1 { ['x', 'w', 'r'][bit % 3] } else { '-' });
    let mut text: String = std::iter::once(kind).chain(bits).collect();
    if metadata.mode & 0o1000 != 0 {
        text.replace_range(9.., if metadata.mode & 1 == 1 { "t" } else { "T" });
    }
    text
}

fn human(size: u64) -> String {
    let (mut value, mut units) = (size as f64, ["", "K", "M", "G"].into_iter());
    let mut unit = units.next().unwrap_or_default();
    while value >= 1024.0 {
        let Some(next) = units.next() else { break };
        (value, unit) = (value / 1024.0, next);
    }
    if unit.is_empty() { size.to_string() } else { format!("{value:.1}{unit}") }
}

async fn ls(process: &mut Process) -> Outcome {
    let options = Options::parse(&process.argv, "la1AdhRtrFSni", &[("all", 'a'), ("color", '1'), ("human-readable", 'h')])?;
    let names = if options.operands.is_empty() { vec![".".to_owned()] } else { options.operands.clone() };
    let (mut code, mut loose, mut directories) = (0, Vec::new(), Vec::new());
    for name in &names {
        let path = process.path(name);
        let fs = &process.container.fs;
        // `ls link` shows what the link leads to, `ls -l link` the link.
        let metadata = if options.has('l') { fs.symlink_metadata(&path) } else { fs.metadata(&path) };
        match metadata {
            Ok(metadata) if metadata.file_type == FileType::Directory && !options.has('d') => directories.push(name.clone()),
            Ok(metadata) => loose.push((name.clone(), path, metadata)),
            Err(err) => {
                complain(process, &format!("ls: {name}: {err}")).await;
                code = 1;
            }
        }
    }
    let mut output = lines(process, &options, loose);
    let titled = names.len() > 1 || options.has('R');
    while !directories.is_empty() {
        let directory = directories.remove(0);
        let path = process.path(&directory);
        let mut entries = process.container.fs.list(&path).map_err(|err| Failure::at(&directory, &err))?;
        if options.has('a') {
            for (at, name) in [".", ".."].into_iter().enumerate() {
                if let Ok(metadata) = process.container.fs.metadata(&format!("{path}/{name}")) {
                    entries.insert(at, (name.to_owned(), metadata));
                }
            }
        }
        entries.retain(|(name, _)| options.has('a') || options.has('A') || !name.starts_with('.'));
        if options.has('R') && output.len() < MAX_ENTRIES {
            let below =
                entries.iter().filter(|(name, found)| found.file_type == FileType::Directory && name != "." && name != "..");
            directories.extend(below.map(|(name, _)| format!("{}/{name}", directory.trim_end_matches('/'))));
        }
        if titled {
            let gap = if output.is_empty() { "" } else { "\n" };
            output.push_str(&format!("{gap}{directory}:\n"));
        }
        let entries = entries.into_iter().map(|(name, metadata)| (name.clone(), format!("{path}/{name}"), metadata)).collect();
        output.push_str(&lines(process, &options, entries));
    }
    print(process, output).await?;
    Ok(code)
}

fn lines(process: &Process, options: &Options, mut entries: Vec<(String, String, Metadata)>) -> String {
    if options.has('t') {
        entries.sort_by_key(|(_, _, metadata)| std::cmp::Reverse(metadata.modified));
    }
    if options.has('S') {
        entries.sort_by_key(|(_, _, metadata)| std::cmp::Reverse(metadata.size));
    }
    if options.has('r') {
        entries.reverse();
    }
    let mark = |name: &str, metadata: &Metadata| match metadata.file_type {
        FileType::Directory if options.has('F') => format!("{name}/"),
        FileType::Symlink if options.has('F') => format!("{name}@"),
        _ => name.to_owned(),
    };
    if !options.has('l') {
        let names: Vec<String> = entries.iter().map(|(name, _, metadata)| mark(name, metadata)).collect();
        if names.is_empty() {
            return String::new();
        }
        let in_row = process.stdio.terminal.is_some() && !options.has('1');
        return format!("{}\n", names.join(if in_row { "  " } else { "\n" }));
    }
    let line = |(name, path, metadata): &(String, String, Metadata)| {
        let size = if options.has('h') { human(metadata.size) } else { metadata.size.to_string() };
        let target = process.container.fs.read_link(path).map(|target| format!(" -> {target}")).unwrap_or_default();
        let when = time(metadata.modified, "%b %e %H:%M");
        format!("{}    1 root     root     {size:>9} {when} {}{target}\n", mode_text(metadata), mark(name, metadata))
    };
    entries.iter().map(line).collect()
}

async fn stat(process: &mut Process) -> Outcome {
    let options = Options::parse(&process.argv, "Lc:", &[("format", 'c')])?;
    for name in &options.operands {
        let path = process.path(name);
        let found =
            if options.has('L') { process.container.fs.metadata(&path) } else { process.container.fs.symlink_metadata(&path) };
        let metadata = found.map_err(|err| Failure::new(format!("can't stat '{name}': {err}")))?;
        let kind = match metadata.file_type {
            FileType::File => "regular file",
            FileType::Directory => "directory",
            FileType::Symlink => "symbolic link",
            FileType::Null => "character special file",
        };
        let mode = format!("{:o}", metadata.mode);
        let text = match options.value('c') {
            Some(format) => {
                let seconds = metadata.modified.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
                let mut text = format.replace("%n", name).replace("%s", &metadata.size.to_string()).replace("%a", &mode);
                text = text.replace("%A", &mode_text(&metadata)).replace("%F", kind).replace("%Y", &seconds.to_string());
                format!("{text}\n")
            }
            None => format!(
                "  File: {name}\n  Size: {:<10} {kind}\nAccess: (0{mode}/{})  Uid: (0/root)  Gid: (0/root)\nModify: {}\n",
                metadata.size,
                mode_text(&metadata),
                time(metadata.modified, "%Y-%m-%d %H:%M:%S %z")
            ),
        };
        print(process, text).await?;
    }
    Ok(0)
}

async fn find(process: &mut Process) -> Outcome {
    let words = process.argv[1..].to_vec();
    let split = words.iter().position(|word| word.starts_with('-')).unwrap_or(words.len());
    let starts = if split == 0 { vec![".".to_owned()] } else { words[..split].to_vec() };
    let (mut names, mut kind, mut depth, mut tests) = (Vec::new(), None, usize::MAX, words[split..].iter());
    while let Some(test) = tests.next() {
        let mut value = || tests.next().cloned().ok_or_else(|| Failure::new(format!("{test} needs an argument")));
        match test.as_str() {
            "-name" | "-iname" => {
                let pattern = value()?;
                let pattern = if test == "-iname" { format!("(?i){}", pattern.to_lowercase()) } else { pattern };
                let (insensitive, pattern) = pattern.strip_prefix("(?i)").map_or((false, pattern.as_str()), |rest| (true, rest));
                let regex = pattern_regex(pattern, true).ok_or_else(|| Failure::new(format!("bad pattern '{pattern}'")))?;
                names.push((regex, insensitive));
            }
            "-type" => {
                kind = Some(match value()?.as_str() {
                    "f" => FileType::File,
                    "d" => FileType::Directory,
                    "l" => FileType::Symlink,
                    "c" => FileType::Null,
                    other => return Err(Failure::new(format!("unknown argument '{other}' of -type"))),
                });
            }
            "-maxdepth" => depth = value()?.parse().map_err(|_| Failure::new("-maxdepth needs a number"))?,
            "-print" => {}
            other => {
                return Err(Failure::new(format!(
                    "{other} is not supported; there are -name, -iname, -type, -maxdepth and -print"
                )));
            }
        }
    }
    let (mut code, mut output, mut count) = (0, String::new(), 0);
    let mut todo: Vec<(String, usize)> = starts.into_iter().rev().map(|start| (start, 0)).collect();
    while let Some((name, level)) = todo.pop() {
        let path = process.path(&name);
        let metadata = match process.container.fs.symlink_metadata(&path) {
            Ok(metadata) => metadata,
            Err(err) => {
                complain(process, &format!("find: {name}: {err}")).await;
                code = 1;
                continue;
            }
        };
        count += 1;
        if count > MAX_ENTRIES {
            return Err(Failure::new(format!("more than {MAX_ENTRIES} files")));
        }
        let base = base_name(&name);
        let matches = |(regex, insensitive): &(regex::Regex, bool)| {
            if *insensitive { regex.is_match(&base.to_lowercase()) } else { regex.is_match(base) }
        };
        if names.iter().all(matches) && kind.is_none_or(|kind| kind == metadata.file_type) {
            output.push_str(&format!("{name}\n"));
        }
        if metadata.file_type == FileType::Directory && level < depth {
            let entries = process.container.fs.list(&path).unwrap_or_default();
            todo.extend(
                entries.into_iter().rev().map(|(entry, _)| (format!("{}/{entry}", name.trim_end_matches('/')), level + 1)),
            );
        }
    }
    print(process, output).await?;
    Ok(code)
}

async fn du(process: &mut Process) -> Outcome {
    let options = Options::parse(&process.argv, "shka", &[("summarize", 's'), ("human-readable", 'h')])?;
    let names = if options.operands.is_empty() { vec![".".to_owned()] } else { options.operands.clone() };
    for name in names {
        let (mut todo, mut bytes) = (vec![process.path(&name)], 0);
        while let Some(path) = todo.pop() {
            let metadata = process.container.fs.symlink_metadata(&path).map_err(|err| Failure::at(&name, &err))?;
            bytes += metadata.size;
            if metadata.file_type == FileType::Directory {
                todo.extend(
                    process.container.fs.list(&path).unwrap_or_default().into_iter().map(|(entry, _)| format!("{path}/{entry}")),
                );
            }
        }
        let size = if options.has('h') { human(bytes) } else { bytes.div_ceil(1024).to_string() };
        print(process, format!("{size}\t{name}\n")).await?;
    }
    Ok(0)
}
