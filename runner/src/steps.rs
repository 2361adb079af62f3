//! What a step starts from, its solution, and taking both back.

use std::path::Path;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Namespace;
use kube::Client;
use kube::api::{Api, ListParams, Patch, PatchParams};
use meshlab_checks::{Lab, Manifest, Step};
use serde_json::Value;

use crate::apply::{apply, delete, documents};
use crate::error::CommandError;
use crate::workdir::write_step;

/// Brings a step back to its start: the learner's files (what he wrote is kept as `NAME.bak`), and the cluster.
///
/// # Errors
/// A file cannot be written, or the cluster refuses.
pub(crate) async fn reset(client: &Client, workdir: &Path, step: &Step) -> Result<(), CommandError> {
    write_step(workdir, step, &step.starter)?;
    restore(client, step).await
}

/// Takes the step's objects out of the cluster, and applies what it starts from.
///
/// # Errors
/// The cluster refuses.
pub(crate) async fn restore(client: &Client, step: &Step) -> Result<(), CommandError> {
    let starter = objects(&step.starter)?;
    let kept: Vec<_> = starter.iter().map(identity).collect();
    let surplus: Vec<Value> = objects(&step.solution)?.into_iter().filter(|object| !kept.contains(&identity(object))).collect();
    delete(client, &surplus).await?;
    replace_namespaces(client, &starter).await?;
    apply(client, &starter).await?;
    restart(client, &step.file.restart).await
}

/// Namespaces of a starter lose what the learner put on them: server-side apply alone keeps labels of other managers.
async fn replace_namespaces(client: &Client, starter: &[Value]) -> Result<(), CommandError> {
    let api: Api<Namespace> = Api::all(client.clone());
    for object in starter.iter().filter(|object| object["kind"] == "Namespace") {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let Some(live) = api.get_opt(name).await? else { continue };
        let mut labels: serde_json::Map<String, Value> = live
            .metadata
            .labels
            .unwrap_or_default()
            .into_keys()
            .filter(|key| !key.starts_with("kubernetes.io/"))
            .map(|key| (key, Value::Null))
            .collect();
        if let Some(wanted) = object["metadata"]["labels"].as_object() {
            labels.extend(wanted.clone());
        }
        let patch = serde_json::json!({"metadata": {"labels": labels}});
        api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await?;
    }
    Ok(())
}

/// Applies a step's solution and restarts what it says must be restarted.
///
/// # Errors
/// The cluster refuses.
pub(crate) async fn apply_solution(client: &Client, step: &Step) -> Result<(), CommandError> {
    apply(client, &objects(&step.solution)?).await?;
    restart(client, &step.file.restart).await
}

/// `kubectl rollout restart deployment -n NAMESPACE`, and waits until the new pods serve.
///
/// # Errors
/// The cluster refuses, or the pods do not become ready.
pub(crate) async fn restart(client: &Client, namespaces: &[String]) -> Result<(), CommandError> {
    for namespace in namespaces {
        let api: Api<Deployment> = Api::namespaced(client.clone(), namespace);
        for deployment in api.list_metadata(&ListParams::default()).await? {
            api.restart(deployment.metadata.name.as_deref().unwrap_or_default()).await?;
        }
    }
    if namespaces.is_empty() { Ok(()) } else { crate::serve::wait_for_deployments(client).await }
}

/// Applies the mesh, the addons and the sample application again, as they were when the lab started.
///
/// # Errors
/// The cluster refuses.
pub(crate) async fn restore_application(client: &Client, lab: &Lab) -> Result<(), CommandError> {
    let mut all = Vec::new();
    for (name, yaml) in meshlab_control::manifests().into_iter().chain(meshlab_observe::manifests()) {
        all.extend(documents(name, yaml)?);
    }
    all.extend(objects(&lab.application)?);
    apply(client, &all).await
}

/// Writes a step's solution in place of the learner's files (what he wrote is kept as `NAME.bak`) and applies it.
///
/// # Errors
/// A file cannot be written, or the cluster refuses.
pub(crate) async fn solve(client: &Client, workdir: &Path, step: &Step) -> Result<(), CommandError> {
    write_step(workdir, step, &step.solution)?;
    apply_solution(client, step).await
}

/// The objects of some manifests.
///
/// # Errors
/// Malformed YAML, with file and line.
pub(crate) fn objects(manifests: &[Manifest]) -> Result<Vec<Value>, CommandError> {
    let mut all = Vec::new();
    for manifest in manifests {
        all.extend(documents(&manifest.name, &manifest.content)?);
    }
    Ok(all)
}

/// What makes two objects the same one.
pub(crate) fn identity(object: &Value) -> (Value, Value, Value, Value) {
    let metadata = &object["metadata"];
    (object["apiVersion"].clone(), object["kind"].clone(), metadata["namespace"].clone(), metadata["name"].clone())
}
