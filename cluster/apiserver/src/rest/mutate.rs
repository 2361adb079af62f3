//! The one pipeline that all writes go through: decode or patch → strict check → prune → default → mutating admission →
//! `managedFields` → validate → validating admission → compare and swap.

use std::sync::Arc;

use jiff::Timestamp;
use meshlab_objects::apply::{self, Writer};
use meshlab_objects::resource::GroupVersionKind;
use meshlab_objects::schema::Schema;
use meshlab_objects::validation::{validate_create, validate_update};
use meshlab_objects::{Cause, CauseReason, Reason, Status};
use serde_json::{Value, json};

use super::convert::{to_storage, to_version};
use super::meta::{self, FieldValidation, metadata_mut};
use super::{Patch, isolate};
use crate::admission::{Attributes, Operation};
use crate::api::Api;
use crate::auth::UserInfo;
use crate::registry::Served;
use crate::store::{CommitError, Expect, Key, Object, Write};

/// How often a write is computed anew because another one was faster.
const ATTEMPTS: usize = 50;
/// How often a generated name is drawn.
const NAME_ATTEMPTS: usize = 8;

/// What all writes can be told.
#[derive(Debug, Clone)]
pub(crate) struct WriteOptions {
    pub(crate) user: UserInfo,
    /// Version the client speaks.
    pub(crate) version: String,
    /// Subresource written through; empty for the object itself.
    pub(crate) subresource: String,
    pub(crate) dry_run: bool,
    pub(crate) validation: FieldValidation,
    pub(crate) manager: String,
}

/// A change of an existing object.
#[derive(Debug, Clone)]
pub(crate) enum Mutation {
    /// PUT
    Replace(meta::Body),
    /// PATCH
    Patch(Patch),
}

/// What a write led to.
#[derive(Debug)]
pub(crate) struct Written {
    pub(crate) object: Arc<Object>,
    /// For the client's eyes.
    pub(crate) warnings: Vec<String>,
    /// The object is new (server-side apply).
    pub(crate) created: bool,
}

/// One pass through the pipeline.
struct Pass<'a> {
    api: &'a Api,
    served: &'a Arc<Served>,
    schema: Arc<Schema>,
    kind: GroupVersionKind,
    options: &'a WriteOptions,
    now: Timestamp,
    warnings: Vec<String>,
}

/// What a mutation made of an object, before the pipeline looks at it.
struct Proposal {
    value: Value,
    /// `managedFields` are up to date: server-side apply did it.
    applied: bool,
}

impl Api {
    /// Creates an object.
    pub(crate) async fn create(
        &self,
        served: &Arc<Served>,
        namespace: &str,
        body: meta::Body,
        options: &WriteOptions,
    ) -> Result<Written, Status> {
        let mut pass = Pass::new(self, served, options)?;
        let mut value = body.value;
        meta::check_kind(&mut value, &pass.kind)?;
        let kind = pass.kind.clone();
        pass.check_strictly(&mut value, body.strict_errors, |errors| pass_error(&kind, errors))?;
        pass.create(namespace, value, false).await
    }

    /// Changes an object, or creates it by server-side apply.
    pub(crate) async fn modify(
        &self,
        served: &Arc<Served>,
        key: &Key,
        mutation: &Mutation,
        options: &WriteOptions,
    ) -> Result<Written, Status> {
        for _ in 0..ATTEMPTS {
            let mut pass = Pass::new(self, served, options)?;
            let Some(current) = self.store.get(&served.id, key) else {
                return match mutation {
                    Mutation::Patch(Patch::Apply { config, force }) if options.subresource.is_empty() => {
                        pass.create_by_apply(key, config, *force).await
                    }
                    _ => Err(pass.not_found(key)),
                };
            };
            match pass.modify(&current, mutation).await? {
                Outcome::Written(written) => return Ok(written),
                Outcome::Raced => tokio::task::yield_now().await,
            }
        }
        Err(Status::conflict(&served.definition.group, &served.definition.plural, key.name(), MODIFIED))
    }
}

pub(super) const MODIFIED: &str = "the object has been modified; please apply your changes to the latest version and try again";

enum Outcome {
    Written(Written),
    /// Another write came between.
    Raced,
}

/// The words of strict decoding for creates and updates.
fn pass_error(kind: &GroupVersionKind, errors: &[String]) -> Status {
    Status::bad_request(format!(
        "{} in version {:?} cannot be handled as a {}: strict decoding error: {}",
        kind.kind,
        kind.version,
        kind.kind,
        errors.join(", ")
    ))
}

impl<'a> Pass<'a> {
    fn new(api: &'a Api, served: &'a Arc<Served>, options: &'a WriteOptions) -> Result<Self, Status> {
        Ok(Self {
            api,
            served,
            schema: served.schema(&options.version)?,
            kind: served.definition.kind_in(&options.version),
            options,
            now: Timestamp::now(),
            warnings: Vec::new(),
        })
    }

    fn not_found(&self, key: &Key) -> Status {
        Status::not_found(&self.served.definition.group, &self.served.definition.plural, key.name())
    }

    fn conflict(&self, name: &str, why: &str) -> Status {
        Status::conflict(&self.served.definition.group, &self.served.definition.plural, name, why)
    }

    fn invalid(&self, name: &str, causes: Vec<Cause>) -> Status {
        Status::invalid(&self.served.definition.group, &self.served.definition.kind, name, causes)
    }

    /// # Errors
    /// 422 with the causes.
    fn check_causes(&self, key: &Key, causes: Vec<Cause>) -> Result<(), Status> {
        if causes.is_empty() { Ok(()) } else { Err(self.invalid(key.name(), dedup(causes))) }
    }

    /// Values of a wrong type are refused; unknown fields are refused, warned of or ignored, and then dropped.
    fn check_strictly(
        &mut self,
        value: &mut Value,
        mut errors: Vec<String>,
        refuse: impl FnOnce(&[String]) -> Status,
    ) -> Result<(), Status> {
        if let Some(error) = self.schema.type_error(value) {
            let GroupVersionKind { version, kind, .. } = &self.kind;
            return Err(Status::bad_request(format!("{kind} in version {version:?} cannot be handled as a {kind}: {error}")));
        }
        if self.options.validation != FieldValidation::Ignore {
            errors.extend(self.schema.unknown_fields(value));
            match self.options.validation {
                FieldValidation::Strict if !errors.is_empty() => return Err(refuse(&errors)),
                FieldValidation::Warn => self.warnings.append(&mut errors),
                _ => {}
            }
        }
        self.schema.prune(value);
        meta::drop_empty(value);
        Ok(())
    }

    fn writer(&self) -> Writer<'_> {
        Writer { manager: &self.options.manager, subresource: &self.options.subresource, now: self.now }
    }

    async fn create_by_apply(&mut self, key: &Key, config: &Value, force: bool) -> Result<Written, Status> {
        let mut config = config.clone();
        meta::check_kind(&mut config, &self.kind)?;
        check_applied_name(&mut config, key)?;
        let kind = Patch::Apply { config: Value::Null, force };
        self.check_strictly(&mut config, Vec::new(), |errors| kind.strict_error(errors))?;
        isolate::before_apply(self.served, &self.options.subresource, &mut config);
        let value = apply::apply(&self.schema, None, &config, self.writer(), force)?;
        self.create(key.namespace(), value, true).await
    }

    async fn create(&mut self, namespace: &str, mut value: Value, applied: bool) -> Result<Written, Status> {
        let generate = self.name(namespace, &mut value)?;
        for _ in 0..NAME_ATTEMPTS {
            let mut value = value.clone();
            if let Some(prefix) = &generate {
                metadata_mut(&mut value)?.insert("name".into(), Value::String(meta::generated_name(prefix)));
            }
            let key = Key::new(namespace, meta::meta(&value, "name"));
            match self.create_named(&key, value, applied).await {
                Err(status) if status.reason == Reason::AlreadyExists && generate.is_some() => {}
                done => return done,
            }
        }
        let message = "the generated names are all taken; try again".to_owned();
        Err(Status::new(Reason::AlreadyExists, message))
    }

    /// Sets the namespace, and says whether (and how) a name is to be generated.
    fn name(&self, namespace: &str, value: &mut Value) -> Result<Option<String>, Status> {
        let kind = &self.served.definition.kind;
        let metadata = metadata_mut(value)?;
        if metadata.get("resourceVersion").and_then(Value::as_str).is_some_and(|version| !version.is_empty()) {
            return Err(Status::bad_request("resourceVersion should not be set on objects to be created"));
        }
        let given = metadata.get("namespace").and_then(Value::as_str).unwrap_or_default();
        if self.served.definition.namespaced {
            if namespace.is_empty() {
                return Err(Status::bad_request(format!("an empty namespace may not be set when a {kind} is created")));
            }
            if !given.is_empty() && given != namespace {
                return Err(Status::bad_request(
                    "the namespace of the provided object does not match the namespace sent on the request",
                ));
            }
            metadata.insert("namespace".into(), namespace.into());
        } else {
            metadata.remove("namespace");
        }
        if metadata.get("name").and_then(Value::as_str).is_some_and(|name| !name.is_empty()) {
            return Ok(None);
        }
        match metadata.get("generateName").and_then(Value::as_str) {
            Some(prefix) if !prefix.is_empty() => Ok(Some(prefix.to_owned())),
            _ => {
                let message = "Required value: name or generateName is required".to_owned();
                let cause = Cause { reason: CauseReason::FieldValueRequired, message, field: "metadata.name".into() };
                Err(self.invalid("", vec![cause]))
            }
        }
    }

    async fn create_named(&mut self, key: &Key, mut value: Value, applied: bool) -> Result<Written, Status> {
        let served = self.served;
        let tracks_generation = meta::tracks_generation(&served.definition, served.custom.is_some());
        let metadata = metadata_mut(&mut value)?;
        for field in ["selfLink", "deletionTimestamp", "deletionGracePeriodSeconds", "generation", "resourceVersion"] {
            metadata.remove(field);
        }
        if !applied {
            metadata.remove("managedFields");
        }
        metadata.insert("uid".into(), Value::String(meta::new_uid()));
        metadata.insert("creationTimestamp".into(), Value::String(meta::rfc3339(self.now)));
        if tracks_generation {
            metadata.insert("generation".into(), json!(1));
        }
        isolate::before_create(served, &mut value);
        self.schema.apply_defaults(&mut value);
        let mut attributes = self.attributes(Operation::Create, key, None);
        self.api.admit(&mut attributes, &mut value, &self.schema).await?;
        self.check_identity(key, &value)?;
        if !applied {
            apply::record_update(&self.schema, None, &mut value, self.writer());
        }
        let mut causes = self.schema.validate(&value, None);
        causes.extend(validate_create(&served.definition, &value));
        causes.extend(isolate::crd_causes(served, &value, None));
        self.check_causes(key, causes)?;
        self.api.validate_admission(&mut attributes, &value).await?;
        self.warnings.append(&mut attributes.warnings);
        self.api.check_escalation(&self.options.user, served, &value, None)?;
        if self.options.dry_run {
            if self.api.store.get(&served.id, key).is_some() {
                return Err(Status::already_exists(&served.definition.group, &served.definition.plural, key.name()));
            }
            self.api.finish_create(served, &mut value).await?;
            return Ok(self.unsaved(key, value, true));
        }
        let _guard = self.api.finish_create(served, &mut value).await?;
        let value = to_storage(value, &served.definition);
        let object = self.api.store.commit(&served.id, key, Expect::Absent, Write::Put(value)).map_err(|error| match error {
            CommitError::Exists => Status::already_exists(&served.definition.group, &served.definition.plural, key.name()),
            other => storage_failed(&other),
        })?;
        self.api.after_write(served, &object);
        Ok(Written { object, warnings: std::mem::take(&mut self.warnings), created: true })
    }

    fn unsaved(&mut self, key: &Key, value: Value, created: bool) -> Written {
        let revision = value["metadata"]["resourceVersion"].as_str().and_then(|revision| revision.parse().ok());
        let object = Arc::new(Object::unsaved(key.clone(), revision, value));
        Written { object, warnings: std::mem::take(&mut self.warnings), created }
    }

    fn attributes(&self, operation: Operation, key: &Key, old: Option<&Value>) -> Attributes {
        Attributes {
            operation,
            served: self.served.clone(),
            version: self.options.version.clone(),
            subresource: self.options.subresource.clone(),
            key: key.clone(),
            user: self.options.user.clone(),
            dry_run: self.options.dry_run,
            old: old.cloned(),
            options: json!({}),
            warnings: Vec::new(),
        }
    }

    /// Admission may change much, but not which object this is.
    fn check_identity(&self, key: &Key, value: &Value) -> Result<(), Status> {
        if meta::meta(value, "name") == key.name() && meta::meta(value, "namespace") == key.namespace() {
            return Ok(());
        }
        Err(Status::internal("an admission webhook changed the name or the namespace of the object"))
    }

    async fn modify(&mut self, current: &Arc<Object>, mutation: &Mutation) -> Result<Outcome, Status> {
        let (served, key) = (self.served, &current.key);
        let old = to_version(&current.value(), &served.definition, &self.options.version).into_owned();
        let proposal = self.propose(&old, key, mutation)?;
        let mut new = proposal.value;
        let conditional = self.check_preconditions(&old, &new, current.revision, mutation)?;
        let metadata = metadata_mut(&mut new)?;
        meta::carry(metadata, &old["metadata"], CARRIED);
        metadata.remove("selfLink");
        let managers = proposal.applied.then(|| new["metadata"]["managedFields"].take());
        isolate::before_update(served, &self.options.subresource, &mut new, &old);
        if let Some(managers) = managers {
            meta::carry(metadata_mut(&mut new)?, &json!({ "managedFields": managers }), &["managedFields"]);
        }
        self.schema.apply_defaults(&mut new);
        if meta::is_being_deleted(&old) {
            self.check_finalizers_of_deleted(key, &old, &new)?;
        }
        let mut attributes = self.attributes(Operation::Update, key, Some(&old));
        self.api.admit(&mut attributes, &mut new, &self.schema).await?;
        self.check_identity(key, &new)?;
        isolate::complete_update(self.api, served, &mut new, &old);
        self.count_generation(&mut new, &old);
        if !proposal.applied {
            apply::record_update(&self.schema, Some(&old), &mut new, self.writer());
        }
        if same(&old, &new) {
            self.warnings.append(&mut attributes.warnings);
            let warnings = std::mem::take(&mut self.warnings);
            return Ok(Outcome::Written(Written { object: current.clone(), warnings, created: false }));
        }
        let mut causes = self.schema.validate(&new, Some(&old));
        causes.extend(validate_update(&served.definition, &new, &old));
        causes.extend(isolate::crd_causes(served, &new, Some(&old)));
        self.check_causes(key, causes)?;
        self.api.validate_admission(&mut attributes, &new).await?;
        self.warnings.append(&mut attributes.warnings);
        self.api.check_escalation(&self.options.user, served, &new, Some(&old))?;
        if self.options.dry_run {
            return Ok(Outcome::Written(self.unsaved(key, new, false)));
        }
        let _guard = self.api.finish_update(served, &mut new, &old).await?;
        let finished = isolate::is_finished(served, &new);
        let new = to_storage(new, &served.definition);
        let write = if finished { Write::Delete(new) } else { Write::Put(new) };
        match self.api.store.commit(&served.id, key, Expect::Revision(current.revision), write) {
            Ok(object) => {
                self.api.after_write(served, &object);
                let warnings = std::mem::take(&mut self.warnings);
                Ok(Outcome::Written(Written { object, warnings, created: false }))
            }
            Err(CommitError::Changed) if conditional => Err(self.conflict(key.name(), MODIFIED)),
            Err(CommitError::Changed) => Ok(Outcome::Raced),
            Err(CommitError::Missing) => Err(self.not_found(key)),
            Err(other) => Err(storage_failed(&other)),
        }
    }

    /// The object as the client wants it.
    fn propose(&mut self, old: &Value, key: &Key, mutation: &Mutation) -> Result<Proposal, Status> {
        match mutation {
            Mutation::Replace(body) => {
                let mut value = body.value.clone();
                meta::check_kind(&mut value, &self.kind)?;
                check_name(&mut value, key)?;
                let kind = self.kind.clone();
                self.check_strictly(&mut value, body.strict_errors.clone(), |errors| pass_error(&kind, errors))?;
                Ok(Proposal { value, applied: false })
            }
            Mutation::Patch(Patch::Apply { config, force }) => {
                let mut config = config.clone();
                meta::check_kind(&mut config, &self.kind)?;
                check_applied_name(&mut config, key)?;
                let patch = Patch::Apply { config: Value::Null, force: *force };
                self.check_strictly(&mut config, Vec::new(), |errors| patch.strict_error(errors))?;
                isolate::before_apply(self.served, &self.options.subresource, &mut config);
                let value = apply::apply(&self.schema, Some(old), &config, self.writer(), *force)?;
                Ok(Proposal { value, applied: true })
            }
            Mutation::Patch(patch) => {
                let mut value = patch.apply_to(&self.schema, old)?;
                meta::check_kind(&mut value, &self.kind)?;
                check_name(&mut value, key)?;
                self.check_strictly(&mut value, Vec::new(), |errors| patch.strict_error(errors))?;
                Ok(Proposal { value, applied: false })
            }
        }
    }

    /// Whether the client pinned a revision.
    fn check_preconditions(&self, old: &Value, new: &Value, revision: u64, mutation: &Mutation) -> Result<bool, Status> {
        let name = meta::meta(old, "name");
        let (wanted, uid) = (meta::meta(new, "uid"), meta::meta(old, "uid"));
        if !wanted.is_empty() && wanted != uid {
            let why = format!("Precondition failed: UID in precondition: {wanted}, UID in object meta: {uid}");
            return Err(self.conflict(name, &why));
        }
        let wanted = meta::meta(new, "resourceVersion");
        let replaces = matches!(mutation, Mutation::Replace(_));
        if wanted.is_empty() || wanted == "0" {
            if replaces && self.served.custom.is_some() {
                let message = "Invalid value: 0x0: must be specified for an update".to_owned();
                let field = "metadata.resourceVersion".to_owned();
                let cause = Cause { reason: CauseReason::FieldValueInvalid, message, field };
                return Err(self.invalid(name, vec![cause]));
            }
            return Ok(false);
        }
        if wanted != revision.to_string() {
            return Err(self.conflict(name, MODIFIED));
        }
        // A patch that says nothing of the revision has taken over the current one.
        Ok(replaces || patch_pins_revision(mutation))
    }

    /// An object that is being deleted gets no new finalizers.
    fn check_finalizers_of_deleted(&self, key: &Key, old: &Value, new: &Value) -> Result<(), Status> {
        let before = meta::finalizers(old);
        let added: Vec<String> = meta::finalizers(new).into_iter().filter(|finalizer| !before.contains(finalizer)).collect();
        if added.is_empty() {
            return Ok(());
        }
        let message =
            format!("Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers {added:?}");
        let cause = Cause { reason: CauseReason::FieldValueForbidden, message, field: "metadata.finalizers".into() };
        Err(self.invalid(key.name(), vec![cause]))
    }

    /// Whatever changes outside of metadata and status is a new generation.
    fn count_generation(&self, new: &mut Value, old: &Value) {
        if !meta::tracks_generation(&self.served.definition, self.served.custom.is_some()) {
            return;
        }
        let has_status = self.served.definition.subresource("status").is_some();
        fn relevant(object: &Value, has_status: bool) -> impl Iterator<Item = (&String, &Value)> {
            object.as_object().into_iter().flatten().filter(move |(name, _)| {
                !matches!(name.as_str(), "metadata" | "apiVersion" | "kind") && (*name != "status" || !has_status)
            })
        }
        if !relevant(new, has_status).eq(relevant(old, has_status)) {
            let generation = old["metadata"]["generation"].as_u64().unwrap_or_default() + 1;
            new["metadata"]["generation"] = json!(generation);
        }
    }
}

/// What the server alone sets.
const CARRIED: &[&str] = &["uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation"];

fn patch_pins_revision(mutation: &Mutation) -> bool {
    match mutation {
        Mutation::Patch(Patch::Merge(patch) | Patch::Strategic(patch) | Patch::Apply { config: patch, .. }) => {
            patch["metadata"]["resourceVersion"].is_string()
        }
        Mutation::Patch(Patch::Json(operations)) => {
            let pinned = |operation: &Value| operation["path"] == "/metadata/resourceVersion";
            operations.as_array().is_some_and(|operations| operations.iter().any(pinned))
        }
        Mutation::Replace(_) => true,
    }
}

/// The name in the body must be the one in the path; left out, it is.
fn check_name(value: &mut Value, key: &Key) -> Result<(), Status> {
    let metadata = metadata_mut(value)?;
    for (field, expected, what) in [("name", key.name(), "name"), ("namespace", key.namespace(), "namespace")] {
        let given = metadata.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
        if given.is_empty() && !expected.is_empty() {
            metadata.insert(field.into(), expected.into());
        } else if given != expected {
            let message = match what {
                "name" => format!("the name of the object ({given}) does not match the name on the URL ({expected})"),
                _ => "the namespace of the provided object does not match the namespace sent on the request".to_owned(),
            };
            return Err(Status::bad_request(message));
        }
    }
    Ok(())
}

fn check_applied_name(config: &mut Value, key: &Key) -> Result<(), Status> {
    if config["metadata"]["managedFields"].as_array().is_some_and(|fields| !fields.is_empty()) {
        return Err(Status::bad_request("metadata.managedFields must be nil"));
    }
    check_name(config, key)
}

/// Equal but for the revision and the times of the managers.
fn same(old: &Value, new: &Value) -> bool {
    fn without_times(object: &Value) -> Option<Value> {
        let mut fields = object["metadata"]["managedFields"].clone();
        for entry in fields.as_array_mut()? {
            entry.as_object_mut()?.remove("time");
        }
        Some(fields)
    }
    let (Some(old_fields), Some(new_fields)) = (old.as_object(), new.as_object()) else { return old == new };
    let other_fields = |(name, value): &(&String, &Value)| *name != "metadata" && !value.is_null();
    if !old_fields.iter().filter(other_fields).eq(new_fields.iter().filter(other_fields)) {
        return false;
    }
    let (Some(old_meta), Some(new_meta)) = (old["metadata"].as_object(), new["metadata"].as_object()) else { return false };
    let other_meta = |(name, _): &(&String, &Value)| *name != "managedFields" && *name != "resourceVersion";
    old_meta.iter().filter(other_meta).eq(new_meta.iter().filter(other_meta)) && without_times(old) == without_times(new)
}

/// The schema and the hand-written rules may find the same fault.
fn dedup(causes: Vec<Cause>) -> Vec<Cause> {
    let mut unique: Vec<Cause> = Vec::with_capacity(causes.len());
    for cause in causes {
        if !unique.contains(&cause) {
            unique.push(cause);
        }
    }
    unique
}

/// The journal refused the write.
pub(super) fn storage_failed(error: &CommitError) -> Status {
    Status::internal(error)
}
