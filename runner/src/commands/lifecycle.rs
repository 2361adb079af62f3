//! `start`, `status`, `stop`, `env`, and the lab's own process.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use meshlab_checks::Language;
use tokio::io::{AsyncBufReadExt, BufReader};

use super::{Session, print};
use crate::control::{self, Request, Status};
use crate::error::{CommandError, Exit, Hint};
use crate::progress::Progress;
use crate::ui::{self, Surroundings};
use crate::{labs, steps};

/// How long a process that has closed its output may take to end.
const END_DEADLINE: Duration = Duration::from_secs(5);

/// Starts the lab's process in the background and waits until everything answers.
pub(super) async fn start(
    mut session: Session,
    workdir: Option<PathBuf>,
    no_ui: bool,
    labs: Option<PathBuf>,
) -> Result<Exit, CommandError> {
    let workdir = match (workdir, &session.progress) {
        (Some(workdir), _) => std::path::absolute(&workdir).map_err(|error| CommandError::io(&workdir, &error))?,
        (None, Some(progress)) => progress.workdir.clone(),
        (None, None) => {
            let here = std::env::current_dir().map_err(|error| CommandError::failed(format!("current folder: {error}")))?;
            here.join(format!("meshlab-{}", labs::DEFAULT))
        }
    };
    steps::write_starters(&workdir, &session.lab)?;
    let mut progress = session.progress.take().unwrap_or_else(|| Progress::new(&session.lab, workdir.clone(), session.language));
    progress.workdir = workdir;
    progress.language = session.language;
    progress.save(&session.home)?;
    session.progress = Some(progress);

    let status = match control::ask(&session.home, &Request::Status).await? {
        Some(status) => status,
        None => spawn(&session, labs).await?,
    };
    if no_ui || !std::io::stdout().is_terminal() || !std::io::stdin().is_terminal() {
        print(&welcome(&session, &status)?);
        return Ok(Exit::Ok);
    }
    let surroundings =
        Surroundings { client: session.client().await?, environment: environment(&session), home: session.home.clone() };
    let colour = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    ui::run(session.lab.clone(), session.progress()?.clone(), surroundings, colour).await?;
    Ok(Exit::Ok)
}

/// What a shell needs to work on the lab.
fn environment(session: &Session) -> Vec<(String, String)> {
    let mut variables = vec![("KUBECONFIG".to_owned(), session.home.kubeconfig().display().to_string())];
    if let Some(folder) = std::env::current_exe().ok().as_deref().and_then(std::path::Path::parent) {
        let path = std::env::var("PATH").unwrap_or_default();
        variables.push(("PATH".to_owned(), format!("{}:{path}", folder.display())));
    }
    variables
}

/// Starts `meshlab serve`, which outlives this process and its terminal, and reads the one line that it prints when it is ready.
async fn spawn(session: &Session, labs: Option<PathBuf>) -> Result<Status, CommandError> {
    let program =
        std::env::current_exe().map_err(|error| CommandError::failed(format!("meshlab does not find itself: {error}")))?;
    let log = session.home.log();
    let log_file = std::fs::File::create(&log).map_err(|error| CommandError::io(&log, &error))?;
    let mut command = tokio::process::Command::new(program);
    command.arg("--home").arg(session.home.path()).arg("--lang").arg(session.language.tag());
    if let Some(labs) = labs {
        command.arg("--labs").arg(labs);
    }
    // A process group of its own: Ctrl-C and a closed terminal do not reach it.
    command.arg("serve").process_group(0).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::from(log_file));
    let mut child =
        command.spawn().map_err(|error| CommandError::failed(format!("the lab's process does not start: {error}")))?;
    let mut line = String::new();
    if let Some(output) = child.stdout.take() {
        let _ = BufReader::new(output).read_line(&mut line).await;
    }
    if let Ok(status) = serde_json::from_str(&line) {
        return Ok(status);
    }
    let ended = match tokio::time::timeout(END_DEADLINE, child.wait()).await {
        Ok(Ok(status)) => format!("its process ended without a word ({status})"),
        Ok(Err(error)) => format!("its process is lost: {error}"),
        Err(_) => "its process closed its output but goes on".to_owned(),
    };
    let said = std::fs::read_to_string(&log).unwrap_or_default();
    let why = said.lines().rev().find_map(|line| line.strip_prefix("error: ")).unwrap_or(&ended);
    Err(CommandError::failed(format!("the lab did not start: {why}"))
        .with_hint(Hint::new(format!("the whole story is in {}", log.display()))))
}

fn welcome(session: &Session, status: &Status) -> Result<String, CommandError> {
    let progress = session.progress()?;
    let step = progress.current(&session.lab);
    let title = session.lab.file.title.get(session.language);
    let (step_title, files) = (step.file.title.get(session.language), progress.workdir.display());
    let gateway = status.gateway.as_deref().unwrap_or("-");
    let seconds = status.started_in_ms as f64 / 1000.0;
    Ok(match session.language {
        Language::En => format!(
            "{title} is running (up in {seconds:.2} s).\n\n  your files        {files}\n  ingress gateway   http://{gateway}\n  \
             kubectl           eval \"$(meshlab env)\"\n\nNow: {step_title}\n  meshlab show      read the step\n  \
             meshlab check     prove it\n  meshlab hint      get a nudge\n"
        ),
        Language::Ja => format!(
            "{title} が起動しました（{seconds:.2} 秒）。\n\n  作業ファイル          {files}\n  Ingress Gateway       http://{gateway}\n  \
             kubectl の設定        eval \"$(meshlab env)\"\n\n現在のステップ: {step_title}\n  meshlab show          本文を読む\n  \
             meshlab check         検証する\n  meshlab hint          ヒントを見る\n"
        ),
    })
}

/// The lab's own process.
pub(super) async fn serve(session: Session, started: Instant) -> Result<Exit, CommandError> {
    let filter = tracing_subscriber::EnvFilter::try_from_env("MESHLAB_LOG").unwrap_or_else(|_| "info,kube=warn".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
    crate::serve::serve(&session.home, &session.lab, started, |status| {
        if let Ok(line) = serde_json::to_string(status) {
            print(&format!("{line}\n"));
        }
    })
    .await?;
    Ok(Exit::Ok)
}

/// What runs, and how far the learner is.
pub(super) async fn status(session: Session) -> Result<Exit, CommandError> {
    let status = control::ask(&session.home, &Request::Status).await?.ok_or_else(CommandError::not_running)?;
    let progress = session.progress()?;
    let step = progress.current(&session.lab).file.title.get(session.language);
    let (done, all) = (progress.passed.len(), session.lab.steps.len());
    print(&format!(
        "lab          {} (process {}, meshlab {})\nAPI server   {}\nkubeconfig   {}\ngateway      {}\nfiles        {}\nstep         {step}\npassed       {done}/{all}\n",
        status.lab,
        status.pid,
        status.version,
        status.api_server,
        status.kubeconfig.display(),
        status.gateway.as_deref().unwrap_or("-"),
        progress.workdir.display(),
    ));
    Ok(Exit::Ok)
}

/// Stops the lab, keeping everything.
pub(super) async fn stop(session: Session) -> Result<Exit, CommandError> {
    if control::ask(&session.home, &Request::Stop).await?.is_none() {
        return Err(CommandError::not_running());
    }
    control::wait_until_gone(&session.home).await?;
    print(match session.language {
        Language::En => "The lab is stopped. `meshlab start` resumes where you were.\n",
        Language::Ja => "ラボを停止しました。`meshlab start` で続きから再開できます。\n",
    });
    Ok(Exit::Ok)
}

/// Shell commands for `eval`.
pub(super) fn env(session: &Session) -> Result<Exit, CommandError> {
    let quote = |path: &std::path::Path| format!("'{}'", path.display().to_string().replace('\'', r"'\''"));
    let mut text = format!("export KUBECONFIG={}\n", quote(&session.home.kubeconfig()));
    if let Some(folder) = std::env::current_exe().ok().as_deref().and_then(std::path::Path::parent) {
        text.push_str(&format!("export PATH={}:\"$PATH\"\n", quote(folder)));
    }
    print(&text);
    Ok(Exit::Ok)
}
