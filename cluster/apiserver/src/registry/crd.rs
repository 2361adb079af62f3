//! From a `CustomResourceDefinition` to a served resource.

use std::sync::OnceLock;

use jiff::Timestamp;
use meshlab_objects::resource::{GroupVersionKind, ResourceDefinition, Subresource, Verb};
use serde_json::{Value, json};

use super::{Custom, Registry, Served, ServedVersion};
use crate::store::{GroupResource, Object};

/// Where a custom kind has its replicas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ScalePaths {
    /// `.spec.replicas`
    pub(crate) spec: String,
    /// `.status.replicas`
    pub(crate) status: String,
    /// `.status.labelSelector`
    pub(crate) selector: Option<String>,
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// What a CRD serves; `None` while its names are not accepted.
pub(super) fn served(crd: &Object) -> Option<Served> {
    let value = crd.value();
    let (spec, status) = (&value["spec"], &value["status"]);
    let established = |condition: &Value| condition["type"] == "Established" && condition["status"] == "True";
    if !status["conditions"].as_array().is_some_and(|conditions| conditions.iter().any(established)) {
        return None;
    }
    let group = text(&spec["group"]);
    let names = &status["acceptedNames"];
    let mut all: Vec<&Value> = spec["versions"].as_array()?.iter().collect();
    let storage_version = all.iter().find(|version| version["storage"] == true).map(|version| text(&version["name"]))?;
    all.retain(|version| version["served"] == true);
    all.sort_by_key(|version| std::cmp::Reverse(version_priority(version["name"].as_str().unwrap_or_default())));
    let kind = text(&names["kind"]);
    let mut subresources: Vec<Subresource> = Vec::new();
    for version in &all {
        for (name, api_version, subresource_kind) in [("status", None, kind.as_str()), ("scale", Some("autoscaling/v1"), "Scale")]
        {
            if version["subresources"].get(name).is_none() || subresources.iter().any(|known| known.name == name) {
                continue;
            }
            let own = GroupVersionKind::new(group.clone(), text(&version["name"]), kind.clone());
            let kind = api_version.and_then(|version| GroupVersionKind::parse(version, subresource_kind)).unwrap_or(own);
            subresources.push(Subresource { name: name.into(), kind, verbs: vec![Verb::Get, Verb::Patch, Verb::Update] });
        }
    }
    let definition = ResourceDefinition {
        versions: all.iter().map(|version| text(&version["name"])).collect(),
        storage_version,
        list_kind: names["listKind"].as_str().map_or_else(|| format!("{kind}List"), str::to_owned),
        plural: text(&names["plural"]),
        singular: names["singular"].as_str().map_or_else(|| kind.to_lowercase(), str::to_owned),
        short_names: texts(&names["shortNames"]),
        namespaced: spec["scope"] == "Namespaced",
        categories: texts(&names["categories"]),
        verbs: vec![
            Verb::Delete,
            Verb::DeleteCollection,
            Verb::Get,
            Verb::List,
            Verb::Patch,
            Verb::Create,
            Verb::Update,
            Verb::Watch,
        ],
        subresources,
        group,
        kind,
    };
    let versions = all.iter().map(|version| served_version(&definition, version)).collect();
    let id = GroupResource::new(&definition.group, &definition.plural);
    let generation = value["metadata"]["generation"].as_u64().unwrap_or_default();
    let custom = Some(Custom { uid: crd.uid().to_owned(), generation });
    Some(Served { definition, id, versions, custom })
}

fn served_version(definition: &ResourceDefinition, version: &Value) -> ServedVersion {
    let name = text(&version["name"]);
    let scale = version["subresources"].get("scale").map(|scale| ScalePaths {
        spec: text(&scale["specReplicasPath"]),
        status: text(&scale["statusReplicasPath"]),
        selector: scale["labelSelectorPath"].as_str().map(str::to_owned),
    });
    let fields = version["selectableFields"].as_array().into_iter().flatten();
    let selectable_fields =
        fields.filter_map(|field| Some(field["jsonPath"].as_str()?.trim_start_matches('.').to_owned())).collect();
    let deprecation = (version["deprecated"] == true).then(|| {
        let standard = || format!("{}/{name} {} is deprecated", definition.group, definition.kind);
        version["deprecationWarning"].as_str().map_or_else(standard, str::to_owned)
    });
    ServedVersion {
        crd_schema: version["schema"].get("openAPIV3Schema").cloned(),
        schema: OnceLock::new(),
        printer_columns: version.get("additionalPrinterColumns").cloned(),
        columns: OnceLock::new(),
        selectable_fields,
        scale,
        deprecation,
        name,
    }
}

/// Kubernetes' order of versions: general availability, then beta, then alpha, each by descending number, then the rest.
pub(super) fn version_priority(version: &str) -> (u8, u64, u64) {
    let parse = || {
        let rest = version.strip_prefix('v')?;
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let major: u64 = rest[..digits].parse().ok()?;
        let (level, minor) = match &rest[digits..] {
            "" => (3, 0),
            other if other.starts_with("beta") => (2, other[4..].parse().ok()?),
            other if other.starts_with("alpha") => (1, other[5..].parse().ok()?),
            _ => return None,
        };
        Some((level, major, minor))
    };
    parse().unwrap_or((0, 0, 0))
}

/// Why the names of a CRD cannot be accepted, if they belong to another resource of its group.
pub(crate) fn names_conflict(registry: &Registry, crd: &Value) -> Option<String> {
    let (group, names) = (crd["spec"]["group"].as_str()?, &crd["spec"]["names"]);
    let plural = names["plural"].as_str()?;
    let others = registry.resources().iter().filter(|other| other.definition.group == group && other.definition.plural != plural);
    for other in others {
        let other = &other.definition;
        let mut taken = vec![&other.plural, &other.singular];
        taken.extend(&other.short_names);
        let mut wanted = vec![plural.to_owned(), text(&names["singular"])];
        wanted.extend(texts(&names["shortNames"]));
        if let Some(name) = wanted.iter().find(|name| !name.is_empty() && taken.contains(name)) {
            return Some(format!("{name:?} is already in use"));
        }
        if names["kind"] == other.kind.as_str() || names["listKind"] == other.list_kind.as_str() {
            return Some(format!("{:?} is already in use", other.kind));
        }
    }
    None
}

/// The status of a CRD as it is stored: a controller sets it on a real cluster, this server does it in the same write.
pub(crate) fn stored_status(conflict: Option<&str>, crd: &Value, old: Option<&Value>, now: Timestamp) -> Value {
    let names = &crd["spec"]["names"];
    let before = |kind: &str, status: &str| {
        let conditions = old.and_then(|old| old["status"]["conditions"].as_array());
        conditions.into_iter().flatten().find(|condition| condition["type"] == kind && condition["status"] == status).cloned()
    };
    let condition = |kind: &str, fine: bool, good: (&str, &str), bad: (&str, &str)| {
        let status = if fine { "True" } else { "False" };
        let (reason, message) = if fine { good } else { bad };
        before(kind, status).unwrap_or_else(|| {
            let now = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
            json!({"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": now})
        })
    };
    let was_established = before("Established", "True").is_some();
    let accepted = conflict.is_none();
    let names_accepted = condition(
        "NamesAccepted",
        accepted,
        ("NoConflicts", "no conflicts found"),
        ("NameConflict", conflict.unwrap_or_default()),
    );
    let established = condition(
        "Established",
        accepted || was_established,
        ("InitialNamesAccepted", "the initial names have been accepted"),
        ("NotAccepted", "not all names are accepted"),
    );
    let mut stored: Vec<String> = old.map(|old| texts(&old["status"]["storedVersions"])).unwrap_or_default();
    for version in crd["spec"]["versions"].as_array().into_iter().flatten().filter(|version| version["storage"] == true) {
        let name = text(&version["name"]);
        if !stored.contains(&name) {
            stored.push(name);
        }
    }
    let mut accepted_names = names.clone();
    if !accepted {
        accepted_names =
            old.map(|old| old["status"]["acceptedNames"].clone()).unwrap_or_else(|| json!({"plural": "", "kind": ""}));
    }
    json!({"conditions": [names_accepted, established], "acceptedNames": accepted_names, "storedVersions": stored})
}

#[cfg(test)]
mod tests {
    use super::version_priority;

    #[test]
    fn versions_are_ordered_as_kubernetes_orders_them() {
        let mut versions = ["foo", "v1alpha1", "v2", "v1", "v1beta2", "v11", "v1beta10"];
        versions.sort_by_key(|version| std::cmp::Reverse(version_priority(version)));
        assert_eq!(versions, ["v11", "v2", "v1", "v1beta10", "v1beta2", "v1alpha1", "foo"]);
    }
}
