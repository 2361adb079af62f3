//! Prometheus' HTTP API. <https://prometheus.io/docs/prometheus/latest/querying/api/>

mod federate;
mod parameters;
mod response;

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::extract::{OriginalUri, Path, State};
use axum::http::StatusCode;
use axum::routing::{any, get};
use serde_json::{Value, json};
use tokio::sync::{Semaphore, oneshot};

use super::labels::Labels;
use super::matcher::Matcher;
use super::promql::{self, Answer, Budget, QueryError};
use super::scrape::{Pool, now};
use super::tsdb::Tsdb;
use parameters::Parameters;
use response::ok;
pub(crate) use response::{ApiError, ApiResult};

/// Queries evaluated at the same time; the next ones wait.
const CONCURRENT_QUERIES: usize = 4;

/// What the handlers share.
pub(crate) struct Server {
    pub(crate) tsdb: Arc<Tsdb>,
    pub(crate) pool: Arc<Pool>,
    pub(crate) started: jiff::Timestamp,
    pub(crate) interval: std::time::Duration,
    permits: Semaphore,
}

impl Server {
    pub(crate) fn new(tsdb: Arc<Tsdb>, pool: Arc<Pool>, interval: std::time::Duration) -> Self {
        Self { tsdb, pool, started: jiff::Timestamp::now(), interval, permits: Semaphore::new(CONCURRENT_QUERIES) }
    }

    /// Evaluates away from the tasks that serve.
    pub(crate) async fn evaluate<T: Send + 'static>(
        self: &Arc<Self>,
        evaluate: impl FnOnce(&Tsdb) -> Result<T, QueryError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let Ok(_permit) = self.permits.acquire().await else { return Err(ApiError::internal("the server is ending")) };
        let tsdb = self.tsdb.clone();
        let (sender, receiver) = oneshot::channel();
        let thread = std::thread::Builder::new().name("promql".to_owned()).stack_size(promql::STACK);
        // Nobody waits for the answer any more if the client has gone.
        let spawned = thread.spawn(move || drop(sender.send(evaluate(&tsdb))));
        spawned.map_err(|error| ApiError::internal(&format!("no thread to evaluate in: {error}")))?;
        receiver.await.map_err(|_| ApiError::internal("the evaluation was broken off by a bug"))?.map_err(ApiError::from)
    }
}

type Shared = State<Arc<Server>>;

/// The routes of the API, of federation and of health.
pub(crate) fn router(server: Arc<Server>) -> Router {
    let api = Router::new()
        .route("/query", any(query))
        .route("/query_range", any(query_range))
        .route("/series", any(series))
        .route("/labels", any(labels))
        .route("/label/{name}/values", get(label_values))
        .route("/metadata", get(metadata))
        .route("/targets", get(targets))
        .route("/rules", get(async || ok(json!({"groups": []}))))
        .route("/alerts", get(async || ok(json!({"alerts": []}))))
        .route("/query_exemplars", any(async || ok(json!([]))))
        .route("/status/buildinfo", get(async || ok(build_info())))
        .route("/status/runtimeinfo", get(runtime_info))
        .route("/status/tsdb", get(tsdb_status))
        .route("/status/flags", get(flags))
        .route("/status/config", get(config))
        .fallback(async |OriginalUri(uri): OriginalUri| {
            ApiError::not_found(&format!("{} is not part of the API that is supported here", uri.path()))
        });
    Router::new()
        .nest("/api/v1", api)
        .route("/federate", get(federate::federate))
        .route("/metrics", get(federate::own_metrics))
        .route("/-/healthy", get("Prometheus Server is Healthy.\n"))
        .route("/-/ready", get("Prometheus Server is Ready.\n"))
        .with_state(server)
}

async fn query(State(server): Shared, parameters: Parameters) -> ApiResult {
    let query = parameters.required("query")?.to_owned();
    let time = parameters.time("time")?.unwrap_or_else(now);
    let budget = parameters.budget()?;
    let answer = server.evaluate(move |tsdb| promql::instant(tsdb, &query, time, budget)).await?;
    Ok(response::instant(answer, time))
}

async fn query_range(State(server): Shared, parameters: Parameters) -> ApiResult {
    let query = parameters.required("query")?.to_owned();
    let missing = |name| ApiError::bad_data(&format!("invalid parameter \"{name}\": cannot parse \"\" to a valid timestamp"));
    let start = parameters.time("start")?.ok_or_else(|| missing("start"))?;
    let end = parameters.time("end")?.ok_or_else(|| missing("end"))?;
    let step = parameters.step()?;
    let budget = parameters.budget()?;
    let series = server.evaluate(move |tsdb| promql::range(tsdb, &query, (start, end, step), budget)).await?;
    Ok(response::matrix(series))
}

/// The selectors and the time that `series`, `labels` and `label/…/values` take.
struct Selection {
    selectors: Vec<Vec<Matcher>>,
    start: i64,
    end: i64,
    limit: usize,
}

impl Selection {
    fn of(parameters: &Parameters) -> Result<Self, ApiError> {
        let selectors = parameters.all("match[]").map(promql::selector).collect::<Result<Vec<_>, _>>()?;
        let start = parameters.time("start")?.unwrap_or(i64::MIN / 4);
        let end = parameters.time("end")?.unwrap_or(i64::MAX / 4);
        let limit = match parameters.get("limit") {
            None | Some("0" | "") => usize::MAX,
            Some(text) => {
                text.parse().map_err(|_| ApiError::bad_data(&format!("invalid parameter \"limit\": cannot parse {text:?}")))?
            }
        };
        Ok(Self { selectors, start, end, limit })
    }
}

async fn series(State(server): Shared, parameters: Parameters) -> ApiResult {
    let selection = Selection::of(&parameters)?;
    if selection.selectors.is_empty() {
        return Err(ApiError::bad_data("no match[] parameter provided"));
    }
    let found = server.evaluate(move |tsdb| {
        let found = tsdb.select_any(&selection.selectors, selection.start - 1, selection.end);
        Ok(found.into_iter().take(selection.limit).collect::<Vec<Labels>>())
    });
    Ok(ok(found.await?))
}

async fn labels(State(server): Shared, parameters: Parameters) -> ApiResult {
    let selection = Selection::of(&parameters)?;
    let found = server.evaluate(move |tsdb| {
        let found = tsdb.label_names(&selection.selectors, selection.start - 1, selection.end);
        Ok(found.into_iter().take(selection.limit).collect::<Vec<_>>())
    });
    Ok(ok(found.await?))
}

async fn label_values(State(server): Shared, Path(name): Path<String>, parameters: Parameters) -> ApiResult {
    let selection = Selection::of(&parameters)?;
    if name.is_empty() {
        return Err(ApiError::bad_data("invalid label name: \"\""));
    }
    let found = server.evaluate(move |tsdb| {
        let found = tsdb.label_values(&name, &selection.selectors, selection.start - 1, selection.end);
        Ok(found.into_iter().take(selection.limit).collect::<Vec<_>>())
    });
    Ok(ok(found.await?))
}

async fn metadata(State(server): Shared, parameters: Parameters) -> ApiResult {
    let wanted = parameters.get("metric").unwrap_or_default();
    let limit = parameters.get("limit").and_then(|limit| limit.parse().ok()).filter(|limit| *limit > 0).unwrap_or(usize::MAX);
    let mut metrics = BTreeMap::new();
    for status in server.pool.lock().values() {
        for (name, metadata) in &status.lock().metadata {
            let entries: &mut Vec<_> = metrics.entry(name.clone()).or_default();
            if !entries.contains(metadata) {
                entries.push(metadata.clone());
            }
        }
    }
    metrics.retain(|name, _| wanted.is_empty() || name == wanted);
    Ok(ok(metrics.into_iter().take(limit).collect::<BTreeMap<_, _>>()))
}

async fn targets(State(server): Shared) -> axum::response::Response {
    let interval = format!("{}s", server.interval.as_secs_f64());
    let target = |(target, status): (&super::target::Target, &Arc<parking_lot::Mutex<super::scrape::Status>>)| {
        let status = status.lock();
        json!({
            "discoveredLabels": {"__address__": target.address.to_string(), "__metrics_path__": target.path, "__scheme__": target.scheme, "job": target.job},
            "labels": target.labels,
            "scrapePool": target.job,
            "scrapeUrl": target.url(),
            "globalUrl": target.url(),
            "lastError": status.error,
            "lastScrape": status.last.map_or_else(|| "0001-01-01T00:00:00Z".to_owned(), |last| last.to_string()),
            "lastScrapeDuration": status.duration.as_secs_f64(),
            "health": status.up.map_or("unknown", |up| if up { "up" } else { "down" }),
            "scrapeInterval": interval,
            "scrapeTimeout": interval,
        })
    };
    let active: Vec<Value> = server.pool.lock().iter().map(target).collect();
    ok(json!({"activeTargets": active, "droppedTargets": [], "droppedTargetCounts": {}}))
}

/// What this says it is: clients choose features by Prometheus' version.
fn build_info() -> Value {
    json!({"version": "3.5.0", "revision": concat!("meshlab-", env!("CARGO_PKG_VERSION")), "branch": "", "buildUser": "", "buildDate": "", "goVersion": ""})
}

async fn runtime_info(State(server): Shared) -> axum::response::Response {
    ok(json!({
        "startTime": server.started.to_string(), "reloadConfigSuccess": true, "lastConfigTime": server.started.to_string(), "corruptionCount": 0,
        "storageRetention": format!("{}s", server.tsdb.limits.retention / 1000),
    }))
}

async fn tsdb_status(State(server): Shared) -> axum::response::Response {
    let size = server.tsdb.size();
    let dropped: serde_json::Map<_, _> =
        server.tsdb.dropped.read().into_iter().map(|(reason, count)| (reason.to_owned(), count.into())).collect();
    ok(json!({
        "headStats": {"numSeries": size.series, "chunkCount": size.chunks, "numSamples": size.samples, "bytes": size.bytes},
        "seriesCountByMetricName": [], "labelValueCountByLabelName": [], "memoryInBytesByLabelName": [], "seriesCountByLabelValuePair": [],
        "dropped": dropped,
    }))
}

async fn flags(State(server): Shared) -> axum::response::Response {
    ok(json!({"query.lookback-delta": "5m", "storage.tsdb.retention.time": format!("{}s", server.tsdb.limits.retention / 1000)}))
}

async fn config(State(server): Shared) -> axum::response::Response {
    ok(json!({"yaml": format!(
        "global:\n  scrape_interval: {}s\n  evaluation_interval: 1m\nscrape_configs:\n- job_name: prometheus\n- job_name: kubernetes-pods\n  honor_labels: true\n",
        server.interval.as_secs_f64()
    )}))
}
