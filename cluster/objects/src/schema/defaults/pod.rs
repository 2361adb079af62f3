//! Defaults of pods and pod templates.

use serde_json::{Value, json};

use super::{Fields, each, existing, object_in, set, set_text, text};

const FILE_MODE: i32 = 0o644;

/// A pod that stands for itself.
pub(super) fn pod(fields: &mut Fields) {
    let spec = object_in(fields, "spec");
    pod_spec(spec);
    set(spec, "enableServiceLinks", true);
    for list in ["containers", "initContainers"] {
        for container in each(spec, list) {
            request_limits(container);
        }
    }
}

/// A resource with a limit and no request requests its limit.
fn request_limits(container: &mut Fields) {
    let Some(resources) = existing(container, "resources") else { return };
    let Some(limits) = resources.get("limits").and_then(Value::as_object).cloned() else { return };
    let requests = object_in(resources, "requests");
    for (resource, limit) in limits {
        set(requests, &resource, limit);
    }
}

/// The spec of a pod or of a template.
pub(super) fn pod_spec(spec: &mut Fields) {
    set_text(spec, "dnsPolicy", "ClusterFirst");
    set_text(spec, "restartPolicy", "Always");
    set_text(spec, "schedulerName", "default-scheduler");
    set(spec, "securityContext", json!({}));
    set(spec, "terminationGracePeriodSeconds", 30);
    service_account(spec);
    let host_network = spec.get("hostNetwork").and_then(Value::as_bool).unwrap_or_default();
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        for each_container in each(spec, list) {
            container(each_container);
            if host_network {
                for port in each(each_container, "ports") {
                    if let Some(number) = port.get("containerPort").cloned() {
                        set(port, "hostPort", number);
                    }
                }
            }
        }
    }
    for each_volume in each(spec, "volumes") {
        volume(each_volume);
    }
}

/// `serviceAccount` is the old name of `serviceAccountName`; both are always there together.
fn service_account(spec: &mut Fields) {
    let name = [text(spec, "serviceAccountName"), text(spec, "serviceAccount")].into_iter().find(|name| !name.is_empty());
    if let Some(name) = name.map(str::to_owned) {
        set_text(spec, "serviceAccountName", &name);
        spec.insert("serviceAccount".to_owned(), name.into());
    }
}

fn container(container: &mut Fields) {
    let policy = if is_latest(text(container, "image")) { "Always" } else { "IfNotPresent" };
    set_text(container, "imagePullPolicy", policy);
    set_text(container, "terminationMessagePath", "/dev/termination-log");
    set_text(container, "terminationMessagePolicy", "File");
    set(container, "resources", json!({}));
    for port in each(container, "ports") {
        set_text(port, "protocol", "TCP");
    }
    for variable in each(container, "env") {
        if let Some(field) = existing(variable, "valueFrom").and_then(|source| existing(source, "fieldRef")) {
            set_text(field, "apiVersion", "v1");
        }
        // Kubernetes keeps no empty values.
        if variable.get("value").is_some_and(|value| value == "") {
            variable.remove("value");
        }
    }
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(each_probe) = existing(container, name) {
            probe(each_probe);
        }
    }
    if let Some(lifecycle) = existing(container, "lifecycle") {
        for hook in ["postStart", "preStop"] {
            if let Some(http) = existing(lifecycle, hook).and_then(|hook| existing(hook, "httpGet")) {
                http_get(http);
            }
        }
    }
}

/// Whether an image has the tag `latest`, which is also what no tag means. A digest pins it.
fn is_latest(image: &str) -> bool {
    if image.contains('@') {
        return false;
    }
    let name = image.rsplit('/').next().unwrap_or_default();
    name.split_once(':').is_none_or(|(_, tag)| tag == "latest")
}

fn probe(probe: &mut Fields) {
    for (name, default) in [("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1), ("failureThreshold", 3)] {
        if probe.get(name).is_none_or(|value| value == 0) {
            probe.insert(name.to_owned(), default.into());
        }
    }
    if let Some(http) = existing(probe, "httpGet") {
        http_get(http);
    }
    if let Some(grpc) = existing(probe, "grpc") {
        set(grpc, "service", "");
    }
}

fn http_get(http: &mut Fields) {
    set_text(http, "path", "/");
    set_text(http, "scheme", "HTTP");
}

fn volume(volume: &mut Fields) {
    if volume.keys().all(|key| key == "name") {
        volume.insert("emptyDir".to_owned(), json!({}));
    }
    for source in ["secret", "configMap", "downwardAPI", "projected"] {
        if let Some(source) = existing(volume, source) {
            set(source, "defaultMode", FILE_MODE);
        }
    }
    if let Some(path) = existing(volume, "hostPath") {
        set(path, "type", "");
    }
    if let Some(downward) = existing(volume, "downwardAPI") {
        field_references(downward);
    }
    if let Some(projected) = existing(volume, "projected") {
        for source in each(projected, "sources") {
            if let Some(token) = existing(source, "serviceAccountToken") {
                set(token, "expirationSeconds", 3600);
            }
            if let Some(downward) = existing(source, "downwardAPI") {
                field_references(downward);
            }
        }
    }
}

fn field_references(downward: &mut Fields) {
    for item in each(downward, "items") {
        if let Some(field) = existing(item, "fieldRef") {
            set_text(field, "apiVersion", "v1");
        }
    }
}
