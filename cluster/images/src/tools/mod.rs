//! The usual small commands.

mod archive;
mod commands;
mod files;
mod grep;
mod listing;
mod network;
mod openssl;
mod sed;
mod system;
mod text;
mod transform;
mod wget;

use std::ops::ControlFlow;

use async_trait::async_trait;
use futures::future::BoxFuture;
use meshlab_program::{ExitCode, ImageBuilder, Process, Program, Signal};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};

use crate::output::{Failure, INTERRUPTED, Outcome, TERMINATED, complain, finish};
use crate::shell::{Builtin, Sh};

/// The longest line that is taken in one piece.
const MAX_LINE: u64 = 1 << 20;

/// A command's body.
pub(crate) type Tool = for<'a> fn(&'a mut Process) -> BoxFuture<'a, Outcome>;

/// A command that a signal ends at once, as it ends a process that does not handle it.
pub(crate) struct Command(pub(crate) Tool);

#[async_trait]
impl Program for Command {
    async fn run(&self, mut process: Process) -> ExitCode {
        let mut signals = process.signals.clone();
        let outcome = tokio::select! {
            outcome = (self.0)(&mut process) => outcome,
            signal = signals.requested() => Ok(if signal == Signal::Interrupt { INTERRUPTED } else { TERMINATED }),
        };
        finish(&mut process, outcome).await
    }
}

/// Adds the shell and the commands to an image.
pub(crate) fn install(mut image: ImageBuilder) -> ImageBuilder {
    for name in ["sh", "ash", "bash"] {
        image = image.executable(name, std::sync::Arc::new(Sh));
    }
    for name in ["echo", "printf", "true", "false", "pwd", "test", "[", "kill"] {
        image = image.executable(name, std::sync::Arc::new(Builtin(name)));
    }
    image = image.executable("curl", std::sync::Arc::new(Command(|process| Box::pin(crate::curl::curl(process)))));
    let groups = [
        text::TOOLS,
        transform::TOOLS,
        grep::TOOLS,
        sed::TOOLS,
        files::TOOLS,
        listing::TOOLS,
        system::TOOLS,
        commands::TOOLS,
        archive::TOOLS,
        network::TOOLS,
        openssl::TOOLS,
        wget::TOOLS,
    ];
    for (name, tool) in groups.into_iter().flatten() {
        image = image.executable(name, std::sync::Arc::new(Command(*tool)));
    }
    image
}

/// Flags and operands of a command line, read as `getopt` reads them.
#[derive(Debug, Default)]
pub(crate) struct Options {
    flags: Vec<(char, String)>,
    pub(crate) operands: Vec<String>,
}

impl Options {
    /// `letters` as for `getopt`: `n:` takes a value. `long` gives letters to long names. Flags may follow operands.
    pub(crate) fn parse(argv: &[String], letters: &str, long: &[(&str, char)]) -> Result<Self, Failure> {
        let takes_value = |letter: char| letters.split_once(letter).map(|(_, after)| after.starts_with(':'));
        let invalid = |what: &str| Failure::new(format!("unrecognized option: {what}"));
        let mut options = Self::default();
        let mut words = argv.iter().skip(1);
        while let Some(word) = words.next() {
            if word == "--" {
                options.operands.extend(words.by_ref().cloned());
            } else if let Some(name) = word.strip_prefix("--") {
                let (name, inline) = name.split_once('=').map_or((name, None), |(name, value)| (name, Some(value.to_owned())));
                let letter =
                    long.iter().find(|(known, _)| *known == name).map(|(_, letter)| *letter).ok_or_else(|| invalid(word))?;
                let value = match (takes_value(letter) == Some(true), inline) {
                    (true, None) => {
                        words.next().cloned().ok_or_else(|| Failure::new(format!("option requires an argument: {name}")))?
                    }
                    (_, inline) => inline.unwrap_or_default(),
                };
                options.flags.push((letter, value));
            } else if word.len() > 1 && word.starts_with('-') {
                let mut rest = &word[1..];
                while let Some(letter) = rest.chars().next() {
                    rest = &rest[letter.len_utf8()..];
                    let value = match takes_value(letter).filter(|_| letter != ':').ok_or_else(|| invalid(&letter.to_string()))? {
                        false => String::new(),
                        true if !rest.is_empty() => std::mem::take(&mut rest).to_owned(),
                        true => {
                            let missing = || Failure::new(format!("option requires an argument: {letter}"));
                            words.next().cloned().ok_or_else(missing)?
                        }
                    };
                    options.flags.push((letter, value));
                }
            } else {
                options.operands.push(word.clone());
            }
        }
        Ok(options)
    }

    pub(crate) fn has(&self, letter: char) -> bool {
        self.flags.iter().any(|(flag, _)| *flag == letter)
    }

    /// The last value given.
    pub(crate) fn value(&self, letter: char) -> Option<&str> {
        self.flags.iter().rev().find(|(flag, _)| *flag == letter).map(|(_, value)| value.as_str())
    }

    /// All values given.
    pub(crate) fn values(&self, letter: char) -> impl Iterator<Item = &str> {
        self.flags.iter().filter(move |(flag, _)| *flag == letter).map(|(_, value)| value.as_str())
    }

    /// A value that must be a number.
    pub(crate) fn number<T: std::str::FromStr>(&self, letter: char) -> Result<Option<T>, Failure> {
        let parse = |text: &str| text.parse().map_err(|_| Failure::new(format!("invalid number '{text}'")));
        self.value(letter).map(parse).transpose()
    }
}

/// Gives every line of the files (`-` or no file: standard input), with its line feed, to `take`, and writes what `take` puts
/// into the buffer. A file that cannot be read is named, and the rest goes on: the exit code is then 1.
pub(crate) async fn each_line(
    process: &mut Process,
    files: &[String],
    mut take: impl FnMut(&str, &[u8], &mut Vec<u8>) -> ControlFlow<()> + Send,
) -> Outcome {
    let stdin = ["-".to_owned()];
    let files = if files.is_empty() { &stdin } else { files };
    let (mut code, mut output) = (0, Vec::new());
    for file in files {
        if file == "-" {
            let mut input = BufReader::new(std::mem::replace(&mut process.stdio.stdin, Box::new(tokio::io::empty())));
            loop {
                let mut line = Vec::new();
                if (&mut input).take(MAX_LINE).read_until(b'\n', &mut line).await? == 0 {
                    break;
                }
                let flow = take(file, &line, &mut output);
                process.stdio.stdout.write_all(&output).await?;
                // Whoever reads sees a line when it is there, not when the input ends.
                process.stdio.stdout.flush().await?;
                output.clear();
                if flow.is_break() {
                    return Ok(code);
                }
            }
            continue;
        }
        let content = match process.container.fs.read(&process.path(file)) {
            Ok(content) => content,
            Err(err) => {
                let name = process.argv[0].clone();
                complain(process, &format!("{}: {file}: {err}", crate::output::base_name(&name))).await;
                code = 1;
                continue;
            }
        };
        for line in content.split_inclusive(|byte| *byte == b'\n') {
            if take(file, line, &mut output).is_break() {
                process.stdio.stdout.write_all(&output).await?;
                return Ok(code);
            }
        }
        process.stdio.stdout.write_all(&output).await?;
        output.clear();
    }
    Ok(code)
}

/// Reads a file, or standard input for `-`.
pub(crate) async fn read_input(process: &mut Process, file: &str) -> Result<Vec<u8>, Failure> {
    match file {
        "-" => crate::output::read_stdin(process).await,
        file => {
            let content = process.container.fs.read(&process.path(file));
            content.map(Vec::from).map_err(|err| Failure::at(file, &err))
        }
    }
}

/// Reads all files, or standard input, one after the other.
pub(crate) async fn read_inputs(process: &mut Process, files: &[String]) -> Result<Vec<u8>, Failure> {
    /// What all files together may have; one may be named any number of times.
    const MAX_INPUTS: usize = 64 << 20;
    if files.is_empty() {
        return crate::output::read_stdin(process).await;
    }
    let mut all = Vec::new();
    for file in files {
        all.extend(read_input(process, file).await?);
        if all.len() > MAX_INPUTS {
            return Err(Failure::new(format!("the files are over {} MiB together", MAX_INPUTS >> 20)));
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests;
