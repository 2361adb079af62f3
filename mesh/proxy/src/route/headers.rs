//! Changes to headers (fact 16).

use http::{HeaderMap, HeaderName, HeaderValue};
use meshlab_proxy_config::HeaderOperations;

use crate::matching::{MatchError, header_name};
use crate::telemetry::format::{Format, View};

/// A compiled [`HeaderOperations`].
#[derive(Default)]
pub(crate) struct HeaderChanges {
    set: Vec<(HeaderName, Value)>,
    add: Vec<(HeaderName, Value)>,
    remove: Vec<HeaderName>,
}

enum Value {
    Literal(HeaderValue),
    /// It has Envoy's command operators (`%DOWNSTREAM_REMOTE_ADDRESS%`).
    Format(Format),
}

impl HeaderChanges {
    pub(crate) fn new(config: &HeaderOperations) -> Result<Self, MatchError> {
        let compile = |entries: &std::collections::BTreeMap<String, String>| {
            entries.iter().map(|(name, value)| Ok((header_name(name)?, Value::new(value)?))).collect::<Result<_, MatchError>>()
        };
        Ok(Self {
            set: compile(&config.set)?,
            add: compile(&config.add)?,
            remove: config.remove.iter().map(|name| header_name(name)).collect::<Result<_, _>>()?,
        })
    }

    /// Removes first, then sets, then adds, as Envoy does. An empty value is not set: Envoy drops it.
    pub(crate) fn apply(&self, headers: &mut HeaderMap, view: View<'_>) {
        for name in &self.remove {
            headers.remove(name);
        }
        for (name, value) in &self.set {
            if let Some(value) = value.render(view, headers) {
                headers.insert(name, value);
            }
        }
        for (name, value) in &self.add {
            if let Some(value) = value.render(view, headers) {
                headers.append(name, value);
            }
        }
    }
}

impl Value {
    fn new(value: &str) -> Result<Self, MatchError> {
        if value.contains('%') {
            return Ok(Self::Format(Format::header(value)));
        }
        HeaderValue::from_str(value).map(Self::Literal).map_err(|_| MatchError::HeaderValue(value.to_owned()))
    }

    fn render(&self, view: View<'_>, headers: &HeaderMap) -> Option<HeaderValue> {
        match self {
            Self::Literal(value) => Some(value.clone()),
            Self::Format(format) => {
                let view = if view.request_headers.is_none() { View { request_headers: Some(headers), ..view } } else { view };
                let mut text = String::new();
                format.write(view, &mut text);
                if text.is_empty() { None } else { HeaderValue::from_str(&text).ok() }
            }
        }
    }
}
