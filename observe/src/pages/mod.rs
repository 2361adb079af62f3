//! What the pages of all addons share: the frame, templates, languages, charts, headers, live updates.
//!
//! Everything is rendered on the server. Templates escape all text, the content security policy forbids scripts and styles
//! other than the static files, and links are relative, so that pages work behind any proxy.

mod asked;
pub(crate) mod chart;
pub(crate) mod language;
mod live;
mod texts;

use std::sync::LazyLock;

use axum::Router;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use minijinja::value::Serde;
use minijinja::{Environment, UndefinedBehavior, Value, context};
use serde::Serialize;
use url::form_urlencoded;

pub(crate) use asked::Asked;
pub(crate) use language::Language;
pub(crate) use live::live;

/// Scripts and styles come from here and nowhere else, and nothing is framed by others.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; \
    base-uri 'none'; frame-ancestors 'self'";

macro_rules! templates {
    ($($name:literal),* $(,)?) => {
        const SOURCES: &[(&str, &str)] = &[$(($name, include_str!(concat!("templates/", $name)))),*];
    };
}

templates![
    "base.html",
    "macros.html",
    "error.html",
    "overview.html",
    "overview_part.html",
    "graph.html",
    "graph_picture.html",
    "logs.html",
    "logs_part.html",
    "dashboards.html",
    "dashboard.html",
    "panels.html",
    "query.html",
    "query_part.html",
    "targets.html",
    "targets_part.html",
    "search.html",
    "trace.html",
];

/// Compiled once; what they are filled with is the caller's.
static TEMPLATES: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.add_filter("urlencode", |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>());
    for (name, source) in SOURCES {
        if let Err(error) = environment.add_template(name, source) {
            tracing::error!(%error, name, "a template is broken");
        }
    }
    environment
});

/// One of the addons, as its pages show it.
pub(crate) struct Product {
    /// The addon: `Kiali`, `Prometheus`…
    pub(crate) name: &'static str,
    /// Its main pages, the first one is its home.
    pub(crate) pages: &'static [Entry],
}

/// A main page.
pub(crate) struct Entry {
    /// Below the addon's root.
    pub(crate) path: &'static str,
    /// Name of its title among the texts.
    pub(crate) title: &'static str,
    /// The templates of the pages that belong to it.
    pub(crate) templates: &'static [&'static str],
}

/// A page's frame.
pub(crate) struct Page {
    pub(crate) product: &'static Product,
    pub(crate) template: &'static str,
    /// Relative path to the addon's root, with a slash at its end, or empty.
    pub(crate) root: &'static str,
    pub(crate) language: Language,
    /// The URL's parameters without the language, for links to the same page in another one.
    parameters: String,
}

impl Page {
    /// The frame for an answer to a request with these parameters and headers.
    pub(crate) fn new(
        product: &'static Product,
        template: &'static str,
        root: &'static str,
        query: &Query,
        headers: &HeaderMap,
    ) -> Self {
        let kept = query.iter().filter(|(name, value)| name != "lang" && !value.is_empty());
        let mut parameters = form_urlencoded::Serializer::new(String::new()).extend_pairs(kept).finish();
        if !parameters.is_empty() {
            parameters.push('&');
        }
        Self { product, template, root, language: Language::of(query, headers), parameters }
    }

    /// The page, filled with `content`.
    pub(crate) fn render(&self, content: Value) -> Response {
        self.respond(StatusCode::OK, self.template, content)
    }

    /// A page that says what went wrong.
    pub(crate) fn error(&self, status: StatusCode, message: &str) -> Response {
        self.respond(status, "error.html", context! { message })
    }

    fn respond(&self, status: StatusCode, template: &'static str, content: Value) -> Response {
        let entry = |entry: &Entry| {
            let current = entry.templates.contains(&self.template);
            context! { path => entry.path, title => self.language.text(entry.title), current }
        };
        let frame = context! {
            product => self.product.name, parameters => &self.parameters, home => self.product.pages.first().map(|home| home.path),
            pages => self.product.pages.iter().map(entry).collect::<Vec<_>>(),
        };
        match part(template, self.root, self.language, context! { ..content, ..frame }) {
            Ok(html) => (status, headers("text/html; charset=utf-8"), html).into_response(),
            Err(error) => {
                tracing::error!(error, template, "a page cannot be rendered");
                (StatusCode::INTERNAL_SERVER_ERROR, headers("text/plain; charset=utf-8"), "The page cannot be rendered.\n")
                    .into_response()
            }
        }
    }
}

/// A template without a page's frame: a part of a page.
///
/// # Errors
/// The template does not fit its content, in words.
pub(crate) fn part(template: &str, root: &str, language: Language, content: Value) -> Result<String, String> {
    let frame = context! { root, lang => language.code(), t => value(language.texts()) };
    let template = TEMPLATES.get_template(template).map_err(|error| error.to_string())?;
    template.render(context! { ..content, ..frame }).map_err(|error| format!("{error:#}"))
}

/// Anything, as templates see it.
pub(crate) fn value(value: impl Serialize) -> Value {
    Value::from(Serde(value))
}

/// The headers of everything that a browser shows.
fn headers(kind: &'static str) -> HeaderMap {
    [
        (header::CONTENT_TYPE, kind),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "same-origin"),
        (header::CACHE_CONTROL, "no-cache"),
        (header::VARY, "Accept-Language"),
    ]
    .into_iter()
    .map(|(name, value)| (name, HeaderValue::from_static(value)))
    .collect()
}

/// The static files, below `static/`.
const ASSETS: &[(&str, &str, &str)] = &[
    ("/static/style.css", "text/css; charset=utf-8", include_str!("static/style.css")),
    ("/static/live.js", "text/javascript; charset=utf-8", include_str!("static/live.js")),
    ("/static/chart.js", "text/javascript; charset=utf-8", include_str!("static/chart.js")),
    ("/static/icon.svg", "image/svg+xml", include_str!("static/icon.svg")),
];

/// Serves the static files below `static/`.
pub(crate) fn assets<S: Clone + Send + Sync + 'static>() -> Router<S> {
    let file = |router: Router<S>, (path, kind, content): &(&'static str, &'static str, &'static str)| {
        let (kind, content) = (*kind, *content);
        router.route(path, get(move || async move { (headers(kind), content) }))
    };
    ASSETS.iter().fold(Router::new(), file)
}

/// Parameters of a page's URL.
pub(crate) type Query = axum::extract::Query<Vec<(String, String)>>;

/// A parameter, if it is not empty.
pub(crate) fn parameter<'a>(query: &'a Query, name: &str) -> Option<&'a str> {
    query.iter().find(|(key, value)| key == name && !value.is_empty()).map(|(_, value)| value.as_str())
}

/// A whole number within bounds.
pub(crate) fn number(query: &Query, name: &str, default: u64, bounds: std::ops::RangeInclusive<u64>) -> u64 {
    let text = parameter(query, name).map(|text| text.trim_end_matches('s'));
    text.and_then(|text| text.parse().ok()).unwrap_or(default).clamp(*bounds.start(), *bounds.end())
}

/// A number as people read it: about three digits.
pub(crate) fn readable(value: f64) -> String {
    let (scaled, suffix) = match value.abs() {
        _ if !value.is_finite() => return "–".to_owned(),
        size if size >= 1e9 => (value / 1e9, "G"),
        size if size >= 1e6 => (value / 1e6, "M"),
        size if size >= 1e4 => (value / 1e3, "k"),
        size if size < 0.001 && size > 0.0 => return format!("{value:.1e}"),
        _ => (value, ""),
    };
    let digits = match scaled.abs() {
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 0.1 => 2,
        _ => 3,
    };
    let text = format!("{scaled:.digits$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{}{suffix}", if text == "-0" { "0" } else { text })
}

/// A number with its unit: `ms` and `B/s` are scaled, `%` and words stand apart, `/s` does not.
pub(crate) fn measured(value: f64, unit: &str) -> String {
    match unit {
        _ if !value.is_finite() => readable(value),
        "ms" if value.abs() >= 1000.0 => format!("{} s", readable(value / 1000.0)),
        "ms" if value.abs() < 1.0 && value != 0.0 => format!("{} µs", readable(value * 1000.0)),
        "B/s" | "B" => {
            let (scaled, prefix) = match value.abs() {
                size if size >= 1e9 => (value / 1e9, "G"),
                size if size >= 1e6 => (value / 1e6, "M"),
                size if size >= 1e3 => (value / 1e3, "k"),
                _ => (value, ""),
            };
            format!("{} {prefix}{unit}", readable(scaled))
        }
        "" | "/s" => format!("{}{unit}", readable(value)),
        _ => format!("{} {unit}", readable(value)),
    }
}

#[cfg(test)]
pub(crate) mod tests;
