use meshlab_compile::{Snapshot, Sources};
use serde_json::Value;

use super::{analyze, analyze_object};

/// A namespace with `reviews` (one pod, v1) and its gateway.
const BASE: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: default, labels: {istio-injection: enabled}}
---
apiVersion: v1
kind: Service
metadata: {name: reviews, namespace: default}
spec: {clusterIP: 10.96.0.1, selector: {app: reviews}, ports: [{name: http, port: 9080, targetPort: 9080, protocol: TCP}]}
---
apiVersion: v1
kind: Pod
metadata: {name: reviews-v1, namespace: default, labels: {app: reviews, version: v1}}
spec: {containers: [{name: app}, {name: istio-proxy}]}
status: {podIP: 10.244.0.1, phase: Running}
---
apiVersion: v1
kind: Service
metadata: {name: istio-ingressgateway, namespace: istio-system}
spec: {clusterIP: 10.96.0.2, selector: {istio: ingressgateway}, ports: [{name: http2, port: 80, targetPort: 8080, protocol: TCP}, {name: https, port: 443, targetPort: 8443, protocol: TCP}]}
---
apiVersion: v1
kind: Pod
metadata: {name: gw, namespace: istio-system, labels: {istio: ingressgateway}}
status: {podIP: 10.244.0.2, phase: Running}
";

/// The findings, one on a line.
fn findings(yaml: &str) -> String {
    let mut sources = Sources::default();
    for text in [BASE, yaml] {
        for object in serde_saphyr::from_multiple::<Value>(text).unwrap() {
            sources.apply(&object).unwrap();
        }
    }
    let messages = analyze(&Snapshot::new(sources));
    messages.iter().map(|message| format!("{message}\n")).collect()
}

fn istio(kind: &str, name: &str, spec: &str) -> String {
    let group = if kind.contains("Auth") { "security" } else { "networking" };
    format!("---\napiVersion: {group}.istio.io/v1\nkind: {kind}\nmetadata: {{name: {name}, namespace: default}}\nspec: {spec}\n")
}

#[test]
fn a_healthy_mesh_has_no_findings() {
    let yaml =
        istio("VirtualService", "reviews", "{hosts: [reviews], http: [{route: [{destination: {host: reviews, subset: v1}}]}]}")
            + &istio("DestinationRule", "reviews", "{host: reviews, subsets: [{name: v1, labels: {version: v1}}]}");
    assert_eq!(findings(&yaml), "");
}

#[test]
fn what_is_referred_to_must_exist() {
    let yaml = istio(
        "VirtualService",
        "a",
        "{hosts: [reviews], gateways: [web], http: [{route: [{destination: {host: nobody}}, {destination: {host: reviews, subset: v9}}]}, {delegate: {name: child}}]}",
    ) + &istio(
        "Gateway",
        "none",
        "{selector: {istio: other}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}]}",
    );
    insta::assert_snapshot!(findings(&yaml), @r#"
Error [IST0101] (Gateway default/none) selector "istio=other" is not found on any pod, so nothing serves this gateway
Error [IST0101] (VirtualService default/a) gateway "web" is not found; a Gateway of another namespace is written namespace/name
Error [IST0101] (VirtualService default/a) host "nobody" is not found; it was looked for as nobody.default.svc.cluster.local
Error [IST0101] (VirtualService default/a) host and subset "reviews+v9" are not found in any DestinationRule
Error [IST0101] (VirtualService default/a) delegate "default/child" is not found among the VirtualServices without hosts
Warning [IST0130] (VirtualService default/a) rule #1 is never reached: rule #0 before it has no match and takes every request
Warning [IST0132] (VirtualService default/a) none of the hosts ["reviews"] is one of gateway web's, []
"#);
}

#[test]
fn subsets_hosts_and_verification() {
    let yaml = istio(
        "DestinationRule",
        "a",
        "{host: reviews, trafficPolicy: {tls: {mode: SIMPLE}, portLevelSettings: [{port: {number: 1}, tls: {mode: MUTUAL, clientCertificate: /c, privateKey: /k}}]}, subsets: [{name: v2, labels: {version: v2}}]}",
    ) + &istio("DestinationRule", "b", "{host: nobody}");
    insta::assert_snapshot!(findings(&yaml), @r#"
Error [IST0173] (DestinationRule default/a) subset v2 (version=v2) selects no pod of the service, so requests to it get 503 UH
Warning [IST0128] (DestinationRule default/a) TLS mode SIMPLE to reviews names no caCertificates, so only public certificates are trusted
Warning [IST0129] (DestinationRule default/a) TLS mode MUTUAL to reviews port 1 names no caCertificates, so only public certificates are trusted
Warning [IST0174] (DestinationRule default/b) host "nobody" is that of no service; it was looked for as nobody.default.svc.cluster.local
"#);
}

#[test]
fn conflicts_and_rules_without_effect() {
    let yaml = istio(
        "VirtualService",
        "a",
        "{hosts: [reviews], http: [{route: [{destination: {host: reviews}}]}, {name: late, match: [{uri: {prefix: /}}], route: [{destination: {host: reviews}}]}]}",
    ) + &istio(
        "VirtualService",
        "b",
        "{hosts: [reviews.default.svc.cluster.local], http: [{match: [{uri: {prefix: /a}}], route: [{destination: {host: reviews}}]}, {match: [{uri: {prefix: /a/b}}], route: [{destination: {host: reviews}}]}]}",
    ) + &istio(
        "Gateway",
        "one",
        "{selector: {istio: ingressgateway}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: [a.com]}, {port: {number: 81, name: other, protocol: HTTP}, hosts: [a.com]}]}",
    ) + &istio(
        "Gateway",
        "two",
        "{selector: {istio: ingressgateway}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: [a.com]}, {port: {number: 443, name: https, protocol: HTTPS}, hosts: [b.com], tls: {mode: SIMPLE, credentialName: cert}}]}",
    );
    insta::assert_snapshot!(findings(&yaml), @r#"
Error [IST0109] (VirtualService default/a) VirtualServices default/a, default/b are all for host reviews.default.svc.cluster.local inside the mesh, where only the oldest has an effect; merge them into one
Error [IST0109] (VirtualService default/b) VirtualServices default/a, default/b are all for host reviews.default.svc.cluster.local inside the mesh, where only the oldest has an effect; merge them into one
Error [IST0145] (Gateway default/one) port 80 with hosts ["a.com"] is also served by default/two for the same pods; which of them wins depends on their age
Error [IST0145] (Gateway default/two) port 80 with hosts ["a.com"] is also served by default/one for the same pods; which of them wins depends on their age
Error [IST0161] (Gateway default/two) credentialName cert: there is no such Secret in namespace istio-system, where the gateway's pods are
Warning [IST0130] (VirtualService default/a) rule "late" is never reached: rule #0 before it has no match and takes every request
Warning [IST0130] (VirtualService default/b) rule #1 is never reached: earlier rules have all of its matches
Warning [IST0162] (Gateway default/one) port 81 is on no Service of the pods "istio=ingressgateway", so it cannot be reached through one
Info [IST0131] (VirtualService default/b) rule #1 match #0 has no effect: rule #0 takes what it would
"#);
}

#[test]
fn injection_ports_and_selectors() {
    let yaml = "
apiVersion: v1
kind: Namespace
metadata: {name: plain}
---
apiVersion: v1
kind: Namespace
metadata: {name: twice, labels: {istio-injection: enabled, istio.io/rev: default}}
---
apiVersion: v1
kind: Pod
metadata: {name: bare, namespace: default}
spec: {containers: [{name: app}]}
status: {podIP: 10.244.0.7, phase: Running}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: default}
spec: {clusterIP: 10.96.0.9, ports: [{name: web, port: 80, targetPort: app, protocol: TCP}, {name: tcp-x, port: 81, protocol: TCP}]}
"
    .to_owned()
        + &istio("AuthorizationPolicy", "p", "{selector: {matchLabels: {app: ghost}}, rules: [{from: [{source: {namespaces: [nowhere]}}]}]}")
        + &istio("ServiceEntry", "se", "{hosts: [a.com], ports: [{number: 9, name: tcp, protocol: TCP}], resolution: DNS}")
        + &istio("VirtualService", "vs", "{hosts: [web], http: [{route: [{destination: {host: web}}]}]}");
    insta::assert_snapshot!(findings(&yaml), @r#"
Error [IST0101] (AuthorizationPolicy default/p) namespace "nowhere" is not found
Error [IST0112] (VirtualService default/vs) service web has several ports (80, 81); name one in the destination
Warning [IST0103] (Pod default/bare) has no sidecar though its namespace is injected; it may be older than the label. 'kubectl rollout restart' brings it in
Warning [IST0123] (Namespace twice) has several labels that decide on injection (istio-injection=enabled, istio.io/rev=default); keep one of them
Warning [IST0127] (AuthorizationPolicy default/p) no workload has the labels app=ghost
Warning [IST0134] (ServiceEntry default/se) port 9 is TCP, where only spec.addresses tell this service from others
Info [IST0102] (Namespace plain) pods here get no sidecar. 'kubectl label namespace plain istio-injection=enabled' turns injection on, 'kubectl label namespace plain istio-injection=disabled' says that this is meant
Info [IST0118] (Service default/web) port 80 (targetPort app) is named "web", which tells no protocol; begin it with one, as in http-web, or set appProtocol
"#);
}

#[test]
fn subsets_do_not_apply_to_a_gateways_requests() {
    let yaml = istio(
        "VirtualService",
        "inside",
        "{hosts: [reviews], http: [{route: [{destination: {host: reviews, subset: v1}}]}]}",
    ) + &istio("DestinationRule", "reviews", "{host: reviews, subsets: [{name: v1, labels: {version: v1}}]}")
        + &istio(
            "Gateway",
            "web",
            "{selector: {istio: ingressgateway}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: [a.com]}]}",
        )
        + &istio(
            "VirtualService",
            "edge",
            "{hosts: [a.com], gateways: [web], http: [{route: [{destination: {host: reviews}}]}]}",
        );
    insta::assert_snapshot!(findings(&yaml), @"Warning [IST0140] (VirtualService default/edge) requests from the gateway go to reviews.default.svc.cluster.local directly; the subsets in VirtualService default/inside have no effect on them. Route to subsets here");
}

#[test]
fn one_object_alone() {
    let object: Value = serde_saphyr::from_str("{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: x, namespace: default}, spec: {hosts: [a], http: [{}]}}").unwrap();
    let text: String = analyze_object(&object).iter().map(|message| format!("{message}\n")).collect();
    insta::assert_snapshot!(text, @"Error [IST0106] (VirtualService default/x) spec.http[0]: one of route, redirect, directResponse and delegate is needed");
}
