//! The kubelet of the embedded cluster: runs pods whose programs are written in Rust.
//!
//! [`manager`] follows the pods of the node and gives each a task ([`pod`]), which owns all of that pod's state: network, volumes,
//! containers ([`pod`]'s `ContainerLife`), probes and status. [`agent`] answers what the API server asks of the node.

mod addresses;
mod agent;
mod back_off;
mod environment;
mod hooks;
mod log;
mod manager;
mod node;
mod pod;
mod probe;
mod quantity;
mod volumes;

use std::collections::HashSet;
use std::sync::Arc;

use kube::Client;
use meshlab_controller_runtime::{EventRecorder, Informers, supervise};
use meshlab_net::VirtualNet;
use meshlab_program::Catalogue;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use addresses::Addresses;

/// What a kubelet needs.
pub struct KubeletOptions {
    /// The API server, with all rights.
    pub client: Client,
    /// The caches shared with the controllers.
    pub informers: Informers,
    /// The images there are.
    pub catalogue: Catalogue,
    /// The network that pods are attached to; its node is this one.
    pub network: VirtualNet,
    /// Ends the kubelet, and all pods with it, when cancelled.
    pub stop: CancellationToken,
}

/// The one node's kubelet; hand it to the API server as its node agent. Pods run until [`KubeletOptions::stop`] is cancelled.
#[derive(Clone)]
pub struct Kubelet {
    node: Arc<Node>,
}

/// What all pods of the node share.
struct Node {
    name: String,
    address: String,
    client: Client,
    informers: Informers,
    catalogue: Catalogue,
    network: VirtualNet,
    addresses: Addresses,
    recorder: EventRecorder,
    /// Images that were used before, and so need no pulling.
    pulled: Mutex<HashSet<String>>,
    pods: manager::Pods,
    stop: CancellationToken,
}

impl Kubelet {
    /// Registers the node and begins to run the pods bound to it.
    pub fn start(options: KubeletOptions) -> Self {
        let host = options.network.options();
        let name = host.node_name.clone();
        let node = Arc::new(Node {
            address: host.node_address.to_string(),
            recorder: EventRecorder::start(options.client.clone(), "kubelet", Some(&name), options.stop.clone()),
            name,
            client: options.client,
            informers: options.informers,
            catalogue: options.catalogue,
            network: options.network,
            addresses: Addresses::new(),
            pulled: Mutex::default(),
            pods: manager::Pods::default(),
            stop: options.stop,
        });
        manager::follow(&node);
        let keep = node.clone();
        supervise("node heartbeat", node.stop.clone(), move || node::keep(keep.clone()));
        Self { node }
    }
}
