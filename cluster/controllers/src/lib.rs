//! The controllers of the embedded cluster. Each is one module with one `run(context)` that works until the cluster stops;
//! all of them see the cluster through a [`kube::Client`] and the shared caches, as on a real cluster.

mod cron_job;
mod daemon_set;
mod deployment;
mod endpoints;
mod event_ttl;
#[doc(hidden)]
pub mod fuzzing;
mod garbage;
mod job;
mod namespace;
mod owner;
mod pods;
mod replica_set;
mod scheduler;
mod service_account;
mod service_network;
mod stateful_set;
mod template;

use std::sync::Arc;

use kube::Client;
use meshlab_controller_runtime::{EventRecorder, Informers, supervise};
use meshlab_net::VirtualNet;
use tokio_util::sync::CancellationToken;

/// What every controller works with.
pub struct Context {
    /// The API server, with all rights.
    pub client: Client,
    /// The shared caches.
    pub informers: Informers,
    /// The pods' network, into which services and names are mirrored.
    pub network: VirtualNet,
    /// The certificate authority of the API server, PEM; every namespace gets it as `kube-root-ca.crt`.
    pub ca_pem: String,
    /// Ends all controllers when cancelled.
    pub stop: CancellationToken,
}

impl Context {
    fn recorder(&self, component: &str) -> EventRecorder {
        EventRecorder::start(self.client.clone(), component, None, self.stop.clone())
    }
}

/// Starts all controllers; they end when [`Context::stop`] is cancelled.
pub fn start(context: Arc<Context>) {
    macro_rules! controllers {
        ($($module:ident),* $(,)?) => {
            $({
                let context = context.clone();
                supervise(stringify!($module), context.stop.clone(), move || $module::run(context.clone()));
            })*
        };
    }
    controllers!(cron_job, daemon_set, deployment, endpoints, event_ttl, garbage, job);
    controllers!(namespace, replica_set, scheduler, service_account, service_network, stateful_set);
}
