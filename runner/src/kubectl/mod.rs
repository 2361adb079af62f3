//! The everyday part of kubectl, for machines that have none: the same words on the command line and on the screen.
//!
//! What it does not know it refuses by name. `apply` merges on the server (as `kubectl apply --server-side` does).

mod apply;
mod change;
mod cli;
mod create;
mod describe;
mod exec;
mod get;
mod jsonpath;
mod logs;
mod pods;
mod port_forward;
mod resources;
mod rest;
mod rollout;
mod table;
mod targets;
mod wait;

use std::ffi::OsString;
use std::path::Path;

use clap::Parser;
use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};

pub(crate) use self::exec::capture;
pub(crate) use self::pods::pod_of;
pub(crate) use self::port_forward::{Forward, forward};
pub(crate) use self::rest::Failure;

use self::cli::{Kubectl, Rollout, Verb};
use self::resources::Resources;
use self::rest::Rest;
use self::table::columns;
use crate::error::{CommandError, Exit};
use crate::output::{complain, print};

/// How one command went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Well.
    Done,
    /// Not well, which was said already.
    Failed,
    /// The command that was run in a container ended with this.
    Exited(u8),
}

/// What every command works with.
pub(crate) struct Session {
    pub(crate) rest: Rest,
    pub(crate) resources: Resources,
    /// Where objects are looked for.
    pub(crate) namespace: String,
    /// What `-n` said.
    asked_namespace: Option<String>,
}

impl Session {
    /// A session with the default namespace.
    pub(crate) async fn new(client: Client, namespace: Option<String>) -> Result<Self, Failure> {
        let resources = Resources::discover(&client).await?;
        let default = namespace.clone().unwrap_or_else(|| client.default_namespace().to_owned());
        Ok(Self { rest: Rest(client), resources, namespace: default, asked_namespace: namespace })
    }

    /// The client behind it.
    pub(crate) fn client(&self) -> Client {
        self.rest.0.clone()
    }
}

/// Runs a kubectl command line, its own name first. The lab's kubeconfig is `default`, unless the arguments name another or,
/// where `environment` allows it, `KUBECONFIG` does.
pub(crate) async fn run(
    arguments: impl IntoIterator<Item = OsString>,
    default: &Path,
    environment: bool,
) -> Result<Exit, CommandError> {
    let kubectl = match Kubectl::try_parse_from(arguments) {
        Ok(kubectl) => kubectl,
        Err(error) => {
            // Help and version are errors to clap, and go to standard output.
            let _ = error.print();
            return Ok(if error.use_stderr() { Exit::Usage } else { Exit::Ok });
        }
    };
    if let Verb::Version { client: true } = kubectl.verb {
        print(CLIENT_VERSION);
        return Ok(Exit::Ok);
    }
    let client = client(&kubectl, default, environment).await?;
    let result = match Session::new(client, kubectl.namespace.clone()).await {
        Ok(session) => dispatch(&session, &kubectl.verb).await,
        Err(failure) => Err(failure),
    };
    Ok(match result {
        Ok(Step::Done) => Exit::Ok,
        Ok(Step::Failed) => Exit::Failed,
        Ok(Step::Exited(code)) => Exit::Command(code),
        Err(failure) => {
            complain(&format!("{failure}\n"));
            Exit::Failed
        }
    })
}

async fn client(kubectl: &Kubectl, default: &Path, environment: bool) -> Result<Client, CommandError> {
    let from_environment = || std::env::var_os("KUBECONFIG").filter(|value| environment && !value.is_empty()).map(Into::into);
    let path = kubectl.kubeconfig.clone().or_else(from_environment).unwrap_or_else(|| default.to_owned());
    if !path.exists() && path == default {
        return Err(CommandError::not_running());
    }
    let broken = |error: String| CommandError::failed(format!("{}: {error}", path.display()));
    let kubeconfig = Kubeconfig::read_from(&path).map_err(|error| broken(error.to_string()))?;
    let options = KubeConfigOptions { context: kubectl.context.clone(), ..KubeConfigOptions::default() };
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(|error| broken(error.to_string()))?;
    Ok(Client::try_from(config)?)
}

async fn dispatch(session: &Session, verb: &Verb) -> Result<Step, Failure> {
    match verb {
        Verb::Get(args) => get::run(session, args).await,
        Verb::Describe(args) => describe::run(session, args).await,
        Verb::Apply(args) => apply::run(session, args).await,
        Verb::Create(args) => create::run(session, args).await,
        Verb::Delete(args) => change::delete(session, args).await,
        Verb::Label(args) => change::mark(session, args, "labels").await,
        Verb::Annotate(args) => change::mark(session, args, "annotations").await,
        Verb::Patch(args) => change::patch(session, args).await,
        Verb::Scale(args) => change::scale(session, args).await,
        Verb::Rollout { verb: Rollout::Restart { what, select } } => rollout::restart(session, what, select).await,
        Verb::Rollout { verb: Rollout::Status { what, select, timeout, watch } } => {
            rollout::status(session, what, select, *timeout, *watch).await
        }
        Verb::Wait(args) => wait::run(session, args).await,
        Verb::Logs(args) => logs::run(session, args).await,
        Verb::Exec(args) => exec::run(session, args).await,
        Verb::PortForward(args) => port_forward::run(session, args).await,
        Verb::ApiResources => api_resources(session),
        Verb::Version { .. } => version(session).await,
    }
}

const CLIENT_VERSION: &str = concat!("Client Version: meshlab ", env!("CARGO_PKG_VERSION"), " (built in)\n");

async fn version(session: &Session) -> Result<Step, Failure> {
    let server = session.client().apiserver_version().await?;
    print(&format!("{CLIENT_VERSION}Server Version: {}\n", server.git_version));
    Ok(Step::Done)
}

fn api_resources(session: &Session) -> Result<Step, Failure> {
    let header = ["NAME", "SHORTNAMES", "APIVERSION", "NAMESPACED", "KIND"].map(str::to_owned).to_vec();
    let rows = session.resources.preferred().map(|kind| {
        let short = kind.short_names.join(",");
        vec![kind.plural.clone(), short, kind.api_version(), kind.namespaced.to_string(), kind.kind.clone()]
    });
    print(&columns(&std::iter::once(header).chain(rows).collect::<Vec<_>>()));
    Ok(Step::Done)
}
