//! Container logs.

use std::time::Duration;

use futures::future::try_join_all;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, LogParams};
use serde_json::{Value, json};

use super::{ProbeError, Prober, ready_pods, send};
use crate::check::LogProbe;

/// A little longer than a proxy takes to write a line; it saves a second look, no more.
const LOG_DELAY: Duration = Duration::from_millis(20);

pub(super) async fn look(prober: &Prober, probe: &LogProbe) -> Result<Value, ProbeError> {
    let pods = ready_pods(&prober.client, &probe.namespace, &probe.label_selector).await?;
    let api: Api<Pod> = Api::namespaced(prober.client.clone(), &probe.namespace);
    let mut params = LogParams { container: Some(probe.container.clone()), tail_lines: Some(probe.tail), ..LogParams::default() };
    if let Some(traffic) = &probe.after {
        params.since_time = Some(Timestamp::now());
        send(prober, &traffic.from, &traffic.request, traffic.count, traffic.concurrency).await?;
        // A proxy writes its line after the response is on its way; a look that comes too early is followed by another.
        tokio::time::sleep(LOG_DELAY).await;
    }
    let (api, params) = (&api, &params);
    let logs = pods.iter().map(|pod| async move {
        let log = api.logs(pod, params).await;
        log.map_err(|error| ProbeError::of(format!("log of {}/{pod}: {error}", probe.namespace)))
    });
    let logs = try_join_all(logs).await?;
    let lines: Vec<&str> = logs.iter().flat_map(|log| log.lines()).collect();
    Ok(json!({"count": lines.len(), "lines": lines}))
}
