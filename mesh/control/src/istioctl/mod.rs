//! What `istioctl proxy-status` and `istioctl proxy-config` print, from what istiod and the proxies say. The columns are Istio's.

mod clusters;
mod endpoints;
mod listeners;
mod routes;
mod status;
mod table;

pub use clusters::{ClusterFilter, clusters};
pub use endpoints::{EndpointFilter, endpoints};
pub use listeners::{ListenerFilter, listeners};
pub use routes::{RouteFilter, routes};
pub use status::{SyncStatus, proxy_status, proxy_status_verbose};

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use meshlab_compile::{ProxyIdentity, Role, Snapshot, Sources, compile};
    use meshlab_proxy_config::ProxyConfig;
    use serde_json::json;

    use super::*;

    fn config() -> ProxyConfig {
        let mut sources = Sources::default();
        let objects = [
            json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "default" } }),
            json!({
                "apiVersion": "v1", "kind": "Service", "metadata": { "name": "reviews", "namespace": "default" },
                "spec": { "clusterIP": "10.96.0.20", "clusterIPs": ["10.96.0.20"], "selector": { "app": "reviews" },
                          "ports": [{ "name": "http", "port": 9080, "targetPort": 9080, "protocol": "TCP" }] },
            }),
            json!({
                "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
                "metadata": { "name": "reviews-1", "namespace": "default", "labels": { "kubernetes.io/service-name": "reviews" } },
                "addressType": "IPv4", "ports": [{ "name": "http", "port": 9080, "protocol": "TCP" }],
                "endpoints": [{ "addresses": ["10.244.0.30"], "conditions": { "ready": true } }],
            }),
            json!({
                "apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": { "name": "vs", "namespace": "default" },
                "spec": { "hosts": ["reviews"], "http": [
                    { "match": [{ "uri": { "prefix": "/v1" } }], "route": [{ "destination": { "host": "reviews", "subset": "v1" } }] },
                    { "route": [{ "destination": { "host": "reviews" } }] },
                ] },
            }),
            json!({
                "apiVersion": "networking.istio.io/v1", "kind": "DestinationRule", "metadata": { "name": "dr", "namespace": "default" },
                "spec": { "host": "reviews", "subsets": [{ "name": "v1", "labels": { "version": "v1" } }] },
            }),
        ];
        for object in objects {
            sources.apply(&object).unwrap();
        }
        let proxy = ProxyIdentity {
            role: Role::Sidecar,
            namespace: "default".into(),
            pod: "sleep-1".into(),
            labels: [("app".to_owned(), "sleep".to_owned())].into(),
            ip: None,
            service_account: "sleep".into(),
            workload: "sleep".into(),
            locality: String::new(),
        };
        (*compile(&Snapshot::new(sources), &proxy).config).clone()
    }

    #[test]
    fn a_proxys_configuration_is_shown_as_istioctl_shows_it() {
        let config = config();
        let filter = ClusterFilter { fqdn: Some("reviews".into()), ..ClusterFilter::default() };
        insta::assert_snapshot!(clusters(&config, &filter), @r#"
        SERVICE FQDN                          PORT     SUBSET     DIRECTION     TYPE     DESTINATION RULE
        reviews.default.svc.cluster.local     9080     -          outbound      EDS      dr.default
        reviews.default.svc.cluster.local     9080     v1         outbound      EDS      dr.default
        "#);
        insta::assert_snapshot!(endpoints(&config, &BTreeSet::new(), &EndpointFilter::default()), @r#"
        ENDPOINT             STATUS      OUTLIER CHECK     CLUSTER
        10.244.0.30:9080     HEALTHY     OK                outbound|9080||reviews.default.svc.cluster.local
        "#);
        insta::assert_snapshot!(routes(&config, &RouteFilter { name: Some("9080".into()) }), @r#"
        NAME     VHOST NAME                                 DOMAINS                                  MATCH     VIRTUAL SERVICE
        9080     reviews.default.svc.cluster.local:9080     reviews, reviews.default + 1 more...     /v1*      vs.default
        9080     reviews.default.svc.cluster.local:9080     reviews, reviews.default + 1 more...     /*        vs.default
        "#);
        insta::assert_snapshot!(listeners(&config, &ListenerFilter::default()), @r#"
        ADDRESSES     PORT      MATCH                                                       DESTINATION
        0.0.0.0       9080      Trans: raw_buffer; App: http/1.1,h2c                        Route: 9080
        0.0.0.0       9080      ALL                                                         PassthroughCluster
        0.0.0.0       15001     ALL                                                         PassthroughCluster
        0.0.0.0       15001     Addr: *:15001                                               BlackHoleCluster
        0.0.0.0       15006     Trans: tls; App: istio-http/1.0,istio-http/1.1,istio-h2     InboundPassthroughCluster
        0.0.0.0       15006     Trans: raw_buffer; App: http/1.1,h2c                        InboundPassthroughCluster
        0.0.0.0       15006     Trans: tls; App: TCP TLS                                    InboundPassthroughCluster
        0.0.0.0       15006     Trans: raw_buffer                                           InboundPassthroughCluster
        0.0.0.0       15006     Trans: tls                                                  InboundPassthroughCluster
        0.0.0.0       15006     Addr: *:15006                                               BlackHoleCluster
        "#);
    }
}
