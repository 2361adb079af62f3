//! The learner's files: what a step starts from, its solution, and taking both back.

use std::path::{Path, PathBuf};

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Namespace;
use kube::Client;
use kube::api::{Api, ListParams, Patch, PatchParams};
use meshlab_checks::{Lab, Manifest, Step};
use serde_json::Value;

use crate::apply::{apply, delete, documents};
use crate::error::CommandError;

/// Writes the starter files that are not there yet; a file of the learner's is never touched.
///
/// # Errors
/// The folder cannot be written.
pub(crate) fn write_starters(workdir: &Path, lab: &Lab) -> Result<Vec<PathBuf>, CommandError> {
    std::fs::create_dir_all(workdir).map_err(|error| CommandError::io(workdir, &error))?;
    let mut written = Vec::new();
    for manifest in lab.steps.iter().flat_map(|step| &step.starter) {
        let path = workdir.join(&manifest.name);
        if !path.exists() {
            write(&path, &manifest.content)?;
            written.push(path);
        }
    }
    Ok(written)
}

/// Brings a step back to its start: the learner's files (the old ones are kept as `NAME.bak`), and the cluster.
///
/// # Errors
/// A file cannot be written, or the cluster refuses.
pub(crate) async fn reset(client: &Client, workdir: &Path, step: &Step) -> Result<(), CommandError> {
    for manifest in &step.starter {
        keep(workdir, manifest)?;
        write(&workdir.join(&manifest.name), &manifest.content)?;
    }
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

/// Writes a step's solution in place of the learner's files (kept as `NAME.bak`) and applies it.
///
/// # Errors
/// A file cannot be written, or the cluster refuses.
pub(crate) async fn solve(client: &Client, workdir: &Path, step: &Step) -> Result<(), CommandError> {
    for manifest in &step.solution {
        keep(workdir, manifest)?;
        write(&workdir.join(&manifest.name), &manifest.content)?;
    }
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

/// Writes one of the learner's files; what was there is kept as `NAME.bak` if it differs.
///
/// # Errors
/// The folder cannot be written.
pub(crate) fn replace(workdir: &Path, name: &str, content: &str) -> Result<(), CommandError> {
    let manifest = Manifest { name: name.to_owned(), content: content.to_owned() };
    keep(workdir, &manifest)?;
    write(&workdir.join(name), content)
}

/// Moves the learner's file out of the way, unless it is what would be written anyway.
fn keep(workdir: &Path, manifest: &Manifest) -> Result<(), CommandError> {
    let path = workdir.join(&manifest.name);
    if !path.exists() || std::fs::read_to_string(&path).is_ok_and(|content| content == manifest.content) {
        return Ok(());
    }
    let backup = workdir.join(format!("{}.bak", manifest.name));
    std::fs::rename(&path, &backup).map_err(|error| CommandError::io(&path, &error))
}

fn write(path: &Path, content: &str) -> Result<(), CommandError> {
    std::fs::write(path, content).map_err(|error| CommandError::io(path, &error))
}
