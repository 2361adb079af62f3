//! The terminal UI: the loop between keys, saved files, checks and the screen.

mod app;
mod markdown;
#[cfg(test)]
mod tests;
mod view;

use std::io::Write;
use std::path::PathBuf;

use base64::Engine;
use crossterm::event::{Event, EventStream, KeyEventKind};
use futures::StreamExt;
use meshlab_checks::{CheckResult, Lab, Prober, Step};
use tokio::sync::mpsc;

pub(crate) use markdown::commands;

use crate::error::CommandError;
use crate::home::Home;
use crate::progress::Progress;
use crate::{apply, steps, watch};
use app::{Action, App, Overlay};

/// What happens besides keys.
enum Happening {
    /// A check of this run ended; runs are numbered, and those of an older one are not shown.
    Checked(u64, Box<CheckResult>),
    /// A command of the text, or an action on the cluster, ended: show this.
    Output(String),
    /// An action on the cluster succeeded: say this, and check.
    Changed(String),
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

/// Runs the UI until the learner leaves.
///
/// # Errors
/// The terminal cannot be used.
pub(crate) async fn run(lab: Lab, progress: Progress, surroundings: Surroundings, colour: bool) -> Result<(), CommandError> {
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
}

impl Loop {
    fn new(lab: Lab, progress: Progress, surroundings: Surroundings, colour: bool) -> Self {
        Self { app: App::new(lab, progress, colour), surroundings, happenings: mpsc::channel(256), round: 0, checking: None }
    }

    async fn run(mut self, terminal: &mut ratatui::DefaultTerminal) -> Result<(), CommandError> {
        let mut saves = watch::saves(&self.app.progress.workdir)?;
        let mut keys = EventStream::new();
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
                Some(()) = saves.recv() => Some(Action::Check),
                Some(happening) = self.happenings.1.recv() => self.happened(happening),
            };
            match action {
                Some(Action::Quit) => return Ok(()),
                Some(action) => self.act(action)?,
                None => {}
            }
        }
    }

    fn happened(&mut self, happening: Happening) -> Option<Action> {
        match happening {
            Happening::Checked(round, result) if round == self.round => self.app.ended(*result),
            Happening::Checked(..) => None,
            Happening::Output(text) => {
                self.app.overlay = Some(Overlay::Output(text));
                self.app.overlay_scroll = 0;
                None
            }
            Happening::Changed(text) => {
                self.app.message = text;
                Some(Action::Check)
            }
        }
    }

    fn act(&mut self, action: Action) -> Result<(), CommandError> {
        match action {
            Action::Quit => {}
            Action::Check => self.check(),
            Action::Save => self.app.progress.save(&self.surroundings.home)?,
            Action::Run(command) => {
                self.spawn(run_command(command, self.app.progress.workdir.clone(), self.surroundings.environment.clone()))
            }
            Action::Copy(text) => copy(&text),
            Action::Apply => {
                let (client, workdir, step) = self.target();
                self.spawn(async move { outcome(apply_files(&client, workdir, &step).await, "✓ apply") });
            }
            Action::Solve => {
                let (client, workdir, step) = self.target();
                self.spawn(async move { outcome(steps::solve(&client, &workdir, &step).await, "✓ solve") });
            }
            Action::Reset => {
                let (client, workdir, step) = self.target();
                self.spawn(async move { outcome(steps::reset(&client, &workdir, &step).await, "✓ reset") });
            }
        }
        Ok(())
    }

    fn target(&self) -> (kube::Client, PathBuf, Step) {
        (self.surroundings.client.clone(), self.app.progress.workdir.clone(), self.app.step().clone())
    }

    fn spawn(&self, work: impl Future<Output = Happening> + Send + 'static) {
        let sender = self.happenings.0.clone();
        tokio::spawn(async move {
            // The UI is gone: nobody to tell.
            let _ = sender.send(work.await).await;
        });
    }

    /// Proves the step; a run under way is given up, since what it looked at has changed.
    fn check(&mut self) {
        if let Some(running) = self.checking.take() {
            running.abort();
        }
        self.round += 1;
        self.app.started();
        let (round, sender) = (self.round, self.happenings.0.clone());
        let step = self.app.step();
        let checks: Vec<_> = step.checks.iter().map(|check| (step.file.id.clone(), check.clone())).collect();
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

fn outcome(result: Result<(), CommandError>, done: &str) -> Happening {
    match result {
        Ok(()) => Happening::Changed(done.to_owned()),
        Err(error) => Happening::Output(error.to_string()),
    }
}

async fn apply_files(client: &kube::Client, workdir: PathBuf, step: &Step) -> Result<(), CommandError> {
    let mut objects = Vec::new();
    for name in &step.file.files {
        let path = workdir.join(name);
        let yaml = std::fs::read_to_string(&path).map_err(|error| CommandError::io(&path, &error))?;
        objects.extend(apply::documents(name, &yaml)?);
    }
    apply::apply(client, &objects).await
}

async fn run_command(command: String, workdir: PathBuf, environment: Vec<(String, String)>) -> Happening {
    let output = tokio::process::Command::new("sh")
        .arg("-c")
        .arg(&command)
        .current_dir(workdir)
        .envs(environment)
        .kill_on_drop(true)
        .output()
        .await;
    let text = match output {
        Ok(output) => [&output.stdout[..], &output.stderr[..]].map(String::from_utf8_lossy).concat(),
        Err(error) => format!("sh: {error}"),
    };
    Happening::Output(format!("$ {}\n\n{text}", command.trim_end()))
}

/// Copies through the terminal (OSC 52), so that it also works over ssh.
fn copy(text: &str) {
    let encoded = base64::engine::general_purpose::STANDARD.encode(text);
    let _ = write!(std::io::stdout(), "\x1b]52;c;{encoded}\x07");
    let _ = std::io::stdout().flush();
}
