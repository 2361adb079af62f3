//! Authentication and authorization of requests and connections, compiled (facts 34 to 40).

pub(crate) mod ext_authz;
pub(crate) mod jwt;
pub(crate) mod rbac;
mod template;

use std::borrow::Cow;
use std::net::IpAddr;

use meshlab_proxy_config as config;
use meshlab_proxy_config::Origin;

use self::ext_authz::Authorizer;
use self::jwt::Jwt;
use self::rbac::{Policies, Policy};
use crate::matching::{MatchError, RequestView};
use crate::stream::Downstream;

/// What policies look at.
pub(crate) struct AccessInput<'a> {
    pub(crate) connection: &'a Downstream,
    /// The client as trusted proxies tell it.
    pub(crate) remote: IpAddr,
    /// `None` on a TCP connection.
    pub(crate) http: Option<RequestView<'a>>,
    pub(crate) claims: Option<&'a serde_json::Value>,
}

/// Access is denied.
pub(crate) struct Denial {
    /// `rbac_access_denied_matched_policy[none]`
    pub(crate) details: Cow<'static, str>,
}

/// Why access control cannot be compiled.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AccessError {
    #[error("AuthorizationPolicy {namespace}/{name}: {source}")]
    Policy { namespace: String, name: String, source: MatchError },
    #[error("RequestAuthentication {namespace}/{name}: {reason}")]
    Jwt { namespace: String, name: String, reason: String },
}

/// Compiled [`config::HttpAccess`].
pub(crate) struct HttpAccess {
    pub(crate) custom: Vec<CustomPolicy>,
    pub(crate) jwt: Jwt,
    pub(crate) rbac: Policies,
}

/// Compiled [`config::CustomPolicy`].
pub(crate) struct CustomPolicy {
    pub(crate) origin: Origin,
    policy: Policy,
    pub(crate) authorizer: Authorizer,
}

/// Compiled [`config::TcpAccess`].
pub(crate) struct TcpAccess(Policies);

impl HttpAccess {
    pub(crate) fn new(config: &config::HttpAccess) -> Result<Self, AccessError> {
        let custom = config
            .custom
            .iter()
            .map(|custom| {
                let failed = |source| AccessError::Policy {
                    namespace: custom.policy.origin.namespace.clone(),
                    name: custom.policy.origin.name.clone(),
                    source,
                };
                Ok(CustomPolicy {
                    origin: custom.policy.origin.clone(),
                    policy: Policy::new(&custom.policy)?,
                    authorizer: Authorizer::new(&custom.provider).map_err(failed)?,
                })
            })
            .collect::<Result<_, AccessError>>()?;
        Ok(Self { custom, jwt: Jwt::new(&config.jwt)?, rbac: Policies::new(&config.audit, &config.deny, &config.allow)? })
    }

    /// The first CUSTOM policy that wants to be asked.
    pub(crate) fn custom_policy(&self, input: &AccessInput<'_>) -> Option<&CustomPolicy> {
        self.custom.iter().find(|custom| custom.policy.matching_rule(input).is_some())
    }
}

impl TcpAccess {
    pub(crate) fn new(config: &config::TcpAccess) -> Result<Self, AccessError> {
        Policies::new(&config.audit, &config.deny, &config.allow).map(Self)
    }

    pub(crate) fn check(&self, input: &AccessInput<'_>) -> Result<(), Denial> {
        if self.0.is_empty() { Ok(()) } else { self.0.check(input) }
    }
}
