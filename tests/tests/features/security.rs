//! Identities, PeerAuthentication, AuthorizationPolicy, RequestAuthentication.

use anyhow::{Result, ensure};

use crate::servers::{key_set, token};
use crate::world::{World, ask, client, outside};

fn resource(kind: &str, name: &str, spec: &str) -> String {
    format!("---\napiVersion: security.istio.io/v1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {spec}\n")
}

fn policy(name: &str, spec: &str) -> String {
    resource("AuthorizationPolicy", name, spec)
}

const STATUS: &str = "curl -s -o /dev/null -w '%{http_code}'";

pub(crate) async fn certificates_and_identities(world: &World) -> Result<()> {
    let secret = world.kubectl(&["get", "secret", "istio-ca-secret", "-n", "istio-system", "-o", "jsonpath={.data}"]).await?;
    ensure!(secret.contains("ca-cert.pem") && secret.contains("ca-key.pem"), "{secret}");
    let yaml = "apiVersion: v1\nkind: Namespace\nmetadata: {name: later}\n";
    let applied = world.apply(yaml).await?;
    world.kubectl(&["wait", "-n", "later", "--for=create", "configmap/istio-ca-root-cert", "--timeout=10s"]).await?;
    world.delete(&applied).await?;
    let identity = |account: &str| format!("URI=spiffe://cluster.local/ns/feat/sa/{account}");
    let asks = [
        client("curl -s http://web/", &[&identity("client"), "By=spiffe://cluster.local/ns/feat/sa/default"]),
        ask("other", "curl -s http://web/", &[&identity("other")]),
        outside("curl -s http://web.feat/", &["\"service\": \"web", "!spiffe://"]),
        // A service without a sidecar gets plaintext.
        client("curl -s http://asked.plain/", &["\"service\": \"asked", "!x-forwarded-client-cert"]),
    ];
    world.all(&asks).await
}

pub(crate) async fn peer_authentication(world: &World) -> Result<()> {
    let peer = |name: &str, spec: &str| resource("PeerAuthentication", name, spec);
    let plain = |address: &str| format!("{STATUS} http://{address}/");
    let strict = peer("default", "{mtls: {mode: STRICT}}");
    let asks = [
        outside(plain("web.feat"), &["000"]),
        outside(plain("shadow.feat"), &["000"]),
        client(plain("web"), &["200"]),
        client("curl -s http://web/", &["x-forwarded-client-cert"]),
    ];
    world.feature(&strict, &asks).await?;
    // A workload's own, by its own port.
    let open = strict.clone()
        + &peer(
            "open",
            "{selector: {matchLabels: {app: web}}, mtls: {mode: STRICT}, portLevelMtls: {'8080': {mode: PERMISSIVE}}}",
        );
    let asks = [
        outside(plain("shadow.feat"), &["000"]),
        outside(plain("web.feat"), &["200"]),
        outside("echo hi | nc -w 2 echo.feat 9000; echo ended", &["!v1 hi", "!v2 hi", "!v3 hi", "ended"]),
        client("curl -s http://web/", &["x-forwarded-client-cert"]),
    ];
    world.feature(&open, &asks).await?;
    // The whole mesh's.
    let mesh = strict.replace("{name: default}", "{name: default, namespace: istio-system}");
    let file = world.apply(&mesh).await?;
    let outcome = world.all(&[outside(plain("web.feat"), &["000"]), client(plain("web"), &["200"])]).await;
    world.delete(&file).await?;
    outcome?;
    let disabled = peer("disabled", "{selector: {matchLabels: {app: web}}, mtls: {mode: DISABLE}}");
    let asks = [
        client("curl -s http://web/", &["\"service\": \"web", "!x-forwarded-client-cert"]),
        outside(plain("web.feat"), &["200"]),
    ];
    world.feature(&disabled, &asks).await
}

pub(crate) async fn allow_and_deny(world: &World) -> Result<()> {
    let select = "selector: {matchLabels: {app: web}}";
    let yaml = policy("nothing", "{}")
        + &policy(
            "by-principal",
            &format!(
                "{{{select}, rules: [{{from: [{{source: {{principals: [cluster.local/ns/feat/sa/client]}}}}], to: [{{operation: {{methods: [GET], paths: [/read*], hosts: [web], ports: ['8080']}}}}], when: [{{key: 'request.headers[x-team]', values: [blue]}}]}}]}}"
            ),
        )
        + &policy(
            "by-namespace",
            &format!(
                "{{{select}, rules: [{{from: [{{source: {{namespaces: [feat], notPrincipals: [cluster.local/ns/feat/sa/client]}}}}], to: [{{operation: {{paths: [/shared]}}}}]}}]}}"
            ),
        )
        + &policy(
            "by-address",
            &format!(
                "{{{select}, rules: [{{from: [{{source: {{ipBlocks: [10.244.0.0/16], remoteIpBlocks: [10.244.0.0/16]}}}}], to: [{{operation: {{paths: [/open]}}}}]}}]}}"
            ),
        )
        + &policy(
            "never",
            &format!("{{{select}, action: DENY, rules: [{{to: [{{operation: {{paths: [/read/secret], ports: ['8080']}}}}]}}]}}"),
        )
        + &policy(
            "tcp",
            "{selector: {matchLabels: {app: web}}, rules: [{from: [{source: {principals: [cluster.local/ns/feat/sa/client]}}], to: [{operation: {ports: ['9000']}}]}]}",
        );
    let read = |more: &str| format!("{STATUS} {more}");
    let asks = [
        client(read("-H 'x-team: blue' http://web/read"), &["200"]),
        client(read("-H 'x-team: red' http://web/read"), &["403"]),
        client(read("-X POST -H 'x-team: blue' http://web/read"), &["403"]),
        client(read("-H 'x-team: blue' http://web.feat/read"), &["403"]),
        client("curl -s -H 'x-team: blue' http://web/read/secret", &["RBAC: access denied"]),
        // Paths are normalized before they are compared.
        client(read("-H 'x-team: blue' http://web/read/%73ecret"), &["403"]),
        client(read("http://web/shared"), &["403"]),
        client(read("http://shadow/"), &["403"]),
        client("echo hi | nc -w 2 echo 9000", &[" hi"]),
        ask("other", read("-H 'x-team: blue' http://web/read"), &["403"]),
        ask("other", read("http://web/shared"), &["200"]),
        ask("other", "echo hi | nc -w 2 echo 9000; echo ended", &["! hi", "ended"]),
        outside(read("http://web.feat/open"), &["200"]),
        outside(read("http://web.feat/shared"), &["403"]),
    ];
    world.feature(&yaml, &asks).await
}

pub(crate) async fn audit(world: &World) -> Result<()> {
    let yaml = policy("audit", "{selector: {matchLabels: {app: web}}, action: AUDIT, rules: [{}]}")
        + &policy("dry", "{selector: {matchLabels: {app: web}}, action: DENY, rules: [{to: [{operation: {paths: [/dry]}}]}]}")
            .replace("{name: dry}", "{name: dry, annotations: {istio.io/dry-run: 'true'}}")
        + &policy("wet", "{selector: {matchLabels: {app: web}}, action: DENY, rules: [{to: [{operation: {paths: [/wet]}}]}]}");
    let asks = [client(format!("{STATUS} http://web/wet"), &["403"]), client(format!("{STATUS} http://web/dry"), &["200"])];
    world.feature(&yaml, &asks).await
}

pub(crate) async fn custom_over_http(world: &World) -> Result<()> {
    let yaml = policy(
        "custom",
        "{selector: {matchLabels: {app: web}}, action: CUSTOM, provider: {name: ask-http}, rules: [{to: [{operation: {paths: [/checked]}}]}]}",
    );
    let asks = [
        client(format!("{STATUS} -H 'x-webapp-status: 401' http://web/checked"), &["401"]),
        client("curl -s http://web/checked", &["\"service\": \"web"]),
        client("curl -s -H 'x-webapp-status: 401' http://web/checked", &["\"service\": \"asked"]),
    ];
    world.feature(&yaml, &asks).await
}

pub(crate) async fn custom_over_grpc(world: &World) -> Result<()> {
    let yaml = policy(
        "custom",
        "{selector: {matchLabels: {app: web}}, action: CUSTOM, provider: {name: ask-grpc}, rules: [{to: [{operation: {paths: [/checked]}}]}]}",
    ) + "---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: authz}
spec: {hosts: [authz.example.com], resolution: DNS, ports: [{number: 9000, name: grpc, protocol: GRPC}]}
";
    let asks = [
        client("curl -si http://web/checked", &["418", "asked by gRPC"]),
        client("curl -s -H 'x-pass: yes' http://web/checked", &["\"service\": \"web"]),
        client("curl -s http://web/free", &["\"service\": \"web"]),
    ];
    world.feature(&yaml, &asks).await
}

/// RequestAuthentication of `web`, and what its tokens allow.
fn tokens(keys: &str) -> Result<String> {
    Ok(resource(
        "RequestAuthentication",
        "tokens",
        &format!(
            "{{selector: {{matchLabels: {{app: web}}}}, jwtRules: [{{issuer: 'https://issuer.example', {keys}, outputClaimToHeaders: [{{header: x-who, claim: sub}}]}}]}}"
        ),
    ) + &policy(
        "admins",
        "{selector: {matchLabels: {app: web}}, action: DENY, rules: [{to: [{operation: {paths: [/admin]}}], when: [{key: 'request.auth.claims[groups]', notValues: [admin]}]}, {to: [{operation: {paths: [/admin]}}], from: [{source: {notRequestPrincipals: ['https://issuer.example/*']}}]}]}",
    ))
}

pub(crate) async fn request_authentication(world: &World) -> Result<()> {
    let with = |token: &str, path: &str| format!("curl -si -H 'authorization: Bearer {token}' http://web{path}");
    let (ann, bob) = (token("ann", &["admin", "user"])?, token("bob", &["user"])?);
    let forged = format!("{}AAAA", &ann[..ann.len() - 4]);
    let asks = [
        client(with(&forged, "/"), &["401", "Jwt verification fails"]),
        client(with("x.y.z", "/"), &["401"]),
        client("curl -si http://web/", &["200 OK"]),
        client("curl -si http://web/admin", &["403"]),
        client(with(&bob, "/admin"), &["403"]),
        client(with(&bob, "/"), &["200 OK", "\"x-who\": \"bob\"", "!\"authorization\""]),
        client(with(&ann, "/admin"), &["200 OK", "\"x-who\": \"ann\""]),
    ];
    world.feature(&tokens(&format!("jwks: '{}'", key_set()))?, &asks).await
}

pub(crate) async fn keys_by_uri(world: &World) -> Result<()> {
    let ann = token("ann", &["admin"])?;
    let forged = format!("{}AAAA", &ann[..ann.len() - 4]);
    let asks = [
        client(format!("curl -si -H 'authorization: Bearer {forged}' http://web/"), &["401"]),
        client(format!("curl -si -H 'authorization: Bearer {ann}' http://web/admin"), &["200 OK", "\"x-who\": \"ann\""]),
    ];
    world.feature(&tokens("jwksUri: 'http://keys.example.com/keys'")?, &asks).await
}

pub(crate) async fn claims_in_routes(world: &World) -> Result<()> {
    let request = resource(
        "RequestAuthentication",
        "edge",
        &format!("{{selector: {{matchLabels: {{istio: ingressgateway}}}}, jwtRules: [{{issuer: 'https://issuer.example', jwks: '{}'}}]}}", key_set()),
    )
    .replace("{name: edge}", "{name: edge, namespace: istio-system}");
    let yaml = "
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: claims, namespace: feat}
spec:
  selector: {istio: ingressgateway}
  servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: [claims.example.com]}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: claims, namespace: feat}
spec:
  hosts: [claims.example.com]
  gateways: [claims]
  http:
  - {match: [{headers: {'@request.auth.claims.groups': {exact: admin}}}], route: [{destination: {host: web, subset: v2}}]}
  - {route: [{destination: {host: web, subset: v1}}]}
";
    let file = world.apply(&format!("{yaml}{request}")).await?;
    let with = |more: &str| format!("curl -s -H 'host: claims.example.com' {more} http://istio-ingressgateway.istio-system/");
    let bearer = |token: &str| format!("-H 'authorization: Bearer {token}'");
    let asks = [
        outside(with(&bearer(&token("ann", &["admin"])?)), &["\"version\": \"v2\""]),
        outside(with(&bearer(&token("bob", &["user"])?)), &["\"version\": \"v1\""]),
        outside(with(""), &["\"version\": \"v1\""]),
        outside(with(&bearer("x.y.z")), &["Jwt"]),
    ];
    let outcome = world.all(&asks).await;
    world.delete(&file).await?;
    outcome
}
