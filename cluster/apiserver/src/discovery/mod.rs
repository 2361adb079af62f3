//! Paths that are no resource: discovery, OpenAPI, version, health and metrics.

mod groups;
mod open_api;
mod open_api_v2;

use std::sync::Arc;

use http::request::Parts;
use http::{Method, StatusCode};
use meshlab_objects::{Reason, Status};
use serde_json::{Value, json};

use crate::api::{Api, healthy, json as json_value};
use crate::http::{Accept, Representation, Response, bytes_answer, text_answer, yaml_or_json};
use crate::route::Query;

/// What `/version` says. The kinds and their fields are those of this release.
fn version() -> Value {
    json!({
        "major": "1", "minor": "33", "gitVersion": "v1.33.0+meshlab", "gitCommit": "", "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z", "goVersion": "", "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH),
        "emulationMajor": "1", "emulationMinor": "33", "minCompatibilityMajor": "1", "minCompatibilityMinor": "32",
    })
}

fn not_found() -> Status {
    Status::new(Reason::NotFound, "the server could not find the requested resource")
}

/// Answers a path that is no resource.
pub(crate) fn answer(api: &Arc<Api>, parts: &Parts, query: &Query) -> Result<Response, Status> {
    if !matches!(parts.method, Method::GET | Method::HEAD) {
        return Err(Status::new(Reason::MethodNotAllowed, "the server does not allow this method on the requested resource"));
    }
    let path = parts.uri.path().trim_end_matches('/');
    let segments: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    match segments.as_slice() {
        [""] => Ok(json_value(&json!({"paths": root_paths(api)}))),
        ["version"] => Ok(json_value(&version())),
        ["healthz" | "livez" | "readyz"] if query.has("verbose") => {
            Ok(text_answer(StatusCode::OK, format!("[+]ping ok\n{} check passed\n", segments[0])))
        }
        ["healthz" | "livez" | "readyz"] | ["healthz" | "livez" | "readyz", "ping"] => Ok(healthy()),
        ["metrics"] => {
            let registry = api.registry();
            let text = api.metrics.render(&api.store, registry.resources().iter().map(|served| &served.id));
            Ok(bytes_answer(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", text))
        }
        ["api"] | ["apis"] => {
            let accept = Accept::parse(&parts.headers)?;
            let core = segments[0] == "api";
            if let Representation::AggregatedDiscovery(version) = accept.representation {
                return groups::aggregated(&api.registry(), core, version, &parts.headers);
            }
            let value = if core { groups::api_versions() } else { groups::group_list(&api.registry()) };
            Ok(yaml_or_json(StatusCode::OK, accept, &value))
        }
        ["api", version] => resource_list(api, parts, "", version),
        ["apis", group] => {
            let group = groups::group(&api.registry(), group).ok_or_else(not_found)?;
            Ok(yaml_or_json(StatusCode::OK, Accept::parse(&parts.headers)?, &group))
        }
        ["apis", group, version] => resource_list(api, parts, group, version),
        ["openapi", "v2"] => open_api_v2::document(&api.registry(), parts),
        ["openapi", "v3"] => Ok(open_api::root(&api.registry())),
        ["openapi", "v3", "api", version] => open_api::document(&api.registry(), "", version, parts, query),
        ["openapi", "v3", "apis", group, version] => open_api::document(&api.registry(), group, version, parts, query),
        _ => Err(not_found()),
    }
}

fn resource_list(api: &Api, parts: &Parts, group: &str, version: &str) -> Result<Response, Status> {
    let registry = api.registry();
    if !registry.has_version(group, version) {
        return Err(not_found());
    }
    Ok(yaml_or_json(StatusCode::OK, Accept::parse(&parts.headers)?, &groups::resource_list(&registry, group, version)))
}

fn root_paths(api: &Api) -> Vec<String> {
    let mut paths: Vec<String> =
        ["/api", "/apis", "/healthz", "/livez", "/metrics", "/openapi/v3", "/readyz", "/version"].map(str::to_owned).into();
    for (group, versions) in api.registry().groups() {
        for version in versions {
            paths.push(if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") });
        }
    }
    paths.sort();
    paths
}
