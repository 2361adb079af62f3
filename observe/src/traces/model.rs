//! Spans as they are kept, and in Jaeger's JSON.

use std::sync::Arc;

use indexmap::IndexMap;
use serde_json::{Value, json};

/// Most tags of one span, of its process, or fields of one event.
const MAX_TAGS: usize = 128;
/// Most events of one span.
const MAX_EVENTS: usize = 128;
/// Longest text of a name or a value, in bytes.
const MAX_TEXT: usize = 4096;

/// A name and what it stands for: text, boolean or number.
pub(crate) type Tag = (String, Value);

/// Who reported a span.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Process {
    pub(crate) service: String,
    pub(crate) tags: Vec<Tag>,
}

/// Something that happened within a span.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Event {
    /// Microseconds since 1970.
    pub(crate) time: u64,
    pub(crate) fields: Vec<Tag>,
}

/// One step of a request's way.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Span {
    pub(crate) trace: u128,
    pub(crate) id: u64,
    pub(crate) parent: Option<u64>,
    pub(crate) process: Arc<Process>,
    pub(crate) name: String,
    /// Microseconds since 1970.
    pub(crate) start: u64,
    /// Microseconds.
    pub(crate) duration: u64,
    pub(crate) tags: Vec<Tag>,
    pub(crate) events: Vec<Event>,
    /// What was left out.
    pub(crate) warnings: Vec<String>,
}

impl Span {
    /// Cuts what is too long or too many, and says so in `warnings`.
    pub(crate) fn bounded(mut self) -> Self {
        let mut cut = 0;
        if self.tags.len() > MAX_TAGS {
            self.warnings.push(format!("{} tags were left out", self.tags.len() - MAX_TAGS));
            self.tags.truncate(MAX_TAGS);
        }
        if self.events.len() > MAX_EVENTS {
            self.warnings.push(format!("{} events were left out", self.events.len() - MAX_EVENTS));
            self.events.truncate(MAX_EVENTS);
        }
        cut += usize::from(shorten(&mut self.name));
        cut += shorten_tags(&mut self.tags);
        for event in &mut self.events {
            event.fields.truncate(MAX_TAGS);
            cut += shorten_tags(&mut event.fields);
        }
        if cut > 0 {
            self.warnings.push(format!("{cut} texts were longer than {MAX_TEXT} bytes"));
        }
        self
    }

    /// The value of a tag, of the span itself or of its process.
    pub(crate) fn tag(&self, name: &str) -> Option<&Value> {
        self.tags.iter().chain(&self.process.tags).find(|(key, _)| key == name).map(|(_, value)| value)
    }

    /// Whether the step failed.
    pub(crate) fn is_error(&self) -> bool {
        self.tag("error").is_some_and(|error| is_text(error, "true"))
    }

    pub(crate) fn end(&self) -> u64 {
        self.start.saturating_add(self.duration)
    }
}

impl Process {
    /// Whether a tag has this value as text.
    pub(crate) fn has(&self, name: &str, value: &str) -> bool {
        self.tags.iter().any(|(key, there)| key == name && is_text(there, value))
    }

    pub(crate) fn bounded(mut self) -> Self {
        shorten(&mut self.service);
        if self.service.is_empty() {
            "unknown_service".clone_into(&mut self.service);
        }
        self.tags.truncate(MAX_TAGS);
        shorten_tags(&mut self.tags);
        self
    }
}

fn shorten(text: &mut String) -> bool {
    let long = text.len() > MAX_TEXT;
    text.truncate(text.floor_char_boundary(MAX_TEXT));
    long
}

fn shorten_tags(tags: &mut [Tag]) -> usize {
    let shorten = |(name, value): &mut Tag| match value {
        Value::String(text) => usize::from(shorten(name)) + usize::from(shorten(text)),
        _ => usize::from(shorten(name)),
    };
    tags.iter_mut().map(shorten).sum()
}

fn is_text(value: &Value, text: &str) -> bool {
    match value {
        Value::String(there) => there == text,
        other => {
            let written = other.to_string();
            written == text
        }
    }
}

/// An identity of 128 bits as Jaeger writes it.
pub(crate) fn trace_id(id: u128) -> String {
    if id >> 64 == 0 { format!("{id:016x}") } else { format!("{id:032x}") }
}

/// Reads a trace's identity.
pub(crate) fn parse_trace_id(text: &str) -> Option<u128> {
    let valid = !text.is_empty() && text.len() <= 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if valid { u128::from_str_radix(text, 16).ok().filter(|id| *id != 0) } else { None }
}

/// A trace in Jaeger's JSON.
pub(crate) fn trace_json(spans: &[Span]) -> Value {
    let mut processes: IndexMap<*const Process, (String, Value)> = IndexMap::new();
    let spans: Vec<_> = spans
        .iter()
        .map(|span| {
            let number = processes.len() + 1;
            let process = processes.entry(Arc::as_ptr(&span.process)).or_insert_with(|| {
                let process = json!({"serviceName": span.process.service, "tags": tags_json(&span.process.tags)});
                (format!("p{number}"), process)
            });
            span_json(span, &process.0)
        })
        .collect();
    let id = spans.first().map_or(Value::Null, |span| span["traceID"].clone());
    let processes: serde_json::Map<_, _> = processes.into_values().collect();
    json!({"traceID": id, "spans": spans, "processes": processes, "warnings": null})
}

fn span_json(span: &Span, process: &str) -> Value {
    let trace = trace_id(span.trace);
    let parent = span.parent.map(|parent| json!({"refType": "CHILD_OF", "traceID": trace, "spanID": format!("{parent:016x}")}));
    let events: Vec<_> =
        span.events.iter().map(|event| json!({"timestamp": event.time, "fields": tags_json(&event.fields)})).collect();
    json!({
        "traceID": trace,
        "spanID": format!("{:016x}", span.id),
        "flags": 1,
        "operationName": span.name,
        "references": parent.into_iter().collect::<Vec<_>>(),
        "startTime": span.start,
        "duration": span.duration,
        "tags": tags_json(&span.tags),
        "logs": events,
        "processID": process,
        "warnings": if span.warnings.is_empty() { Value::Null } else { json!(span.warnings) },
    })
}

fn tags_json(tags: &[Tag]) -> Vec<Value> {
    let tag = |(name, value): &Tag| {
        let kind = match value {
            Value::Bool(_) => "bool",
            Value::Number(number) if number.is_f64() => "float64",
            Value::Number(_) => "int64",
            _ => "string",
        };
        json!({"key": name, "type": kind, "value": value})
    };
    tags.iter().map(tag).collect()
}
