//! Running lists, pipelines and compound commands.

use std::sync::Arc;

use async_trait::async_trait;
use brush_parser::ast::{
    AndOr, AndOrList, CaseItemPostAction, Command, CompoundCommand, CompoundList, FunctionBody, Pipeline, RedirectList,
    SeparatorOperator,
};
use futures::future::BoxFuture;
use meshlab_program::{Child, ExitCode, PipeReader, Process, Program, Shared, Signals, Stdio, pipe};
use parking_lot::Mutex;
use tokio::io::AsyncReadExt;

use super::expand::pattern_regex;
use super::parse;
use super::state::{Descriptor, Descriptors, Flow, Shell, Status};

/// How deep commands may be nested while they run: each level takes stack. (A subshell starts afresh, and their number is bounded
/// by the container's process table.)
const MAX_DEPTH: usize = 50;

/// The longest output of `$(…)`.
const MAX_SUBSTITUTION: u64 = 4 << 20;

/// Part of a script that runs in a subshell.
pub(super) enum Work {
    List(CompoundList),
    AndOr(AndOrList),
    Command(Command),
    Text(String),
}

/// A subshell, as a program of its own process.
struct Subshell(Mutex<Option<(Shell, Work)>>);

#[async_trait]
impl Program for Subshell {
    async fn run(&self, process: Process) -> ExitCode {
        let Some((mut shell, work)) = self.0.lock().take() else { return 1 };
        shell.signals = process.signals;
        let status = match &work {
            Work::List(list) => shell.run_list(list).await,
            Work::AndOr(list) => shell.run_and_or(list).await,
            Work::Command(command) => shell.run_command(command).await,
            Work::Text(text) => shell.run_text(text).await,
        };
        let code = match status {
            Ok(code) | Err(Flow::Exit(code) | Flow::Return(code)) => code,
            Err(Flow::Interrupted) => crate::output::INTERRUPTED,
            Err(Flow::Break(_) | Flow::Continue(_)) => shell.status,
        };
        shell.finish(code).await
    }
}

impl Shell {
    /// Parses and runs a script.
    pub(super) fn run_text<'a>(&'a mut self, text: &'a str) -> BoxFuture<'a, Status> {
        Box::pin(async move {
            match parse::program(text) {
                Ok(program) => {
                    for command in &program.complete_commands {
                        self.run_list(command).await?;
                    }
                    Ok(self.status)
                }
                Err(err) => {
                    self.complain(err.message()).await;
                    self.status = 2;
                    if self.interactive { Ok(2) } else { Err(Flow::Exit(2)) }
                }
            }
        })
    }

    pub(super) fn run_list<'a>(&'a mut self, list: &'a CompoundList) -> BoxFuture<'a, Status> {
        Box::pin(async move {
            for item in &list.0 {
                match item.1 {
                    SeparatorOperator::Sequence => self.run_and_or(&item.0).await?,
                    SeparatorOperator::Async => self.run_in_background(item.0.clone()).await,
                };
            }
            Ok(self.status)
        })
    }

    async fn run_in_background(&mut self, list: AndOrList) -> ExitCode {
        let mut descriptors = self.descriptors.clone();
        // A background command does not read what is meant for the shell.
        descriptors.insert(0, Descriptor::Input(Shared::new(Box::new(tokio::io::empty()))));
        match self.fork(Work::AndOr(list), descriptors) {
            Ok(child) => {
                self.last_background = Some(child.pid);
                if self.interactive {
                    let line = format!("[{}] {}\n", self.jobs.0.len() + 1, child.pid);
                    self.write(2, line).await;
                }
                self.jobs.0.push(child);
                self.status = 0;
            }
            Err(err) => {
                self.complain(&err.to_string()).await;
                self.status = err.exit_code();
            }
        }
        self.status
    }

    async fn run_and_or(&mut self, list: &AndOrList) -> Status {
        let last = list.additional.len();
        let mut code = self.run_pipeline(&list.first, last > 0).await?;
        for (index, next) in list.additional.iter().enumerate() {
            let (pipeline, wanted) = match next {
                AndOr::And(pipeline) => (pipeline, code == 0),
                AndOr::Or(pipeline) => (pipeline, code != 0),
            };
            if wanted {
                code = self.run_pipeline(pipeline, index + 1 < last).await?;
            }
        }
        Ok(code)
    }

    /// `is_condition`: a failure here decides what runs next, so that it is not the end under `set -e`.
    async fn run_pipeline(&mut self, pipeline: &Pipeline, is_condition: bool) -> Status {
        self.check_signals().await?;
        let started = pipeline.timed.is_some().then(std::time::Instant::now);
        let is_condition = is_condition || pipeline.bang;
        self.conditions += usize::from(is_condition);
        let result = match &pipeline.seq[..] {
            [command] => self.run_command(command).await,
            commands => self.run_stages(commands).await,
        };
        self.conditions -= usize::from(is_condition);
        let mut code = result?;
        if pipeline.bang {
            code = ExitCode::from(code == 0);
        }
        self.status = code;
        if let Some(started) = started {
            let seconds = started.elapsed().as_secs_f64();
            self.write(2, format!("real\t{}m {seconds:.2}s\nuser\t0m 0.00s\nsys\t0m 0.00s\n", 0)).await;
        }
        if code != 0 && self.options.errexit && self.conditions == 0 && !is_condition {
            return Err(Flow::Exit(code));
        }
        Ok(code)
    }

    /// A pipeline of several commands: each is a process, and all run at the same time.
    async fn run_stages(&mut self, commands: &[Command]) -> Status {
        let mut children = Vec::with_capacity(commands.len());
        let mut input: Option<PipeReader> = None;
        for (index, command) in commands.iter().enumerate() {
            let mut descriptors = self.descriptors.clone();
            if let Some(input) = input.take() {
                descriptors.insert(0, Descriptor::Input(Shared::new(Box::new(input))));
            }
            if index + 1 < commands.len() {
                let (writer, reader) = pipe();
                descriptors.insert(1, Descriptor::Output(Shared::new(Box::new(writer))));
                input = Some(reader);
            }
            match self.fork(Work::Command(command.clone()), descriptors) {
                Ok(child) => children.push(child),
                Err(err) => {
                    self.complain(&err.to_string()).await;
                    return Ok(err.exit_code());
                }
            }
        }
        let (mut code, mut failed) = (0, 0);
        for mut child in children {
            code = self.wait_for(&mut child).await?;
            failed = if code == 0 { failed } else { code };
        }
        Ok(if self.options.pipefail { failed } else { code })
    }

    /// Starts part of the script in a subshell.
    pub(super) fn fork(&self, work: Work, descriptors: Descriptors) -> Result<Child, meshlab_program::SpawnError> {
        let mut shell = self.clone();
        shell.descriptors = descriptors;
        shell.interactive = false;
        shell.traps.clear();
        shell.depth = 0;
        let (_, signals) = Signals::channel();
        let process = Process {
            container: self.container.clone(),
            argv: vec![self.name.clone()],
            env: self.exported(),
            cwd: self.cwd.clone(),
            stdio: Stdio::null(),
            signals,
        };
        process.spawn_program(Arc::new(Subshell(Mutex::new(Some((shell, work))))))
    }

    /// `$(…)`: what a script writes, without the line feeds at its end.
    pub(super) async fn substitute(&mut self, text: &str) -> Result<String, Flow> {
        let (writer, reader) = pipe();
        let mut descriptors = self.descriptors.clone();
        descriptors.insert(1, Descriptor::Output(Shared::new(Box::new(writer))));
        let mut child = match self.fork(Work::Text(text.to_owned()), descriptors) {
            Ok(child) => child,
            Err(err) => {
                self.complain(&err.to_string()).await;
                return Err(Flow::Exit(err.exit_code()));
            }
        };
        let mut output = Vec::new();
        let mut reader = reader.take(MAX_SUBSTITUTION);
        let read = reader.read_to_end(&mut output);
        tokio::select! {
            _ = read => {}
            signal = self.signals.next() => {
                child.kill();
                self.after_signal(signal).await?;
            }
        }
        drop(reader);
        self.substitution_status = Some(self.wait_for(&mut child).await?);
        // No shell can keep a zero byte in a variable.
        output.retain(|byte| *byte != 0);
        let text = String::from_utf8_lossy(&output);
        Ok(text.trim_end_matches('\n').to_owned())
    }

    pub(super) fn run_command<'a>(&'a mut self, command: &'a Command) -> BoxFuture<'a, Status> {
        Box::pin(async move {
            if self.depth >= MAX_DEPTH {
                self.complain(&format!("commands are nested more than {MAX_DEPTH} deep")).await;
                return Err(Flow::Exit(2));
            }
            self.depth += 1;
            let status = match command {
                Command::Simple(simple) => self.run_simple(simple).await,
                Command::Compound(compound, redirects) => self.run_redirected(compound, redirects.as_ref()).await,
                Command::Function(function) => {
                    self.functions.insert(function.fname.value.clone(), Arc::new(function.body.clone()));
                    Ok(0)
                }
                Command::ExtendedTest(test, _) => match self.extended_test(&test.expr).await {
                    Ok(Ok(holds)) => Ok(ExitCode::from(!holds)),
                    Ok(Err(message)) => {
                        self.complain(&message).await;
                        Ok(2)
                    }
                    Err(flow) => Err(flow),
                },
            };
            self.depth -= 1;
            if let Ok(code) = &status {
                self.status = *code;
            }
            status
        })
    }

    async fn run_redirected(&mut self, compound: &CompoundCommand, redirects: Option<&RedirectList>) -> Status {
        let Some(redirects) = redirects else { return self.run_compound(compound).await };
        let before = self.descriptors.clone();
        let status = match self.redirect(&redirects.0).await? {
            Ok(()) => self.run_compound(compound).await,
            Err(message) => {
                self.complain(&message).await;
                Ok(1)
            }
        };
        self.descriptors = before;
        status
    }

    async fn run_compound(&mut self, compound: &CompoundCommand) -> Status {
        match compound {
            CompoundCommand::BraceGroup(group) => self.run_list(&group.list).await,
            CompoundCommand::Subshell(subshell) => match self.fork(Work::List(subshell.list.clone()), self.descriptors.clone()) {
                Ok(mut child) => self.wait_for(&mut child).await,
                Err(err) => {
                    self.complain(&err.to_string()).await;
                    Ok(err.exit_code())
                }
            },
            CompoundCommand::IfClause(clause) => {
                if self.holds(&clause.condition).await? {
                    return self.run_list(&clause.then).await;
                }
                for branch in clause.elses.iter().flatten() {
                    let taken = match &branch.condition {
                        Some(condition) => self.holds(condition).await?,
                        None => true,
                    };
                    if taken {
                        return self.run_list(&branch.body).await;
                    }
                }
                Ok(0)
            }
            CompoundCommand::WhileClause(clause) => self.run_loop(&clause.0, true, &clause.1.list).await,
            CompoundCommand::UntilClause(clause) => self.run_loop(&clause.0, false, &clause.1.list).await,
            CompoundCommand::ForClause(clause) => {
                let values = match &clause.values {
                    Some(words) => match self.expand_words(words.iter()).await? {
                        Ok(values) => values,
                        Err(message) => return self.expansion_failed(&message).await,
                    },
                    None => self.positional.clone(),
                };
                let mut code = 0;
                for value in values {
                    if let Err(message) = self.set(&clause.variable_name, value) {
                        return self.expansion_failed(&message).await;
                    }
                    match self.run_list(&clause.body.list).await {
                        Ok(status) => code = status,
                        Err(flow) => match leave_loop(flow)? {
                            Leave::Loop => return Ok(0),
                            Leave::Turn => {}
                        },
                    }
                }
                Ok(code)
            }
            CompoundCommand::CaseClause(clause) => self.run_case(clause).await,
            CompoundCommand::Arithmetic(command) => match self.arithmetic(&command.expr.value).await? {
                Ok(value) => Ok(ExitCode::from(value == 0)),
                Err(message) => self.expansion_failed(&message).await,
            },
            CompoundCommand::ArithmeticForClause(_) => self.not_supported("for ((…))").await,
            CompoundCommand::Coprocess(_) => self.not_supported("coproc").await,
        }
    }

    async fn not_supported(&mut self, what: &str) -> Status {
        self.complain(&format!("{what} is not supported by this shell")).await;
        Ok(2)
    }

    /// Ends a script whose words cannot be expanded, as POSIX asks; an interactive shell goes on.
    pub(super) async fn expansion_failed(&mut self, message: &str) -> Status {
        self.complain(message).await;
        self.status = 2;
        if self.interactive { Ok(2) } else { Err(Flow::Exit(2)) }
    }

    async fn holds(&mut self, condition: &CompoundList) -> Result<bool, Flow> {
        self.conditions += 1;
        let status = self.run_list(condition).await;
        self.conditions -= 1;
        Ok(status? == 0)
    }

    async fn run_loop(&mut self, condition: &CompoundList, wanted: bool, body: &CompoundList) -> Status {
        let mut code = 0;
        loop {
            let turn = match self.holds(condition).await {
                Ok(holds) if holds != wanted => return Ok(code),
                Ok(_) => self.run_list(body).await,
                Err(flow) => Err(flow),
            };
            match turn {
                Ok(status) => code = status,
                Err(flow) => match leave_loop(flow)? {
                    Leave::Loop => return Ok(0),
                    Leave::Turn => {}
                },
            }
        }
    }

    async fn run_case(&mut self, clause: &brush_parser::ast::CaseClauseCommand) -> Status {
        let value = match self.expand_to_text(&clause.value.value).await? {
            Ok(value) => value,
            Err(message) => return self.expansion_failed(&message).await,
        };
        let (mut code, mut fall_through) = (0, false);
        for item in &clause.cases {
            let mut matches = fall_through;
            for pattern in &item.patterns {
                if matches {
                    break;
                }
                let pattern = match self.expand_to_pattern(&pattern.value).await? {
                    Ok(pattern) => pattern,
                    Err(message) => return self.expansion_failed(&message).await,
                };
                matches = pattern_regex(&pattern, true).is_some_and(|regex| regex.is_match(&value));
            }
            if !matches {
                continue;
            }
            if let Some(list) = &item.cmd {
                code = self.run_list(list).await?;
            }
            match item.post_action {
                CaseItemPostAction::ExitCase => return Ok(code),
                CaseItemPostAction::UnconditionallyExecuteNextCaseItem => fall_through = true,
                CaseItemPostAction::ContinueEvaluatingCases => fall_through = false,
            }
        }
        Ok(code)
    }

    /// Calls a function: its arguments are the positional parameters, and its `local` variables end with it.
    pub(super) async fn call(&mut self, body: Arc<FunctionBody>, arguments: Vec<String>) -> Status {
        let positional = std::mem::replace(&mut self.positional, arguments);
        self.scopes.push(std::collections::BTreeMap::new());
        let status = Box::pin(self.run_redirected(&body.0, body.1.as_ref())).await;
        for (name, hidden) in self.scopes.pop().unwrap_or_default() {
            match hidden {
                Some(variable) => drop(self.variables.insert(name, variable)),
                None => drop(self.variables.remove(&name)),
            }
        }
        self.positional = positional;
        match status {
            Err(Flow::Return(code)) => Ok(code),
            status => status,
        }
    }
}

enum Leave {
    Loop,
    Turn,
}

/// What `break N` and `continue N` mean to the innermost loop; an outer one gets the rest.
fn leave_loop(flow: Flow) -> Result<Leave, Flow> {
    match flow {
        Flow::Break(1) => Ok(Leave::Loop),
        Flow::Break(levels) => Err(Flow::Break(levels - 1)),
        Flow::Continue(1) => Ok(Leave::Turn),
        Flow::Continue(levels) => Err(Flow::Continue(levels - 1)),
        flow => Err(flow),
    }
}
