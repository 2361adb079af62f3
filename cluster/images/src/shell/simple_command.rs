//! Simple commands: assignments, redirections, and a function, a builtin or an executable.

use brush_parser::ast::{
    Assignment, AssignmentName, AssignmentValue, CommandPrefixOrSuffixItem, IoRedirect, SimpleCommand, Word,
};
use meshlab_program::{Process, Shared, Signals, SpawnError, Stdio};

use super::builtins;
use super::state::{Descriptor, Flow, Shell, Status, Variable};

/// A simple command, sorted into its parts.
#[derive(Default)]
struct Parts<'a> {
    assignments: Vec<&'a Assignment>,
    words: Vec<&'a Word>,
    redirects: Vec<IoRedirect>,
    unsupported: Option<&'static str>,
}

impl<'a> Parts<'a> {
    fn of(command: &'a SimpleCommand) -> Self {
        let mut parts = Self::default();
        for item in command.prefix.iter().flat_map(|prefix| &prefix.0) {
            parts.take(item, true);
        }
        parts.words.extend(&command.word_or_name);
        for item in command.suffix.iter().flat_map(|suffix| &suffix.0) {
            parts.take(item, false);
        }
        parts
    }

    fn take(&mut self, item: &'a CommandPrefixOrSuffixItem, before_name: bool) {
        match item {
            CommandPrefixOrSuffixItem::IoRedirect(redirect) => self.redirects.push(redirect.clone()),
            CommandPrefixOrSuffixItem::AssignmentWord(assignment, _) if before_name => self.assignments.push(assignment),
            CommandPrefixOrSuffixItem::Word(word) | CommandPrefixOrSuffixItem::AssignmentWord(_, word) => self.words.push(word),
            CommandPrefixOrSuffixItem::ProcessSubstitution(..) => self.unsupported = Some("<(…)"),
        }
    }
}

impl Shell {
    pub(super) async fn run_simple(&mut self, command: &SimpleCommand) -> Status {
        let parts = Parts::of(command);
        if let Some(what) = parts.unsupported {
            return self.expansion_failed(&format!("{what} is not supported by this shell")).await;
        }
        self.substitution_status = None;
        let words = match self.expand_words(parts.words.iter().copied()).await? {
            Ok(words) => words,
            Err(message) => return self.expansion_failed(&message).await,
        };
        let before = self.descriptors.clone();
        if let Err(message) = self.redirect(&parts.redirects).await? {
            self.descriptors = before;
            self.complain(&message).await;
            return Ok(1);
        }
        if words.first().is_some_and(|name| name == "exec") && words.len() == 1 {
            // `exec 3>file`: the redirections stay.
            return Ok(0);
        }
        let status = self.run_words(words, &parts.assignments).await;
        self.descriptors = before;
        status
    }

    async fn run_words(&mut self, words: Vec<String>, assignments: &[&Assignment]) -> Status {
        let mut assigned = Vec::with_capacity(assignments.len());
        for assignment in assignments {
            match self.assignment(assignment).await? {
                Ok(pair) => assigned.push(pair),
                Err(message) => return self.expansion_failed(&message).await,
            }
        }
        if self.options.xtrace {
            let mut line = self.get("PS4").unwrap_or("+ ").to_owned();
            line.push_str(&assigned.iter().map(|(name, value)| format!("{name}={value} ")).collect::<String>());
            line.push_str(&words.join(" "));
            line.push('\n');
            self.write(2, line).await;
        }
        let Some(name) = words.first().cloned() else {
            for (name, value) in assigned {
                if let Err(message) = self.set(&name, value) {
                    return self.expansion_failed(&message).await;
                }
            }
            return Ok(self.substitution_status.take().unwrap_or(0));
        };
        // `NAME=value command`: for this command only.
        let mut hidden = Vec::with_capacity(assigned.len());
        for (name, value) in assigned {
            let variable = Variable { value, exported: true, read_only: false };
            hidden.push((name.clone(), self.variables.insert(name, variable)));
        }
        let status = if let Some(body) = self.functions.get(&name).cloned() {
            self.call(body, words[1..].to_vec()).await
        } else if builtins::is_builtin(&name) {
            self.run_builtin(&name, &words[1..]).await
        } else {
            self.run_executable(words).await
        };
        for (name, variable) in hidden.into_iter().rev() {
            match variable {
                Some(variable) => drop(self.variables.insert(name, variable)),
                None => drop(self.variables.remove(&name)),
            }
        }
        status
    }

    async fn assignment(&mut self, assignment: &Assignment) -> Result<Result<(String, String), String>, Flow> {
        let (AssignmentName::VariableName(name), AssignmentValue::Scalar(word)) = (&assignment.name, &assignment.value) else {
            return Ok(Err("arrays are not supported by this shell".to_owned()));
        };
        let value = self.expand_to_text(&word.value).await?;
        let before = if assignment.append { self.get(name).unwrap_or_default().to_owned() } else { String::new() };
        Ok(value.map(|value| (name.clone(), before + &value)))
    }

    /// Runs one of the image's executables, or a script.
    pub(super) async fn run_executable(&mut self, argv: Vec<String>) -> Status {
        let name = argv[0].clone();
        let (_, signals) = Signals::channel();
        let process = Process {
            container: self.container.clone(),
            argv,
            env: self.exported(),
            cwd: self.cwd.clone(),
            stdio: self.stdio(),
            signals,
        };
        match process.spawn() {
            Ok(mut child) => self.wait_for(&mut child).await,
            Err(err) => {
                let message = match &err {
                    SpawnError::NotFound(_) | SpawnError::NoSuchFile(_) => format!("{name}: not found"),
                    SpawnError::PermissionDenied(_) => format!("{name}: Permission denied"),
                    SpawnError::Format(_) => format!("{name}: Exec format error"),
                    SpawnError::TooManyProcesses => "can't fork: Resource temporarily unavailable".to_owned(),
                };
                self.complain(&message).await;
                Ok(err.exit_code())
            }
        }
    }

    /// The shell's own streams, as a child inherits them.
    fn stdio(&self) -> Stdio {
        let nothing = || Shared::new(Box::new(tokio::io::sink()) as Box<_>);
        let output = |number| match self.descriptors.get(&number) {
            Some(Descriptor::Output(output)) => output.clone(),
            _ => nothing(),
        };
        Stdio {
            stdin: match self.descriptors.get(&0) {
                Some(Descriptor::Input(input)) => Box::new(input.clone()),
                _ => Box::new(tokio::io::empty()),
            },
            stdout: Box::new(output(1)),
            stderr: Box::new(output(2)),
            terminal: self.terminal.clone(),
        }
    }
}
