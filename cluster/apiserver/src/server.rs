//! Starting and stopping an API server.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use meshlab_net::{Listener, Net, ServicePort, VirtualNet};
use meshlab_objects::Status;
use serde_json::json;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::api::Api;
use crate::auth::{
    Caller, IssuedToken, Pki, PkiError, SERVICE_ADDRESS, TokenError, TokenRequest, Tokens, UserInfo, bootstrap_objects,
};
use crate::http::{Connections, TlsError, is_transient, serve_stream, tls_acceptor};
use crate::node::SharedNodeAgent;
use crate::store::{OpenError, Store};
use crate::{background, client};

/// Where the server listens on the node, as real ones do.
const NODE_PORT: u16 = 6443;
/// How long changes are remembered for watchers that come back; a real server's watch cache keeps 75 seconds at least.
const HISTORY: Duration = Duration::from_secs(120);
/// Longer than a laptop's radio is away, shorter than a person waits.
const WRITE_PATIENCE: Duration = Duration::from_secs(30);

/// How to start an [`ApiServer`].
pub struct ApiServerOptions {
    /// Where to listen. Only loopback addresses are accepted.
    pub listen: SocketAddr,
    /// Where to keep the objects; `None` keeps them in memory alone.
    pub data_dir: Option<PathBuf>,
    /// The cluster's network: webhooks and proxied requests go through it, and pods reach the server on it.
    pub network: VirtualNet,
    /// Name of the cluster, user and context in the kubeconfig.
    pub cluster_name: String,
    /// Bearer tokens and the users they stand for.
    pub static_tokens: HashMap<String, UserInfo>,
    /// A client that has taken nothing of what it is sent for so long is cut off.
    pub write_patience: Duration,
}

impl ApiServerOptions {
    /// Any free port of 127.0.0.1, nothing on disk, half a minute for a client that does not read.
    pub fn new(network: VirtualNet) -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            data_dir: None,
            network,
            cluster_name: "meshlab".into(),
            static_tokens: HashMap::new(),
            write_patience: WRITE_PATIENCE,
        }
    }
}

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// Only this machine may reach the server.
    #[error("{0} is not a loopback address: the API server listens on 127.0.0.1 only")]
    NotLoopback(SocketAddr),
    /// The port is taken.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The data directory.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// Keys and certificates.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The key of service-account tokens.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The objects every cluster begins with.
    #[error("cannot create the first objects: {0}")]
    Bootstrap(#[from] Status),
}

/// A server that starts. It is boxed so that all that a server is made of is compiled once, here: what an `async fn` does is compiled
/// in every crate that waits for it.
pub type Starting = Pin<Box<dyn Future<Output = Result<ApiServer, StartError>> + Send>>;

/// A running API server.
pub struct ApiServer {
    api: Arc<Api>,
    pki: Pki,
    address: SocketAddr,
    cluster_name: String,
    network: VirtualNet,
    connections: Connections,
}

impl ApiServer {
    /// Starts a server. It answers when this returns.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn start(options: ApiServerOptions) -> Starting {
        Box::pin(Self::open(options))
    }

    async fn open(options: ApiServerOptions) -> Result<Self, StartError> {
        if !options.listen.ip().is_loopback() {
            return Err(StartError::NotLoopback(options.listen));
        }
        let listener = TcpListener::bind(options.listen).await.and_then(|listener| Ok((listener.local_addr()?, listener)));
        let (address, listener) = listener.map_err(|source| StartError::Listen { address: options.listen, source })?;
        let store = Store::open(options.data_dir.as_deref())?;
        let pki = Pki::open(options.data_dir.as_deref())?;
        let acceptor = tls_acceptor(&pki.ca_certificate, &pki.server)?;
        let api = Api::new(store, Tokens::new(&pki.token_key)?, options.static_tokens, options.network.clone());
        bootstrap(&api, &options.network).await?;
        let connections = Connections::new(options.write_patience);
        spawn_host_listener(&api, &connections, acceptor.clone(), listener);
        spawn_cluster_listener(&api, &connections, acceptor, &options.network).await?;
        background::spawn(&api);
        api.tasks.spawn(forget(api.clone()));
        Ok(Self { api, pki, address, cluster_name: options.cluster_name, network: options.network, connections })
    }

    /// A client that is `user`, within the process: no TLS, no HTTP framing. It cannot exec, attach or port-forward, which need
    /// a connection; take the kubeconfig for these.
    pub fn client(&self, user: UserInfo) -> kube::Client {
        client::client(self.api.clone(), user)
    }

    /// A kubeconfig of the administrator, as YAML. Whoever has it may do everything.
    pub fn kubeconfig(&self) -> String {
        use base64::Engine;
        let encode = |pem: &str| base64::prelude::BASE64_STANDARD.encode(pem);
        let name = &self.cluster_name;
        format!(
            "apiVersion: v1\nkind: Config\nclusters:\n- name: {name}\n  cluster:\n    server: https://{address}\n    \
             certificate-authority-data: {ca}\nusers:\n- name: {name}\n  user:\n    client-certificate-data: {certificate}\n    \
             client-key-data: {key}\ncontexts:\n- name: {name}\n  context:\n    cluster: {name}\n    user: {name}\n\
             current-context: {name}\n",
            address = self.address,
            ca = encode(&self.pki.ca_certificate),
            certificate = encode(&self.pki.admin.certificate),
            key = encode(&self.pki.admin.key),
        )
    }

    /// Where the server listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The cluster's certificate authority, PEM.
    pub fn ca_certificate(&self) -> &str {
        &self.pki.ca_certificate
    }

    /// Names who serves logs, exec, attach and port-forward.
    pub fn set_node_agent(&self, agent: SharedNodeAgent) {
        self.api.set_node_agent(agent);
    }

    /// Issues a token for a service account, as the subresource `token` does.
    ///
    /// # Errors
    /// The account or the bound object does not exist; the lifetime is under ten minutes.
    pub fn issue_service_account_token(
        &self,
        namespace: &str,
        account: &str,
        request: &TokenRequest,
    ) -> Result<IssuedToken, TokenError> {
        self.api.tokens.issue(&self.api.store, namespace, account, request)
    }

    /// Stops answering, ends all connections and watches, and writes everything to the disk.
    pub async fn stop(self) {
        self.api.stop.cancel();
        self.connections.stop.cancel();
        self.connections.tasks.close();
        self.api.tasks.close();
        self.connections.tasks.wait().await;
        self.api.tasks.wait().await;
        self.network.remove_service(SERVICE_KEY);
        self.api.store.close();
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        self.api.stop.cancel();
        self.connections.stop.cancel();
    }
}

/// The Service's name in the network.
const SERVICE_KEY: &str = "default/kubernetes";

/// What every cluster begins with.
async fn bootstrap(api: &Arc<Api>, network: &VirtualNet) -> Result<(), Status> {
    for name in ["default", "kube-system", "kube-public", "kube-node-lease"] {
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        api.seed("", "namespaces", namespace).await?;
    }
    for role in bootstrap_objects() {
        let plural = if role["kind"] == "ClusterRole" { "clusterroles" } else { "clusterrolebindings" };
        api.seed("rbac.authorization.k8s.io", plural, role).await?;
    }
    for (name, value) in [("system-cluster-critical", 2_000_000_000), ("system-node-critical", 2_000_001_000)] {
        let class = json!({
            "apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name}, "value": value,
            "description": "Used for system critical pods that must run in the cluster.",
        });
        api.seed("scheduling.k8s.io", "priorityclasses", class).await?;
    }
    seed_own_service(api, network).await
}

/// The Service by which pods find the server. A real server puts it back, too, when it is deleted.
pub(crate) async fn seed_own_service(api: &Arc<Api>, network: &VirtualNet) -> Result<(), Status> {
    let labels = json!({"component": "apiserver", "provider": "kubernetes"});
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "kubernetes", "namespace": "default", "labels": labels},
        "spec": {
            "type": "ClusterIP", "clusterIP": SERVICE_ADDRESS.to_string(), "sessionAffinity": "None",
            "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": NODE_PORT}],
        },
    });
    api.seed("", "services", service).await?;
    let address = network.options().node_address.to_string();
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": "kubernetes", "namespace": "default", "labels": {"kubernetes.io/service-name": "kubernetes"}},
        "endpoints": [{"addresses": [address], "conditions": {"ready": true}}],
        "ports": [{"name": "https", "port": NODE_PORT, "protocol": "TCP"}],
    });
    api.seed("discovery.k8s.io", "endpointslices", slice).await?;
    let endpoints = json!({
        "apiVersion": "v1", "kind": "Endpoints",
        "metadata": {"name": "kubernetes", "namespace": "default", "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}},
        "subsets": [{"addresses": [{"ip": address}], "ports": [{"name": "https", "port": NODE_PORT, "protocol": "TCP"}]}],
    });
    api.seed("", "endpoints", endpoints).await
}

fn spawn_host_listener(api: &Arc<Api>, connections: &Connections, acceptor: TlsAcceptor, listener: TcpListener) {
    let (api, connections) = (api.clone(), connections.clone());
    connections.tasks.clone().spawn(async move {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = connections.stop.cancelled() => return,
            };
            match accepted {
                Ok((stream, _)) => {
                    // Small answers, at once.
                    if let Err(error) = stream.set_nodelay(true) {
                        tracing::debug!(%error, "TCP_NODELAY");
                    }
                    spawn_connection(&api, &connections, &acceptor, stream);
                }
                Err(error) if is_transient(&error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    // Descriptors come back when a connection ends; a busy loop would not help.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                Err(error) => return tracing::error!(%error, "the API server's listener failed"),
            }
        }
    });
}

fn spawn_connection<S>(api: &Arc<Api>, connections: &Connections, acceptor: &TlsAcceptor, stream: S)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
{
    let (api, acceptor, owned) = (api.clone(), acceptor.clone(), connections.clone());
    connections.tasks.spawn(async move {
        let handle = move |user, request| api.clone().respond(Caller::Network(user), request);
        serve_stream(&owned, &acceptor, stream, handle).await;
    });
}

/// Pods reach the server at the Service's address, which leads to the node.
async fn spawn_cluster_listener(
    api: &Arc<Api>,
    connections: &Connections,
    acceptor: TlsAcceptor,
    network: &VirtualNet,
) -> Result<(), StartError> {
    let address = SocketAddr::new(network.options().node_address, NODE_PORT);
    let mut listener = network.host().listen(address).await.map_err(|source| StartError::Listen { address, source })?;
    network.upsert_service(SERVICE_KEY, vec![ServicePort::new((SERVICE_ADDRESS, 443).into(), vec![address])]);
    let (api, connections) = (api.clone(), connections.clone());
    connections.tasks.clone().spawn(async move {
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok(stream) => spawn_connection(&api, &connections, &acceptor, stream),
                    Err(error) => return tracing::debug!(%error, "the API server's listener in the cluster failed"),
                },
                () = connections.stop.cancelled() => return,
            }
        }
    });
    Ok(())
}

/// Packs and forgets old changes from time to time, so that an idle cluster is a small one.
async fn forget(api: Arc<Api>) {
    let mut ticks = tokio::time::interval(HISTORY / 24);
    loop {
        tokio::select! {
            _ = ticks.tick() => api.store.forget_older_than(HISTORY),
            () = api.stop.cancelled() => return,
        }
    }
}
