//! What kinds the server has, and by which names people call them.

use kube::Client;
use kube::client::APIGroupDiscoveryList;

use super::rest::Failure;

/// A kind, as the server serves it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Resource {
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) kind: String,
    pub(crate) plural: String,
    pub(crate) singular: String,
    pub(crate) short_names: Vec<String>,
    pub(crate) categories: Vec<String>,
    pub(crate) verbs: Vec<String>,
    pub(crate) namespaced: bool,
    /// Whether this is the version that its group prefers.
    preferred: bool,
}

impl Resource {
    pub(crate) fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }

    /// `pod/x`, `gateway.networking.istio.io/x`: how kubectl names an object it did something to.
    pub(crate) fn of(&self, name: &str) -> String {
        format!("{}/{name}", self.label())
    }

    /// `deployment.apps`.
    pub(crate) fn label(&self) -> String {
        if self.group.is_empty() { self.singular.clone() } else { format!("{}.{}", self.singular, self.group) }
    }

    fn is_called(&self, name: &str) -> bool {
        self.plural == name
            || self.singular == name
            || self.kind.eq_ignore_ascii_case(name)
            || self.short_names.iter().any(|short| short == name)
    }
}

/// Everything the server serves.
pub(crate) struct Resources(Vec<Resource>);

impl Resources {
    pub(super) async fn discover(client: &Client) -> Result<Self, Failure> {
        let (core, groups) = tokio::try_join!(client.list_core_api_versions_aggregated(), client.list_api_groups_aggregated())?;
        let all: Vec<Resource> = [core, groups].into_iter().flat_map(resources).collect();
        if all.is_empty() {
            return Err(Failure::new("the server does not tell its kinds as kubectl asks since 1.27 (aggregated discovery)"));
        }
        Ok(Self(all))
    }

    /// A kind by any of its names: `po`, `Gateway`, `deployments.apps`, `virtualservices.v1.networking.istio.io`.
    pub(super) fn find(&self, name: &str) -> Result<&Resource, Failure> {
        let lower = name.to_ascii_lowercase();
        let preferred = || self.0.iter().filter(|resource| resource.preferred);
        if let Some(resource) = preferred().find(|resource| resource.is_called(&lower)) {
            return Ok(resource);
        }
        let qualified = lower.split_once('.').and_then(|(kind, rest)| {
            preferred().find(|resource| resource.is_called(kind) && resource.group == rest).or_else(|| {
                let (version, group) = rest.split_once('.')?;
                self.0.iter().find(|r| r.is_called(kind) && r.version == version && r.group == group)
            })
        });
        qualified.ok_or_else(|| Failure::new(format!("the server doesn't have a resource type \"{name}\"")))
    }

    /// The kinds of a category such as `all`.
    pub(super) fn category(&self, name: &str) -> Vec<&Resource> {
        let in_it = |resource: &&Resource| resource.preferred && resource.categories.iter().any(|category| category == name);
        self.0.iter().filter(in_it).collect()
    }

    /// The kind of an object.
    pub(super) fn of_object(&self, api_version: &str, kind: &str) -> Option<&Resource> {
        self.0.iter().find(|resource| resource.kind == kind && resource.api_version() == api_version)
    }

    /// All kinds, each once.
    pub(super) fn preferred(&self) -> impl Iterator<Item = &Resource> {
        self.0.iter().filter(|resource| resource.preferred)
    }
}

fn resources(list: APIGroupDiscoveryList) -> Vec<Resource> {
    let mut all = Vec::new();
    for group in list.items {
        let name = group.metadata.and_then(|metadata| metadata.name).unwrap_or_default();
        for (place, version) in group.versions.into_iter().enumerate() {
            for resource in version.resources {
                let kind = resource.response_kind.and_then(|kind| kind.kind).unwrap_or_default();
                let plural = resource.resource.unwrap_or_default();
                let singular = resource.singular_resource.filter(|singular| !singular.is_empty());
                all.push(Resource {
                    group: name.clone(),
                    version: version.version.clone().unwrap_or_default(),
                    singular: singular.unwrap_or_else(|| kind.to_ascii_lowercase()),
                    kind,
                    plural,
                    short_names: resource.short_names,
                    categories: resource.categories,
                    verbs: resource.verbs,
                    namespaced: resource.scope.as_deref() == Some("Namespaced"),
                    preferred: place == 0,
                });
            }
        }
    }
    all
}

#[cfg(test)]
impl Resource {
    pub(super) fn for_test(group: &str, version: &str, kind: &str) -> Self {
        Self {
            group: group.into(),
            version: version.into(),
            kind: kind.into(),
            plural: format!("{}s", kind.to_lowercase()),
            singular: kind.to_lowercase(),
            short_names: Vec::new(),
            categories: Vec::new(),
            verbs: Vec::new(),
            namespaced: true,
            preferred: true,
        }
    }
}
