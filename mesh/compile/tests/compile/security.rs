//! Facts 32 to 41: security.

use meshlab_proxy_config::{
    Attribute, AttributeMatch, AuthorizerProtocol, ChainProtocol, FilterChain, HttpAccess, StringMatch, TcpAccess, Transport,
    UpstreamTls,
};

use crate::support::*;

/// The chains of an inbound port of `reviews-v1`: its transport, and whether TLS is terminated.
fn inbound(mesh: &Mesh, port: u16) -> Vec<(Option<Transport>, bool)> {
    let config = mesh.compile("default", "reviews-v1").config;
    let chains = config.listeners["virtualInbound"].filter_chains.iter();
    chains
        .filter(|chain| chain.matches.destination_port == Some(port))
        .map(|chain| (chain.matches.transport, chain.tls.is_some()))
        .collect()
}

const STRICT: [(Option<Transport>, bool); 1] = [(Some(Transport::Tls), true)];
const PERMISSIVE: [(Option<Transport>, bool); 2] = [(Some(Transport::Tls), true), (Some(Transport::Raw), false)];
const DISABLE: [(Option<Transport>, bool); 1] = [(Some(Transport::Raw), false)];

fn pa(mesh: &mut Mesh, namespace: &str, name: &str, spec: &str) {
    mesh.istio("PeerAuthentication", namespace, name, spec);
}

#[test]
fn fact_32_workload_beats_namespace_beats_mesh() {
    let mut mesh = Mesh::bookinfo();
    assert_eq!(inbound(&mesh, 9080), PERMISSIVE);
    pa(&mut mesh, "istio-system", "default", "{mtls: {mode: STRICT}}");
    assert_eq!(inbound(&mesh, 9080), STRICT);
    pa(&mut mesh, "default", "default", "{mtls: {mode: DISABLE}}");
    assert_eq!(inbound(&mesh, 9080), DISABLE);
    pa(&mut mesh, "default", "default", "{mtls: {mode: UNSET}}");
    assert_eq!(inbound(&mesh, 9080), STRICT, "UNSET inherits");
    pa(
        &mut mesh,
        "default",
        "reviews",
        "{selector: {matchLabels: {app: reviews}}, mtls: {mode: PERMISSIVE}, portLevelMtls: {'9080': {mode: DISABLE}}}",
    );
    assert_eq!(inbound(&mesh, 9080), DISABLE, "by the workload's port");
    mesh.istio_at(
        "PeerAuthentication",
        "default",
        "older",
        "2025-01-01T00:00:00Z",
        "{selector: {matchLabels: {app: reviews}}, mtls: {mode: STRICT}}",
    );
    assert_eq!(inbound(&mesh, 9080), STRICT, "the oldest of a scope");
}

#[test]
fn fact_32_selectors_in_the_root_namespace_are_ignored() {
    let mut mesh = Mesh::bookinfo();
    pa(&mut mesh, "istio-system", "reviews", "{selector: {matchLabels: {app: reviews}}, mtls: {mode: STRICT}}");
    assert_eq!(inbound(&mesh, 9080), PERMISSIVE);
}

#[test]
fn fact_32_ports_are_the_workloads_own() {
    let mut mesh = Mesh::bookinfo();
    mesh.service("default", "reviews", "10.96.0.1", "http", 80, 9080);
    pa(&mut mesh, "default", "reviews", "{selector: {matchLabels: {app: reviews}}, portLevelMtls: {'80': {mode: STRICT}}}");
    assert_eq!(inbound(&mesh, 9080), PERMISSIVE);
    pa(&mut mesh, "default", "reviews", "{selector: {matchLabels: {app: reviews}}, portLevelMtls: {'9080': {mode: STRICT}}}");
    assert_eq!(inbound(&mesh, 9080), STRICT);
}

#[test]
fn fact_33_automatic_mutual_tls_is_per_endpoint() {
    let mut mesh = Mesh::bookinfo();
    let config = mesh.sleep();
    let legacy = "outbound|8000||legacy.default.svc.cluster.local";
    assert!(config.endpoints[REVIEWS].endpoints.iter().all(|endpoint| endpoint.metadata.mtls));
    assert!(!config.endpoints[legacy].endpoints[0].metadata.mtls, "no sidecar");
    assert!(matches!(config.clusters[legacy].tls, UpstreamTls::Auto(_)));
    pa(&mut mesh, "default", "reviews", "{selector: {matchLabels: {version: v1}}, mtls: {mode: DISABLE}}");
    let flags: Vec<_> = mesh.sleep().endpoints[REVIEWS].endpoints.iter().map(|endpoint| endpoint.metadata.mtls).collect();
    assert_eq!(flags, [false, true]);
}

fn access(mesh: &Mesh) -> (HttpAccess, TcpAccess) {
    let config = mesh.compile("default", "reviews-v1").config;
    let chains = &config.listeners["virtualInbound"].filter_chains;
    let http = chains.iter().find_map(|chain| match &chain.protocol {
        ChainProtocol::Http(http) => Some(http.access.clone()),
        ChainProtocol::Tcp(_) => None,
    });
    let tcp = |chain: &FilterChain| match &chain.protocol {
        ChainProtocol::Tcp(tcp) if chain.name == "virtualInbound" => Some(tcp.access.clone()),
        _ => None,
    };
    (http.unwrap(), chains.iter().find_map(tcp).unwrap())
}

fn ap(mesh: &mut Mesh, namespace: &str, name: &str, spec: &str) {
    mesh.istio("AuthorizationPolicy", namespace, name, spec);
}

#[test]
fn fact_34_policies_are_kept_apart_by_action() {
    let mut mesh = Mesh::bookinfo();
    mesh.mesh_config("{extensionProviders: [{name: ext, envoyExtAuthzHttp: {service: sleep.default.svc.cluster.local, port: 80, includeRequestHeadersInCheck: [x-a], timeout: 1s}}]}");
    for (name, spec) in [
        ("allow", "{rules: [{}]}"),
        ("deny", "{action: DENY, rules: [{}]}"),
        ("audit", "{action: AUDIT, rules: [{}]}"),
        ("custom", "{action: CUSTOM, provider: {name: ext}, rules: [{}]}"),
    ] {
        ap(&mut mesh, "default", name, spec);
    }
    let (http, tcp) = access(&mesh);
    assert_eq!((http.allow.len(), http.deny.len(), http.audit.len(), http.custom.len()), (1, 1, 1, 1));
    assert_eq!((tcp.allow.len(), tcp.deny.len(), tcp.audit.len()), (1, 2, 1), "nobody can be asked about a connection");
    let provider = &http.custom[0].provider;
    assert_eq!(provider.cluster, "outbound|80||sleep.default.svc.cluster.local");
    assert_eq!((provider.protocol, provider.timeout_ms, provider.status_on_error), (AuthorizerProtocol::Http, 1000, 403));
}

#[test]
fn fact_34_an_unknown_authorizer_denies() {
    let mut mesh = Mesh::bookinfo();
    ap(&mut mesh, "default", "custom", "{action: CUSTOM, provider: {name: nobody}, rules: [{}]}");
    let (http, _) = access(&mesh);
    assert_eq!((http.custom.len(), http.deny.len()), (0, 1));
    assert!(mesh.compile("default", "reviews-v1").problems.iter().any(|problem| problem.message.contains("nobody")));
}

#[test]
fn fact_35_empty_specs_and_the_root_namespace() {
    let mut mesh = Mesh::bookinfo();
    ap(&mut mesh, "default", "none", "{}");
    assert!(access(&mesh).0.allow[0].rules.is_empty(), "allows nothing");
    let mut mesh = Mesh::bookinfo();
    ap(&mut mesh, "istio-system", "all", "{rules: [{}]}");
    ap(&mut mesh, "other", "not-here", "{}");
    let allow = access(&mesh).0.allow;
    assert_eq!(allow.len(), 1);
    let rule = &allow[0].rules[0];
    assert!(rule.from.is_empty() && rule.to.is_empty() && rule.when.is_empty(), "allows everything");
}

#[test]
fn fact_36_within_a_rule_everything_must_hold() {
    let mut mesh = Mesh::bookinfo();
    ap(
        &mut mesh,
        "default",
        "p",
        "{selector: {matchLabels: {app: reviews}}, rules: [{from: [{source: {namespaces: [a, b], ipBlocks: [10.0.0.0/8]}}, {source: {principals: [p]}}], to: [{operation: {methods: [GET], paths: [/x*]}}], when: [{key: 'request.headers[X-A]', values: [v], notValues: [w]}]}, {}]}",
    );
    let policy = &access(&mesh).0.allow[0];
    assert_eq!(policy.rules.iter().map(|rule| rule.index).collect::<Vec<_>>(), [0, 1]);
    let rule = &policy.rules[0];
    assert_eq!(rule.from.len(), 2);
    assert_eq!(
        rule.from[0].iter().map(|condition| condition.attribute.clone()).collect::<Vec<_>>(),
        [Attribute::Namespace, Attribute::SourceIp]
    );
    assert_eq!(rule.from[0][0].values.len(), 2);
    assert_eq!(rule.when[0].attribute, Attribute::Header("x-a".into()));
    assert_eq!(rule.when[0].not_values, [AttributeMatch::String(StringMatch::Exact("w".into()))]);
}

#[test]
fn fact_37_forms_of_values() {
    let mut mesh = Mesh::bookinfo();
    mesh.mesh_config("{trustDomain: td, trustDomainAliases: [old]}");
    ap(
        &mut mesh,
        "default",
        "p",
        "{rules: [{from: [{source: {principals: ['*', 'cluster.local/ns/a/sa/b', '*/sa/c'], remoteIpBlocks: [1.2.3.4]}}], to: [{operation: {hosts: [A.com], paths: ['/a/{*}/b', '/x*', '*.png'], ports: ['80']}}]}]}",
    );
    let rule = access(&mesh).0.allow[0].rules[0].clone();
    let text = |m: StringMatch| AttributeMatch::String(m);
    assert_eq!(
        rule.from[0][0].values,
        [
            text(StringMatch::Present),
            text(StringMatch::Exact("td/ns/a/sa/b".into())),
            text(StringMatch::Exact("old/ns/a/sa/b".into())),
            text(StringMatch::Suffix("/sa/c".into())),
        ]
    );
    assert_eq!(
        (rule.from[0][1].attribute.clone(), rule.from[0][1].values.clone()),
        (Attribute::RemoteIp, vec![AttributeMatch::Ip("1.2.3.4/32".parse().unwrap())])
    );
    assert_eq!(rule.to[0][0].values, [text(StringMatch::Regex("(?i)A\\.com".into()))]);
    assert_eq!(
        rule.to[0][1].values,
        [
            AttributeMatch::PathTemplate("/a/{*}/b".into()),
            text(StringMatch::Prefix("/x".into())),
            text(StringMatch::Suffix(".png".into()))
        ]
    );
    assert_eq!(rule.to[0][2].values, [AttributeMatch::Port(80)]);
}

#[test]
fn fact_38_http_attributes_on_connections() {
    let mut mesh = Mesh::bookinfo();
    ap(&mut mesh, "default", "allow", "{rules: [{to: [{operation: {methods: [GET]}}]}, {to: [{operation: {ports: ['1']}}]}]}");
    ap(&mut mesh, "default", "deny", "{action: DENY, rules: [{to: [{operation: {methods: [GET], ports: ['2']}}]}]}");
    let (http, tcp) = access(&mesh);
    assert_eq!((http.allow[0].rules.len(), tcp.allow[0].rules.len()), (2, 1), "what allows is left out");
    assert_eq!(tcp.allow[0].rules[0].index, 1);
    let denied: Vec<_> = tcp.deny[0].rules[0].to[0].iter().map(|condition| condition.attribute.clone()).collect();
    assert_eq!(denied, [Attribute::DestinationPort], "what denies is widened");
}

#[test]
fn fact_40_request_authentication() {
    let mut mesh = Mesh::bookinfo();
    mesh.istio(
        "RequestAuthentication",
        "istio-system",
        "mesh",
        "{jwtRules: [{issuer: z, jwksUri: 'https://z/keys', forwardOriginalToken: true}]}",
    );
    mesh.istio(
        "RequestAuthentication",
        "default",
        "own",
        "{selector: {matchLabels: {app: reviews}}, jwtRules: [{issuer: a, jwks: '{}', audiences: [x], fromHeaders: [{name: X-Token, prefix: 'T '}], outputClaimToHeaders: [{header: X-Sub, claim: sub}]}]}",
    );
    assert_eq!(meshlab_compile::needed_key_sets(&mesh.sources).into_iter().collect::<Vec<_>>(), ["https://z/keys"]);
    let rules = access(&mesh).0.jwt;
    assert_eq!(rules.iter().map(|rule| rule.issuer.as_str()).collect::<Vec<_>>(), ["a", "z"]);
    assert_eq!(rules[0].from_headers, [("x-token".to_owned(), "T ".to_owned())]);
    assert!(rules[0].from_params.is_empty() && !rules[0].forward_original_token);
    assert_eq!(rules[1].from_headers, [("authorization".to_owned(), "Bearer ".to_owned())]);
    assert_eq!(rules[1].from_params, ["access_token"]);
    assert_eq!((rules[1].jwks.clone(), rules[1].forward_original_token), (None, true));
    mesh.sources.jwks.insert("https://z/keys".into(), "{\"keys\":[]}".into());
    assert_eq!(access(&mesh).0.jwt[1].jwks.as_deref(), Some("{\"keys\":[]}"));
}

#[test]
fn fact_41_identities() {
    let mut mesh = Mesh::bookinfo();
    mesh.mesh_config("{trustDomain: td}");
    let config = mesh.sleep();
    assert_eq!(config.telemetry.workload.principal, "spiffe://td/ns/default/sa/sleep");
    assert!(
        matches!(&config.clusters[REVIEWS].tls, UpstreamTls::Auto(tls) if tls.subject_alt_names == ["spiffe://td/ns/default/sa/reviews"])
    );
}
