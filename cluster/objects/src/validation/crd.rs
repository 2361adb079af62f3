//! CustomResourceDefinitions: names, versions and their schemas.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Faults, Field, IMMUTABLE, names};
use crate::{schema::Schema, table::jsonpath::JsonPath};

pub(super) fn check(crd: Field<'_>, faults: &mut Faults) {
    let spec = crd.at("spec");
    let (group, plural) = (spec.at("group"), spec.at("names.plural"));
    let name = crd.at("metadata.name");
    if name.text() != format!("{}.{}", plural.text(), group.text()) {
        faults.invalid(&*name.path, name.text(), "must be spec.names.plural+\".\"+spec.group");
    }
    faults.required_name(&group, names::dns_subdomain);
    if !group.text().is_empty() && !group.text().contains('.') {
        faults.invalid(&*group.path, group.text(), "should be a domain with at least one dot");
    }
    let scope = spec.at("scope");
    if scope.text().is_empty() {
        faults.required(&*scope.path, "");
    }
    faults.one_of(&scope, &["Cluster", "Namespaced"]);
    for field in ["names.plural", "names.singular"] {
        faults.required_name(&spec.at(field), names::dns_1035_label);
    }
    for field in ["names.kind", "names.listKind"] {
        let field = spec.at(field);
        if field.text().is_empty() {
            faults.required(&*field.path, "");
        } else {
            for fault in names::dns_1035_label(&field.text().to_lowercase()) {
                faults.invalid(&*field.path, field.text(), &format!("may have mixed case, but should otherwise match: {fault}"));
            }
        }
    }
    for short_name in spec.at("names.shortNames").items() {
        faults.named(&short_name, names::dns_1035_label);
    }
    if spec.at("preserveUnknownFields").is_true() {
        faults.invalid("spec.preserveUnknownFields", true, "must be false in order to use defaults in the schema");
    }
    versions(&spec.at("versions"), faults);
}

fn versions(versions: &Field<'_>, faults: &mut Faults) {
    if versions.is_empty() {
        faults.required(&*versions.path, "must have at least one version");
        return;
    }
    let mut seen = BTreeSet::new();
    for version in versions.items() {
        let name = version.at("name");
        faults.required_name(&name, names::dns_1035_label);
        if !name.text().is_empty() && !seen.insert(name.text()) {
            faults.duplicate(&*name.path, name.text());
        }
        let schema = version.at("schema.openAPIV3Schema");
        if schema.is_set() {
            let below = |field: &str| if field.is_empty() { schema.path.clone() } else { format!("{}.{field}", schema.path) };
            if let Err(causes) = Schema::from_crd(schema.value) {
                faults.causes.extend(causes.into_iter().map(|cause| crate::Cause { field: below(&cause.field), ..cause }));
            }
        } else {
            faults.required(&*schema.path, "schemas are required");
        }
        columns(&version.at("additionalPrinterColumns"), faults);
        let scale = version.at("subresources.scale");
        for (name, prefix) in [("specReplicasPath", ".spec."), ("statusReplicasPath", ".status.")] {
            let field = scale.at(name);
            if scale.is_set() && field.text().is_empty() {
                faults.required(&*field.path, "");
            } else if scale.is_set() && !field.text().starts_with(prefix) {
                faults.invalid(&*field.path, field.text(), &format!("should be a json path under {prefix}"));
            }
        }
    }
    let stored = versions.items().iter().filter(|version| version.at("storage").is_true()).count();
    if stored != 1 {
        let names: Vec<Value> = versions.items().iter().map(|version| version.at("name").value.clone()).collect();
        faults.invalid(&*versions.path, names, "must have exactly one version marked as storage version");
    }
}

fn columns(columns: &Field<'_>, faults: &mut Faults) {
    for column in columns.items() {
        let (path, column_type) = (column.at("jsonPath"), column.at("type"));
        if column.at("name").text().is_empty() {
            faults.required(&*column.at("name").path, "");
        }
        if column_type.text().is_empty() {
            faults.required(&*column_type.path, "must be one of boolean,date,integer,number,string");
        }
        faults.one_of(&column_type, &["boolean", "date", "integer", "number", "string"]);
        if path.text().is_empty() {
            faults.required(&*path.path, "");
        } else if !path.text().starts_with('.') || JsonPath::parse(path.text()).is_none() {
            faults.invalid(&*path.path, path.text(), "is invalid: must be a simple json path with leading .");
        }
    }
}

pub(super) fn update(new: Field<'_>, old: Field<'_>, faults: &mut Faults) {
    let established = old
        .at("status.conditions")
        .items()
        .iter()
        .any(|condition| condition.at("type").text() == "Established" && condition.at("status").text() == "True");
    for name in ["spec.group", "spec.names.plural"] {
        faults.immutable(&new.at(name), &old.at(name));
    }
    if established {
        for name in ["spec.scope", "spec.names.kind"] {
            if new.at(name).value != old.at(name).value {
                faults.invalid(name, new.at(name).value.clone(), IMMUTABLE);
            }
        }
    }
    let served: Vec<&str> = new.at("spec.versions").items().iter().map(|version| version.at("name").text()).collect();
    for (index, stored) in old.at("status.storedVersions").items().iter().enumerate() {
        if !served.contains(&stored.text()) {
            let detail = format!(
                "missing from spec.versions; {} was previously a storage version, and must remain in spec.versions until a storage migration ensures no data remains persisted in {0} and removes {0} from status.storedVersions",
                stored.text()
            );
            faults.invalid(format!("status.storedVersions[{index}]"), stored.text(), &detail);
        }
    }
}
