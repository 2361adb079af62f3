//! Events are forgotten after an hour, as Kubernetes does.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Event;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, ListParams};

use crate::Context;

const TIME_TO_LIVE: SignedDuration = SignedDuration::from_hours(1);
const SWEEP: Duration = Duration::from_secs(300);

/// Removes old events, until the cluster stops.
pub(crate) async fn run(context: Arc<Context>) {
    loop {
        tokio::time::sleep(SWEEP).await;
        if let Err(error) = sweep(&context, Timestamp::now()).await {
            tracing::debug!(%error, "old events were not removed");
        }
    }
}

async fn sweep(context: &Context, now: Timestamp) -> Result<(), kube::Error> {
    let all: Api<Event> = Api::all(context.client.clone());
    for event in all.list(&ListParams::default()).await?.items.iter().filter(|event| is_old(event, now)) {
        let api: Api<Event> = Api::namespaced(context.client.clone(), &event.namespace().unwrap_or_default());
        api.delete(&event.name_any(), &DeleteParams::default()).await?;
    }
    Ok(())
}

fn is_old(event: &Event, now: Timestamp) -> bool {
    let series = event.series.as_ref().and_then(|series| series.last_observed_time.as_ref()).map(|time| time.0);
    let last = event.last_timestamp.as_ref().map(|time| time.0);
    let begun = event.event_time.as_ref().map(|time| time.0);
    let created = event.metadata.creation_timestamp.as_ref().map(|time| time.0);
    let latest = series.or(last).or(begun).or(created);
    latest.is_some_and(|latest| now.duration_since(latest) > TIME_TO_LIVE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_event_that_was_counted_again_is_young() {
        let event = |last: &str| -> Event {
            let times = json!({"creationTimestamp": "2026-01-01T00:00:00Z"});
            serde_json::from_value(json!({"metadata": times, "involvedObject": {}, "lastTimestamp": last})).unwrap()
        };
        let now = "2026-01-01T02:00:00Z".parse().unwrap();
        assert!(is_old(&event("2026-01-01T00:30:00Z"), now));
        assert!(!is_old(&event("2026-01-01T01:30:00Z"), now));
    }
}
