//! From the Istio API to what one proxy does.
//!
//! [`compile`] is pure: no I/O, no clock, no randomness; equal input gives equal bytes. The control plane keeps [`Sources`] up to
//! date with what it watches, makes the next [`Snapshot`] after each change, and compiles once for each [`ClassKey`]; what depends on
//! nothing that has changed is not done again, see the module `memo`. A resource that
//! cannot be used never stops the others: it is left out, and a [`Problem`] says why.

mod cluster;
mod compiler;
mod destination_rule;
pub mod host;
pub mod kubernetes;
mod listener;
mod memo;
pub mod mesh_config;
pub mod protocol;
mod proxy;
pub mod registry;
mod route;
mod scope;
mod secret;
pub mod security;
mod snapshot;
mod sources;
mod telemetry;
mod traffic;
mod usable;
mod virtual_service;
pub mod visibility;

pub use cluster::{BLACK_HOLE, INBOUND_PASSTHROUGH, PASSTHROUGH};
pub use compiler::{Compiled, compile};
pub use destination_rule::{ConsolidatedRule, DestinationRules};
pub use mesh_config::MeshConfig;
pub use proxy::{ClassKey, ProxyIdentity, Role};
pub use security::needed_key_sets;
pub use snapshot::Snapshot;
pub use sources::{Key, Sources, Store};
pub use virtual_service::{ResolvedRoute, ResolvedVirtualService};

use meshlab_proxy_config::Origin;

/// What is wrong with a resource, for its status and the control plane's log.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// The resource and the place in it.
    pub origin: Origin,
    /// What is wrong and what was done instead.
    pub message: String,
}

impl Problem {
    pub(crate) fn new(origin: Origin, message: String) -> Self {
        Self { origin, message }
    }
}
