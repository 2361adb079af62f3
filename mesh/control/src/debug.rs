//! istiod's own pages: readiness, metrics, and what it knows and has told the proxies.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use meshlab_compile::Snapshot;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::discovery::{Compiled, Hub};
use crate::http::{Body, json, not_found, text};
use crate::inventory::Inventory;
use crate::metrics::{self, Metrics};
use crate::settings::Settings;

/// The version that istiod and its proxies call themselves.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What the pages show.
pub(crate) struct Debug {
    pub(crate) hub: Arc<Hub<Snapshot>>,
    pub(crate) inventory: Arc<Inventory>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) settings: watch::Receiver<Settings>,
    /// Configuration was compiled and the webhooks are in place.
    pub(crate) ready: Arc<AtomicBool>,
    pub(crate) pod: String,
}

impl Debug {
    pub(crate) fn answer(&self, request: &Request<Incoming>) -> Response<Body> {
        if request.method() != Method::GET && request.method() != Method::HEAD {
            return text(StatusCode::METHOD_NOT_ALLOWED, "only GET is served here\n");
        }
        match request.uri().path() {
            "/ready" if self.ready.load(Ordering::Acquire) => text(StatusCode::OK, ""),
            "/ready" => text(StatusCode::SERVICE_UNAVAILABLE, "istiod has not finished its first look at the cluster\n"),
            "/metrics" => text(StatusCode::OK, self.render_metrics()),
            "/version" => text(StatusCode::OK, format!("{VERSION}-meshlab")),
            "/debug" => text(StatusCode::OK, PAGES),
            "/debug/syncz" => json(&self.syncz()),
            "/debug/configz" => {
                json(&self.inventory.istio_objects().into_iter().map(|(_, object, _)| object).collect::<Vec<_>>())
            }
            "/debug/mesh" => json(&self.settings.borrow().mesh),
            "/debug/endpointz" => json(&self.endpointz()),
            "/debug/config_dump" => self.config_dump(request.uri().query().unwrap_or_default()),
            other => not_found(other),
        }
    }

    fn render_metrics(&self) -> String {
        let sources = self.inventory.sources();
        let proxies = self.hub.proxies().len();
        #[expect(clippy::cast_precision_loss, reason = "counts of objects stay far below 2^52")]
        let number = |count: usize| count as f64;
        self.metrics.set(&metrics::SERVICES, [], number(sources.services.len()));
        self.metrics.set(&metrics::VIRTUAL_SERVICES, [], number(sources.virtual_services.len()));
        self.metrics.set(&metrics::PROXIES, [VERSION], number(proxies));
        self.metrics.set(&metrics::INFO, [VERSION], 1.0);
        self.metrics.render()
    }

    /// Every proxy and how far it follows, in the form that `proxy-status` reads.
    fn syncz(&self) -> Vec<Value> {
        let proxies = self.hub.proxies().into_iter().map(|(node, target, status)| {
            let wanted = target.as_ref().map_or(0, |target| target.version);
            let sync = match (status.sent, status.acked) {
                _ if !status.rejected.is_empty() => "ERROR",
                (0, _) => "NOT SENT",
                (_, acked) if acked == wanted => "SYNCED",
                _ => "STALE",
            };
            json!({
                "proxy": node.name(), "clusterId": node.cluster_id, "proxyType": node.kind, "istiod": self.pod,
                "istioVersion": node.version, "status": sync, "types": types(target.as_deref()), "wanted": wanted, "sent": status.sent, "acked": status.acked,
                "rejected": status.rejected,
            })
        });
        proxies.collect()
    }

    /// The addresses behind every service.
    fn endpointz(&self) -> Vec<Value> {
        let sources = self.inventory.sources();
        let slices = sources.endpoint_slices.values().map(|slice| {
            let service = slice.meta.labels.get("kubernetes.io/service-name").map_or("", String::as_str);
            let endpoints = slice.endpoints.iter().map(|endpoint| {
                json!({
                    "addresses": endpoint.addresses, "ready": endpoint.conditions.ready.unwrap_or(true),
                    "pod": endpoint.target_ref.as_ref().map(|target| &target.name),
                })
            });
            json!({
                "service": format!("{service}.{}", slice.meta.namespace),
                "ports": slice.ports.iter().map(|port| json!({ "name": port.name, "port": port.port })).collect::<Vec<_>>(),
                "endpoints": endpoints.collect::<Vec<_>>(),
            })
        });
        slices.collect()
    }

    /// What a proxy should have: `?proxyID=<pod>.<namespace>`.
    fn config_dump(&self, query: &str) -> Response<Body> {
        let Some(wanted) = query.split('&').find_map(|pair| pair.strip_prefix("proxyID=")) else {
            return text(StatusCode::BAD_REQUEST, "You must provide a proxyID in the query string\n");
        };
        let proxies = self.hub.proxies();
        match proxies.iter().find(|(node, _, _)| node.name() == wanted) {
            Some((_, Some(target), _)) => json(&*target.config),
            Some((_, None, _)) => text(StatusCode::NOT_FOUND, "nothing was compiled for this proxy yet\n"),
            None => {
                let known: Vec<_> = proxies.iter().map(|(node, _, _)| node.name()).collect();
                text(
                    StatusCode::NOT_FOUND,
                    format!("Proxy not connected to this Pilot instance; connected are: {}\n", known.join(", ")),
                )
            }
        }
    }
}

/// The kinds of resources that a proxy has.
fn types(target: Option<&Compiled>) -> Vec<&'static str> {
    let Some(config) = target.map(|target| &*target.config) else { return Vec::new() };
    let kinds = [
        ("CDS", config.clusters.is_empty()),
        ("LDS", config.listeners.is_empty()),
        ("EDS", config.endpoints.is_empty()),
        ("RDS", config.routes.is_empty()),
        ("SDS", config.secrets.is_empty()),
    ];
    kinds.into_iter().filter(|(_, empty)| !empty).map(|(kind, _)| kind).collect()
}

const PAGES: &str = "\
/debug/syncz        every connected proxy and how far it follows
/debug/configz      every resource of Istio's API
/debug/config_dump  what a proxy should have: ?proxyID=<pod>.<namespace>
/debug/endpointz    the addresses behind every service
/debug/mesh         mesh configuration
";
