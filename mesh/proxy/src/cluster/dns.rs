//! Clusters whose endpoints are host names.

use std::net::SocketAddr;
use std::sync::Weak;
use std::time::Duration;

use meshlab_proxy_config::{Discovery, DnsEndpoint, Endpoint};

use super::Cluster;

/// Istio's `dnsRefreshRate`.
const REFRESH: Duration = Duration::from_secs(60);
/// After a failure; Envoy backs off from its refresh rate, Istio sets none. Names appear while a lab is being set up.
const RETRY: Duration = Duration::from_secs(1);

/// Resolves the names of `cluster` again and again for as long as it lives.
pub(crate) async fn follow(cluster: Weak<Cluster>) {
    loop {
        let Some(strong) = cluster.upgrade() else { return };
        let (names, first_only) = match &strong.config.discovery {
            Discovery::StrictDns(names) => (names.clone(), false),
            Discovery::LogicalDns(names) => (names.clone(), true),
            Discovery::Eds | Discovery::Static(_) | Discovery::OriginalDestination => return,
        };
        let mut endpoints = Vec::new();
        let mut failed = false;
        for name in &names {
            match resolve(&strong, name, first_only).await {
                Ok(resolved) => endpoints.extend(resolved),
                Err(error) => {
                    failed = true;
                    tracing::debug!(cluster = %strong.name, host = %name.host, %error, "name does not resolve");
                }
            }
        }
        // A failure keeps what was resolved before.
        if !failed || !endpoints.is_empty() {
            strong.set_endpoints(&endpoints);
        }
        strong.resolved();
        drop(strong);
        tokio::time::sleep(if failed { RETRY } else { REFRESH }).await;
    }
}

async fn resolve(cluster: &Cluster, name: &DnsEndpoint, first_only: bool) -> std::io::Result<Vec<Endpoint>> {
    let mut addresses = cluster.shared.network.resolve(&name.host).await?;
    if first_only {
        addresses.truncate(1);
    } else {
        addresses.sort_unstable();
        addresses.dedup();
    }
    Ok(addresses
        .into_iter()
        .map(|ip| Endpoint {
            address: SocketAddr::new(ip, name.port),
            weight: name.weight,
            priority: 0,
            metadata: name.metadata.clone(),
        })
        .collect())
}
