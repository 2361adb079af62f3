//! Zipkin's JSON, version 2. <https://zipkin.io/zipkin-api/#/default/post_spans>

use std::sync::Arc;

use indexmap::IndexMap;
use serde::Deserialize;
use serde_json::json;

use super::model::{Event, Process, Span, parse_trace_id};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ZipkinSpan {
    trace_id: String,
    id: String,
    #[serde(default)]
    parent_id: Option<String>,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    kind: Option<String>,
    /// Microseconds since 1970.
    #[serde(default)]
    timestamp: Option<u64>,
    #[serde(default)]
    duration: Option<u64>,
    #[serde(default)]
    local_endpoint: Option<Endpoint>,
    #[serde(default)]
    remote_endpoint: Option<Endpoint>,
    #[serde(default)]
    tags: IndexMap<String, String>,
    #[serde(default)]
    annotations: Vec<Annotation>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Endpoint {
    service_name: Option<String>,
    ipv4: Option<String>,
    port: Option<u16>,
}

#[derive(Deserialize)]
struct Annotation {
    timestamp: u64,
    value: String,
}

impl ZipkinSpan {
    /// `None` without a valid identity.
    pub(crate) fn into_span(self) -> Option<Span> {
        let span_id = |text: &str| if text.len() <= 16 { parse_trace_id(text).map(|id| id as u64) } else { None };
        let local = self.local_endpoint.unwrap_or_default();
        let mut tags: Vec<_> = self.tags.into_iter().map(|(name, value)| (name, json!(value))).collect();
        if let Some(kind) = self.kind {
            tags.push(("span.kind".to_owned(), json!(kind.to_lowercase())));
        }
        if let Some(name) = self.remote_endpoint.and_then(|remote| remote.service_name) {
            tags.push(("peer.service".to_owned(), json!(name)));
        }
        let address = local.ipv4.map(|ip| ("ip".to_owned(), json!(ip)));
        let port = local.port.map(|port| ("port".to_owned(), json!(port)));
        let event = |annotation: Annotation| Event {
            time: annotation.timestamp,
            fields: vec![("event".to_owned(), json!(annotation.value))],
        };
        Some(Span {
            trace: parse_trace_id(&self.trace_id)?,
            id: span_id(&self.id)?,
            parent: self.parent_id.as_deref().and_then(span_id),
            process: Arc::new(
                Process { service: local.service_name.unwrap_or_default(), tags: address.into_iter().chain(port).collect() }
                    .bounded(),
            ),
            name: self.name.unwrap_or_default(),
            start: self.timestamp.unwrap_or_default(),
            duration: self.duration.unwrap_or_default(),
            tags,
            events: self.annotations.into_iter().map(event).collect(),
            warnings: Vec::new(),
        })
    }
}
