//! `sh`: the shell. The language is parsed by the `brush-parser` crate; what it means is done here, on the container's own file
//! system and processes.

mod arithmetic;
mod braces;
mod builtins;
mod execute;
mod expand;
mod interactive;
mod parse;
mod redirect;
mod simple_command;
mod state;
mod test_expression;

use std::io;

use async_trait::async_trait;
use meshlab_program::{ExitCode, Process, Program, Shared};

pub(crate) use builtins::decode_escapes;
pub(crate) use expand::pattern_regex;
use state::{Descriptor, Flow, Shell};

/// The program `sh`, also called `ash` and `bash`.
pub(crate) struct Sh;

#[async_trait]
impl Program for Sh {
    async fn run(&self, process: Process) -> ExitCode {
        let (mut shell, argv) = Shell::new(process);
        let code = match start(&mut shell, argv).await {
            Ok(code) | Err(Flow::Exit(code) | Flow::Return(code)) => code,
            Err(Flow::Interrupted) => crate::output::INTERRUPTED,
            Err(Flow::Break(_) | Flow::Continue(_)) => shell.status,
        };
        shell.finish(code).await
    }
}

/// A builtin of the shell as a program of its own, for `kubectl exec pod -- echo hello`.
pub(crate) struct Builtin(pub(crate) &'static str);

#[async_trait]
impl Program for Builtin {
    async fn run(&self, process: Process) -> ExitCode {
        let (mut shell, argv) = Shell::new(process);
        shell.name = self.0.to_owned();
        let code = match shell.run_builtin(self.0, argv.get(1..).unwrap_or_default()).await {
            Ok(code) | Err(Flow::Exit(code)) => code,
            Err(_) => 1,
        };
        shell.finish(code).await
    }
}

/// What the command line asks for.
enum Source {
    Text(String),
    File(String),
    Stdin,
}

async fn start(shell: &mut Shell, argv: Vec<String>) -> Result<ExitCode, Flow> {
    let (source, operands) = match command_line(shell, argv) {
        Ok(parsed) => parsed,
        Err(message) => {
            shell.complain(&message).await;
            return Ok(2);
        }
    };
    match source {
        Source::Text(text) => {
            let mut operands = operands.into_iter();
            if let Some(name) = operands.next() {
                shell.name = name;
            }
            shell.positional = operands.collect();
            shell.run_text(&text).await
        }
        Source::File(path) => {
            let content = shell.fs().read_text(&shell.path(&path));
            shell.name.clone_from(&path);
            shell.positional = operands;
            match content {
                Ok(text) => shell.run_text(&text).await,
                Err(err) => {
                    shell.complain(&format!("can't open '{path}': {err}")).await;
                    Ok(if err.kind() == io::ErrorKind::NotFound { 127 } else { 2 })
                }
            }
        }
        Source::Stdin => {
            shell.positional = operands;
            shell.run_stdin().await
        }
    }
}

/// Reads the shell's own flags.
fn command_line(shell: &mut Shell, argv: Vec<String>) -> Result<(Source, Vec<String>), String> {
    let mut words = argv.into_iter().skip(1).peekable();
    let (mut text, mut stdin) = (false, false);
    while let Some(word) = words.peek() {
        if word == "--" || word == "-" {
            words.next();
            break;
        }
        if word == "--login" || word == "--norc" || word == "--noprofile" {
            words.next();
            continue;
        }
        let on = word.starts_with('-');
        if word.len() < 2 || !(on || word.starts_with('+')) {
            break;
        }
        let word = words.next().unwrap_or_default();
        for letter in word[1..].chars() {
            match letter {
                'c' => text = true,
                's' => stdin = true,
                'i' => shell.interactive = true,
                'l' => {}
                'o' => {
                    let name = words.next().ok_or("-o requires an argument")?;
                    shell.options.set(&name, on)?;
                }
                letter => shell.options.set_letter(letter, on)?,
            }
        }
    }
    let mut operands: Vec<String> = words.collect();
    if text {
        if operands.is_empty() {
            return Err("-c requires an argument".to_owned());
        }
        return Ok((Source::Text(operands.remove(0)), operands));
    }
    if stdin || operands.is_empty() {
        shell.interactive |= shell.terminal.is_some();
        return Ok((Source::Stdin, operands));
    }
    Ok((Source::File(operands.remove(0)), operands))
}

impl Shell {
    fn new(process: Process) -> (Self, Vec<String>) {
        let mut shell = Self::empty(process.container, process.cwd, process.env, process.signals);
        shell.name = process.argv.first().cloned().unwrap_or_else(|| "sh".to_owned());
        shell.is_bash = crate::output::base_name(&shell.name) == "bash";
        shell.terminal = process.stdio.terminal;
        shell.descriptors = [
            (0, Descriptor::Input(Shared::new(process.stdio.stdin))),
            (1, Descriptor::Output(Shared::new(process.stdio.stdout))),
            (2, Descriptor::Output(Shared::new(process.stdio.stderr))),
        ]
        .into();
        (shell, process.argv)
    }
}

/// Gives a text to every parser of the shell.
pub(crate) fn parse_all(text: &str) {
    let _ = parse::program(text);
    let _ = parse::word(text);
    let _ = parse::unquoted(text);
    let _ = parse::braces(text);
    let _ = parse::arithmetic(text);
}

#[cfg(test)]
mod tests;
