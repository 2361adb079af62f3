//! Server-side apply and `managedFields`.

mod managers;
mod set;
mod typed;

use std::sync::OnceLock;

use serde_json::Value;

use crate::{Cause, CauseReason, Reason, Status, schema::Schema};
use managers::Entry;
use set::Set;
use typed::{Difference, Typed, compare, merge, prune};

/// What a manager did (`managedFields[].operation`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Server-side apply.
    Apply,
    /// Any other write.
    Update,
}

/// Who writes.
#[derive(Debug, Clone, Copy)]
pub struct Writer<'a> {
    /// `fieldManager`, or what the server derives from the user agent.
    pub manager: &'a str,
    /// Subresource written through; empty for the object itself.
    pub subresource: &'a str,
    /// The time of the write.
    pub now: jiff::Timestamp,
}

impl Writer<'_> {
    fn time(&self) -> String {
        let seconds = self.now.round(jiff::Unit::Second).unwrap_or(self.now);
        format!("{seconds:.0}")
    }
}

/// kubectl's manager when it applies on the server, for which Kubernetes eases the way from applying on the client.
const KUBECTL: &str = "kubectl";
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// The manager of what an object had before anyone's fields were recorded.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";

/// Applies `config` for a manager: merges it into `live` (`None`: the object is new), removes what the manager applied before
/// and applies no more, and records ownership in `metadata.managedFields`.
///
/// The status in a built-in kind's `config` is ignored unless written through a subresource; of a custom resource with a status
/// subresource, drop it before.
///
/// # Errors
/// 409 with a cause per field (`conflict with "kubectl-client-side-apply" using apps/v1`) unless `force`; 400 for malformed
/// `managedFields` and for a `config` that sets them; 500, as Kubernetes does, for lists whose items have no or the same key.
pub fn apply(schema: &Schema, live: Option<&Value>, config: &Value, writer: Writer<'_>, force: bool) -> Result<Value, Status> {
    if !config.is_object() {
        return Err(Status::bad_request("error decoding YAML: an apply configuration must be an object"));
    }
    if config.pointer("/metadata/managedFields").is_some_and(|fields| !fields.is_null()) {
        return Err(Status::bad_request("metadata.managedFields must be nil"));
    }
    let mut config = config.clone();
    schema.prune(&mut config);
    if let Some(fields) = config.as_object_mut().filter(|_| schema.is_builtin() && writer.subresource.is_empty()) {
        fields.remove("status");
    }
    typed(schema, &config).check("").map_err(|error| untyped(&config, &error))?;
    let empty = Value::Object(serde_json::Map::new());
    let live = live.unwrap_or(&empty);
    let api_version = config.get("apiVersion").and_then(Value::as_str).unwrap_or_default().to_owned();
    let before = live_managers(schema, live, &api_version)?;

    let allowed = if writer.manager == KUBECTL { last_applied_fields(schema, live) } else { Set::default() };
    let applied = typed(schema, &config).fields();
    let (mut own, mut others): (Vec<Entry>, Vec<Entry>) =
        before.iter().cloned().partition(|entry| entry.is(writer.manager, Operation::Apply, &api_version, writer.subresource));
    let last = own.pop().map(|entry| entry.fields).unwrap_or_default();

    let merged = merge(typed(schema, live), typed(schema, &config));
    let stated = typed(schema, &config).every_path();
    let managed = others.iter().fold(stated, |all, entry| all.union(&entry.fields));
    let mut object = prune(typed(schema, &merged), &last, &managed).unwrap_or_else(|| config.clone());
    let difference = compare(typed(schema, live), typed(schema, &object));
    let conflicts = conflicts(&others, &difference);
    if !force && !conflicts.iter().all(|(_, fields)| fields.difference(&allowed).is_empty()) {
        return Err(conflict(&conflicts));
    }
    take(&mut others, &difference);
    let mut entries = others;
    entries.push(Entry {
        manager: writer.manager.to_owned(),
        operation: Operation::Apply,
        api_version,
        subresource: writer.subresource.to_owned(),
        time: Some(writer.time()),
        fields: applied.difference(stripped()),
    });
    // Applying the same once more leaves even the time as it is.
    let same =
        |entry: &Entry| before.iter().any(|old| Entry { time: None, ..old.clone() } == Entry { time: None, ..entry.clone() });
    if difference.is_empty() && before.len() == entries.len() && entries.iter().all(same) {
        return Ok(live.clone());
    }
    // kubectl keeps what it applied on the client in step, without owning it.
    let annotations = object.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut);
    if let Some(last_applied) = annotations.filter(|_| writer.manager == KUBECTL).and_then(|all| all.get_mut(LAST_APPLIED)) {
        *last_applied = (config.to_string() + "\n").into();
    }
    managers::write(&mut object, entries);
    Ok(object)
}

/// Records any other write: gives the manager the fields that differ between `old` (`None`: a create) and `new`, takes them from
/// others, and drops from every set what is no longer there. Sets `new`'s `metadata.managedFields`.
///
/// Fields managers that the request itself set in `new` are taken as they are, as `kubectl apply --server-side` does to take over
/// from client-side apply; `[]` forgets them all.
pub fn record_update(schema: &Schema, old: Option<&Value>, new: &mut Value, writer: Writer<'_>) {
    let empty = Value::Object(serde_json::Map::new());
    let live = old.unwrap_or(&empty);
    let Difference { added, modified, removed } = compare(typed(schema, live), typed(schema, new));
    let mut changed = added;
    changed.add(modified);
    let changed_own = changed.difference(stripped());
    let only_changes = !changed_own.is_empty() && removed.is_empty();
    let mut lost = changed;
    lost.add(removed);
    let api_version = new.get("apiVersion").and_then(Value::as_str).unwrap_or_default().to_owned();
    let text = |entry: &Value, name: &str| entry.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let is_writer = |entry: &Value| {
        text(entry, "operation") == "Update"
            && text(entry, "manager") == writer.manager
            && text(entry, "apiVersion") == api_version
            && text(entry, "subresource") == writer.subresource
    };
    if only_changes && managers::update_time(new, live, is_writer, &changed_own, &lost, &writer.time()) {
        return;
    }

    let from_request = || managers::read(new).filter(|entries| !entries.is_empty() && writer.subresource.is_empty());
    let mut entries = match () {
        () if writer.subresource.is_empty() && managers::is_reset(new) => Vec::new(),
        () => from_request().or_else(|| managers::read(live)).unwrap_or_default(),
    };
    for entry in &mut entries {
        entry.fields = entry.fields.difference(&lost);
    }
    if !changed_own.is_empty() {
        let time = Some(writer.time());
        match entries.iter_mut().find(|entry| entry.is(writer.manager, Operation::Update, &api_version, writer.subresource)) {
            Some(entry) => {
                entry.fields.add(changed_own);
                entry.time = time;
            }
            None => entries.push(Entry {
                manager: writer.manager.to_owned(),
                operation: Operation::Update,
                api_version,
                subresource: writer.subresource.to_owned(),
                time,
                fields: changed_own,
            }),
        }
    }
    managers::write(new, entries);
}

fn typed<'a, 'v>(schema: &'a Schema, value: &'v Value) -> Typed<'a, 'v> {
    Typed { at: Some(schema.root()), value }
}

/// The managers of a live object; one for all of it where none were recorded.
fn live_managers(schema: &Schema, live: &Value, api_version: &str) -> Result<Vec<Entry>, Status> {
    let mut entries = managers::read(live)
        .ok_or_else(|| Status::bad_request("metadata.managedFields of the object are malformed; set them to [] first"))?;
    let fields = typed(schema, live).fields().difference(stripped());
    if entries.is_empty() && !fields.is_empty() {
        entries.push(Entry {
            manager: BEFORE_FIRST_APPLY.to_owned(),
            operation: Operation::Update,
            api_version: api_version.to_owned(),
            subresource: String::new(),
            time: None,
            fields,
        });
    }
    Ok(entries)
}

/// Whose fields the change touches.
fn conflicts(others: &[Entry], difference: &Difference) -> Vec<(Entry, Set)> {
    let changed = difference.modified.union(&difference.added);
    let touched = others.iter().map(|entry| (entry.clone(), entry.fields.intersection(&changed)));
    touched.filter(|(_, fields)| !fields.is_empty()).collect()
}

/// Takes from managers what another has changed, and what is gone.
fn take(entries: &mut [Entry], difference: &Difference) {
    if difference.is_empty() {
        return;
    }
    let lost = difference.modified.union(&difference.added).union(&difference.removed);
    for entry in entries {
        entry.fields = entry.fields.difference(&lost);
    }
}

/// Fields of every object that nobody owns.
fn stripped() -> &'static Set {
    static STRIPPED: OnceLock<Set> = OnceLock::new();
    STRIPPED.get_or_init(make_stripped)
}

fn make_stripped() -> Set {
    let mut set = Set::default();
    for name in ["apiVersion", "kind", "metadata"] {
        set.child_mut(&format!("f:{name}")).own = true;
    }
    let metadata = set.child_mut("f:metadata");
    for name in [
        "name",
        "namespace",
        "creationTimestamp",
        "selfLink",
        "uid",
        "clusterName",
        "generation",
        "managedFields",
        "resourceVersion",
    ] {
        metadata.child_mut(&format!("f:{name}")).own = true;
    }
    set
}

/// The fields kubectl applied on the client: conflicts over them are its own.
fn last_applied_fields(schema: &Schema, live: &Value) -> Set {
    let annotations = live.pointer("/metadata/annotations");
    let Some(text) = annotations.and_then(|all| all.get(LAST_APPLIED)).and_then(Value::as_str) else { return Set::default() };
    let mut set = crate::decode::json(text.as_bytes()).map(|decoded| typed(schema, &decoded.value).fields()).unwrap_or_default();
    set.child_mut("f:metadata").child_mut("f:annotations").child_mut(&format!("f:{LAST_APPLIED}")).own = true;
    set
}

fn conflict(conflicts: &[(Entry, Set)]) -> Status {
    let mut causes = Vec::new();
    let mut groups = Vec::new();
    for (entry, fields) in conflicts {
        let manager = entry.described();
        let paths = fields.paths();
        groups.push(format!(
            "conflicts with {manager}:\n{}",
            paths.iter().map(|path| format!("- {path}")).collect::<Vec<_>>().join("\n")
        ));
        causes.extend(paths.into_iter().map(|field| Cause {
            reason: CauseReason::FieldManagerConflict,
            message: format!("conflict with {manager}"),
            field,
        }));
    }
    groups.sort();
    let message = match causes.as_slice() {
        [one] => format!("Apply failed with 1 conflict: {}: {}", one.message, one.field),
        many => format!("Apply failed with {} conflicts: {}", many.len(), groups.join("\n")),
    };
    Status { causes, ..Status::new(Reason::Conflict, message) }
}

fn untyped(config: &Value, error: &typed::Error) -> Status {
    let text = |pointer: &str| config.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let name = match text("/metadata/namespace") {
        "" => format!("/{}", text("/metadata/name")),
        namespace => format!("{namespace}/{}", text("/metadata/name")),
    };
    let kind = format!("{name}; {}, Kind={}", text("/apiVersion"), text("/kind"));
    Status::new(Reason::InternalError, format!("failed to create typed patch object ({kind}): {error}"))
}

#[cfg(test)]
mod tests;
