//! What decides where traffic goes: the services, the rules for them, and the mesh's settings.

use std::sync::Arc;

use crate::cluster::{self, ClusterInputs};
use crate::destination_rule::{ConsolidatedRule, DestinationRules, DestinationRulesInputs};
use crate::memo::{Memos, Same};
use crate::mesh_config::MeshConfig;
use crate::proxy::{Client, RouteClient};
use crate::registry::{MeshService, Services, ServicesInputs};
use crate::security::peer::{PeerPolicies, PeerPoliciesInputs};
use crate::sources::Sources;
use crate::virtual_service::{VirtualServices, VirtualServicesInputs};

/// All that the outbound side of proxies depends on, besides who they are and their Sidecar.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Traffic {
    pub(crate) mesh: Same<MeshConfig>,
    pub(crate) services: Same<Services>,
    pub(crate) virtual_services: Same<VirtualServices>,
    pub(crate) destination_rules: Same<DestinationRules>,
    pub(crate) peers: Same<PeerPolicies>,
}

/// A service that is sent to, and the rule for it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Target {
    pub(crate) service: Same<MeshService>,
    pub(crate) rule: Option<Same<ConsolidatedRule>>,
}

impl Traffic {
    pub(crate) fn of(sources: &Sources, memos: &Memos) -> Self {
        Self {
            mesh: Same::of(&sources.mesh),
            services: memos.services.get(ServicesInputs::of(sources), memos, Services::new),
            virtual_services: memos.virtual_services.get(VirtualServicesInputs::of(sources), memos, VirtualServices::new),
            destination_rules: memos.destination_rules.get(DestinationRulesInputs::of(sources), memos, DestinationRules::new),
            peers: memos.peer_policies.get(PeerPoliciesInputs::of(sources), memos, PeerPolicies::new),
        }
    }

    /// The DestinationRule that a client's traffic to a service obeys.
    pub(crate) fn rule(&self, service: &MeshService, client: &RouteClient) -> Option<&Arc<ConsolidatedRule>> {
        self.destination_rules.lookup(service, &client.namespace, &client.labels, &self.mesh.root_namespace)
    }

    pub(crate) fn target(&self, service: &Arc<MeshService>, client: &RouteClient) -> Target {
        Target { service: Same::of(service), rule: self.rule(service, client).map(Same::of) }
    }

    /// The clusters of a service.
    pub(crate) fn clusters(&self, service: &Arc<MeshService>, client: &Client, memos: &Memos) -> Arc<[cluster::Compiled]> {
        let inputs = ClusterInputs {
            mesh: self.mesh.clone(),
            peers: self.peers.clone(),
            target: self.target(service, &client.routes),
            client: client.clusters.clone(),
        };
        memos.clusters.get(inputs, memos, cluster::service_clusters)
    }
}
