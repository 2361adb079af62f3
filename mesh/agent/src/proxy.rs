//! The proxy that this agent runs.

use std::sync::Arc;

use meshlab_net::Net;
use meshlab_proxy::{Proxy, ProxyOptions, WorkloadIdentity};
use meshlab_proxy_config::ProxyConfig;
use meshlab_proxy_config::discovery::Rejection;
use tokio::sync::Notify;

use crate::discovery::Applied;
use crate::environment::Environment;

/// A running proxy. Cloning yields the same one; it ends with the last clone.
#[derive(Clone)]
pub(crate) struct Running<N: Net> {
    proxy: Arc<Proxy<N>>,
}

impl<N: Net> Running<N> {
    /// Starts it, without configuration. `quit` is notified when `/quitquitquit` is asked of its administration port.
    pub(crate) fn start(net: N, environment: &Environment, stdout: Arc<dyn Fn(&str) + Send + Sync>, quit: Arc<Notify>) -> Self {
        let access_log = Arc::new(move |line: &str| stdout(line));
        let trail = environment.trail.clone();
        let options = ProxyOptions {
            node_id: environment.node_id(),
            environment: environment.variables.clone(),
            access_log,
            quit,
            trail,
            ..ProxyOptions::default()
        };
        Self { proxy: Arc::new(Proxy::start(net, options)) }
    }

    /// Replaces its certificate; connections that are open go on with the one they have.
    pub(crate) fn set_identity(&self, identity: WorkloadIdentity) -> Result<(), String> {
        self.proxy.set_identity(identity).map_err(|error| error.to_string())
    }

    /// Replaces its configuration, but for the resources that it refuses.
    pub(crate) fn apply(&self, config: Arc<ProxyConfig>) -> Applied {
        self.proxy
            .apply(config)
            .map_err(|errors| errors.0.into_iter().map(|(resource, message)| Rejection { resource, message }).collect())
    }

    /// Its metrics in Prometheus' text format.
    pub(crate) fn metrics(&self) -> String {
        self.proxy.metrics()
    }

    /// Begins to drain: clients are asked to go as their requests end.
    pub(crate) fn start_draining(&self) {
        self.proxy.start_draining();
    }

    /// Connections of clients that are open.
    pub(crate) fn open_connections(&self) -> usize {
        self.proxy.active_connections()
    }
}
