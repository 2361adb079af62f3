//! Cells of configuration, storage, quotas and autoscalers.

use serde_json::Value;

use super::{Row, text};

/// Kinds without columns of their own.
pub(in crate::table) fn name_and_creation(row: Row<'_>) -> Vec<Value> {
    vec![row.name(), row.text("/metadata/creationTimestamp").into()]
}

pub(in crate::table) fn secret(row: Row<'_>) -> Vec<Value> {
    vec![row.name(), row.text("/type").into(), row.count("/data").into(), row.age()]
}

pub(in crate::table) fn config_map(row: Row<'_>) -> Vec<Value> {
    vec![row.name(), (row.count("/data") + row.count("/binaryData")).into(), row.age()]
}

pub(in crate::table) fn service_account(row: Row<'_>) -> Vec<Value> {
    vec![row.name(), row.list("/secrets").len().into(), row.age()]
}

/// `RWO,RWX`
fn access_modes(row: Row<'_>, pointer: &str) -> Value {
    let short = |mode: &Value| match mode.as_str().unwrap_or_default() {
        "ReadWriteOnce" => "RWO",
        "ReadOnlyMany" => "ROX",
        "ReadWriteMany" => "RWX",
        "ReadWriteOncePod" => "RWOP",
        _ => "",
    };
    row.list(pointer).iter().map(short).filter(|mode| !mode.is_empty()).collect::<Vec<_>>().join(",").into()
}

fn or_unset<'a>(row: Row<'a>, pointer: &str) -> &'a str {
    row.at(pointer).and_then(Value::as_str).unwrap_or("<unset>")
}

pub(in crate::table) fn persistent_volume(row: Row<'_>) -> Vec<Value> {
    let claim = row.at("/spec/claimRef").map(|claim| format!("{}/{}", text(claim, "namespace"), text(claim, "name")));
    let phase = if row.at("/metadata/deletionTimestamp").is_some() { "Terminating" } else { row.text("/status/phase") };
    vec![
        row.name(),
        row.text("/spec/capacity/storage").into(),
        access_modes(row, "/spec/accessModes"),
        row.text("/spec/persistentVolumeReclaimPolicy").into(),
        phase.into(),
        claim.unwrap_or_default().into(),
        row.text("/spec/storageClassName").into(),
        or_unset(row, "/spec/volumeAttributesClassName").into(),
        row.text("/status/reason").into(),
        row.age(),
        or_unset(row, "/spec/volumeMode").into(),
    ]
}

pub(in crate::table) fn persistent_volume_claim(row: Row<'_>) -> Vec<Value> {
    let phase = if row.at("/metadata/deletionTimestamp").is_some() { "Terminating" } else { row.text("/status/phase") };
    let bound = !row.text("/spec/volumeName").is_empty();
    vec![
        row.name(),
        phase.into(),
        row.text("/spec/volumeName").into(),
        if bound { row.text("/status/capacity/storage") } else { "" }.into(),
        if bound { access_modes(row, "/status/accessModes") } else { "".into() },
        row.text("/spec/storageClassName").into(),
        or_unset(row, "/spec/volumeAttributesClassName").into(),
        row.age(),
        or_unset(row, "/spec/volumeMode").into(),
    ]
}

pub(in crate::table) fn resource_quota(row: Row<'_>) -> Vec<Value> {
    let (mut requests, mut limits) = (Vec::new(), Vec::new());
    for (resource, hard) in row.at("/status/hard").and_then(Value::as_object).into_iter().flatten() {
        let used = row.at("/status/used").and_then(|used| used.get(resource)).and_then(Value::as_str).unwrap_or("0");
        let entry = format!("{resource}: {used}/{}", hard.as_str().unwrap_or_default());
        if resource.starts_with("limits") { limits.push(entry) } else { requests.push(entry) }
    }
    vec![row.name(), requests.join(", ").into(), limits.join(", ").into(), row.age()]
}

pub(in crate::table) fn autoscaler(row: Row<'_>) -> Vec<Value> {
    let targets = if row.text("/apiVersion") == "autoscaling/v1" { vec![cpu_target(row)] } else { metric_targets(row) };
    let shown: Vec<&str> = targets.iter().take(2).map(String::as_str).collect();
    let more = if targets.len() > 2 { format!(" + {} more...", targets.len() - 2) } else { String::new() };
    let targets = if targets.is_empty() { "<none>".to_owned() } else { shown.join(", ") + &more };
    let min = row.at("/spec/minReplicas").and_then(Value::as_i64).map_or_else(|| "<unset>".to_owned(), |min| min.to_string());
    vec![
        row.name(),
        format!("{}/{}", row.text("/spec/scaleTargetRef/kind"), row.text("/spec/scaleTargetRef/name")).into(),
        targets.into(),
        min.into(),
        row.number("/spec/maxReplicas").to_string().into(),
        row.number("/status/currentReplicas").to_string().into(),
        row.age(),
    ]
}

fn percent(value: Option<&Value>) -> String {
    value.and_then(Value::as_i64).map_or_else(|| "<unknown>".to_owned(), |percent| format!("{percent}%"))
}

/// The one metric of autoscaling/v1.
fn cpu_target(row: Row<'_>) -> String {
    let current = percent(row.at("/status/currentCPUUtilizationPercentage"));
    format!("cpu: {current}/{}", percent(row.at("/spec/targetCPUUtilizationPercentage")))
}

fn metric_targets(row: Row<'_>) -> Vec<String> {
    let current = row.list("/status/currentMetrics");
    let metric = |(index, metric): (usize, &Value)| {
        let key = match text(metric, "type") {
            "ContainerResource" => "containerResource",
            "Pods" => "pods",
            "Object" => "object",
            "External" => "external",
            _ => "resource",
        };
        let source = metric.get(key).unwrap_or(&Value::Null);
        let now = current.get(index).and_then(|current| current.get(key)?.get("current"));
        let quantity = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or("<unknown>").to_owned();
        let target = source.get("target").unwrap_or(&Value::Null);
        let name = source.get("name").and_then(Value::as_str).map(|name| format!("{name}: ")).unwrap_or_default();
        let of = |field: &str| now.and_then(|now| now.get(field));
        if target.get("averageUtilization").is_some() {
            format!("{name}{}/{}", percent(of("averageUtilization")), percent(target.get("averageUtilization")))
        } else if target.get("averageValue").is_some() {
            let average = if matches!(key, "object" | "external") { " (avg)" } else { "" };
            format!("{name}{}/{}{average}", quantity(of("averageValue")), quantity(target.get("averageValue")))
        } else {
            format!("{name}{}/{}", quantity(of("value")), quantity(target.get("value")))
        }
    };
    row.list("/spec/metrics").iter().enumerate().map(metric).collect()
}

pub(in crate::table) fn scale(row: Row<'_>) -> Vec<Value> {
    vec![row.name(), row.number("/spec/replicas").into(), row.number("/status/replicas").into(), row.age()]
}

pub(in crate::table) fn disruption_budget(row: Row<'_>) -> Vec<Value> {
    let shown = |pointer: &str| match row.at(pointer) {
        Some(Value::String(text)) => text.clone(),
        Some(number) => number.to_string(),
        None => "N/A".to_owned(),
    };
    vec![
        row.name(),
        shown("/spec/minAvailable").into(),
        shown("/spec/maxUnavailable").into(),
        row.number("/status/disruptionsAllowed").into(),
        row.age(),
    ]
}

pub(in crate::table) fn storage_class(row: Row<'_>) -> Vec<Value> {
    let default = row
        .at("/metadata/annotations")
        .is_some_and(|annotations| text(annotations, "storageclass.kubernetes.io/is-default-class") == "true");
    let name = row.text("/metadata/name");
    vec![
        if default { format!("{name} (default)") } else { name.to_owned() }.into(),
        row.text("/provisioner").into(),
        row.text("/reclaimPolicy").into(),
        row.text("/volumeBindingMode").into(),
        row.at("/allowVolumeExpansion").is_some_and(|allow| allow == true).into(),
        row.age(),
    ]
}

pub(in crate::table) fn priority_class(row: Row<'_>) -> Vec<Value> {
    vec![
        row.name(),
        row.number("/value").into(),
        row.at("/globalDefault").is_some_and(|default| default == true).into(),
        row.age(),
        row.text("/preemptionPolicy").into(),
    ]
}
