//! VirtualServices, protocols, and what learners see of a proxy.

use anyhow::Result;

use crate::world::{PATIENCE, World, ask, client, outside};

/// A VirtualService for `web`.
fn web(http: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: web}}\nspec:\n  hosts: [web]\n  http:\n{http}"
    )
}

pub(crate) async fn every_match(world: &World) -> Result<()> {
    let matches = [
        ("exact", "{uri: {exact: /exact}}"),
        ("prefix", "{uri: {prefix: /pre}}"),
        ("regex", "{uri: {regex: '/r[0-9]+'}}"),
        ("case", "{uri: {exact: /case}, ignoreUriCase: true}"),
        ("method", "{method: {exact: DELETE}}"),
        ("header", "{headers: {x-exact: {exact: v}}}"),
        ("header-prefix", "{headers: {x-prefix: {prefix: ab}}}"),
        ("present", "{headers: {x-present: {}}}"),
        ("query", "{queryParams: {q: {regex: '[0-9]+'}}}"),
        ("authority", "{authority: {exact: web.feat}}"),
        ("scheme", "{scheme: {exact: http}, uri: {exact: /scheme}}"),
        ("port", "{port: 80, uri: {exact: /port}}"),
        ("labels", "{sourceLabels: {app: client}, uri: {exact: /labels}}"),
        ("namespace", "{sourceNamespace: feat, uri: {exact: /namespace}}"),
        ("gateways", "{gateways: [mesh], uri: {exact: /gateways}}"),
        ("without", "{withoutHeaders: {x-with: {}}, uri: {exact: /without}}"),
    ];
    let rules: String = matches
        .iter()
        .map(|(name, wanted)| {
            format!("  - {{match: [{wanted}], directResponse: {{status: 200, body: {{string: matched by {name}.}}}}}}\n")
        })
        .collect();
    let rest = "  - {directResponse: {status: 200, body: {string: matched by nothing.}}}\n";
    let by = |args: &str, name: &str| client(format!("curl -s {args}"), &[&format!("matched by {name}.")]);
    let asks = [
        by("http://web/exact", "exact"),
        by("http://web/exact/", "nothing"),
        by("http://web/prefixed", "prefix"),
        by("http://web/r42", "regex"),
        by("http://web/rx", "nothing"),
        by("http://web/CASE", "case"),
        by("-X DELETE http://web/", "method"),
        by("-H 'x-exact: v' http://web/", "header"),
        by("-H 'x-prefix: abc' http://web/", "header-prefix"),
        by("-H 'x-present: 1' http://web/", "present"),
        by("'http://web/?q=42'", "query"),
        by("'http://web/?q=x'", "nothing"),
        by("http://web.feat/", "authority"),
        by("http://web/scheme", "scheme"),
        by("http://web/port", "port"),
        by("http://web/labels", "labels"),
        by("http://web/namespace", "namespace"),
        by("http://web/gateways", "gateways"),
        by("http://web/without", "without"),
        by("-H 'x-with: 1' http://web/without", "nothing"),
        ask("other", "curl -s http://web/labels", &["matched by nothing."]),
    ];
    world.feature(&web(&format!("{rules}{rest}")), &asks).await
}

pub(crate) async fn actions(world: &World) -> Result<()> {
    let yaml = web("
  - {match: [{uri: {exact: /old}}], redirect: {uri: /moved, authority: new.example, redirectCode: 302}}
  - {match: [{uri: {prefix: /before}}], rewrite: {uri: /after, authority: renamed}, route: [{destination: {host: web}}]}
  - {match: [{uri: {exact: /teapot}}], directResponse: {status: 418, body: {string: short and stout}}}
  - match: [{uri: {exact: /headers}}]
    headers:
      request: {set: {x-set: s}, add: {x-both: two}, remove: [x-gone]}
      response: {set: {x-answer: a}}
    route: [{destination: {host: web, subset: v2}}]
");
    let headers = "curl -si -H 'x-gone: 1' -H 'x-both: one' http://web/headers";
    let asks = [
        client("curl -si http://web/old?q=1", &["302", "location: http://new.example/moved?q=1"]),
        client("curl -s http://web/before/x?q=1", &["\"path\": \"/after/x?q=1\"", "\"host\": \"renamed\""]),
        client("curl -si http://web/teapot", &["418", "short and stout"]),
        client(headers, &["\"x-set\": \"s\"", "\"x-both\": \"one,two\"", "x-answer: a", "!x-gone", "\"version\": \"v2\""]),
    ];
    world.feature(&yaml, &asks).await
}

pub(crate) async fn weights(world: &World) -> Result<()> {
    let yaml = web("
  - route:
    - {destination: {host: web, subset: v1}, weight: 50}
    - {destination: {host: web, subset: v2}, weight: 50}
");
    // 40 requests miss a half once in 10¹², and v3 was a third before.
    let many = "for i in $(seq 40); do curl -s http://web/ | grep '\"version\"'; done";
    world.feature(&yaml, &[client(many, &["v1", "v2", "!v3"])]).await
}

pub(crate) async fn delegates(world: &World) -> Result<()> {
    let root = web(
        "  - {match: [{uri: {prefix: /team}}], delegate: {name: team}}\n  - {route: [{destination: {host: web, subset: v1}}]}\n",
    );
    let team = "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: team}
spec:
  http: [{match: [{uri: {prefix: /team/a}}], route: [{destination: {host: web, subset: v2}}]}]
";
    let asks = [
        client("curl -s http://web/team/a", &["\"version\": \"v2\""]),
        client("curl -s http://web/team/b", &["\"version\": \"v1\""]),
    ];
    world.feature(&format!("{root}---{team}"), &asks).await
}

pub(crate) async fn retries_timeouts_and_faults(world: &World) -> Result<()> {
    let yaml = web("
  - match: [{uri: {prefix: /retried}}]
    retries: {attempts: 3, retryOn: 5xx, backoff: 1ms}
    route: [{destination: {host: web}}]
  - {match: [{uri: {prefix: /limited}}], timeout: 200ms, route: [{destination: {host: web}}]}
  - match: [{uri: {prefix: /aborted}}]
    fault: {abort: {httpStatus: 418, percentage: {value: 100}}}
    route: [{destination: {host: web}}]
  - match: [{uri: {prefix: /delayed}}]
    fault: {delay: {fixedDelay: 1s, percentage: {value: 100}}}
    route: [{destination: {host: web}}]
");
    let asks = [
        client("curl -s 'http://web/retried?status=503'", &["\"x-envoy-attempt-count\": \"4\""]),
        client("curl -si 'http://web/limited?delay=5s'", &["504", "upstream request timeout"]),
        client("curl -si http://web/aborted", &["418", "fault filter abort"]),
        client("curl -s -m 0.5 http://web/delayed; echo ended $?", &["ended 28"]),
        client("curl -s http://web/delayed", &["\"service\": \"web"]),
    ];
    world.feature(&yaml, &asks).await
}

pub(crate) async fn mirroring_and_cors(world: &World) -> Result<()> {
    let yaml = web("
  - match: [{uri: {prefix: /mirrored}}]
    mirror: {host: shadow}
    route: [{destination: {host: web}}]
  - corsPolicy: {allowOrigins: [{exact: 'https://a.example'}], allowMethods: [PUT], maxAge: 1h}
    route: [{destination: {host: web}}]
");
    let preflight =
        |origin: &str| format!("curl -si -X OPTIONS -H 'origin: {origin}' -H 'access-control-request-method: PUT' http://web/");
    let asks = [
        client(
            preflight("https://a.example"),
            &["access-control-allow-origin: https://a.example", "access-control-max-age: 3600"],
        ),
        client(preflight("https://b.example"), &["!access-control-allow-origin", "\"method\": \"OPTIONS\""]),
        client("curl -s http://web/mirrored", &["\"service\": \"web"]),
        ask("shadow", "curl -s http://localhost:8080/metrics", &["code=\"200\"} 1"]),
    ];
    world.feature(&yaml, &asks).await
}

pub(crate) async fn tcp_routes(world: &World) -> Result<()> {
    let yaml = "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: echo}
spec:
  hosts: [echo]
  tcp: [{match: [{port: 9000}], route: [{destination: {host: echo, subset: v2}}]}]
";
    let many = "for i in $(seq 20); do echo hi | nc -w 5 echo 9000; done";
    world.feature(yaml, &[client(many, &["v2 hi", "!v1 hi", "!v3 hi"])]).await
}

pub(crate) async fn protocols(world: &World) -> Result<()> {
    let yaml = "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: greeter}
spec:
  hosts: [greeter]
  http:
  - {match: [{headers: {end-user: {exact: broken}}}], route: [{destination: {host: greeter, subset: nowhere}}]}
  - {match: [{headers: {end-user: {exact: denied}}}], fault: {abort: {grpcStatus: PERMISSION_DENIED, percentage: {value: 100}}}, route: [{destination: {host: greeter}}]}
  - {route: [{destination: {host: greeter}}]}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: ws}
spec: {hosts: [ws.example.com], resolution: DNS, ports: [{number: 80, name: http, protocol: HTTP}]}
";
    let call = |user: &str| format!("curl -s -H 'end-user: {user}' 'http://web/?call=grpc://greeter:7070'");
    let hello = r"printf 'GET /chat HTTP/1.1\r\nHost: ws.example.com\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nto and fro' | nc -w 2 ws.example.com 80";
    let asks = [
        client("curl -s http://web/", &["\"protocol\": \"HTTP/1.1\""]),
        client("curl -s --http2-prior-knowledge -w 'by %{http_version}' http://web/", &["by 2", "\"protocol\": \"HTTP/1.1\""]),
        client("curl -s http://greeter:7070/", &["\"protocol\": \"HTTP/2.0\""]),
        client(call("somebody"), &["\"hostname\": \"web-v", "\"url\": \"grpc://greeter:7070\"", "!\"error\""]),
        client(call("broken"), &["14"]),
        client(call("denied"), &["7"]),
        client(hello, &["101 Switching Protocols", "server: envoy", "to and fro"]),
    ];
    world.feature(yaml, &asks).await
}

pub(crate) async fn protocol_detection(world: &World) -> Result<()> {
    let asks = [
        client("curl -si http://any:9999/", &["x-envoy-upstream-service-time", "\"service\": \"web"]),
        client("curl -s --http2-prior-knowledge -w 'by %{http_version}' http://any:9999/", &["by 2", "\"service\": \"web"]),
        client("(echo hello there; sleep 1) | nc -w 5 any 9998", &[" hello there"]),
    ];
    world.all(&asks).await
}

pub(crate) async fn headers_and_flags(world: &World) -> Result<()> {
    let yaml = web("
  - {match: [{uri: {prefix: /only}}], route: [{destination: {host: web}}]}
  - {match: [{uri: {prefix: /nc}}], route: [{destination: {host: web, subset: unknown}}]}
") + "
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: flags}
spec:
  selector: {istio: ingressgateway}
  servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: [flags.example.com]}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: flags}
spec: {hosts: [flags.example.com], gateways: [flags], http: [{route: [{destination: {host: web}}]}]}
";
    let seen = [
        "server: istio-envoy",
        "x-envoy-upstream-service-time: ",
        "\"x-forwarded-proto\": \"http\"",
        "\"x-forwarded-for\": \"10.244.",
        "\"x-request-id\": \"",
        "\"x-envoy-attempt-count\": \"1\"",
    ];
    let asks = [
        outside("curl -si -H 'host: flags.example.com' http://istio-ingressgateway.istio-system/", &seen),
        client("curl -si http://web/only", &["server: envoy"]),
        client("curl -si http://web/nowhere", &["404"]),
        client("curl -si http://web/nc", &["503"]),
        client("curl -si http://empty/", &["503", "no healthy upstream"]),
    ];
    world.feature(&yaml, &asks).await?;
    world.logged("client", &["404 NR route_not_found", "503 NC cluster_not_found", "503 UH no_healthy_upstream"], PATIENCE).await
}
