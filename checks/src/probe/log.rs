//! Container logs.

use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, LogParams};
use serde_json::{Value, json};

use super::{ProbeError, Prober, ready_pod};
use crate::check::LogProbe;

pub(super) async fn look(prober: &Prober, probe: &LogProbe) -> Result<Value, ProbeError> {
    let pod = ready_pod(&prober.client, &probe.namespace, &probe.label_selector).await?;
    let Some(pod) = pod else {
        return Ok(json!({"count": 0, "lines": []}));
    };
    let params = LogParams { container: Some(probe.container.clone()), tail_lines: Some(probe.tail), ..LogParams::default() };
    let text = Api::<Pod>::namespaced(prober.client.clone(), &probe.namespace).logs(&pod, &params).await;
    let text = text.map_err(|error| ProbeError::new(format!("log of {}/{pod}: {error}", probe.namespace)))?;
    let lines: Vec<&str> = text.lines().collect();
    Ok(json!({"count": lines.len(), "lines": lines}))
}
