//! Merged metrics: the proxy's and those of the app, which the agent scrapes where the pod's annotations point.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use meshlab_net::Net;
use serde_json::Value;

use crate::probe::SOURCE;

/// More of the app's metrics is dropped (Istio's figure).
const MAX_BYTES: usize = 10 << 20;
const TIMEOUT: Duration = Duration::from_secs(5);

/// Where the app's metrics are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Scrape {
    path: String,
    port: u16,
}

impl Scrape {
    /// Reads `ISTIO_PROMETHEUS_ANNOTATIONS`; `None` when the app is not to be scraped.
    pub(crate) fn of(annotations: &Value) -> Option<Self> {
        let text = |name: &str, default: &str| match annotations[name].as_str() {
            Some(text) if !text.is_empty() => text.to_owned(),
            _ => default.to_owned(),
        };
        if text("scrape", "true") == "false" {
            return None;
        }
        Some(Self { path: text("path", "/metrics"), port: text("port", "80").parse().ok()? })
    }

    /// The app's metrics; an error says why there are none.
    pub(crate) async fn fetch<N: Net>(&self, net: &N, pod: IpAddr) -> Result<String, String> {
        let fetching = tokio::time::timeout(TIMEOUT, self.fetch_unbounded(net, pod)).await;
        fetching.map_err(|_| format!("no answer within {TIMEOUT:?}"))?
    }

    async fn fetch_unbounded<N: Net>(&self, net: &N, pod: IpAddr) -> Result<String, String> {
        let address = SocketAddr::new(pod, self.port);
        let stream = net.connect_from(SOURCE, address).await.map_err(|error| error.to_string())?;
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(|error| error.to_string())?;
        let request = Request::get(self.path.as_str())
            .header(header::HOST, address.to_string())
            .header(header::ACCEPT, "text/plain;version=0.0.4")
            .body(Empty::<Bytes>::new())
            .map_err(|error| error.to_string())?;
        let exchange = async {
            let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
            if !response.status().is_success() {
                return Err(format!("the app answered {}", response.status()));
            }
            let body = Limited::new(response.into_body(), MAX_BYTES).collect().await.map_err(|error| error.to_string())?;
            Ok(String::from_utf8_lossy(&body.to_bytes()).into_owned())
        };
        tokio::pin!(exchange, connection);
        tokio::select! {
            done = &mut exchange => done,
            ended = &mut connection => match ended {
                Ok(()) => exchange.await,
                Err(error) => Err(error.to_string()),
            },
        }
    }
}

/// Both, with the app's without the end mark that OpenMetrics puts.
pub(crate) fn merge(proxy: &str, app: Option<&str>) -> String {
    let mut merged = proxy.to_owned();
    if let Some(app) = app {
        if !merged.is_empty() && !merged.ends_with('\n') {
            merged.push('\n');
        }
        merged.push_str(app.trim_end_matches("# EOF\n").trim_end_matches("# EOF"));
    }
    merged
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn annotations_have_defaults() {
        let scrape = |annotations: Value| Scrape::of(&annotations);
        assert_eq!(scrape(json!({ "scrape": "true" })), Some(Scrape { path: "/metrics".into(), port: 80 }));
        assert_eq!(scrape(json!({ "path": "/m", "port": "9090", "scrape": "" })), Some(Scrape { path: "/m".into(), port: 9090 }));
        assert_eq!(scrape(json!({ "scrape": "false" })), None);
    }

    #[test]
    fn metrics_are_put_together() {
        assert_eq!(merge("a 1", Some("b 2\n# EOF\n")), "a 1\nb 2\n");
        assert_eq!(merge("a 1\n", None), "a 1\n");
    }
}
