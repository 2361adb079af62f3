//! What a request asks for, read from its method, path and query.

use std::borrow::Cow;

use http::Method;
use meshlab_objects::{Reason, Status};
use percent_encoding::percent_decode_str;

/// The query of a request.
#[derive(Debug, Clone, Default)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    pub(crate) fn parse(query: &str) -> Self {
        Self(url::form_urlencoded::parse(query.as_bytes()).into_owned().collect())
    }

    /// The parameter's first value, empty if it is not there.
    pub(crate) fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
    }

    /// Whether the parameter is there, with a value or without.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(key, _)| key == name)
    }

    /// All values of a parameter.
    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Go's way to read a boolean; present without a value is true.
    pub(crate) fn flag(&self, name: &str) -> bool {
        self.optional_flag(name).unwrap_or(false)
    }

    /// The same, telling "not there" apart.
    pub(crate) fn optional_flag(&self, name: &str) -> Option<bool> {
        let (_, value) = self.0.iter().find(|(key, _)| key == name)?;
        Some(!matches!(value.as_str(), "0" | "false" | "False" | "FALSE" | "f" | "F"))
    }

    /// A number.
    ///
    /// # Errors
    /// 400 if it is none.
    pub(crate) fn number(&self, name: &str) -> Result<Option<i64>, Status> {
        match self.get(name) {
            "" => Ok(None),
            text => text.parse().map(Some).map_err(|_| {
                Status::bad_request(format!("invalid query parameter {name}: strconv.ParseInt: parsing {text:?}: invalid syntax"))
            }),
        }
    }
}

/// Where a request goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Route {
    /// A path that is no resource, such as `/version` or `/apis/apps/v1`.
    Other,
    /// An object, a collection, or a part of an object.
    Resource(ResourcePath),
}

/// `/apis/{group}/{version}/namespaces/{namespace}/{resource}/{name}/{subresource}/{rest}`
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ResourcePath {
    pub(crate) group: String,
    pub(crate) version: String,
    /// Empty for what is not in a namespace, and for all of them.
    pub(crate) namespace: String,
    pub(crate) resource: String,
    /// Empty for a collection.
    pub(crate) name: String,
    /// Empty for the object itself.
    pub(crate) subresource: String,
    /// What follows `proxy/`, undecoded.
    pub(crate) rest: Option<String>,
}

impl Route {
    /// # Errors
    /// 400 if the path is not UTF-8 once decoded.
    pub(crate) fn parse(path: &str) -> Result<Self, Status> {
        let mut parts = path.trim_start_matches('/').splitn(3, '/');
        let (group_version, rest) = match (parts.next(), parts.next(), parts.next()) {
            (Some("api"), Some(version), Some(rest)) => (("", version), rest),
            (Some("apis"), Some(group), Some(rest)) => match rest.split_once('/') {
                Some((version, rest)) => ((group, version), rest),
                None => return Ok(Self::Other),
            },
            _ => return Ok(Self::Other),
        };
        let rest = rest.trim_end_matches('/');
        if rest.is_empty() {
            return Ok(Self::Other);
        }
        // Of a proxied path everything behind `proxy` belongs to the backend.
        let raw: Vec<&str> = rest.split('/').collect();
        let mut segments: Vec<Cow<'_, str>> = Vec::with_capacity(raw.len().min(8));
        for segment in raw.iter().take(8) {
            let decoded = percent_decode_str(segment).decode_utf8();
            segments.push(decoded.map_err(|_| Status::bad_request("the path is not valid UTF-8"))?);
        }
        let mut path = ResourcePath { group: group_version.0.into(), version: group_version.1.into(), ..ResourcePath::default() };
        let mut used = 0;
        // `namespaces/x` and its subresources are about the namespace itself.
        let own = |segment: &Cow<'_, str>| matches!(segment.as_ref(), "status" | "finalize");
        if segments[0] == "namespaces" && segments.len() > 2 && !(segments.len() == 3 && own(&segments[2])) {
            path.namespace = segments[1].to_string();
            used = 2;
        }
        let mut segments = segments.into_iter().skip(used);
        let mut next = || segments.next().map(Cow::into_owned).unwrap_or_default();
        (path.resource, path.name, path.subresource) = (next(), next(), next());
        if path.group.is_empty() && path.resource == "namespaces" {
            path.namespace.clone_from(&path.name);
        }
        if raw.len() > used + 3 {
            if path.subresource != "proxy" {
                return Err(Status::new(Reason::NotFound, "the server could not find the requested resource"));
            }
            path.rest = Some(raw[used + 3..].join("/"));
        }
        Ok(Self::Resource(path))
    }
}

/// The verb of RBAC for a request to a resource.
pub(crate) fn verb(method: &Method, path: &ResourcePath, query: &Query) -> Result<&'static str, Status> {
    let collection = path.name.is_empty();
    Ok(match *method {
        Method::GET | Method::HEAD if collection && query.flag("watch") => "watch",
        Method::GET | Method::HEAD if collection => "list",
        Method::GET | Method::HEAD => "get",
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE if collection => "deletecollection",
        Method::DELETE => "delete",
        _ => {
            let message = "the server does not allow this method on the requested resource";
            return Err(Status::new(Reason::MethodNotAllowed, message));
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> ResourcePath {
        match Route::parse(text).unwrap() {
            Route::Resource(path) => path,
            Route::Other => panic!("{text} is a resource"),
        }
    }

    #[test]
    fn paths_are_read_as_kubernetes_reads_them() {
        let pod = path("/api/v1/namespaces/default/pods/web/log");
        assert_eq!(
            (pod.namespace.as_str(), pod.resource.as_str(), pod.name.as_str(), pod.subresource.as_str()),
            ("default", "pods", "web", "log")
        );
        let crd = path("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/a.b");
        assert_eq!((crd.group.as_str(), crd.name.as_str()), ("apiextensions.k8s.io", "a.b"));
        let namespace = path("/api/v1/namespaces/default/status");
        assert_eq!(
            (namespace.resource.as_str(), namespace.name.as_str(), namespace.subresource.as_str()),
            ("namespaces", "default", "status")
        );
        assert_eq!(namespace.namespace, "default");
        let proxied = path("/api/v1/namespaces/a/services/http:web:80/proxy/x%2Fy/z");
        assert_eq!((proxied.name.as_str(), proxied.rest.as_deref()), ("http:web:80", Some("x%2Fy/z")));
        assert_eq!(Route::parse("/apis/apps/v1").unwrap(), Route::Other);
        assert_eq!(Route::parse("/apis/apps/v1/").unwrap(), Route::Other);
        assert!(Route::parse("/api/v1/namespaces/a/pods/b/c/d").is_err());
        assert!(Route::parse("/api/v1/pods/%ff").is_err());
    }
}
