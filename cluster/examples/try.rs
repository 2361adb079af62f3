//! A cluster with the built-in images to try kubectl on: `cargo run -p meshlab-cluster --example try -- KUBECONFIG [DATA DIRECTORY]`.

use std::path::PathBuf;

use meshlab_cluster::{Cluster, ClusterOptions};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt().with_env_filter(tracing_subscriber::EnvFilter::from_default_env()).init();
    let mut args = std::env::args_os().skip(1).map(PathBuf::from);
    let kubeconfig = args.next().ok_or("usage: try KUBECONFIG [DATA DIRECTORY]")?;
    let catalogue = meshlab_images::catalogue();
    let options = ClusterOptions { catalogue, kubeconfig: Some(kubeconfig), data_dir: args.next(), ..ClusterOptions::default() };
    let cluster = Cluster::start(options).await?;
    tokio::signal::ctrl_c().await?;
    cluster.stop().await;
    Ok(())
}
