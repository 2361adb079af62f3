//! PeerAuthentication: which mutual TLS a workload takes.

use std::collections::BTreeMap;
use std::sync::Arc;

use meshlab_istio_api::{MutualTls, MutualTlsMode, Object, PeerAuthentication};
use meshlab_proxy_config::Origin;

use crate::kubernetes::Labels;
use crate::memo::{Memos, Same};
use crate::mesh_config::MeshConfig;
use crate::registry::{origin, selects};
use crate::sources::{Sources, Store};

/// What a workload takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Plaintext only.
    Disable,
    /// Both.
    Permissive,
    /// Mutual TLS only.
    Strict,
}

/// All policies, by scope. In each scope the oldest counts.
#[derive(Debug, Default)]
pub struct PeerPolicies {
    root_namespace: String,
    by_namespace: BTreeMap<String, Vec<Arc<Object<PeerAuthentication>>>>,
}

/// What holds for one workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EffectiveMode {
    /// For its ports.
    pub mode: Mode,
    /// For single ports, by the workload's own number.
    pub ports: BTreeMap<u16, Mode>,
    /// The policy that decided `mode`.
    pub origin: Option<Origin>,
}

impl EffectiveMode {
    /// What holds for a port.
    pub fn of_port(&self, port: u16) -> Mode {
        self.ports.get(&port).copied().unwrap_or(self.mode)
    }
}

/// What the policies are made from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct PeerPoliciesInputs {
    mesh: Same<MeshConfig>,
    peer_authentications: Same<Store<Object<PeerAuthentication>>>,
}

impl PeerPoliciesInputs {
    pub(crate) fn of(sources: &Sources) -> Self {
        Self { mesh: Same::of(&sources.mesh), peer_authentications: Same::of(&sources.peer_authentications) }
    }
}

impl PeerPolicies {
    /// Indexes the policies.
    pub(crate) fn new(inputs: &PeerPoliciesInputs, _: &Memos) -> Same<Self> {
        let mut objects: Vec<_> = inputs.peer_authentications.values().cloned().collect();
        objects.sort_by(|a, b| a.age_order().cmp(&b.age_order()));
        let mut by_namespace: BTreeMap<String, Vec<Arc<Object<PeerAuthentication>>>> = BTreeMap::new();
        for object in objects {
            by_namespace.entry(object.meta.namespace.clone()).or_default().push(object);
        }
        Same::new(Self { root_namespace: inputs.mesh.root_namespace.clone(), by_namespace })
    }

    /// What holds for a whole namespace.
    pub fn of_namespace(&self, namespace: &str) -> EffectiveMode {
        let mut effective = EffectiveMode { mode: Mode::Permissive, ports: BTreeMap::new(), origin: None };
        for scope in [self.root_namespace.as_str(), namespace] {
            if let Some(policy) = self.in_namespace(scope).iter().find(|policy| selector(policy).is_none()) {
                effective.take(policy.spec.mtls, policy);
            }
        }
        effective
    }

    /// What holds for a workload: its own policy, then its namespace's, then the mesh's. Policies with a selector have no effect
    /// in the root namespace.
    pub fn of_workload(&self, namespace: &str, labels: &Labels) -> EffectiveMode {
        let mut effective = self.of_namespace(namespace);
        if namespace == self.root_namespace {
            return effective;
        }
        let own =
            self.in_namespace(namespace).iter().find(|policy| selector(policy).is_some_and(|selector| selects(selector, labels)));
        if let Some(policy) = own {
            effective.take(policy.spec.mtls, policy);
            for (port, mtls) in &policy.spec.port_level_mtls {
                if let Ok(port) = port.parse() {
                    effective.ports.insert(port, mode(mtls.mode).unwrap_or(effective.mode));
                }
            }
        }
        effective
    }

    fn in_namespace(&self, namespace: &str) -> &[Arc<Object<PeerAuthentication>>] {
        self.by_namespace.get(namespace).map_or(&[], Vec::as_slice)
    }
}

impl EffectiveMode {
    fn take(&mut self, mtls: Option<MutualTls>, policy: &Object<PeerAuthentication>) {
        if let Some(mode) = mtls.and_then(|mtls| mode(mtls.mode)) {
            self.mode = mode;
            self.origin = Some(origin("PeerAuthentication", &policy.meta.namespace, &policy.meta.name, "spec.mtls"));
        }
    }
}

fn selector(policy: &Object<PeerAuthentication>) -> Option<&Labels> {
    policy.spec.selector.as_ref().map(|selector| &selector.match_labels).filter(|labels| !labels.is_empty())
}

/// `None`: as the wider scope says.
fn mode(mode: MutualTlsMode) -> Option<Mode> {
    match mode {
        MutualTlsMode::Unset => None,
        MutualTlsMode::Disable => Some(Mode::Disable),
        MutualTlsMode::Permissive => Some(Mode::Permissive),
        MutualTlsMode::Strict => Some(Mode::Strict),
    }
}
