//! Gives a pod its service account and the volume with the account's token.

use meshlab_objects::Status;
use serde_json::{Map, Value, json};

use super::Attributes;
use crate::api::Api;
use crate::auth::forbidden;
use crate::rest::meta;
use crate::store::{GroupResource, Key};

/// Where containers find their token.
const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// Kubernetes' odd number: an hour, and a little for the kubelet to renew in.
const TOKEN_SECONDS: u32 = 3607;

pub(super) fn admit_pod(api: &Api, attributes: &Attributes, pod: &mut Value) -> Result<(), Status> {
    let name = attributes.key.name().to_owned();
    let namespace = attributes.key.namespace();
    // A mirror of what the kubelet runs on its own has no account.
    if pod["metadata"]["annotations"].get("kubernetes.io/config.mirror").is_some() {
        return Ok(());
    }
    let Some(spec) = pod.get_mut("spec").and_then(Value::as_object_mut) else { return Ok(()) };
    let account = spec.get("serviceAccountName").or_else(|| spec.get("serviceAccount")).and_then(Value::as_str);
    let account = account.filter(|account| !account.is_empty()).unwrap_or("default").to_owned();
    spec.insert("serviceAccountName".into(), json!(account));
    spec.insert("serviceAccount".into(), json!(account));
    let Some(found) = api.store.get(&GroupResource::new("", "serviceaccounts"), &Key::new(namespace, &account)) else {
        let why = format!("error looking up service account {namespace}/{account}: serviceaccount {account:?} not found");
        return Err(forbidden("", "pods", &name, &why));
    };
    let account = found.value();
    if spec.get("imagePullSecrets").is_none_or(|secrets| secrets.as_array().is_none_or(Vec::is_empty))
        && let Some(secrets) = account.get("imagePullSecrets")
    {
        spec.insert("imagePullSecrets".into(), secrets.clone());
    }
    let wanted = spec.get("automountServiceAccountToken").or_else(|| account.get("automountServiceAccountToken"));
    if wanted.and_then(Value::as_bool).unwrap_or(true) {
        mount_token(spec);
    }
    Ok(())
}

fn mount_token(spec: &mut Map<String, Value>) {
    let volumes = spec.get("volumes").and_then(Value::as_array);
    let known = volumes.into_iter().flatten().filter_map(|volume| volume["name"].as_str());
    let volume = known.into_iter().find(|name| name.starts_with("kube-api-access-")).map(str::to_owned);
    let is_new = volume.is_none();
    let volume = volume.unwrap_or_else(|| meta::generated_name("kube-api-access-"));
    let mut used = false;
    for field in ["initContainers", "containers"] {
        for container in spec.get_mut(field).and_then(Value::as_array_mut).into_iter().flatten() {
            let Some(container) = container.as_object_mut() else { continue };
            let mounts = container.entry("volumeMounts").or_insert_with(|| json!([]));
            let Some(mounts) = mounts.as_array_mut() else { continue };
            if mounts.iter().any(|mount| mount["mountPath"] == MOUNT_PATH) {
                continue;
            }
            mounts.push(json!({"name": volume, "readOnly": true, "mountPath": MOUNT_PATH}));
            used = true;
        }
    }
    if used && is_new {
        let volumes = spec.entry("volumes").or_insert_with(|| json!([]));
        if let Some(volumes) = volumes.as_array_mut() {
            volumes.push(token_volume(&volume));
        }
    }
}

fn token_volume(name: &str) -> Value {
    json!({"name": name, "projected": {"defaultMode": 420, "sources": [
        {"serviceAccountToken": {"expirationSeconds": TOKEN_SECONDS, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [
            {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}
        ]}},
    ]}})
}
