//! An API server alone, to try clients against: `cargo run -p meshlab-apiserver --example serve -- KUBECONFIG [DATA_DIR]`.

use std::error::Error;

use meshlab_apiserver::{ApiServer, ApiServerOptions};
use meshlab_net::{VirtualNet, VirtualNetOptions};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt().with_max_level(tracing::Level::INFO).init();
    let mut arguments = std::env::args().skip(1);
    let kubeconfig = arguments.next().ok_or("usage: serve KUBECONFIG [DATA_DIR]")?;
    let mut options = ApiServerOptions::new(VirtualNet::new(VirtualNetOptions::default()));
    options.data_dir = arguments.next().map(Into::into);
    let started = std::time::Instant::now();
    let server = ApiServer::start(options).await?;
    tracing::info!(address = %server.address(), took = ?started.elapsed(), "started");
    std::fs::write(kubeconfig, server.kubeconfig())?;
    tokio::signal::ctrl_c().await?;
    server.stop().await;
    Ok(())
}
