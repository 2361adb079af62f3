//! The prober as a container.

use std::sync::Arc;

use async_trait::async_trait;
use meshlab_net::AnyNet;
use meshlab_program::{ExitCode, Image, Process, Program, Signal};
use tokio::io::AsyncWriteExt;

/// `ghcr.io/meshlab/prober`: the prober, on top of the image with a shell and curl.
pub(super) fn image() -> Arc<Image> {
    Image::builder().executable("prober", Arc::new(Prober)).base(&meshlab_images::busybox()).entrypoint(["prober"]).build()
}

struct Prober;

#[async_trait]
impl Program for Prober {
    async fn run(&self, process: Process) -> ExitCode {
        let Process { container, mut signals, mut stdio, .. } = process;
        tokio::select! {
            Signal::Terminate | Signal::Interrupt | Signal::None = signals.requested() => 0,
            result = meshlab_prober::serve(AnyNet::Pod(container.net.clone())) => {
                let why = result.err().map_or_else(String::new, |error| error.to_string());
                let _ = stdio.stderr.write_all(format!("prober: {why}\n").as_bytes()).await;
                1
            }
        }
    }
}
