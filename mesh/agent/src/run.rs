//! The agent's commands, and the life of a proxy.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use meshlab_net::Net;
use meshlab_proxy_config::{Files, Log};
use thiserror::Error;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::control_plane::ControlPlane;
use crate::environment::{Drain, Environment, EnvironmentError};
use crate::prometheus::Scrape;
use crate::redirect::{self, RedirectError, Redirector};
use crate::status_server::{Order, Port, Readiness, StatusServer, pod_address};
use crate::{certificate, discovery, local, proxy};

/// How often a draining proxy is asked whether it is idle.
const IDLE_PERIOD: Duration = Duration::from_millis(20);

/// What the agent is given by the host it runs on.
pub struct Host<N, F, R> {
    /// The network, as the proxy's user sees it.
    pub net: N,
    /// The container's files.
    pub files: F,
    /// Redirects the pod's traffic, for `istio-iptables`.
    pub redirector: R,
    /// Standard output: access logs, the agent's log, what commands print. Must not block.
    pub stdout: Arc<dyn Fn(&str) + Send + Sync>,
}

/// Why a command failed.
#[derive(Debug, Error)]
enum AgentError {
    #[error("unknown command {0:?} for \"pilot-agent\"; the commands are proxy, istio-iptables, request, wait and version")]
    Command(String),
    #[error(transparent)]
    Environment(#[from] EnvironmentError),
    #[error(transparent)]
    Redirect(#[from] RedirectError),
    #[error(transparent)]
    Local(#[from] local::LocalError),
    #[error("cannot listen on {address}: {error}")]
    Listen { address: SocketAddr, error: std::io::Error },
    #[error("{0} has ended")]
    Ended(String),
}

/// Runs a command of `pilot-agent`; `args` are those after the executable's name. Returns the exit code.
pub async fn run<N: Net, F: Files, R: Redirector>(
    host: Host<N, F, R>,
    env: &BTreeMap<String, String>,
    args: &[String],
    shutdown: CancellationToken,
) -> i32 {
    let stdout = host.stdout.clone();
    match command(host, env, args, shutdown).await {
        Ok(()) => 0,
        Err(error) => {
            stdout(&format!("Error: {error}\n"));
            1
        }
    }
}

async fn command<N: Net, F: Files, R: Redirector>(
    host: Host<N, F, R>,
    env: &BTreeMap<String, String>,
    args: &[String],
    shutdown: CancellationToken,
) -> Result<(), AgentError> {
    let (name, args) = args.split_first().map_or(("", args), |(name, args)| (name.as_str(), args));
    match name {
        "proxy" => {
            let environment = Environment::read(args, env, &host.files)?;
            live(host, environment, shutdown).await
        }
        "istio-iptables" => {
            match redirect::parse(args)? {
                Some(rules) => host.redirector.redirect(rules).await?,
                None => (host.stdout)("no traffic is redirected\n"),
            }
            Ok(())
        }
        "request" => {
            (host.stdout)(&local::request(&host.net, args).await?);
            Ok(())
        }
        "wait" => Ok(local::wait(&host.net, args).await?),
        "version" => {
            (host.stdout)(&format!("{}-meshlab\n", env!("CARGO_PKG_VERSION")));
            Ok(())
        }
        other => Err(AgentError::Command(other.to_owned())),
    }
}

/// The life of a proxy: starts it, keeps it supplied, and drains it at the end.
async fn live<N: Net, F: Files, R>(
    host: Host<N, F, R>,
    environment: Environment,
    shutdown: CancellationToken,
) -> Result<(), AgentError> {
    let Host { net, files, stdout, .. } = host;
    let sink = stdout.clone();
    let log = Log::new(move |line| sink(line)).at_level(environment.log_level);
    let environment = Arc::new(environment);
    log.info("agent", format_args!("Proxy role: {}", environment.node_id()));

    let quit = Arc::new(tokio::sync::Notify::new());
    let proxy = proxy::Running::start(net.clone(), &environment, stdout, quit.clone());
    let (ready, readiness) = watch::channel(Readiness::default());
    let ready = Arc::new(ready);
    let (orders, mut received) = mpsc::channel(4);
    let status = Arc::new(StatusServer {
        net: net.clone(),
        proxy: proxy.clone(),
        ready: readiness,
        pod: pod_address(&environment.node.ip),
        app_probers: environment.app_probers.clone(),
        scrape: environment.prometheus.as_ref().and_then(Scrape::of),
        orders,
        log: log.clone(),
    });

    let mut tasks = JoinSet::new();
    let ports = [(Port::Health, 15021), (Port::Status, environment.status_port), (Port::Metrics, 15090)];
    for (port, number) in ports.into_iter().filter(|(_, number)| *number != 0) {
        let address = SocketAddr::from(([0, 0, 0, 0], number));
        let listener = net.listen(address).await.map_err(|error| AgentError::Listen { address, error })?;
        tasks.spawn(status.clone().serve(listener, port));
    }
    supply(&mut tasks, &net, &files, &environment, &proxy, &ready, &log);

    loop {
        tokio::select! {
            () = shutdown.cancelled() => break,
            () = quit.notified() => break,
            order = received.recv() => match order {
                Some(Order::Drain) => start_draining(&proxy, &ready, &log),
                Some(Order::Quit) | None => break,
            },
            Some(ended) = tasks.join_next() => {
                let reason = ended.map_or_else(|error| error.to_string(), |()| "a listening socket".to_owned());
                return Err(AgentError::Ended(reason));
            }
        }
    }
    drain(&environment, &proxy, &ready, &log).await;
    Ok(())
}

/// Keeps the proxy supplied with certificates and configuration.
fn supply<N: Net, F: Files>(
    tasks: &mut JoinSet<()>,
    net: &N,
    files: &F,
    environment: &Arc<Environment>,
    proxy: &proxy::Running<N>,
    ready: &Arc<watch::Sender<Readiness>>,
    log: &Log,
) {
    let reach = |address: &str| ControlPlane { net: net.clone(), files: files.clone(), address: address.to_owned() };
    let seed = seed(&environment.node_id());
    tasks.spawn({
        let (ca, environment, log) = (reach(&environment.ca), environment.clone(), log.clone());
        let (proxy, ready) = (proxy.clone(), ready.clone());
        async move {
            let install = |identity| {
                proxy.set_identity(identity)?;
                ready.send_modify(|ready| ready.certificate = true);
                Ok(())
            };
            certificate::keep(ca, &environment, log, seed, install).await;
        }
    });
    tasks.spawn({
        let (control_plane, node, log) = (reach(&environment.control_plane), environment.node.clone(), log.clone());
        let (proxy, ready) = (proxy.clone(), ready.clone());
        async move {
            let apply = |config| {
                let applied = proxy.apply(config);
                ready.send_modify(|ready| ready.configuration = true);
                applied
            };
            discovery::keep(control_plane, node, log, seed.rotate_left(17), apply).await;
        }
    });
}

/// FNV-1a: proxies with different names get different seeds.
fn seed(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

fn start_draining<N: Net>(proxy: &proxy::Running<N>, ready: &watch::Sender<Readiness>, log: &Log) {
    let begun = ready.send_if_modified(|ready| !std::mem::replace(&mut ready.draining, true));
    if begun {
        log.info("agent", "Agent draining Proxy");
        proxy.start_draining();
    }
}

/// Lets the proxy finish what it serves. A proxy that was already draining is a native sidecar: its app has ended by now, so there
/// is nothing to wait for but what is still under way.
async fn drain<N: Net>(environment: &Environment, proxy: &proxy::Running<N>, ready: &watch::Sender<Readiness>, log: &Log) {
    let app_is_gone = ready.borrow().draining;
    start_draining(proxy, ready, log);
    match environment.drain {
        Drain::For(time) if app_is_gone => {
            log.info("agent", format_args!("Agent draining proxy until no connection is active, {time:?} at most"));
            // The limit is the answer to what does not end by itself.
            let _ = tokio::time::timeout(time, idle(proxy)).await;
        }
        Drain::For(time) => {
            log.info("agent", format_args!("Graceful termination period is {time:?}, starting..."));
            tokio::time::sleep(time).await;
        }
        Drain::UntilIdle(least) => {
            log.info("agent", format_args!("Agent draining proxy for at least {least:?}, then until no connection is active"));
            tokio::time::sleep(least).await;
            idle(proxy).await;
        }
    }
    log.info("agent", "Graceful termination logic ended, terminating the proxy");
}

async fn idle<N: Net>(proxy: &proxy::Running<N>) {
    while proxy.open_connections() > 0 {
        tokio::time::sleep(IDLE_PERIOD).await;
    }
}
