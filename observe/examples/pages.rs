//! Serves the pages outside of a cluster, for those who work on them: metrics come from a Prometheus that is forwarded to port
//! 19090, pods and logs from the cluster of `KUBECONFIG`. Traces can be sent to port 9411 as Zipkin's JSON.
//!
//! ```sh
//! kubectl port-forward -n istio-system svc/prometheus 19090:9090 &
//! cargo run -p meshlab-observe --example pages    # Kiali on 20001, Grafana on 3000, Jaeger on 16686
//! ```

use std::net::{Ipv4Addr, SocketAddr};

use meshlab_net::OsNet;
use meshlab_observe::{GrafanaOptions, JaegerOptions, KialiOptions, grafana, jaeger, kiali};
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let prometheus = ("127.0.0.1".to_owned(), 19090);
    let client = kube::Client::try_default().await?;
    let end = CancellationToken::new();
    tokio::try_join!(
        kiali(OsNet, client, KialiOptions { listen: local(20001), prometheus: prometheus.clone() }, end.clone()),
        grafana(OsNet, GrafanaOptions { listen: local(3000), prometheus }, end.clone()),
        jaeger(OsNet, JaegerOptions { address: Ipv4Addr::LOCALHOST.into(), ..JaegerOptions::default() }, end),
    )?;
    Ok(())
}
