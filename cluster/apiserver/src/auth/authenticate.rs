//! From a request to a user.

use http::HeaderMap;
use http::header::AUTHORIZATION;
use meshlab_objects::{Reason, Status};

use super::UserInfo;
use crate::api::Api;

/// How a request came in.
#[derive(Debug, Clone)]
pub(crate) enum Caller {
    /// Over TLS, perhaps with a client certificate.
    Network(Option<UserInfo>),
    /// From within the process, by someone this process trusts.
    InProcess(UserInfo),
}

impl Api {
    /// # Errors
    /// 401 for a bearer token that is not valid.
    pub(crate) fn authenticate(&self, caller: &Caller, headers: &HeaderMap) -> Result<UserInfo, Status> {
        let certified = match caller {
            Caller::InProcess(user) => return Ok(user.clone()),
            Caller::Network(certified) => certified,
        };
        if let Some(user) = certified {
            return Ok(user.clone());
        }
        let unauthorized = || Status::new(Reason::Unauthorized, "Unauthorized");
        let Some(header) = headers.get(AUTHORIZATION) else { return Ok(UserInfo::anonymous()) };
        let header = header.to_str().map_err(|_| unauthorized())?;
        let token = match header.split_once(' ') {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => token.trim(),
            _ => return Ok(UserInfo::anonymous()),
        };
        if let Some(user) = self.static_tokens.get(token) {
            return Ok(user.clone());
        }
        self.tokens.verify(token, &[], &self.store).map(|verified| verified.user).map_err(|error| {
            tracing::debug!(%error, "bearer token refused");
            unauthorized()
        })
    }
}
