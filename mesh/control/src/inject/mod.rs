//! Sidecar injection: the mutating webhook's decision and its patch.

mod annotations;
pub(crate) mod merge;
mod pod;
mod policy;
mod probes;
mod prometheus;
mod shape;
mod template;
mod values;

use json_patch::Patch;
use serde_json::{Value, json};
use thiserror::Error;

use pod::Pod;
pub(crate) use policy::runs_native_sidecars;
use template::Context;
pub use values::Values;

/// The proxy's container.
pub const PROXY: &str = "istio-proxy";
/// The init container that redirects traffic.
pub const INIT: &str = "istio-init";
const STATUS: &str = "sidecar.istio.io/status";
const OVERRIDES: &str = "proxy.istio.io/overrides";

/// A pod cannot be injected; its creation is refused with this message.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum InjectError {
    /// Annotations that mean nothing.
    #[error("{0}")]
    Annotations(String),
    /// A template there is not.
    #[error("requested template {0:?} not found; have sidecar, gateway")]
    Template(String),
    /// It is no pod.
    #[error("the pod is malformed: {0}")]
    Malformed(String),
    /// Metrics merging is impossible.
    #[error("failed to process pod: {0}")]
    Prometheus(String),
}

/// The kinds of injected proxy, `inject.istio.io/templates`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Template {
    /// Beside an app.
    Sidecar,
    /// A gateway, whose pod only says `image: auto`.
    Gateway,
}

/// What injection depends on besides the pod.
#[derive(Debug, Clone, Default)]
pub struct Injector {
    /// Installation values.
    pub values: Values,
    /// Mesh configuration, as in ConfigMap `istio`.
    pub mesh: Value,
    /// Whether the cluster's nodes run native sidecars and the operator lets us use them (`ENABLE_NATIVE_SIDECARS`).
    pub native_sidecars: bool,
    /// This control plane's revision.
    pub revision: String,
}

impl Injector {
    /// The patch that injects a pod of `namespace`; `None` when the pod is not to be injected. `workload_config` is the ProxyConfig
    /// resource's `spec` that applies to the pod, null if there is none.
    ///
    /// # Errors
    /// See [`InjectError`].
    pub fn inject(&self, original: &Value, namespace: &str, workload_config: &Value) -> Result<Option<Patch>, InjectError> {
        let malformed = |pod: &Value| shape::fault(pod).map_or(Ok(()), |fault| Err(InjectError::Malformed(fault)));
        malformed(original)?;
        let pod = Pod(original);
        if !policy::wants_injection(pod, namespace) {
            return Ok(None);
        }
        annotations::validate(pod).map_err(InjectError::Annotations)?;
        // A pod that was injected before is taken back to what its author wrote, so that injecting twice changes nothing.
        let stripped = strip(original);
        // What is put back comes from an annotation, which anybody can write.
        malformed(&stripped)?;
        let mut injected = stripped.clone();
        for template in templates(pod)? {
            self.apply(template, &stripped, &mut injected, namespace, workload_config)?;
        }
        Ok(Some(json_patch::diff(original, &injected)))
    }

    fn apply(
        &self,
        template: Template,
        original: &Value,
        injected: &mut Value,
        namespace: &str,
        workload_config: &Value,
    ) -> Result<(), InjectError> {
        let pod = Pod(original);
        let native = match pod.annotation("sidecar.istio.io/nativeSidecar") {
            Some(said) => said != "false",
            None => self.native_sidecars,
        };
        let context = Context {
            pod,
            namespace,
            owner: pod.owner(),
            values: &self.values,
            mesh: &self.mesh,
            proxy_config: self.proxy_config(pod, workload_config),
            native: native && template == Template::Sidecar,
            revision: if self.revision.is_empty() { "default" } else { &self.revision },
            template,
        };
        let rendered = context.render();
        if context.native {
            move_to_init_containers(injected);
        }
        merge::strategic(injected, &rendered);
        reapply_overrides(injected, original, &rendered);

        let status_port = context.status_port();
        let merge_metrics = self.mesh["enablePrometheusMerge"] != false;
        let scraped = prometheus::merge(injected, merge_metrics, status_port).map_err(InjectError::Prometheus)?;
        add_env(injected, "ISTIO_PROMETHEUS_ANNOTATIONS", scraped);
        let rewrite = pod.annotation("sidecar.istio.io/rewriteAppHTTPProbers").and_then(annotations::parse_bool);
        if rewrite.unwrap_or_else(|| self.values.rewrite_probes()) && template == Template::Sidecar {
            let probers = probes::rewrite(injected, status_port);
            add_env(injected, "ISTIO_KUBE_APP_PROBERS", probers);
        }
        injected["metadata"]["annotations"][STATUS] = injection_status(&rendered, context.revision).into();
        order(injected, context.native, context.holds_application());
        Ok(())
    }

    /// Mesh default, then the ProxyConfig resource, then the annotation.
    fn proxy_config(&self, pod: Pod<'_>, workload_config: &Value) -> Value {
        let mut config = json!({});
        merge::lay_over(&mut config, &self.mesh["defaultConfig"]);
        for (field, name) in [("concurrency", "concurrency"), ("image", "image"), ("environmentVariables", "proxyMetadata")] {
            if !workload_config[field].is_null() {
                merge::lay_over(&mut config[name], &workload_config[field]);
            }
        }
        let annotated = pod.annotation("proxy.istio.io/config").and_then(|yaml| annotations::proxy_config(yaml).ok());
        if let Some(annotated) = annotated {
            merge::lay_over(&mut config, &annotated);
        }
        config
    }
}

fn templates(pod: Pod<'_>) -> Result<Vec<Template>, InjectError> {
    let named = pod.annotation("inject.istio.io/templates").unwrap_or("sidecar");
    let template = |name: &str| match name {
        "sidecar" => Ok(Template::Sidecar),
        "gateway" => Ok(Template::Gateway),
        other => Err(InjectError::Template(other.to_owned())),
    };
    named.split(',').map(|name| template(name.trim())).collect()
}

/// The pod without what an earlier injection added.
fn strip(original: &Value) -> Value {
    let mut pod = original.clone();
    // They can be larger than the pod itself and say nothing about it.
    if let Some(metadata) = pod["metadata"].as_object_mut() {
        metadata.remove("managedFields");
    }
    let status = Pod(original).annotation(STATUS).and_then(|status| serde_json::from_str::<Value>(status).ok());
    if let Some(status) = status {
        for list in ["containers", "initContainers", "volumes"] {
            let names: Vec<_> = status[list].as_array().into_iter().flatten().cloned().collect();
            merge::spec_list(&mut pod, list).retain(|item| !names.contains(&item["name"]));
        }
        let overrides = Pod(original).annotation(OVERRIDES).and_then(|text| serde_json::from_str::<Value>(text).ok());
        for list in ["containers", "initContainers"] {
            let own = overrides.as_ref().and_then(|overrides| overrides[list].as_array()).cloned();
            merge::spec_list(&mut pod, list).extend(own.unwrap_or_default());
        }
        if let Some(annotations) = pod["metadata"]["annotations"].as_object_mut() {
            annotations.remove(STATUS);
        }
    }
    for field in ["annotations", "labels"] {
        if !pod["metadata"][field].is_object() {
            pod["metadata"][field] = json!({});
        }
    }
    pod
}

/// The author's settings for the proxy stand under `containers`; a native sidecar is an init container.
fn move_to_init_containers(pod: &mut Value) {
    let containers = merge::spec_list(pod, "containers");
    if let Some(at) = containers.iter().position(|container| container["name"] == PROXY) {
        let container = containers.remove(at);
        merge::spec_list(pod, "initContainers").push(container);
    }
}

/// What the author wrote about an injected container wins over the template, and is noted for the next injection.
fn reapply_overrides(injected: &mut Value, original: &Value, rendered: &Value) {
    let mut overrides = json!({});
    for list in ["containers", "initContainers"] {
        for container in rendered["spec"][list].as_array().into_iter().flatten() {
            let own = Pod(original).all_containers().find(|own| own["name"] == container["name"]);
            let Some(mut own) = own.cloned() else { continue };
            // `auto` stands for the template's image.
            if own["image"] == "auto" {
                own["image"] = container["image"].clone();
            }
            merge::strategic(&mut injected["spec"], &json!({ list: [own] }));
            if !overrides[list].is_array() {
                overrides[list] = json!([]);
            }
            overrides[list].as_array_mut().expect("just made").push(own);
        }
    }
    if overrides != json!({}) {
        injected["metadata"]["annotations"][OVERRIDES] = overrides.to_string().into();
    }
    // The redirect lets the proxy's own user through; it has to be the one the author chose.
    let uid = Pod(original)
        .all_containers()
        .find(|own| own["name"] == PROXY)
        .and_then(|own| own["securityContext"]["runAsUser"].as_u64());
    if let Some(uid) = uid.filter(|uid| *uid != 0) {
        let init = merge::spec_list(injected, "initContainers").iter_mut().find(|container| container["name"] == INIT);
        let args = init.and_then(|init| init["args"].as_array_mut());
        if let Some(args) = args
            && let Some(flag) = args.iter().position(|arg| arg == "-u")
        {
            args[flag + 1] = uid.to_string().into();
        }
    }
}

fn add_env(pod: &mut Value, name: &str, value: Option<String>) {
    let Some(value) = value else { return };
    for list in ["containers", "initContainers"] {
        let proxy = merge::spec_list(pod, list).iter_mut().find(|container| container["name"] == PROXY);
        if let Some(env) = proxy.and_then(|proxy| proxy["env"].as_array_mut()) {
            env.push(json!({ "name": name, "value": value }));
        }
    }
}

/// `sidecar.istio.io/status`: what was injected, in Istio's form.
fn injection_status(rendered: &Value, revision: &str) -> String {
    let names = |list: &str| match rendered["spec"][list].as_array() {
        Some(items) if !items.is_empty() => {
            let names: Vec<_> = items.iter().map(|item| item["name"].to_string()).collect();
            format!("[{}]", names.join(","))
        }
        _ => "null".to_owned(),
    };
    let lists = ["initContainers", "containers", "volumes", "imagePullSecrets"];
    let lists: Vec<_> = lists.iter().map(|list| format!("\"{list}\":{}", names(list))).collect();
    format!("{{{},\"revision\":\"{revision}\"}}", lists.join(","))
}

/// Containers in the order that makes them work: a native sidecar comes first, after the redirect; otherwise the redirect comes
/// last of the init containers, so that the others still reach the network, and the proxy last of the containers, so that
/// `kubectl exec` goes to the app, unless the app has to wait for the proxy.
fn order(pod: &mut Value, native: bool, hold: bool) {
    let mut place = |list: &str, name: &str, first: bool| {
        let items = merge::spec_list(pod, list);
        if let Some(at) = items.iter().position(|item| item["name"] == name) {
            let item = items.remove(at);
            let to = if first { 0 } else { items.len() };
            items.insert(to, item);
        }
    };
    place("containers", PROXY, hold);
    if native {
        place("initContainers", PROXY, true);
        place("initContainers", INIT, true);
    } else {
        place("initContainers", INIT, false);
    }
    for list in ["containers", "initContainers"] {
        if merge::spec_list(pod, list).is_empty()
            && let Some(spec) = pod["spec"].as_object_mut()
        {
            spec.remove(list);
        }
    }
}

#[cfg(test)]
mod tests;
