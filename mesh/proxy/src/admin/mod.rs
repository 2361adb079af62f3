//! The administration interface on port 15000, in the shapes of Envoy's.

pub(crate) mod dump;
pub(crate) mod stats;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::proxy::Shared;

/// Connections at a time.
const MAXIMUM_CONNECTIONS: usize = 64;
/// Pause before the address is tried again.
const RETRY: Duration = Duration::from_millis(200);
const LEVELS: [&str; 7] = ["trace", "debug", "info", "warning", "error", "critical", "off"];
/// `warning`, as Istio starts Envoy.
pub(crate) const DEFAULT_LEVEL: u8 = 3;

/// Serves until the proxy stops.
pub(crate) async fn serve(proxy: Arc<Shared>, address: SocketAddr, stop: CancellationToken) {
    let mut socket = loop {
        match proxy.network.listen(address).await {
            Ok(socket) => break socket,
            Err(error) => tracing::warn!(%address, %error, "the administration interface cannot listen"),
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(RETRY) => {}
        }
    };
    let places = Arc::new(Semaphore::new(MAXIMUM_CONNECTIONS));
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = socket.accept() => accepted,
        };
        let Ok(accepted) = accepted else {
            tokio::time::sleep(RETRY).await;
            continue;
        };
        let Ok(place) = places.clone().try_acquire_owned() else { continue };
        let proxy = proxy.clone();
        let stop = stop.clone();
        tokio::spawn(async move {
            let _place = place;
            let service = service_fn(move |request: Request<Incoming>| {
                let response = answer(&proxy, &request);
                async move { Ok::<_, Infallible>(response) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(Duration::from_secs(10))
                .serve_connection(TokioIo::new(accepted.io), service);
            tokio::select! {
                () = stop.cancelled() => {}
                // A client that breaks off is none of our business.
                _ = connection => {}
            }
        });
    }
}

fn answer(proxy: &Arc<Shared>, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let query = request.uri().query().unwrap_or("");
    let parameter = |name: &str| {
        query.split('&').find_map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (key == name).then_some(value)
        })
    };
    let json = parameter("format") == Some("json");
    let path = request.uri().path();
    let changes = ["/logging", "/drain_listeners", "/quitquitquit", "/healthcheck/fail", "/healthcheck/ok", "/reset_counters"];
    if changes.contains(&path) && request.method() != Method::POST {
        let text = format!("Method {} not allowed, POST required.", request.method());
        return reply(StatusCode::METHOD_NOT_ALLOWED, "text/plain", text);
    }
    let text = |text: String| reply(StatusCode::OK, "text/plain; charset=UTF-8", text);
    let object = |value: serde_json::Value| {
        reply(StatusCode::OK, "application/json", serde_json::to_string_pretty(&value).unwrap_or_default())
    };
    match path {
        "/" | "/help" => text(HELP.to_owned()),
        "/ready" if proxy.is_ready() => text("LIVE\n".to_owned()),
        "/ready" => {
            let state = if proxy.is_draining() { "DRAINING\n" } else { "PRE_INITIALIZING\n" };
            reply(StatusCode::SERVICE_UNAVAILABLE, "text/plain", state.to_owned())
        }
        "/config_dump" => object(dump::config(proxy)),
        "/clusters" if json => object(dump::clusters_json(proxy)),
        "/clusters" => text(dump::clusters_text(proxy)),
        "/listeners" if json => object(dump::listeners_json(proxy)),
        "/listeners" => text(dump::listeners_text(proxy)),
        "/certs" => object(dump::certificates(proxy)),
        "/server_info" => object(dump::server_info(proxy)),
        "/stats/prometheus" => reply(StatusCode::OK, "text/plain; version=0.0.4", stats::prometheus(proxy)),
        "/stats" if parameter("format") == Some("prometheus") => {
            reply(StatusCode::OK, "text/plain; version=0.0.4", stats::prometheus(proxy))
        }
        "/stats" if json => object(stats::json(proxy, parameter("filter"))),
        "/stats" => match stats::filter(parameter("filter")) {
            Ok(filter) => text(stats::text(proxy, filter.as_ref())),
            Err(error) => reply(StatusCode::BAD_REQUEST, "text/plain", format!("Invalid regex: \"{error}\"\n")),
        },
        "/logging" => logging(proxy, query),
        "/drain_listeners" => {
            proxy.start_draining();
            text("OK\n".to_owned())
        }
        "/quitquitquit" => {
            proxy.options.quit.notify_one();
            text("OK\n".to_owned())
        }
        "/healthcheck/fail" | "/healthcheck/ok" | "/reset_counters" => {
            let reason =
                format!("{path} has no effect here: this proxy has no health check filter, and never resets its counters\n");
            reply(StatusCode::NOT_IMPLEMENTED, "text/plain", reason)
        }
        _ => reply(StatusCode::NOT_FOUND, "text/plain", format!("invalid path. {HELP}")),
    }
}

/// Log levels are the host's to apply; they are kept and shown for each logger that was named.
fn logging(proxy: &Shared, query: &str) -> Response<Full<Bytes>> {
    let wanted = query.split('&').filter(|pair| !pair.is_empty()).find_map(|pair| pair.split_once('='));
    if let Some((_, level)) = wanted {
        let Some(level) = LEVELS.iter().position(|known| *known == level) else {
            return reply(StatusCode::BAD_REQUEST, "text/plain", "error: unknown logger level\n".to_owned());
        };
        proxy.log_level.store(level as u8, Ordering::Relaxed);
    }
    let level = LEVELS[usize::from(proxy.log_level.load(Ordering::Relaxed)).min(LEVELS.len() - 1)];
    let loggers = ["admin", "client", "config", "connection", "http", "jwt", "pool", "rbac", "router", "upstream"];
    let lines: String = loggers.iter().map(|logger| format!("  {logger}: {level}\n")).collect();
    reply(StatusCode::OK, "text/plain", format!("active loggers:\n{lines}\n"))
}

fn reply(status: StatusCode, content_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, max-age=0"));
    response
}

const HELP: &str = "admin commands are:
  /: Admin home page
  /certs: print certs on machine
  /clusters: upstream cluster status
  /config_dump: dump current configs
  /drain_listeners (POST): drain listeners
  /help: print out list of admin commands
  /listeners: print listener info
  /logging (POST): query/change logging levels
  /quitquitquit (POST): exit the server
  /ready: print server state, return 200 if LIVE, otherwise return 503
  /server_info: print server version/status information
  /stats: print server stats
  /stats/prometheus: print server stats in prometheus format
";
