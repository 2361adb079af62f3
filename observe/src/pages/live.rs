//! Live updates: a part of a page, sent anew every few seconds as server-sent events.

use std::convert::Infallible;
use std::time::Duration;

use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};

use super::headers;

/// Sends what `render` yields, now and after every `period`, until the browser leaves.
pub(crate) fn live<F, R>(period: Duration, render: F) -> Response
where
    F: Fn() -> R + Send + Sync + 'static,
    R: Future<Output = Result<String, String>> + Send + 'static,
{
    let events = futures::stream::unfold((render, false), move |(render, again)| async move {
        if again {
            tokio::time::sleep(period).await;
        }
        let event = match render().await {
            Ok(html) => Event::default().event("part").data(html.replace('\r', "")),
            Err(error) => Event::default().event("trouble").data(error.replace(['\r', '\n'], " ")),
        };
        Some((Ok::<_, Infallible>(event), (render, true)))
    });
    (headers("text/event-stream"), Sse::new(events).keep_alive(KeepAlive::default())).into_response()
}
