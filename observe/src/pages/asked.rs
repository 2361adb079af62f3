//! What a query box is asked: the same on the pages of Grafana and of Prometheus.

use http::HeaderMap;
use url::form_urlencoded;

use super::{Language, Query, number, parameter};

/// A query and the time it is drawn for.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    /// PromQL; empty on a page that was just opened.
    pub(crate) query: String,
    pub(crate) minutes: u64,
    pub(crate) language: Language,
}

impl Asked {
    pub(crate) fn of(query: &Query, headers: &HeaderMap) -> Self {
        Self {
            query: parameter(query, "query").unwrap_or_default().to_owned(),
            minutes: number(query, "minutes", 5, 1..=60),
            language: Language::of(query, headers),
        }
    }

    /// The URL of its updates at `path`; empty if nothing is asked.
    pub(crate) fn live(&self, path: &str) -> String {
        if self.query.is_empty() {
            return String::new();
        }
        let mut parameters = form_urlencoded::Serializer::new(format!("{path}?"));
        parameters.append_pair("query", &self.query).append_pair("minutes", &self.minutes.to_string());
        parameters.append_pair("lang", self.language.code()).finish()
    }
}
