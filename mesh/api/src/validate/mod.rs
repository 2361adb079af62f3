//! What Istio's webhook and schemas refuse, refused here: each finding names its field.

mod authorization_policy;
mod check;
mod destination_rule;
mod fields;
mod gateway;
mod http_route;
mod not_acted_on;
mod request_authentication;
mod service_entry;
mod sidecar;
mod telemetry;
mod virtual_service;

use serde::de::DeserializeOwned;
use serde_json::Value;

use self::check::Check;
use crate::{
    AuthorizationPolicy, DestinationRule, EnvoyFilter, FieldError, Gateway, Kind, Object, PeerAuthentication, ProxyConfig,
    RequestAuthentication, ServiceEntry, Sidecar, Telemetry, VirtualService, WasmPlugin, WorkloadEntry, WorkloadGroup,
};

/// Something that is accepted but probably not what was meant.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Warning {
    /// Where: `spec.http[0].mirrorPercent`.
    pub path: String,
    /// What and why.
    pub message: String,
}

/// Checks an object of any kind of the Istio API, as `kubectl apply` sends it. Fields that a kind does not have are errors.
pub fn validate(object: &Value) -> Result<Vec<Warning>, Vec<FieldError>> {
    let text = |field: &str| object.get(field).and_then(Value::as_str).unwrap_or_default();
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    let Some(kind) = Kind::parse(api_version, kind) else {
        return Err(vec![FieldError::new(
            "kind",
            format!("{api_version} {kind} is not a kind of the Istio API in a version that is served"),
        )]);
    };
    let mut check = Check::default();
    for key in object.as_object().into_iter().flat_map(|map| map.keys()) {
        if !matches!(key.as_str(), "apiVersion" | "kind" | "metadata" | "spec" | "status") {
            check.error(key, "the object has no such field; what describes it belongs under spec");
        }
    }
    dry_run_annotation(object, kind, &mut check);
    match kind {
        Kind::AuthorizationPolicy => read::<AuthorizationPolicy>(object, &mut check, authorization_policy::check),
        Kind::DestinationRule => read::<DestinationRule>(object, &mut check, destination_rule::check),
        Kind::EnvoyFilter => read::<EnvoyFilter>(object, &mut check, |_, check| {
            check.warning("spec", "EnvoyFilter patches Envoy's configuration; the proxy here is not Envoy, so it has no effect");
        }),
        Kind::Gateway => read::<Gateway>(object, &mut check, gateway::check),
        Kind::PeerAuthentication => read::<PeerAuthentication>(object, &mut check, peer_authentication),
        Kind::ProxyConfig => read::<ProxyConfig>(object, &mut check, proxy_config),
        Kind::RequestAuthentication => read::<RequestAuthentication>(object, &mut check, request_authentication::check),
        Kind::ServiceEntry => read::<ServiceEntry>(object, &mut check, service_entry::check),
        Kind::Sidecar => read::<Sidecar>(object, &mut check, sidecar::check),
        Kind::Telemetry => read::<Telemetry>(object, &mut check, telemetry::check),
        Kind::VirtualService => read::<VirtualService>(object, &mut check, virtual_service::check),
        Kind::WasmPlugin => read::<WasmPlugin>(object, &mut check, |plugin, check| {
            check.required("spec.url", &plugin.spec.url);
            check.warning("spec", "WasmPlugin extends Envoy; the proxy here is not Envoy, so it has no effect");
        }),
        Kind::WorkloadEntry => {
            read::<WorkloadEntry>(object, &mut check, |entry, check| service_entry::workload(&entry.spec, "spec", check))
        }
        Kind::WorkloadGroup => read::<WorkloadGroup>(object, &mut check, workload_group),
    }
    not_acted_on::warn(object, kind, &mut check);
    check.finish()
}

fn read<S: DeserializeOwned + Default>(object: &Value, check: &mut Check, rules: impl FnOnce(&Object<S>, &mut Check)) {
    match Object::from_value(object) {
        Ok(object) => rules(&object, check),
        Err(error) => check.errors.push(error),
    }
}

fn dry_run_annotation(object: &Value, kind: Kind, check: &mut Check) {
    let annotation = "istio.io/dry-run";
    let Some(value) =
        object.pointer("/metadata/annotations").and_then(|annotations| annotations.get(annotation)).and_then(Value::as_str)
    else {
        return;
    };
    let path = "metadata.annotations";
    let action = object.pointer("/spec/action").and_then(Value::as_str).unwrap_or("ALLOW");
    if kind != Kind::AuthorizationPolicy {
        check.error(path, format!("{annotation} is for AuthorizationPolicy only"));
    } else if !matches!(value, "true" | "false") {
        check.error(path, format!("{annotation} is true or false, not {value:?}"));
    } else if value == "true" && !matches!(action, "ALLOW" | "DENY") {
        check.error(path, format!("{annotation} works with action ALLOW or DENY, not {action}"));
    }
}

fn peer_authentication(object: &Object<PeerAuthentication>, check: &mut Check) {
    let spec = &object.spec;
    check.selector(spec.selector.as_ref(), "spec.selector");
    let selects = spec.selector.as_ref().is_some_and(|selector| !selector.match_labels.is_empty());
    if !spec.port_level_mtls.is_empty() && !selects {
        check.error(
            "spec.portLevelMtls",
            "the ports of a mesh-wide or namespace-wide policy cannot have modes of their own; add a selector",
        );
    }
    for port in spec.port_level_mtls.keys() {
        if port.parse::<u16>().is_ok_and(|port| port > 0) {
            continue;
        }
        check.error(format!("spec.portLevelMtls[{port}]"), "a port is between 1 and 65535");
    }
}

fn proxy_config(object: &Object<ProxyConfig>, check: &mut Check) {
    check.selector(object.spec.selector.as_ref(), "spec.selector");
    if object.spec.concurrency.is_some_and(|concurrency| concurrency < 0) {
        check.error("spec.concurrency", "cannot be negative");
    }
    let image = object.spec.image.as_ref().map_or("", |image| image.image_type.as_str());
    if !matches!(image, "" | "default" | "debug" | "distroless") {
        check.error("spec.image.imageType", format!("{image:?} is not default, debug or distroless"));
    }
}

fn workload_group(object: &Object<WorkloadGroup>, check: &mut Check) {
    let template = &object.spec.template;
    if template.address.starts_with("unix://") && !template.ports.is_empty() {
        check.error("spec.template.ports", "a Unix socket has no ports");
    }
    for (name, port) in &template.ports {
        check.port(*port, format!("spec.template.ports[{name}]"));
    }
}

#[cfg(test)]
mod tests;
