//! The objects that configuration is compiled from, as the API server has them.

use std::collections::BTreeMap;
use std::sync::Arc;

use meshlab_istio_api::{
    AuthorizationPolicy, DestinationRule, EnvoyFilter, FieldError, Gateway, Kind, Object, PeerAuthentication, ProxyConfig,
    RequestAuthentication, ServiceEntry, Sidecar, Telemetry, VirtualService, WasmPlugin, WorkloadEntry, WorkloadGroup,
};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::kubernetes::{EndpointSlice, Labelled, Pod, Secret, Service};
use crate::mesh_config::MeshConfig;

/// Namespace and name.
pub type Key = (String, String);

/// Objects of one kind.
pub type Store<T> = BTreeMap<Key, Arc<T>>;

/// Everything that is compiled. Cloning is cheap: stores are shared until one is changed, objects for ever.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// The mesh's configuration.
    pub mesh: Arc<MeshConfig>,
    /// Key sets fetched for `jwksUri`, by address. An address that is not here could not be fetched.
    pub jwks: BTreeMap<String, Arc<str>>,
    /// Services.
    pub services: Arc<Store<Service>>,
    /// EndpointSlices.
    pub endpoint_slices: Arc<Store<EndpointSlice>>,
    /// Pods.
    pub pods: Arc<Store<Pod>>,
    /// Namespaces; the key's first part is empty.
    pub namespaces: Arc<Store<Labelled>>,
    /// Nodes; the key's first part is empty.
    pub nodes: Arc<Store<Labelled>>,
    /// Secrets that gateways may need.
    pub secrets: Arc<Store<Secret>>,
    /// Gateways.
    pub gateways: Arc<Store<Object<Gateway>>>,
    /// VirtualServices.
    pub virtual_services: Arc<Store<Object<VirtualService>>>,
    /// DestinationRules.
    pub destination_rules: Arc<Store<Object<DestinationRule>>>,
    /// ServiceEntries.
    pub service_entries: Arc<Store<Object<ServiceEntry>>>,
    /// Sidecars.
    pub sidecars: Arc<Store<Object<Sidecar>>>,
    /// WorkloadEntries.
    pub workload_entries: Arc<Store<Object<WorkloadEntry>>>,
    /// WorkloadGroups.
    pub workload_groups: Arc<Store<Object<WorkloadGroup>>>,
    /// PeerAuthentications.
    pub peer_authentications: Arc<Store<Object<PeerAuthentication>>>,
    /// RequestAuthentications.
    pub request_authentications: Arc<Store<Object<RequestAuthentication>>>,
    /// AuthorizationPolicies.
    pub authorization_policies: Arc<Store<Object<AuthorizationPolicy>>>,
    /// Telemetries.
    pub telemetries: Arc<Store<Object<Telemetry>>>,
    /// ProxyConfigs.
    pub proxy_configs: Arc<Store<Object<ProxyConfig>>>,
    /// EnvoyFilters, which have no effect.
    pub envoy_filters: Arc<Store<Object<EnvoyFilter>>>,
    /// WasmPlugins, which have no effect.
    pub wasm_plugins: Arc<Store<Object<WasmPlugin>>>,
}

/// Calls `$action` with the store that keeps an object of the given `apiVersion` and kind.
macro_rules! with_store {
    ($sources:expr, $api_version:expr, $kind:expr, kubernetes: $kubernetes:ident, istio: $istio:ident, otherwise: $otherwise:expr) => {
        match ($api_version, $kind) {
            ("v1", "Service") => $kubernetes!($sources.services),
            ("v1", "Pod") => $kubernetes!($sources.pods),
            ("v1", "Namespace") => $kubernetes!($sources.namespaces),
            ("v1", "Node") => $kubernetes!($sources.nodes),
            ("v1", "Secret") => $kubernetes!($sources.secrets),
            ("discovery.k8s.io/v1", "EndpointSlice") => $kubernetes!($sources.endpoint_slices),
            _ => match Kind::parse($api_version, $kind) {
                Some(Kind::Gateway) => $istio!($sources.gateways),
                Some(Kind::VirtualService) => $istio!($sources.virtual_services),
                Some(Kind::DestinationRule) => $istio!($sources.destination_rules),
                Some(Kind::ServiceEntry) => $istio!($sources.service_entries),
                Some(Kind::Sidecar) => $istio!($sources.sidecars),
                Some(Kind::WorkloadEntry) => $istio!($sources.workload_entries),
                Some(Kind::WorkloadGroup) => $istio!($sources.workload_groups),
                Some(Kind::PeerAuthentication) => $istio!($sources.peer_authentications),
                Some(Kind::RequestAuthentication) => $istio!($sources.request_authentications),
                Some(Kind::AuthorizationPolicy) => $istio!($sources.authorization_policies),
                Some(Kind::Telemetry) => $istio!($sources.telemetries),
                Some(Kind::ProxyConfig) => $istio!($sources.proxy_configs),
                Some(Kind::EnvoyFilter) => $istio!($sources.envoy_filters),
                Some(Kind::WasmPlugin) => $istio!($sources.wasm_plugins),
                None => $otherwise,
            },
        }
    };
}

impl Sources {
    /// Takes in an object: `apiVersion` and `kind` say which. A kind that the mesh does not look at is passed over. An object
    /// that cannot be read leaves its last good state in place.
    pub fn apply(&mut self, object: &Value) -> Result<(), FieldError> {
        let text = |field: &str| object.get(field).and_then(Value::as_str).unwrap_or_default();
        let (api_version, kind) = (text("apiVersion"), text("kind"));
        let key = key_of(object);
        macro_rules! kubernetes {
            ($store:expr) => {
                put(&mut $store, key, read_kubernetes(object)?)
            };
        }
        macro_rules! istio {
            ($store:expr) => {
                put(&mut $store, key, Object::from_value(object)?)
            };
        }
        with_store!(self, api_version, kind, kubernetes: kubernetes, istio: istio, otherwise: {});
        Ok(())
    }

    /// Takes an object out.
    pub fn remove(&mut self, api_version: &str, kind: &str, namespace: &str, name: &str) {
        let key = (namespace.to_owned(), name.to_owned());
        macro_rules! remove {
            ($store:expr) => {
                drop(Arc::make_mut(&mut $store).remove(&key))
            };
        }
        with_store!(self, api_version, kind, kubernetes: remove, istio: remove, otherwise: {});
    }
}

fn put<T>(store: &mut Arc<Store<T>>, key: Key, value: T) {
    Arc::make_mut(store).insert(key, Arc::new(value));
}

fn key_of(object: &Value) -> Key {
    let text = |field: &str| {
        object.get("metadata").and_then(|meta| meta.get(field)).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    (text("namespace"), text("name"))
}

fn read_kubernetes<T: DeserializeOwned>(object: &Value) -> Result<T, FieldError> {
    T::deserialize(&WithoutNulls(object).prune()).map_err(|error| FieldError::new("", error.to_string()))
}

/// Some encoders write `null` for what is absent.
struct WithoutNulls<'a>(&'a Value);

impl WithoutNulls<'_> {
    fn prune(&self) -> Value {
        match self.0 {
            Value::Object(map) => map
                .iter()
                .filter(|(key, value)| !value.is_null() && *key != "managedFields")
                .map(|(key, value)| (key.clone(), WithoutNulls(value).prune()))
                .collect::<serde_json::Map<_, _>>()
                .into(),
            Value::Array(items) => items.iter().map(|item| WithoutNulls(item).prune()).collect(),
            scalar => scalar.clone(),
        }
    }
}
