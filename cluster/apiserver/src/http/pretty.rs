//! JSON on many lines, for people.

use http::header::{CONTENT_TYPE, HeaderMap, USER_AGENT};
use http_body_util::BodyExt;
use serde_json::Value;

use super::{Response, full};
use crate::route::Query;

/// Marks an answer that is not to be touched: a watch has no end, and what is proxied is somebody else's.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Verbatim;

/// Whether a client wants it: `pretty` says so, or it is a program that people look at answers with (as Kubernetes has it).
pub(crate) fn is_wanted(query: &str, headers: &HeaderMap) -> bool {
    let agent = headers.get(USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or_default();
    let of_people = || ["curl", "Wget", "Mozilla/5.0"].iter().any(|program| agent.starts_with(program));
    // Hardly any query has it; the others are not read twice.
    let said = query.contains("pretty").then(|| Query::parse(query).optional_flag("pretty")).flatten();
    said.unwrap_or_else(of_people)
}

/// Writes an answer anew.
pub(crate) async fn indent(mut response: Response) -> Response {
    let is_json = response.headers().get(CONTENT_TYPE).is_some_and(|kind| kind == "application/json");
    if !is_json || response.extensions_mut().remove::<Verbatim>().is_some() {
        return response;
    }
    let (parts, body) = response.into_parts();
    let body = match body.collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => return super::error_answer(&meshlab_objects::Status::internal(error)),
    };
    let indented = serde_json::from_slice::<Value>(&body).ok().and_then(|value| serde_json::to_vec_pretty(&value).ok());
    Response::from_parts(parts, full(indented.map_or(body, Into::into)))
}
