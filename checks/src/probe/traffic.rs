//! Requests, sent by the lab's probers from where they stand.

use std::collections::BTreeMap;

use meshlab_probe_protocol::{HttpRequest, Outcome, PORT, ProbeRequest, ProbeResponse};
use serde_json::{Map, Value, json};

use super::{ProbeError, Prober, ready_pods};
use crate::Text;
use crate::check::TrafficProbe;

fn prober_gone() -> Text {
    Text {
        ja: "`meshlab reset` でラボのクライアントが元に戻ります".to_owned(),
        en: "`meshlab reset` brings the lab's own clients back".to_owned(),
    }
}

pub(super) async fn look(prober: &Prober, probe: &TrafficProbe) -> Result<Value, ProbeError> {
    let outcomes = send(prober, &probe.from, &probe.request, probe.count, probe.concurrency).await?;
    Ok(match outcomes.as_slice() {
        [one] => observation(one),
        many => summary(many),
    })
}

/// Sends `request` `count` times from a client of the lab.
pub(crate) async fn send(
    prober: &Prober,
    from: &str,
    request: &HttpRequest,
    count: u32,
    concurrency: u32,
) -> Result<Vec<Outcome>, ProbeError> {
    let place = prober.clients.get(from).ok_or_else(|| ProbeError::of(format!("the lab has no client {from:?}")))?;
    let pods = ready_pods(&prober.client, &place.namespace, &place.label_selector).await?;
    let pod = pods.first().ok_or_else(|| {
        let (labels, namespace) = (&place.label_selector, &place.namespace);
        let message = Text {
            ja: format!("送信元にする Ready な Pod {labels} が名前空間 {namespace} にありません"),
            en: format!("no ready pod {labels} in namespace {namespace} to send from"),
        };
        ProbeError::new(message).with_hint(prober_gone())
    })?;
    let body = ProbeRequest { request: request.clone(), count, concurrency };
    let body = serde_json::to_vec(&body).map_err(ProbeError::of)?;
    let call = http::Request::post(format!("/api/v1/namespaces/{}/pods/{pod}:{PORT}/proxy/probe", place.namespace))
        .header("content-type", "application/json")
        .body(body)
        .map_err(ProbeError::of)?;
    let answer: ProbeResponse = prober
        .client
        .request(call)
        .await
        .map_err(|error| ProbeError::of(format!("prober {}/{pod}: {error}", place.namespace)).with_hint(prober_gone()))?;
    Ok(answer.outcomes)
}

/// One outcome as expectations see it.
pub(crate) fn observation(outcome: &Outcome) -> Value {
    let body = serde_json::from_str(&outcome.body).unwrap_or_else(|_| Value::String(outcome.body.clone()));
    let mut value = json!({
        "status": outcome.status,
        "headers": outcome.headers,
        "body": body,
        "durationMs": outcome.duration_ms,
        "error": outcome.error,
    });
    if !outcome.peer_names.is_empty() {
        value["peerNames"] = json!(outcome.peer_names);
    }
    value
}

fn summary(outcomes: &[Outcome]) -> Value {
    let mut statuses: BTreeMap<String, u64> = BTreeMap::new();
    let mut errors: BTreeMap<String, u64> = BTreeMap::new();
    for outcome in outcomes {
        if let Some(status) = outcome.status {
            *statuses.entry(status.to_string()).or_default() += 1;
        }
        if let Some(failure) = &outcome.error {
            let kind = serde_json::to_value(failure.kind).ok();
            *errors.entry(kind.as_ref().and_then(Value::as_str).unwrap_or("unknown").to_owned()).or_default() += 1;
        }
    }
    let mut durations: Vec<u64> = outcomes.iter().map(|outcome| outcome.duration_ms).collect();
    durations.sort_unstable();
    let mut duration = Map::new();
    for (name, value) in [("min", durations.first()), ("p50", durations.get(durations.len() / 2)), ("max", durations.last())] {
        duration.insert(name.to_owned(), json!(value));
    }
    let responses: Vec<Value> = outcomes.iter().map(observation).collect();
    json!({
        "count": outcomes.len(), "statuses": statuses, "errors": errors, "durationMs": duration, "responses": responses,
    })
}

/// What stands at a dotted path such as `body.version`; header names keep their dashes.
pub(crate) fn field(observation: &Value, path: &str) -> Option<String> {
    let found = path.split('.').try_fold(observation, |value, key| value.get(key))?;
    match found {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}
