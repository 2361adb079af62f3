//! Metrics, access logs, spans and decision trails.

use std::collections::BTreeMap;

use http::Request;
use meshlab_proxy::{ProxyOptions, SpanKind, TrailAccess};
use meshlab_proxy_config::*;

use crate::support::*;

async fn metric(bench: &Bench, name: &str) -> String {
    until(name, || bench.proxy.metrics().lines().find(|line| line.starts_with(name)).map(str::to_owned)).await
}

#[tokio::test]
async fn fact_48_the_source_reports_istios_labels_and_histograms() {
    let upstream = Upstream::named("u").await;
    let bench = Setup::to(upstream.address).serve();
    bench.get("/").await;
    let requests = metric(&bench, "istio_requests_total").await;
    for label in [
        "reporter=\"source\"",
        "connection_security_policy=\"unknown\"",
        "destination_service=\"c.default.svc.cluster.local\"",
        "destination_service_name=\"c\"",
        "response_code=\"200\"",
        "response_flags=\"-\"",
        "request_protocol=\"http\"",
        "source_principal=\"unknown\"",
    ] {
        assert!(requests.contains(label), "{label} in {requests}");
    }
    assert_eq!(requests.matches("=\"").count(), 25);
    let metrics = bench.proxy.metrics();
    for name in ["istio_request_duration_milliseconds", "istio_request_bytes", "istio_response_bytes"] {
        assert!(metrics.contains(&format!("# TYPE {name} histogram")) && metrics.contains(&format!("{name}_bucket{{")), "{name}");
    }
}

#[tokio::test]
async fn fact_43_metrics_say_what_became_of_unknown_destinations() {
    let blocked = RouteAction::DirectResponse { status: 502, body: String::new() };
    let mut passthrough = cluster("PassthroughCluster", &[refused().await]);
    passthrough.service.name = "PassthroughCluster".into();
    let mut setup = Setup::new(vec![], vec![passthrough, cluster("c", &[])]);
    setup.hosts = vec![
        virtual_host("known", &["known"], vec![route("known", path(PathMatch::Exact("/ok".into())), to("c").action)]),
        virtual_host("block_all", &["blocked.example"], vec![route("block_all", any_path(), blocked)]),
        virtual_host("allow_any", &["*"], vec![route("allow_any", any_path(), to("PassthroughCluster").action)]),
    ];
    let bench = setup.serve();
    for (host, path, status, service, name) in [
        ("blocked.example", "/", 502, "blocked.example", "BlackHoleCluster"),
        ("other.example", "/", 503, "other.example", "PassthroughCluster"),
        ("known", "/ok", 503, "c.default.svc.cluster.local", "c"),
        ("known", "/missing", 404, "known", "known"),
    ] {
        assert_eq!(bench.send(Request::get(path).header("host", host)).await.status, status);
        let labels = [
            format!("response_code=\"{status}\""),
            format!("destination_service=\"{service}\""),
            format!("destination_service_name=\"{name}\""),
        ];
        let counted = |metrics: &str| {
            let mut lines = metrics.lines().filter(|line| line.starts_with("istio_requests_total"));
            lines.any(|line| labels.iter().all(|label| line.contains(label)))
        };
        until(&labels.join(" "), || counted(&bench.proxy.metrics()).then_some(())).await;
    }
}

#[tokio::test]
async fn metrics_can_be_switched_off_and_their_labels_changed() {
    let upstream = Upstream::named("u").await;
    let mut setup = Setup::to(upstream.address);
    let tags = BTreeMap::from([
        ("request_host".to_owned(), Some("request.host".to_owned())),
        ("source_app".to_owned(), None),
        ("fixed".to_owned(), Some("\"value\"".to_owned())),
    ]);
    setup.telemetry.metrics = vec![
        MetricOverride { metric: "REQUEST_COUNT".into(), client: Some(true), disabled: false, tags },
        MetricOverride { metric: "REQUEST_SIZE".into(), client: None, disabled: true, tags: BTreeMap::new() },
    ];
    let bench = setup.serve();
    bench.get("/").await;
    let requests = metric(&bench, "istio_requests_total").await;
    assert!(
        requests.contains("request_host=\"app\"") && requests.contains("fixed=\"value\"") && !requests.contains("source_app=")
    );
    assert!(!bench.proxy.metrics().contains("istio_request_bytes"));
}

#[tokio::test]
async fn fact_49_the_access_log_is_istios() {
    let upstream = Upstream::named("hello").await;
    let bench = Setup::to(upstream.address).serve();
    bench.send_body(Request::post("/a?b=c").header("user-agent", "test").header("x-request-id", "id-1"), "12345").await;
    let line = bench.logged("id-1").await;
    let masked = line.replace(&upstream.address.to_string(), "UPSTREAM").replace(&bench.address().to_string(), "LISTENER");
    let (_, rest) = masked.split_once("] ").unwrap();
    let fields: Vec<&str> = rest.trim_end().split(' ').collect();
    assert_eq!(fields[..10], ["\"POST", "/a?b=c", "HTTP/1.1\"", "200", "-", "via_upstream", "-", "\"-\"", "5", "5"]);
    assert_eq!(fields[12..18], ["\"-\"", "\"test\"", "\"id-1\"", "\"app\"", "\"UPSTREAM\"", "c"]);
    assert_eq!(fields[19], "LISTENER");
    assert_eq!(fields[21..], ["-", "default"]);
    assert!(line.starts_with("[20") && line[..26].ends_with("Z]"), "{line}");
}

#[tokio::test]
async fn logs_show_the_variables_of_the_container_and_not_those_of_the_process() {
    let upstream = Upstream::named("u").await;
    let environment = BTreeMap::from([("POD_NAME".to_owned(), "reviews-v1-abc".to_owned())]);
    let bench = Bench::with(ProxyOptions { admin_address: None, environment: environment.into(), ..ProxyOptions::default() });
    let mut setup = Setup::to(upstream.address);
    setup.telemetry.access_logs[0].format = LogFormat::Text("%ENVIRONMENT(POD_NAME)% %ENVIRONMENT(PATH)% end".into());
    bench.apply(setup.build());
    bench.get("/").await;
    assert_eq!(bench.logged("end").await, "reviews-v1-abc - end\n");
}

#[tokio::test]
async fn a_log_names_the_client_behind_trusted_proxies_and_the_direct_peer() {
    let upstream = Upstream::named("u").await;
    let mut setup = Setup::to(upstream.address).inbound();
    let format = "%DOWNSTREAM_REMOTE_ADDRESS% %DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%";
    setup.telemetry.access_logs = vec![AccessLog { format: LogFormat::Text(format.into()), filter: None, client: None }];
    let bench = setup.serve();
    bench.send(Request::get("/").header("x-forwarded-for", "9.9.9.9")).await;
    assert_eq!(bench.logged("9.9.9.9").await, "9.9.9.9:0 127.0.0.1\n");
}

#[tokio::test]
async fn a_log_can_be_json_and_filtered() {
    let upstream = Upstream::named("u").await;
    let mut setup = Setup::to(upstream.address);
    let fields = [
        ("status", "%RESPONSE_CODE%"),
        ("path", "%REQ(:PATH)%"),
        ("agent", "%REQ(USER-AGENT)%"),
        ("both", "%PROTOCOL% %RESPONSE_FLAGS%"),
    ];
    setup.telemetry.access_logs = vec![AccessLog {
        format: LogFormat::Json(fields.map(|(name, value)| (name.to_owned(), value.to_owned())).into()),
        filter: Some("response.code >= 400 || request.url_path.startsWith('/log')".into()),
        client: None,
    }];
    let bench = setup.serve();
    bench.get("/quiet").await;
    bench.get("/log?x").await;
    assert_eq!(bench.logged("/log").await, "{\"agent\":null,\"both\":\"HTTP/1.1 -\",\"path\":\"/log?x\",\"status\":200}\n");
    assert_eq!(bench.logs.lock().unwrap().len(), 1);
    let mut setup = Setup::to(upstream.address);
    setup.telemetry.access_logs =
        vec![AccessLog { format: LogFormat::Text("x".into()), filter: Some("size(x) > 1".into()), client: None }];
    let errors = Bench::start().proxy.apply(std::sync::Arc::new(setup.build())).unwrap_err();
    assert!(errors.0["telemetry/telemetry"].contains("is not supported here"), "{errors}");
}

fn tracing(sampling: Fraction) -> Tracing {
    Tracing {
        sampling,
        cluster: "zipkin".into(),
        exporter: SpanExporter::Zipkin,
        service_name: "app.default".into(),
        custom_tags: BTreeMap::from([("env".to_owned(), CustomTag::Literal("lab".into()))]),
    }
}

#[tokio::test]
async fn fact_50_spans_are_named_by_the_route_and_sent_to_the_collector() {
    let (upstream, zipkin) = (Upstream::named("u").await, Upstream::status(202).await);
    let mut route = to("c");
    route.operation = "reviews.default.svc.cluster.local:80/*".into();
    let mut setup = Setup::new(vec![route], vec![cluster("c", &[upstream.address]), cluster("zipkin", &[zipkin.address])]);
    setup.telemetry.tracing = Some(tracing(Fraction::ALL));
    let bench = setup.serve();
    bench.get("/").await;
    let span = until("a span", || bench.spans.lock().unwrap().first().cloned()).await;
    assert_eq!(
        (span.name.as_str(), span.kind, span.service.as_str()),
        ("reviews.default.svc.cluster.local:80/*", SpanKind::Client, "app.default")
    );
    assert_eq!(
        (span.tags["http.status_code"].as_str(), span.tags["upstream_cluster"].as_str(), span.tags["env"].as_str()),
        ("200", "c", "lab")
    );
    let seen = upstream.last();
    assert_eq!(seen.header("x-b3-traceid"), Some(format!("{:032x}", span.trace_id).as_str()));
    assert_eq!(
        (seen.header("x-b3-spanid"), seen.header("x-b3-sampled")),
        (Some(format!("{:016x}", span.span_id).as_str()), Some("1"))
    );
    until("the collector", || (zipkin.count() == 1).then_some(())).await;
    let sent = zipkin.last();
    let spans: serde_json::Value = serde_json::from_str(&sent.body).unwrap();
    assert_eq!(
        (sent.path.as_str(), spans[0]["name"].as_str()),
        ("/api/v2/spans", Some("reviews.default.svc.cluster.local:80/*"))
    );
}

#[tokio::test]
async fn fact_50_the_callers_decision_to_sample_is_kept() {
    let upstream = Upstream::named("u").await;
    let mut setup = Setup::to(upstream.address);
    setup.telemetry.tracing = Some(tracing(Fraction(0)));
    let bench = setup.serve();
    bench.get("/").await;
    assert_eq!(upstream.last().header("x-b3-sampled"), Some("0"));
    let traced = Request::get("/")
        .header("x-b3-traceid", "463ac35c9f6413ad48485a3953bb6124")
        .header("x-b3-spanid", "a2fb4a1d1a96d312")
        .header("x-b3-sampled", "1");
    bench.send(traced).await;
    let span = until("the caller's span", || bench.spans.lock().unwrap().first().cloned()).await;
    assert_eq!((span.trace_id, span.parent_id), (0x463a_c35c_9f64_13ad_4848_5a39_53bb_6124, Some(0xa2fb_4a1d_1a96_d312)));
    assert_eq!(bench.spans.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn workloads_tell_each_other_who_they_are() {
    let upstream = Upstream::named("u").await;
    let named = |workload: &str| WorkloadLabels { workload: workload.into(), namespace: "default".into(), ..Default::default() };
    let mut inner = Setup::to(upstream.address).inbound();
    inner.telemetry.workload = named("reviews-v1");
    let server = inner.serve();
    let mut outer = Setup::to(server.address());
    outer.telemetry.workload = named("sleep");
    let client = outer.serve();
    let answer = client.get("/").await;
    assert_eq!((answer.header("x-envoy-peer-metadata"), answer.header("x-envoy-decorator-operation")), (None, None));
    assert_eq!(upstream.last().header("x-envoy-peer-metadata"), None, "the application does not see it");
    let at_client = metric(&client, "istio_requests_total").await;
    assert!(
        at_client.contains("source_workload=\"sleep\"") && at_client.contains("destination_workload=\"reviews-v1\""),
        "{at_client}"
    );
    let at_server = metric(&server, "istio_requests_total").await;
    assert!(
        at_server.contains("source_workload=\"sleep\"") && at_server.contains("connection_security_policy=\"none\""),
        "{at_server}"
    );
}

fn trail_options(trail: TrailAccess) -> ProxyOptions {
    ProxyOptions { admin_address: None, trail, ..ProxyOptions::default() }
}

#[tokio::test]
async fn a_trail_tells_what_was_decided_and_why_at_every_proxy() {
    let upstream = Upstream::named("u").await;
    let allowed = TrailAccess { tokens: vec!["secret".into()], ..TrailAccess::default() };
    let server = Bench::with(trail_options(allowed.clone()));
    let mut inbound = Setup::to(upstream.address).inbound();
    inbound.http.access.allow =
        vec![Policy { origin: origin("AuthorizationPolicy", "allow-all"), dry_run: false, rules: vec![PolicyRule::default()] }];
    server.apply(inbound.build());
    let client = Bench::with(trail_options(allowed));
    let other =
        route("other", path(PathMatch::Exact("/other".into())), RouteAction::DirectResponse { status: 200, body: String::new() });
    client.apply(Setup::new(vec![other, to("c")], vec![cluster("c", &[server.address()])]).build());

    let answer = client.send(Request::get("/x").header("x-meshlab-trail", "secret")).await;
    let trail: serde_json::Value = serde_json::from_str(answer.header("x-meshlab-trail").expect("a trail")).unwrap();
    let [outbound, inbound] = &trail.as_array().unwrap()[..] else { panic!("{trail}") };
    assert_eq!(outbound["direction"], "outbound");
    assert_eq!(outbound["virtualHost"], "app");
    assert_eq!(outbound["rejected"][0]["name"], "other");
    assert_eq!(outbound["rejected"][0]["reason"], "path /x is not exactly \"/other\"");
    assert_eq!(outbound["route"]["origin"]["kind"], "VirtualService");
    assert_eq!(outbound["cluster"]["name"], "c");
    assert_eq!(outbound["endpoint"], server.address().to_string());
    assert_eq!(outbound["attempts"][0]["outcome"], "status 200");
    assert_eq!(inbound["direction"], "inbound");
    assert_eq!(inbound["policies"][0]["origin"]["name"], "allow-all");
    assert_eq!(inbound["policies"][0]["verdict"], "matched rule 0");
    assert_eq!(inbound["status"], 200);

    for request in [Request::get("/x"), Request::get("/x").header("x-meshlab-trail", "guess")] {
        let answer = client.send(request).await;
        assert_eq!(answer.header("x-meshlab-trail"), None);
        assert_eq!(upstream.last().header("x-meshlab-trail"), None);
    }
}

#[tokio::test]
async fn a_trail_names_faults_retries_and_denials() {
    let allowed = TrailAccess { anyone: true, ..TrailAccess::default() };
    let bench = Bench::with(trail_options(allowed.clone()));
    let mut route = forwarding(|forward| {
        forward.retry = Some(RetryPolicy {
            attempts: 1,
            on: vec![RetryOn::ConnectFailure],
            status_codes: Vec::new(),
            per_try_timeout_ms: 0,
            backoff_base_ms: 1,
            prefer_other_hosts: false,
        });
    });
    route.fault = Some(Fault { delay: Some(FaultDelay { delay_ms: 1, fraction: Fraction::ALL }), abort: None });
    bench.apply(Setup::new(vec![route], vec![cluster("c", &[refused().await])]).build());
    let answer = bench.send(Request::get("/").header("x-meshlab-trail", "1")).await;
    let trail: serde_json::Value = serde_json::from_str(answer.header("x-meshlab-trail").unwrap()).unwrap();
    assert_eq!(trail[0]["faults"][0], "delay 1 ms");
    assert_eq!(trail[0]["attempts"].as_array().unwrap().len(), 2);
    assert_eq!(trail[0]["attempts"][1]["outcome"], "remote connection failure: delayed connect error: Connection refused");
    assert_eq!(trail[0]["flags"], "DI,URX,UF");

    let denying = Bench::with(trail_options(allowed));
    let mut setup = Setup::to(refused().await).inbound();
    setup.http.access.allow =
        vec![Policy { origin: origin("AuthorizationPolicy", "deny-all"), dry_run: false, rules: Vec::new() }];
    denying.apply(setup.build());
    let answer = denying.send(Request::get("/").header("x-meshlab-trail", "1")).await;
    let trail: serde_json::Value = serde_json::from_str(answer.header("x-meshlab-trail").unwrap()).unwrap();
    assert_eq!(trail[0]["policies"][0]["verdict"], "has no rules: matches nothing");
    assert_eq!(trail[0]["details"], "rbac_access_denied_matched_policy[none]");
}
