//! `/proxy`: HTTP to a pod or a Service, through the API server.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use http::header::{CONNECTION, HOST, HeaderValue, UPGRADE};
use http::request::Parts;
use http::{StatusCode, Uri};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use meshlab_net::Net;
use meshlab_objects::{Reason, Status};
use serde_json::Value;

use crate::api::Upgrade;
use crate::http::{Body, Response};
use crate::rest::Call;
use crate::store::{GroupResource, Key};

/// A backend that does not answer by then is not there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// `https:web:8443`: scheme, name and port.
struct Target<'a> {
    scheme: &'a str,
    name: &'a str,
    port: &'a str,
}

impl<'a> Target<'a> {
    fn parse(text: &'a str) -> Self {
        let parts: Vec<&str> = text.split(':').collect();
        match parts.as_slice() {
            [name, port] => Self { scheme: "", name, port },
            [scheme, name, port] => Self { scheme, name, port },
            _ => Self { scheme: "", name: text, port: "" },
        }
    }
}

pub(super) async fn forward(call: Call, parts: Parts, upgrade: Upgrade, body: Body) -> Result<Response, Status> {
    let target = Target::parse(&call.path.name);
    if target.scheme == "https" {
        let message = "proxying to a backend over https is not supported; use port-forward";
        return Err(Status::new(Reason::BadRequest, message));
    }
    let address = match call.path.resource.as_str() {
        "pods" => pod_address(&call, &target)?,
        "services" => service_address(&call, &target)?,
        other => {
            let message = format!("proxying to {other} is not supported");
            return Err(Status::new(Reason::MethodNotAllowed, message));
        }
    };
    let unreachable = |why: &dyn std::fmt::Display| {
        Status::new(Reason::ServiceUnavailable, format!("error trying to reach service: dial tcp {address}: {why}"))
    };
    let node = call.api.network.host();
    let connecting = tokio::time::timeout(CONNECT_TIMEOUT, node.connect(address));
    let stream = connecting.await.map_err(|_| unreachable(&"i/o timeout"))?.map_err(|error| unreachable(&error))?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| unreachable(&error))?;
    until_stopped(&call, async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "a proxied connection ended");
        }
    });
    let mut request = http::Request::new(body);
    *request.method_mut() = parts.method;
    *request.uri_mut() = backend_uri(&call, &parts.uri)?;
    *request.headers_mut() = parts.headers;
    let host = HeaderValue::from_str(&address.to_string()).map_err(Status::internal)?;
    let headers = request.headers_mut();
    headers.insert(HOST, host);
    // The client's credentials are for this server alone.
    headers.remove(http::header::AUTHORIZATION);
    if upgrade.is_none() {
        headers.remove(CONNECTION);
        headers.remove(UPGRADE);
    }
    let mut response = sender.send_request(request).await.map_err(|error| unreachable(&error))?;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS
        && let Some(client) = upgrade
    {
        let backend = hyper::upgrade::on(&mut response);
        until_stopped(&call, async move {
            let (Ok(client), Ok(backend)) = tokio::join!(client, backend) else { return };
            // Either end may go away at any time.
            let _ = tokio::io::copy_bidirectional(&mut TokioIo::new(client), &mut TokioIo::new(backend)).await;
        });
    }
    Ok(response.map(|body| body.map_err(Into::into).boxed_unsync()))
}

/// Runs a task that ends with the server at the latest.
fn until_stopped(call: &Call, task: impl Future<Output = ()> + Send + 'static) {
    let stop = call.api.stop.clone();
    call.api.tasks.spawn(async move {
        tokio::select! {
            () = task => {}
            () = stop.cancelled() => {}
        }
    });
}

fn backend_uri(call: &Call, uri: &Uri) -> Result<Uri, Status> {
    let path = call.path.rest.as_deref().unwrap_or_default();
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    format!("/{path}{query}").parse().map_err(|error| Status::bad_request(format!("the path cannot be proxied: {error}")))
}

fn pod_address(call: &Call, target: &Target<'_>) -> Result<SocketAddr, Status> {
    let pod = call.api.store.get(&call.served.id, &Key::new(call.namespace(), target.name));
    let pod = pod.ok_or_else(|| Status::not_found("", "pods", target.name))?;
    let pod = pod.value();
    let address = pod["status"]["podIP"].as_str().and_then(|address| address.parse::<IpAddr>().ok());
    let address =
        address.ok_or_else(|| Status::new(Reason::ServiceUnavailable, "address not allowed: the pod has no address yet"))?;
    let port = if target.port.is_empty() {
        let containers = pod["spec"]["containers"].as_array().into_iter().flatten();
        let mut ports = containers.flat_map(|container| container["ports"].as_array().into_iter().flatten());
        ports.next().and_then(|port| port["containerPort"].as_u64()).and_then(|port| u16::try_from(port).ok()).unwrap_or(80)
    } else {
        target.port.parse().map_err(|_| Status::bad_request(format!("invalid port {:?}", target.port)))?
    };
    Ok(SocketAddr::new(address, port))
}

/// One of the ready endpoints of a Service, so that headless Services and those without a proxy rule work too.
fn service_address(call: &Call, target: &Target<'_>) -> Result<SocketAddr, Status> {
    let service = call.api.store.get(&call.served.id, &Key::new(call.namespace(), target.name));
    let service = service.ok_or_else(|| Status::not_found("", "services", target.name))?;
    let unavailable = |why: String| Status::new(Reason::ServiceUnavailable, why);
    let service = service.value();
    let ports = service["spec"]["ports"].as_array().into_iter().flatten();
    let matches = |port: &&Value| {
        target.port.is_empty()
            || port["name"] == target.port
            || port["port"].as_u64().is_some_and(|number| number.to_string() == target.port)
    };
    let port = ports.into_iter().find(matches);
    let port =
        port.ok_or_else(|| unavailable(format!("no service port {:?} found for service {:?}", target.port, target.name)))?;
    let name = port["name"].as_str().unwrap_or_default();
    let slices = call.api.store.list(&GroupResource::new("discovery.k8s.io", "endpointslices"), Some(call.namespace())).objects;
    for slice in slices {
        let slice = slice.value();
        if slice["metadata"]["labels"]["kubernetes.io/service-name"] != target.name {
            continue;
        }
        let mut ports = slice["ports"].as_array().into_iter().flatten();
        let Some(number) =
            ports.find(|port| port["name"].as_str().unwrap_or_default() == name).and_then(|port| port["port"].as_u64())
        else {
            continue;
        };
        for endpoint in slice["endpoints"].as_array().into_iter().flatten() {
            let address = endpoint["addresses"][0].as_str().and_then(|address| address.parse::<IpAddr>().ok());
            let ready = endpoint["conditions"]["ready"].as_bool().unwrap_or(true);
            if let (Some(address), true, Ok(number)) = (address, ready, u16::try_from(number)) {
                return Ok(SocketAddr::new(address, number));
            }
        }
    }
    Err(unavailable(format!("no endpoints available for service {:?}", target.name)))
}
