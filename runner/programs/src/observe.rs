//! The observability addons as containers.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use meshlab_net::AnyNet;
use meshlab_observe::{GrafanaOptions, JaegerOptions, KialiOptions, PrometheusOptions};
use meshlab_program::{Catalogue, Container, ExitCode, Image, Process, Program};
use tokio::io::AsyncWriteExt;
use tokio_util::sync::CancellationToken;

use super::files::AnyFiles;
use super::terminated;

/// Registers an image for each addon.
pub(super) fn register(catalogue: &mut Catalogue) {
    for addon in [Addon::Prometheus, Addon::Jaeger, Addon::Grafana, Addon::Kiali] {
        let name = addon.name();
        let image =
            Image::builder().executable(name, Arc::new(addon)).base(&meshlab_images::busybox()).entrypoint([name]).build();
        catalogue.register(&format!("ghcr.io/meshlab/{name}"), image);
    }
}

#[derive(Clone, Copy)]
enum Addon {
    Prometheus,
    Jaeger,
    Grafana,
    Kiali,
}

impl Addon {
    fn name(self) -> &'static str {
        match self {
            Self::Prometheus => "prometheus",
            Self::Jaeger => "jaeger",
            Self::Grafana => "grafana",
            Self::Kiali => "kiali",
        }
    }

    async fn serve(
        self,
        container: &Container,
        env: &BTreeMap<String, String>,
        shutdown: CancellationToken,
    ) -> Result<(), String> {
        let net = AnyNet::Pod(container.net.clone());
        let result = match self {
            Self::Prometheus => {
                meshlab_observe::prometheus(net, client(container, env)?, PrometheusOptions::default(), shutdown).await
            }
            Self::Jaeger => meshlab_observe::jaeger(net, JaegerOptions::default(), shutdown).await,
            Self::Grafana => meshlab_observe::grafana(net, GrafanaOptions::default(), shutdown).await,
            Self::Kiali => meshlab_observe::kiali(net, client(container, env)?, KialiOptions::default(), shutdown).await,
        };
        result.map_err(|error| error.to_string())
    }
}

/// A client of the API server with the rights of the pod's service account.
fn client(container: &Container, env: &BTreeMap<String, String>) -> Result<kube::Client, String> {
    let (net, files) = (AnyNet::Pod(container.net.clone()), AnyFiles::Container(container.fs.clone()));
    meshlab_control::kube_client::in_cluster(net, files, env).map_err(|error| error.to_string())
}

#[async_trait]
impl Program for Addon {
    async fn run(&self, process: Process) -> ExitCode {
        let shutdown = terminated(&process);
        let Process { container, env, mut stdio, .. } = process;
        match self.serve(&container, &env, shutdown).await {
            Ok(()) => 0,
            Err(error) => {
                let _ = stdio.stderr.write_all(format!("Error: {error}\n").as_bytes()).await;
                1
            }
        }
    }
}
