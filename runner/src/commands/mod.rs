//! One file a command, or a few that belong together.

mod check;
mod course;
mod doctor;
mod lab;
mod lifecycle;
mod traffic;

use std::io::Write;
use std::time::Instant;

use clap::CommandFactory;
use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};
use meshlab_checks::{Lab, Language};

use crate::cli::{Cli, Command};
use crate::error::{CommandError, Exit, Hint};
use crate::home::Home;
use crate::labs;
use crate::progress::Progress;

/// Runs one command.
pub(crate) async fn run(cli: Cli, started: Instant) -> Result<Exit, CommandError> {
    if let Command::Completions { shell } = cli.command {
        clap_complete::generate(shell, &mut Cli::command(), "meshlab", &mut std::io::stdout());
        return Ok(Exit::Ok);
    }
    let home = Home::open(cli.home.clone())?;
    if let Command::Lab { command } = &cli.command {
        return lab::run(command, &cli).await;
    }
    let progress = Progress::load(&home)?;
    let name = progress.as_ref().map_or(labs::DEFAULT, |progress| progress.lab.as_str());
    let lab = labs::load(name, cli.labs.as_deref())?;
    let language = cli.lang.or(progress.as_ref().map(|progress| progress.language)).unwrap_or_else(language_of_locale);
    let session = Session { home, lab, language, progress };
    match cli.command {
        Command::Start { workdir, no_ui } => lifecycle::start(session, workdir, no_ui, cli.labs).await,
        Command::Serve => lifecycle::serve(session, started).await,
        Command::Status => lifecycle::status(session).await,
        Command::Stop => lifecycle::stop(session).await,
        Command::Env => lifecycle::env(&session),
        Command::Reset { step } => course::reset(session, step).await,
        Command::List => course::list(&session),
        Command::Show { step } => course::show(&session, step),
        Command::Next => course::go(session, 1),
        Command::Prev => course::go(session, -1),
        Command::Hint => course::hint(session),
        Command::Solve { apply } => course::solve(session, apply).await,
        Command::Check { names, watch, output } => check::run(session, &names, watch, output).await,
        Command::Traffic(args) => traffic::run(&session, &args).await,
        Command::Doctor => doctor::run(&session).await,
        Command::Lab { .. } | Command::Completions { .. } => Ok(Exit::Ok),
    }
}

/// What every command works with.
pub(crate) struct Session {
    home: Home,
    lab: Lab,
    language: Language,
    progress: Option<Progress>,
}

impl Session {
    /// How far the learner is, who must have started.
    fn progress(&self) -> Result<&Progress, CommandError> {
        self.progress.as_ref().ok_or_else(CommandError::not_running)
    }

    fn progress_mut(&mut self) -> Result<&mut Progress, CommandError> {
        self.progress.as_mut().ok_or_else(CommandError::not_running)
    }

    /// A client for the running lab.
    async fn client(&self) -> Result<Client, CommandError> {
        if crate::control::ask(&self.home, &crate::control::Request::Status).await?.is_none() {
            return Err(CommandError::not_running());
        }
        let broken = |error: String| CommandError::failed(format!("{}: {error}", self.home.kubeconfig().display()));
        let kubeconfig = Kubeconfig::read_from(self.home.kubeconfig()).map_err(|error| broken(error.to_string()))?;
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
        let config = config.map_err(|error| broken(error.to_string()))?;
        Ok(Client::try_from(config)?)
    }

    /// A step by name, or the current one.
    fn step(&self, name: Option<&str>) -> Result<&meshlab_checks::Step, CommandError> {
        match name {
            None => Ok(self.progress()?.current(&self.lab)),
            Some(name) => self.lab.step(name).ok_or_else(|| {
                let steps: Vec<&str> = self.lab.steps.iter().map(|step| step.file.id.as_str()).collect();
                CommandError::usage(format!("there is no step {name:?}"))
                    .with_hint(Hint::new(format!("steps: {}", steps.join(", "))))
            }),
        }
    }
}

/// Writes to standard output; a reader that went away (`| head`) is no error.
fn print(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

fn language_of_locale() -> Language {
    let locale =
        ["LC_ALL", "LC_MESSAGES", "LANG"].iter().find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()));
    Language::from_locale(&locale.unwrap_or_default())
}
