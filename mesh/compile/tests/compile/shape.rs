//! What a sidecar and a gateway are given as a whole.

use crate::support::*;
use std::sync::Arc;

use meshlab_compile::{ProxyIdentity, Role, compile};
use meshlab_proxy_config::{ChainProtocol, Discovery};

#[test]
fn a_sidecar_has_istios_names() {
    let config = Mesh::bookinfo().sleep();
    let mut names: Vec<_> = config.listeners.keys().cloned().collect();
    names.sort();
    insta::assert_snapshot!(names.join("\n"), @r#"
0.0.0.0_80
0.0.0.0_8000
0.0.0.0_9080
10.96.0.100_443
10.96.0.5_3306
virtualInbound
virtualOutbound
"#);
    insta::assert_snapshot!(config.routes.keys().cloned().collect::<Vec<_>>().join("\n"), @r#"
80
8000
9080
InboundPassthroughCluster
inbound|80||
"#);
    insta::assert_snapshot!(config.clusters.keys().cloned().collect::<Vec<_>>().join("\n"), @r#"
BlackHoleCluster
InboundPassthroughCluster
PassthroughCluster
inbound|80||
outbound|3306||db.default.svc.cluster.local
outbound|443||istio-ingressgateway.istio-system.svc.cluster.local
outbound|8000||legacy.default.svc.cluster.local
outbound|80||istio-ingressgateway.istio-system.svc.cluster.local
outbound|80||sleep.default.svc.cluster.local
outbound|9080||ratings.default.svc.cluster.local
outbound|9080||reviews.default.svc.cluster.local
"#);
    insta::assert_json_snapshot!(config.listeners["0.0.0.0_9080"], @r#"
{
  "name": "0.0.0.0_9080",
  "address": "0.0.0.0:9080",
  "bind": false,
  "use_original_destination": false,
  "direction": "outbound",
  "filter_chains": [
    {
      "name": "9080",
      "matches": {
        "destination_port": null,
        "prefix_ranges": [],
        "server_names": [],
        "transport": "raw",
        "application_protocols": [
          "http/1.1",
          "h2c"
        ]
      },
      "tls": null,
      "protocol": {
        "http": {
          "route_config": "9080",
          "stat_prefix": "outbound_0.0.0.0_9080",
          "edge": "sidecar_outbound",
          "access": {
            "jwt": [],
            "custom": [],
            "audit": [],
            "deny": [],
            "allow": []
          },
          "stream_idle_timeout_ms": 0,
          "path_normalization": "base"
        }
      }
    }
  ],
  "default_filter_chain": {
    "name": "PassthroughCluster",
    "matches": {
      "destination_port": null,
      "prefix_ranges": [],
      "server_names": [],
      "transport": null,
      "application_protocols": []
    },
    "tls": null,
    "protocol": {
      "tcp": {
        "stat_prefix": "PassthroughCluster",
        "clusters": [
          {
            "cluster": "PassthroughCluster",
            "weight": 1
          }
        ],
        "access": {
          "audit": [],
          "deny": [],
          "allow": []
        },
        "idle_timeout_ms": 3600000,
        "origin": null
      }
    }
  }
}
"#);
    insta::assert_json_snapshot!(host_of(&config, "9080", "reviews"), @r#"
{
  "name": "reviews.default.svc.cluster.local:9080",
  "domains": [
    "reviews.default.svc.cluster.local",
    "reviews.default.svc.cluster.local.",
    "reviews",
    "reviews.default",
    "reviews.default.svc",
    "10.96.0.1"
  ],
  "routes": [
    {
      "name": "default",
      "matches": {
        "path": {
          "prefix": "/"
        },
        "ignore_path_case": false,
        "headers": [],
        "query": [],
        "claims": []
      },
      "action": {
        "forward": {
          "destinations": [
            {
              "cluster": "outbound|9080||reviews.default.svc.cluster.local",
              "weight": 1,
              "request_headers": {
                "set": {},
                "add": {},
                "remove": []
              },
              "response_headers": {
                "set": {},
                "add": {},
                "remove": []
              },
              "authority_rewrite": null
            }
          ],
          "rewrite": null,
          "authority_rewrite": null,
          "timeout_ms": 0,
          "retry": {
            "attempts": 2,
            "on": [
              "connect-failure",
              "refused-stream",
              "unavailable",
              "cancelled",
              "retriable-status-codes"
            ],
            "status_codes": [],
            "per_try_timeout_ms": 0,
            "backoff_base_ms": 25,
            "prefer_other_hosts": true
          },
          "mirrors": [],
          "hash_policy": [],
          "upgrades": [
            "websocket"
          ]
        }
      },
      "request_headers": {
        "set": {},
        "add": {},
        "remove": []
      },
      "response_headers": {
        "set": {},
        "add": {},
        "remove": []
      },
      "fault": null,
      "cors": null,
      "operation": "reviews.default.svc.cluster.local:9080/*",
      "origin": null
    }
  ],
  "require_tls": false
}
"#);
    insta::assert_json_snapshot!(config.clusters[REVIEWS], @r#"
{
  "name": "outbound|9080||reviews.default.svc.cluster.local",
  "discovery": "eds",
  "load_balancer": {
    "least_request": {
      "warmup_ms": 0
    }
  },
  "connect_timeout_ms": 10000,
  "protocol": "http1",
  "tls": {
    "auto": {
      "sni": "outbound_.9080_._.reviews.default.svc.cluster.local",
      "alpn": [
        "istio-http/1.1",
        "istio"
      ],
      "subject_alt_names": [
        "spiffe://cluster.local/ns/default/sa/reviews"
      ]
    }
  },
  "circuit_breaker": {
    "max_connections": 4294967295,
    "max_pending_requests": 4294967295,
    "max_requests": 4294967295,
    "max_retries": 4294967295
  },
  "outlier_detection": null,
  "max_requests_per_connection": 0,
  "idle_timeout_ms": 3600000,
  "tcp_keepalive": null,
  "proxy_protocol": null,
  "service": {
    "host": "reviews.default.svc.cluster.local",
    "name": "reviews",
    "namespace": "default"
  },
  "origins": [
    {
      "kind": "Service",
      "namespace": "default",
      "name": "reviews"
    }
  ]
}
"#);
    insta::assert_json_snapshot!(config.endpoints[REVIEWS], @r#"
{
  "endpoints": [
    {
      "address": "10.244.0.1:9080",
      "weight": 1,
      "priority": 0,
      "metadata": {
        "mtls": true,
        "locality": "",
        "workload": "reviews-v1",
        "namespace": "default",
        "identity": "spiffe://cluster.local/ns/default/sa/reviews",
        "labels": {
          "app": "reviews",
          "version": "v1"
        }
      }
    },
    {
      "address": "10.244.0.2:9080",
      "weight": 1,
      "priority": 0,
      "metadata": {
        "mtls": true,
        "locality": "",
        "workload": "reviews-v2",
        "namespace": "default",
        "identity": "spiffe://cluster.local/ns/default/sa/reviews",
        "labels": {
          "app": "reviews",
          "version": "v2"
        }
      }
    }
  ]
}
"#);
}

#[test]
fn a_gateway_serves_hosts_on_the_services_target_port() {
    let mut mesh = Mesh::bookinfo();
    mesh.istio("Gateway", "default", "web", "{selector: {istio: ingressgateway}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: [bookinfo.example.com]}]}");
    mesh.istio(
        "VirtualService",
        "default",
        "web",
        "{hosts: [bookinfo.example.com], gateways: [web], http: [{route: [{destination: {host: reviews}}]}]}",
    );
    let config = mesh.ingress();
    let listener = &config.listeners["0.0.0.0_8080"];
    assert!(listener.bind && listener.address.port() == 8080);
    let ChainProtocol::Http(http) = &listener.filter_chains[0].protocol else { panic!("not HTTP") };
    assert_eq!(http.route_config, "http.8080");
    let host = host_of(&config, "http.8080", "bookinfo.example.com");
    assert_eq!(host.name, "bookinfo.example.com:80");
    assert_eq!(clusters_of(&host.routes[0]), [(REVIEWS, 1)]);
    assert_eq!(config.clusters[REVIEWS].discovery, Discovery::Eds);
    // Not on sidecars: a gateway is named, `mesh` is not.
    assert!(
        mesh.sleep().routes["9080"].virtual_hosts.iter().all(|host| !host.domains.iter().any(|d| d == "bookinfo.example.com"))
    );
}

#[test]
fn equal_input_gives_equal_bytes() {
    let mesh = Mesh::bookinfo();
    let bytes = || serde_json::to_vec(&*mesh.sleep()).unwrap();
    assert_eq!(bytes(), bytes());
}

#[test]
fn proxies_alike_share_memory_and_a_change_is_small() {
    let mut mesh = Mesh::bookinfo();
    for service in 0..1000 {
        let name = format!("s{service}");
        mesh.service("big", &name, &format!("10.97.{}.{}", service / 250, service % 250 + 1), "http", 80, 8080);
        let pods: Vec<(String, String)> = (0..10)
            .map(|pod| (format!("{name}-{pod}"), format!("10.{}.{}.{}", 100 + pod, service / 250, service % 250 + 1)))
            .collect();
        for (pod, ip) in &pods {
            mesh.pod("big", pod, &[("app", &name)], ip, true);
        }
        let pods: Vec<(&str, &str)> = pods.iter().map(|(pod, ip)| (pod.as_str(), ip.as_str())).collect();
        mesh.endpoints("big", &name, 8080, &pods);
    }
    let snapshot = mesh.snapshot();
    let proxy =
        |pod: &str| ProxyIdentity::of_pod(&mesh.sources.pods[&("big".to_owned(), pod.to_owned())], Role::Sidecar, &snapshot);
    let first = compile(&snapshot, &proxy("s0-0")).config;
    let alike = compile(&snapshot, &proxy("s0-1")).config;
    let other = compile(&snapshot, &proxy("s1-0")).config;
    assert_eq!(first.routes.len(), alike.routes.len());
    let name = "outbound|80||s7.big.svc.cluster.local";
    assert!(Arc::ptr_eq(&first.clusters[name], &other.clusters[name]));
    assert!(Arc::ptr_eq(&first.endpoints[name], &other.endpoints[name]));
    assert!(Arc::ptr_eq(&first.routes["80"], &other.routes["80"]));
}
