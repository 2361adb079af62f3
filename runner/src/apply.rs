//! Applying manifests as `kubectl apply --server-side` does.

use std::collections::HashMap;
use std::time::Duration;

use futures::future::try_join_all;
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use kube::core::GroupVersionKind;
use kube::discovery::{ApiCapabilities, ApiResource, Scope};
use kube::{Client, ResourceExt, discovery};
use meshlab_checks::ObjectEdit;
use serde_json::{Value, json};

use crate::error::{CommandError, Hint};

/// The field manager of everything meshlab applies itself.
const MANAGER: &str = "meshlab";

/// The field manager of single edits, for as long as they are made.
const EDITOR: &str = "meshlab-edit";

/// How long a kind may take to be served after its definition was created.
const KIND_DEADLINE: Duration = Duration::from_secs(10);

/// The documents of a YAML file, empty ones left out.
///
/// # Errors
/// Where the YAML is malformed, with file, line and column.
pub fn documents(name: &str, yaml: &str) -> Result<Vec<Value>, CommandError> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(yaml).map_err(|error| {
        let error = error.to_string();
        CommandError::failed(format!("{name}: {}", error.strip_prefix("error: ").unwrap_or(&error)))
    })?;
    Ok(documents.into_iter().filter(|document| !document.is_null()).collect())
}

/// Applies objects: namespaces and definitions of kinds first, then the rest side by side. Conflicts are won (`--force-conflicts`).
///
/// # Errors
/// What the API server refuses, with the object's name.
pub async fn apply(client: &Client, objects: &[Value]) -> Result<(), CommandError> {
    let (first, rest): (Vec<&Value>, Vec<&Value>) =
        objects.iter().partition(|object| matches!(object["kind"].as_str(), Some("Namespace" | "CustomResourceDefinition")));
    // A kind may still be on its way only if its definition was applied just now.
    let patience =
        if first.iter().any(|object| object["kind"] == "CustomResourceDefinition") { KIND_DEADLINE } else { Duration::ZERO };
    for phase in [first, rest] {
        let resources = resolve(client, &phase, patience).await?;
        try_join_all(phase.iter().zip(&resources).map(|(object, kind)| apply_one(client, object, kind))).await?;
    }
    Ok(())
}

type Kind = (ApiResource, ApiCapabilities);

/// The kind of each object, as the API server knows it.
async fn resolve(client: &Client, objects: &[&Value], patience: Duration) -> Result<Vec<Kind>, CommandError> {
    let mut known: HashMap<GroupVersionKind, Kind> = HashMap::new();
    let mut resolved = Vec::with_capacity(objects.len());
    for object in objects {
        let gvk = kind_of(object)?;
        if !known.contains_key(&gvk) {
            known.insert(gvk.clone(), wait_for_kind(client, &gvk, patience).await?);
        }
        resolved.push(known[&gvk].clone());
    }
    Ok(resolved)
}

async fn wait_for_kind(client: &Client, gvk: &GroupVersionKind, patience: Duration) -> Result<Kind, CommandError> {
    let deadline = tokio::time::Instant::now() + patience;
    loop {
        let error = match discovery::oneshot::pinned_kind(client, gvk).await {
            Ok(kind) => return Ok(kind),
            Err(error) => error,
        };
        let missing = match &error {
            kube::Error::Discovery(_) => true,
            kube::Error::Api(status) => status.is_not_found(),
            _ => false,
        };
        if !missing {
            return Err(error.into());
        }
        if tokio::time::Instant::now() >= deadline {
            let message = format!("the cluster has no kind {} in {}", gvk.kind, gvk.api_version());
            return Err(CommandError::failed(message).with_hint(Hint::new("is it spelt as in `kubectl api-resources`?")));
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn kind_of(object: &Value) -> Result<GroupVersionKind, CommandError> {
    let field =
        |name: &str| object[name].as_str().ok_or_else(|| CommandError::failed(format!("an object has no {name}: {object}")));
    let (group, version) = field("apiVersion")?.split_once('/').unwrap_or(("", field("apiVersion")?));
    Ok(GroupVersionKind::gvk(group, version, field("kind")?))
}

async fn apply_one(client: &Client, object: &Value, (resource, capabilities): &Kind) -> Result<(), CommandError> {
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    let namespace = object["metadata"]["namespace"].as_str().unwrap_or("default");
    let api: Api<DynamicObject> = match capabilities.scope {
        Scope::Namespaced => Api::namespaced_with(client.clone(), namespace, resource),
        Scope::Cluster => Api::all_with(client.clone(), resource),
    };
    let params = PatchParams::apply(MANAGER).force();
    api.patch(name, &params, &Patch::Apply(object)).await.map(drop).map_err(|error| {
        let error = CommandError::from(error);
        CommandError { message: format!("{} {namespace}/{name}: {}", resource.kind, error.message), ..error }
    })
}

/// Makes an edit of one object, as `kubectl patch --type merge` does, and owns nothing afterwards: a field with two owners would
/// outlive a manifest that leaves it out.
///
/// # Errors
/// What the API server refuses.
pub(crate) async fn patch(client: &Client, edit: &ObjectEdit) -> Result<(), CommandError> {
    let (group, version) = edit.api_version.split_once('/').unwrap_or(("", &edit.api_version));
    let (resource, _) = discovery::oneshot::pinned_kind(client, &GroupVersionKind::gvk(group, version, &edit.kind)).await?;
    let api: Api<DynamicObject> = match &edit.namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    };
    let params = PatchParams { field_manager: Some(EDITOR.to_owned()), ..PatchParams::default() };
    let edited = api.patch(&edit.name, &params, &Patch::Merge(&edit.patch)).await?;
    let others: Vec<_> = edited.managed_fields().iter().filter(|entry| entry.manager.as_deref() != Some(EDITOR)).collect();
    api.patch(&edit.name, &params, &Patch::Merge(&json!({"metadata": {"managedFields": others}}))).await?;
    Ok(())
}

/// Deletes objects; one that is not there, or whose kind is not, is no error.
///
/// # Errors
/// What the API server refuses, with the object's name.
pub async fn delete(client: &Client, objects: &[Value]) -> Result<(), CommandError> {
    for object in objects {
        let Ok((resource, capabilities)) = discovery::oneshot::pinned_kind(client, &kind_of(object)?).await else { continue };
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let namespace = object["metadata"]["namespace"].as_str().unwrap_or("default");
        let api: Api<DynamicObject> = match capabilities.scope {
            Scope::Namespaced => Api::namespaced_with(client.clone(), namespace, &resource),
            Scope::Cluster => Api::all_with(client.clone(), &resource),
        };
        match api.delete(name, &kube::api::DeleteParams::default()).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.is_not_found() => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
