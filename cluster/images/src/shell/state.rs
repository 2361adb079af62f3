//! What a shell knows: variables, options, functions, open descriptors, jobs.

use std::collections::BTreeMap;
use std::sync::Arc;

use brush_parser::ast::FunctionBody;
use meshlab_program::{Child, Container, ExitCode, FileSystem, Shared, Signal, Signals, absolute};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;

use crate::output::base_name;

/// How control leaves a command other than by going on with the next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Flow {
    Break(u32),
    Continue(u32),
    Return(ExitCode),
    Exit(ExitCode),
    /// `Ctrl-C` at an interactive shell: back to the prompt.
    Interrupted,
}

/// How a command ends.
pub(super) type Status = Result<ExitCode, Flow>;

/// An open file descriptor.
#[derive(Clone)]
pub(super) enum Descriptor {
    Input(Shared<Box<dyn AsyncRead + Send + Unpin>>),
    Output(Shared<Box<dyn AsyncWrite + Send + Unpin>>),
}

/// Open file descriptors by number.
pub(super) type Descriptors = BTreeMap<i32, Descriptor>;

#[derive(Debug, Clone, Default)]
pub(super) struct Variable {
    pub(super) value: String,
    pub(super) exported: bool,
    pub(super) read_only: bool,
}

/// `set -e` and the like.
#[derive(Debug, Clone, Default)]
pub(super) struct Options {
    pub(super) errexit: bool,
    pub(super) nounset: bool,
    pub(super) xtrace: bool,
    pub(super) noglob: bool,
    pub(super) pipefail: bool,
    pub(super) allexport: bool,
}

impl Options {
    const LETTERS: [(char, &str); 5] = [('e', "errexit"), ('u', "nounset"), ('x', "xtrace"), ('f', "noglob"), ('a', "allexport")];

    pub(super) fn set(&mut self, name: &str, on: bool) -> Result<(), String> {
        match name {
            "errexit" => self.errexit = on,
            "nounset" => self.nounset = on,
            "xtrace" => self.xtrace = on,
            "noglob" => self.noglob = on,
            "pipefail" => self.pipefail = on,
            "allexport" => self.allexport = on,
            _ => return Err(format!("illegal option -o {name}")),
        }
        Ok(())
    }

    pub(super) fn set_letter(&mut self, letter: char, on: bool) -> Result<(), String> {
        let name = Self::LETTERS.iter().find(|(known, _)| *known == letter).map(|(_, name)| *name);
        self.set(name.ok_or_else(|| format!("illegal option -{letter}"))?, on)
    }

    pub(super) fn letters(&self) -> String {
        let on = [self.errexit, self.nounset, self.xtrace, self.noglob, self.allexport];
        Self::LETTERS.iter().zip(on).filter(|(_, on)| *on).map(|((letter, _), _)| *letter).collect()
    }
}

/// What `trap` can catch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Trap {
    Exit,
    Interrupt,
    Terminate,
}

/// Background processes that this shell, and not a subshell, started.
#[derive(Default)]
pub(super) struct Jobs(pub(super) Vec<Child>);

impl Clone for Jobs {
    fn clone(&self) -> Self {
        Self::default()
    }
}

/// A shell. A clone is a subshell: what changes there does not change here.
#[derive(Clone)]
pub(super) struct Shell {
    pub(super) container: Arc<Container>,
    pub(super) cwd: String,
    pub(super) variables: BTreeMap<String, Variable>,
    /// For each function that runs, the variables that `local` has hidden.
    pub(super) scopes: Vec<BTreeMap<String, Option<Variable>>>,
    pub(super) positional: Vec<String>,
    /// `$0`.
    pub(super) name: String,
    pub(super) functions: BTreeMap<String, Arc<FunctionBody>>,
    pub(super) options: Options,
    /// `$?`.
    pub(super) status: ExitCode,
    /// `$!`.
    pub(super) last_background: Option<u32>,
    pub(super) descriptors: Descriptors,
    pub(super) terminal: Option<watch::Receiver<(u16, u16)>>,
    pub(super) interactive: bool,
    /// Called as `bash`: braces are expanded.
    pub(super) is_bash: bool,
    pub(super) signals: Signals,
    pub(super) traps: BTreeMap<Trap, String>,
    pub(super) jobs: Jobs,
    /// Above 0 where a failure is not the end under `set -e`: in a condition.
    pub(super) conditions: usize,
    /// How deep commands are nested now.
    pub(super) depth: usize,
    /// The status of the last command substitution of the current command.
    pub(super) substitution_status: Option<ExitCode>,
}

impl Shell {
    pub(super) fn empty(container: Arc<Container>, cwd: String, env: BTreeMap<String, String>, signals: Signals) -> Self {
        let exported = |(name, value)| (name, Variable { value, exported: true, read_only: false });
        let mut variables: BTreeMap<String, Variable> = env.into_iter().map(exported).collect();
        for (name, value) in [("IFS", " \t\n"), ("PS1", "$PWD \\$ "), ("PS2", "> "), ("PS4", "+ "), ("OPTIND", "1")] {
            let default = Variable { value: value.to_owned(), ..Variable::default() };
            variables.entry(name.to_owned()).or_insert(default);
        }
        let pwd = Variable { value: cwd.clone(), exported: true, read_only: false };
        variables.insert("PWD".to_owned(), pwd);
        Self {
            container,
            cwd,
            variables,
            scopes: Vec::new(),
            positional: Vec::new(),
            name: "sh".to_owned(),
            functions: BTreeMap::new(),
            options: Options::default(),
            status: 0,
            last_background: None,
            descriptors: Descriptors::new(),
            terminal: None,
            interactive: false,
            is_bash: false,
            signals,
            traps: BTreeMap::new(),
            jobs: Jobs::default(),
            conditions: 0,
            depth: 0,
            substitution_status: None,
        }
    }

    pub(super) fn fs(&self) -> &FileSystem {
        &self.container.fs
    }

    pub(super) fn path(&self, path: &str) -> String {
        absolute(&self.cwd, path)
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(|variable| variable.value.as_str())
    }

    /// Assigns; the error says that the variable is read only.
    pub(super) fn set(&mut self, name: &str, value: impl Into<String>) -> Result<(), String> {
        let export = self.options.allexport;
        let variable = self.variables.entry(name.to_owned()).or_default();
        if variable.read_only {
            return Err(format!("{name}: is read only"));
        }
        variable.value = value.into();
        variable.exported |= export;
        Ok(())
    }

    /// The environment of a child.
    pub(super) fn exported(&self) -> BTreeMap<String, String> {
        let exported = self.variables.iter().filter(|(_, variable)| variable.exported);
        exported.map(|(name, variable)| (name.clone(), variable.value.clone())).collect()
    }

    /// Writes to a descriptor. Where it is closed or its reader is gone the text is lost, as `echo` loses it in other shells.
    pub(super) async fn write(&mut self, descriptor: i32, text: impl AsRef<[u8]>) -> bool {
        match self.descriptors.get_mut(&descriptor) {
            Some(Descriptor::Output(output)) => output.write_all(text.as_ref()).await.is_ok() && output.flush().await.is_ok(),
            _ => false,
        }
    }

    /// Says what is wrong, as `sh: what`.
    pub(super) async fn complain(&mut self, what: &str) {
        let line = format!("{}: {what}\n", base_name(&self.name));
        self.write(2, line).await;
    }

    /// Runs the `EXIT` trap and lets background jobs go on by themselves.
    pub(super) async fn finish(mut self, code: ExitCode) -> ExitCode {
        self.status = code;
        let code = match self.traps.remove(&Trap::Exit) {
            Some(action) => match self.run_text(&action).await {
                Err(Flow::Exit(code)) => code,
                _ => code,
            },
            None => code,
        };
        for job in self.jobs.0.drain(..) {
            job.detach();
        }
        code & 0xff
    }

    /// Waits for a child, and hands signals on to it.
    pub(super) async fn wait_for(&mut self, child: &mut Child) -> Status {
        let mut last = Signal::None;
        let code = loop {
            tokio::select! {
                code = child.wait() => break code,
                signal = self.signals.next() => {
                    last = signal;
                    child.signal(signal);
                }
            }
        };
        self.after_signal(last).await?;
        Ok(code)
    }

    /// What a signal that came while a command ran means to the shell itself.
    pub(super) async fn after_signal(&mut self, signal: Signal) -> Result<(), Flow> {
        let (trap, code) = match signal {
            Signal::None => return Ok(()),
            Signal::Interrupt => (Trap::Interrupt, crate::output::INTERRUPTED),
            Signal::Terminate => (Trap::Terminate, crate::output::TERMINATED),
        };
        match self.traps.get(&trap).cloned() {
            Some(action) => {
                self.run_text(&action).await?;
                Ok(())
            }
            None if self.interactive && signal == Signal::Interrupt => Err(Flow::Interrupted),
            None => Err(Flow::Exit(code)),
        }
    }

    /// Looks for a signal between commands.
    pub(super) async fn check_signals(&mut self) -> Result<(), Flow> {
        // Also gives other tasks a turn, so that `while true; do :; done` does not hold a thread for itself.
        tokio::task::consume_budget().await;
        match self.signals.take() {
            Some(signal) => self.after_signal(signal).await,
            None => Ok(()),
        }
    }
}
