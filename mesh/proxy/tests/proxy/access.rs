//! Policies, tokens and external authorizers.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use meshlab_proxy_config::*;
use serde_json::json;
use tokio::net::TcpListener;

use crate::support::*;

fn exact(attribute: Attribute, values: &[&str]) -> Condition {
    let values = values.iter().map(|value| AttributeMatch::String(StringMatch::Exact((*value).into()))).collect();
    Condition { attribute, values, not_values: Vec::new() }
}

fn rule(from: Vec<AllOf>, to: Vec<AllOf>, when: AllOf) -> PolicyRule {
    PolicyRule { index: 0, from, to, when }
}

fn policy(name: &str, rules: Vec<PolicyRule>) -> Policy {
    let rules = rules.into_iter().enumerate().map(|(index, rule)| PolicyRule { index, ..rule }).collect();
    Policy { origin: origin("AuthorizationPolicy", name), dry_run: false, rules }
}

async fn guarded(access: HttpAccess) -> (Upstream, Bench) {
    let upstream = Upstream::named("u").await;
    let mut setup = Setup::to(upstream.address).inbound();
    setup.http.access = access;
    (upstream, setup.serve())
}

#[tokio::test]
async fn fact_35_an_empty_spec_denies_all_and_an_empty_rule_allows_all() {
    let (upstream, bench) = guarded(HttpAccess { allow: vec![policy("nothing", vec![])], ..HttpAccess::default() }).await;
    let answer = bench.get("/").await;
    assert_eq!((answer.status, answer.body.as_str()), (403, "RBAC: access denied"));
    assert_eq!(upstream.count(), 0);
    let line = bench.logged(" 403 - rbac_access_denied_matched_policy[none] ").await;
    assert!(line.contains(" c "), "the cluster it would have gone to: {line}");
    let (_upstream, bench) =
        guarded(HttpAccess { allow: vec![policy("all", vec![PolicyRule::default()])], ..HttpAccess::default() }).await;
    assert_eq!(bench.get("/").await.status, 200);
}

#[tokio::test]
async fn fact_36_the_parts_of_a_rule_are_anded_and_its_values_and_rules_are_ored() {
    let reader = rule(
        vec![],
        vec![vec![exact(Attribute::Method, &["GET", "HEAD"]), exact(Attribute::Path, &["/a", "/b"])]],
        vec![exact(Attribute::Header("x-team".into()), &["one"])],
    );
    let admin = rule(vec![], vec![], vec![exact(Attribute::Header("x-team".into()), &["admin"])]);
    let (_upstream, bench) = guarded(HttpAccess { allow: vec![policy("p", vec![reader, admin])], ..HttpAccess::default() }).await;
    for (method, path, team, status) in [
        ("GET", "/a", "one", 200),
        ("GET", "/b?x=1", "one", 200),
        ("POST", "/a", "one", 403),
        ("GET", "/c", "one", 403),
        ("GET", "/a", "two", 403),
        ("POST", "/c", "admin", 200),
    ] {
        let request = Request::builder().method(method).uri(path).header("x-team", team);
        assert_eq!(bench.send(request).await.status, status, "{method} {path} {team}");
    }
}

#[tokio::test]
async fn fact_34_deny_goes_before_allow_and_a_dry_run_denies_nobody() {
    let all = || vec![PolicyRule::default()];
    let by_path = |path: &str| vec![rule(vec![], vec![vec![exact(Attribute::Path, &[path])]], vec![])];
    let dry = Policy { dry_run: true, ..policy("dry", all()) };
    let access = HttpAccess {
        allow: vec![policy("all", all())],
        deny: vec![dry, policy("no-admin", by_path("/admin"))],
        audit: vec![policy("audit", all())],
        ..HttpAccess::default()
    };
    let (_upstream, bench) = guarded(access).await;
    assert_eq!(bench.get("/x").await.status, 200);
    assert_eq!(bench.get("/admin").await.status, 403);
    bench.logged("rbac_access_denied_matched_policy[ns[default]-policy[no-admin]-rule[0]]").await;
    for disguise in ["/x/../admin", "/%61dmin", "/./admin"] {
        let request = format!("GET {disguise} HTTP/1.1\r\nhost: app\r\n\r\n");
        let answer = raw(bench.address(), request.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 403"), "{disguise}: {answer}");
    }
}

#[tokio::test]
async fn fact_39_a_denial_is_403_and_names_the_policy_or_none() {
    let by_path = |path: &str| vec![rule(vec![], vec![vec![exact(Attribute::Path, &[path])]], vec![])];
    let access = HttpAccess {
        allow: vec![policy("ok", by_path("/ok"))],
        deny: vec![policy("never", [by_path("/other"), by_path("/never")].concat())],
        ..HttpAccess::default()
    };
    let (upstream, bench) = guarded(access).await;
    assert_eq!(bench.get("/ok").await.status, 200);
    for (path, details) in [("/x", "none"), ("/never", "ns[default]-policy[never]-rule[1]")] {
        let answer = bench.get(path).await;
        assert_eq!((answer.status, answer.body.as_str()), (403, "RBAC: access denied"));
        assert_eq!(answer.header("content-type"), Some("text/plain"));
        bench.logged(&format!("\"GET {path} HTTP/1.1\" 403 - rbac_access_denied_matched_policy[{details}] ")).await;
    }
    assert_eq!(upstream.count(), 1);
}

#[tokio::test]
async fn fact_37_principals_never_match_plaintext_and_stars_mean_not_empty() {
    let from = |attribute: Attribute, value: StringMatch| {
        let condition = Condition { attribute, values: vec![AttributeMatch::String(value)], not_values: Vec::new() };
        HttpAccess { allow: vec![policy("p", vec![rule(vec![vec![condition]], vec![], vec![])])], ..HttpAccess::default() }
    };
    for attribute in [Attribute::Principal, Attribute::Namespace, Attribute::ServiceAccount, Attribute::RequestPrincipal] {
        let (_upstream, bench) = guarded(from(attribute.clone(), StringMatch::Present)).await;
        assert_eq!(bench.get("/").await.status, 403, "{attribute:?}");
    }
    let (_upstream, bench) = guarded(from(Attribute::Header("x-any".into()), StringMatch::Present)).await;
    assert_eq!(bench.get("/").await.status, 403);
    assert_eq!(bench.send(Request::get("/").header("x-any", "1")).await.status, 200);
    let (_upstream, bench) = guarded(from(Attribute::Path, StringMatch::Suffix("/info".into()))).await;
    assert_eq!((bench.get("/a/info").await.status, bench.get("/a/infos").await.status), (200, 403));
    let (_upstream, bench) = guarded(from(Attribute::Host, StringMatch::Exact("App.example".into()))).await;
    assert_eq!(bench.send(Request::get("/").header("host", "aPP.example")).await.status, 200);
    assert_eq!(bench.send(Request::get("/").header("host", "app.example:8080")).await.status, 403, "a port is part of the host");
}

#[tokio::test]
async fn fact_37_ip_blocks_are_the_direct_peer_and_remote_ip_blocks_who_xff_tells() {
    let block = |attribute, block: &str| {
        let values = vec![AttributeMatch::Ip(block.parse().unwrap())];
        let condition = Condition { attribute, values, not_values: Vec::new() };
        HttpAccess { allow: vec![policy("p", vec![rule(vec![vec![condition]], vec![], vec![])])], ..HttpAccess::default() }
    };
    let (_upstream, bench) = guarded(block(Attribute::SourceIp, "127.0.0.1/32")).await;
    assert_eq!(bench.send(Request::get("/").header("x-forwarded-for", "9.9.9.9")).await.status, 200);
    let (_upstream, bench) = guarded(block(Attribute::RemoteIp, "9.9.0.0/16")).await;
    assert_eq!(bench.send(Request::get("/").header("x-forwarded-for", "9.9.9.9")).await.status, 200);
    assert_eq!(bench.get("/").await.status, 403);
}

struct Issuer {
    key: EncodingKey,
    jwks: String,
}

fn issuer() -> Issuer {
    let secret = b"a secret that only the tests have, and long enough";
    let jwks = json!({ "keys": [
        { "kty": "unknown", "kid": "other" },
        { "kty": "oct", "kid": "k1", "alg": "HS256", "k": URL_SAFE_NO_PAD.encode(secret) },
    ] });
    Issuer { key: EncodingKey::from_secret(secret), jwks: jwks.to_string() }
}

impl Issuer {
    fn token(&self, claims: serde_json::Value) -> String {
        let mut header = Header::new(Algorithm::HS256);
        header.kid = Some("k1".into());
        jsonwebtoken::encode(&header, &claims, &self.key).unwrap()
    }

    fn rule(&self) -> JwtRule {
        JwtRule {
            origin: origin("RequestAuthentication", "jwt"),
            issuer: "testing@secure.istio.io".into(),
            audiences: Vec::new(),
            jwks: Some(self.jwks.clone()),
            from_headers: Vec::new(),
            from_params: Vec::new(),
            from_cookies: Vec::new(),
            output_payload_to_header: None,
            claim_to_headers: Vec::new(),
            forward_original_token: false,
            timeout_ms: 0,
        }
    }
}

fn claims() -> serde_json::Value {
    json!({ "iss": "testing@secure.istio.io", "sub": "someone", "exp": 4_685_989_700_u64, "groups": ["a", "b"], "realm": { "role": "x" } })
}

fn bearer(token: &str) -> http::request::Builder {
    Request::get("/").header("authorization", format!("Bearer {token}"))
}

#[tokio::test]
async fn fact_40_no_token_passes_a_good_one_too_and_a_bad_one_is_401() {
    let issuer = issuer();
    let (upstream, bench) = guarded(HttpAccess { jwt: vec![issuer.rule()], ..HttpAccess::default() }).await;
    assert_eq!(bench.get("/").await.status, 200);
    let good = issuer.token(claims());
    assert_eq!(bench.send(bearer(&good)).await.status, 200);
    assert_eq!(upstream.last().header("authorization"), None, "the token is taken out");
    let with = |name: &str, value: serde_json::Value| {
        let mut claims = claims();
        claims[name] = value;
        issuer.token(claims)
    };
    let forged = format!("{}AAAA", &good[..good.len() - 4]);
    for (token, body) in [
        (with("exp", json!(1)), "Jwt is expired"),
        (with("nbf", json!(4_685_989_000_u64)), "Jwt not yet valid"),
        (with("iss", json!("other")), "Jwt issuer is not configured"),
        (forged, "Jwt verification fails"),
        ("not.a-token".into(), "Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections"),
        ("a.b.c".into(), "Jwt header is an invalid Base64url encoded"),
        (good.replace(&format!(".{}.", good.split('.').nth(1).unwrap()), ".AAAA."), "Jwt payload is an invalid JSON"),
    ] {
        let answer = bench.send(bearer(&token)).await;
        assert_eq!((answer.status, answer.body.as_str()), (401, body));
        assert_eq!(answer.header("www-authenticate"), Some("Bearer realm=\"http://app/\", error=\"invalid_token\""), "{body}");
    }
    bench.logged("401 - jwt_authn_access_denied{Jwt_is_expired}").await;
    let preflight = Request::options("/").header("origin", "http://a").header("access-control-request-method", "GET");
    assert_eq!(bench.send(preflight.header("authorization", "Bearer x.y.z")).await.status, 200, "a preflight has no token");
}

#[tokio::test]
async fn fact_40_several_providers_are_alternatives_and_places_can_be_named() {
    let issuer = issuer();
    let other = JwtRule { issuer: "other".into(), ..issuer.rule() };
    let placed = JwtRule {
        from_headers: vec![("x-jwt".into(), String::new())],
        from_params: vec!["token".into()],
        from_cookies: vec!["session".into()],
        forward_original_token: true,
        output_payload_to_header: Some("x-payload".into()),
        claim_to_headers: vec![("x-sub".into(), "sub".into()), ("x-role".into(), "realm.role".into())],
        audiences: vec!["app".into()],
        ..issuer.rule()
    };
    let (_upstream, bench) = guarded(HttpAccess { jwt: vec![other, issuer.rule()], ..HttpAccess::default() }).await;
    assert_eq!(bench.send(bearer(&issuer.token(claims()))).await.status, 200);
    let (upstream, bench) = guarded(HttpAccess { jwt: vec![placed], ..HttpAccess::default() }).await;
    let mut named = claims();
    named["aud"] = json!(["app", "x"]);
    let token = issuer.token(named);
    for request in [
        Request::get("/").header("x-jwt", token.as_str()),
        Request::get(format!("/?a=1&token={token}")),
        Request::get("/").header("cookie", format!("a=b; session={token}")),
    ] {
        assert_eq!(bench.send(request.header("x-sub", "forged")).await.status, 200);
        let seen = upstream.last();
        assert_eq!((seen.header("x-sub"), seen.header("x-role")), (Some("someone"), Some("x")));
        assert_eq!(seen.header("x-payload"), token.split('.').nth(1));
        let forwarded = [seen.header("x-jwt"), seen.header("cookie"), Some(seen.path.as_str())];
        assert!(forwarded.iter().flatten().any(|place| place.contains(&token)), "forwardOriginalToken leaves it where it was");
    }
    let denied = bench.send(Request::get("/").header("x-jwt", issuer.token(claims()))).await;
    assert_eq!((denied.status, denied.body.as_str()), (403, "Audiences in Jwt are not allowed"));
    bench.send(Request::get("/").header("x-sub", "forged")).await;
    assert_eq!(upstream.last().header("x-sub"), None, "only a token can say so");
}

#[tokio::test]
async fn claims_are_seen_by_policies_and_routes() {
    let issuer = issuer();
    let principal = exact(Attribute::RequestPrincipal, &["testing@secure.istio.io/someone"]);
    let group = exact(Attribute::Claim(vec!["groups".into()]), &["b"]);
    let role = exact(Attribute::Claim(vec!["realm".into(), "role".into()]), &["x"]);
    let allowed = rule(vec![vec![principal]], vec![], vec![group, role]);
    let upstream = Upstream::named("u").await;
    let mut by_claim = any_path();
    by_claim.claims = vec![ValueMatch {
        name: "groups".into(),
        value: Some(StringMatch::Exact("a".into())),
        invert: false,
        missing_as_empty: false,
        ignore_case: false,
    }];
    let claimed = route("claimed", by_claim, RouteAction::DirectResponse { status: 200, body: "claimed".into() });
    let mut setup = Setup::new(vec![claimed, to("c")], vec![cluster("c", &[upstream.address])]).inbound();
    setup.http.access = HttpAccess { jwt: vec![issuer.rule()], allow: vec![policy("p", vec![allowed])], ..HttpAccess::default() };
    let bench = setup.serve();
    assert_eq!(bench.get("/").await.status, 403, "no token, no principal");
    assert_eq!(bench.send(bearer(&issuer.token(claims()))).await.body, "claimed");
    let mut other = claims();
    other["groups"] = json!(["b"]);
    assert_eq!(bench.send(bearer(&issuer.token(other))).await.body, "u");
}

fn authorizer(protocol: AuthorizerProtocol) -> ExternalAuthorizer {
    ExternalAuthorizer {
        cluster: "authz".into(),
        protocol,
        timeout_ms: 2000,
        fail_open: false,
        status_on_error: 0,
        path_prefix: String::new(),
        include_request_headers: vec![StringMatch::Exact("x-ext-authz".into())],
        headers_to_upstream: vec![StringMatch::Prefix("x-checked".into())],
        headers_to_downstream: Vec::new(),
        max_body_bytes: 0,
    }
}

async fn asking(provider: ExternalAuthorizer, address: std::net::SocketAddr) -> (Upstream, Bench) {
    let upstream = Upstream::named("u").await;
    let mut authz = cluster("authz", &[address]);
    if provider.protocol == AuthorizerProtocol::Grpc {
        authz.protocol = UpstreamProtocol::Http2;
    }
    let mut setup = Setup::new(vec![to("c")], vec![cluster("c", &[upstream.address]), authz]).inbound();
    let only = rule(vec![], vec![vec![exact(Attribute::Path, &["/checked"])]], vec![]);
    setup.http.access.custom = vec![CustomPolicy { policy: policy("custom", vec![only]), provider }];
    (upstream, setup.serve())
}

#[tokio::test]
async fn fact_34_a_custom_policy_asks_over_http() {
    let authz = Upstream::with(|seen, _| {
        Box::pin(async move {
            let allowed = seen.header("x-ext-authz") == Some("allow");
            let mut answer = if allowed { text(200, "") } else { text(403, "denied by ext_authz") };
            answer.headers_mut().insert("x-checked-by", "me".parse().unwrap());
            answer
        })
    })
    .await;
    let (upstream, bench) = asking(authorizer(AuthorizerProtocol::Http), authz.address).await;
    assert_eq!(bench.get("/free").await.status, 200);
    assert_eq!(authz.count(), 0, "the policy is not about this path");
    let denied = bench.get("/checked").await;
    assert_eq!((denied.status, denied.body.as_str(), denied.header("x-checked-by")), (403, "denied by ext_authz", Some("me")));
    bench.logged("403 UAEX ext_authz_denied").await;
    assert_eq!(bench.send(Request::get("/checked").header("x-ext-authz", "allow")).await.status, 200);
    assert_eq!(upstream.last().header("x-checked-by"), Some("me"));
}

#[tokio::test]
async fn fact_34_first_the_authorizer_then_the_token_then_deny_then_allow() {
    let issuer = issuer();
    let authz = Upstream::with(|seen, _| {
        let refused = seen.header("x-ext-authz") == Some("deny");
        Box::pin(async move { text(if refused { 418 } else { 200 }, "") })
    })
    .await;
    let upstream = Upstream::named("u").await;
    let when = |header: &str| vec![rule(vec![], vec![], vec![exact(Attribute::Header(header.into()), &["deny"])])];
    let principal = exact(Attribute::RequestPrincipal, &["testing@secure.istio.io/someone"]);
    let mut setup =
        Setup::new(vec![to("c")], vec![cluster("c", &[upstream.address]), cluster("authz", &[authz.address])]).inbound();
    setup.http.access = HttpAccess {
        custom: vec![CustomPolicy {
            policy: policy("custom", vec![PolicyRule::default()]),
            provider: authorizer(AuthorizerProtocol::Http),
        }],
        jwt: vec![issuer.rule()],
        deny: vec![policy("denied", when("x-deny"))],
        allow: vec![policy("allowed", vec![rule(vec![vec![principal]], vec![], vec![])])],
        ..HttpAccess::default()
    };
    let bench = setup.serve();
    // Each request breaks one rule less, from the first that is asked to the last.
    let request = |ext: &str, token: &str, deny: &str| {
        Request::get("/").header("x-ext-authz", ext).header("authorization", token).header("x-deny", deny)
    };
    assert_eq!(bench.send(request("deny", "Bearer x.y.z", "deny")).await.status, 418);
    assert_eq!(bench.send(request("", "Bearer x.y.z", "deny")).await.status, 401);
    assert_eq!(bench.send(request("", "", "deny")).await.status, 403);
    bench.logged("rbac_access_denied_matched_policy[ns[default]-policy[denied]-rule[0]]").await;
    assert_eq!(bench.send(request("", "", "")).await.status, 403);
    bench.logged("rbac_access_denied_matched_policy[none]").await;
    assert_eq!(upstream.count(), 0);
    assert_eq!(bench.send(request("", &format!("Bearer {}", issuer.token(claims())), "")).await.status, 200);
}

#[tokio::test]
async fn an_authorizer_gets_the_body_where_it_wants_it() {
    let authz = Upstream::named("yes").await;
    let provider = ExternalAuthorizer { max_body_bytes: 8, ..authorizer(AuthorizerProtocol::Http) };
    let (upstream, bench) = asking(provider, authz.address).await;
    assert_eq!(bench.send_body(Request::post("/checked"), "12345678").await.status, 200);
    assert_eq!((authz.last().body.as_str(), upstream.last().body.as_str()), ("12345678", "12345678"));
    assert_eq!(bench.send_body(Request::post("/checked"), "123456789").await.status, 413);
    assert_eq!(bench.send_body(Request::post("/free"), "123456789").await.status, 200);
}

#[tokio::test]
async fn an_authorizer_that_does_not_answer_denies_unless_it_may_fail_open() {
    let nobody = refused().await;
    let (_upstream, bench) = asking(authorizer(AuthorizerProtocol::Http), nobody).await;
    assert_eq!(bench.get("/checked").await.status, 403);
    bench.logged("403 UAEX ext_authz_error").await;
    let open = ExternalAuthorizer { fail_open: true, ..authorizer(AuthorizerProtocol::Grpc) };
    let (_upstream, bench) = asking(open, nobody).await;
    assert_eq!(bench.get("/checked").await.status, 200);
}

#[tokio::test]
async fn fact_34_a_custom_policy_asks_over_grpc() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = hyper::service::service_fn(|request: Request<hyper::body::Incoming>| async move {
                use http_body_util::BodyExt;
                assert_eq!(request.uri().path(), "/envoy.service.auth.v3.Authorization/Check");
                let body = request.into_body().collect().await.unwrap().to_bytes();
                let allowed = body.windows(5).any(|bytes| bytes == b"allow");
                // CheckResponse{status: {code}, ok_response: {headers: [{header: {key, value}}]}} or
                // {status: {code: 7}, denied_response: {status: {code: 418}, body: "no"}}.
                let message: Vec<u8> = if allowed {
                    let header = [&[0x0a, 9][..], b"x-checked", &[0x12, 3], b"yes"].concat();
                    let option = [&[0x0a, header.len() as u8][..], &header].concat();
                    let ok = [&[0x12, option.len() as u8][..], &option].concat();
                    [&[0x0a, 0, 0x1a, ok.len() as u8][..], &ok].concat()
                } else {
                    let denied = [&[0x0a, 3, 0x08, 0xa2, 0x03, 0x1a, 2][..], b"no"].concat();
                    [&[0x0a, 2, 0x08, 7, 0x12, denied.len() as u8][..], &denied].concat()
                };
                let framed = [&[0, 0, 0, 0, message.len() as u8][..], &message].concat();
                let mut trailers = HeaderMap::new();
                trailers.insert("grpc-status", "0".parse().unwrap());
                let frames = [http_body::Frame::data(bytes::Bytes::from(framed)), http_body::Frame::trailers(trailers)]
                    .map(Ok::<_, std::io::Error>);
                let body = http_body_util::StreamBody::new(futures::stream::iter(frames));
                Ok::<_, std::convert::Infallible>(
                    Response::builder().header("content-type", "application/grpc").body(body).unwrap(),
                )
            });
            let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(builder.serve_connection(TokioIo::new(stream), service));
        }
    });
    let (upstream, bench) = asking(authorizer(AuthorizerProtocol::Grpc), address).await;
    let denied = bench.get("/checked").await;
    assert_eq!((denied.status, denied.body.as_str()), (418, "no"));
    assert_eq!(bench.send(Request::get("/checked").header("x-ext-authz", "allow")).await.status, 200);
    assert_eq!(upstream.last().header("x-checked"), Some("yes"));
}
