//! Where a lab runs: in this program, on a kind cluster, or on any cluster that a kubeconfig names.
//!
//! On other clusters meshlab applies the same manifests, and needs what they name: container images that the cluster's nodes can
//! pull. Nothing else of a lab knows where it runs.

use std::collections::BTreeSet;
use std::path::Path;
use std::str::FromStr;
use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::api::{Api, ListParams};
use kube::config::{KubeConfigOptions, Kubeconfig, NamedContext};
use kube::{Client, ResourceExt};
use meshlab_checks::Lab;

use crate::control::Status;
use crate::error::{CommandError, Hint};
use crate::files::write_private;
use crate::home::{Home, write_json};
use crate::serve;

/// How long another cluster may take until everything is ready; images have to be pulled.
const READY_DEADLINE: Duration = Duration::from_secs(180);

/// Between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// Name of the kind cluster, as in `kind-config/kind.yaml`.
const KIND_CLUSTER: &str = "meshlab";
const KIND_CONFIG: &str = include_str!("../../kind-config/kind.yaml");

/// `--cluster`
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Backend {
    /// In this program.
    Embedded,
    /// A cluster in Docker, made if it is not there.
    Kind,
    /// A cluster that is there: of `$KUBECONFIG` or `~/.kube/config`.
    Kubeconfig {
        /// Which context; the current one if none is named.
        context: Option<String>,
    },
}

impl Backend {
    /// Whether a running lab's cluster, by its name in [`Status`], is this one.
    pub(crate) fn is(&self, running: &str) -> bool {
        match self {
            Self::Embedded => running == "embedded",
            Self::Kind => running == "kind",
            Self::Kubeconfig { context: None } => running.starts_with("kubeconfig:"),
            Self::Kubeconfig { context: Some(context) } => running.strip_prefix("kubeconfig:") == Some(context),
        }
    }
}

impl FromStr for Backend {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':').unwrap_or((text, "")) {
            ("embedded", "") => Ok(Self::Embedded),
            ("kind", "") => Ok(Self::Kind),
            ("kubeconfig", context) => Ok(Self::Kubeconfig { context: (!context.is_empty()).then(|| context.to_owned()) }),
            _ => Err("use embedded, kind, or kubeconfig[:CONTEXT]".to_owned()),
        }
    }
}

/// Installs mesh, addons and application on another cluster, and waits until all is ready.
///
/// # Errors
/// The cluster cannot be reached, has a mesh of its own, or does not become ready; the message says what is missing.
pub(crate) async fn start(home: &Home, lab: &Lab, backend: &Backend) -> Result<Status, CommandError> {
    let started = Instant::now();
    let name = match backend {
        Backend::Embedded => return Err(CommandError::failed("the embedded cluster is a process of its own")),
        Backend::Kind => {
            kind(home).await?;
            "kind".to_owned()
        }
        Backend::Kubeconfig { context } => format!("kubeconfig:{}", copy_kubeconfig(home, context.as_deref())?),
    };
    let kubeconfig = Kubeconfig::read_from(home.kubeconfig()).map_err(|error| broken(&home.kubeconfig(), &error))?;
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
    let config = config.map_err(|error| broken(&home.kubeconfig(), &error))?;
    let api_server = config.cluster_url.to_string();
    let client = Client::try_from(config)?;
    refuse_other_mesh(&client).await?;
    serve::install(&client, lab).await?;
    wait_until_ready(&client, lab).await?;
    let status = Status {
        pid: None,
        cluster: name,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        lab: lab.file.name.clone(),
        api_server: api_server.trim_end_matches('/').to_owned(),
        kubeconfig: home.kubeconfig(),
        gateway: gateway(&client, backend).await,
        started_in_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
    };
    write_json(&home.external(), &status)?;
    Ok(status)
}

fn broken(path: &Path, error: &dyn std::fmt::Display) -> CommandError {
    CommandError::failed(format!("{}: {error}", path.display()))
}

/// Keeps the one context that is meant, as the lab's own kubeconfig; returns its name.
fn copy_kubeconfig(home: &Home, context: Option<&str>) -> Result<String, CommandError> {
    let found = Kubeconfig::read();
    let mut all = found.map_err(|error| {
        CommandError::usage(format!("there is no kubeconfig: {error}")).with_hint(Hint::new("set KUBECONFIG to the cluster's"))
    })?;
    let known = || all.contexts.iter().map(|context| context.name.clone()).collect::<Vec<_>>().join(", ");
    let wanted = context.map(str::to_owned).or_else(|| all.current_context.clone());
    let wanted = wanted.ok_or_else(|| {
        CommandError::usage("the kubeconfig has no current context").with_hint(Hint::new(format!("name one: {}", known())))
    })?;
    if !all.contexts.iter().any(|context| context.name == wanted) {
        return Err(CommandError::usage(format!("the kubeconfig has no context {wanted:?}"))
            .with_hint(Hint::new(format!("contexts: {}", known()))));
    }
    let is_it = |context: &NamedContext| context.name == wanted;
    all.contexts.retain(is_it);
    let context = all.contexts.first().and_then(|context| context.context.clone());
    all.clusters.retain(|cluster| context.as_ref().is_some_and(|context| context.cluster == cluster.name));
    all.auth_infos
        .retain(|user| context.as_ref().and_then(|context| context.user.as_ref()).is_some_and(|name| *name == user.name));
    all.current_context = Some(wanted.clone());
    let text = serde_saphyr::to_string(&serde_json::to_value(&all).map_err(|error| CommandError::failed(error.to_string()))?);
    let text = text.map_err(|error| CommandError::failed(error.to_string()))?;
    let path = home.kubeconfig();
    write_private(&path, text.as_bytes()).map_err(|error| CommandError::io(&path, &error))?;
    Ok(wanted)
}

/// Makes the kind cluster, or takes the one that is there.
async fn kind(home: &Home) -> Result<(), CommandError> {
    let have = run("kind", &["get", "clusters"]).await?;
    let kubeconfig = home.kubeconfig().display().to_string();
    if have.lines().any(|name| name == KIND_CLUSTER) {
        run("kind", &["export", "kubeconfig", "--name", KIND_CLUSTER, "--kubeconfig", &kubeconfig]).await?;
        return Ok(());
    }
    let config = home.path().join("kind.yaml");
    write_private(&config, KIND_CONFIG.as_bytes()).map_err(|error| CommandError::io(&config, &error))?;
    let config = config.display().to_string();
    run("kind", &["create", "cluster", "--config", &config, "--kubeconfig", &kubeconfig, "--wait", "120s"]).await?;
    Ok(())
}

/// Runs a program to its end; what it printed.
async fn run(program: &str, arguments: &[&str]) -> Result<String, CommandError> {
    let output = tokio::process::Command::new(program).args(arguments).output().await;
    let output = output.map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => CommandError::failed(format!("{program} is not installed, or not in PATH"))
            .with_hint(Hint::new("install kind and Docker: https://kind.sigs.k8s.io/docs/user/quick-start/"))
            .with_hint(Hint::new("or leave --cluster out: the embedded cluster needs neither")),
        _ => CommandError::failed(format!("{program}: {error}")),
    })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(CommandError::failed(format!("{program} {}: {}", arguments.join(" "), said.trim()))
        .with_hint(Hint::new("is Docker running, and may you use it? `docker info` tells")))
}

/// A mesh that somebody else installed is left alone.
async fn refuse_other_mesh(client: &Client) -> Result<(), CommandError> {
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), "istio-system");
    let Some(istiod) = deployments.get_opt("istiod").await? else { return Ok(()) };
    let template = istiod.spec.and_then(|spec| spec.template.spec);
    let images: Vec<String> =
        template.into_iter().flat_map(|pod| pod.containers).filter_map(|container| container.image).collect();
    if images.iter().all(|image| image.starts_with("ghcr.io/meshlab/")) {
        return Ok(());
    }
    Err(CommandError::failed(format!("this cluster has a mesh already: istio-system/istiod runs {}", images.join(", ")))
        .with_hint(Hint::new("take a cluster without Istio: meshlab installs its own mesh under the same names")))
}

/// Waits for the Deployments of the mesh and of the lab, and only for them.
async fn wait_until_ready(client: &Client, lab: &Lab) -> Result<(), CommandError> {
    let deadline = Instant::now() + READY_DEADLINE;
    let namespaces: Vec<&str> = std::iter::once("istio-system").chain(lab.file.namespaces.iter().map(String::as_str)).collect();
    loop {
        let mut missing = Vec::new();
        let mut images = BTreeSet::new();
        for namespace in &namespaces {
            let deployments: Api<Deployment> = Api::namespaced(client.clone(), namespace);
            let listed = deployments.list(&ListParams::default()).await?;
            let late = listed.items.iter().filter(|deployment| !serve::is_available(deployment));
            missing.extend(late.map(|deployment| format!("{namespace}/{}", deployment.name_any())));
            let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
            images.extend(pods.list(&ListParams::default()).await?.items.iter().flat_map(unpullable));
        }
        if missing.is_empty() {
            return Ok(());
        }
        // Back-off means that it was tried: more time does not help.
        if !images.is_empty() {
            let images = images.into_iter().collect::<Vec<_>>().join(", ");
            return Err(CommandError::failed(format!("the cluster cannot pull these images: {images}"))
                .with_hint(Hint::new(
                    "they have to be in a registry that its nodes reach, or be loaded (`kind load docker-image`)",
                ))
                .with_hint(Hint::new("the embedded cluster has them built in: leave --cluster out")));
        }
        if Instant::now() >= deadline {
            return Err(CommandError::failed(format!("not ready after {} s: {}", READY_DEADLINE.as_secs(), missing.join(", ")))
                .with_hint(Hint::new("`kubectl describe pod` tells what holds them")));
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Images that a pod waits for in vain.
fn unpullable(pod: &Pod) -> Vec<String> {
    let Some(status) = &pod.status else { return Vec::new() };
    let containers = status.init_container_statuses.iter().chain(&status.container_statuses).flatten();
    let waits = containers.filter(|container| {
        let waiting = container.state.as_ref().and_then(|state| state.waiting.as_ref());
        waiting
            .and_then(|waiting| waiting.reason.as_deref())
            .is_some_and(|reason| matches!(reason, "ImagePullBackOff" | "InvalidImageName"))
    });
    waits.map(|container| container.image.clone()).collect()
}

/// Where the gateway's port 80 is reached from here, if it is.
async fn gateway(client: &Client, backend: &Backend) -> Option<String> {
    if *backend == Backend::Kind {
        // The mapping of kind-config/kind.yaml.
        return Some("127.0.0.1:8080".to_owned());
    }
    if let Some(published) = serve::gateway_address(client).await {
        return Some(published);
    }
    let services: Api<Service> = Api::namespaced(client.clone(), "istio-system");
    let status = services.get_opt("istio-ingressgateway").await.ok()??.status?;
    let ingress = status.load_balancer?.ingress?.into_iter().next()?;
    Some(format!("{}:80", ingress.ip.or(ingress.hostname)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backends_are_named() {
        assert_eq!("kind".parse(), Ok(Backend::Kind));
        assert_eq!("kubeconfig".parse(), Ok(Backend::Kubeconfig { context: None }));
        assert_eq!("kubeconfig:a:b".parse(), Ok(Backend::Kubeconfig { context: Some("a:b".to_owned()) }));
        assert!("minikube".parse::<Backend>().is_err() && "kind:x".parse::<Backend>().is_err());
    }
}
