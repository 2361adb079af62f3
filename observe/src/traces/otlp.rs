//! OTLP: its messages, as protobuf and as JSON, and what they become.
//!
//! <https://opentelemetry.io/docs/specs/otlp/>; field numbers are those of `opentelemetry-proto` 1.x.

use std::sync::Arc;

use prost::{Message, Oneof};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use super::model::{Event, Process, Span, Tag};

#[derive(Clone, PartialEq, Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct ExportRequest {
    #[prost(message, repeated, tag = "1")]
    pub(crate) resource_spans: Vec<ResourceSpans>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ExportResponse {
    #[prost(message, optional, tag = "1")]
    pub(crate) partial_success: Option<PartialSuccess>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct PartialSuccess {
    #[prost(int64, tag = "1")]
    pub(crate) rejected_spans: i64,
    #[prost(string, tag = "2")]
    pub(crate) error_message: String,
}

/// `google.rpc.Status`, the error of OTLP over HTTP.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Status {
    #[prost(int32, tag = "1")]
    pub(crate) code: i32,
    #[prost(string, tag = "2")]
    pub(crate) message: String,
}

#[derive(Clone, PartialEq, Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct ResourceSpans {
    #[prost(message, optional, tag = "1")]
    resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    scope_spans: Vec<ScopeSpans>,
}

#[derive(Clone, PartialEq, Message, Deserialize)]
#[serde(default)]
struct Resource {
    #[prost(message, repeated, tag = "1")]
    attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Message, Deserialize)]
#[serde(default)]
struct ScopeSpans {
    #[prost(message, optional, tag = "1")]
    scope: Option<Scope>,
    #[prost(message, repeated, tag = "2")]
    spans: Vec<OtlpSpan>,
}

#[derive(Clone, PartialEq, Message, Deserialize)]
#[serde(default)]
struct Scope {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    version: String,
}

#[derive(Clone, PartialEq, Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct OtlpSpan {
    #[prost(bytes = "vec", tag = "1")]
    #[serde(deserialize_with = "hexadecimal")]
    trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    #[serde(deserialize_with = "hexadecimal")]
    span_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    #[serde(deserialize_with = "hexadecimal")]
    parent_span_id: Vec<u8>,
    #[prost(string, tag = "5")]
    name: String,
    #[prost(int32, tag = "6")]
    kind: i32,
    #[prost(fixed64, tag = "7")]
    #[serde(deserialize_with = "number")]
    start_time_unix_nano: u64,
    #[prost(fixed64, tag = "8")]
    #[serde(deserialize_with = "number")]
    end_time_unix_nano: u64,
    #[prost(message, repeated, tag = "9")]
    attributes: Vec<KeyValue>,
    #[prost(message, repeated, tag = "11")]
    events: Vec<OtlpEvent>,
    #[prost(message, optional, tag = "15")]
    status: Option<SpanStatus>,
}

#[derive(Clone, PartialEq, Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct OtlpEvent {
    #[prost(fixed64, tag = "1")]
    #[serde(deserialize_with = "number")]
    time_unix_nano: u64,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(message, repeated, tag = "3")]
    attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Message, Deserialize)]
#[serde(default)]
struct SpanStatus {
    #[prost(string, tag = "2")]
    message: String,
    #[prost(int32, tag = "3")]
    code: i32,
}

#[derive(Clone, PartialEq, Message, Deserialize)]
#[serde(default)]
struct KeyValue {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(message, optional, tag = "2")]
    value: Option<AnyValue>,
}

#[derive(Clone, PartialEq, Message, Deserialize)]
#[serde(default)]
struct AnyValue {
    #[prost(oneof = "Variant", tags = "1, 2, 3, 4, 5, 6, 7")]
    #[serde(flatten)]
    value: Option<Variant>,
}

#[derive(Clone, PartialEq, Oneof, Deserialize)]
enum Variant {
    #[prost(string, tag = "1")]
    #[serde(rename = "stringValue")]
    Text(String),
    #[prost(bool, tag = "2")]
    #[serde(rename = "boolValue")]
    Bool(bool),
    #[prost(int64, tag = "3")]
    #[serde(deserialize_with = "number")]
    #[serde(rename = "intValue")]
    Int(i64),
    #[prost(double, tag = "4")]
    #[serde(rename = "doubleValue")]
    Double(f64),
    #[prost(message, tag = "5")]
    #[serde(rename = "arrayValue")]
    List(ArrayValue),
    #[prost(message, tag = "6")]
    #[serde(rename = "kvlistValue")]
    Map(KeyValueList),
    #[prost(bytes = "vec", tag = "7")]
    #[serde(deserialize_with = "base64")]
    #[serde(rename = "bytesValue")]
    Bytes(Vec<u8>),
}

#[derive(Clone, PartialEq, Message, Deserialize)]
#[serde(default)]
struct ArrayValue {
    #[prost(message, repeated, tag = "1")]
    values: Vec<AnyValue>,
}

#[derive(Clone, PartialEq, Message, Deserialize)]
#[serde(default)]
struct KeyValueList {
    #[prost(message, repeated, tag = "1")]
    values: Vec<KeyValue>,
}

/// Identities are hexadecimal in OTLP's JSON, other than protobuf's JSON has it.
fn hexadecimal<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let digit =
        |byte: u8| char::from(byte).to_digit(16).ok_or_else(|| serde::de::Error::custom("an identity is not hexadecimal"));
    text.as_bytes()
        .chunks(2)
        .map(|pair| match pair {
            [high, low] => Ok((digit(*high)? * 16 + digit(*low)?) as u8),
            _ => Err(serde::de::Error::custom("an identity has an odd number of digits")),
        })
        .collect()
}

fn base64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    use ::base64::Engine;
    let text = String::deserialize(deserializer)?;
    ::base64::engine::general_purpose::STANDARD.decode(text).map_err(serde::de::Error::custom)
}

/// Protobuf's JSON has 64 bit numbers as text.
fn number<'de, D: Deserializer<'de>, T>(deserializer: D) -> Result<T, D::Error>
where
    T: std::str::FromStr + Deserialize<'de>,
{
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum NumberOrText<T> {
        Number(T),
        Text(String),
    }
    match NumberOrText::deserialize(deserializer)? {
        NumberOrText::Number(number) => Ok(number),
        NumberOrText::Text(text) => text.parse().map_err(|_| serde::de::Error::custom(format!("{text:?} is not a number"))),
    }
}

impl ExportRequest {
    /// The spans, and how many had no valid identity.
    pub(crate) fn into_spans(self) -> (Vec<Span>, u64) {
        let (mut spans, mut invalid) = (Vec::new(), 0);
        for of_resource in self.resource_spans {
            let process = Arc::new(process(of_resource.resource.unwrap_or_default()));
            for of_scope in of_resource.scope_spans {
                let scope = of_scope.scope.unwrap_or_default();
                for span in of_scope.spans {
                    match span.into_span(&process, &scope) {
                        Some(span) => spans.push(span),
                        None => invalid += 1,
                    }
                }
            }
        }
        (spans, invalid)
    }
}

fn process(resource: Resource) -> Process {
    let mut service = String::new();
    let mut tags = tags(resource.attributes);
    tags.retain(|(name, value)| match (name.as_str(), value.as_str()) {
        ("service.name", Some(name)) => {
            name.clone_into(&mut service);
            false
        }
        _ => true,
    });
    Process { service, tags }.bounded()
}

impl OtlpSpan {
    /// `None` without a valid identity.
    fn into_span(self, process: &Arc<Process>, scope: &Scope) -> Option<Span> {
        let trace: [u8; 16] = self.trace_id.try_into().ok()?;
        let id: [u8; 8] = self.span_id.try_into().ok()?;
        let (trace, id) = (u128::from_be_bytes(trace), u64::from_be_bytes(id));
        if trace == 0 || id == 0 {
            return None;
        }
        let parent = <[u8; 8]>::try_from(self.parent_span_id).ok().map(u64::from_be_bytes).filter(|parent| *parent != 0);
        let mut tags = tags(self.attributes);
        let mut add = |name: &str, value: Value| {
            if value != "" && !tags.iter().any(|(known, _)| known == name) {
                tags.push((name.to_owned(), value));
            }
        };
        let kind = match self.kind {
            1 => "internal",
            2 => "server",
            3 => "client",
            4 => "producer",
            5 => "consumer",
            _ => "",
        };
        add("span.kind", json!(kind));
        add("otel.scope.name", json!(scope.name));
        add("otel.scope.version", json!(scope.version));
        match self.status {
            Some(SpanStatus { code: 1, .. }) => add("otel.status_code", json!("OK")),
            Some(SpanStatus { code: 2, message }) => {
                add("error", json!(true));
                add("otel.status_code", json!("ERROR"));
                add("otel.status_description", json!(message));
            }
            _ => {}
        }
        let events = self.events.into_iter().map(|event| {
            let name = (!event.name.is_empty()).then(|| ("event".to_owned(), json!(event.name)));
            Event { time: event.time_unix_nano / 1000, fields: name.into_iter().chain(self::tags(event.attributes)).collect() }
        });
        Some(Span {
            trace,
            id,
            parent,
            process: process.clone(),
            name: self.name,
            start: self.start_time_unix_nano / 1000,
            duration: self.end_time_unix_nano.saturating_sub(self.start_time_unix_nano) / 1000,
            events: events.collect(),
            tags,
            warnings: Vec::new(),
        })
    }
}

fn tags(attributes: Vec<KeyValue>) -> Vec<Tag> {
    attributes.into_iter().map(|attribute| (attribute.key, flat(attribute.value.unwrap_or_default().into_json()))).collect()
}

/// Tags are not nested: lists and maps are JSON text.
fn flat(value: Value) -> Value {
    match value {
        Value::Array(_) | Value::Object(_) => Value::String(value.to_string()),
        Value::Null => Value::String(String::new()),
        other => other,
    }
}

impl AnyValue {
    fn into_json(self) -> Value {
        use ::base64::Engine;
        match self.value {
            None => Value::Null,
            Some(Variant::Text(text)) => Value::String(text),
            Some(Variant::Bool(value)) => Value::Bool(value),
            Some(Variant::Int(value)) => json!(value),
            Some(Variant::Double(value)) => json!(value),
            Some(Variant::List(list)) => list.values.into_iter().map(Self::into_json).collect(),
            Some(Variant::Map(map)) => {
                let entry = |entry: KeyValue| (entry.key, entry.value.unwrap_or_default().into_json());
                Value::Object(map.values.into_iter().map(entry).collect())
            }
            Some(Variant::Bytes(bytes)) => Value::String(::base64::engine::general_purpose::STANDARD.encode(bytes)),
        }
    }
}

/// Spans of one trace: identity, parent, service and name; each begins a millisecond after the one before, and takes five.
#[cfg(test)]
pub(crate) fn test_request(trace: &str, spans: &[(u64, Option<u64>, &str, &str)]) -> ExportRequest {
    let bytes = |id: u64| id.to_be_bytes().to_vec();
    let attribute = |key: &str, value: &str| KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(Variant::Text(value.to_owned())) }),
    };
    let trace = super::model::parse_trace_id(trace).unwrap_or_default().to_be_bytes().to_vec();
    let resource = |(id, parent, service, name): &(u64, Option<u64>, &str, &str)| ResourceSpans {
        resource: Some(Resource { attributes: vec![attribute("service.name", service)] }),
        scope_spans: vec![ScopeSpans {
            scope: None,
            spans: vec![OtlpSpan {
                trace_id: trace.clone(),
                span_id: bytes(*id),
                parent_span_id: parent.map(bytes).unwrap_or_default(),
                name: (*name).to_owned(),
                kind: 2,
                start_time_unix_nano: 1_700_000_000_000_000_000 + id * 1_000_000,
                end_time_unix_nano: 1_700_000_000_000_000_000 + id * 1_000_000 + 5_000_000,
                attributes: vec![attribute("course", "phase3"), attribute("http.status_code", "200")],
                events: Vec::new(),
                status: None,
            }],
        }],
    };
    ExportRequest { resource_spans: spans.iter().map(resource).collect() }
}
