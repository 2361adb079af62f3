//! Containers of pods and templates.

use std::{cmp::Ordering, collections::BTreeSet};

use serde_json::Value;

use super::{Faults, Field, names};
use crate::quantity::Quantity;

/// What a container is to its pod.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Main,
    Init,
    Ephemeral,
}

const HANDLERS: [&str; 4] = ["exec", "grpc", "httpGet", "tcpSocket"];
const VALUE_SOURCES: [&str; 4] = ["fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef"];

/// `volumes` are the names of the pod's volumes.
pub(super) fn check(container: &Field<'_>, role: Role, volumes: &BTreeSet<&str>, faults: &mut Faults) {
    faults.required_name(&container.at("name"), names::dns_label);
    let image = container.at("image");
    if image.text().is_empty() {
        faults.required(&*image.path, "");
    } else if image.text().trim() != image.text() {
        faults.invalid(&*image.path, image.text(), "must not have leading or trailing whitespace");
    }
    faults.one_of(&container.at("imagePullPolicy"), &["Always", "IfNotPresent", "Never"]);
    faults.one_of(&container.at("terminationMessagePolicy"), &["FallbackToLogsOnError", "File"]);
    ports(&container.at("ports"), faults);
    for variable in container.at("env").items() {
        environment(&variable, faults);
    }
    for source in container.at("envFrom").items() {
        if source.at("prefix").is_set() && !source.at("prefix").text().is_empty() {
            faults.named(&source.at("prefix"), names::env_name);
        }
        match (source.at("configMapRef").is_set(), source.at("secretRef").is_set()) {
            (false, false) => faults.invalid(&*source.path, "", "must specify one of: `configMapRef` or `secretRef`"),
            (true, true) => faults.invalid(&*source.path, "", "may not have more than one field specified at a time"),
            _ => {}
        }
        for reference in ["configMapRef", "secretRef"] {
            if source.at(reference).is_set() {
                faults.required_name(&source.at(reference).at("name"), names::dns_subdomain);
            }
        }
    }
    mounts(&container.at("volumeMounts"), volumes, faults);
    resources(&container.at("resources"), faults);
    restart_policy_and_probes(container, role, faults);
}

fn restart_policy_and_probes(container: &Field<'_>, role: Role, faults: &mut Faults) {
    let restart = container.at("restartPolicy");
    let restartable = restart.text() == "Always";
    match role {
        Role::Init => faults.one_of(&restart, &["Always"]),
        Role::Main | Role::Ephemeral if restart.is_set() => {
            faults.forbidden(&*restart.path, "may not be set for non-init containers")
        }
        Role::Main | Role::Ephemeral => {}
    }
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let field = container.at(name);
        if !field.is_set() {
            continue;
        }
        match role {
            Role::Init if !restartable => {
                faults.forbidden(&*field.path, "may not be set for init containers without restartPolicy=Always");
            }
            Role::Ephemeral => faults.forbidden(&*field.path, "cannot be set for an Ephemeral Container"),
            _ => probe(&field, name != "readinessProbe", faults),
        }
    }
    for hook in ["lifecycle.postStart", "lifecycle.preStop"] {
        let field = container.at(hook);
        if field.is_set() {
            handler(&field, &["exec", "httpGet", "sleep", "tcpSocket"], faults);
        }
    }
}

fn ports(ports: &Field<'_>, faults: &mut Faults) {
    let mut seen = BTreeSet::new();
    for port in ports.items() {
        let name = port.at("name");
        if !name.text().is_empty() {
            faults.named(&name, names::port_name);
            if !seen.insert(name.text()) {
                faults.duplicate(&*name.path, name.text());
            }
        }
        let number = port.at("containerPort");
        if number.number().unwrap_or_default() == 0 {
            faults.required(&*number.path, "")
        } else {
            faults.port(&number)
        }
        if port.at("hostPort").number().unwrap_or_default() != 0 {
            faults.port(&port.at("hostPort"));
        }
        faults.one_of(&port.at("protocol"), &["SCTP", "TCP", "UDP"]);
    }
}

fn environment(variable: &Field<'_>, faults: &mut Faults) {
    faults.required_name(&variable.at("name"), names::env_name);
    let source = variable.at("valueFrom");
    if !source.is_set() {
        return;
    }
    let sources: Vec<&str> = VALUE_SOURCES.into_iter().filter(|name| source.at(name).is_set()).collect();
    if !variable.at("value").text().is_empty() {
        if !sources.is_empty() {
            faults.invalid(&*source.path, "", "may not be specified when `value` is not empty");
        }
    } else if sources.is_empty() {
        let detail = "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`";
        faults.invalid(&*source.path, "", detail);
    } else if sources.len() > 1 {
        faults.invalid(&*source.path, "", "may not have more than one field specified at a time");
    }
    for name in ["configMapKeyRef", "secretKeyRef"] {
        if source.at(name).is_set() {
            for part in ["name", "key"] {
                let field = source.at(name).at(part);
                if field.text().is_empty() {
                    faults.required(&*field.path, "");
                }
            }
        }
    }
    if source.at("fieldRef").is_set() {
        let path = source.at("fieldRef.fieldPath");
        let subscript = ["metadata.labels['", "metadata.annotations['"].iter().any(|prefix| path.text().starts_with(prefix));
        if path.text().is_empty() {
            faults.required(&*path.path, "");
        } else if !subscript {
            faults.one_of(
                &path,
                &[
                    "metadata.name",
                    "metadata.namespace",
                    "metadata.uid",
                    "spec.nodeName",
                    "spec.serviceAccountName",
                    "status.hostIP",
                    "status.hostIPs",
                    "status.podIP",
                    "status.podIPs",
                ],
            );
        }
    }
}

fn mounts(mounts: &Field<'_>, volumes: &BTreeSet<&str>, faults: &mut Faults) {
    let mut paths = BTreeSet::new();
    for mount in mounts.items() {
        let (name, path) = (mount.at("name"), mount.at("mountPath"));
        if name.text().is_empty() {
            faults.required(&*name.path, "");
        } else if !volumes.contains(name.text()) {
            faults.not_found(&*name.path, name.text());
        }
        if path.text().is_empty() {
            faults.required(&*path.path, "");
        } else if !paths.insert(path.text()) {
            faults.invalid(&*path.path, path.text(), "must be unique");
        }
        for sub_path in ["subPath", "subPathExpr"] {
            let field = mount.at(sub_path);
            if field.text().starts_with('/') {
                faults.invalid(&*field.path, field.text(), "must be a relative path");
            } else if field.text().split('/').any(|part| part == "..") {
                faults.invalid(&*field.path, field.text(), "must not contain '..'");
            }
        }
    }
}

fn resources(resources: &Field<'_>, faults: &mut Faults) {
    let quantity = |value: &Value| value.as_str().and_then(Quantity::parse);
    for list in ["limits", "requests"] {
        let field = resources.at(list);
        for (name, value) in field.value.as_object().into_iter().flatten() {
            if quantity(value).is_some_and(Quantity::is_negative) {
                faults.invalid(format!("{}[{name}]", field.path), value.clone(), "must be greater than or equal to 0");
            }
        }
    }
    let requests = resources.at("requests");
    for (name, request) in requests.value.as_object().into_iter().flatten() {
        let Some(limit) = resources.at("limits").value.get(name) else { continue };
        if let (Some(asked), Some(most)) = (quantity(request), quantity(limit))
            && asked.compare(most) == Ordering::Greater
        {
            let detail = format!("must be less than or equal to {name} limit of {}", limit.as_str().unwrap_or_default());
            faults.invalid(&*requests.path, request.clone(), &detail);
        }
    }
}

/// `restarts`: the probe decides whether the container is restarted, so that one success has to do.
fn probe(probe: &Field<'_>, restarts: bool, faults: &mut Faults) {
    handler(probe, &HANDLERS, faults);
    for name in ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"] {
        faults.not_negative(&probe.at(name));
    }
    let threshold = probe.at("successThreshold");
    if restarts && threshold.number().is_some_and(|number| number != 1) {
        faults.invalid(&*threshold.path, threshold.value.clone(), "must be 1");
    }
    let grace = probe.at("terminationGracePeriodSeconds");
    if grace.number().is_some_and(|seconds| seconds <= 0) {
        faults.invalid(&*grace.path, grace.value.clone(), "must be greater than 0");
    }
}

/// What a probe or a hook does: exactly one thing.
fn handler(owner: &Field<'_>, known: &[&str], faults: &mut Faults) {
    let set: Vec<Field<'_>> = known.iter().map(|name| owner.at(name)).filter(Field::is_set).collect();
    if set.is_empty() {
        faults.required(&*owner.path, "must specify a handler type");
    }
    for further in set.iter().skip(1) {
        faults.forbidden(&*further.path, "may not specify more than 1 handler type");
    }
    let http = owner.at("httpGet");
    if http.is_set() {
        if http.at("path").text().is_empty() {
            faults.required(&*http.at("path").path, "");
        }
        faults.port_or_name(&http.at("port"));
        faults.one_of(&http.at("scheme"), &["HTTP", "HTTPS"]);
    }
    if owner.at("tcpSocket").is_set() {
        faults.port_or_name(&owner.at("tcpSocket.port"));
    }
    if owner.at("grpc").is_set() {
        faults.port(&owner.at("grpc.port"));
    }
    if owner.at("exec").is_set() && owner.at("exec.command").is_empty() {
        faults.required(&*owner.at("exec.command").path, "");
    }
}
