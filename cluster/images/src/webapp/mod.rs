//! The app made for mesh lessons: it says who it is and what reached it, calls on to other services, passes trace headers, and
//! can be told by its environment or by a request to fail, to wait and to stream.

mod answer;
mod config;
mod grpc;
mod metrics;
mod orders;
mod page;
mod tcp;
mod upstream;

use std::sync::Arc;

use async_trait::async_trait;
use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};
use meshlab_net::PodNet;
use meshlab_program::{ExitCode, Image, Process, Program};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::http::server::{Ends, Handler, listen, serve};
use crate::http::{Body, respond};
use crate::output::{Failure, Outcome, complain, finish, print};
use config::Config;
use metrics::Metrics;

/// The image `ghcr.io/meshlab/webapp`.
pub fn webapp() -> Arc<Image> {
    let image = Image::builder().executable("webapp", Arc::new(Webapp)).base(&crate::busybox());
    image.env("HOME", "/home").entrypoint(["/usr/bin/webapp"]).uid(1000).build()
}

/// The image `istio/tcp-echo-server` of Istio's TCP tasks: arguments are the ports, separated by commas, and the prefix.
pub fn tcp_echo() -> Arc<Image> {
    Image::builder()
        .executable("tcp-echo", Arc::new(tcp::TcpEcho))
        .base(&crate::busybox())
        .entrypoint(["/usr/bin/tcp-echo"])
        .cmd(["9000,9001,9002", "hello"])
        .build()
}

struct Webapp;

#[async_trait]
impl Program for Webapp {
    async fn run(&self, mut process: Process) -> ExitCode {
        let outcome = run(&mut process).await;
        finish(&mut process, outcome).await
    }
}

/// What every request needs.
struct App {
    config: Config,
    net: PodNet,
    metrics: Metrics,
    grpc: grpc::Channels<PodNet>,
}

async fn run(process: &mut Process) -> Outcome {
    let config = Config::read(process).map_err(|err| Failure::with_code(2, err.to_string()))?;
    let net = process.container.net.clone();
    let stop = CancellationToken::new();
    let _stop_when_dropped = stop.clone().drop_guard();
    let app = Arc::new(App { config, net: net.clone(), metrics: Metrics::default(), grpc: grpc::Channels::new(net.clone()) });
    let mut servers = JoinSet::new();
    for port in app.config.http_ports() {
        let listener = listen(&net, port).await.map_err(|err| Failure::new(format!("cannot listen on port {port}: {err}")))?;
        servers.spawn(serve(listener, app.clone(), stop.clone()));
    }
    if let Some(port) = app.config.tcp_port {
        let listener = listen(&net, port).await.map_err(|err| Failure::new(format!("cannot listen on port {port}: {err}")))?;
        servers.spawn(tcp::serve(listener, app.config.tcp_prefix.clone(), stop.clone()));
    }
    print(process, format!("{}\n", app.config.summary())).await?;
    tokio::io::AsyncWriteExt::flush(&mut process.stdio.stdout).await?;
    tokio::select! {
        _ = process.signals.requested() => {}
        _ = servers.join_next() => return Err(Failure::new("the pod's network is gone")),
    }
    complain(process, "stopping: finishing the requests under way").await;
    stop.cancel();
    while servers.join_next().await.is_some() {}
    Ok(0)
}

impl Handler for App {
    async fn handle(&self, request: Request<Incoming>, ends: Ends) -> Response<Body> {
        if grpc::is_grpc(request.headers()) {
            return grpc::answer(self, request, ends).await;
        }
        match request.uri().path() {
            "/healthz" | "/readyz" => respond(StatusCode::OK, "text/plain; charset=utf-8", "ok\n"),
            "/metrics" => respond(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", self.metrics.render(&self.config)),
            _ => answer::answer(self, request, ends).await,
        }
    }
}

#[cfg(test)]
mod tests;
