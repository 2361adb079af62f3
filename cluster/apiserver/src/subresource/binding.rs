//! `/binding`: a scheduler gives a pod to a node.

use http::StatusCode;
use meshlab_objects::Status;
use serde_json::json;

use crate::http::{Body, Response, yaml_or_json};
use crate::rest::{Call, Mutation, Patch, meta};
use crate::store::Key;

/// `POST …/pods/{name}/binding`
pub(super) async fn bind(call: &Call, body: Body) -> Result<Response, Status> {
    let binding = call.decode_object(body).await?.value;
    write(call, &call.path.name, &binding).await
}

/// `POST …/bindings`, where the body names the pod.
pub(crate) async fn bind_by_body(call: &Call, body: Body) -> Result<Response, Status> {
    let binding = call.decode_object(body).await?.value;
    let name = meta::meta(&binding, "name").to_owned();
    write(call, &name, &binding).await
}

async fn write(call: &Call, name: &str, binding: &serde_json::Value) -> Result<Response, Status> {
    let node = binding["target"]["name"].as_str().unwrap_or_default();
    if node.is_empty() {
        return Err(Status::bad_request("target.name: Required value"));
    }
    let pods = call.api.registry().need("", "pods")?;
    let key = Key::new(call.namespace(), name);
    let pod = call.api.store.get(&pods.id, &key).ok_or_else(|| Status::not_found("", "pods", name))?;
    if let Some(bound) = pod.value()["spec"]["nodeName"].as_str().filter(|bound| !bound.is_empty()) {
        let why = format!("pod {name} is already assigned to node {bound:?}");
        return Err(Status::conflict("", "pods/binding", name, &why));
    }
    let mut options = call.write_options()?;
    options.subresource = "binding".into();
    let change = json!({"spec": {"nodeName": node}, "metadata": {"resourceVersion": pod.revision.to_string()}});
    call.api.modify(&pods, &key, &Mutation::Patch(Patch::Merge(change)), &options).await?;
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
    Ok(yaml_or_json(StatusCode::CREATED, call.accept, &status))
}
