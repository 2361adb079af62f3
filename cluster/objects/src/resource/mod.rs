//! How a kind is served: names, scope, verbs and subresources of built-in kinds.

mod autoscaler;
mod builtin;

use serde_json::Value;

pub use autoscaler::convert_autoscaler;
pub use builtin::{builtin, find};

/// Group, version and kind.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupVersionKind {
    /// API group; empty for the core group.
    pub group: String,
    /// Version: `v1`.
    pub version: String,
    /// Kind: `Pod`.
    pub kind: String,
}

impl GroupVersionKind {
    /// From its three parts.
    pub fn new(group: impl Into<String>, version: impl Into<String>, kind: impl Into<String>) -> Self {
        Self { group: group.into(), version: version.into(), kind: kind.into() }
    }

    /// From `apps/v1` (or `v1`) and a kind. `None` where `api_version` has more than one slash or an empty part.
    pub fn parse(api_version: &str, kind: &str) -> Option<Self> {
        let (group, version) = match api_version.split_once('/') {
            Some((group, version)) if !group.is_empty() => (group, version),
            Some(_) => return None,
            None => ("", api_version),
        };
        (!version.is_empty() && !version.contains('/')).then(|| Self::new(group, version, kind))
    }

    /// What an object says of itself in `apiVersion` and `kind`. `None` where either is missing or malformed.
    pub fn of(object: &Value) -> Option<Self> {
        let kind = object.get("kind")?.as_str().filter(|kind| !kind.is_empty())?;
        Self::parse(object.get("apiVersion")?.as_str()?, kind)
    }

    /// `apps/v1`, or `v1` in the core group.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }
}

/// What can be done to a resource, as discovery names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Verb {
    /// POST
    Create,
    /// DELETE of one object
    Delete,
    /// DELETE of a collection
    DeleteCollection,
    /// GET of one object
    Get,
    /// GET of a collection
    List,
    /// PATCH
    Patch,
    /// PUT
    Update,
    /// GET of a collection with `watch=true`
    Watch,
}

impl Verb {
    /// `deletecollection`
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Delete => "delete",
            Self::DeleteCollection => "deletecollection",
            Self::Get => "get",
            Self::List => "list",
            Self::Patch => "patch",
            Self::Update => "update",
            Self::Watch => "watch",
        }
    }
}

/// A subresource, such as `pods/eviction`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subresource {
    /// The last part of the path: `eviction`.
    pub name: String,
    /// The kind it takes and answers: `policy/v1 Eviction`.
    pub kind: GroupVersionKind,
    /// Its verbs.
    pub verbs: Vec<Verb>,
}

/// How a kind is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResourceDefinition {
    /// API group; empty for the core group.
    pub group: String,
    /// Served versions, the preferred one first.
    pub versions: Vec<String>,
    /// The version objects are stored in. Where others are served too, see [`crate::schema`] and the CRD's conversion.
    pub storage_version: String,
    /// `Deployment`
    pub kind: String,
    /// `DeploymentList`; empty where the resource cannot be listed.
    pub list_kind: String,
    /// `deployments`: the name in paths.
    pub plural: String,
    /// `deployment`
    pub singular: String,
    /// `deploy`
    pub short_names: Vec<String>,
    /// Whether objects live in namespaces.
    pub namespaced: bool,
    /// `all`
    pub categories: Vec<String>,
    /// Verbs of the resource itself.
    pub verbs: Vec<Verb>,
    /// Its subresources.
    pub subresources: Vec<Subresource>,
}

impl ResourceDefinition {
    /// The kind in this version.
    pub fn kind_in(&self, version: &str) -> GroupVersionKind {
        GroupVersionKind::new(self.group.clone(), version, self.kind.clone())
    }

    /// Whether the resource has this verb.
    pub fn can(&self, verb: Verb) -> bool {
        self.verbs.contains(&verb)
    }

    /// The subresource of this name.
    pub fn subresource(&self, name: &str) -> Option<&Subresource> {
        self.subresources.iter().find(|subresource| subresource.name == name)
    }

    /// `deployments.apps`, or `pods` in the core group: how Kubernetes names the resource in messages.
    pub fn qualified_name(&self) -> String {
        if self.group.is_empty() { self.plural.clone() } else { format!("{}.{}", self.plural, self.group) }
    }
}
