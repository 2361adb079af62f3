//! Container logs.

use futures::future::try_join_all;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, LogParams};
use serde_json::{Value, json};

use super::{ProbeError, Prober, ready_pods};
use crate::check::LogProbe;

pub(super) async fn look(prober: &Prober, probe: &LogProbe) -> Result<Value, ProbeError> {
    let pods = ready_pods(&prober.client, &probe.namespace, &probe.label_selector).await?;
    let api: Api<Pod> = Api::namespaced(prober.client.clone(), &probe.namespace);
    let params = LogParams { container: Some(probe.container.clone()), tail_lines: Some(probe.tail), ..LogParams::default() };
    let (api, params) = (&api, &params);
    let logs = pods.iter().map(|pod| async move {
        let log = api.logs(pod, params).await;
        log.map_err(|error| ProbeError::new(format!("log of {}/{pod}: {error}", probe.namespace)))
    });
    let logs = try_join_all(logs).await?;
    let lines: Vec<&str> = logs.iter().flat_map(|log| log.lines()).collect();
    Ok(json!({"count": lines.len(), "lines": lines}))
}
