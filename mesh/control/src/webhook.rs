//! The admission webhooks' requests and responses (`admission.k8s.io/v1`).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use meshlab_istio_api::{Kind, validate};
use serde_json::{Value, json};

use crate::inject::Injector;
use crate::metrics::{self, Metrics};

/// What EnvoyFilter and WasmPlugin are answered with.
pub(crate) fn inert_message(kind: Kind) -> Option<&'static str> {
    match kind {
        Kind::EnvoyFilter => Some("EnvoyFilter has no effect here: this mesh's proxy is not Envoy"),
        Kind::WasmPlugin => Some("WasmPlugin has no effect here: this mesh's proxy does not run WebAssembly"),
        _ => None,
    }
}

/// A response to `review`.
fn respond(review: &Value, response: Value) -> Value {
    let mut response = response;
    response["uid"] = review["request"]["uid"].clone();
    json!({ "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response })
}

/// A refusal of `review`.
fn refuse(review: &Value, message: &str) -> Value {
    respond(review, json!({ "allowed": false, "status": { "message": message } }))
}

/// Answers `/inject`. `workload_config` finds the ProxyConfig resource that applies to a pod, by namespace and labels.
pub(crate) fn inject(
    injector: &Injector,
    review: &Value,
    workload_config: impl FnOnce(&str, &Value) -> Value,
    metrics: &Metrics,
) -> Value {
    metrics.count(&metrics::INJECTION_REQUESTS, []);
    let request = &review["request"];
    let pod = &request["object"];
    if !pod.is_object() {
        metrics.count(&metrics::INJECTION_FAILURES, []);
        return refuse(review, "the review has no object");
    }
    let namespace = request["namespace"].as_str().or_else(|| pod["metadata"]["namespace"].as_str()).unwrap_or("default");
    let config = workload_config(namespace, &pod["metadata"]["labels"]);
    match injector.inject(pod, namespace, &config) {
        Ok(None) => {
            metrics.count(&metrics::INJECTION_SKIPS, []);
            respond(review, json!({ "allowed": true }))
        }
        Ok(Some(patch)) => {
            metrics.count(&metrics::INJECTION_SUCCESSES, []);
            let patch = STANDARD.encode(serde_json::to_vec(&patch).unwrap_or_default());
            respond(review, json!({ "allowed": true, "patch": patch, "patchType": "JSONPatch" }))
        }
        Err(error) => {
            metrics.count(&metrics::INJECTION_FAILURES, []);
            refuse(review, &format!("failed to run injection template: {error}"))
        }
    }
}

/// Answers `/validate`.
pub(crate) fn validate_review(review: &Value, metrics: &Metrics) -> Value {
    let object = &review["request"]["object"];
    let label = |name: &str| object[name].as_str().unwrap_or_default();
    let Some(kind) = Kind::parse(label("apiVersion"), label("kind")) else {
        return refuse(review, &format!("unrecognized type {}, {}", label("apiVersion"), label("kind")));
    };
    let version = review["request"]["resource"]["version"].as_str().unwrap_or_default();
    let [group, version, resource] = [kind.group().name(), version, kind.plural()];
    match validate(object) {
        Ok(warnings) => {
            metrics.count(&metrics::VALIDATION_PASSED, [group, version, resource]);
            let mut said: Vec<_> = warnings.iter().map(|warning| format!("{}: {}", warning.path, warning.message)).collect();
            if said.is_empty() {
                said.extend(inert_message(kind).map(str::to_owned));
            }
            let mut response = json!({ "allowed": true });
            if !said.is_empty() {
                response["warnings"] = said.into();
            }
            respond(review, response)
        }
        Err(errors) => {
            metrics.count(&metrics::VALIDATION_FAILED, [group, version, resource, "invalid_resource"]);
            let faults: Vec<_> = errors.iter().map(ToString::to_string).collect();
            refuse(review, &format!("configuration is invalid: {}", faults.join("; ")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn review(object: Value) -> Value {
        json!({ "request": { "uid": "u1", "namespace": "default", "object": object } })
    }

    #[test]
    fn an_injected_pod_is_answered_with_a_patch() {
        let metrics = Metrics::default();
        let pod = json!({ "metadata": { "name": "web" }, "spec": { "containers": [{ "name": "web" }] } });
        let answer = inject(&Injector::default(), &review(pod.clone()), |_, _| Value::Null, &metrics);
        assert_eq!((&answer["kind"], &answer["response"]["uid"]), (&json!("AdmissionReview"), &json!("u1")));
        assert_eq!(answer["response"]["patchType"], "JSONPatch");
        let patch = STANDARD.decode(answer["response"]["patch"].as_str().unwrap()).unwrap();
        let patch: json_patch::Patch = serde_json::from_slice(&patch).unwrap();
        let mut patched = pod;
        json_patch::patch(&mut patched, &patch).unwrap();
        assert_eq!(patched["spec"]["containers"][1]["name"], "istio-proxy");
        assert!(metrics.render().contains("sidecar_injection_success_total 1"));
    }

    #[test]
    fn a_pod_that_opts_out_is_let_through() {
        let pod = json!({ "metadata": { "labels": { "sidecar.istio.io/inject": "false" } }, "spec": { "containers": [] } });
        let answer = inject(&Injector::default(), &review(pod), |_, _| Value::Null, &Metrics::default());
        assert_eq!(answer["response"], json!({ "uid": "u1", "allowed": true }));
    }

    #[test]
    fn a_pod_that_cannot_be_injected_is_refused() {
        let pod =
            json!({ "metadata": { "annotations": { "sidecar.istio.io/interceptionMode": "X" } }, "spec": { "containers": [] } });
        let answer = inject(&Injector::default(), &review(pod), |_, _| Value::Null, &Metrics::default());
        assert_eq!(answer["response"]["allowed"], false);
        assert!(answer["response"]["status"]["message"].as_str().unwrap().contains("interceptionMode invalid"));
    }

    #[test]
    fn resources_without_effect_are_taken_with_a_warning() {
        let filter = json!({ "apiVersion": "networking.istio.io/v1alpha3", "kind": "EnvoyFilter", "metadata": { "name": "f" }, "spec": {} });
        let answer = validate_review(&review(filter), &Metrics::default());
        assert_eq!(answer["response"]["allowed"], true);
        let warnings = answer["response"]["warnings"].as_array().unwrap();
        assert!(warnings.len() == 1 && warnings[0].as_str().unwrap().contains("no effect"), "{warnings:?}");
    }

    #[test]
    fn other_kinds_are_not_ours_to_judge() {
        let answer = validate_review(&review(json!({ "apiVersion": "v1", "kind": "Pod" })), &Metrics::default());
        assert_eq!(answer["response"]["status"]["message"], "unrecognized type v1, Pod");
    }
}
