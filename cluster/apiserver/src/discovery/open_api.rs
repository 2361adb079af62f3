//! `/openapi/v3`: documents under URLs that carry their hash and so never change.

use http::StatusCode;
use http::header::{CACHE_CONTROL, ETAG, EXPIRES, HeaderValue, IF_NONE_MATCH, LOCATION};
use http::request::Parts;
use jiff::{SignedDuration, Timestamp};
use meshlab_objects::{Status, openapi};

use super::not_found;
use crate::http::{Accept, Response, bytes_answer, yaml_or_json};
use crate::registry::Registry;
use crate::route::Query;

/// The list of documents.
pub(super) fn root(registry: &Registry) -> Response {
    let mut documents = Vec::new();
    for (group, versions) in registry.groups() {
        for version in versions {
            if let Some((_, hash)) = registry.document(group, version) {
                documents.push((group.as_str(), version.as_str(), hash));
            }
        }
    }
    yaml_or_json(StatusCode::OK, Accept::JSON, &openapi::root(documents))
}

/// One document.
pub(super) fn document(
    registry: &Registry,
    group: &str,
    version: &str,
    parts: &Parts,
    query: &Query,
) -> Result<Response, Status> {
    let (content, hash) = registry.document(group, version).ok_or_else(not_found)?;
    let etag = HeaderValue::from_str(&format!("\"{hash}\"")).map_err(Status::internal)?;
    let asked = query.get("hash");
    if !asked.is_empty() && asked != hash {
        let place = format!("{}?hash={hash}", parts.uri.path());
        let mut response = bytes_answer(StatusCode::MOVED_PERMANENTLY, "text/plain", "");
        response.headers_mut().insert(LOCATION, HeaderValue::from_str(&place).map_err(Status::internal)?);
        return Ok(response);
    }
    let mut response = if parts.headers.get(IF_NONE_MATCH) == Some(&etag) {
        bytes_answer(StatusCode::NOT_MODIFIED, "application/json", "")
    } else {
        bytes_answer(StatusCode::OK, "application/json", content.to_vec())
    };
    let headers = response.headers_mut();
    headers.insert(ETAG, etag);
    if !asked.is_empty() {
        let end = Timestamp::now().checked_add(SignedDuration::from_hours(24 * 365)).unwrap_or(Timestamp::MAX);
        let end = end.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("public, immutable"));
        headers.insert(EXPIRES, HeaderValue::from_str(&end).map_err(Status::internal)?);
    }
    Ok(response)
}
