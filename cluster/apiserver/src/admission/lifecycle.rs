//! Nothing is created in a namespace, or of a kind, that is not there or is going away.

use meshlab_objects::{Cause, CauseReason, Reason, Status};

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
    if !meta::is_being_deleted(&found.value()) {
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

/// A custom kind that is being deleted gets no new objects, or its deletion would never end.
pub(super) fn check_definition(api: &Api, attributes: &Attributes) -> Result<(), Status> {
    let served = &attributes.served;
    if served.custom.is_none() {
        return Ok(());
    }
    let crds = GroupResource::new("apiextensions.k8s.io", "customresourcedefinitions");
    let found = api.store.get(&crds, &Key::new("", &served.definition.qualified_name()));
    if found.is_some_and(|crd| !meta::is_being_deleted(&crd.value())) {
        return Ok(());
    }
    let message = "create not allowed while custom resource definition is terminating";
    Err(Status::new(Reason::MethodNotAllowed, message))
}
