//! Facts 1 to 23: VirtualServices.

use meshlab_proxy_config::{
    AbortStatus, CertificateSource, ChainProtocol, ClientCertificate, Fraction, PathMatch, PathRewrite, RedirectPort, RetryOn,
    RouteAction, StringMatch, TlsVersion,
};

use crate::support::*;

fn names(routes: &[meshlab_proxy_config::Route]) -> Vec<&str> {
    routes.iter().map(|route| route.name.as_str()).collect()
}

#[test]
fn fact_01_entries_become_routes_in_order_until_one_takes_all() {
    let mut mesh = Mesh::bookinfo();
    reviews_vs(
        &mut mesh,
        "
- {name: a, match: [{uri: {prefix: /x}, headers: {h: {exact: v}}}, {uri: {exact: /y}}], route: [{destination: {host: reviews}}]}
- {name: b, match: [{uri: {prefix: /}}, {uri: {prefix: /never}}], route: [{destination: {host: reviews}}]}
- {name: c, route: [{destination: {host: reviews}}]}",
    );
    let routes = mesh.routes("9080", "reviews");
    assert_eq!(names(&routes), ["a", "a", "b"]);
    // Fields of one entry are ANDed.
    assert_eq!(routes[0].matches.path, PathMatch::Prefix("/x".into()));
    assert_eq!(routes[0].matches.headers[0].value, Some(StringMatch::Exact("v".into())));
    assert!(routes[1].matches.headers.is_empty());
    assert_eq!(routes[1].origin.as_ref().unwrap().path, "spec.http[0].match[1]");
}

#[test]
fn fact_02_without_a_catch_all_nothing_is_added() {
    let mut mesh = Mesh::bookinfo();
    reviews_vs(&mut mesh, "- {match: [{uri: {exact: /y}}], route: [{destination: {host: reviews}}]}");
    assert_eq!(mesh.routes("9080", "reviews").len(), 1);
}

#[test]
fn fact_03_a_prefix_is_a_raw_prefix() {
    let mut mesh = Mesh::bookinfo();
    reviews_vs(&mut mesh, "- {match: [{uri: {prefix: /foo}, ignoreUriCase: true}], route: [{destination: {host: reviews}}]}");
    let matches = mesh.reviews().0.matches;
    assert_eq!(matches.path, PathMatch::Prefix("/foo".into()));
    assert!(matches.ignore_path_case);
}

#[test]
fn fact_04_star_means_present_and_missing_counts_as_empty() {
    let mut mesh = Mesh::bookinfo();
    reviews_vs(
        &mut mesh,
        "- {match: [{headers: {a: {regex: '*'}, b: {}}, withoutHeaders: {c: {exact: x}, d: {}}}], route: [{destination: {host: reviews}}]}",
    );
    let headers = mesh.reviews().0.matches.headers;
    let shape: Vec<_> = headers.iter().map(|h| (h.name.as_str(), h.value.is_some(), h.invert, h.missing_as_empty)).collect();
    assert_eq!(
        shape,
        [("a", false, false, false), ("b", false, false, false), ("c", true, true, true), ("d", false, true, false)]
    );
}

#[test]
fn fact_05_static_conditions_are_decided_when_compiling() {
    let mut mesh = Mesh::bookinfo();
    reviews_vs(
        &mut mesh,
        "
- {name: port, match: [{port: 1}], route: [{destination: {host: reviews}}]}
- {name: labels, match: [{sourceLabels: {app: other}}], route: [{destination: {host: reviews}}]}
- {name: namespace, match: [{sourceNamespace: other}], route: [{destination: {host: reviews}}]}
- {name: gateway, match: [{gateways: [x/y]}], route: [{destination: {host: reviews}}]}
- {name: mesh, match: [{gateways: [mesh], sourceLabels: {app: other}, uri: {prefix: /m}}], route: [{destination: {host: reviews}}]}
- {name: own, match: [{sourceLabels: {app: sleep}, sourceNamespace: default, port: 9080}], route: [{destination: {host: reviews}}]}
- {name: rest, route: [{destination: {host: reviews}}]}",
    );
    // An entry with gateways is not asked for its labels; one that holds for this client takes every request.
    assert_eq!(names(&mesh.routes("9080", "reviews")), ["mesh", "own"]);
}

#[test]
fn fact_07_gateways_omitted_are_mesh() {
    let mut mesh = Mesh::bookinfo();
    mesh.istio(
        "VirtualService",
        "default",
        "reviews",
        "{hosts: [reviews], gateways: [web], http: [{name: edge, route: [{destination: {host: ratings}}]}]}",
    );
    assert_eq!(names(&mesh.routes("9080", "reviews")), ["default"]);
    mesh.istio(
        "VirtualService",
        "default",
        "reviews",
        "{hosts: [reviews], gateways: [web, mesh], http: [{name: both, route: [{destination: {host: ratings}}]}]}",
    );
    assert_eq!(names(&mesh.routes("9080", "reviews")), ["both"]);
}

#[test]
fn fact_08_export_and_server_namespaces_limit_virtual_services() {
    let mut mesh = Mesh::bookinfo();
    mesh.istio(
        "Gateway",
        "default",
        "web",
        "{selector: {istio: ingressgateway}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ['other/*']}]}",
    );
    mesh.istio(
        "VirtualService",
        "default",
        "v",
        "{hosts: [a.com], gateways: [web], http: [{route: [{destination: {host: reviews}}]}]}",
    );
    mesh.istio(
        "VirtualService",
        "other",
        "v",
        "{hosts: [b.com], gateways: [default/web], http: [{route: [{destination: {host: reviews.default.svc.cluster.local}}]}]}",
    );
    mesh.istio(
        "VirtualService",
        "other",
        "hidden",
        "{hosts: [c.com], exportTo: [.], gateways: [default/web], http: [{route: [{destination: {host: reviews}}]}]}",
    );
    let config = mesh.ingress();
    let domains: Vec<_> = config.routes["http.8080"].virtual_hosts.iter().flat_map(|host| &host.domains).collect();
    assert_eq!(domains, ["b.com"]);
}

#[test]
fn fact_09_gateways_concatenate_and_sidecars_take_the_oldest() {
    let mut mesh = Mesh::bookinfo();
    mesh.istio(
        "Gateway",
        "default",
        "web",
        "{selector: {istio: ingressgateway}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}]}",
    );
    let spec = |name: &str, m: &str| {
        format!(
            "{{hosts: [reviews], gateways: [web, mesh], http: [{{name: {name}, {m} route: [{{destination: {{host: reviews}}}}]}}]}}"
        )
    };
    mesh.istio_at("VirtualService", "default", "young", "2026-03-02T00:00:00Z", &spec("young", "match: [{uri: {prefix: /y}}],"));
    mesh.istio_at("VirtualService", "default", "old", "2026-03-01T00:00:00Z", &spec("old", ""));
    let config = mesh.ingress();
    let host = host_of(&config, "http.8080", "reviews.default.svc.cluster.local");
    assert_eq!(names(&host.routes), ["young", "old"], "the catch-all of the older sinks");
    assert_eq!(names(&mesh.routes("9080", "reviews")), ["old"]);
}

#[test]
fn fact_10_a_service_belongs_to_the_most_specific_host() {
    let mut mesh = Mesh::bookinfo();
    mesh.istio(
        "VirtualService",
        "default",
        "all",
        "{hosts: ['*.default.svc.cluster.local'], http: [{name: all, route: [{destination: {host: ratings}}]}]}",
    );
    mesh.istio(
        "VirtualService",
        "default",
        "reviews",
        "{hosts: [reviews], http: [{name: own, match: [{uri: {prefix: /x}}], route: [{destination: {host: reviews}}]}]}",
    );
    assert_eq!(names(&mesh.routes("9080", "reviews")), ["own"]);
    assert_eq!(names(&mesh.routes("9080", "ratings")), ["all"]);
}

#[test]
fn fact_11_every_name_of_a_service_reaches_it() {
    let mut mesh = Mesh::bookinfo();
    mesh.service("other", "reviews", "10.96.1.1", "http", 9080, 9080);
    let config = mesh.sleep();
    assert!(config.routes["9080"].ignore_port_in_host);
    let own = host_of(&config, "9080", "reviews");
    for name in ["reviews", "reviews.default", "reviews.default.svc", "reviews.default.svc.cluster.local", "10.96.0.1"] {
        assert!(own.domains.iter().any(|domain| domain == name), "{name}");
    }
    let other = host_of(&config, "9080", "reviews.other");
    assert!(!other.domains.iter().any(|domain| domain == "reviews"), "a short name is one of the client's namespace");
}

#[test]
fn fact_12_weights_are_relative() {
    let mut mesh = Mesh::bookinfo();
    reviews_vs(&mut mesh, "- {route: [{destination: {host: reviews}, weight: 37}]}");
    assert_eq!(clusters_of(&mesh.reviews().0), [(REVIEWS, 1)]);
    reviews_vs(
        &mut mesh,
        "- {route: [{destination: {host: reviews}, weight: 2}, {destination: {host: ratings}, weight: 0}, {destination: {host: sleep, port: {number: 80}}, weight: 1}]}",
    );
    assert_eq!(clusters_of(&mesh.reviews().0), [(REVIEWS, 2), ("outbound|80||sleep.default.svc.cluster.local", 1)]);
}

#[test]
fn fact_13_the_destinations_port_and_subset() {
    let mut mesh = Mesh::bookinfo();
    mesh.apply("{apiVersion: v1, kind: Service, metadata: {name: two, namespace: default}, spec: {clusterIP: 10.96.0.50, ports: [{name: http-a, port: 1, protocol: TCP}, {name: http-b, port: 2, protocol: TCP}]}}");
    for (destination, cluster) in [
        ("{host: ratings, port: {number: 7}}", "outbound|7||ratings.default.svc.cluster.local"),
        ("{host: sleep}", "outbound|80||sleep.default.svc.cluster.local"),
        ("{host: two}", "outbound|9080||two.default.svc.cluster.local"),
        ("{host: reviews, subset: none}", "outbound|9080|none|reviews.default.svc.cluster.local"),
        ("{host: reviews.prod}", "outbound|9080||reviews.prod"),
    ] {
        reviews_vs(&mut mesh, &format!("- {{route: [{{destination: {destination}}}]}}"));
        assert_eq!(clusters_of(&mesh.reviews().0), [(cluster, 1)]);
    }
    // A subset that no rule has is no cluster (NC); one without pods is a cluster without endpoints (UH).
    mesh.istio("DestinationRule", "default", "reviews", "{host: reviews, subsets: [{name: empty, labels: {version: v9}}]}");
    let config = mesh.sleep();
    assert!(!config.clusters.contains_key("outbound|9080|none|reviews.default.svc.cluster.local"));
    assert!(config.endpoints["outbound|9080|empty|reviews.default.svc.cluster.local"].endpoints.is_empty());
}

#[test]
fn fact_14_rewrites_and_redirects() {
    let mut mesh = Mesh::bookinfo();
    reviews_vs(
        &mut mesh,
        "- {match: [{uri: {prefix: /a}}], rewrite: {uri: /b, authority: c}, route: [{destination: {host: reviews}}]}",
    );
    let (_, forward) = mesh.reviews();
    assert_eq!(forward.rewrite, Some(PathRewrite::Matched("/b".into())));
    assert_eq!(forward.authority_rewrite.as_deref(), Some("c"));
    let redirect = |mesh: &mut Mesh, spec: &str| {
        reviews_vs(mesh, &format!("- {{redirect: {spec}}}"));
        match mesh.routes("9080", "reviews").remove(0).action {
            RouteAction::Redirect(redirect) => redirect,
            other => panic!("{other:?}"),
        }
    };
    let plain = redirect(&mut mesh, "{uri: /new}");
    assert_eq!((plain.status, plain.path, plain.port), (301, Some(PathRewrite::Full("/new".into())), None));
    assert_eq!(redirect(&mut mesh, "{port: 80}").port, None, "the scheme's default is left out");
    assert_eq!(redirect(&mut mesh, "{port: 443, scheme: https}").port, None);
    assert_eq!(redirect(&mut mesh, "{port: 443}").port, Some(RedirectPort::Number(443)));
    assert_eq!(redirect(&mut mesh, "{derivePort: FROM_REQUEST_PORT, redirectCode: 308}").port, Some(RedirectPort::Number(9080)));
    assert_eq!(redirect(&mut mesh, "{derivePort: FROM_PROTOCOL_DEFAULT}").port, Some(RedirectPort::FromProtocol));
}

#[test]
fn fact_15_direct_responses() {
    let mut mesh = Mesh::bookinfo();
    reviews_vs(&mut mesh, "- {directResponse: {status: 418, body: {string: teapot}}}");
    let action = mesh.routes("9080", "reviews").remove(0).action;
    assert_eq!(action, RouteAction::DirectResponse { status: 418, body: "teapot".into() });
}

#[test]
fn fact_16_header_changes() {
    let mut mesh = Mesh::bookinfo();
    reviews_vs(
        &mut mesh,
        "- {headers: {request: {set: {Host: route.com, X-B: '1', x-a: '2'}, add: {x-c: '3'}, remove: [x-d, host]}}, route: [{destination: {host: reviews}, headers: {request: {set: {host: destination.com, x-a: '9'}}}}]}",
    );
    let (route, forward) = mesh.reviews();
    assert_eq!(route.request_headers.set.keys().collect::<Vec<_>>(), ["x-a", "x-b"]);
    assert_eq!(route.request_headers.remove, ["x-d"], "the authority cannot be removed");
    assert_eq!(forward.authority_rewrite.as_deref(), Some("route.com"), "of the authority the route's wins");
    assert_eq!(forward.destinations[0].request_headers.set["x-a"], "9", "of others that of a single destination");
    reviews_vs(
        &mut mesh,
        "- {headers: {request: {set: {x-a: '2'}}}, route: [{destination: {host: reviews}, weight: 1, headers: {request: {set: {x-a: '9', x-z: '1', host: d.com}}}}, {destination: {host: ratings}, weight: 1}]}",
    );
    let (_, forward) = mesh.reviews();
    assert_eq!(
        forward.destinations[0].request_headers.set.keys().collect::<Vec<_>>(),
        ["x-z"],
        "among several the route's comes last"
    );
    assert_eq!(forward.destinations[0].authority_rewrite.as_deref(), Some("d.com"));
}

#[test]
fn fact_17_retries() {
    let mut mesh = Mesh::bookinfo();
    let retry = |mesh: &mut Mesh, retries: &str| {
        reviews_vs(mesh, &format!("- {{{retries} route: [{{destination: {{host: reviews}}}}]}}"));
        mesh.reviews().1.retry
    };
    let default = retry(&mut mesh, "").unwrap();
    assert_eq!(default.attempts, 2);
    assert!(default.prefer_other_hosts && default.status_codes.is_empty());
    assert_eq!(
        default.on,
        [
            RetryOn::ConnectFailure,
            RetryOn::RefusedStream,
            RetryOn::Unavailable,
            RetryOn::Cancelled,
            RetryOn::RetriableStatusCodes
        ]
    );
    assert_eq!(retry(&mut mesh, "retries: {attempts: 0},"), None);
    let own = retry(&mut mesh, "retries: {attempts: 5, retryOn: '5xx, 429', perTryTimeout: 2s, backoff: 1s},").unwrap();
    assert_eq!((own.attempts, own.per_try_timeout_ms, own.backoff_base_ms), (5, 2000, 1000));
    assert_eq!((own.on, own.status_codes), (vec![RetryOn::ServerError, RetryOn::RetriableStatusCodes], vec![429]));
    mesh.istio(
        "DestinationRule",
        "default",
        "reviews",
        "{host: reviews, trafficPolicy: {loadBalancer: {consistentHash: {useSourceIp: true}}}}",
    );
    assert!(!retry(&mut mesh, "").unwrap().prefer_other_hosts, "a hashed request belongs to one host");
}

#[test]
fn fact_18_timeouts_are_off_by_default() {
    let mut mesh = Mesh::bookinfo();
    assert_eq!(mesh.reviews().1.timeout_ms, 0);
    reviews_vs(&mut mesh, "- {timeout: 1.5s, retries: {attempts: 1}, route: [{destination: {host: reviews}}]}");
    let (_, forward) = mesh.reviews();
    let retry = forward.retry.unwrap();
    assert_eq!((forward.timeout_ms, retry.per_try_timeout_ms, retry.backoff_base_ms), (1500, 0, 25));
}

#[test]
fn fact_19_inbound_retries_before_the_request_is_sent_but_not_for_grpc() {
    let mut mesh = Mesh::bookinfo();
    mesh.service("default", "grpc", "10.96.0.60", "grpc", 7000, 7000);
    mesh.pod("default", "grpc", &[("app", "grpc")], "10.244.0.60", true);
    let inbound = |pod: &str, table: &str| {
        forward(&mesh.compile("default", pod).config.routes[table].virtual_hosts[0].routes[0]).retry.clone()
    };
    let retry = inbound("reviews-v1", "inbound|9080||").unwrap();
    assert_eq!((retry.attempts, retry.on), (2, vec![RetryOn::ResetBeforeRequest]));
    assert_eq!(inbound("grpc", "inbound|7000||"), None);
}

#[test]
fn fact_20_faults_have_shares_of_their_own() {
    let mut mesh = Mesh::bookinfo();
    reviews_vs(
        &mut mesh,
        "- {fault: {delay: {fixedDelay: 7s, percentage: {value: 12.5}}, abort: {httpStatus: 555}}, route: [{destination: {host: reviews}}]}",
    );
    let fault = mesh.reviews().0.fault.unwrap();
    let (delay, abort) = (fault.delay.unwrap(), fault.abort.unwrap());
    assert_eq!((delay.delay_ms, delay.fraction), (7000, Fraction(125_000)));
    assert_eq!((abort.status, abort.fraction), (AbortStatus::Http(555), Fraction(0)), "unset is none");
    reviews_vs(
        &mut mesh,
        "- {fault: {abort: {grpcStatus: UNAVAILABLE, percentage: {value: 100}}}, route: [{destination: {host: reviews}}]}",
    );
    assert_eq!(mesh.reviews().0.fault.unwrap().abort.unwrap().status, AbortStatus::Grpc(14));
}

#[test]
fn fact_21_mirrors() {
    let mut mesh = Mesh::bookinfo();
    let mirrors = |mesh: &mut Mesh, spec: &str| {
        reviews_vs(mesh, &format!("- {{route: [{{destination: {{host: reviews}}}}], {spec}}}"));
        mesh.reviews().1.mirrors.into_iter().map(|mirror| (mirror.cluster, mirror.fraction)).collect::<Vec<_>>()
    };
    let ratings = "outbound|9080||ratings.default.svc.cluster.local".to_owned();
    assert_eq!(mirrors(&mut mesh, "mirror: {host: ratings}"), [(ratings.clone(), Fraction::ALL)]);
    assert_eq!(mirrors(&mut mesh, "mirror: {host: ratings}, mirrorPercentage: {value: 0}"), []);
    assert_eq!(
        mirrors(
            &mut mesh,
            "mirrors: [{destination: {host: ratings}, percentage: {value: 30}}, {destination: {host: sleep}, percentage: {value: 0}}]"
        ),
        [(ratings, Fraction(300_000))]
    );
}

#[test]
fn fact_22_unmatched_preflights_go_on_by_default() {
    let mut mesh = Mesh::bookinfo();
    let cors = |mesh: &mut Mesh, more: &str| {
        reviews_vs(
            mesh,
            &format!(
                "- {{corsPolicy: {{allowOrigins: [{{exact: 'https://a'}}], allowMethods: [GET], maxAge: 24h{more}}}, route: [{{destination: {{host: reviews}}}}]}}"
            ),
        );
        mesh.reviews().0.cors.unwrap()
    };
    let default = cors(&mut mesh, "");
    assert!(default.forward_unmatched_preflights);
    assert_eq!((default.max_age_s, default.allow_credentials), (Some(86_400), None));
    assert!(!cors(&mut mesh, ", unmatchedPreflights: IGNORE").forward_unmatched_preflights);
}

#[test]
fn fact_23_delegates() {
    let mut mesh = Mesh::bookinfo();
    reviews_vs(
        &mut mesh,
        "- {name: root, match: [{uri: {prefix: /a}}], timeout: 5s, headers: {request: {set: {x: root, y: root}}}, delegate: {name: child, namespace: other}}",
    );
    mesh.istio(
        "VirtualService",
        "other",
        "child",
        "
http:
- {name: in, match: [{uri: {prefix: /a/b}}], headers: {request: {set: {x: child}}}, route: [{destination: {host: ratings.default.svc.cluster.local}}]}
- {name: out, match: [{uri: {prefix: /c}}], route: [{destination: {host: here}}]}
- {name: rest, timeout: 1s, route: [{destination: {host: here}}]}",
    );
    let compiled = mesh.compile("default", "sleep");
    let routes = host_of(&compiled.config, "9080", "reviews").routes;
    assert_eq!(names(&routes), ["root-in", "root-rest"], "what reaches beyond the root's match is dropped");
    assert_eq!(routes[0].matches.path, PathMatch::Prefix("/a/b".into()));
    assert_eq!(routes[1].matches.path, PathMatch::Prefix("/a".into()));
    assert_eq!((forward(&routes[0]).timeout_ms, forward(&routes[1]).timeout_ms), (5000, 1000));
    assert_eq!((routes[0].request_headers.set["x"].as_str(), routes[0].request_headers.set["y"].as_str()), ("child", "root"));
    assert_eq!(clusters_of(&routes[1])[0].0, "outbound|9080||here.other.svc.cluster.local", "short names are the delegate's");
    assert_eq!(routes[0].origin.as_ref().unwrap().name, "child");
    assert!(compiled.problems.iter().any(|problem| problem.origin.path == "spec.http[1]" && problem.message.contains("dropped")));
}

#[test]
fn fact_23_a_delegate_does_not_delegate_in_turn() {
    let mut mesh = Mesh::bookinfo();
    reviews_vs(&mut mesh, "- {match: [{uri: {prefix: /a}}], delegate: {name: child}}");
    mesh.istio(
        "VirtualService",
        "default",
        "child",
        "http: [{match: [{uri: {prefix: /a/b}}], delegate: {name: grandchild}}, {name: own, route: [{destination: {host: reviews}}]}]",
    );
    mesh.istio("VirtualService", "default", "grandchild", "http: [{name: far, route: [{destination: {host: ratings}}]}]");
    let compiled = mesh.compile("default", "sleep");
    assert_eq!(names(&host_of(&compiled.config, "9080", "reviews").routes), ["own"]);
    assert!(compiled.problems.iter().any(|problem| problem.origin.path == "spec.http[0]" && problem.origin.name == "child"));
}

#[test]
fn claims_are_matched_by_path() {
    let mut mesh = Mesh::bookinfo();
    reviews_vs(
        &mut mesh,
        "- {match: [{headers: {'@request.auth.claims[group][id]': {exact: a}, '@request.auth.claims.iss': {prefix: b}}}], route: [{destination: {host: reviews}}]}",
    );
    let matches = mesh.reviews().0.matches;
    assert!(matches.headers.is_empty());
    assert_eq!(matches.claims.iter().map(|claim| claim.name.as_str()).collect::<Vec<_>>(), ["iss", "group.id"]);
}

#[test]
fn tcp_and_tls_rules_route_connections() {
    let mut mesh = Mesh::bookinfo();
    mesh.istio("VirtualService", "default", "db", "{hosts: [db], tcp: [{match: [{port: 3306}], route: [{destination: {host: db, subset: v1}, weight: 1}, {destination: {host: ratings, port: {number: 9080}}, weight: 3}]}]}");
    let config = mesh.sleep();
    let listener = &config.listeners["10.96.0.5_3306"];
    let ChainProtocol::Tcp(tcp) = &listener.filter_chains[0].protocol else { panic!("HTTP") };
    let clusters: Vec<_> = tcp.clusters.iter().map(|c| (c.cluster.as_str(), c.weight)).collect();
    assert_eq!(
        clusters,
        [("outbound|3306|v1|db.default.svc.cluster.local", 1), ("outbound|9080||ratings.default.svc.cluster.local", 3)]
    );
    assert_eq!(tcp.origin.as_ref().unwrap().path, "spec.tcp[0]");
    mesh.istio(
        "ServiceEntry",
        "default",
        "web",
        "{hosts: [a.com, b.com], ports: [{number: 443, name: tls, protocol: TLS}], resolution: DNS}",
    );
    mesh.istio("VirtualService", "default", "tls", "{hosts: [a.com], tls: [{match: [{port: 443, sniHosts: [a.com]}], route: [{destination: {host: b.com, port: {number: 443}}}]}]}");
    let config = mesh.sleep();
    let chains = &config.listeners["0.0.0.0_443"].filter_chains;
    let shape: Vec<_> = chains.iter().map(|chain| (chain.matches.server_names.join(","), tcp_cluster(chain))).collect();
    assert_eq!(shape, [("a.com".to_owned(), "outbound|443||b.com"), ("b.com".to_owned(), "outbound|443||b.com")]);
}

#[test]
fn gateways_terminate_redirect_and_pass_through() {
    let mut mesh = Mesh::bookinfo();
    mesh.apply("{apiVersion: v1, kind: Secret, metadata: {name: cert, namespace: istio-system}, data: {tls.crt: Y2VydA==, tls.key: a2V5, ca.crt: Y2E=}}");
    mesh.istio(
        "Gateway",
        "default",
        "web",
        "
selector: {istio: ingressgateway}
servers:
- {port: {number: 80, name: http, protocol: HTTP}, hosts: [a.com], tls: {httpsRedirect: true}}
- {port: {number: 443, name: https, protocol: HTTPS}, hosts: [a.com], tls: {mode: MUTUAL, credentialName: cert, minProtocolVersion: TLSV1_3}}
- {port: {number: 443, name: missing, protocol: HTTPS}, hosts: [m.com], tls: {mode: SIMPLE, credentialName: nowhere}}
- {port: {number: 443, name: through, protocol: TLS}, hosts: [b.com], tls: {mode: PASSTHROUGH}}
- {port: {number: 443, name: again, protocol: HTTPS}, hosts: [a.com], tls: {mode: SIMPLE, credentialName: cert}}",
    );
    mesh.istio(
        "VirtualService",
        "default",
        "a",
        "{hosts: [a.com], gateways: [web], http: [{route: [{destination: {host: reviews}}]}]}",
    );
    mesh.istio(
        "VirtualService",
        "default",
        "b",
        "{hosts: [b.com], gateways: [web], tls: [{match: [{sniHosts: [b.com]}], route: [{destination: {host: db}}]}]}",
    );
    let compiled = mesh.compile("istio-system", "istio-ingressgateway");
    let config = &compiled.config;
    assert!(host_of(config, "http.8080", "a.com").require_tls);
    let listener = &config.listeners["0.0.0.0_8443"];
    let names: Vec<_> =
        listener.filter_chains.iter().map(|chain| (chain.name.as_str(), chain.matches.server_names.join(","))).collect();
    assert_eq!(
        names,
        [
            ("https.443.https.web.default", "a.com".to_owned()),
            ("https.443.missing.web.default", "m.com".to_owned()),
            ("outbound|3306||db.default.svc.cluster.local", "b.com".to_owned()),
        ]
    );
    let tls = listener.filter_chains[0].tls.as_ref().unwrap();
    assert_eq!(tls.certificate, CertificateSource::Secret("kubernetes://istio-system/cert".into()));
    assert_eq!(tls.client_certificate, ClientCertificate::Required { subject_alt_names: Vec::new() });
    assert_eq!(tls.min_version, TlsVersion::V1_3);
    let secret = &config.secrets["kubernetes://istio-system/cert"];
    assert_eq!(
        (secret.certificate_chain.as_str(), secret.private_key.as_str(), secret.ca_certificates.as_str()),
        ("cert", "key", "ca")
    );
    assert!(config.secrets["kubernetes://istio-system/nowhere"].error.is_some());
    let problems: Vec<_> = compiled.problems.iter().map(|problem| problem.origin.path.as_str()).collect();
    assert_eq!(problems, ["spec.servers[2]", "spec.servers[4]"]);
}
