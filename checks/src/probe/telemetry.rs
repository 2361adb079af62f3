//! Metrics and traces, asked of the addons' own APIs through the API server, so that it is the same on every backend.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::{ProbeError, Prober, send};
use crate::Text;
use crate::check::{MetricsProbe, TracesProbe};

const PROMETHEUS: &str = "/api/v1/namespaces/istio-system/services/http:prometheus:9090/proxy";
const JAEGER: &str = "/api/v1/namespaces/istio-system/services/http:tracing:80/proxy/jaeger";

/// How long proxies may take to hand over the spans of a request.
const EXPORT_DEADLINE: Duration = Duration::from_secs(4);

/// Between two searches.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

pub(super) async fn metrics(prober: &Prober, probe: &MetricsProbe) -> Result<Value, ProbeError> {
    let answer = get(prober, &format!("{PROMETHEUS}/api/v1/query?query={}", encode(&probe.query))).await?;
    if answer["status"] != "success" {
        return Err(ProbeError::of(format!("query {}: {}", probe.query, answer["error"])));
    }
    let data = &answer["data"];
    let samples = match data["resultType"].as_str() {
        Some("vector") => data["result"].as_array().cloned().unwrap_or_default(),
        Some("scalar") => vec![json!({"metric": {}, "value": data["result"]})],
        other => return Err(ProbeError::of(format!("query {}: an instant vector is wanted, not {other:?}", probe.query))),
    };
    let mut total = 0.0;
    let mut result = Vec::with_capacity(samples.len());
    for sample in samples {
        let value = sample["value"][1].as_str().and_then(|text| text.parse::<f64>().ok());
        let value = value.ok_or_else(|| ProbeError::of(format!("query {}: {sample} has no value", probe.query)))?;
        total += value;
        result.push(json!({"metric": sample["metric"], "value": value}));
    }
    Ok(json!({"result": result, "total": total}))
}

pub(super) async fn traces(prober: &Prober, probe: &TracesProbe) -> Result<Value, ProbeError> {
    let Some(traffic) = &probe.after else { return search(prober, probe, None).await };
    let since = Timestamp::now();
    send(prober, &traffic.from, &traffic.request, traffic.count, traffic.concurrency).await?;
    let deadline = Instant::now() + EXPORT_DEADLINE;
    loop {
        let found = search(prober, probe, Some(since)).await?;
        let all = found["count"].as_u64() >= Some(u64::from(traffic.count));
        if all || Instant::now() >= deadline {
            return Ok(found);
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

async fn search(prober: &Prober, probe: &TracesProbe, since: Option<Timestamp>) -> Result<Value, ProbeError> {
    let tags = serde_json::to_string(&probe.tags).map_err(ProbeError::of)?;
    let query = format!("service={}&lookback={}s&limit=100&tags={}", encode(&probe.service), probe.lookback_s, encode(&tags));
    // Jaeger takes microseconds.
    let since = since.map(|time| format!("&start={}", time.as_microsecond())).unwrap_or_default();
    let answer = get(prober, &format!("{JAEGER}/api/traces?{query}{since}")).await?;
    let traces = answer["data"].as_array().ok_or_else(|| ProbeError::of(format!("tracing API: {}", answer["errors"])))?;
    let traces: Vec<Value> = traces.iter().map(trace).collect();
    Ok(json!({"count": traces.len(), "traces": traces}))
}

fn trace(trace: &Value) -> Value {
    let spans = trace["spans"].as_array().map_or(&[][..], Vec::as_slice);
    let services: BTreeSet<&str> =
        spans.iter().filter_map(|span| trace["processes"][span["processID"].as_str()?]["serviceName"].as_str()).collect();
    let operations: BTreeSet<&str> = spans.iter().filter_map(|span| span["operationName"].as_str()).collect();
    let is_error = |span: &&Value| {
        span["tags"]
            .as_array()
            .is_some_and(|tags| tags.iter().any(|tag| tag["key"] == "error" && (tag["value"] == true || tag["value"] == "true")))
    };
    json!({
        "services": services, "operations": operations, "spans": spans.len(), "errors": spans.iter().filter(is_error).count(),
    })
}

async fn get(prober: &Prober, path: &str) -> Result<Value, ProbeError> {
    let request = http::Request::get(path).body(Vec::new()).map_err(ProbeError::of)?;
    prober.client.request(request).await.map_err(|error| {
        ProbeError::of(format!("{path}: {error}")).with_hint(Text {
            ja: "可観測性のアドオンは動いていますか。`kubectl get pods -n istio-system` で確認できます".to_owned(),
            en: "are the observability addons running? `kubectl get pods -n istio-system`".to_owned(),
        })
    })
}

fn encode(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => encoded.push(char::from(byte)),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
        encoded
    })
}
