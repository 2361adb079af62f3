use meshlab_checks::Language;
use serde_json::json;

use super::*;

/// As the ingress gateway and a sidecar answer.
fn hops() -> Vec<Hop> {
    let origin = |kind: &str, name: &str, path: &str| json!({"kind": kind, "namespace": "webapp", "name": name, "path": path});
    let hops = json!([
        {
            "node": "router~10.244.0.4~istio-ingressgateway-76b8.istio-system~istio-system.svc.cluster.local", "direction": "gateway",
            "client": "10.244.0.23:50758", "listener": "0.0.0.0_8080", "filterChain": "http.8080", "routeConfig": "http.8080",
            "virtualHost": "webapp.istio.local:80",
            "route": {"name": "default", "origin": origin("VirtualService", "webapp-virtualservice", "spec.http[1]")},
            "rejected": [{"name": "beta-users", "origin": origin("VirtualService", "webapp-virtualservice", "spec.http[0].match[0]"),
                          "reason": "wanted: header x-user-type exactly \"beta\""}],
            "faults": ["delay of 500 ms"],
            "cluster": {"name": "outbound|80|v1|webapp-service.webapp.svc.cluster.local", "found": true,
                        "origins": [origin("DestinationRule", "webapp-destination-rule", "spec.subsets[0]")]},
            "attempts": [{"endpoint": "10.244.0.30:8080", "outcome": "status 503"}, {"endpoint": "10.244.0.31:8080", "outcome": "status 403"}],
            "endpoint": "10.244.0.31:8080", "status": 403, "flags": "DI", "details": "via_upstream",
        },
        {
            "node": "sidecar~10.244.0.31~webapp-v1-654f.webapp~webapp.svc.cluster.local", "direction": "inbound",
            "client": "10.244.0.4:54522", "identity": "spiffe://cluster.local/ns/istio-system/sa/istio-ingressgateway-service-account",
            "listener": "virtualInbound", "filterChain": "0.0.0.0_8080", "routeConfig": "inbound|8080||",
            "virtualHost": "inbound|http|80", "route": {"name": "default"},
            "policies": [{"origin": {"kind": "AuthorizationPolicy", "namespace": "webapp", "name": "payment"}, "action": "ALLOW",
                          "verdict": "rule 0: `from` does not match"}],
            "status": 403, "flags": "-", "details": "rbac_access_denied_matched_policy[none]",
        },
    ]);
    trail::parse(&hops.to_string()).unwrap()
}

fn explanation(hops: Vec<Hop>, outcome: serde_json::Value) -> Explanation {
    let outcome: Outcome = serde_json::from_value(outcome).unwrap();
    let notes = notes(&outcome, &hops);
    let (method, url, from) = ("GET".to_owned(), "http://webapp.istio.local/order".to_owned(), "outside".to_owned());
    let request = Asked { method, url, headers: BTreeMap::new(), from };
    let pods = [("10.244.0.31", "webapp/webapp-v1-654f"), ("10.244.0.4", "istio-system/istio-ingressgateway-76b8")];
    let pods = pods.map(|(ip, pod)| (ip.to_owned(), pod.to_owned())).into();
    Explanation { request, outcome, hops, pods, notes }
}

#[test]
fn who_decided_what() {
    let explanation = explanation(hops(), json!({"status": 403, "durationMs": 512, "error": null}));
    insta::assert_snapshot!(render(&explanation, Language::En, false), @r#"
    GET http://webapp.istio.local/order  (from outside)
    → 403 Forbidden, 512 ms

    1. istio-ingressgateway-76b8.istio-system  gateway
       ├─   client        10.244.0.23:50758
       │                  no certificate: plaintext, or TLS without one
       ├─   listener      0.0.0.0_8080 › http.8080
       ├─   virtual host  webapp.istio.local:80
       ├─ · not taken     beta-users  VirtualService webapp/webapp-virtualservice spec.http[0].match[0]
       │                  wanted: header x-user-type exactly "beta"
       ├─ ✓ route         default  VirtualService webapp/webapp-virtualservice spec.http[1]
       ├─ ✗ fault         delay of 500 ms
       ├─   cluster       outbound|80|v1|webapp-service.webapp.svc.cluster.local
       │                  subset v1
       │                  DestinationRule webapp/webapp-destination-rule spec.subsets[0]
       ├─ ✗ attempt       10.244.0.30:8080  status 503
       ├─ ✗ attempt       10.244.0.31:8080 (webapp/webapp-v1-654f)  status 403
       └─ ✗ answer        403  [DI: a delay was injected]  via_upstream (from upstream)

    2. webapp-v1-654f.webapp  the server's sidecar, inbound
       ├─   client        10.244.0.4:54522 (istio-system/istio-ingressgateway-76b8)
       │                  spiffe://cluster.local/ns/istio-system/sa/istio-ingressgateway-service-account (mutual TLS)
       ├─   listener      virtualInbound › 0.0.0.0_8080 › inbound|8080||
       ├─   virtual host  inbound|http|80
       ├─ ✓ route         default
       ├─ · policy        ALLOW: rule 0: `from` does not match  AuthorizationPolicy webapp/payment
       └─ ✗ answer        403  rbac_access_denied_matched_policy[none] (denied by authorization policies)
    "#);
}

#[test]
fn who_decided_what_in_japanese() {
    let explanation = explanation(hops(), json!({"status": 403, "durationMs": 512, "error": null}));
    insta::assert_snapshot!(render(&explanation, Language::Ja, false), @r#"
    GET http://webapp.istio.local/order  (送信元: outside)
    → 403 Forbidden, 512 ms

    1. istio-ingressgateway-76b8.istio-system  ゲートウェイ
       ├─   接続元      10.244.0.23:50758
       │                クライアント証明書なし（平文または片方向 TLS）
       ├─   リスナー    0.0.0.0_8080 › http.8080
       ├─   仮想ホスト  webapp.istio.local:80
       ├─ · 不採用      beta-users  VirtualService webapp/webapp-virtualservice spec.http[0].match[0]
       │                wanted: header x-user-type exactly "beta"
       ├─ ✓ ルート      default  VirtualService webapp/webapp-virtualservice spec.http[1]
       ├─ ✗ 障害注入    delay of 500 ms
       ├─   クラスター  outbound|80|v1|webapp-service.webapp.svc.cluster.local
       │                サブセット v1
       │                DestinationRule webapp/webapp-destination-rule spec.subsets[0]
       ├─ ✗ 送信        10.244.0.30:8080  status 503
       ├─ ✗ 送信        10.244.0.31:8080 (webapp/webapp-v1-654f)  status 403
       └─ ✗ 応答        403  [DI: 遅延が注入された]  via_upstream (アップストリームの応答)

    2. webapp-v1-654f.webapp  サーバー側サイドカー、受信
       ├─   接続元      10.244.0.4:54522 (istio-system/istio-ingressgateway-76b8)
       │                spiffe://cluster.local/ns/istio-system/sa/istio-ingressgateway-service-account (相互 TLS)
       ├─   リスナー    virtualInbound › 0.0.0.0_8080 › inbound|8080||
       ├─   仮想ホスト  inbound|http|80
       ├─ ✓ ルート      default
       ├─ · ポリシー    ALLOW: rule 0: `from` does not match  AuthorizationPolicy webapp/payment
       └─ ✗ 応答        403  rbac_access_denied_matched_policy[none] (認可ポリシーにより拒否)
    "#);
}

#[test]
fn colour_only_adds_escapes() {
    let explanation = explanation(hops(), json!({"status": 403, "durationMs": 512, "error": null}));
    let coloured = render(&explanation, Language::En, true);
    let codes = regex::Regex::new("\x1b\\[[0-9;]*m").unwrap();
    assert!(coloured.contains('\x1b'));
    assert_eq!(codes.replace_all(&coloured, ""), render(&explanation, Language::En, false));
}

#[test]
fn where_no_proxy_spoke_there_is_advice() {
    let error = json!({"kind": "reset", "message": "connection closed before message completed"});
    let explanation = explanation(Vec::new(), json!({"status": null, "durationMs": 3, "error": error}));
    insta::assert_snapshot!(render(&explanation, Language::En, false), @r"
    GET http://webapp.istio.local/order  (from outside)
    → no answer: connection closed before message completed, 3 ms

    No proxy answered: the connection was cut before a request was read. A sidecar does so with plaintext when PeerAuthentication says STRICT, and with TCP that no AuthorizationPolicy allows. The server's sidecar has it in its log: kubectl logs POD -c istio-proxy
    ");
}
