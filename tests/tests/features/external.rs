//! What lies outside the mesh: ServiceEntries, outbound policy, Sidecars, TLS of one's own.

use anyhow::Result;

use crate::world::{World, ask, client};

fn entry(name: &str, spec: &str) -> String {
    format!("---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: {name}}}\nspec: {spec}\n")
}

fn sidecar(spec: &str) -> String {
    format!("---\napiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {{name: default}}\nspec: {spec}\n")
}

const STATUS: &str = "curl -s -o /dev/null -w '%{http_code}'";

pub(crate) async fn registry_only(world: &World) -> Result<()> {
    world.all(&[client(format!("{STATUS} http://none.example.com/"), &["200"])]).await?;
    let yaml = sidecar("{outboundTrafficPolicy: {mode: REGISTRY_ONLY}}")
        + &entry("dns", "{hosts: [dns.example.com], resolution: DNS, ports: [{number: 80, name: http, protocol: HTTP}]}");
    let metrics = "curl -s http://localhost:15090/stats/prometheus | grep istio_requests_total";
    let asks = [
        client(format!("{STATUS} http://none.example.com/"), &["502"]),
        client(format!("{STATUS} http://dns.example.com/"), &["200"]),
        client(metrics, &["destination_service_name=\"BlackHoleCluster\"", "destination_service_name=\"PassthroughCluster\""]),
        client("echo hi | nc -w 2 203.0.113.40 80; echo ended", &["!101", "ended"]),
    ];
    world.feature(&yaml, &asks).await
}

pub(crate) async fn every_resolution(world: &World) -> Result<()> {
    let http = "ports: [{number: 80, name: http, protocol: HTTP}]";
    let yaml = sidecar("{outboundTrafficPolicy: {mode: REGISTRY_ONLY}}")
        + &entry("dns", &format!("{{hosts: [dns.example.com], resolution: DNS, {http}}}"))
        + &entry(
            "robin",
            &format!(
                "{{hosts: [robin.example.com], resolution: DNS_ROUND_ROBIN, {http}, endpoints: [{{address: near.example.com}}]}}"
            ),
        )
        + &entry(
            "static",
            &format!("{{hosts: [static.example.com], resolution: STATIC, {http}, endpoints: [{{address: 203.0.113.21}}]}}"),
        )
        + &entry("none", &format!("{{hosts: [none.example.com], {http}}}"))
        + &entry(
            "tcp",
            "{hosts: [tcp.example.com], addresses: [203.0.113.40/32], ports: [{number: 80, name: tcp, protocol: TCP}]}",
        )
        + &entry(
            "inside",
            &format!(
                "{{hosts: [inside.example.com], location: MESH_INTERNAL, resolution: STATIC, {http}, workloadSelector: {{labels: {{app: good}}}}}}"
            ),
        );
    // The names of those that have no address of their own lead to any address: the request's host decides.
    let by_host = |host: &str| format!("curl -s -H 'host: {host}' http://dns.example.com/");
    let asks = [
        client("curl -s http://dns.example.com/", &["server dns"]),
        client(by_host("robin.example.com"), &["server near"]),
        client(by_host("static.example.com"), &["server far"]),
        client("curl -s http://none.example.com/", &["server none"]),
        client(r"printf 'GET / HTTP/1.1\r\n\r\nbytes' | nc -w 2 203.0.113.40 80", &["101", "bytes", "!server: envoy"]),
    ];
    world.feature(&yaml, &asks).await
}

pub(crate) async fn sidecar_scoping(world: &World) -> Result<()> {
    let yaml = sidecar(
        "{workloadSelector: {labels: {app: client}}, outboundTrafficPolicy: {mode: REGISTRY_ONLY}, egress: [{hosts: [./web.feat.svc.cluster.local]}]}",
    );
    let asks = [
        client(format!("{STATUS} http://half/"), &["502"]),
        client(format!("{STATUS} http://web/"), &["200"]),
        ask("other", format!("{STATUS} http://shadow/"), &["200"]),
    ];
    world.feature(&yaml, &asks).await
}

pub(crate) async fn tls_origination(world: &World) -> Result<()> {
    let rule = |name: &str, tls: &str| {
        format!(
            "---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: {name}}}\nspec:\n  host: {name}.tls.example.com\n  workloadSelector: {{matchLabels: {{app: client}}}}\n  trafficPolicy: {{tls: {tls}}}\n"
        )
    };
    let ports = "resolution: DNS, ports: [{number: 80, targetPort: 443, name: http, protocol: HTTP}]";
    let yaml = ["a", "b", "mutual"].map(|name| entry(name, &format!("{{hosts: [{name}.tls.example.com], {ports}}}"))).concat()
        + &rule("a", "{mode: SIMPLE, credentialName: client-tls, sni: a.tls.example.com}")
        + &rule("b", "{mode: SIMPLE, credentialName: client-tls, sni: b.tls.example.com, subjectAltNames: [other.example.com]}")
        + &rule("mutual", "{mode: MUTUAL, credentialName: client-tls, sni: mutual.tls.example.com}");
    let asks = [
        client("curl -s http://a.tls.example.com/", &["server a.tls for \"a.tls.example.com\" without a certificate"]),
        client("curl -si http://b.tls.example.com/", &["503", "!server b.tls"]),
        client("curl -s http://mutual.tls.example.com/", &["server mutual.tls", "with a certificate"]),
    ];
    world.feature(&yaml, &asks).await
}

pub(crate) async fn tls_routes_by_server_name(world: &World) -> Result<()> {
    let tls = "resolution: DNS, ports: [{number: 443, name: tls, protocol: TLS}]";
    let yaml = entry("a", &format!("{{hosts: [a.tls.example.com], {tls}}}"))
        + &entry("b", &format!("{{hosts: [b.tls.example.com], {tls}}}"))
        + "---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: tls}
spec:
  hosts: [a.tls.example.com]
  tls: [{match: [{port: 443, sniHosts: [a.tls.example.com]}], route: [{destination: {host: b.tls.example.com, port: {number: 443}}}]}]
";
    let asks = [
        client("curl -sk https://a.tls.example.com/", &["server b.tls for \"a.tls.example.com\""]),
        client("curl -sk https://b.tls.example.com/", &["server b.tls for \"b.tls.example.com\""]),
    ];
    world.feature(&yaml, &asks).await
}
