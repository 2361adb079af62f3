//! The agent's own ports: 15021 (readiness), 15020 (probes of the app, merged metrics, drain and quit) and 15090 (the proxy's metrics).

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use meshlab_net::{Listener, Net, Stream};
use meshlab_proxy_config::Log;
use serde_json::Value;
use tokio::sync::watch;

use crate::prometheus::{Scrape, merge};
use crate::{probe, proxy};

const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// What the ports show and do.
pub(crate) struct StatusServer<N: Net> {
    pub(crate) net: N,
    pub(crate) proxy: proxy::Running<N>,
    pub(crate) ready: watch::Receiver<Readiness>,
    /// The pod's address; the app is asked there.
    pub(crate) pod: IpAddr,
    pub(crate) app_probers: BTreeMap<String, Value>,
    pub(crate) scrape: Option<Scrape>,
    pub(crate) orders: tokio::sync::mpsc::Sender<Order>,
    pub(crate) log: Log,
}

/// What the proxy lacks to be ready.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Readiness {
    pub(crate) certificate: bool,
    pub(crate) configuration: bool,
    pub(crate) draining: bool,
}

impl Readiness {
    fn lack(self) -> Option<&'static str> {
        match self {
            Self { draining: true, .. } => Some("the proxy is draining\n"),
            Self { certificate: false, .. } => Some("the proxy has no certificate yet\n"),
            Self { configuration: false, .. } => Some("the proxy has no configuration yet\n"),
            _ => None,
        }
    }
}

/// What a process of the pod may tell the agent to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// `POST /drain`
    Drain,
    /// `POST /quitquitquit`
    Quit,
}

/// The ports, as each shows a different part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Port {
    Status,
    Health,
    Metrics,
}

type Answer = Response<Full<Bytes>>;

fn text(status: StatusCode, text: impl Into<Bytes>) -> Answer {
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

fn metrics(body: String) -> Answer {
    let mut response = text(StatusCode::OK, body);
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

impl<N: Net> StatusServer<N> {
    /// Serves one port until its listener fails.
    pub(crate) async fn serve(self: Arc<Self>, mut listener: N::Listener, port: Port) {
        while let Ok(stream) = listener.accept().await {
            let this = self.clone();
            tokio::spawn(async move {
                let local = stream.peer_addr().ip().is_loopback();
                let service = service_fn(move |request| {
                    let this = this.clone();
                    async move { Ok::<_, Infallible>(this.answer(port, request, local).await) }
                });
                let mut builder = hyper::server::conn::http1::Builder::new();
                builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
                // A connection that breaks is its client's to notice.
                let _ = builder.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    }

    async fn answer(&self, port: Port, request: Request<Incoming>, local: bool) -> Answer {
        let path = request.uri().path();
        match (port, path) {
            (Port::Status | Port::Health, "/healthz/ready") => self.readiness(),
            (Port::Metrics, "/stats/prometheus") => metrics(self.proxy.metrics()),
            (Port::Status, "/stats/prometheus") => self.merged_metrics().await,
            (Port::Status, "/drain") => self.order(Order::Drain, &request, local).await,
            (Port::Status, "/quitquitquit") => self.order(Order::Quit, &request, local).await,
            (Port::Status, path) if path.starts_with("/app-health/") || path.starts_with("/app-lifecycle/") => {
                self.app_probe(path, &request).await
            }
            (_, path) => text(StatusCode::NOT_FOUND, format!("{path} is not served here\n")),
        }
    }

    fn readiness(&self) -> Answer {
        match self.ready.borrow().lack() {
            None => text(StatusCode::OK, ""),
            Some(lack) => text(StatusCode::SERVICE_UNAVAILABLE, lack),
        }
    }

    async fn merged_metrics(&self) -> Answer {
        let app = match &self.scrape {
            None => None,
            Some(scrape) => match scrape.fetch(&self.net, self.pod).await {
                Ok(app) => Some(app),
                Err(error) => {
                    self.log.warn("status", format_args!("failed scraping application metrics: {error}"));
                    None
                }
            },
        };
        metrics(merge(&self.proxy.metrics(), app.as_deref()))
    }

    async fn app_probe(&self, path: &str, request: &Request<Incoming>) -> Answer {
        let Some(prober) = self.app_probers.get(path) else {
            return text(StatusCode::BAD_REQUEST, format!("app prober config does not exist for {path}\n"));
        };
        match probe::probe(&self.net, self.pod, prober, request.headers()).await {
            Ok(answer) => text(answer.status, answer.body),
            Err(error) => {
                self.log.debug("probes", format_args!("Request to probe app failed: {error}, original URL path = {path}"));
                text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n"))
            }
        }
    }

    async fn order(&self, order: Order, request: &Request<Incoming>, local: bool) -> Answer {
        if !local {
            return text(StatusCode::FORBIDDEN, "Only requests from localhost are allowed\n");
        }
        if request.method() != Method::POST {
            return text(StatusCode::METHOD_NOT_ALLOWED, "want POST\n");
        }
        match self.orders.send(order).await {
            Ok(()) => text(StatusCode::OK, "OK"),
            Err(_) => text(StatusCode::SERVICE_UNAVAILABLE, "the agent is ending\n"),
        }
    }
}

/// The pod's address from its environment, loopback where it is unknown.
pub(crate) fn pod_address(ip: &str) -> IpAddr {
    ip.parse().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
}
