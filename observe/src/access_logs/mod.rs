//! The mesh's access logs: the newest lines of all proxies, read from the Kubernetes API as `kubectl logs -c istio-proxy` does.

mod entry;
pub(crate) mod flags;
mod page;

use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::LogParams;

use crate::inventory::{Inventory, PROXY, PodInfo};
use entry::Entry;

pub(crate) use page::{page, updates};

/// Proxies read in one look; what is beyond is said.
const MAX_PODS: usize = 60;
/// Proxies read at the same time.
const AT_ONCE: usize = 8;
/// Most that one proxy's lines may be long together.
const MAX_BYTES: i64 = 1 << 20;
/// Entries shown.
const MAX_ENTRIES: usize = 150;
/// Lines read of each proxy; more where most of them will not be shown.
const LINES: i64 = 60;
const LINES_FILTERED: i64 = 300;

/// Which entries are wanted. What is empty matches all.
#[derive(Debug, Clone, Default)]
pub(crate) struct Filter {
    namespace: String,
    workload: String,
    /// Only requests that failed, or carry a flag.
    errors: bool,
    /// Anywhere in the line.
    text: String,
}

impl Filter {
    fn is_narrow(&self) -> bool {
        self.errors || !self.text.is_empty()
    }

    fn wants(&self, entry: &Entry) -> bool {
        (!self.errors || entry.is_error()) && (self.text.is_empty() || entry.line.contains(&self.text))
    }
}

/// What was found.
#[derive(Debug, Default)]
struct Found {
    /// Newest first.
    entries: Vec<Entry>,
    /// Proxies that were read.
    read: usize,
    /// Proxies that were not, as there are too many.
    unread: usize,
    /// Lines that are no access log: what the proxies themselves have to say.
    others: usize,
    /// Entries that match but are older than those shown.
    older: usize,
    /// Proxies whose log could not be read, with the reason.
    failed: Vec<String>,
}

/// The newest entries that `filter` wants.
async fn tail(client: &kube::Client, inventory: &Inventory, filter: &Filter) -> Found {
    let wanted = |pod: &&PodInfo| {
        pod.proxied
            && (filter.namespace.is_empty() || pod.namespace == filter.namespace)
            && (filter.workload.is_empty() || pod.workload == filter.workload)
    };
    let mut found = Found::default();
    let mut pods: Vec<PodInfo> = inventory.pods.iter().filter(wanted).cloned().collect();
    found.unread = pods.len().saturating_sub(MAX_PODS);
    pods.truncate(MAX_PODS);
    found.read = pods.len();
    let lines = if filter.is_narrow() { LINES_FILTERED } else { LINES };
    let logs = futures::stream::iter(pods).map(|pod| {
        let client = client.clone();
        async move {
            let log = lines_of(client, &pod, lines).await;
            (pod, log)
        }
    });
    let mut logs = logs.buffer_unordered(AT_ONCE);
    while let Some((pod, log)) = logs.next().await {
        match log {
            Ok(log) => {
                for line in log.lines().filter(|line| !line.is_empty()) {
                    match Entry::parse(line, &pod) {
                        Some(entry) if filter.wants(&entry) => found.entries.push(entry),
                        Some(_) => {}
                        None => found.others += 1,
                    }
                }
            }
            Err(error) => found.failed.push(format!("{}/{}: {error}", pod.namespace, pod.name)),
        }
    }
    found.entries.sort_by(|a, b| b.time.cmp(&a.time));
    found.older = found.entries.len().saturating_sub(MAX_ENTRIES);
    found.entries.truncate(MAX_ENTRIES);
    found
}

async fn lines_of(client: kube::Client, pod: &PodInfo, lines: i64) -> Result<String, kube::Error> {
    let parameters = LogParams {
        container: Some(PROXY.to_owned()),
        tail_lines: Some(lines),
        limit_bytes: Some(MAX_BYTES),
        ..LogParams::default()
    };
    Api::<Pod>::namespaced(client, &pod.namespace).logs(&pod.name, &parameters).await
}

/// A line of a proxy's log, read and shown.
pub fn fuzz_entry(line: &str) {
    let pod = PodInfo {
        namespace: "default".to_owned(),
        name: "web".to_owned(),
        workload: "web".to_owned(),
        address: "10.244.0.9".to_owned(),
        proxied: true,
        opted_out: false,
        ready: true,
    };
    if let Some(entry) = Entry::parse(line, &pod) {
        let _ = (entry.fields(), entry.code(), entry.flags(), entry.is_http(), entry.is_error(), entry.direction());
    }
}

#[cfg(test)]
mod tests;
