//! The kinds of the Istio API: groups, versions, names.

/// An API group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Group {
    /// `networking.istio.io`
    Networking,
    /// `security.istio.io`
    Security,
    /// `telemetry.istio.io`
    Telemetry,
    /// `extensions.istio.io`
    Extensions,
}

impl Group {
    /// Its full name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Networking => "networking.istio.io",
            Self::Security => "security.istio.io",
            Self::Telemetry => "telemetry.istio.io",
            Self::Extensions => "extensions.istio.io",
        }
    }

    /// The category of its kinds, beside `istio-io`.
    pub fn category(self) -> &'static str {
        match self {
            Self::Networking => "networking-istio-io",
            Self::Security => "security-istio-io",
            Self::Telemetry => "telemetry-istio-io",
            Self::Extensions => "extensions-istio-io",
        }
    }
}

/// A kind of the Istio API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the names are the kinds'")]
pub enum Kind {
    AuthorizationPolicy,
    DestinationRule,
    EnvoyFilter,
    Gateway,
    PeerAuthentication,
    ProxyConfig,
    RequestAuthentication,
    ServiceEntry,
    Sidecar,
    Telemetry,
    VirtualService,
    WasmPlugin,
    WorkloadEntry,
    WorkloadGroup,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 14] = [
        Self::AuthorizationPolicy,
        Self::DestinationRule,
        Self::EnvoyFilter,
        Self::Gateway,
        Self::PeerAuthentication,
        Self::ProxyConfig,
        Self::RequestAuthentication,
        Self::ServiceEntry,
        Self::Sidecar,
        Self::Telemetry,
        Self::VirtualService,
        Self::WasmPlugin,
        Self::WorkloadEntry,
        Self::WorkloadGroup,
    ];

    /// `VirtualService`
    pub fn name(self) -> &'static str {
        match self {
            Self::AuthorizationPolicy => "AuthorizationPolicy",
            Self::DestinationRule => "DestinationRule",
            Self::EnvoyFilter => "EnvoyFilter",
            Self::Gateway => "Gateway",
            Self::PeerAuthentication => "PeerAuthentication",
            Self::ProxyConfig => "ProxyConfig",
            Self::RequestAuthentication => "RequestAuthentication",
            Self::ServiceEntry => "ServiceEntry",
            Self::Sidecar => "Sidecar",
            Self::Telemetry => "Telemetry",
            Self::VirtualService => "VirtualService",
            Self::WasmPlugin => "WasmPlugin",
            Self::WorkloadEntry => "WorkloadEntry",
            Self::WorkloadGroup => "WorkloadGroup",
        }
    }

    /// `virtualservices`
    pub fn plural(self) -> &'static str {
        match self {
            Self::AuthorizationPolicy => "authorizationpolicies",
            Self::DestinationRule => "destinationrules",
            Self::EnvoyFilter => "envoyfilters",
            Self::Gateway => "gateways",
            Self::PeerAuthentication => "peerauthentications",
            Self::ProxyConfig => "proxyconfigs",
            Self::RequestAuthentication => "requestauthentications",
            Self::ServiceEntry => "serviceentries",
            Self::Sidecar => "sidecars",
            Self::Telemetry => "telemetries",
            Self::VirtualService => "virtualservices",
            Self::WasmPlugin => "wasmplugins",
            Self::WorkloadEntry => "workloadentries",
            Self::WorkloadGroup => "workloadgroups",
        }
    }

    /// `vs`
    pub fn short_name(self) -> Option<&'static str> {
        Some(match self {
            Self::AuthorizationPolicy => "ap",
            Self::DestinationRule => "dr",
            Self::Gateway => "gw",
            Self::PeerAuthentication => "pa",
            Self::RequestAuthentication => "ra",
            Self::ServiceEntry => "se",
            Self::Telemetry => "telemetry",
            Self::VirtualService => "vs",
            Self::WorkloadEntry => "we",
            Self::WorkloadGroup => "wg",
            Self::EnvoyFilter | Self::ProxyConfig | Self::Sidecar | Self::WasmPlugin => return None,
        })
    }

    /// Its group.
    pub fn group(self) -> Group {
        match self {
            Self::AuthorizationPolicy | Self::PeerAuthentication | Self::RequestAuthentication => Group::Security,
            Self::Telemetry => Group::Telemetry,
            Self::WasmPlugin => Group::Extensions,
            _ => Group::Networking,
        }
    }

    /// The versions served.
    pub fn versions(self) -> &'static [&'static str] {
        match self {
            Self::AuthorizationPolicy | Self::PeerAuthentication | Self::RequestAuthentication => &["v1", "v1beta1"],
            Self::Telemetry => &["v1", "v1alpha1"],
            Self::WasmPlugin => &["v1alpha1"],
            Self::EnvoyFilter => &["v1alpha3"],
            Self::ProxyConfig => &["v1beta1"],
            _ => &["v1", "v1alpha3", "v1beta1"],
        }
    }

    /// The version kept in the store.
    pub fn storage_version(self) -> &'static str {
        match self {
            Self::Telemetry | Self::WasmPlugin => "v1alpha1",
            Self::EnvoyFilter => "v1alpha3",
            Self::ProxyConfig => "v1beta1",
            _ => "v1",
        }
    }

    /// The kind of an `apiVersion` and `kind`, if it is one of Istio's in a version that is served.
    pub fn parse(api_version: &str, kind: &str) -> Option<Self> {
        let (group, version) = api_version.split_once('/')?;
        Self::ALL.into_iter().find(|k| k.name() == kind && k.group().name() == group && k.versions().contains(&version))
    }
}
