//! Putting istiod together.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ::http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use meshlab_compile::Snapshot;
use meshlab_net::Net;
use meshlab_proxy_config::discovery::{CERTIFICATE_PATH, STREAM_PATH};
use meshlab_proxy_config::{Files, Log};
use serde_json::Value;
use thiserror::Error;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::ca::{self, Authenticator, Authority, CaError, RootError};
use crate::debug::Debug;
use crate::discovery::{Discovery, Hub, Published, certificate, stream};
use crate::http::{Body, Peer, TlsError, json, not_found, read_body, serve, text, tls};
use crate::inject::{Injector, runs_native_sidecars};
use crate::inventory::{Followed, Inventory};
use crate::kube_client::{self, ClientError};
use crate::metrics::Metrics;
use crate::options::{NativeSidecars, Options, OptionsError};
use crate::settings::Settings;
use crate::{jwks, root_cert, settings, status, webhook, webhook_config};

/// Why istiod cannot run.
#[derive(Debug, Error)]
pub enum ControlError {
    /// Arguments or environment.
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// No way to the API server.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// No CA.
    #[error(transparent)]
    Root(#[from] RootError),
    /// The CA cannot be used.
    #[error(transparent)]
    Ca(#[from] CaError),
    /// The serving certificate cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A port is taken.
    #[error("cannot listen on {address}: {error}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        error: io::Error,
    },
    /// Something that should run for good has ended.
    #[error("{0} has ended")]
    Ended(String),
}

/// Runs istiod until `shutdown`. `args` are those after the executable's name: `discovery …`.
///
/// # Errors
/// It could not be started, or a part of it ended that has to go on; see [`ControlError`].
pub async fn run<N: Net, F: Files>(
    net: N,
    files: F,
    env: &BTreeMap<String, String>,
    args: &[String],
    log: Log,
    shutdown: CancellationToken,
) -> Result<(), ControlError> {
    let options = Arc::new(Options::parse(args, env)?);
    let log = log.at_level(options.log_level);
    let client = kube_client::in_cluster(net.clone(), files.clone(), env)?;
    serve_cluster(client, net, files, options, log, shutdown).await
}

/// Runs istiod with a given client.
pub(crate) async fn serve_cluster<N: Net, F: Files>(
    client: kube::Client,
    net: N,
    files: F,
    options: Arc<Options>,
    log: Log,
    shutdown: CancellationToken,
) -> Result<(), ControlError> {
    let settings = settings::load(&client, &options, &log).await;
    let ca = ca::load_or_create(&client, &files, &options.namespace, settings.trust_domain(), &log).await?;
    let authority = Arc::new(Authority::new(&ca, options.certificate_ttl, options.max_certificate_ttl)?);

    let metrics = Arc::new(Metrics::default());
    let inventory = Arc::new(Inventory::new(metrics.clone(), log.clone()));
    inventory.edit(|sources| sources.mesh = settings.mesh_config.clone());
    let authenticator = Authenticator::new(client.clone(), settings.trust_domain());
    let (settings_sender, settings) = watch::channel(settings);
    let hub = Arc::new(Hub::<Snapshot>::default());
    let ready = Arc::new(AtomicBool::new(false));

    let istiod = Istiod {
        discovery: Arc::new(Discovery {
            hub: hub.clone(),
            authority: authority.clone(),
            authenticator,
            metrics: metrics.clone(),
            log: log.clone(),
            shutdown: shutdown.clone(),
        }),
        debug: Arc::new(Debug {
            hub: hub.clone(),
            inventory: inventory.clone(),
            metrics: metrics.clone(),
            settings: settings.clone(),
            ready: ready.clone(),
            pod: options.pod.clone(),
        }),
        injection: Arc::new(Injection {
            settings: settings.clone(),
            inventory: inventory.clone(),
            options: options.clone(),
            metrics,
        }),
    };
    let mut servers = istiod.listen(&net, &options, &authority, &shutdown).await?;
    log.info("istiod", format_args!("serving: discovery {}, webhooks {}", options.secure_discovery, options.https));

    // Everything below follows the cluster for good; it ends when it is dropped.
    let mut tasks = JoinSet::new();
    for followed in Followed::all() {
        let (inventory, client) = (inventory.clone(), client.clone());
        tasks.spawn(async move { inventory.follow(client, followed).await });
    }
    tasks.spawn({
        let (client, options, log) = (client.clone(), options.clone(), log.clone());
        async move { settings::follow(client, &options, log, settings_sender).await }
    });
    tasks.spawn(root_cert::keep(client.clone(), ca.root.clone(), log.clone()));
    let (webhooks_done, webhooks) = watch::channel(false);
    tasks.spawn(webhook_config::keep(client.clone(), options.revision.clone(), ca.root, log.clone(), webhooks_done));
    tasks.spawn({
        let (inventory, log) = (inventory.clone(), log.clone());
        async move { jwks::keep(net, files, &inventory, log).await }
    });
    let (published, first_push) = watch::channel(false);
    tasks.spawn({
        let (client, inventory, log) = (client, inventory.clone(), log.clone());
        async move { status::keep(&client, &inventory, &log).await }
    });
    tasks.spawn(push(Pusher { inventory, hub, options, settings, published, log: log.clone() }));
    tasks.spawn(become_ready(first_push, webhooks, ready, log.clone()));

    tokio::select! {
        () = shutdown.cancelled() => {}
        Some(ended) = tasks.join_next() => {
            let reason = ended.map_or_else(|error| error.to_string(), |()| "a task that follows the cluster".to_owned());
            return Err(ControlError::Ended(reason));
        }
        Some(_) = servers.join_next() => {
            if !shutdown.is_cancelled() {
                return Err(ControlError::Ended("a listening socket".to_owned()));
            }
        }
    }
    // Requests under way are finished, proxies are told to go elsewhere or come back.
    while servers.join_next().await.is_some() {}
    log.info("istiod", "terminated");
    Ok(())
}

/// What istiod's ports share.
#[derive(Clone)]
struct Istiod {
    discovery: Arc<Discovery<Snapshot>>,
    debug: Arc<Debug>,
    injection: Arc<Injection>,
}

impl Istiod {
    /// Binds every port before the first is served, so that readiness means all of them.
    async fn listen<N: Net>(
        &self,
        net: &N,
        options: &Options,
        authority: &Authority,
        shutdown: &CancellationToken,
    ) -> Result<JoinSet<()>, ControlError> {
        let serving = authority.serving(&dns_names(&options.namespace, &options.domain))?;
        let discovery_tls = tls(&serving, Some(authority.root()))?;
        let webhook_tls = tls(&serving, None)?;
        let mut servers = JoinSet::new();
        let bind = async |address: SocketAddr| net.listen(address).await.map_err(|error| ControlError::Listen { address, error });
        let secure = bind(options.secure_discovery).await?;
        let this = self.clone();
        let discover = move |request, peer| this.clone().discovery(request, peer);
        spawn(&mut servers, secure, Some(discovery_tls), discover.clone(), shutdown);
        if let Some(address) = options.plaintext_discovery {
            spawn(&mut servers, bind(address).await?, None, discover, shutdown);
        }
        let this = self.clone();
        let admit = move |request, _| this.clone().webhook(request);
        spawn(&mut servers, bind(options.https).await?, Some(webhook_tls), admit, shutdown);
        for address in [options.http, options.monitoring] {
            let debug = self.debug.clone();
            let show = move |request: Request<Incoming>, _| {
                let response = debug.answer(&request);
                async move { response }
            };
            spawn(&mut servers, bind(address).await?, None, show, shutdown);
        }
        Ok(servers)
    }

    async fn discovery(self, request: Request<Incoming>, peer: Peer) -> Response<Body> {
        match (request.method(), request.uri().path()) {
            (&Method::POST, STREAM_PATH) => stream(self.discovery, request, peer).await,
            (&Method::POST, CERTIFICATE_PATH) => certificate(self.discovery, request, peer).await,
            (_, path) => not_found(path),
        }
    }

    async fn webhook(self, request: Request<Incoming>) -> Response<Body> {
        let path = request.uri().path().to_owned();
        if path == "/ready" {
            return self.debug.answer(&request);
        }
        let body = match read_body(request.into_body()).await {
            Ok(body) if body.is_empty() => return text(StatusCode::BAD_REQUEST, "no body found"),
            Ok(body) => body,
            Err(error) => return text(StatusCode::BAD_REQUEST, error.to_string()),
        };
        let review: Value = match serde_json::from_slice(&body) {
            Ok(review) => review,
            Err(error) => return text(StatusCode::BAD_REQUEST, format!("could not decode body: {error}")),
        };
        if path == "/inject" || path.starts_with("/inject/") {
            json(&self.injection.answer(&review))
        } else if path == "/validate" || path.starts_with("/validate/") {
            json(&webhook::validate_review(&review, &self.injection.metrics))
        } else {
            not_found(&path)
        }
    }
}

fn spawn<L, H, R>(servers: &mut JoinSet<()>, listener: L, tls: Option<TlsAcceptor>, handler: H, shutdown: &CancellationToken)
where
    L: meshlab_net::Listener,
    H: Fn(Request<Incoming>, Peer) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = Response<Body>> + Send + 'static,
{
    servers.spawn(serve(listener, tls, handler, shutdown.clone()));
}

/// The names istiod is reached by.
fn dns_names(namespace: &str, domain: &str) -> Vec<String> {
    let services = ["istiod", "istiod-remote", "istio-pilot"];
    let forms = |service: &str| {
        [format!("{service}.{namespace}"), format!("{service}.{namespace}.svc"), format!("{service}.{namespace}.svc.{domain}")]
    };
    services.iter().flat_map(|service| forms(service)).collect()
}

/// What injection looks at.
struct Injection {
    settings: watch::Receiver<Settings>,
    inventory: Arc<Inventory>,
    options: Arc<Options>,
    metrics: Arc<Metrics>,
}

impl Injection {
    fn answer(&self, review: &Value) -> Value {
        let settings = self.settings.borrow().clone();
        let root_namespace = settings.mesh_config.root_namespace.clone();
        let injector = Injector {
            values: settings.values,
            mesh: settings.mesh,
            native_sidecars: self.native_sidecars(),
            revision: self.options.revision.clone(),
        };
        let find = |namespace: &str, labels: &Value| self.workload_config(namespace, labels, &root_namespace);
        webhook::inject(&injector, review, find, &self.metrics)
    }

    /// One node that does not run native sidecars is enough to do without.
    fn native_sidecars(&self) -> bool {
        match self.options.native_sidecars {
            NativeSidecars::On => true,
            NativeSidecars::Off => false,
            NativeSidecars::Auto => self.inventory.objects("Node").iter().all(|node| runs_native_sidecars(node)),
        }
    }

    /// The `spec` of the ProxyConfig resource that applies: one for the workload, else for its namespace, else for the mesh.
    fn workload_config(&self, namespace: &str, labels: &Value, root_namespace: &str) -> Value {
        let resources = self.inventory.objects("ProxyConfig");
        let in_namespace = |resource: &Value, namespace: &str| resource["metadata"]["namespace"] == namespace;
        let selector = |resource: &Value| resource["spec"]["selector"]["matchLabels"].as_object().cloned().unwrap_or_default();
        let selects = |resource: &Value| {
            let wanted = selector(resource);
            !wanted.is_empty() && wanted.iter().all(|(name, value)| labels[name] == *value)
        };
        let everyone = |resource: &Value| selector(resource).is_empty();
        let find =
            |test: &dyn Fn(&Value) -> bool| resources.iter().find(|resource| test(resource)).map(|found| found["spec"].clone());
        find(&|resource| in_namespace(resource, namespace) && selects(resource))
            .or_else(|| find(&|resource| in_namespace(resource, namespace) && everyone(resource)))
            .or_else(|| find(&|resource| in_namespace(resource, root_namespace) && everyone(resource)))
            .unwrap_or(Value::Null)
    }
}

/// istiod is ready once proxies can be configured and pods injected.
async fn become_ready(
    mut first_push: watch::Receiver<bool>,
    mut webhooks: watch::Receiver<bool>,
    ready: Arc<AtomicBool>,
    log: Log,
) {
    let pushed = first_push.wait_for(|done| *done).await.is_ok();
    let patched = webhooks.wait_for(|done| *done).await.is_ok();
    if pushed && patched {
        ready.store(true, Ordering::Release);
        log.info("istiod", "ready");
    }
    // The tasks of istiod do not end.
    std::future::pending::<()>().await;
}

struct Pusher {
    inventory: Arc<Inventory>,
    hub: Arc<Hub<Snapshot>>,
    options: Arc<Options>,
    settings: watch::Receiver<Settings>,
    published: watch::Sender<bool>,
    log: Log,
}

/// Compiles and hands out every state of the cluster that lasts for a moment.
async fn push(mut pusher: Pusher) {
    let mut changes = pusher.inventory.changes();
    let mut last: Option<Arc<Snapshot>> = None;
    loop {
        if pusher.inventory.is_synced() {
            let started = std::time::Instant::now();
            let sources = pusher.inventory.sources();
            let snapshot = Arc::new(match &last {
                Some(last) => last.next(sources),
                None => Snapshot::new(sources),
            });
            last = Some(snapshot.clone());
            let Published { changed, notes } = pusher.hub.publish(snapshot).await;
            if changed > 0 {
                pusher.log.info(
                    "ads",
                    format_args!("XDS: pushing to {changed} classes of proxies, compiled in {:.1?}", started.elapsed()),
                );
            }
            pusher.inventory.set_problems(notes);
            pusher.published.send_replace(true);
        }
        if !next_change(&mut pusher, &mut changes).await {
            return;
        }
    }
}

/// Waits for a change and then for a quiet moment; false when there will be no more.
async fn next_change(pusher: &mut Pusher, changes: &mut watch::Receiver<u64>) -> bool {
    tokio::select! {
        changed = changes.changed() => if changed.is_err() { return false },
        changed = pusher.settings.changed() => {
            if changed.is_err() {
                return false;
            }
            let mesh = pusher.settings.borrow_and_update().mesh_config.clone();
            pusher.inventory.edit(|sources| sources.mesh = mesh);
        }
    }
    let latest = tokio::time::Instant::now() + pusher.options.debounce_max;
    loop {
        changes.borrow_and_update();
        let quiet = (tokio::time::Instant::now() + pusher.options.debounce_after).min(latest);
        match tokio::time::timeout_at(quiet, changes.changed()).await {
            Ok(Ok(())) if tokio::time::Instant::now() < latest => {}
            Ok(Err(_)) => return false,
            _ => return true,
        }
    }
}
