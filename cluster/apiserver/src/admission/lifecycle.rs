//! Nothing is created in a namespace that is not there or is going away.

use meshlab_objects::{Cause, CauseReason, Status};

use super::Attributes;
use crate::api::Api;
use crate::auth::forbidden;
use crate::rest::meta;
use crate::store::{GroupResource, Key};

pub(super) fn check_namespace(api: &Api, attributes: &Attributes) -> Result<(), Status> {
    let definition = &attributes.served.definition;
    let namespace = attributes.key.namespace();
    if namespace.is_empty() {
        return Ok(());
    }
    let Some(found) = api.store.get(&GroupResource::new("", "namespaces"), &Key::new("", namespace)) else {
        return Err(Status::not_found("", "namespaces", namespace));
    };
    if !meta::is_being_deleted(&found.value) {
        return Ok(());
    }
    let why = format!("unable to create new content in namespace {namespace} because it is being terminated");
    let mut status = forbidden(&definition.group, &definition.plural, attributes.key.name(), &why);
    // A real server's cause has the reason NamespaceTerminating, which is not among those of fields.
    status.causes.push(Cause {
        reason: CauseReason::FieldValueForbidden,
        message: format!("namespace {namespace} is being terminated"),
        field: "metadata.namespace".into(),
    });
    Err(status)
}
