//! What stands between a valid object and the store: rules that need other objects, and webhooks.

mod lifecycle;
mod priority;
mod service;
mod service_account;
mod tolerations;
mod webhook;

use std::sync::Arc;

use meshlab_objects::Status;
use meshlab_objects::schema::Schema;
use serde_json::Value;
use tokio::sync::OwnedMutexGuard;

use crate::api::Api;
use crate::auth::UserInfo;
use crate::registry::Served;
use crate::rest;
use crate::store::Key;

pub(crate) use webhook::Webhooks;

/// What is being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    Create,
    Update,
    Delete,
    /// exec, attach and their like.
    Connect,
}

impl Operation {
    /// `CREATE`
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Create => "CREATE",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
            Self::Connect => "CONNECT",
        }
    }
}

/// All that admission knows of a request but the object itself.
pub(crate) struct Attributes {
    pub(crate) operation: Operation,
    pub(crate) served: Arc<Served>,
    /// Version of the request, and of the object.
    pub(crate) version: String,
    pub(crate) subresource: String,
    pub(crate) key: Key,
    pub(crate) user: UserInfo,
    pub(crate) dry_run: bool,
    /// The object before the change.
    pub(crate) old: Option<Value>,
    /// The request's options, for webhooks.
    pub(crate) options: Value,
    /// For the client's eyes.
    pub(crate) warnings: Vec<String>,
}

impl Attributes {
    /// Whether the request is about this resource itself, not about a subresource.
    fn is(&self, group: &str, plural: &str) -> bool {
        self.subresource.is_empty() && self.served.definition.group == group && self.served.definition.plural == plural
    }
}

/// Held from the choice of an address to the write, so that no other write chooses the same one.
pub(crate) type Reservation = Option<OwnedMutexGuard<()>>;

impl Api {
    /// Mutating admission.
    pub(crate) async fn admit(&self, attributes: &mut Attributes, object: &mut Value, schema: &Schema) -> Result<(), Status> {
        if attributes.operation == Operation::Create {
            lifecycle::check_namespace(self, attributes)?;
            lifecycle::check_definition(self, attributes)?;
            if attributes.is("", "pods") {
                service_account::admit_pod(self, attributes, object)?;
                priority::admit_pod(self, attributes, object)?;
                tolerations::admit_pod(object);
            }
        }
        self.webhooks.mutate(self, attributes, object, schema).await
    }

    /// Validating admission. The object is null where it is being deleted.
    pub(crate) async fn validate_admission(&self, attributes: &mut Attributes, object: &Value) -> Result<(), Status> {
        self.webhooks.validate(self, attributes, object).await
    }

    /// Gives a new object what only the server can give.
    pub(crate) async fn finish_create(&self, served: &Arc<Served>, object: &mut Value) -> Result<Reservation, Status> {
        match (served.definition.group.as_str(), served.definition.plural.as_str()) {
            ("", "services") => {
                let guard = self.service_addresses.clone().lock_owned().await;
                service::allocate(self, served, object, None)?;
                Ok(Some(guard))
            }
            ("apiextensions.k8s.io", "customresourcedefinitions") => {
                rest::complete_crd(self, object, None);
                Ok(None)
            }
            _ => Ok(None),
        }
    }

    /// The same for a changed one.
    pub(crate) async fn finish_update(
        &self,
        served: &Arc<Served>,
        object: &mut Value,
        old: &Value,
    ) -> Result<Reservation, Status> {
        if served.definition.group.is_empty() && served.definition.plural == "services" {
            let guard = self.service_addresses.clone().lock_owned().await;
            service::allocate(self, served, object, Some(old))?;
            return Ok(Some(guard));
        }
        Ok(None)
    }
}
