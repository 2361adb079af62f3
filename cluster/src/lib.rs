//! An embedded Kubernetes: a real API server to its clients, controllers, and one node whose pods are Rust programs, all within
//! this process.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use meshlab_cluster::{Cluster, ClusterOptions};
//!
//! let cluster = Cluster::start(ClusterOptions::default()).await?;
//! std::fs::write("kubeconfig.yaml", cluster.kubeconfig())?;
//! cluster.stop().await;
//! # Ok(())
//! # }
//! ```
//!
//! A process may hold as many clusters as it has memory for; they share nothing and do not see each other.

mod kubeconfig;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use meshlab_apiserver::{ApiServer, ApiServerOptions, UserInfo};
use meshlab_controller_runtime::Informers;
use meshlab_kubelet::{Kubelet, KubeletOptions};
use meshlab_net::{VirtualNet, VirtualNetOptions};
use meshlab_program::Catalogue;
use thiserror::Error;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

/// How to start a [`Cluster`].
pub struct ClusterOptions {
    /// The images that pods can run.
    pub catalogue: Catalogue,
    /// Where to keep the objects; `None` keeps them in memory alone.
    pub data_dir: Option<PathBuf>,
    /// Where the API server listens; only loopback addresses are accepted.
    pub listen: SocketAddr,
    /// Name of the cluster, its user and its context in the kubeconfig.
    pub name: String,
    /// The pods' network.
    pub network: VirtualNetOptions,
    /// Where to write the kubeconfig, readable by its owner alone. It gives whoever has it all rights.
    pub kubeconfig: Option<PathBuf>,
}

impl Default for ClusterOptions {
    /// No images, nothing on disk, any free port of 127.0.0.1.
    fn default() -> Self {
        Self {
            catalogue: Catalogue::default(),
            data_dir: None,
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            name: "meshlab".to_owned(),
            network: VirtualNetOptions::default(),
            kubeconfig: None,
        }
    }
}

/// Why a cluster did not start.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StartError {
    /// The API server.
    #[error(transparent)]
    ApiServer(#[from] meshlab_apiserver::StartError),
    /// The kubeconfig.
    #[error("cannot write the kubeconfig to {path}: {source}; choose another place or mend its permissions")]
    Kubeconfig {
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

/// Node and first service account come within milliseconds, or, where a hundred clusters start at once, within seconds; a machine
/// that is slower still gets a warning, not an error.
const ROLL_CALL: Duration = Duration::from_secs(60);

/// Waits until pods can be created and bound.
async fn ready_for_pods(informers: &Informers) {
    let (changes, mut seen) = watch::channel(());
    let on_account = changes.clone();
    informers.service_accounts.on_change(move |_, _| on_account.send(()).unwrap_or_default());
    informers.nodes.on_change(move |_, _| changes.send(()).unwrap_or_default());
    while informers.service_accounts.get("default", "default").is_none() || informers.nodes.all().is_empty() {
        // Both handlers hold a sender for as long as the caches live.
        let _ = seen.changed().await;
    }
}

/// A cluster that starts. It is boxed so that all that a cluster is made of is compiled once, here: what an `async fn` does is compiled in
/// every crate that waits for it.
pub type Starting = Pin<Box<dyn Future<Output = Result<Cluster, StartError>> + Send>>;

/// A running cluster. Dropping it ends it too, without waiting.
pub struct Cluster {
    api_server: ApiServer,
    network: VirtualNet,
    /// Cancels everything beside the API server when dropped.
    stop: DropGuard,
}

impl Cluster {
    /// Starts a cluster. When this returns, the API server answers, the node is there, and pods can be created in the namespace
    /// `default`. With a data directory from an earlier life, the objects are there again and their pods are started anew.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn start(options: ClusterOptions) -> Starting {
        Box::pin(Self::open(options))
    }

    async fn open(options: ClusterOptions) -> Result<Self, StartError> {
        let network = VirtualNet::new(options.network);
        let api_server = ApiServer::start(ApiServerOptions {
            listen: options.listen,
            data_dir: options.data_dir,
            cluster_name: options.name,
            ..ApiServerOptions::new(network.clone())
        })
        .await?;
        let stop = CancellationToken::new();
        let client = api_server.client(UserInfo::controller_manager());
        let informers = Informers::start(&client, &stop);
        let kubelet = Kubelet::start(KubeletOptions {
            client: client.clone(),
            informers: informers.clone(),
            catalogue: options.catalogue,
            network: network.clone(),
            stop: stop.clone(),
        });
        let roll_call = informers.clone();
        api_server.set_node_agent(Arc::new(kubelet));
        meshlab_controllers::start(Arc::new(meshlab_controllers::Context {
            client,
            informers,
            network: network.clone(),
            ca_pem: api_server.ca_certificate().to_owned(),
            stop: stop.clone(),
        }));
        if tokio::time::timeout(ROLL_CALL, ready_for_pods(&roll_call)).await.is_err() {
            tracing::warn!("the cluster's node or the default service account is late; pods may be refused for a moment");
        }
        let cluster = Self { api_server, network, stop: stop.drop_guard() };
        if let Some(path) = options.kubeconfig {
            cluster.write_kubeconfig(&path).map_err(|source| StartError::Kubeconfig { path, source })?;
        }
        Ok(cluster)
    }

    /// A kubeconfig with all rights, YAML.
    pub fn kubeconfig(&self) -> String {
        self.api_server.kubeconfig()
    }

    /// Writes the kubeconfig where nobody but its owner can read it (mode 0600).
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write_kubeconfig(&self, path: &Path) -> std::io::Result<()> {
        kubeconfig::write(path, &self.kubeconfig())
    }

    /// A client with all rights, within the process. For exec, attach and port-forward take one made from the kubeconfig.
    pub fn client(&self) -> Client {
        self.api_server.client(UserInfo::admin())
    }

    /// Where the API server listens.
    pub fn address(&self) -> SocketAddr {
        self.api_server.address()
    }

    /// The pods' network.
    pub fn net(&self) -> &VirtualNet {
        &self.network
    }

    /// Ends everything: pods, controllers, and last the API server, which then has all its objects on disk.
    pub async fn stop(self) {
        drop(self.stop);
        self.api_server.stop().await;
    }
}
