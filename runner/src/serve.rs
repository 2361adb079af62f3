//! The lab's own process: the embedded cluster, the mesh on it, and the sample application.

use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Namespace, Service};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use meshlab_checks::Lab;
use meshlab_cluster::{Cluster, ClusterOptions};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use crate::apply::{apply, documents};
use crate::control::{self, Status};
use crate::error::{CommandError, Hint};
use crate::external;
use crate::home::Home;

/// How long the lab may take to come up before it is given up.
const READY_DEADLINE: Duration = Duration::from_secs(60);

/// Runs the lab until it is told to stop. `on_ready` hears when everything answers.
///
/// # Errors
/// It does not come up; the message says which part.
pub(crate) async fn serve(home: &Home, lab: &Lab, started: Instant, on_ready: impl FnOnce(&Status)) -> Result<(), CommandError> {
    // From the first moment on, so that whoever looks for a lab that is gone finds in its log what ended it.
    let mut signals = Signals::receive()?;
    let cluster = tokio::select! {
        cluster = start_cluster(lab, Some(home)) => cluster?,
        signal = signals.next() => return Err(CommandError::failed(format!("{signal} ended the lab while it was starting"))),
    };
    let client = cluster.client();
    tracing::info!(elapsed = ?started.elapsed(), "everything is ready");

    let status = Status {
        pid: Some(std::process::id()),
        cluster: "embedded".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        lab: lab.file.name.clone(),
        api_server: format!("https://{}", cluster.cluster().address()),
        kubeconfig: home.kubeconfig(),
        gateway: gateway_address(&client).await,
        started_in_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
    };
    let (stop, mut stopped) = mpsc::channel(1);
    let control = control::listen(home, status.clone(), stop)?;
    on_ready(&status);

    let by = tokio::select! {
        _ = stopped.recv() => "meshlab stop",
        signal = signals.next() => signal,
    };
    tracing::info!(by, "the lab ends");
    control.abort();
    cluster.stop().await;
    let _ = std::fs::remove_file(home.control_socket());
    Ok(())
}

/// The signals that end a lab.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    fn receive() -> Result<Self, CommandError> {
        let receive = |kind| signal(kind).map_err(|error| CommandError::failed(format!("signals cannot be received: {error}")));
        Ok(Self {
            terminate: receive(SignalKind::terminate())?,
            interrupt: receive(SignalKind::interrupt())?,
            hang_up: receive(SignalKind::hangup())?,
        })
    }

    /// Waits for a signal that ends the lab, and tells its name. A terminal that is closed does not end it.
    async fn next(&mut self) -> &'static str {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return "SIGTERM",
                _ = self.interrupt.recv() => return "SIGINT",
                _ = self.hang_up.recv() => tracing::info!("the terminal was closed; the lab goes on"),
            }
        }
    }
}

/// A lab's cluster, and what lies outside it.
pub struct LabCluster {
    cluster: Cluster,
    _outside: external::Outside,
}

impl LabCluster {
    /// A client with every right.
    pub fn client(&self) -> Client {
        self.cluster.client()
    }

    /// The cluster itself.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// Stops it.
    pub async fn stop(self) {
        self.cluster.stop().await;
    }
}

/// An embedded cluster with the mesh and the sample application, all ready. With a `home` it is durable; without, it lives in
/// memory only.
///
/// # Errors
/// It does not come up; the message says which part.
pub async fn start_cluster(lab: &Lab, home: Option<&Home>) -> Result<LabCluster, CommandError> {
    let options = ClusterOptions {
        catalogue: meshlab_programs::catalogue(),
        data_dir: home.map(Home::cluster_data),
        kubeconfig: home.map(Home::kubeconfig),
        ..ClusterOptions::default()
    };
    let cluster = Cluster::start(options)
        .await
        .map_err(|error| CommandError::failed(format!("the embedded cluster does not start: {error}")))?;
    let outside = external::start(cluster.net())?;
    let client = cluster.client();
    install(&client, lab).await?;
    tracing::info!("manifests are applied");
    wait_for_deployments(&client).await?;
    Ok(LabCluster { cluster, _outside: outside })
}

/// Applies the mesh and the sample application, as `kubectl apply --server-side` would on any cluster.
pub(crate) async fn install(client: &Client, lab: &Lab) -> Result<(), CommandError> {
    let mut objects = Vec::new();
    for (name, yaml) in meshlab_control::manifests() {
        objects.extend(documents(name, yaml)?);
    }
    for (name, yaml) in meshlab_observe::manifests() {
        objects.extend(documents(name, yaml)?);
    }
    // A lab that is resumed is as the learner left it: the application is not brought back, `reset` does that. The pods of a new
    // one do not wait for the mesh, since its namespaces are not labelled for injection yet.
    if !is_resumed(client, lab).await? {
        for manifest in &lab.application {
            objects.extend(documents(&manifest.name, &manifest.content)?);
        }
    }
    apply(client, &objects).await
}

/// Whether the learner has been here before: a namespace of the lab is there.
async fn is_resumed(client: &Client, lab: &Lab) -> Result<bool, CommandError> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let Some(name) = lab.file.namespaces.first() else { return Ok(false) };
    Ok(namespaces.get_opt(name).await?.is_some())
}

/// Waits until every Deployment has all its replicas available.
pub(crate) async fn wait_for_deployments(client: &Client) -> Result<(), CommandError> {
    use futures::StreamExt;
    let deployments: Api<Deployment> = Api::all(client.clone());
    let mut missing = std::collections::BTreeSet::new();
    let wait = async {
        let mut events = watcher(deployments, watcher::Config::default()).default_backoff().boxed();
        let mut listed = false;
        while let Some(event) = events.next().await {
            match event {
                Ok(watcher::Event::Apply(deployment) | watcher::Event::InitApply(deployment)) => {
                    let name = format!(
                        "{}/{}",
                        deployment.metadata.namespace.as_deref().unwrap_or_default(),
                        deployment.metadata.name.as_deref().unwrap_or_default()
                    );
                    if is_available(&deployment) {
                        missing.remove(&name);
                    } else {
                        missing.insert(name);
                    }
                }
                Ok(watcher::Event::InitDone) => listed = true,
                Ok(_) => {}
                Err(error) => tracing::warn!(%error, "watching deployments"),
            }
            if listed && missing.is_empty() {
                return;
            }
        }
    };
    if tokio::time::timeout(READY_DEADLINE, wait).await.is_ok() {
        return Ok(());
    }
    let names = missing.into_iter().collect::<Vec<_>>().join(", ");
    Err(CommandError::failed(format!("not ready after {} s: {names}", READY_DEADLINE.as_secs()))
        .with_hint(Hint::new("`kubectl describe pod` tells what holds them")))
}

pub(crate) fn is_available(deployment: &Deployment) -> bool {
    let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    let Some(status) = &deployment.status else { return wanted == 0 };
    let current = status.observed_generation >= deployment.metadata.generation;
    let updated = status.updated_replicas.unwrap_or(0);
    // Pods of before that still end would answer, or cut connections, in place of the new ones.
    let old_are_gone = status.replicas.unwrap_or(0) <= updated;
    current && old_are_gone && status.available_replicas.unwrap_or(0) >= wanted && updated >= wanted
}

/// `127.0.0.1:PORT` of the ingress gateway's port 80, as the cluster says it is published: another port than the one wanted where
/// that was taken.
pub(crate) async fn gateway_address(client: &Client) -> Option<String> {
    let services: Api<Service> = Api::namespaced(client.clone(), "istio-system");
    let service = services.get_opt("istio-ingressgateway").await.ok()??;
    let published = service.metadata.annotations?.remove("meshlab.io/published-ports")?;
    published.split(',').find_map(|port| port.strip_prefix("80=")).map(str::to_owned)
}
