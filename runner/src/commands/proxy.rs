//! `proxy-status` and `proxy-config`: what istiod and the proxies say, in istioctl's tables.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use kube::Client;
use meshlab_control::istioctl::{
    ClusterFilter, EndpointFilter, ListenerFilter, RouteFilter, SyncStatus, clusters, endpoints, listeners, proxy_status, routes,
};
use meshlab_proxy_config::ProxyConfig;
use serde_json::Value;

use super::Session;
use super::dashboard::failed;
use crate::cli::{ConfigKind, Plain, ProxyConfigArgs};
use crate::error::{CommandError, Exit, Hint};
use crate::kubectl;
use crate::output::print;

/// istiod's pages, through the API server.
const ISTIOD: &str = "/api/v1/namespaces/istio-system/services/http:istiod:15014/proxy";

pub(super) async fn status(session: &Session, output: Plain) -> Result<Exit, CommandError> {
    let client = session.client().await?;
    let answer: Value = debug_page(&client, "syncz").await?;
    if output == Plain::Json {
        print(&format!("{answer:#}\n"));
        return Ok(Exit::Ok);
    }
    let mut proxies: Vec<SyncStatus> = serde_json::from_value(answer).map_err(unreadable)?;
    proxies.sort_by(|a, b| a.proxy.cmp(&b.proxy));
    print(&proxy_status(&proxies));
    Ok(Exit::Ok)
}

pub(super) async fn config(session: &Session, args: &ProxyConfigArgs) -> Result<Exit, CommandError> {
    let client = session.client().await?;
    let (pod, namespace) = pod(session, &client, args).await?;
    let config: Value = debug_page(&client, &format!("config_dump?proxyID={pod}.{namespace}")).await.map_err(|error| {
        error.with_hint(Hint::new("`meshlab proxy-status` lists the proxies; a pod without sidecar has none"))
    })?;
    if args.output == Plain::Json {
        let part = match args.kind {
            ConfigKind::Clusters => "clusters",
            ConfigKind::Listeners => "listeners",
            ConfigKind::Routes => "routes",
            ConfigKind::Endpoints => "endpoints",
        };
        print(&format!("{:#}\n", config[part]));
        return Ok(Exit::Ok);
    }
    let config: ProxyConfig = serde_json::from_value(config).map_err(unreadable)?;
    let ProxyConfigArgs { port, fqdn, subset, direction, cluster, address, name, .. } = args.clone();
    print(&match args.kind {
        ConfigKind::Clusters => clusters(&config, &ClusterFilter { fqdn, port, subset, direction }),
        ConfigKind::Listeners => listeners(&config, &ListenerFilter { address, port }),
        ConfigKind::Routes => routes(&config, &RouteFilter { name }),
        ConfigKind::Endpoints => {
            let ejected = ejected(&client, &namespace, &pod).await?;
            endpoints(&config, &ejected, &EndpointFilter { address, port, cluster })
        }
    });
    Ok(Exit::Ok)
}

async fn debug_page(client: &Client, page: &str) -> Result<Value, CommandError> {
    let request = http::Request::get(format!("{ISTIOD}/debug/{page}")).body(Vec::new());
    let request = request.map_err(|error| CommandError::failed(error.to_string()))?;
    client.request(request).await.map_err(|error| match error {
        kube::Error::Api(status) => CommandError::failed(format!("istiod: {}", status.message.trim_end())),
        other => CommandError::from(other),
    })
}

fn unreadable(error: serde_json::Error) -> CommandError {
    CommandError::failed(format!("istiod's answer cannot be read: {error}"))
        .with_hint(Hint::new("is it meshlab's own istiod, of the same version?"))
}

/// Pod and namespace of `POD[.NAMESPACE]` or `TYPE/NAME[.NAMESPACE]`.
async fn pod(session: &Session, client: &Client, args: &ProxyConfigArgs) -> Result<(String, String), CommandError> {
    let own = session.lab.file.namespaces.first().map_or("default", String::as_str);
    let (target, namespace) = match (args.pod.rsplit_once('.'), &args.namespace) {
        (_, Some(namespace)) => (args.pod.as_str(), namespace.as_str()),
        (Some((pod, namespace)), None) => (pod, namespace),
        (None, None) => (args.pod.as_str(), own),
    };
    let kubectl = kubectl::Session::new(client.clone(), Some(namespace.to_owned())).await.map_err(failed)?;
    let pod = kubectl::pod_of(&kubectl, target).await.map_err(failed)?;
    Ok((pod.name, namespace.to_owned()))
}

/// What the proxy's own outlier detection has taken out, as its admin page tells: cluster and address.
async fn ejected(client: &Client, namespace: &str, pod: &str) -> Result<BTreeSet<(String, SocketAddr)>, CommandError> {
    let command = ["curl", "-s", "http://localhost:15000/clusters?format=json"].map(str::to_owned);
    let captured = kubectl::capture(client.clone(), (namespace, pod, "istio-proxy"), &command).await.map_err(failed)?;
    let answer: Value = serde_json::from_slice(&captured.stdout).map_err(|error| {
        CommandError::failed(format!("the admin page of {pod}: {error}")).with_hint(Hint::new(captured.stderr.trim().to_owned()))
    })?;
    let mut out = BTreeSet::new();
    for cluster in answer["cluster_statuses"].as_array().into_iter().flatten() {
        for host in cluster["host_statuses"].as_array().into_iter().flatten() {
            let address = &host["address"]["socket_address"];
            let ip = address["address"].as_str().and_then(|ip| ip.parse::<IpAddr>().ok());
            let port = address["port_value"].as_u64().and_then(|port| u16::try_from(port).ok());
            if let (Some(ip), Some(port), true) = (ip, port, host["health_status"]["failed_outlier_check"] == true) {
                out.insert((cluster["name"].as_str().unwrap_or_default().to_owned(), SocketAddr::new(ip, port)));
            }
        }
    }
    Ok(out)
}
