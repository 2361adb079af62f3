//! Applying what others have written: object by object, each refusal told and none in the way of the next.

use kube::Client;
use serde_json::Value;

use crate::apply;
use crate::error::CommandError;

/// Applies each object; what was refused, in words.
///
/// # Errors
/// The cluster does not answer, which is not the submission's fault.
pub(super) async fn each(client: &Client, objects: &[Value]) -> Result<Vec<String>, CommandError> {
    let mut refused = Vec::new();
    for object in objects {
        if let Some(problem) = unusable(object) {
            refused.push(problem);
            continue;
        }
        if let Err(error) = apply::apply(client, std::slice::from_ref(object)).await {
            if error.message.starts_with("the cluster does not answer") {
                return Err(error);
            }
            refused.push(error.message);
        }
    }
    Ok(refused)
}

/// The most replicas a workload of a submission may ask for. Every pod takes memory of the grader.
const MAX_REPLICAS: u64 = 10;

/// Why an object is not even handed to the cluster.
fn unusable(object: &Value) -> Option<String> {
    let text = |field: &str| object[field].as_str().filter(|text| !text.is_empty());
    let (Some(_), Some(kind)) = (text("apiVersion"), text("kind")) else {
        return Some(format!(
            "an object without apiVersion or kind: {}",
            object.to_string().chars().take(100).collect::<String>()
        ));
    };
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    if name.is_empty() {
        return Some(format!("a {kind} without a name"));
    }
    let replicas = object["spec"]["replicas"].as_u64().unwrap_or(0);
    (replicas > MAX_REPLICAS).then(|| format!("{kind} {name}: {replicas} replicas; {MAX_REPLICAS} are the most"))
}
