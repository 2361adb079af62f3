//! Telemetry: filled in next.

use meshlab_proxy_config::TelemetryConfig;

use crate::proxy::ProxyIdentity;
use crate::snapshot::Snapshot;

/// What a proxy measures, traces and logs.
pub(crate) fn telemetry(_snapshot: &Snapshot, _proxy: &ProxyIdentity) -> TelemetryConfig {
    TelemetryConfig::default()
}
