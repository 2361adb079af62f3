//! Defaults: those a CRD's schema declares, and those a real API server sets on built-in kinds.

mod other;
mod pod;
mod service;
mod workload;

use serde_json::{Map, Value};

use super::node::{Cursor, Node};

/// The fields of an object.
type Fields = Map<String, Value>;

/// Sets the defaults of a built-in kind.
pub(super) fn apply_builtin(root: Cursor<'_>, object: &mut Value) {
    let Some(fields) = object.as_object_mut() else { return };
    match root.type_name().strip_prefix("io.k8s.").unwrap_or_default() {
        "api.core.v1.Pod" => pod::pod(fields),
        "api.core.v1.PodTemplate" => workload::template(fields),
        "api.core.v1.ReplicationController" => workload::replication_controller(fields),
        "api.apps.v1.Deployment" => workload::deployment(fields),
        "api.apps.v1.ReplicaSet" => workload::replica_set(fields),
        "api.apps.v1.StatefulSet" => workload::stateful_set(fields),
        "api.apps.v1.DaemonSet" => workload::daemon_set(fields),
        "api.batch.v1.Job" => workload::job(fields),
        "api.batch.v1.CronJob" => workload::cron_job(fields),
        "api.core.v1.Service" => service::service(fields),
        "api.core.v1.Endpoints" => service::endpoints(fields),
        "api.discovery.v1.EndpointSlice" => service::endpoint_slice(fields),
        "api.networking.v1.NetworkPolicy" => service::network_policy(fields),
        "api.core.v1.Namespace" => other::namespace(fields),
        "api.core.v1.Secret" => other::secret(fields),
        "api.core.v1.PersistentVolume" => other::persistent_volume(fields),
        "api.core.v1.PersistentVolumeClaim" => other::persistent_volume_claim(fields),
        "api.rbac.v1.RoleBinding" | "api.rbac.v1.ClusterRoleBinding" => other::role_binding(fields),
        "api.admissionregistration.v1.MutatingWebhookConfiguration" => other::webhooks(fields, true),
        "api.admissionregistration.v1.ValidatingWebhookConfiguration" => other::webhooks(fields, false),
        "apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceDefinition" => other::custom_resource_definition(fields),
        "api.autoscaling.v1.HorizontalPodAutoscaler" | "api.autoscaling.v2.HorizontalPodAutoscaler" => other::autoscaler(fields),
        "api.storage.v1.StorageClass" => {
            set(fields, "reclaimPolicy", "Delete");
            set(fields, "volumeBindingMode", "Immediate");
        }
        "api.scheduling.v1.PriorityClass" => set(fields, "preemptionPolicy", "PreemptLowerPriority"),
        "api.authentication.v1.TokenRequest" => set(object_in(fields, "spec"), "expirationSeconds", 3600),
        _ => {}
    }
}

/// Sets the defaults a schema declares, also inside of defaults; nulls where none are allowed give way to them.
pub(super) fn apply_declared(at: Cursor<'_>, value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|name, value| !value.is_null() || at.property(name).is_none_or(|field| accepts_null(field.node)));
            for (name, id) in &at.node.properties {
                if let Some(default) = at.to(*id).node.default.as_ref().filter(|_| !fields.contains_key(&**name)) {
                    fields.insert(name.to_string(), default.clone());
                }
            }
            for (name, value) in fields.iter_mut() {
                if let Some(field) = at.field(name) {
                    if value.is_null()
                        && !accepts_null(field.node)
                        && let Some(default) = &field.node.default
                    {
                        *value = default.clone();
                    }
                    apply_declared(field, value);
                }
            }
        }
        Value::Array(items) => {
            if let Some(item_schema) = at.items() {
                for item in items {
                    apply_declared(item_schema, item);
                }
            }
        }
        _ => {}
    }
}

fn accepts_null(node: &Node) -> bool {
    node.nullable || node.r#type == super::node::Type::Any
}

/// Sets a field that is not there.
fn set(fields: &mut Fields, name: &str, value: impl Into<Value>) {
    if fields.get(name).is_none_or(Value::is_null) {
        fields.insert(name.to_owned(), value.into());
    }
}

/// Sets a text field that is missing or empty.
fn set_text(fields: &mut Fields, name: &str, value: &str) {
    if fields.get(name).and_then(Value::as_str).is_none_or(str::is_empty)
        && fields.get(name).is_none_or(|v| v.is_string() || v.is_null())
    {
        fields.insert(name.to_owned(), value.into());
    }
}

/// The object in a field, made where there is none. Types are checked before defaults are set, so what is no object here is null.
fn object_in<'a>(fields: &'a mut Fields, name: &str) -> &'a mut Fields {
    let value = fields.entry(name).or_insert_with(|| Value::Object(Map::new()));
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    match value {
        Value::Object(object) => object,
        _ => unreachable!("it was just made an object"),
    }
}

/// The object in a field, if there is one.
fn existing<'a>(fields: &'a mut Fields, name: &str) -> Option<&'a mut Fields> {
    fields.get_mut(name)?.as_object_mut()
}

/// The objects in a list.
fn each<'a>(fields: &'a mut Fields, name: &str) -> impl Iterator<Item = &'a mut Fields> {
    fields.get_mut(name).and_then(Value::as_array_mut).into_iter().flatten().filter_map(Value::as_object_mut)
}

fn text<'a>(fields: &'a Fields, name: &str) -> &'a str {
    fields.get(name).and_then(Value::as_str).unwrap_or_default()
}

#[cfg(test)]
mod tests;
