//! The small mesh that scenarios are compiled in.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use meshlab_compile::{MeshConfig, ProxyIdentity, Role as ProxyRole, Snapshot, Sources, compile};
use meshlab_proxy_config::ProxyConfig;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::case::{Role, Scenario, Subject};
use crate::certificates::Authority;
use crate::tokens::Keys;

/// The pods' port.
pub const POD_PORT: u16 = 8080;
/// The services' port.
pub const SERVICE_PORT: u16 = 80;

/// What an access log line holds, tab-separated; the first field says which request it is about.
pub const LOG_FORMAT: &str = "%REQ(X-CASE)%\t%RESPONSE_CODE%\t%RESPONSE_FLAGS%\t%RESPONSE_CODE_DETAILS%\t%UPSTREAM_CLUSTER%\t%UPSTREAM_HOST%\t%ROUTE_NAME%\t%UPSTREAM_REQUEST_ATTEMPT_COUNT%\t%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\t%BYTES_RECEIVED%\t%BYTES_SENT%\t%REQ(:AUTHORITY)%\t%GRPC_STATUS%\n";
/// The names of [`LOG_FORMAT`]'s fields but the first.
pub const LOG_FIELDS: [&str; 12] = [
    "code",
    "flags",
    "details",
    "cluster",
    "upstream",
    "route",
    "attempts",
    "request",
    "received",
    "sent",
    "authority",
    "grpc status",
];

/// The pods, services and resources that are always there.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct World {
    pods: Vec<String>,
    services: BTreeMap<String, Vec<String>>,
    istio: String,
    gateway: String,
}

impl World {
    /// Reads `world.yaml`.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn load(path: &std::path::Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(serde_saphyr::from_str(&text)?)
    }

    /// Names of the pods.
    pub fn pods(&self) -> impl Iterator<Item = &String> {
        self.pods.iter()
    }

    /// The pod that has an address.
    pub fn pod_at(&self, address: SocketAddr) -> Option<&str> {
        self.pods
            .iter()
            .enumerate()
            .find(|(index, _)| SocketAddr::from((ip(*index), POD_PORT)) == address)
            .map(|(_, pod)| pod.as_str())
    }

    /// Compiles a scenario for its proxy.
    ///
    /// # Errors
    /// A resource is not valid, or the compiler has a problem with one.
    pub fn compile(
        &self,
        subject: &Subject,
        scenario: &Scenario,
        keys: &Keys,
        authority: &Authority,
    ) -> Result<Arc<ProxyConfig>> {
        let mut sources = Sources { mesh: Arc::new(mesh_config(subject, scenario)?), ..Sources::default() };
        for object in self.kubernetes().into_iter().chain(authority.secrets()?) {
            sources.apply(&object)?;
        }
        let own = scenario.resources(subject, keys)?;
        let mut istio = parse(&self.istio)?;
        if !own.iter().any(|object| object["kind"] == "Gateway") {
            istio.extend(parse(&self.gateway)?);
        }
        istio.extend(own);
        for object in istio {
            sources.apply(&object).with_context(|| format!("in {object}"))?;
        }
        let pod = match scenario.role(subject) {
            Role::Gateway => "istio-ingressgateway",
            Role::Outbound => "client",
            Role::Inbound => "server",
        };
        let role = if pod == "istio-ingressgateway" { ProxyRole::Gateway } else { ProxyRole::Sidecar };
        let pod = sources.pods.values().find(|known| known.meta.name == pod).context("no such pod")?.clone();
        let snapshot = Snapshot::new(sources);
        let identity = ProxyIdentity::of_pod(&pod, role, &snapshot);
        let compiled = compile(&snapshot, &identity);
        ensure!(compiled.problems.is_empty(), "the compiler has problems: {:?}", compiled.problems);
        Ok(compiled.config)
    }

    fn kubernetes(&self) -> Vec<Value> {
        let mut out = vec![
            json!({
                "apiVersion": "v1", "kind": "Service",
                "metadata": { "name": "istio-ingressgateway", "namespace": "istio-system" },
                "spec": { "clusterIP": "10.96.1.1", "selector": { "istio": "ingressgateway" },
                    "ports": [{ "name": "http2", "port": SERVICE_PORT, "targetPort": POD_PORT, "protocol": "TCP" }] },
            }),
            pod("istio-ingressgateway", "istio-system", &json!({ "istio": "ingressgateway" }), Ipv4Addr::new(10, 244, 1, 1)),
        ];
        for (index, name) in self.pods.iter().enumerate() {
            out.push(pod(name, "default", &json!({ "pod": name, "app": name }), ip(index)));
        }
        for (index, (name, pods)) in self.services.iter().enumerate() {
            out.push(json!({
                "apiVersion": "v1", "kind": "Service",
                "metadata": { "name": name, "namespace": "default" },
                "spec": { "clusterIP": format!("10.96.0.{}", index + 1), "selector": { "app": name },
                    "ports": [{ "name": port_name(name), "port": SERVICE_PORT, "targetPort": POD_PORT, "protocol": "TCP" }] },
            }));
            let members = pods.iter().filter_map(|member| {
                let address = ip(self.pods.iter().position(|pod| pod == member)?);
                Some(json!({ "addresses": [address], "conditions": { "ready": true },
                    "targetRef": { "kind": "Pod", "name": member, "namespace": "default" } }))
            });
            out.push(json!({
                "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
                "metadata": { "name": name, "namespace": "default", "labels": { "kubernetes.io/service-name": name } },
                "endpoints": members.collect::<Vec<_>>(), "ports": [{ "name": port_name(name), "port": POD_PORT }],
            }));
        }
        out
    }
}

/// A service's protocol, by its name.
fn port_name(service: &str) -> &str {
    ["grpc", "http2", "tcp"].into_iter().find(|protocol| service.starts_with(protocol)).unwrap_or("http")
}

fn ip(index: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 244, 0, u8::try_from(index + 1).unwrap_or(u8::MAX))
}

fn pod(name: &str, namespace: &str, labels: &Value, ip: Ipv4Addr) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": name, "namespace": namespace, "labels": labels },
        "spec": { "serviceAccountName": name, "containers": [{ "name": "app" }] },
        "status": { "podIP": ip, "phase": "Running" },
    })
}

fn mesh_config(subject: &Subject, scenario: &Scenario) -> Result<MeshConfig> {
    let mut fields: serde_json::Map<String, Value> = subject.mesh.clone().into_iter().collect();
    fields.extend(scenario.mesh.clone());
    fields.insert("accessLogFile".into(), "/dev/stdout".into());
    fields.insert("accessLogFormat".into(), LOG_FORMAT.into());
    Ok(serde_json::from_value(Value::Object(fields))?)
}

/// Objects of a text with several documents, with the namespace that `kubectl` would give them.
fn parse(text: &str) -> Result<Vec<Value>> {
    let mut objects: Vec<Value> = serde_saphyr::from_multiple(text)?;
    objects.retain(|object| !object.is_null());
    for object in &mut objects {
        let metadata = object["metadata"].as_object_mut().with_context(|| "a resource without metadata")?;
        metadata.entry("namespace").or_insert_with(|| "default".into());
    }
    Ok(objects)
}

impl Scenario {
    /// Its proxy.
    pub fn role(&self, subject: &Subject) -> Role {
        self.proxy.unwrap_or(subject.proxy)
    }

    /// The host of its VirtualService and of requests, where it names none: at a gateway a name of its own, in the mesh a service.
    pub fn default_host(&self, subject: &Subject) -> &str {
        let default = if self.role(subject) == Role::Gateway { "app.example" } else { "app" };
        self.hosts.first().map_or(default, String::as_str)
    }

    fn resources(&self, subject: &Subject, keys: &Keys) -> Result<Vec<Value>> {
        let mut out = parse(&keys.fill(&self.istio))?;
        if let Some(http) = &self.http {
            let default = [self.default_host(subject).to_owned()];
            let hosts = if self.hosts.is_empty() { default.as_slice() } else { &self.hosts };
            let gateways = ["web", "mesh"];
            out.push(json!({
                "apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
                "metadata": { "name": "scenario", "namespace": "default" },
                "spec": { "hosts": hosts, "gateways": gateways, "http": http },
            }));
        }
        Ok(out)
    }
}
