//! Jaeger's query API, as its UI and Grafana ask it.

use std::sync::Arc;

use axum::Json;
use axum::Router;
use axum::extract::{OriginalUri, Path, Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::StatusCode;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::model::{parse_trace_id, trace_json};
use super::store::{Search, Store};

/// Traces in one answer, if the question names no number.
const DEFAULT_LIMIT: usize = 100;
const MAX_LIMIT: usize = 1500;
const DAY: u64 = 86_400_000_000;

/// The routes below a base path.
pub(super) fn router(store: Arc<Store>) -> Router {
    Router::new()
        .route("/api/services", get(services))
        .route("/api/services/{service}/operations", get(operation_names))
        .route("/api/operations", get(operations))
        .route("/api/traces", get(traces))
        .route("/api/traces/{id}", get(trace))
        .route("/api/dependencies", get(dependencies))
        .route(
            "/api/{*path}",
            get(async |OriginalUri(uri): OriginalUri| {
                error(StatusCode::NOT_FOUND, &format!("{} is not part of the API that is supported here", uri.path()))
            }),
        )
        .with_state(store)
}

type Parameters = Query<Vec<(String, String)>>;

fn parameter<'a>(parameters: &'a Parameters, name: &str) -> Option<&'a str> {
    parameters.iter().find(|(key, value)| key == name && !value.is_empty()).map(|(_, value)| value.as_str())
}

fn ok(data: Vec<Value>) -> Response {
    let total = data.len();
    Json(json!({"data": data, "total": total, "limit": 0, "offset": 0, "errors": null})).into_response()
}

pub(super) fn error(status: StatusCode, message: &str) -> Response {
    let errors = [json!({"code": status.as_u16(), "msg": message})];
    (status, Json(json!({"data": null, "total": 0, "limit": 0, "offset": 0, "errors": errors}))).into_response()
}

fn bad(message: &str) -> Response {
    error(StatusCode::BAD_REQUEST, message)
}

async fn services(State(store): State<Arc<Store>>) -> Response {
    ok(store.services().into_iter().map(Value::String).collect())
}

async fn operation_names(State(store): State<Arc<Store>>, Path(service): Path<String>) -> Response {
    let mut names: Vec<_> = store.operations(&service).into_iter().map(|(name, _)| name).collect();
    names.dedup();
    ok(names.into_iter().map(Value::String).collect())
}

async fn operations(State(store): State<Arc<Store>>, parameters: Parameters) -> Response {
    let Some(service) = parameter(&parameters, "service") else { return bad("parameter 'service' is required") };
    let wanted = parameter(&parameters, "spanKind").unwrap_or_default();
    let operations = store.operations(service).into_iter().filter(|(_, kind)| wanted.is_empty() || kind == wanted);
    ok(operations.map(|(name, kind)| json!({"name": name, "spanKind": kind})).collect())
}

async fn traces(State(store): State<Arc<Store>>, parameters: Parameters) -> Response {
    let ids: Vec<_> = parameters.iter().filter(|(name, _)| name == "traceID").map(|(_, id)| parse_trace_id(id)).collect();
    if ids.iter().any(Option::is_none) {
        return bad("parameter 'traceID' is not a trace's identity");
    }
    if !ids.is_empty() {
        let found = ids.into_iter().flatten().take(MAX_LIMIT).filter_map(|id| store.trace(id));
        return ok(found.map(|spans| trace_json(&spans)).collect());
    }
    let search = match search(&parameters, now()) {
        Ok(search) => search,
        Err(message) => return bad(&message),
    };
    // A search walks the store.
    match tokio::task::spawn_blocking(move || store.search(&search).iter().map(|spans| trace_json(spans)).collect()).await {
        Ok(found) => ok(found),
        Err(_) => error(StatusCode::INTERNAL_SERVER_ERROR, "the search was broken off by a bug"),
    }
}

async fn trace(State(store): State<Arc<Store>>, Path(id): Path<String>) -> Response {
    let Some(id) = parse_trace_id(&id) else { return bad("the path does not end in a trace's identity") };
    match store.trace(id) {
        Some(spans) => ok(vec![trace_json(&spans)]),
        None => error(StatusCode::NOT_FOUND, "trace not found"),
    }
}

async fn dependencies(State(store): State<Arc<Store>>, parameters: Parameters) -> Response {
    let millis = |name: &str, default: u64| match parameter(&parameters, name) {
        None => Ok(default),
        Some(text) => text
            .parse::<u64>()
            .map(|millis| millis.saturating_mul(1000))
            .map_err(|_| format!("parameter '{name}' is not a number of milliseconds: {text:?}")),
    };
    let (end, lookback) = match (millis("endTs", now()), millis("lookback", DAY)) {
        (Ok(end), Ok(lookback)) => (end, lookback),
        (Err(message), _) | (_, Err(message)) => return bad(&message),
    };
    let calls = store.dependencies(end.saturating_sub(lookback), end);
    ok(calls.into_iter().map(|((parent, child), count)| json!({"parent": parent, "child": child, "callCount": count})).collect())
}

/// The parameters of a search; times are microseconds.
pub(super) fn search(parameters: &Parameters, now: u64) -> Result<Search, String> {
    let text = |name: &str| parameter(parameters, name);
    let micros = |name: &str| {
        let parse =
            |text: &str| text.parse::<u64>().map_err(|_| format!("parameter '{name}' is not a number of microseconds: {text:?}"));
        text(name).map(parse).transpose()
    };
    let span = |name: &str| {
        let parse = |text: &str| duration(text).ok_or_else(|| format!("parameter '{name}' is not a duration: {text:?}"));
        text(name).map(parse).transpose()
    };
    let service = text("service").ok_or("parameter 'service' is required")?.to_owned();
    let end = micros("end")?.unwrap_or(now);
    let lookback = text("lookback")
        .filter(|lookback| *lookback != "custom")
        .map_or(Ok(2 * DAY), |text| duration(text).ok_or_else(|| format!("parameter 'lookback' is not a duration: {text:?}")))?;
    let start = micros("start")?.unwrap_or_else(|| end.saturating_sub(lookback));
    let limit = match text("limit") {
        None => DEFAULT_LIMIT,
        Some(text) => text.parse::<usize>().map_err(|_| format!("parameter 'limit' is not a number: {text:?}"))?.min(MAX_LIMIT),
    };
    let mut tags = Vec::new();
    for (_, tag) in parameters.iter().filter(|(name, _)| name == "tag") {
        let (name, value) =
            tag.split_once(':').ok_or_else(|| format!("malformed 'tag' parameter, expecting key:value, received: {tag}"))?;
        tags.push((name.to_owned(), value.to_owned()));
    }
    for (_, object) in parameters.iter().filter(|(name, value)| name == "tags" && !value.is_empty()) {
        let object: serde_json::Map<String, Value> = serde_json::from_str(object)
            .map_err(|error| format!("malformed 'tags' parameter, cannot unmarshal JSON: {error}"))?;
        tags.extend(object.into_iter().map(|(name, value)| match value {
            Value::String(text) => (name, text),
            other => (name, other.to_string()),
        }));
    }
    let (min_duration, max_duration) = (span("minDuration")?, span("maxDuration")?);
    if max_duration.is_some_and(|most| most < min_duration.unwrap_or(0)) {
        return Err("'maxDuration' should be greater than 'minDuration'".to_owned());
    }
    let operation = text("operation").filter(|operation| *operation != "all").map(str::to_owned);
    Ok(Search { service, operation, tags, start, end, min_duration, max_duration, limit })
}

/// A duration as Go writes it, in microseconds: `1.5s`, `200ms`, `1h30m`.
pub(super) fn duration(text: &str) -> Option<u64> {
    let mut total = 0.0;
    let mut rest = text.trim();
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit_end = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let micros = match &rest[..unit_end] {
            "ns" => 1e-3,
            "us" | "µs" | "μs" => 1.0,
            "ms" => 1e3,
            "s" => 1e6,
            "m" => 6e7,
            "h" => 3.6e9,
            "d" => 8.64e10,
            _ => return None,
        };
        total += number * micros;
        rest = &rest[unit_end..];
    }
    (!text.trim().is_empty() && total.is_finite()).then_some(total as u64)
}

pub(super) fn now() -> u64 {
    u64::try_from(Timestamp::now().as_microsecond()).unwrap_or_default()
}
