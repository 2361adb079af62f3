//! A snapshot of the cluster, as the discovery hub asks about it.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::sync::Arc;

use meshlab_compile::{ClassKey, Problem, ProxyIdentity, Role, Snapshot, compile};
use meshlab_proxy_config::ProxyConfig;
use meshlab_proxy_config::discovery::{Node, NodeKind};

use crate::discovery::World;

/// A class of proxies, with one of them to stand for all.
#[derive(Clone)]
pub(crate) struct Class {
    key: ClassKey,
    example: Arc<ProxyIdentity>,
}

impl PartialEq for Class {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl Eq for Class {}

impl PartialOrd for Class {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Class {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key.cmp(&other.key)
    }
}

/// The identity of a proxy: what the API server says about its pod, or what it says itself when it has none.
pub(crate) fn identity(snapshot: &Snapshot, node: &Node) -> ProxyIdentity {
    let role = match node.kind {
        NodeKind::Sidecar => Role::Sidecar,
        NodeKind::Router => Role::Gateway,
    };
    let sources = snapshot.sources();
    if let Some(pod) = sources.pods.get(&(node.namespace.clone(), node.pod.clone())) {
        return ProxyIdentity::of_pod(pod, role, snapshot);
    }
    let locality = sources.nodes.get(&(String::new(), node.node_name.clone())).map(|node| node.locality());
    ProxyIdentity {
        role,
        namespace: node.namespace.clone(),
        pod: node.pod.clone(),
        labels: node.labels.clone(),
        ip: node.ip.parse().ok(),
        service_account: node.service_account.clone(),
        workload: node.workload.clone(),
        locality: locality.unwrap_or_default(),
    }
}

impl World for Snapshot {
    type Class = Class;
    type Note = Problem;

    fn class(&self, node: &Node) -> Class {
        let example = identity(self, node);
        Class { key: Snapshot::class(self, &example), example: Arc::new(example) }
    }

    fn compile(&self, classes: &[Class]) -> (Vec<Arc<ProxyConfig>>, BTreeSet<Problem>) {
        let mut problems: BTreeSet<_> = self.problems().iter().cloned().collect();
        let configs = classes.iter().map(|class| {
            let compiled = compile(self, &class.example);
            problems.extend(compiled.problems.iter().cloned());
            compiled.config
        });
        (configs.collect(), problems)
    }
}
