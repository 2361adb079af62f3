//! What the pages of all addons share: templates, languages, charts, headers, live updates.
//!
//! Everything is rendered on the server. Templates escape all text, the content security policy forbids scripts and styles
//! other than the two static files, and links are relative, so that pages work behind any proxy.

pub(crate) mod chart;
pub(crate) mod text;

use std::convert::Infallible;
use std::sync::LazyLock;
use std::time::Duration;

use axum::Router;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures::Stream;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use minijinja::value::Serde;
use minijinja::{Environment, UndefinedBehavior, Value, context};
use serde::Serialize;

pub(crate) use text::Language;

/// Scripts and styles come from here and nowhere else, and nothing is framed by others.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; \
    base-uri 'none'; frame-ancestors 'self'";
/// Time from one live update of a page to the next.
const LIVE: Duration = Duration::from_secs(5);

/// Compiled once; what they are filled with is the caller's.
static TEMPLATES: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    for (name, source) in [
        ("base.html", include_str!("templates/base.html")),
        ("macros.html", include_str!("templates/macros.html")),
        ("error.html", include_str!("templates/error.html")),
        ("graph.html", include_str!("templates/graph.html")),
        ("graph_picture.html", include_str!("templates/graph_picture.html")),
        ("dashboards.html", include_str!("templates/dashboards.html")),
        ("dashboard.html", include_str!("templates/dashboard.html")),
        ("panels.html", include_str!("templates/panels.html")),
        ("query.html", include_str!("templates/query.html")),
        ("targets.html", include_str!("templates/targets.html")),
        ("search.html", include_str!("templates/search.html")),
        ("trace.html", include_str!("templates/trace.html")),
    ] {
        if let Err(error) = environment.add_template(name, source) {
            tracing::error!(%error, name, "a template is broken");
        }
    }
    environment
});

/// A page's frame.
pub(crate) struct Page<'a> {
    pub(crate) template: &'static str,
    /// The program: `Kiali`, `Prometheus`…
    pub(crate) product: &'static str,
    /// Relative path to where [`assets`] are, with a slash at its end, or empty.
    pub(crate) root: &'a str,
    pub(crate) language: Language,
}

impl Page<'_> {
    /// The page, filled with `content`.
    pub(crate) fn render(&self, content: Value) -> Response {
        self.respond(StatusCode::OK, content)
    }

    /// A page that says what went wrong.
    pub(crate) fn error(&self, status: StatusCode, message: &str) -> Response {
        Page { template: "error.html", ..*self }.respond(status, context! { message })
    }

    /// Only the template's text, for a part of a page.
    pub(crate) fn text(&self, content: Value) -> Result<String, minijinja::Error> {
        let frame = context! {
            product => self.product, root => self.root, lang => self.language.code(), t => value(self.language.texts()),
        };
        TEMPLATES.get_template(self.template)?.render(context! { ..content, ..frame })
    }

    fn respond(&self, status: StatusCode, content: Value) -> Response {
        match self.text(content) {
            Ok(html) => (status, headers("text/html; charset=utf-8"), html).into_response(),
            Err(error) => {
                tracing::error!(%error, template = self.template, "a page cannot be rendered");
                (StatusCode::INTERNAL_SERVER_ERROR, headers("text/plain; charset=utf-8"), "The page cannot be rendered.\n")
                    .into_response()
            }
        }
    }
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
        (header::VARY, "Accept-Language"),
    ]
    .into_iter()
    .map(|(name, value)| (name, HeaderValue::from_static(value)))
    .collect()
}

/// The two static files: `static/style.css` and `static/live.js`.
pub(crate) fn assets<S: Clone + Send + Sync + 'static>() -> Router<S> {
    let file = |kind, content: &'static str| get(move || async move { (headers(kind), content) });
    Router::new()
        .route("/static/style.css", file("text/css; charset=utf-8", include_str!("static/style.css")))
        .route("/static/live.js", file("text/javascript; charset=utf-8", include_str!("static/live.js")))
}

/// Sends what `render` yields, now and every few seconds, until the browser leaves.
pub(crate) fn live<F, R>(render: F) -> Response
where
    F: Fn() -> R + Send + Sync + 'static,
    R: Future<Output = Result<String, String>> + Send + 'static,
{
    let events = futures::stream::unfold((render, false), async |(render, again)| {
        if again {
            tokio::time::sleep(LIVE).await;
        }
        let event = match render().await {
            Ok(html) => Event::default().event("part").data(html),
            Err(error) => Event::default().event("trouble").data(error),
        };
        Some((Ok::<_, Infallible>(event), (render, true)))
    });
    stream(events)
}

fn stream(events: impl Stream<Item = Result<Event, Infallible>> + Send + 'static) -> Response {
    (headers("text/event-stream"), Sse::new(events).keep_alive(KeepAlive::default())).into_response()
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

/// A number as people read it.
pub(crate) fn readable(value: f64) -> String {
    match value.abs() {
        _ if !value.is_finite() => "–".to_owned(),
        0.0 => "0".to_owned(),
        size if size >= 1e9 => format!("{:.1}G", value / 1e9),
        size if size >= 1e6 => format!("{:.1}M", value / 1e6),
        size if size >= 1e4 => format!("{:.1}k", value / 1e3),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 1.0 => format!("{value:.1}"),
        size if size >= 0.01 => format!("{value:.2}"),
        _ => format!("{value:.1e}"),
    }
}

#[cfg(test)]
pub(crate) mod tests;
