//! HorizontalPodAutoscalers between `autoscaling/v1`, which knows one metric, and `autoscaling/v2`, in which they are stored.

use serde_json::{Map, Value, json};

/// Where `autoscaling/v1` keeps the metrics it has no field for.
const OTHER_METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";

/// An autoscaler in another version (`v1` or `v2`) of its group.
pub fn convert_autoscaler(object: &Value, version: &str) -> Value {
    let wanted = format!("autoscaling/{version}");
    let mut converted = object.clone();
    if object["apiVersion"] == *wanted {
        return converted;
    }
    let Some(fields) = converted.as_object_mut() else { return converted };
    fields.insert("apiVersion".to_owned(), wanted.into());
    if version == "v1" {
        to_first(fields)
    } else {
        to_second(fields)
    }
    converted
}

fn is_cpu_utilization(metric: &Value) -> bool {
    metric["type"] == "Resource"
        && metric["resource"]["name"] == "cpu"
        && metric["resource"]["target"]["averageUtilization"].is_number()
}

fn to_first(fields: &mut Map<String, Value>) {
    let mut others = Vec::new();
    if let Some(spec) = fields.get_mut("spec").and_then(Value::as_object_mut) {
        let metrics = spec.remove("metrics");
        for metric in metrics.as_ref().and_then(Value::as_array).into_iter().flatten() {
            if is_cpu_utilization(metric) && !spec.contains_key("targetCPUUtilizationPercentage") {
                let target = metric["resource"]["target"]["averageUtilization"].clone();
                spec.insert("targetCPUUtilizationPercentage".to_owned(), target);
            } else {
                others.push(metric.clone());
            }
        }
    }
    if let Some(status) = fields.get_mut("status").and_then(Value::as_object_mut) {
        let metrics = status.remove("currentMetrics");
        status.remove("conditions");
        let current = metrics.as_ref().and_then(Value::as_array).into_iter().flatten();
        let cpu = current
            .filter(|metric| metric["resource"]["name"] == "cpu")
            .map(|metric| &metric["resource"]["current"]["averageUtilization"]);
        if let Some(current) = cpu.into_iter().find(|current| current.is_number()).cloned() {
            status.insert("currentCPUUtilizationPercentage".to_owned(), current);
        }
    }
    if !others.is_empty()
        && let Some(metadata) = fields.get_mut("metadata").and_then(Value::as_object_mut)
        && let Some(annotations) = metadata.entry("annotations").or_insert_with(|| json!({})).as_object_mut()
    {
        annotations.insert(OTHER_METRICS.to_owned(), Value::Array(others).to_string().into());
    }
}

fn to_second(fields: &mut Map<String, Value>) {
    let annotations =
        fields.get_mut("metadata").and_then(|metadata| metadata.get_mut("annotations")).and_then(Value::as_object_mut);
    let others = annotations.and_then(|annotations| annotations.remove(OTHER_METRICS));
    let others = others.as_ref().and_then(Value::as_str).and_then(|text| serde_json::from_str::<Vec<Value>>(text).ok());
    let mut metrics = others.unwrap_or_default();
    if let Some(spec) = fields.get_mut("spec").and_then(Value::as_object_mut) {
        if let Some(target) = spec.remove("targetCPUUtilizationPercentage").filter(Value::is_number) {
            let target = json!({"type": "Utilization", "averageUtilization": target});
            metrics.insert(0, json!({"type": "Resource", "resource": {"name": "cpu", "target": target}}));
        }
        if !metrics.is_empty() {
            spec.insert("metrics".to_owned(), Value::Array(metrics));
        }
    }
    if let Some(status) = fields.get_mut("status").and_then(Value::as_object_mut)
        && let Some(current) = status.remove("currentCPUUtilizationPercentage").filter(Value::is_number)
    {
        let current = json!({"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": current}}});
        status.insert("currentMetrics".to_owned(), json!([current]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        let second = json!({"apiVersion": "autoscaling/v2", "metadata": {"name": "a"}, "spec": {"maxReplicas": 3, "metrics": [
            {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}},
            {"type": "Pods", "pods": {"metric": {"name": "rps"}, "target": {"type": "AverageValue", "averageValue": "10"}}}]}});
        let first = convert_autoscaler(&second, "v1");
        assert_eq!(first["spec"], json!({"maxReplicas": 3, "targetCPUUtilizationPercentage": 80}));
        let mut back = convert_autoscaler(&first, "v2");
        back["metadata"].as_object_mut().unwrap().remove("annotations");
        assert_eq!(back, second);
    }

    #[test]
    fn what_kubectl_autoscale_writes() {
        let first =
            json!({"apiVersion": "autoscaling/v1", "metadata": {"name": "a"}, "spec": {"targetCPUUtilizationPercentage": 50}});
        let second = convert_autoscaler(&first, "v2");
        assert_eq!(second["spec"]["metrics"][0]["resource"]["target"], json!({"type": "Utilization", "averageUtilization": 50}));
        for odd in [json!(null), json!({"spec": 1, "status": [], "metadata": {"annotations": 1}})] {
            convert_autoscaler(&convert_autoscaler(&odd, "v1"), "v2");
        }
    }
}
