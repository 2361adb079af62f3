//! The rules of Kubernetes that no schema states: names, immutable fields, references within an object.
//!
//! Messages are Kubernetes' own, as far as its Go types do not shine through them.

mod cluster;
mod config;
mod container;
mod crd;
mod metadata;
pub mod names;
mod pod;
mod service;
mod workload;

use serde_json::Value;

use crate::{
    Cause,
    resource::ResourceDefinition,
    schema::messages::{duplicate, forbidden, invalid, not_found, not_supported, required, too_long},
};

/// Rules for an object about to be created. The schema's own rules are checked apart, by [`crate::schema::Schema::validate`]; defaults
/// are set, and a name is generated, before.
pub fn validate_create(definition: &ResourceDefinition, object: &Value) -> Vec<Cause> {
    let mut faults = Faults::default();
    metadata::check(definition, object, &mut faults);
    check_kind(definition, object, &mut faults);
    faults.causes
}

/// Rules for an object about to replace `old`.
pub fn validate_update(definition: &ResourceDefinition, new: &Value, old: &Value) -> Vec<Cause> {
    let mut faults = Faults::default();
    metadata::check(definition, new, &mut faults);
    metadata::check_update(new, old, &mut faults);
    check_kind(definition, new, &mut faults);
    let (new, old) = (Field::root(new), Field::root(old));
    match (definition.group.as_str(), definition.kind.as_str()) {
        ("", "Pod") => pod::update(new, old, &mut faults),
        ("", "Service") => service::update(new, old, &mut faults),
        ("", "ConfigMap" | "Secret") => config::update(new, old, &mut faults),
        ("", "PersistentVolumeClaim") => config::claim_update(new, old, &mut faults),
        ("apps", "Deployment" | "ReplicaSet" | "DaemonSet") => workload::selector_update(new, old, &mut faults),
        ("apps", "StatefulSet") => workload::stateful_set_update(new, old, &mut faults),
        ("batch", "Job") => workload::job_update(new, old, &mut faults),
        ("rbac.authorization.k8s.io", "RoleBinding" | "ClusterRoleBinding") => cluster::role_ref_update(new, old, &mut faults),
        ("apiextensions.k8s.io", "CustomResourceDefinition") => crd::update(new, old, &mut faults),
        ("storage.k8s.io", "StorageClass") => cluster::storage_class_update(new, old, &mut faults),
        _ => {}
    }
    faults.causes
}

fn check_kind(definition: &ResourceDefinition, object: &Value, faults: &mut Faults) {
    let object = Field::root(object);
    match (definition.group.as_str(), definition.kind.as_str()) {
        ("", "Pod") => pod::check(object, faults),
        ("", "Service") => service::check(object, faults),
        ("", "ConfigMap") => config::config_map(object, faults),
        ("", "Secret") => config::secret(object, faults),
        ("", "PersistentVolumeClaim") => config::claim(object, faults),
        ("apps", "Deployment") => workload::deployment(object, faults),
        ("apps", "ReplicaSet") => workload::replica_set(object, faults),
        ("apps", "StatefulSet") => workload::stateful_set(object, faults),
        ("apps", "DaemonSet") => workload::daemon_set(object, faults),
        ("batch", "Job") => workload::job(object, faults),
        ("batch", "CronJob") => workload::cron_job(object, faults),
        ("rbac.authorization.k8s.io", "Role") => cluster::rules(object, true, faults),
        ("rbac.authorization.k8s.io", "ClusterRole") => cluster::rules(object, false, faults),
        ("rbac.authorization.k8s.io", "RoleBinding") => cluster::role_binding(object, true, faults),
        ("rbac.authorization.k8s.io", "ClusterRoleBinding") => cluster::role_binding(object, false, faults),
        ("admissionregistration.k8s.io", _) => cluster::webhooks(object, faults),
        ("apiextensions.k8s.io", "CustomResourceDefinition") => crd::check(object, faults),
        ("autoscaling", "HorizontalPodAutoscaler") => cluster::autoscaler(object, faults),
        ("policy", "PodDisruptionBudget") => cluster::disruption_budget(object, faults),
        ("networking.k8s.io", "Ingress") => service::ingress(object, faults),
        _ => {}
    }
}

const IMMUTABLE: &str = "field is immutable";

/// The faults found so far.
#[derive(Default)]
struct Faults {
    causes: Vec<Cause>,
}

impl Faults {
    fn required(&mut self, path: impl Into<String>, detail: &str) {
        self.causes.push(required(path, detail));
    }

    fn invalid(&mut self, path: impl Into<String>, value: impl Into<Value>, detail: &str) {
        self.causes.push(invalid(path, &value.into(), detail));
    }

    /// With the value in words of its own, where Kubernetes shows a Go value.
    fn invalid_shown(&mut self, path: impl Into<String>, shown: &str, detail: &str) {
        let mut cause = invalid(path, &Value::Null, "");
        cause.message = format!("Invalid value: {shown}: {detail}");
        self.causes.push(cause);
    }

    fn forbidden(&mut self, path: impl Into<String>, detail: &str) {
        self.causes.push(forbidden(path, detail));
    }

    fn duplicate(&mut self, path: impl Into<String>, value: impl Into<Value>) {
        self.causes.push(duplicate(path, &value.into()));
    }

    fn not_found(&mut self, path: impl Into<String>, value: impl Into<Value>) {
        self.causes.push(not_found(path, &value.into()));
    }

    fn too_long(&mut self, path: impl Into<String>, max: u64) {
        self.causes.push(too_long(path, max));
    }

    /// One of a few texts; an empty one is left to other rules.
    fn one_of(&mut self, field: &Field<'_>, supported: &[&str]) {
        let text = field.text();
        if !text.is_empty() && !supported.contains(&text) {
            let supported: Vec<Value> = supported.iter().map(|name| Value::from(*name)).collect();
            self.causes.push(not_supported(&*field.path, field.value, &supported));
        }
    }

    /// What a naming rule says of a text.
    fn named(&mut self, field: &Field<'_>, rule: fn(&str) -> Vec<String>) {
        for fault in rule(field.text()) {
            self.invalid(&*field.path, field.text(), &fault);
        }
    }

    /// A text that has to be there and to follow a naming rule.
    fn required_name(&mut self, field: &Field<'_>, rule: fn(&str) -> Vec<String>) {
        if field.text().is_empty() { self.required(&*field.path, "") } else { self.named(field, rule) }
    }

    fn not_negative(&mut self, field: &Field<'_>) {
        if let Some(number) = field.number().filter(|number| *number < 0) {
            self.invalid(&*field.path, number, "must be greater than or equal to 0");
        }
    }

    /// A port number.
    fn port(&mut self, field: &Field<'_>) {
        if let Some(number) = field.number().filter(|number| !(1..=65_535).contains(number)) {
            self.invalid(&*field.path, number, "must be between 1 and 65535, inclusive");
        }
    }

    /// A port's number or name.
    fn port_or_name(&mut self, field: &Field<'_>) {
        if field.value.is_string() { self.named(field, names::port_name) } else { self.port(field) }
    }

    fn immutable(&mut self, new: &Field<'_>, old: &Field<'_>) {
        if new.value != old.value {
            self.invalid(&*new.path, new.value.clone(), IMMUTABLE);
        }
    }

    fn labels(&mut self, field: &Field<'_>) {
        for (key, value) in field.value.as_object().into_iter().flatten() {
            for fault in names::qualified_name(key) {
                self.invalid(&*field.path, key.as_str(), &fault);
            }
            for fault in names::label_value(value.as_str().unwrap_or_default()) {
                self.invalid(&*field.path, value.clone(), &fault);
            }
        }
    }
}

/// A field of an object and where it stands. A missing field is null.
#[derive(Clone)]
struct Field<'a> {
    path: String,
    value: &'a Value,
}

impl<'a> Field<'a> {
    fn root(object: &'a Value) -> Self {
        Self { path: String::new(), value: object }
    }

    /// A field below: `spec.replicas`.
    fn at(&self, name: &str) -> Self {
        name.split('.').fold(self.clone(), |field, name| Self {
            path: if field.path.is_empty() { name.to_owned() } else { format!("{}.{name}", field.path) },
            value: field.value.get(name).unwrap_or(&Value::Null),
        })
    }

    fn items(&self) -> Vec<Self> {
        let items = self.value.as_array().map(Vec::as_slice).unwrap_or_default();
        let item = |(index, value)| Self { path: format!("{}[{index}]", self.path), value };
        items.iter().enumerate().map(item).collect()
    }

    fn text(&self) -> &'a str {
        self.value.as_str().unwrap_or_default()
    }

    fn number(&self) -> Option<i64> {
        self.value.as_i64()
    }

    fn is_true(&self) -> bool {
        self.value.as_bool().unwrap_or_default()
    }

    /// There, and not null.
    fn is_set(&self) -> bool {
        !self.value.is_null()
    }

    fn is_empty(&self) -> bool {
        match self.value {
            Value::Null => true,
            Value::Array(items) => items.is_empty(),
            Value::Object(fields) => fields.is_empty(),
            Value::String(text) => text.is_empty(),
            _ => false,
        }
    }
}

/// A label selector as Go shows it in messages.
fn go_selector(selector: &Value) -> String {
    let labels = go_map(selector.get("matchLabels").unwrap_or(&Value::Null));
    let expressions = match selector.get("matchExpressions").and_then(Value::as_array) {
        None => "[]v1.LabelSelectorRequirement(nil)".to_owned(),
        Some(all) => {
            let one = |expression: &Value| {
                let text = |name: &str| expression.get(name).and_then(Value::as_str).unwrap_or_default();
                let values = expression.get("values").and_then(Value::as_array);
                let values = values.map_or_else(
                    || "[]string(nil)".to_owned(),
                    |values| format!("[]string{{{}}}", values.iter().map(Value::to_string).collect::<Vec<_>>().join(", ")),
                );
                format!("v1.LabelSelectorRequirement{{Key:{:?}, Operator:{:?}, Values:{values}}}", text("key"), text("operator"))
            };
            format!("[]v1.LabelSelectorRequirement{{{}}}", all.iter().map(one).collect::<Vec<_>>().join(", "))
        }
    };
    format!("v1.LabelSelector{{MatchLabels:{labels}, MatchExpressions:{expressions}}}")
}

/// A map of strings as Go shows it.
fn go_map(map: &Value) -> String {
    match map.as_object() {
        None => "map[string]string(nil)".to_owned(),
        Some(fields) => {
            let fields = fields.iter().map(|(key, value)| format!("{key:?}:{value}"));
            format!("map[string]string{{{}}}", fields.collect::<Vec<_>>().join(", "))
        }
    }
}

#[cfg(test)]
mod tests;
