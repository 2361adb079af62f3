//! Copies of requests whose responses nobody waits for (fact 21).

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::uri::{Authority, PathAndQuery};
use http::{HeaderMap, HeaderValue, Method, Request, Uri, Version, header};
use http_body_util::BodyExt;
use meshlab_proxy_config::UpstreamProtocol;

use super::outgoing::Outgoing;
use crate::cluster::Cluster;
use crate::cluster::breaker::Resource;
use crate::cluster::members::Choice;
use crate::http::body::RequestBody;
use crate::http::edge;

/// Sends copies to `clusters`, as soon as the whole body has been read. A body too long to be kept is not mirrored. `own` is the
/// address that this proxy has as a client: a copy is a request of its own.
pub(super) fn send(outgoing: &Outgoing, own: Option<IpAddr>, clusters: Vec<Arc<Cluster>>) {
    for cluster in clusters {
        let copy = outgoing.kept().map(|replay| replay.copy());
        let mut headers = outgoing.headers.clone();
        headers.insert(edge::ATTEMPT_COUNT, HeaderValue::from_static("1"));
        headers.insert(edge::INTERNAL, HeaderValue::from_static("true"));
        if let Some(own) = own {
            edge::append_forwarded_for(&mut headers, own);
        }
        // The copy's span is never recorded.
        if headers.contains_key("x-b3-sampled") {
            headers.insert("x-b3-sampled", HeaderValue::from_static("0"));
        }
        if let Some(context) = headers.get("traceparent").and_then(|value| value.to_str().ok())
            && let Some((sampled, _)) = context.rsplit_once('-')
            && let Ok(unsampled) = HeaderValue::from_str(&format!("{sampled}-00"))
        {
            headers.insert("traceparent", unsampled);
        }
        let (method, path, authority) = (outgoing.method.clone(), outgoing.path.clone(), outgoing.authority.clone());
        let version = outgoing.version;
        tokio::spawn(async move {
            let body = match copy {
                None => Bytes::new(),
                Some(copy) => match copy.await {
                    Ok(Some(body)) => body,
                    _ => return,
                },
            };
            if let Err(reason) = deliver(&cluster, method, &path, authority, headers, body, version).await {
                tracing::debug!(cluster = %cluster.name, %reason, "a mirrored request failed");
            }
        });
    }
}

async fn deliver(
    cluster: &Arc<Cluster>,
    method: Method,
    path: &str,
    authority: HeaderValue,
    mut headers: HeaderMap,
    body: Bytes,
    version: Version,
) -> Result<(), String> {
    cluster.warmed().await;
    cluster.stats.upstream_rq_total.increment();
    let host = cluster.choose(Choice::default()).ok_or("no healthy upstream")?;
    let _request = cluster.breaker.acquire(Resource::Requests).ok_or("overflow")?;
    let _active = host.start_request();
    let http2 = match cluster.config.protocol {
        UpstreamProtocol::Http2 => true,
        UpstreamProtocol::SameAsDownstream => version == Version::HTTP_2,
        UpstreamProtocol::Http1 | UpstreamProtocol::Tcp => false,
    };
    let mut uri = http::uri::Parts::default();
    uri.path_and_query = Some(PathAndQuery::try_from(path).map_err(|error| error.to_string())?);
    if http2 {
        uri.scheme = Some(http::uri::Scheme::HTTP);
        uri.authority = Some(Authority::try_from(authority.as_bytes()).map_err(|error| error.to_string())?);
    } else {
        headers.insert(header::HOST, authority);
    }
    let body = match body {
        body if body.is_empty() => RequestBody::Empty,
        body if headers.contains_key(header::CONTENT_LENGTH) => RequestBody::Whole(Some(body)),
        body => RequestBody::Chunked(Some(body)),
    };
    let mut request = Request::new(body);
    *request.method_mut() = method;
    *request.uri_mut() = Uri::from_parts(uri).map_err(|error| error.to_string())?;
    *request.headers_mut() = headers;
    if http2 {
        let connection = cluster.http2(&host).await.map_err(|error| format!("{error:?}"))?;
        *request.version_mut() = Version::HTTP_2;
        let response = connection.sender.clone().send_request(request).await.map_err(|error| error.to_string())?;
        cluster.stats.completed(response.status().as_u16());
        return drain(response.into_body()).await;
    }
    let mut connection = cluster.http1(&host).await.map_err(|error| format!("{error:?}"))?;
    let response = connection.sender.send_request(request).await.map_err(|error| error.to_string())?;
    cluster.stats.completed(response.status().as_u16());
    drain(response.into_body()).await?;
    cluster.release(&host, connection);
    Ok(())
}

async fn drain(mut body: hyper::body::Incoming) -> Result<(), String> {
    while let Some(frame) = body.frame().await {
        frame.map_err(|error| error.to_string())?;
    }
    Ok(())
}
