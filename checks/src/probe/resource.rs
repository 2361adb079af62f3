//! Kubernetes objects.

use kube::api::{Api, DynamicObject, ListParams};
use kube::core::GroupVersionKind;
use kube::discovery::Scope;
use serde_json::{Value, json};

use super::{ProbeError, Prober};
use crate::Text;
use crate::check::ResourceProbe;

pub(super) async fn look(prober: &Prober, probe: &ResourceProbe) -> Result<Value, ProbeError> {
    let (group, version) = probe.api_version.split_once('/').unwrap_or(("", &probe.api_version));
    let gvk = GroupVersionKind::gvk(group, version, &probe.kind);
    let (resource, capabilities) = match kube::discovery::oneshot::pinned_kind(&prober.client, &gvk).await {
        Ok(found) => found,
        Err(error) => return Err(unknown_kind(probe, &error)),
    };
    let api: Api<DynamicObject> = match (&capabilities.scope, &probe.namespace) {
        (Scope::Namespaced, Some(namespace)) => Api::namespaced_with(prober.client.clone(), namespace, &resource),
        _ => Api::all_with(prober.client.clone(), &resource),
    };
    if let Some(name) = &probe.name {
        let object = api.get_opt(name).await.map_err(ProbeError::of)?;
        return serde_json::to_value(object).map_err(ProbeError::of);
    }
    let mut params = ListParams::default();
    if let Some(selector) = &probe.label_selector {
        params = params.labels(selector);
    }
    let list = api.list(&params).await.map_err(ProbeError::of)?;
    let items = serde_json::to_value(&list.items).map_err(ProbeError::of)?;
    Ok(json!({"count": list.items.len(), "items": items}))
}

fn unknown_kind(probe: &ResourceProbe, error: &kube::Error) -> ProbeError {
    let message = format!("{} {}: {error}", probe.api_version, probe.kind);
    ProbeError::of(message).with_hint(Text {
        ja: "メッシュは入っていますか。`kubectl get crd` で定義済みの種類がわかります".to_owned(),
        en: "is the mesh installed? `kubectl get crd` shows the kinds there are".to_owned(),
    })
}
