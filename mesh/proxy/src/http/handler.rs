//! What happens to a request, in Istio's order of filters: custom authorization, tokens, policies, faults, CORS, the route.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::uri::Scheme;
use http::{HeaderMap, HeaderValue, Method, Request, Response, Version, header};
use hyper::body::Incoming;
use meshlab_proxy_config::{AbortStatus, Direction};

use super::body::ClientBody;
use super::edge;
use super::exchange::{Exchange, ResponseBody, head_bytes};
use super::local_reply::LocalReply;
use super::path::normalize;
use super::server::HttpContext;
use super::upgrade;
use crate::access::{AccessInput, Denial};
use crate::flags::Flags;
use crate::listener::chain::HttpChain;
use crate::matching::{RequestView, drawn};
use crate::options::milliseconds;
use crate::route::Route;
use crate::route::action::Action;
use crate::route::cors::CorsDecision;
use crate::route::matcher::Claims;
use crate::route::redirect::RequestTarget;
use crate::router::{self, Outgoing};
use crate::stream::{HttpFacts, StreamInfo};
use crate::telemetry::{export, grpc};
use crate::trail::{self, Trail};

/// What is still to be done when the response comes.
pub(crate) struct ResponseContext {
    cors_origin: Option<HeaderValue>,
    pub(crate) stream_idle_timeout: Option<Duration>,
}

impl ResponseContext {
    /// Adds what the request's filters want on the response.
    pub(crate) fn decorate(&self, route: &Route, headers: &mut HeaderMap) {
        if let (Some(origin), Some(cors)) = (&self.cors_origin, &route.cors) {
            cors.decorate(origin, headers);
        }
    }
}

/// A request with its pseudo headers taken apart.
pub(crate) struct Received {
    pub(crate) method: Method,
    pub(crate) version: Version,
    pub(crate) authority: HeaderValue,
    /// Path and query.
    pub(crate) path: String,
    /// Without `host`.
    pub(crate) headers: HeaderMap,
}

/// Serves one request.
pub(crate) async fn handle(context: &HttpContext, request: Request<Incoming>) -> Response<ResponseBody> {
    let resolved = context.resolve();
    let proxy = &context.proxy;
    let mut exchange = Box::new(Exchange {
        info: StreamInfo::new(context.connection.clone()),
        proxy: proxy.clone(),
        telemetry: resolved.snapshot.telemetry.clone(),
        progress: None,
        span: None,
        trail: None,
        tells_peer: false,
        operation: None,
        body_unread: false,
        complete: false,
    });
    let upgrade_request = upgrade::requested(&request);
    let (mut received, mut body, client_upgrade) = match receive(request, &mut exchange, upgrade_request.is_some()) {
        Ok(received) => received,
        Err(reply) => return reply.into_response(exchange),
    };
    // What follows CONNECT never ends.
    exchange.body_unread = !body.is_empty() || received.method == Method::CONNECT;
    let settings = &resolved.http;
    let client = edge::receive(&mut received.headers, settings.config.edge, &context.connection);
    exchange.info.remote = (client != context.connection.peer.ip()).then_some(client);
    begin(&mut exchange, &received);
    if received.path == "*" {
        return LocalReply::new(404, "absolute_path_rejected").into_response(exchange);
    }
    match normalize(&received.path, settings.config.path_normalization) {
        Ok(path) => {
            if let std::borrow::Cow::Owned(path) = path {
                if let Some(http) = &mut exchange.info.http {
                    http.path.clone_from(&path);
                }
                received.path = path;
            }
        }
        Err(bad) => return LocalReply::new(400, bad.to_string()).close().into_response(exchange),
    }
    start_trail(&mut exchange, context, settings, &mut received.headers);
    learn_client(&mut exchange, &mut received.headers);

    let claims = match authorize(&mut exchange, settings, &mut received, &mut body, client).await {
        Ok(claims) => claims,
        Err(reply) => {
            // Nobody knows the claims, but the log knows the route.
            if let Ok(route) = find_route(&mut exchange, &resolved, &received, None) {
                choose_destination(&mut exchange, &resolved, &route);
                exchange.info.route = Some(route);
            }
            return reply.into_response(exchange);
        }
    };
    // Policies see the route in Envoy's log too, so it is found before they are asked; but who may not ask is not told that there is
    // none.
    let found = find_route(&mut exchange, &resolved, &received, claims.as_ref());
    let chosen = found.as_ref().ok().cloned();
    exchange.info.route.clone_from(&chosen);
    let destination = chosen.as_deref().and_then(|route| choose_destination(&mut exchange, &resolved, route));
    if let Err(denial) = check_policies(&mut exchange, settings, &received, client, claims.as_ref()) {
        return denial.into_response(exchange);
    }
    let route = match found {
        Ok(route) => route,
        Err(reply) => return reply.into_response(exchange),
    };
    export::start(&mut exchange, &mut received.headers, &route);
    if let Some(reply) = inject_fault(&mut exchange, &route).await {
        return reply.into_response(exchange);
    }
    let mut cors_origin = None;
    // Envoy's filter only sees the policies of routes that forward.
    if let (Some(cors), Action::Forward(_)) = (&route.cors, &route.action) {
        match cors.decide(&received.method, &received.headers) {
            CorsDecision::Pass => {}
            CorsDecision::Allowed(origin) => cors_origin = Some(origin),
            CorsDecision::Preflight(headers) => {
                let reply = LocalReply { headers: Box::new(headers), unchanged: true, ..LocalReply::new(200, "cors_response") };
                return reply.into_response(exchange);
            }
        }
    }
    let idle = Some(settings.config.stream_idle_timeout_ms).filter(|limit| *limit > 0).map(milliseconds);
    let response_context = ResponseContext { cors_origin, stream_idle_timeout: idle };
    match &route.action {
        Action::Redirect(redirect) => {
            let authority = received.authority.to_str().unwrap_or("");
            let target = RequestTarget {
                scheme: scheme_of(&received.headers),
                authority,
                path_and_query: &received.path,
                port: context.connection.local.port(),
            };
            let location = redirect.location(&route.matcher.path, &target);
            let mut reply = LocalReply::new(redirect.status, "direct_response");
            if let Ok(location) = HeaderValue::from_str(&location) {
                reply = reply.header(header::LOCATION, location);
            }
            reply.into_response(exchange)
        }
        Action::DirectResponse { status, body } => {
            let text = String::from_utf8_lossy(body).into_owned();
            LocalReply::new(*status, "direct_response").body(text).into_response(exchange)
        }
        Action::Forward(forward) => {
            let mut upgrade = None;
            if let Some(protocol) = upgrade_request {
                let allowed =
                    protocol.to_str().is_ok_and(|name| forward.upgrades.iter().any(|allowed| allowed.eq_ignore_ascii_case(name)));
                let Some(client) = client_upgrade.filter(|_| allowed) else {
                    return LocalReply::new(403, "upgrade_failed").close().into_response(exchange);
                };
                upgrade = Some(router::UpgradeRequest { protocol, client });
            }
            if received.method == Method::CONNECT {
                return LocalReply::new(403, "upgrade_failed").close().into_response(exchange);
            }
            received.headers.remove(header::UPGRADE);
            let is_grpc = exchange.info.http.as_ref().is_some_and(|http| http.grpc);
            let scheme = if scheme_of(&received.headers) == "https" { Scheme::HTTPS } else { Scheme::HTTP };
            let mut outgoing = Outgoing::new(received, scheme, body, is_grpc);
            outgoing.upgrade = upgrade;
            let destination = destination.unwrap_or(&forward.destinations[0]);
            let target = router::Target { route: &route, forward, destination };
            router::forward(exchange, &resolved.snapshot, target, outgoing, response_context).await
        }
    }
}

/// The methods that Envoy's HTTP/1 codec knows (`allow_custom_methods` is not set); all others are malformed.
const METHODS: [&str; 34] = [
    "ACL",
    "BIND",
    "CHECKOUT",
    "CONNECT",
    "COPY",
    "DELETE",
    "GET",
    "HEAD",
    "LINK",
    "LOCK",
    "MERGE",
    "MKACTIVITY",
    "MKCALENDAR",
    "MKCOL",
    "MOVE",
    "MSEARCH",
    "NOTIFY",
    "OPTIONS",
    "PATCH",
    "POST",
    "PROPFIND",
    "PROPPATCH",
    "PURGE",
    "PUT",
    "REBIND",
    "REPORT",
    "SEARCH",
    "SOURCE",
    "SUBSCRIBE",
    "TRACE",
    "UNBIND",
    "UNLINK",
    "UNLOCK",
    "UNSUBSCRIBE",
];

/// What the parser takes and Envoy's HTTP/1 codec does not: it never becomes a request, so the log knows nothing of it.
fn malformed(request: &Request<Incoming>, exchange: &Exchange) -> Option<LocalReply> {
    let refused = |status, text: &'static str| {
        let reply = LocalReply::new(status, "http1.codec_error").body(text);
        Some(reply.flag(Flags::DOWNSTREAM_PROTOCOL_ERROR).close())
    };
    let (method, uri) = (request.method(), request.uri());
    let has_path = uri.path_and_query().is_some_and(|path| path.as_str().starts_with('/'));
    let known_target = has_path || matches!(*method, Method::CONNECT | Method::OPTIONS);
    let host = request.headers().get(header::HOST).map_or(&[][..], HeaderValue::as_bytes);
    if !METHODS.contains(&method.as_str()) || !known_target || !host.iter().copied().all(is_authority) {
        return refused(400, "Bad Request");
    }
    // Nobody asks for HTTPS in plain text.
    if uri.scheme() == Some(&Scheme::HTTPS) && exchange.info.connection.tls.is_none() {
        return refused(403, "Forbidden");
    }
    None
}

/// What a host and its port are made of (RFC 3986 section 3.2).
fn is_authority(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@[]%".contains(&byte)
}

/// Takes a request apart, and refuses what Envoy's codec refuses.
fn receive(
    mut request: Request<Incoming>,
    exchange: &mut Exchange,
    upgrade: bool,
) -> Result<(Received, ClientBody, Option<hyper::upgrade::OnUpgrade>), LocalReply> {
    let version = request.version();
    if version < Version::HTTP_2
        && let Some(reply) = malformed(&request, exchange)
    {
        return Err(reply);
    }
    let client_upgrade = upgrade.then(|| hyper::upgrade::on(&mut request));
    let (parts, body) = request.into_parts();
    let mut headers = parts.headers;
    if version == Version::HTTP_2 {
        edge::join_cookies(&mut headers);
    }
    let host = headers.remove(header::HOST);
    let authority = match parts.uri.authority() {
        Some(authority) => HeaderValue::from_str(authority.as_str()).ok(),
        None => host,
    };
    let path = parts.uri.path_and_query().map_or("", |path| path.as_str());
    let path = if path.is_empty() && parts.method == Method::OPTIONS { "*" } else { path };
    let received = Received {
        method: parts.method,
        version,
        authority: authority.clone().unwrap_or_else(|| HeaderValue::from_static("")),
        path: path.to_owned(),
        headers,
    };
    if version < Version::HTTP_11 {
        return Err(LocalReply::new(426, "low_version").body("Upgrade Required").flag(Flags::DOWNSTREAM_PROTOCOL_ERROR).close());
    }
    if authority.is_none_or(|authority| authority.to_str().is_err()) {
        begin(exchange, &received);
        return Err(LocalReply::new(400, "missing_host_header").close());
    }
    if received.path.is_empty() && received.method != Method::CONNECT {
        begin(exchange, &received);
        return Err(LocalReply::new(404, "missing_path_rejected").close());
    }
    Ok((received, ClientBody::new(body), client_upgrade))
}

/// Remembers what logs and metrics will say of the request.
fn begin(exchange: &mut Exchange, received: &Received) {
    let scheme = scheme_of(&received.headers);
    let info = &mut exchange.info;
    info.request_head_bytes = head_bytes(&received.headers);
    info.request_captures = exchange.telemetry.request_captures.iter().map(|name| received.headers.get(name).cloned()).collect();
    info.http = Some(HttpFacts {
        method: received.method.clone(),
        path: received.path.clone(),
        authority: String::from_utf8_lossy(received.authority.as_bytes()).into_owned(),
        scheme,
        version: received.version,
        grpc: grpc::is_grpc(&received.headers),
        request_id: received.headers.get(edge::REQUEST_ID).cloned(),
    });
}

fn scheme_of(headers: &HeaderMap) -> &'static str {
    if headers.get(edge::FORWARDED_PROTO).is_some_and(|proto| proto == "https") { "https" } else { "http" }
}

/// A decision trail for those who may have one; nobody else's request for it goes any further.
fn start_trail(exchange: &mut Exchange, context: &HttpContext, settings: &HttpChain, headers: &mut HeaderMap) {
    let Some(asked) = headers.get(trail::HEADER) else { return };
    let identity = match exchange.info.connection.direction {
        Direction::Outbound => exchange.proxy.own_identity(),
        Direction::Inbound | Direction::Gateway => context.connection.tls.as_ref().and_then(|tls| tls.principal.clone()),
    };
    if !trail::may_ask(&exchange.proxy.options.trail, asked, identity.as_deref()) {
        headers.remove(trail::HEADER);
        return;
    }
    let mut trail = Trail::new(&exchange.proxy.options.node_id, &context.connection);
    trail.chain(&context.listener, &context.chain, &settings.config.route_config);
    exchange.trail = Some(Box::new(trail));
}

/// The workload that sent the request, as its proxy tells.
fn learn_client(exchange: &mut Exchange, headers: &mut HeaderMap) {
    if exchange.info.connection.direction == Direction::Inbound {
        // The caller's proxy names the operation; it becomes the name of this side's span.
        exchange.operation = headers.remove(edge::DECORATOR).and_then(|name| name.to_str().ok().map(str::to_owned));
        headers.remove(edge::PEER_METADATA_ID);
        if let Some(told) = headers.remove(edge::PEER_METADATA) {
            exchange.info.peer = exchange.proxy.metrics.peers.decode(told.as_bytes());
            exchange.tells_peer = true;
        }
    } else {
        headers.remove(edge::PEER_METADATA_ID);
        headers.remove(edge::PEER_METADATA);
    }
}

/// External authorization, then tokens (fact 34).
async fn authorize(
    exchange: &mut Exchange,
    settings: &HttpChain,
    received: &mut Received,
    body: &mut ClientBody,
    client: IpAddr,
) -> Result<Option<Claims>, LocalReply> {
    if !settings.access.custom.is_empty() {
        let input = input(&exchange.info, received, client, None);
        if let Some(policy) = settings.access.custom_policy(&input) {
            let sent_along = policy.authorizer.buffer(body, &received.headers).await?;
            let snapshot = exchange.proxy.snapshot.load_full();
            let asked = crate::access::ext_authz::ask(
                policy,
                &snapshot,
                &exchange.info,
                &received.method,
                &received.path,
                &received.authority,
                &received.headers,
                sent_along,
            )
            .await;
            if let Some(trail) = &mut exchange.trail {
                trail.policy(&policy.origin, "CUSTOM", if asked.is_ok() { "allowed" } else { "denied" });
            }
            match asked {
                Ok(changes) => changes.apply(&mut received.headers),
                Err(reply) => return Err(reply),
            }
        }
    }
    if settings.access.jwt.is_empty() {
        return Ok(None);
    }
    let preflight = crate::route::cors::is_preflight(&received.method, &received.headers);
    if preflight {
        return Ok(None);
    }
    match settings.access.jwt.verify(&mut received.headers, &mut received.path) {
        Ok(claims) => {
            // A token in a parameter is gone from here on.
            if let Some(http) = exchange.info.http.as_mut().filter(|http| http.path != received.path) {
                http.path.clone_from(&received.path);
            }
            Ok(claims)
        }
        Err(failure) => {
            if let Some(trail) = &mut exchange.trail {
                trail.policy(&failure.origin, "JWT", failure.status.text());
            }
            let authority = received.authority.to_str().unwrap_or("");
            Err(failure.into_reply(scheme_of(&received.headers), authority, &received.path))
        }
    }
}

/// AUDIT and DENY, then ALLOW.
fn check_policies(
    exchange: &mut Exchange,
    settings: &HttpChain,
    received: &Received,
    client: IpAddr,
    claims: Option<&Claims>,
) -> Result<(), LocalReply> {
    if settings.access.rbac.is_empty() {
        return Ok(());
    }
    let verdict = settings.access.rbac.check(&input(&exchange.info, received, client, claims));
    if let Some(trail) = &mut exchange.trail {
        settings.access.rbac.explain(&input(&exchange.info, received, client, claims), trail);
    }
    match verdict {
        Ok(()) => Ok(()),
        Err(Denial { details }) => Err(LocalReply::new(403, details).body("RBAC: access denied")),
    }
}

/// What policies look at.
fn input<'a>(info: &'a StreamInfo, received: &'a Received, client: IpAddr, claims: Option<&'a Claims>) -> AccessInput<'a> {
    AccessInput {
        connection: &info.connection,
        remote: client,
        http: Some(RequestView {
            method: &received.method,
            authority: received.authority.to_str().unwrap_or(""),
            scheme: scheme_of(&received.headers),
            path_and_query: &received.path,
            headers: &received.headers,
        }),
        claims: claims.map(|claims| &**claims),
    }
}

/// The route, or Envoy's answer where there is none.
fn find_route(
    exchange: &mut Exchange,
    resolved: &super::server::Resolved,
    received: &Received,
    claims: Option<&Claims>,
) -> Result<Arc<Route>, LocalReply> {
    let not_found = || LocalReply::new(404, "route_not_found").flag(Flags::NO_ROUTE);
    let Some(table) = resolved.table.as_ref().filter(|_| received.method != Method::CONNECT) else { return Err(not_found()) };
    let authority = received.authority.to_str().unwrap_or("");
    let view = RequestView {
        method: &received.method,
        authority,
        scheme: scheme_of(&received.headers),
        path_and_query: &received.path,
        headers: &received.headers,
    };
    let host = table.virtual_host(authority);
    if let Some(trail) = &mut exchange.trail {
        trail.routes(table, host.map(|host| &**host), view, claims);
    }
    let host = host.ok_or_else(not_found)?;
    if host.config.require_tls && scheme_of(&received.headers) != "https" {
        let location = format!("https://{authority}{}", received.path);
        let mut reply = LocalReply::new(301, "direct_response");
        if let Ok(location) = HeaderValue::from_str(&location) {
            reply = reply.header(header::LOCATION, location);
        }
        return Err(reply);
    }
    host.route(view, claims).cloned().ok_or_else(not_found)
}

/// One of the route's destinations, with the cluster that it means.
fn choose_destination<'a>(
    exchange: &mut Exchange,
    resolved: &super::server::Resolved,
    route: &'a Route,
) -> Option<&'a crate::route::action::Destination> {
    let Action::Forward(forward) = &route.action else { return None };
    let destination = forward.destination();
    exchange.info.cluster = resolved.snapshot.clusters.get(&destination.cluster).cloned();
    Some(destination)
}

/// Delay, then abort, each drawn for itself (fact 20).
async fn inject_fault(exchange: &mut Exchange, route: &Route) -> Option<LocalReply> {
    let fault = route.fault.as_ref()?;
    if let Some(delay) = fault.delay.as_ref().filter(|delay| drawn(delay.fraction)) {
        exchange.info.flag(Flags::DELAY_INJECTED);
        if let Some(trail) = &mut exchange.trail {
            trail.fault(&format!("delay {} ms", delay.delay_ms));
        }
        tokio::time::sleep(milliseconds(delay.delay_ms)).await;
    }
    let abort = fault.abort.as_ref().filter(|abort| drawn(abort.fraction))?;
    let reply = match abort.status {
        AbortStatus::Http(status) => LocalReply::new(status, "fault_filter_abort"),
        AbortStatus::Grpc(status) => LocalReply {
            grpc_status: Some(status),
            // Who does not speak gRPC gets 200 too, as from Envoy.
            ..LocalReply::new(200, "fault_filter_abort")
        },
    };
    if let Some(trail) = &mut exchange.trail {
        trail.fault(&format!("abort {:?}", abort.status));
    }
    Some(reply.body("fault filter abort").flag(Flags::FAULT_INJECTED))
}

/// What every response has, whoever made it.
pub(crate) fn finish_headers(exchange: &mut Exchange, headers: &mut HeaderMap) {
    let direction = exchange.info.connection.direction;
    headers.insert(header::SERVER, edge::server_name(direction));
    if direction == Direction::Inbound {
        if exchange.tells_peer {
            headers.insert(edge::PEER_METADATA, exchange.telemetry.workload_header.clone());
            headers.insert(edge::PEER_METADATA_ID, exchange.telemetry.node_header.clone());
        }
        if let Some(route) = &exchange.info.route
            && let Some(operation) = &route.decorator
        {
            headers.insert(edge::DECORATOR, operation.clone());
        }
    }
    if let Some(trail) = exchange.trail.take() {
        headers.insert(trail::HEADER, trail.finish(&exchange.info));
    }
}
