//! What is remembered makes no difference to what is compiled, only to how much is done.

use std::collections::BTreeSet;
use std::sync::Arc;

use meshlab_compile::{Compiled, ProxyIdentity, Role, Snapshot, Sources, compile};
use meshlab_proxy_config::ProxyConfig;
use proptest::prelude::*;

use crate::invariants::{service_entry, sidecar, virtual_service};
use crate::support::*;

/// A change of the cluster. What is already there under the name is replaced.
#[derive(Debug, Clone)]
enum Edit {
    Istio { kind: &'static str, name: String, spec: String },
    Remove { kind: &'static str, name: String },
    Pod { name: &'static str, labels: Vec<(&'static str, &'static str)>, ip: &'static str, sidecar: bool },
    Endpoints { pods: Vec<(&'static str, &'static str)> },
    Node { name: &'static str, zone: &'static str },
    MeshConfig(&'static str),
}

fn istio(kind: &'static str, names: &'static str, spec: impl Strategy<Value = String> + 'static) -> BoxedStrategy<Edit> {
    let name = (0..2).prop_map(move |number| format!("{names}{number}"));
    let removed = name.clone().prop_map(move |name| Edit::Remove { kind, name });
    let applied = (name, spec).prop_map(move |(name, spec)| Edit::Istio { kind, name, spec });
    prop_oneof![1 => removed, 4 => applied].boxed()
}

fn one_of(specs: &'static [&'static str]) -> impl Strategy<Value = String> {
    prop::sample::select(specs).prop_map(ToOwned::to_owned)
}

fn edit() -> impl Strategy<Value = Edit> {
    let rules = one_of(&[
        "{host: reviews, subsets: [{name: v1, labels: {version: v1}}]}",
        "{host: reviews, trafficPolicy: {loadBalancer: {consistentHash: {httpHeaderName: x}}}}",
        "{host: '*.default.svc.cluster.local', trafficPolicy: {tls: {mode: DISABLE}}}",
        "{host: ratings, workloadSelector: {matchLabels: {app: sleep}}, trafficPolicy: {connectionPool: {tcp: {maxConnections: 1}}}}",
        "{host: reviews, trafficPolicy: {outlierDetection: {}, loadBalancer: {localityLbSetting: {failoverPriority: [topology.kubernetes.io/zone, app]}}}}",
    ]);
    let routes = one_of(&[
        "{hosts: [reviews], http: [{match: [{uri: {prefix: /a}}], delegate: {name: v1}}, {route: [{destination: {host: reviews}}]}]}",
        "{http: [{match: [{uri: {prefix: /a/b}}], route: [{destination: {host: ratings}}]}]}",
        "{hosts: [reviews], http: [{match: [{sourceLabels: {app: sleep}}], route: [{destination: {host: ratings}}]}]}",
        "{hosts: [db], tcp: [{route: [{destination: {host: legacy}}]}]}",
    ]);
    let peers = one_of(&[
        "{mtls: {mode: STRICT}}",
        "{mtls: {mode: DISABLE}}",
        "{selector: {matchLabels: {app: reviews}}, mtls: {mode: DISABLE}}",
    ]);
    let pods = prop::sample::subsequence(vec![("reviews-v1", "10.244.0.1"), ("reviews-v2", "10.244.0.2")], 0..=2);
    let pod = (prop::sample::select(vec!["v1", "v3"]), any::<bool>()).prop_map(|(version, sidecar)| Edit::Pod {
        name: "reviews-v1",
        labels: vec![("app", "reviews"), ("version", version)],
        ip: "10.244.0.1",
        sidecar,
    });
    prop_oneof![
        istio("VirtualService", "v", prop_oneof![virtual_service(), routes]),
        istio("DestinationRule", "d", rules),
        istio("ServiceEntry", "e", service_entry()),
        istio("Sidecar", "s", sidecar().prop_map(ToOwned::to_owned)),
        istio("PeerAuthentication", "p", peers),
        pods.prop_map(|pods| Edit::Endpoints { pods }),
        pod,
        (prop::sample::select(vec!["node-sleep", "node-reviews-v1"]), prop::sample::select(vec!["a", "b"]))
            .prop_map(|(name, zone)| Edit::Node { name, zone }),
        prop::sample::select(vec!["{}", "{outboundTrafficPolicy: {mode: REGISTRY_ONLY}}", "{enableAutoMtls: false}"])
            .prop_map(Edit::MeshConfig),
    ]
}

fn change(mesh: &mut Mesh, edit: Edit) {
    match edit {
        Edit::Istio { kind, name, spec } => {
            mesh.istio(kind, "default", &name, &spec);
        }
        Edit::Remove { kind, name } => {
            let group = if kind == "PeerAuthentication" { "security" } else { "networking" };
            mesh.sources.remove(&format!("{group}.istio.io/v1"), kind, "default", &name);
        }
        Edit::Pod { name, labels, ip, sidecar } => mesh.pod("default", name, &labels, ip, sidecar),
        Edit::Endpoints { pods } => mesh.endpoints("default", "reviews", 9080, &pods),
        Edit::Node { name, zone } => {
            let labels = format!("{{topology.kubernetes.io/region: r, topology.kubernetes.io/zone: {zone}}}");
            mesh.apply(&format!("{{apiVersion: v1, kind: Node, metadata: {{name: {name}, labels: {labels}}}}}"));
        }
        Edit::MeshConfig(yaml) => {
            mesh.mesh_config(yaml);
        }
    }
}

fn compile_all(snapshot: &Snapshot) -> Vec<Compiled> {
    let pods =
        [("default", "sleep"), ("default", "reviews-v1"), ("default", "ratings-v1"), ("istio-system", "istio-ingressgateway")];
    let compile = |(namespace, name): (&str, &str)| {
        let pod = &snapshot.sources().pods[&(namespace.to_owned(), name.to_owned())];
        let role = if name.contains("gateway") { Role::Gateway } else { Role::Sidecar };
        compile(snapshot, &ProxyIdentity::of_pod(pod, role, snapshot))
    };
    pods.map(compile).into()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn every_state_compiles_as_if_it_were_the_first(edits in prop::collection::vec(edit(), 1..12)) {
        let mut mesh = Mesh::bookinfo();
        mesh.istio("Gateway", "default", "web", "{selector: {istio: ingressgateway}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}]}");
        let mut snapshot = mesh.snapshot();
        compile_all(&snapshot);
        for edit in edits {
            change(&mut mesh, edit);
            snapshot = snapshot.next(mesh.sources.clone());
            prop_assert_eq!(compile_all(&snapshot), compile_all(&mesh.snapshot()));
        }
    }
}

/// The configuration of `sleep` before and after a change.
fn around(mesh: &mut Mesh, edit: impl FnOnce(&mut Mesh)) -> [Arc<ProxyConfig>; 2] {
    let sleep = |snapshot: &Snapshot| compile_all(snapshot).swap_remove(0).config;
    let before = mesh.snapshot();
    edit(mesh);
    let after = before.next(mesh.sources.clone());
    [sleep(&before), sleep(&after)]
}

/// The names of what was made anew.
fn made<'a, T>(resources: [impl Iterator<Item = (&'a str, &'a Arc<T>)>; 2]) -> Vec<&'a str>
where
    T: 'a,
{
    let [before, after] = resources;
    let before: BTreeSet<_> = before.map(|(_, resource)| Arc::as_ptr(resource)).collect();
    after.filter(|(_, resource)| !before.contains(&Arc::as_ptr(resource))).map(|(name, _)| name).collect()
}

fn clusters(config: &ProxyConfig) -> impl Iterator<Item = (&str, &Arc<meshlab_proxy_config::Cluster>)> {
    config.clusters.iter().filter(|(name, _)| name.starts_with("outbound")).map(|(name, cluster)| (name.as_str(), cluster))
}

fn endpoints(config: &ProxyConfig) -> impl Iterator<Item = (&str, &Arc<meshlab_proxy_config::Endpoints>)> {
    config.endpoints.iter().map(|(name, endpoints)| (name.as_str(), endpoints))
}

fn virtual_hosts(config: &ProxyConfig) -> impl Iterator<Item = (&str, &Arc<meshlab_proxy_config::VirtualHost>)> {
    let tables = config.routes.values().filter(|table| table.name.parse::<u16>().is_ok());
    let hosts = tables.flat_map(|table| &table.virtual_hosts).filter(|host| host.name != "allow_any");
    hosts.map(|host| (host.name.as_str(), host))
}

#[test]
fn a_changed_route_is_all_that_is_compiled() {
    let mut mesh = Mesh::bookinfo();
    reviews_vs(&mut mesh, "- route: [{destination: {host: reviews}}]");
    mesh.istio("VirtualService", "default", "ratings", "{hosts: [ratings], http: [{route: [{destination: {host: ratings}}]}]}");
    let [before, after] = around(&mut mesh, |mesh| reviews_vs(mesh, "- {timeout: 1s, route: [{destination: {host: reviews}}]}"));
    // Port 80 has a virtual host for every name that a VirtualService speaks of.
    let own = ["reviews.default.svc.cluster.local:80", "reviews.default.svc.cluster.local:9080"];
    assert_eq!(made([virtual_hosts(&before), virtual_hosts(&after)]), own);
    assert!(made([clusters(&before), clusters(&after)]).is_empty());
    assert!(made([endpoints(&before), endpoints(&after)]).is_empty());
}

#[test]
fn changed_members_are_all_that_is_compiled() {
    let mut mesh = Mesh::bookinfo();
    let [before, after] = around(&mut mesh, |mesh| mesh.endpoints("default", "reviews", 9080, &[("reviews-v1", "10.244.0.1")]));
    assert_eq!(made([endpoints(&before), endpoints(&after)]), [REVIEWS]);
    // The server names that a cluster's servers may have are those of its members.
    assert!(made([clusters(&before), clusters(&after)]).iter().all(|name| *name == REVIEWS));
}

#[test]
fn a_policy_for_servers_leaves_the_outbound_side_as_it_is() {
    let mut mesh = Mesh::bookinfo();
    let [before, after] = around(&mut mesh, |mesh| {
        mesh.istio("AuthorizationPolicy", "default", "none", "{}");
    });
    for (name, table) in before.routes.iter().filter(|(name, _)| name.parse::<u16>().is_ok()) {
        assert!(Arc::ptr_eq(table, &after.routes[name]), "{name}");
    }
}

#[test]
fn namespaces_share_what_is_equal_for_them() {
    let mut mesh = Mesh::bookinfo();
    mesh.pod("other", "sleep", &[("app", "sleep")], "10.244.1.1", true);
    let snapshot = mesh.snapshot();
    let config = |namespace: &str| {
        let sources: &Sources = snapshot.sources();
        let pod = &sources.pods[&(namespace.to_owned(), "sleep".to_owned())];
        compile(&snapshot, &ProxyIdentity::of_pod(pod, Role::Sidecar, &snapshot)).config
    };
    let (own, others) = (config("default"), config("other"));
    assert!(made([clusters(&own), clusters(&others)]).is_empty());
    assert!(made([endpoints(&own), endpoints(&others)]).is_empty());
}
