//! DELETE of an object and of a collection.

use std::sync::Arc;

use http::StatusCode;
use jiff::{SignedDuration, Timestamp};
use meshlab_objects::decode::{Encoding, decode};
use meshlab_objects::{Reason, Status};
use serde_json::{Value, json};

use super::convert::to_version;
use super::mutate::storage_failed;
use super::{Call, WriteOptions, isolate, meta};
use crate::admission::{Attributes, Operation};
use crate::api::Api;
use crate::http::{Response, read_body, status_ok, warn, yaml_or_json};
use crate::registry::Served;
use crate::store::{CommitError, Expect, Key, Object, Write};

/// The default of `terminationGracePeriodSeconds`.
const DEFAULT_GRACE: i64 = 30;

/// What happens to the objects that this one owns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Propagation {
    Orphan,
    Foreground,
    Background,
}

/// `meta.k8s.io/v1 DeleteOptions`
#[derive(Debug, Clone, Default)]
pub(crate) struct DeleteOptions {
    pub(crate) grace_seconds: Option<i64>,
    propagation: Option<Propagation>,
    uid: Option<String>,
    resource_version: Option<String>,
    dry_run: bool,
    /// As the client sent it, for webhooks.
    raw: Value,
}

impl DeleteOptions {
    /// # Errors
    /// 400 and 422 for malformed options.
    pub(crate) fn from_value(value: &Value) -> Result<Self, Status> {
        let invalid = |cause| Status::invalid("meta.k8s.io", "DeleteOptions", "", vec![cause]);
        if !value.is_object() {
            return Err(Status::bad_request("the DeleteOptions are not a JSON object"));
        }
        let grace_seconds = match &value["gracePeriodSeconds"] {
            Value::Null => None,
            seconds => match seconds.as_i64() {
                Some(seconds) => Some(seconds),
                None => return Err(Status::bad_request("gracePeriodSeconds is not an integer")),
            },
        };
        let propagation = match (value["propagationPolicy"].as_str(), value["orphanDependents"].as_bool()) {
            (None, None) => None,
            (Some("Orphan"), None) | (None, Some(true)) => Some(Propagation::Orphan),
            (Some("Foreground"), None) => Some(Propagation::Foreground),
            (Some("Background"), None) | (None, Some(false)) => Some(Propagation::Background),
            (Some(other), None) => {
                let message = &["Background", "Foreground", "Orphan"];
                return Err(invalid(meta::invalid_option("propagationPolicy", other, message)));
            }
            (Some(_), Some(_)) => {
                return Err(Status::bad_request("orphanDependents and propagationPolicy cannot be both set"));
            }
        };
        let dry_run = match value["dryRun"].as_array().map(Vec::as_slice) {
            None | Some([]) => false,
            Some(all) if all.iter().all(|value| value == "All") => true,
            Some([first, ..]) => {
                return Err(invalid(meta::invalid_option("dryRun", first.as_str().unwrap_or_default(), &["All"])));
            }
        };
        let precondition = |name: &str| value["preconditions"][name].as_str().map(str::to_owned);
        Ok(Self {
            grace_seconds,
            propagation,
            uid: precondition("uid"),
            resource_version: precondition("resourceVersion"),
            dry_run,
            raw: value.clone(),
        })
    }
}

/// What a deletion led to.
pub(crate) struct Deleted {
    object: Arc<Object>,
    /// It is gone; otherwise it waits for its finalizers or its grace period.
    removed: bool,
    warnings: Vec<String>,
}

impl Call {
    /// The options, from the body or the query.
    pub(crate) async fn delete_options(&self, body: crate::http::Body) -> Result<DeleteOptions, Status> {
        let body = read_body(body).await?;
        let mut value =
            if body.is_empty() { json!({}) } else { decode(Encoding::from_content_type(self.content_type())?, &body)?.value };
        if let Some(fields) = value.as_object_mut() {
            if let Some(seconds) = self.query.number("gracePeriodSeconds")? {
                fields.entry("gracePeriodSeconds").or_insert_with(|| json!(seconds));
            }
            if let Some(orphan) = self.query.optional_flag("orphanDependents") {
                fields.entry("orphanDependents").or_insert_with(|| json!(orphan));
            }
            for name in ["propagationPolicy", "dryRun"] {
                let text = self.query.get(name);
                if !text.is_empty() {
                    fields.entry(name).or_insert_with(|| if name == "dryRun" { json!([text]) } else { json!(text) });
                }
            }
        }
        DeleteOptions::from_value(&value)
    }

    pub(super) async fn delete(&self, body: crate::http::Body) -> Result<Response, Status> {
        let options = self.delete_options(body).await?;
        let write = self.write_options()?;
        let deleted = self.api.delete_object(&self.served, &self.key(), &options, &write).await?;
        let definition = &self.served.definition;
        let shows_object =
            definition.group.is_empty() && matches!(definition.plural.as_str(), "pods" | "services" | "serviceaccounts");
        let code = StatusCode::OK;
        let mut response = if deleted.removed && !shows_object {
            let status = status_ok(&definition.group, &definition.plural, deleted.object.key.name(), deleted.object.uid());
            yaml_or_json(code, self.accept, &status)
        } else {
            self.view()?.answer(code, &deleted.object)
        };
        warn(&mut response, &deleted.warnings);
        Ok(response)
    }

    pub(super) async fn delete_collection(&self, body: crate::http::Body) -> Result<Response, Status> {
        let options = self.delete_options(body).await?;
        let write = self.write_options()?;
        let selection = self.selection()?;
        let mut selected = self.api.store.list(&self.served.id, self.scope()).objects;
        selected.retain(|object| selection.matches(object));
        let mut deleted = Vec::new();
        for object in selected {
            match self.api.delete_object(&self.served, &object.key, &options, &write).await {
                Ok(done) => deleted.push(done.object),
                Err(status) if status.reason == Reason::NotFound => {}
                Err(status) => return Err(status),
            }
        }
        let metadata = json!({"resourceVersion": self.api.store.revision().to_string()});
        Ok(self.view()?.answer_list(metadata, deleted))
    }
}

impl Api {
    /// Deletes an object, or marks it for deletion.
    pub(crate) async fn delete_object(
        &self,
        served: &Arc<Served>,
        key: &Key,
        options: &DeleteOptions,
        write: &WriteOptions,
    ) -> Result<Deleted, Status> {
        isolate::check_deletable(served, key.name())?;
        let definition = &served.definition;
        let not_found = || Status::not_found(&definition.group, &definition.plural, key.name());
        let mut warnings = Vec::new();
        let mut admitted = None;
        loop {
            let current = self.store.get(&served.id, key).ok_or_else(not_found)?;
            check_preconditions(served, &current, options)?;
            if admitted.as_deref() != Some(current.uid()) {
                let old = to_version(&current.value(), definition, &write.version).into_owned();
                let mut attributes = Attributes {
                    operation: Operation::Delete,
                    served: served.clone(),
                    version: write.version.clone(),
                    subresource: String::new(),
                    key: key.clone(),
                    user: write.user.clone(),
                    dry_run: options.dry_run || write.dry_run,
                    old: Some(old),
                    options: options.raw.clone(),
                    warnings: Vec::new(),
                };
                self.validate_admission(&mut attributes, &Value::Null).await?;
                warnings.append(&mut attributes.warnings);
                admitted = Some(current.uid().to_owned());
            }
            let (value, removed) = match plan(served, &current.value(), options) {
                Plan::Nothing => return Ok(Deleted { object: current, removed: false, warnings }),
                Plan::Remove(value) => (value, true),
                Plan::Mark(value) => (value, false),
            };
            if options.dry_run || write.dry_run {
                let object = Arc::new(Object::unsaved(key.clone(), Some(current.revision), value));
                return Ok(Deleted { object, removed, warnings });
            }
            let write = if removed { Write::Delete(value) } else { Write::Put(value) };
            match self.store.commit(&served.id, key, Expect::Revision(current.revision), write) {
                Ok(object) => {
                    self.after_write(served, &object);
                    return Ok(Deleted { object, removed, warnings });
                }
                Err(CommitError::Changed) => tokio::task::yield_now().await,
                Err(CommitError::Missing) => return Err(not_found()),
                Err(other) => return Err(storage_failed(&other)),
            }
        }
    }
}

fn check_preconditions(served: &Served, current: &Object, options: &DeleteOptions) -> Result<(), Status> {
    let definition = &served.definition;
    let conflict = |why: &str| Err(Status::conflict(&definition.group, &definition.plural, current.key.name(), why));
    if let Some(uid) = options.uid.as_deref().filter(|uid| *uid != current.uid()) {
        return conflict(&format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {}", current.uid()));
    }
    if let Some(version) = options.resource_version.as_deref().filter(|version| *version != current.revision.to_string()) {
        return conflict(&format!(
            "Precondition failed: ResourceVersion in precondition: {version}, ResourceVersion in object meta: {}",
            current.revision
        ));
    }
    Ok(())
}

enum Plan {
    /// It is already as good as deleted.
    Nothing,
    /// Take it out of the store.
    Remove(Value),
    /// Let it wait for its finalizers or its grace period.
    Mark(Value),
}

fn plan(served: &Served, current: &Value, options: &DeleteOptions) -> Plan {
    let grace = grace_seconds(served, current, options);
    let finalizers = finalizers_after(current, options.propagation);
    let namespace = served.definition.group.is_empty() && served.definition.plural == "namespaces";
    let waits = namespace && current["spec"]["finalizers"].as_array().is_some_and(|all| !all.is_empty());
    let mut value = current.clone();
    if finalizers.is_empty() {
        drop(value["metadata"].as_object_mut().map(|metadata| metadata.remove("finalizers")));
    } else {
        value["metadata"]["finalizers"] = json!(finalizers);
    }
    if grace == 0 && finalizers.is_empty() && !waits {
        return Plan::Remove(value);
    }
    let was_marked = meta::is_being_deleted(current);
    let remaining = current["metadata"]["deletionGracePeriodSeconds"].as_i64().unwrap_or_default();
    if was_marked && grace >= remaining && meta::finalizers(current) == finalizers {
        return Plan::Nothing;
    }
    if !was_marked || grace < remaining {
        let now = Timestamp::now();
        let end = now.checked_add(SignedDuration::from_secs(grace)).unwrap_or(now);
        value["metadata"]["deletionTimestamp"] = json!(meta::rfc3339(end));
        value["metadata"]["deletionGracePeriodSeconds"] = json!(grace);
    }
    if !was_marked && let Some(generation) = current["metadata"]["generation"].as_u64() {
        value["metadata"]["generation"] = json!(generation + 1);
    }
    if namespace {
        value["status"]["phase"] = json!("Terminating");
    }
    Plan::Mark(value)
}

/// Pods alone are given time; the kubelet deletes them with a grace period of 0 when they have ended.
fn grace_seconds(served: &Served, current: &Value, options: &DeleteOptions) -> i64 {
    if !(served.definition.group.is_empty() && served.definition.plural == "pods") {
        return 0;
    }
    let on_no_node = current["spec"]["nodeName"].as_str().unwrap_or_default().is_empty();
    let has_ended = matches!(current["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
    let own = || current["spec"]["terminationGracePeriodSeconds"].as_i64();
    match options.grace_seconds {
        _ if on_no_node || has_ended => 0,
        // A negative one is the smallest that still gives the pod notice.
        Some(seconds) if seconds < 0 => 1,
        Some(seconds) => seconds,
        None => own().unwrap_or(DEFAULT_GRACE).max(0),
    }
}

fn finalizers_after(current: &Value, propagation: Option<Propagation>) -> Vec<String> {
    const ORPHAN: &str = "orphan";
    const FOREGROUND: &str = "foregroundDeletion";
    let mut finalizers = meta::finalizers(current);
    let Some(propagation) = propagation else { return finalizers };
    finalizers.retain(|finalizer| finalizer != ORPHAN && finalizer != FOREGROUND);
    match propagation {
        Propagation::Orphan => finalizers.push(ORPHAN.into()),
        Propagation::Foreground => finalizers.push(FOREGROUND.into()),
        Propagation::Background => {}
    }
    finalizers
}
