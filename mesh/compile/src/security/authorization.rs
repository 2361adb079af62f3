//! AuthorizationPolicy: filled in next.

use meshlab_proxy_config::{HttpAccess, TcpAccess};

use crate::proxy::ProxyIdentity;
use crate::snapshot::Snapshot;

/// Request-level and connection-level access control of a proxy.
pub(crate) fn access(_snapshot: &Snapshot, _proxy: &ProxyIdentity) -> (HttpAccess, TcpAccess) {
    Default::default()
}
