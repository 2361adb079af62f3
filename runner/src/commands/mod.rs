//! One file a command, or a few that belong together.

mod analyze;
mod check;
mod course;
mod dashboard;
mod doctor;
mod explain;
mod grade;
mod lab;
mod lifecycle;
pub(crate) mod mesh;
mod progress;
mod proxy;
mod traffic;

use std::ffi::OsString;
use std::time::Instant;

use clap::CommandFactory;
use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};
use meshlab_checks::{Lab, Language};

use crate::cli::{Cli, Command, Passed};
use crate::control::{self, Request, Status};
use crate::error::{CommandError, Exit, Hint};
use crate::home::Home;
use crate::kubectl;
use crate::labs;
use crate::progress::Progress;

/// Runs one command.
pub(crate) async fn run(cli: Cli, started: Instant) -> Result<Exit, CommandError> {
    if let Command::Completions { shell } = cli.command {
        clap_complete::generate(shell, &mut Cli::command(), "meshlab", &mut std::io::stdout());
        return Ok(Exit::Ok);
    }
    match &cli.command {
        Command::Lab { command } => return lab::run(command, &cli).await,
        Command::Grade(args) => return grade::run(args, &cli).await,
        Command::Progress { command } => return progress::run(command, &cli).await,
        Command::Proxy(passed) => return mesh::agent(with("proxy", passed)).await,
        Command::ControlPlane(passed) => return mesh::discovery(with("discovery", passed)).await,
        _ => {}
    }
    let root = Home::open(cli.home.clone())?;
    if let Some((verb, passed)) = kubectl_command(&cli.command) {
        return kubectl_on_lab(&root.current()?, verb, passed).await;
    }
    let home = match &cli.command {
        Command::Start { lab: Some(name), .. } => lifecycle::switch(&root, name, cli.labs.as_deref()).await?,
        _ => root.current()?,
    };
    let progress = Progress::load(&home)?;
    let asked = if let Command::Start { lab, .. } = &cli.command { lab.as_deref() } else { None };
    let name = asked.or(progress.as_ref().map(|progress| progress.lab.as_str())).unwrap_or(labs::DEFAULT);
    let folder = cli.labs.clone().or_else(|| progress.as_ref().and_then(|progress| progress.labs.clone()));
    let lab = labs::load(name, folder.as_deref())?;
    let language = language(&cli, progress.as_ref());
    let session = Session { home, lab, language, progress, labs: folder };
    match cli.command {
        Command::Start { workdir, no_ui, cluster, .. } => lifecycle::start(session, workdir, no_ui, cluster).await,
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
        Command::Explain(args) => explain::run(&session, &args).await,
        Command::Dashboard(args) => dashboard::run(&session, &args).await,
        Command::Analyze(args) => analyze::run(&session, &args).await,
        Command::ProxyStatus { output } => proxy::status(&session, output).await,
        Command::ProxyConfig(args) => proxy::config(&session, &args).await,
        Command::Doctor => doctor::run(&session).await,
        // All others were answered above.
        _ => Ok(Exit::Ok),
    }
}

/// `--lang`, or the language of the last start, or the locale's.
fn language(cli: &Cli, progress: Option<&Progress>) -> Language {
    cli.lang.or(progress.map(|progress| progress.language)).unwrap_or_else(language_of_locale)
}

/// A command of another program, and what it was given.
fn with(command: &str, passed: &Passed) -> impl Iterator<Item = OsString> {
    [command.into()].into_iter().chain(passed.arguments.clone())
}

/// The verb of a command that is kubectl's, and what it was given.
fn kubectl_command(command: &Command) -> Option<(Option<&'static str>, &Passed)> {
    Some(match command {
        Command::Kubectl(passed) => (None, passed),
        Command::Apply(passed) => (Some("apply"), passed),
        Command::Get(passed) => (Some("get"), passed),
        Command::Describe(passed) => (Some("describe"), passed),
        Command::Delete(passed) => (Some("delete"), passed),
        Command::Logs(passed) => (Some("logs"), passed),
        Command::Exec(passed) => (Some("exec"), passed),
        Command::Label(passed) => (Some("label"), passed),
        Command::Annotate(passed) => (Some("annotate"), passed),
        Command::Rollout(passed) => (Some("rollout"), passed),
        Command::Scale(passed) => (Some("scale"), passed),
        Command::Create(passed) => (Some("create"), passed),
        Command::Patch(passed) => (Some("patch"), passed),
        Command::Wait(passed) => (Some("wait"), passed),
        Command::PortForward(passed) => (Some("port-forward"), passed),
        _ => return None,
    })
}

/// kubectl on the running lab, whatever `KUBECONFIG` says: `meshlab apply` must not reach another cluster.
async fn kubectl_on_lab(home: &Home, verb: Option<&str>, passed: &Passed) -> Result<Exit, CommandError> {
    let wants_help = passed.arguments.iter().any(|argument| argument == "--help" || argument == "-h");
    if !wants_help && control::ask(home, &Request::Status).await?.is_none() {
        return Err(CommandError::not_running());
    }
    let arguments = ["kubectl"].into_iter().chain(verb).map(OsString::from).chain(passed.arguments.iter().cloned());
    kubectl::run(arguments, &home.kubeconfig(), false).await
}

/// The program was called as `kubectl`.
pub(crate) async fn kubectl_alone() -> Result<Exit, CommandError> {
    let home = Home::open(std::env::var_os("MESHLAB_HOME").map(Into::into))?.current()?;
    let arguments = ["kubectl".into()].into_iter().chain(std::env::args_os().skip(1));
    kubectl::run(arguments, &home.kubeconfig(), true).await
}

/// What every command works with.
pub(crate) struct Session {
    home: Home,
    lab: Lab,
    language: Language,
    progress: Option<Progress>,
    /// The folder that the lab is from, if it is not compiled in.
    labs: Option<std::path::PathBuf>,
}

impl Session {
    /// How far the learner is, who must have started.
    fn progress(&self) -> Result<&Progress, CommandError> {
        self.progress.as_ref().ok_or_else(CommandError::not_running)
    }

    fn progress_mut(&mut self) -> Result<&mut Progress, CommandError> {
        self.progress.as_mut().ok_or_else(CommandError::not_running)
    }

    /// What is running.
    async fn status(&self) -> Result<Status, CommandError> {
        control::ask(&self.home, &Request::Status).await?.ok_or_else(CommandError::not_running)
    }

    /// A client for the running lab.
    async fn client(&self) -> Result<Client, CommandError> {
        self.status().await?;
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

fn language_of_locale() -> Language {
    let locale =
        ["LC_ALL", "LC_MESSAGES", "LANG"].iter().find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()));
    Language::from_locale(&locale.unwrap_or_default())
}
