//! `start`, `status`, `stop`, `env`, and the lab's own process.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use meshlab_checks::Language;
use tokio::io::{AsyncBufReadExt, BufReader};

use super::Session;
use crate::backend::{self, Backend};
use crate::control::{self, Request, Status};
use crate::error::{CommandError, Exit, Hint};
use crate::home::Home;
use crate::output::print;
use crate::progress::Progress;
use crate::ui::{self, Surroundings};
use crate::{labs, workdir};

/// How long a process that has closed its output may take to end.
const END_DEADLINE: Duration = Duration::from_secs(5);

/// Starts the lab's process in the background and waits until everything answers.
pub(super) async fn start(
    mut session: Session,
    workdir: Option<PathBuf>,
    no_ui: bool,
    cluster: Option<Backend>,
) -> Result<Exit, CommandError> {
    let workdir = match (workdir, &session.progress) {
        (Some(workdir), _) => std::path::absolute(&workdir).map_err(|error| CommandError::io(&workdir, &error))?,
        (None, Some(progress)) => progress.workdir.clone(),
        (None, None) => {
            let here = std::env::current_dir().map_err(|error| CommandError::failed(format!("current folder: {error}")))?;
            here.join(format!("meshlab-{}", session.lab.file.name))
        }
    };
    workdir::write_starters(&workdir, &session.lab)?;
    let mut progress = session.progress.take().unwrap_or_else(|| Progress::new(&session.lab, workdir.clone(), session.language));
    progress.workdir = workdir;
    progress.labs = match &session.labs {
        Some(labs) => Some(std::path::absolute(labs).map_err(|error| CommandError::io(labs, &error))?),
        None => None,
    };
    progress.language = session.language;
    progress.save(&session.home)?;
    session.progress = Some(progress);

    let status = match (control::ask(&session.home, &Request::Status).await?, cluster) {
        (Some(status), Some(wanted)) if !wanted.is(&status.cluster) => {
            return Err(CommandError::failed(format!("the lab runs already, on cluster {}", status.cluster))
                .with_hint(Hint::new("`meshlab stop` first")));
        }
        (Some(status), _) => status,
        (None, None | Some(Backend::Embedded)) => spawn(&session).await?,
        (None, Some(other)) => backend::start(&session.home, &session.lab, &other).await?,
    };
    if no_ui || !std::io::stdout().is_terminal() || !std::io::stdin().is_terminal() {
        print(&welcome(&session, &status)?);
        return Ok(Exit::Ok);
    }
    let surroundings =
        Surroundings { client: session.client().await?, environment: environment(&session)?, home: session.home.clone() };
    let colour = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    ui::run(session.lab.clone(), session.progress()?.clone(), surroundings, colour).await?;
    Ok(Exit::Ok)
}

/// Makes the lab `name` the one that commands are about, and returns its home.
pub(super) async fn switch(root: &Home, name: &str, labs: Option<&Path>) -> Result<Home, CommandError> {
    let here = root.current()?;
    let running = |home: &Home| -> Result<String, CommandError> {
        Ok(Progress::load(home)?.map_or_else(|| labs::DEFAULT.to_owned(), |progress| progress.lab))
    };
    let current = running(&here)?;
    if current == name {
        return Ok(here);
    }
    // A mistake in the name must not change anything.
    labs::load(name, labs)?;
    if control::ask(&here, &Request::Status).await?.is_some() {
        return Err(CommandError::failed(format!("lab {current} is running"))
            .with_hint(Hint::new(format!("`meshlab stop`, then `meshlab start {name}`; what you did in {current} is kept")))
            .with_hint(Hint::new("or run both, each with a --home of its own")));
    }
    root.set_current((name != labs::DEFAULT).then_some(name))
}

/// What a shell needs to work on the lab. Where the machine has no kubectl, the built-in one takes its place: last in PATH, so
/// that one that is installed later wins.
fn environment(session: &Session) -> Result<Vec<(String, String)>, CommandError> {
    let mut variables = vec![("KUBECONFIG".to_owned(), session.home.kubeconfig().display().to_string())];
    let path = std::env::var("PATH").unwrap_or_default();
    let program = std::env::current_exe().ok();
    let own = program.as_deref().and_then(Path::parent).map(|folder| folder.display().to_string());
    let shim = match &program {
        Some(program) => kubectl_shim(&session.home, program, &path)?.map(|folder| folder.display().to_string()),
        None => None,
    };
    let inherited: Vec<&str> = path.split(':').filter(|folder| shim.as_deref() != Some(folder)).collect();
    let folders: Vec<&str> = own
        .as_deref()
        .into_iter()
        .filter(|own| !inherited.contains(own))
        .chain(inherited.iter().copied())
        .chain(shim.as_deref())
        .collect();
    variables.push(("PATH".to_owned(), folders.join(":")));
    Ok(variables)
}

/// The folder with a link `kubectl` to this program, if there is no other kubectl in PATH.
fn kubectl_shim(home: &Home, program: &Path, path: &str) -> Result<Option<PathBuf>, CommandError> {
    let bin = home.bin();
    let link = bin.join("kubectl");
    let elsewhere = path.split(':').map(Path::new).filter(|folder| *folder != bin).any(|folder| folder.join("kubectl").is_file());
    if elsewhere {
        return Ok(None);
    }
    if std::fs::read_link(&link).is_ok_and(|target| target == program) {
        return Ok(Some(bin));
    }
    std::fs::create_dir_all(&bin).map_err(|error| CommandError::io(&bin, &error))?;
    // Left over from a program that has moved since.
    let _ = std::fs::remove_file(&link);
    std::os::unix::fs::symlink(program, &link).map_err(|error| CommandError::io(&link, &error))?;
    Ok(Some(bin))
}

/// Starts `meshlab serve`, which outlives this process and its terminal, and reads the one line that it prints when it is ready.
async fn spawn(session: &Session) -> Result<Status, CommandError> {
    let program =
        std::env::current_exe().map_err(|error| CommandError::failed(format!("meshlab does not find itself: {error}")))?;
    let log = session.home.log();
    let log_file = std::fs::File::create(&log).map_err(|error| CommandError::io(&log, &error))?;
    let mut command = tokio::process::Command::new(program);
    command.arg("--home").arg(session.home.path()).arg("--lang").arg(session.language.tag());
    if let Some(labs) = &session.labs {
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
    let process = status.pid.map(|pid| format!("process {pid}, ")).unwrap_or_default();
    let (done, all) = (progress.passed.len(), session.lab.steps.len());
    print(&format!(
        "lab          {} ({process}meshlab {})\ncluster      {}\nAPI server   {}\nkubeconfig   {}\ngateway      {}\nfiles        {}\nstep         {step}\npassed       {done}/{all}\n",
        status.lab,
        status.version,
        status.cluster,
        status.api_server,
        status.kubeconfig.display(),
        status.gateway.as_deref().unwrap_or("-"),
        progress.workdir.display(),
    ));
    Ok(Exit::Ok)
}

/// Stops the lab, keeping everything.
pub(super) async fn stop(session: Session) -> Result<Exit, CommandError> {
    let status = control::ask(&session.home, &Request::Stop).await?.ok_or_else(CommandError::not_running)?;
    if status.pid.is_none() {
        return leave(&session, &status);
    }
    control::wait_until_gone(&session.home).await?;
    print(match session.language {
        Language::En => "The lab is stopped. `meshlab start` resumes where you were.\n",
        Language::Ja => "ラボを停止しました。`meshlab start` で続きから再開できます。\n",
    });
    Ok(Exit::Ok)
}

/// Forgets another cluster, and leaves everything on it as it is.
fn leave(session: &Session, status: &Status) -> Result<Exit, CommandError> {
    let path = session.home.external();
    std::fs::remove_file(&path).map_err(|error| CommandError::io(&path, &error))?;
    let namespaces = session.lab.file.namespaces.join(" ");
    let removal = match status.cluster.as_str() {
        "kind" => "kind delete cluster --name meshlab".to_owned(),
        _ => format!("kubectl delete namespace istio-system {namespaces}"),
    };
    print(&match session.language {
        Language::En => format!("Cluster {} is left as it is. To take the lab off it: {removal}\n", status.cluster),
        Language::Ja => format!("クラスター {} はそのまま残してあります。ラボを取り除くには: {removal}\n", status.cluster),
    });
    Ok(Exit::Ok)
}

/// Shell commands for `eval`.
pub(super) fn env(session: &Session) -> Result<Exit, CommandError> {
    let quote = |text: &str| format!("'{}'", text.replace('\'', r"'\''"));
    for (name, value) in environment(session)? {
        print(&format!("export {name}={}\n", quote(&value)));
    }
    Ok(Exit::Ok)
}
