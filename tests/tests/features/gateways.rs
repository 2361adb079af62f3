//! Gateways, asked from outside the mesh.

use anyhow::Result;

use crate::world::{World, outside};

const GATEWAY: &str = "istio-ingressgateway.istio-system";

/// A Gateway with one server, and what its hosts are routed to.
fn gateway(server: &str, rules: &str) -> String {
    format!(
        "
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{name: edge}}
spec:
  selector: {{istio: ingressgateway}}
  servers:
{server}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: edge}}
spec:
  gateways: [edge]
{rules}
"
    )
}

/// `curl` of an https URL at the gateway.
fn https(host: &str, more: &str) -> String {
    format!("curl -s --cacert /tls/ca.crt --connect-to {host}:443:{GATEWAY}:443 {more} https://{host}/; echo ended $?")
}

pub(crate) async fn hosts_and_redirects(world: &World) -> Result<()> {
    let yaml = gateway(
        "  - {port: {number: 80, name: http, protocol: HTTP}, hosts: [shop.example.com]}
  - {port: {number: 80, name: http-secure, protocol: HTTP}, hosts: [secure.example.com], tls: {httpsRedirect: true}}",
        "  hosts: [shop.example.com, secure.example.com]\n  http: [{route: [{destination: {host: web}}]}]",
    );
    let asked = |host: &str| format!("curl -si -H 'host: {host}' http://{GATEWAY}/");
    let asks = [
        outside(asked("shop.example.com"), &["200 OK", "\"service\": \"web"]),
        outside(asked("other.example.com"), &["404 Not Found"]),
        outside(asked("secure.example.com"), &["301 Moved Permanently", "location: https://secure.example.com/"]),
    ];
    world.feature(&yaml, &asks).await
}

pub(crate) async fn simple_tls(world: &World) -> Result<()> {
    let yaml = gateway(
        "  - {port: {number: 443, name: https, protocol: HTTPS}, hosts: [shop.example.com], tls: {mode: SIMPLE, credentialName: shop}}",
        "  hosts: [shop.example.com]\n  http: [{route: [{destination: {host: web}}]}]",
    );
    let seen = ["ended 0", "\"x-forwarded-proto\": \"https\"", "by 2"];
    world.feature(&yaml, &[outside(https("shop.example.com", "-w 'by %{http_version}'"), &seen)]).await
}

pub(crate) async fn mutual_tls(world: &World) -> Result<()> {
    let yaml = gateway(
        "  - {port: {number: 443, name: https, protocol: HTTPS}, hosts: [closed.example.com], tls: {mode: MUTUAL, credentialName: closed}}",
        "  hosts: [closed.example.com]\n  http: [{route: [{destination: {host: web}}]}]",
    );
    let with = https("closed.example.com", "--cert /tls/tls.crt --key /tls/tls.key");
    let asks = [
        outside(with, &["ended 0", "DNS=client.example.com"]),
        outside(https("closed.example.com", ""), &["!ended 0", "!\"service\""]),
    ];
    world.feature(&yaml, &asks).await
}

pub(crate) async fn passthrough(world: &World) -> Result<()> {
    let yaml = gateway(
        "  - {port: {number: 443, name: tls, protocol: TLS}, hosts: [a.tls.example.com], tls: {mode: PASSTHROUGH}}",
        "  hosts: [a.tls.example.com]
  tls: [{match: [{sniHosts: [a.tls.example.com]}], route: [{destination: {host: a.tls.example.com, port: {number: 443}}}]}]
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: a}
spec: {hosts: [a.tls.example.com], resolution: DNS, ports: [{number: 443, name: tls, protocol: TLS}]}",
    );
    // The certificate that curl verifies is the server's own.
    world.feature(&yaml, &[outside(https("a.tls.example.com", ""), &["ended 0", "server a.tls for \"a.tls.example.com\""])]).await
}
