//! `dashboard`: opens the page of an addon through a forwarded port, on the embedded cluster and on any other.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Stdio;

use meshlab_checks::Language;

use super::Session;
use crate::cli::{Addon, DashboardArgs};
use crate::error::{CommandError, Exit, Hint};
use crate::kubectl::{self, Failure, Forward, forward};
use crate::output::print;

/// Service, its port, and the path of the page: Istio's addons' own.
fn service(addon: Addon) -> (&'static str, u16, &'static str) {
    match addon {
        Addon::Prometheus => ("prometheus", 9090, "/"),
        Addon::Jaeger => ("tracing", 80, "/jaeger/search"),
        Addon::Grafana => ("grafana", 3000, "/"),
        Addon::Kiali => ("kiali", 20001, "/kiali"),
    }
}

/// The port that people know the page by.
fn usual_port(addon: Addon) -> u16 {
    match addon {
        Addon::Jaeger => 16686,
        other => service(other).1,
    }
}

pub(super) async fn run(session: &Session, args: &DashboardArgs) -> Result<Exit, CommandError> {
    let client = session.client().await?;
    let kubectl = kubectl::Session::new(client, Some("istio-system".to_owned())).await.map_err(failed)?;
    let mut opened = open(&kubectl, args).await?;
    let url = format!("http://{}{}", opened.address, service(args.name).2);
    print(&match session.language {
        Language::En => format!("{url}\nOpen until Ctrl-C.\n"),
        Language::Ja => format!("{url}\nCtrl-C で終了します。\n"),
    });
    if !args.no_browser {
        browse(&url);
    }
    tokio::select! {
        () = opened.ended() => Err(CommandError::failed("the forwarded port was closed")),
        _ = tokio::signal::ctrl_c() => Ok(Exit::Ok),
    }
}

/// On the port that was asked for; else on the usual one or, should that be taken, on a free one.
async fn open(kubectl: &kubectl::Session, args: &DashboardArgs) -> Result<Forward, CommandError> {
    let (name, port, _) = service(args.name);
    let (target, remote) = (format!("service/{name}"), port.to_string());
    let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    if let Some(port) = args.port {
        let opened = forward(kubectl, &target, at(port), &remote).await;
        return opened.map_err(|failure| failed(failure).with_hint(Hint::new("leave --port out for a free one")));
    }
    match forward(kubectl, &target, at(usual_port(args.name)), &remote).await {
        Ok(opened) => Ok(opened),
        Err(_) => forward(kubectl, &target, at(0), &remote).await.map_err(failed),
    }
}

pub(super) fn failed(failure: Failure) -> CommandError {
    CommandError::failed(failure.to_string().trim_start_matches("error: ").to_owned())
}

/// Opens a browser where there is a desktop to open one on. That it is not there is no error: the address was printed.
fn browse(url: &str) {
    let desktop = ["DISPLAY", "WAYLAND_DISPLAY"].iter().any(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()));
    let program = match () {
        () if cfg!(target_os = "macos") => "open",
        () if std::env::var_os("WSL_DISTRO_NAME").is_some() => "wslview",
        () if desktop => "xdg-open",
        () => return,
    };
    let _ = std::process::Command::new(program).arg(url).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
}
