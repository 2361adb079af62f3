//! Probes: is a container started, ready, alive?

mod exec;
mod grpc;
mod http;
mod schedule;
mod tcp;

use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use meshlab_net::PodNet;
use tokio::sync::watch;
use tokio::time::Instant;

pub(crate) use exec::{ExecTarget, run as exec_in};
pub(crate) use http::get;
use schedule::Schedule;

/// Which of a container's probes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ProbeKind {
    Startup,
    Readiness,
    Liveness,
}

impl ProbeKind {
    /// As events name it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Readiness => "Readiness",
            Self::Liveness => "Liveness",
        }
    }
}

/// What a probe found, when it matters to the container's state or to somebody who reads events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ProbeReport {
    /// The success threshold is reached.
    Success,
    /// One failure, in words.
    Unhealthy(String),
    /// The failure threshold is reached.
    Failure,
}

/// Where probes go.
#[derive(Clone)]
pub(crate) struct Target {
    /// The node, from which a kubelet probes.
    pub(crate) node: PodNet,
    /// The pod's address.
    pub(crate) pod_ip: String,
    /// The container's processes, for exec probes.
    pub(crate) exec: ExecTarget,
}

/// Probes a container until dropped. Startup probes run until their first success; the others begin once `started` is true.
pub(crate) async fn run(
    kind: ProbeKind,
    probe: Probe,
    container: Container,
    target: Target,
    mut started: watch::Receiver<bool>,
    mut report: impl FnMut(ProbeReport) + Send,
) {
    if kind != ProbeKind::Startup && started.wait_for(|started| *started).await.is_err() {
        return;
    }
    let seconds =
        |value: Option<i32>, default: u64| Duration::from_secs(value.and_then(|v| u64::try_from(v).ok()).unwrap_or(default));
    let period = seconds(probe.period_seconds, 10).max(Duration::from_secs(1));
    let timeout = seconds(probe.timeout_seconds, 1).max(Duration::from_secs(1));
    let success_threshold = probe.success_threshold.unwrap_or(1).max(1);
    let failure_threshold = probe.failure_threshold.unwrap_or(3).max(1);
    tokio::time::sleep(seconds(probe.initial_delay_seconds, 0)).await;
    // A command may have effects, and liveness has no hurry.
    let eager = probe.exec.is_none() && kind != ProbeKind::Liveness && success_threshold == 1;
    let mut schedule = Schedule::new(Instant::now(), period, eager);
    let (mut successes, mut failures) = (0, 0);
    loop {
        let made = Instant::now();
        let result = attempt(&probe, &container, &target, timeout).await;
        let counts = schedule.counts_failure(made);
        let next = schedule.next(made, Instant::now(), result.is_ok());
        match result {
            Ok(()) => {
                failures = 0;
                successes += 1;
                if successes == success_threshold {
                    report(ProbeReport::Success);
                }
                if kind == ProbeKind::Startup && successes >= success_threshold {
                    return;
                }
            }
            Err(message) if counts => {
                successes = 0;
                failures += 1;
                report(ProbeReport::Unhealthy(format!("{} probe failed: {message}", kind.name())));
                if failures % failure_threshold == 0 {
                    report(ProbeReport::Failure);
                }
            }
            Err(_) => {}
        }
        tokio::time::sleep_until(next).await;
    }
}

async fn attempt(probe: &Probe, container: &Container, target: &Target, timeout: Duration) -> Result<(), String> {
    if let Some(action) = &probe.http_get {
        let get = http::get(&target.node, &target.pod_ip, container, action);
        return match tokio::time::timeout(timeout, get).await {
            Ok(result) => result,
            Err(_) => Err(format!(
                "Get {:?}: context deadline exceeded (Client.Timeout exceeded while awaiting headers)",
                http::url(&target.pod_ip, container, action)
            )),
        };
    }
    if let Some(action) = &probe.tcp_socket {
        return tcp::connect(&target.node, &target.pod_ip, container, action, timeout).await;
    }
    if let Some(action) = &probe.exec {
        let command = action.command.clone().unwrap_or_default();
        return exec::run(&target.exec, &command, timeout).await;
    }
    if let Some(action) = &probe.grpc {
        let check = grpc::check(&target.node, &target.pod_ip, action);
        return match tokio::time::timeout(timeout, check).await {
            Ok(result) => result,
            Err(_) => Err(format!("timeout: failed to connect service \"{}:{}\" within {timeout:?}", target.pod_ip, action.port)),
        };
    }
    Err("missing probe handler".to_owned())
}

/// A port by number, or by name among the container's.
fn port(port: &IntOrString, container: &Container) -> Option<u16> {
    match port {
        IntOrString::Int(number) => u16::try_from(*number).ok(),
        IntOrString::String(name) => {
            let named = container.ports.iter().flatten().find(|port| port.name.as_ref() == Some(name));
            named.map(|port| port.container_port).or_else(|| name.parse().ok()).and_then(|number| u16::try_from(number).ok())
        }
    }
}

/// Resolves and connects, with errors in the words of Go's dialer.
async fn dial(node: &PodNet, host: &str, port: u16) -> Result<meshlab_net::VirtualStream, String> {
    use meshlab_net::Net;
    let said = |error: std::io::Error| {
        let why = match error.kind() {
            std::io::ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
            std::io::ErrorKind::HostUnreachable => "connect: no route to host".to_owned(),
            _ => error.to_string(),
        };
        format!("dial tcp {host}:{port}: {why}")
    };
    let addresses = node.resolve(host).await.map_err(said)?;
    let Some(address) = addresses.first() else { return Err(format!("dial tcp: lookup {host}: no such host")) };
    node.connect((*address, port).into()).await.map_err(said)
}
