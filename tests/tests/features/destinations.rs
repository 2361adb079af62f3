//! DestinationRules.

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::world::{PATIENCE, World, client};

/// The traffic policy of a host.
fn policy(host: &str, policy: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: tried}}\nspec: {{host: {host}, trafficPolicy: {policy}}}\n"
    )
}

/// How many pods answer so many requests.
fn pods(requests: u32, curl: &str) -> String {
    format!(
        "for i in $(seq {requests}); do curl -s {curl} | grep '\"hostname\"'; done | sort | uniq | wc -l | sed 's/^ */pods: /'"
    )
}

pub(crate) async fn round_robin(world: &World) -> Result<()> {
    let each = "for i in $(seq 9); do curl -s http://web/ | grep '\"hostname\"'; done | sort | uniq -c | grep -c ' 3 ' | sed 's/^/pods with three: /'";
    world.feature(&policy("web", "{loadBalancer: {simple: ROUND_ROBIN}}"), &[client(each, &["pods with three: 3"])]).await
}

/// Twenty requests go to one of three pods by chance once in 10⁹.
async fn hashed(world: &World, hash: &str, curl: &str) -> Result<()> {
    let yaml = policy("web", &format!("{{loadBalancer: {{consistentHash: {hash}}}}}"));
    world.feature(&yaml, &[client(pods(20, curl), &["pods: 1"])]).await
}

pub(crate) async fn hash_by_header(world: &World) -> Result<()> {
    hashed(world, "{httpHeaderName: x-user}", "-H 'x-user: ann' http://web/").await
}

pub(crate) async fn hash_by_cookie(world: &World) -> Result<()> {
    hashed(world, "{httpCookie: {name: session, ttl: 60s}}", "-H 'cookie: session=ann' http://web/").await?;
    let yaml = policy("web", "{loadBalancer: {consistentHash: {httpCookie: {name: session, ttl: 60s}}}}");
    world.feature(&yaml, &[client("curl -si http://web/", &["set-cookie: session=", "Max-Age=60"])]).await
}

pub(crate) async fn hash_by_source_address(world: &World) -> Result<()> {
    hashed(world, "{useSourceIp: true}", "http://web/").await
}

pub(crate) async fn hash_by_query(world: &World) -> Result<()> {
    hashed(world, "{httpQueryParameterName: user}", "'http://web/?user=ann'").await
}

pub(crate) async fn other_load_balancers(world: &World) -> Result<()> {
    for balancer in
        ["{simple: RANDOM}", "{simple: LEAST_REQUEST, warmup: {duration: 1s}}", "{simple: ROUND_ROBIN, warmup: {duration: 1s}}"]
    {
        let yaml = policy("web", &format!("{{loadBalancer: {balancer}}}"));
        world.feature(&yaml, &[client(pods(20, "http://web/"), &["pods: 3"])]).await?;
    }
    // Where the application connects to: the service's address, behind which the cluster balances.
    let yaml = policy("web", "{loadBalancer: {simple: PASSTHROUGH}}");
    let service = world.kubectl(&["get", "service", "web", "-n", "feat", "-o", "jsonpath={.spec.clusterIP}"]).await?;
    let applied = world.apply_in_mesh(&yaml).await?;
    let asked = async {
        let deadline = Instant::now() + PATIENCE;
        loop {
            world.all(&[client("curl -si http://web/", &["200 OK", "\"service\": \"web"])]).await?;
            match world.logged("client", &[&format!("\"{service}:80\" outbound|80||web")], Duration::ZERO).await {
                Err(_) if Instant::now() < deadline => {}
                other => return other,
            }
        }
    };
    let outcome = asked.await;
    outcome.and(world.delete(&applied).await)
}

const CERTIFICATE: &str = "x-forwarded-client-cert";

pub(crate) async fn tls_modes(world: &World) -> Result<()> {
    let none = format!("!{CERTIFICATE}");
    world.all(&[client("curl -s http://web/", &[CERTIFICATE])]).await?;
    world
        .feature(&policy("web", "{tls: {mode: DISABLE}}"), &[client("curl -s http://web/", &["\"service\": \"web", &none])])
        .await?;
    world.feature(&policy("web", "{tls: {mode: ISTIO_MUTUAL}}"), &[client("curl -s http://web/", &[CERTIFICATE])]).await
}

pub(crate) async fn port_level_settings(world: &World) -> Result<()> {
    let port = "{portLevelSettings: [{port: {number: 80}, tls: {mode: DISABLE}}]}";
    let none = format!("!{CERTIFICATE}");
    let asks =
        [client("curl -s http://web/", &["\"service\": \"web", &none]), client("curl -s http://any:9999/", &[CERTIFICATE])];
    world.feature(&policy("web", port), &asks).await
}

pub(crate) async fn connection_pools(world: &World) -> Result<()> {
    let pool = "{connectionPool: {tcp: {maxConnections: 1}, http: {http1MaxPendingRequests: 1}}}";
    let many = "for i in 1 2 3 4 5 6; do curl -si 'http://web/?delay=500ms' & done; wait";
    world.feature(&policy("web", pool), &[client(many, &["x-envoy-overloaded: true", "\"service\": \"web"])]).await
}

pub(crate) async fn outlier_detection(world: &World) -> Result<()> {
    let detection = "{outlierDetection: {consecutive5xxErrors: 1, interval: 1s, baseEjectionTime: 5m, maxEjectionPercent: 100}}";
    // By chance, one of two pods answers twenty requests once in a million.
    let statuses = "for i in $(seq 20); do curl -s -o /dev/null -w '%{http_code} ' http://half/; done";
    world.feature(&policy("half", detection), &[client(statuses, &["200", "!500"])]).await
}

pub(crate) async fn localities(world: &World) -> Result<()> {
    let entry = "
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: places}
spec:
  hosts: [places.example.com]
  addresses: [203.0.113.200]
  resolution: STATIC
  ports: [{number: 80, name: http, protocol: HTTP}]
  endpoints:
  - {address: 203.0.113.20, locality: region1/zone1}
  - {address: 203.0.113.21, locality: region2/zone2}
";
    let all = "for i in $(seq 20); do curl -s -H 'host: places.example.com' http://203.0.113.200/; done";
    let yaml = policy("places.example.com", "{outlierDetection: {}}") + entry;
    world.feature(&yaml, &[client(all, &["server near", "!server far"])]).await?;
    let away = "{loadBalancer: {localityLbSetting: {distribute: [{from: region1/zone1/*, to: {region2/zone2/*: 100}}]}}}";
    world.feature(&(policy("places.example.com", away) + entry), &[client(all, &["server far", "!server near"])]).await
}
