//! The proxy that this agent runs.

use std::sync::Arc;

use meshlab_net::Net;
use meshlab_proxy::{Proxy, ProxyOptions, WorkloadIdentity};
use meshlab_proxy_config::ProxyConfig;
use meshlab_proxy_config::discovery::Rejection;
use tokio::sync::Notify;

use crate::discovery::Applied;
use crate::environment::Environment;

/// A running proxy. Cloning yields the same one.
#[derive(Clone)]
pub(crate) struct Running<N: Net> {
    proxy: Arc<Proxy<N>>,
}

impl<N: Net> Running<N> {
    /// Starts it, without configuration. `quit` is notified when `/quitquitquit` is asked of its administration port.
    pub(crate) async fn start(
        net: N,
        environment: &Environment,
        stdout: Arc<dyn Fn(&str) + Send + Sync>,
        quit: Arc<Notify>,
    ) -> Result<Self, String> {
        let access_log = Arc::new(move |line: &str| stdout(line));
        let options = ProxyOptions { node_id: environment.node_id(), access_log, quit, ..ProxyOptions::default() };
        let proxy = Proxy::start(net, options).await.map_err(|error| error.to_string())?;
        Ok(Self { proxy: Arc::new(proxy) })
    }

    /// Replaces its certificate; connections that are open go on with the one they have.
    pub(crate) fn set_identity(&self, identity: WorkloadIdentity) -> Result<(), String> {
        self.proxy.set_identity(identity).map_err(|error| error.to_string())
    }

    /// Replaces its configuration, but for the resources that it refuses.
    pub(crate) async fn apply(&self, config: Arc<ProxyConfig>) -> Applied {
        self.proxy.apply(config).await.map_err(|errors| {
            let rejection = |error: meshlab_proxy::ApplyError| Rejection { resource: error.resource, message: error.message };
            errors.0.into_iter().map(rejection).collect()
        })
    }

    /// Its metrics in Prometheus' text format.
    pub(crate) fn metrics(&self) -> String {
        self.proxy.metrics()
    }

    /// Begins to drain: connections are closed as they become idle, new ones are discouraged.
    pub(crate) fn start_draining(&self) {
        self.proxy.drain();
    }

    /// Connections of clients that are open.
    pub(crate) fn active_connections(&self) -> u64 {
        self.proxy.active_connections()
    }
}
