//! Who a client is and what it may do.

mod authenticate;
mod bootstrap;
mod escalation;
mod impersonate;
mod pki;
mod rbac;
mod review;
mod tokens;
mod user;

pub(crate) use authenticate::Caller;
pub(crate) use bootstrap::bootstrap_objects;
pub(crate) use pki::{Identity, Pki, SERVICE_ADDRESS};
pub(crate) use rbac::{Action, Authorizer, aggregate};

/// The API group of roles and bindings.
pub(crate) const RBAC_GROUP: &str = "rbac.authorization.k8s.io";
pub(crate) use review::{is_review, review};
pub(crate) use tokens::Tokens;

pub use pki::PkiError;
pub use tokens::{BoundObject, IssuedToken, TokenError, TokenRequest};
pub use user::UserInfo;

use meshlab_objects::{Reason, Status};

/// 403: `pods "web" is forbidden: …`
pub(crate) fn forbidden(group: &str, resource: &str, name: &str, why: &str) -> Status {
    let qualified = if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") };
    let message = if name.is_empty() {
        format!("{qualified} is forbidden: {why}")
    } else {
        format!("{qualified} {name:?} is forbidden: {why}")
    };
    Status::new(Reason::Forbidden, message).about(group, resource, name)
}
