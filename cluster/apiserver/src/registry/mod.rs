//! What is served: the built-in kinds, which all clusters of a process share, and the custom ones of this cluster.

mod crd;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, LazyLock, OnceLock};

use meshlab_objects::openapi::Published;
use meshlab_objects::resource::{ResourceDefinition, builtin};
use meshlab_objects::schema::Schema;
use meshlab_objects::table::Columns;
use meshlab_objects::{Reason, Status, openapi};
use serde_json::Value;

use crate::rest::EVENTS_GROUP;
use crate::store::{GroupResource, Object};

pub(crate) use crd::{ScalePaths, names_conflict, stored_status};

/// A resource that is served.
#[derive(Debug)]
pub(crate) struct Served {
    pub(crate) definition: ResourceDefinition,
    pub(crate) id: GroupResource,
    /// In the order of `definition.versions`.
    versions: Vec<ServedVersion>,
    /// Where it came from; `None` for a built-in kind.
    pub(crate) custom: Option<Custom>,
}

/// What tells one CRD from its next revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Custom {
    uid: String,
    generation: u64,
}

/// One version of a resource.
#[derive(Debug)]
pub(crate) struct ServedVersion {
    pub(crate) name: String,
    /// A CRD's `openAPIV3Schema`.
    crd_schema: Option<Value>,
    schema: OnceLock<Option<Arc<Schema>>>,
    printer_columns: Option<Value>,
    columns: OnceLock<Arc<Columns>>,
    /// A CRD's `selectableFields`, as field selectors name them.
    pub(crate) selectable_fields: Vec<String>,
    /// A CRD's scale subresource.
    pub(crate) scale: Option<ScalePaths>,
    /// Warning for clients of a deprecated version.
    pub(crate) deprecation: Option<String>,
}

impl Served {
    fn builtin(definition: &ResourceDefinition) -> Self {
        let versions = definition.versions.iter().map(|name| ServedVersion {
            name: name.clone(),
            crd_schema: None,
            schema: OnceLock::new(),
            printer_columns: None,
            columns: OnceLock::new(),
            selectable_fields: Vec::new(),
            scale: None,
            deprecation: None,
        });
        // The two groups of events share their objects.
        let group = if definition.group == EVENTS_GROUP { "" } else { &definition.group };
        Self {
            versions: versions.collect(),
            id: GroupResource::new(group, &definition.plural),
            definition: definition.clone(),
            custom: None,
        }
    }

    /// The version of this name.
    pub(crate) fn version(&self, name: &str) -> Option<&ServedVersion> {
        self.versions.iter().find(|version| version.name == name)
    }

    /// The kind's schema in a version.
    pub(crate) fn schema(&self, version: &str) -> Result<Arc<Schema>, Status> {
        let missing = || Status::internal(format!("no schema for {} {version}", self.definition.qualified_name()));
        let served = self.version(version).ok_or_else(missing)?;
        let make = || match (&served.crd_schema, &self.custom) {
            (Some(schema), _) => Schema::from_crd(schema).ok().map(Arc::new),
            (None, Some(_)) => {
                Schema::from_crd(&serde_json::json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true}))
                    .ok()
                    .map(Arc::new)
            }
            (None, None) => Schema::builtin(&self.definition.group, version, &self.definition.kind),
        };
        served.schema.get_or_init(make).clone().ok_or_else(missing)
    }

    /// What `kubectl get` prints of it.
    pub(crate) fn columns(&self, version: &str) -> Arc<Columns> {
        let kind = self.definition.kind_in(version);
        let Some(served) = self.version(version) else { return Arc::new(Columns::builtin(&kind)) };
        let make = || match &self.custom {
            Some(_) => Columns::from_crd(served.printer_columns.as_ref().unwrap_or(&Value::Null)),
            None => Columns::builtin(&kind),
        };
        served.columns.get_or_init(|| Arc::new(make())).clone()
    }

    /// `apps/v1`
    pub(crate) fn api_version(&self, version: &str) -> String {
        self.definition.kind_in(version).api_version()
    }
}

/// All that a cluster serves, at one moment.
pub(crate) struct Registry {
    resources: Vec<Arc<Served>>,
    by_path: HashMap<(String, String), Arc<Served>>,
    /// Versions by group, both in the order of discovery.
    groups: Vec<(String, Vec<String>)>,
    documents: BTreeMap<(String, String), Arc<Document>>,
}

/// The OpenAPI document of one group version, made when it is first asked for.
#[derive(Default)]
pub(crate) struct Document {
    content: OnceLock<(Vec<u8>, String)>,
}

static BUILTIN: LazyLock<Arc<Registry>> = LazyLock::new(|| {
    let resources = builtin().iter().map(|definition| Arc::new(Served::builtin(definition))).collect();
    Arc::new(Registry::assemble(resources, &BTreeMap::new()))
});

impl Registry {
    /// The built-in kinds alone.
    pub(crate) fn builtin() -> Arc<Self> {
        BUILTIN.clone()
    }

    /// The built-in kinds and these CRDs; what has not changed since `before` is taken from there.
    pub(crate) fn with_crds(before: &Self, crds: &[Arc<Object>]) -> Arc<Self> {
        let mut resources = BUILTIN.resources.clone();
        let mut kept: BTreeMap<(String, String), Arc<Document>> = BUILTIN.documents.clone();
        let mut changed = Vec::new();
        for crd in crds {
            let Some(new) = crd::served(crd) else { continue };
            let key = (new.definition.group.clone(), new.definition.plural.clone());
            match before.by_path.get(&key) {
                Some(old) if old.custom == new.custom => resources.push(old.clone()),
                _ => {
                    changed.push(key.0);
                    resources.push(Arc::new(new));
                }
            }
        }
        // A group whose set of kinds is the same has the same documents.
        let names = |resources: &[Arc<Served>], group: &str| -> Vec<String> {
            let of_group = resources.iter().filter(|resource| resource.definition.group == group);
            of_group.map(|resource| resource.definition.plural.clone()).collect()
        };
        for (key, document) in &before.documents {
            if !changed.contains(&key.0) && names(&before.resources, &key.0) == names(&resources, &key.0) {
                kept.insert(key.clone(), document.clone());
            }
        }
        Arc::new(Self::assemble(resources, &kept))
    }

    fn assemble(resources: Vec<Arc<Served>>, kept: &BTreeMap<(String, String), Arc<Document>>) -> Self {
        let mut groups: Vec<(String, Vec<String>)> = Vec::new();
        let mut by_path = HashMap::new();
        for resource in &resources {
            let definition = &resource.definition;
            by_path.insert((definition.group.clone(), definition.plural.clone()), resource.clone());
            let index = groups.iter().position(|(name, _)| *name == definition.group).unwrap_or_else(|| {
                groups.push((definition.group.clone(), Vec::new()));
                groups.len() - 1
            });
            for version in &definition.versions {
                if !groups[index].1.contains(version) {
                    groups[index].1.push(version.clone());
                }
            }
        }
        for (_, versions) in &mut groups {
            versions.sort_by_key(|version| std::cmp::Reverse(crd::version_priority(version)));
        }
        let keys = groups.iter().flat_map(|(group, versions)| versions.iter().map(|version| (group.clone(), version.clone())));
        let documents = keys.map(|key| (key.clone(), kept.get(&key).cloned().unwrap_or_default())).collect();
        Self { resources, by_path, groups, documents }
    }

    /// Everything, in the order of discovery.
    pub(crate) fn resources(&self) -> &[Arc<Served>] {
        &self.resources
    }

    /// Groups and their versions, the preferred one first.
    pub(crate) fn groups(&self) -> &[(String, Vec<String>)] {
        &self.groups
    }

    /// Whether anything is served there.
    pub(crate) fn has_version(&self, group: &str, version: &str) -> bool {
        self.groups.iter().any(|(name, versions)| name == group && versions.iter().any(|known| known == version))
    }

    /// The resource of a path.
    pub(crate) fn find(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Served>> {
        let served = self.by_path.get(&(group.to_owned(), plural.to_owned()))?;
        served.version(version).is_some().then_some(served)
    }

    /// A resource in whatever version.
    pub(crate) fn resource(&self, group: &str, plural: &str) -> Option<&Arc<Served>> {
        self.by_path.get(&(group.to_owned(), plural.to_owned()))
    }

    /// A built-in resource that this server itself needs.
    ///
    /// # Errors
    /// 500 if it is not in the table, which is a bug.
    pub(crate) fn need(&self, group: &str, plural: &str) -> Result<Arc<Served>, Status> {
        let missing = || Status::new(Reason::InternalError, format!("{plural}.{group} is not served"));
        self.resource(group, plural).cloned().ok_or_else(missing)
    }

    /// The OpenAPI document of a group version, and its hash.
    pub(crate) fn document(&self, group: &str, version: &str) -> Option<(&[u8], &str)> {
        let document = self.documents.get(&(group.to_owned(), version.to_owned()))?;
        let make = || {
            let of_version = self.resources.iter().filter(|resource| resource.definition.group == group);
            let kinds: Vec<Published<'_>> = of_version
                .filter_map(|resource| {
                    let version = resource.version(version)?;
                    Some(Published { definition: &resource.definition, crd_schema: version.crd_schema.as_ref() })
                })
                .collect();
            let content = openapi::document(group, version, &kinds);
            let hash = openapi::hash(&content);
            (content, hash)
        };
        let (content, hash) = document.content.get_or_init(make);
        Some((content, hash))
    }
}
