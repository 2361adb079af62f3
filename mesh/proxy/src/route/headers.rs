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
    pub(crate) fn apply(&self, side: Side, headers: &mut HeaderMap, view: View<'_>) {
        Self::apply_all(&[self], side, headers, view);
    }

    /// Several changes as one, as Istio writes those of a route and of its only destination for Envoy: nobody's removal undoes
    /// what another sets.
    pub(crate) fn apply_all(all: &[&Self], side: Side, headers: &mut HeaderMap, view: View<'_>) {
        for name in all.iter().flat_map(|changes| &changes.remove) {
            headers.remove(name);
        }
        for (name, value) in all.iter().flat_map(|changes| &changes.set) {
            if let Some(value) = value.render(side, view, headers) {
                headers.insert(name, value);
            }
        }
        for (name, value) in all.iter().flat_map(|changes| &changes.add) {
            if let Some(value) = value.render(side, view, headers) {
                headers.append(name, value);
            }
        }
    }

    /// Whether there is nothing to change.
    pub(crate) fn is_empty(&self) -> bool {
        self.set.is_empty() && self.add.is_empty() && self.remove.is_empty()
    }

    /// Whether a value has command operators.
    pub(crate) fn has_operators(&self) -> bool {
        self.set.iter().chain(&self.add).any(|(_, value)| matches!(value, Value::Format(_)))
    }
}

/// Whose headers are changed: operators that read headers find these where they have not been told others.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Request,
    Response,
}

impl Value {
    fn new(value: &str) -> Result<Self, MatchError> {
        if value.contains('%') {
            return Ok(Self::Format(Format::header(value)));
        }
        HeaderValue::from_str(value).map(Self::Literal).map_err(|_| MatchError::HeaderValue(value.to_owned()))
    }

    fn render(&self, side: Side, view: View<'_>, headers: &HeaderMap) -> Option<HeaderValue> {
        match self {
            Self::Literal(value) => (!value.is_empty()).then(|| value.clone()),
            Self::Format(format) => {
                let view = match side {
                    Side::Request => View { request_headers: view.request_headers.or(Some(headers)), ..view },
                    Side::Response => View { response_headers: Some(headers), ..view },
                };
                let mut text = String::new();
                format.write(view, &mut text);
                if text.is_empty() { None } else { HeaderValue::from_str(&text).ok() }
            }
        }
    }
}
