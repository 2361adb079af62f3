//! Questions to a Prometheus over the network.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use meshlab_net::Net;
use serde::Deserialize;
use serde::de::IgnoredAny;
use url::form_urlencoded;

use crate::client::{Fetch, FetchError};

const TIMEOUT: Duration = Duration::from_secs(15);
const MAX_BYTES: usize = 32 << 20;

type Get = Arc<dyn Fn(String) -> BoxFuture<'static, Result<Bytes, String>> + Send + Sync>;

/// A client of Prometheus' HTTP API; cloning is cheap.
#[derive(Clone)]
pub(crate) struct Prometheus {
    get: Get,
}

/// Labels of a series.
pub(crate) type Metric = BTreeMap<String, String>;

/// A series: seconds since 1970, and values.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Series {
    pub(crate) metric: Metric,
    pub(crate) points: Vec<(f64, f64)>,
}

#[derive(Deserialize)]
struct Answer {
    data: Data,
}

#[derive(Deserialize)]
#[serde(tag = "resultType", content = "result", rename_all = "lowercase")]
enum Data {
    Vector(Vec<Instant>),
    Matrix(Vec<Range>),
    Scalar((f64, String)),
    String(IgnoredAny),
}

#[derive(Deserialize)]
struct Instant {
    metric: Metric,
    value: (f64, String),
}

#[derive(Deserialize)]
struct Range {
    metric: Metric,
    values: Vec<(f64, String)>,
}

#[derive(Deserialize)]
struct Refusal {
    error: String,
}

impl Prometheus {
    /// `host` and port, as `prometheus.istio-system` and 9090.
    pub(crate) fn new<N: Net>(net: N, host: &str, port: u16) -> Self {
        let host: Arc<str> = host.into();
        let get = move |path: String| -> BoxFuture<'static, Result<Bytes, String>> {
            let (net, host) = (net.clone(), host.clone());
            Box::pin(async move {
                let unreachable = |error: &dyn std::fmt::Display| format!("Prometheus at {host}:{port} does not answer: {error}");
                let addresses = net.resolve(&host).await.map_err(|error| unreachable(&error))?;
                let address = *addresses.first().ok_or_else(|| unreachable(&"it has no address"))?;
                let address = SocketAddr::new(address, port);
                let fetch = Fetch {
                    address,
                    host: &host,
                    path: &path,
                    accept: "application/json",
                    timeout: TIMEOUT,
                    max_bytes: MAX_BYTES,
                };
                fetch.get(&net).await.map_err(|error| match error {
                    FetchError::Status(_, body) => match serde_json::from_str::<Refusal>(&body) {
                        Ok(refusal) => refusal.error,
                        Err(_) => body,
                    },
                    other => unreachable(&other),
                })
            })
        };
        Self { get: Arc::new(get) }
    }

    /// The value of each series now.
    pub(crate) async fn query(&self, query: &str) -> Result<Vec<(Metric, f64)>, String> {
        let path = form_urlencoded::Serializer::new("/api/v1/query?".to_owned()).append_pair("query", query).finish();
        Ok(match self.ask(path).await? {
            Data::Vector(samples) => samples.into_iter().map(|sample| (sample.metric, number(&sample.value.1))).collect(),
            Data::Scalar((_, value)) => vec![(Metric::new(), number(&value))],
            Data::Matrix(_) | Data::String(_) => return Err("an instant vector is expected".to_owned()),
        })
    }

    /// The values of each series from `start` to `end`, in seconds.
    pub(crate) async fn range(&self, query: &str, start: f64, end: f64, step: f64) -> Result<Vec<Series>, String> {
        let path = form_urlencoded::Serializer::new("/api/v1/query_range?".to_owned())
            .append_pair("query", query)
            .append_pair("start", &start.to_string())
            .append_pair("end", &end.to_string())
            .append_pair("step", &step.to_string())
            .finish();
        let series = |range: Range| Series {
            metric: range.metric,
            points: range.values.iter().map(|(time, value)| (*time, number(value))).collect(),
        };
        match self.ask(path).await? {
            Data::Matrix(ranges) => Ok(ranges.into_iter().map(series).collect()),
            _ => Err("a range of values is expected".to_owned()),
        }
    }

    /// The values of a label.
    pub(crate) async fn label_values(&self, name: &str) -> Result<Vec<String>, String> {
        #[derive(Deserialize)]
        struct Values {
            data: Vec<String>,
        }
        let body = (self.get)(format!("/api/v1/label/{name}/values")).await?;
        serde_json::from_slice::<Values>(&body).map(|values| values.data).map_err(|error| error.to_string())
    }

    async fn ask(&self, path: String) -> Result<Data, String> {
        let body = (self.get)(path).await?;
        serde_json::from_slice::<Answer>(&body)
            .map(|answer| answer.data)
            .map_err(|error| format!("Prometheus' answer is not understood: {error}"))
    }
}

fn number(text: &str) -> f64 {
    match text {
        "+Inf" => f64::INFINITY,
        "-Inf" => f64::NEG_INFINITY,
        text => text.parse().unwrap_or(f64::NAN),
    }
}
