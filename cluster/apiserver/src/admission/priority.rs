//! Gives a pod the priority of its class.

use meshlab_objects::Status;
use serde_json::{Value, json};

use super::Attributes;
use crate::api::Api;
use crate::auth::forbidden;
use crate::store::{GroupResource, Key, Object};

pub(super) fn admit_pod(api: &Api, attributes: &Attributes, pod: &mut Value) -> Result<(), Status> {
    let classes = GroupResource::new("scheduling.k8s.io", "priorityclasses");
    let Some(spec) = pod.get_mut("spec").and_then(Value::as_object_mut) else { return Ok(()) };
    let wanted = spec.get("priorityClassName").and_then(Value::as_str).filter(|name| !name.is_empty());
    let class = match wanted {
        Some(name) => {
            let found = api.store.get(&classes, &Key::new("", name));
            let missing = || format!("no PriorityClass with name {name} was found");
            Some(found.ok_or_else(|| forbidden("", "pods", attributes.key.name(), &missing()))?)
        }
        None => api.store.list(&classes, None).objects.into_iter().find(|class| class.value()["globalDefault"] == true),
    };
    let field = |class: &Option<std::sync::Arc<Object>>, name: &str| class.as_ref().map(|class| class.value()[name].clone());
    if wanted.is_none()
        && let Some(class) = &class
    {
        spec.insert("priorityClassName".into(), json!(class.key.name()));
    }
    spec.insert("priority".into(), field(&class, "value").unwrap_or_else(|| json!(0)));
    let policy = field(&class, "preemptionPolicy").filter(Value::is_string);
    spec.entry("preemptionPolicy").or_insert_with(|| policy.unwrap_or_else(|| json!("PreemptLowerPriority")));
    Ok(())
}
