//! The terminal UI: the loop between keys, saved files, a changing cluster, checks and the screen.

mod app;
mod cluster;
mod markdown;
mod plain;
mod table;
#[cfg(test)]
mod tests;
mod theme;
mod view;
mod words;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use base64::Engine;
use crossterm::event::{Event, EventStream, KeyEventKind};
use futures::StreamExt;
use meshlab_checks::{Check, CheckResult, Lab, Prober, Step};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::sync::mpsc;

use crate::error::CommandError;
use crate::home::Home;
use crate::progress::Progress;
use crate::{apply, steps, watch, workdir};
use app::{Action, App};
use theme::Theme;
use words::word;

/// While something is under way, its bar moves this often.
const TICK: Duration = Duration::from_millis(120);

/// What happens besides keys.
enum Happening {
    /// A check of this run ended; runs are numbered, and those of an older one are not shown.
    Checked(u64, Box<CheckResult>),
    /// A command of the text prints a line.
    Printed(String),
    /// A command of the text ended.
    Ended,
    /// An action on the cluster succeeded: say this, and check.
    Changed(String),
    /// An action failed: show why.
    Failed(String),
}

/// What the UI works on.
pub(crate) struct Surroundings {
    /// State folder.
    pub(crate) home: Home,
    /// A client for the running lab.
    pub(crate) client: kube::Client,
    /// Environment of the commands of the text: KUBECONFIG and PATH.
    pub(crate) environment: Vec<(String, String)>,
}

/// Runs the UI until the learner leaves: the plain one where it is asked for or the terminal can do no more.
///
/// # Errors
/// The terminal cannot be used.
pub(crate) async fn run(lab: Lab, progress: Progress, surroundings: Surroundings, colour: bool) -> Result<(), CommandError> {
    if plain::is_wanted() {
        return plain::run(lab, progress, surroundings).await;
    }
    let mut terminal =
        ratatui::try_init().map_err(|error| CommandError::failed(format!("this terminal cannot be used: {error}")))?;
    let result = Loop::new(lab, progress, surroundings, colour).run(&mut terminal).await;
    ratatui::restore();
    result
}

struct Loop {
    app: App,
    surroundings: Surroundings,
    happenings: (mpsc::Sender<Happening>, mpsc::Receiver<Happening>),
    round: u64,
    checking: Option<tokio::task::JoinHandle<()>>,
    working: Option<tokio::task::JoinHandle<()>>,
}

impl Loop {
    fn new(lab: Lab, progress: Progress, surroundings: Surroundings, colour: bool) -> Self {
        let theme = if colour { Theme::Dark } else { Theme::Mono };
        let app = App::new(lab, progress, theme);
        Self { app, surroundings, happenings: mpsc::channel(256), round: 0, checking: None, working: None }
    }

    async fn run(mut self, terminal: &mut ratatui::DefaultTerminal) -> Result<(), CommandError> {
        let mut saves = watch::saves(&self.app.progress.workdir)?;
        let mut changes = cluster::changes(self.surroundings.client.clone(), &self.app.lab);
        let mut keys = EventStream::new();
        let mut tick = tokio::time::interval(TICK);
        self.check();
        loop {
            terminal
                .draw(|frame| view::draw(frame, &mut self.app))
                .map_err(|error| CommandError::failed(format!("the terminal went away: {error}")))?;
            let action = tokio::select! {
                event = keys.next() => match event {
                    Some(Ok(Event::Key(key))) if key.kind == KeyEventKind::Press => self.app.key(key),
                    Some(Ok(_)) => None,
                    Some(Err(_)) | None => return Ok(()),
                },
                Some(()) = saves.recv() => self.saved(),
                Some(()) = changes.recv() => Some(Action::Check),
                Some(happening) = self.happenings.1.recv() => self.happened(happening),
                _ = tick.tick(), if self.app.busy.is_some() => None,
            };
            match action {
                Some(Action::Quit) => return Ok(()),
                Some(action) => self.act(action)?,
                None => {}
            }
        }
    }

    /// A file was saved: one that is no YAML is told of at once, with its line.
    fn saved(&mut self) -> Option<Action> {
        if let Err(error) = read_files(&self.app.progress.workdir, self.app.step()) {
            self.app.message = error.message;
        }
        Some(Action::Check)
    }

    fn happened(&mut self, happening: Happening) -> Option<Action> {
        match happening {
            Happening::Checked(round, result) if round == self.round => return self.app.ended(*result),
            Happening::Checked(..) => return None,
            Happening::Printed(line) => self.app.print(line),
            Happening::Ended => self.app.busy = None,
            Happening::Changed(text) => {
                self.app.busy = None;
                self.app.message = text;
                return Some(Action::Check);
            }
            Happening::Failed(text) => {
                self.app.busy = None;
                self.app.show_output(&text);
            }
        }
        None
    }

    fn act(&mut self, action: Action) -> Result<(), CommandError> {
        match action {
            Action::Quit | Action::Interrupt => self.interrupt(),
            Action::Check => self.check(),
            Action::Save => self.app.progress.save(&self.surroundings.home)?,
            Action::Turn => {
                self.app.progress.save(&self.surroundings.home)?;
                self.check();
            }
            Action::Run(command) => self.run_command(&command),
            Action::Copy(text) => {
                copy(&text);
                self.app.message = word(self.app.language(), "✓ copied", "✓ コピーしました").to_owned();
            }
            Action::Write(name, content) => self.write(&name, &content),
            Action::Apply => {
                let (client, workdir, step) = self.target();
                self.work("apply", async move { outcome(apply_files(&client, &workdir, &step).await, "✓ apply") });
            }
            Action::Solve => {
                let (client, workdir, step) = self.target();
                self.work("solve", async move { outcome(steps::solve(&client, &workdir, &step).await, "✓ solve") });
            }
            Action::Reset => {
                let (client, workdir, step) = self.target();
                self.work("reset", async move { outcome(steps::reset(&client, &workdir, &step).await, "✓ reset") });
            }
        }
        Ok(())
    }

    fn target(&self) -> (kube::Client, PathBuf, Step) {
        (self.surroundings.client.clone(), self.app.progress.workdir.clone(), self.app.step().clone())
    }

    /// Does something in the background, one thing at a time.
    fn work(&mut self, what: &str, work: impl Future<Output = Happening> + Send + 'static) {
        if self.app.busy.is_some() {
            return;
        }
        self.app.begin(what);
        let sender = self.happenings.0.clone();
        self.working = Some(tokio::spawn(async move {
            // The UI is gone: nobody to tell.
            let _ = sender.send(work.await).await;
        }));
    }

    /// Gives up what is under way; a command of the text is ended with it.
    fn interrupt(&mut self) {
        if let Some(working) = self.working.take() {
            working.abort();
        }
        self.app.busy = None;
    }

    fn run_command(&mut self, command: &str) {
        if self.app.busy.is_some() {
            return;
        }
        self.app.show_output(&format!("$ {}\n ", command.trim_end()));
        let (workdir, environment, sender) =
            (self.app.progress.workdir.clone(), self.surroundings.environment.clone(), self.happenings.0.clone());
        let owned = command.to_owned();
        self.work(command, async move {
            if let Err(error) = stream_command(&owned, &workdir, environment, &sender).await {
                let _ = sender.send(Happening::Printed(format!("sh: {error}"))).await;
            }
            Happening::Ended
        });
    }

    fn write(&mut self, name: &str, content: &str) {
        let path = self.app.progress.workdir.join(name);
        self.app.message = match workdir::replace(&self.app.progress.workdir, name, content) {
            Ok(()) => format!("✓ {}", path.display()),
            Err(error) => error.message,
        };
    }

    /// Proves the step; a run under way is given up, since what it looked at has changed.
    fn check(&mut self) {
        if let Some(running) = self.checking.take() {
            running.abort();
        }
        self.round += 1;
        self.app.started();
        let (round, sender) = (self.round, self.happenings.0.clone());
        let checks = checks_of(self.app.step());
        let prober = Prober::new(self.surroundings.client.clone(), self.app.lab.file.clients.clone());
        let lab = self.app.lab.file.name.clone();
        self.checking = Some(tokio::spawn(async move {
            meshlab_checks::run(&lab, &prober, &checks, |result| {
                // A full channel means that the screen lags far behind; the next run shows what is missed.
                let _ = sender.try_send(Happening::Checked(round, Box::new(result.clone())));
            })
            .await;
        }));
    }
}

fn checks_of(step: &Step) -> Vec<(String, Check)> {
    step.checks.iter().map(|check| (step.file.id.clone(), check.clone())).collect()
}

fn outcome(result: Result<(), CommandError>, done: &str) -> Happening {
    match result {
        Ok(()) => Happening::Changed(done.to_owned()),
        Err(error) => Happening::Failed(error.to_string()),
    }
}

/// The objects of the learner's files of a step.
fn read_files(workdir: &Path, step: &Step) -> Result<Vec<serde_json::Value>, CommandError> {
    let mut objects = Vec::new();
    for name in &step.file.files {
        let path = workdir.join(name);
        let yaml = std::fs::read_to_string(&path).map_err(|error| CommandError::io(&path, &error))?;
        objects.extend(apply::documents(name, &yaml)?);
    }
    Ok(objects)
}

async fn apply_files(client: &kube::Client, workdir: &Path, step: &Step) -> Result<(), CommandError> {
    apply::apply(client, &read_files(workdir, step)?).await
}

/// Runs a command in a shell, and says each line that it prints, on either stream. Whoever drops this ends the command.
async fn stream_command(
    command: &str,
    workdir: &Path,
    environment: Vec<(String, String)>,
    sender: &mpsc::Sender<Happening>,
) -> std::io::Result<()> {
    let mut child = tokio::process::Command::new("sh")
        .args(["-c", &format!("exec 2>&1\n{command}")])
        .current_dir(workdir)
        .envs(environment)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    if let Some(output) = child.stdout.take() {
        let mut output = BufReader::new(output);
        let mut line = Vec::new();
        while output.read_until(b'\n', &mut line).await? > 0 {
            let text = String::from_utf8_lossy(&line).trim_end().replace('\t', "    ");
            if sender.send(Happening::Printed(text)).await.is_err() {
                break;
            }
            line.clear();
        }
    }
    child.wait().await?;
    Ok(())
}

/// Copies through the terminal (OSC 52), so that it also works over ssh.
fn copy(text: &str) {
    let encoded = base64::engine::general_purpose::STANDARD.encode(text);
    let _ = write!(std::io::stdout(), "\x1b]52;c;{encoded}\x07");
    let _ = std::io::stdout().flush();
}
