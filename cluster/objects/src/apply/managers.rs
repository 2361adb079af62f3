//! `metadata.managedFields`: who owns what.

use serde_json::{Map, Value, json};

use super::{Operation, set::Set};

/// More managers than this that only update are merged into one; Kubernetes' own limit.
const MAX_UPDATERS: usize = 10;
const ANCIENT: &str = "ancient-changes";

/// A manager, the way it writes, and what it owns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) manager: String,
    pub(super) operation: Operation,
    pub(super) api_version: String,
    pub(super) subresource: String,
    pub(super) time: Option<String>,
    pub(super) fields: Set,
}

impl Entry {
    /// Whether this is the entry of such a writer. An applier's stays the same when it applies with another version.
    pub(super) fn is(&self, manager: &str, operation: Operation, api_version: &str, subresource: &str) -> bool {
        self.manager == manager
            && self.operation == operation
            && self.subresource == subresource
            && (operation == Operation::Apply || self.api_version == api_version)
    }

    /// `"kubectl" with subresource "scale" using apps/v1`
    pub(super) fn described(&self) -> String {
        let mut text = format!("{:?}", self.manager);
        if !self.subresource.is_empty() {
            text.push_str(&format!(" with subresource {:?}", self.subresource));
        }
        if self.operation == Operation::Update {
            text.push_str(&format!(" using {}", self.api_version));
        }
        text
    }

    fn read(entry: &Value) -> Option<Self> {
        let text = |name: &str| entry.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let operation = match text("operation").as_str() {
            "Apply" => Operation::Apply,
            "Update" => Operation::Update,
            _ => return None,
        };
        let api_version = text("apiVersion");
        if api_version.is_empty() || text("fieldsType") != "FieldsV1" {
            return None;
        }
        let fields = match entry.get("fieldsV1") {
            Some(fields) => Set::from_fields(fields)?,
            None => Set::default(),
        };
        let time = Some(text("time")).filter(|time| !time.is_empty());
        Some(Self { manager: text("manager"), operation, api_version, subresource: text("subresource"), time, fields })
    }

    fn write(&self) -> Value {
        let operation = match self.operation {
            Operation::Apply => "Apply",
            Operation::Update => "Update",
        };
        let mut entry = json!({"manager": self.manager, "operation": operation, "apiVersion": self.api_version,
            "fieldsType": "FieldsV1", "fieldsV1": self.fields.to_fields()});
        if let Some(time) = &self.time {
            entry["time"] = time.as_str().into();
        }
        if !self.subresource.is_empty() {
            entry["subresource"] = self.subresource.as_str().into();
        }
        entry
    }
}

/// The entries of an object. `None` where they are malformed.
pub(super) fn read(object: &Value) -> Option<Vec<Entry>> {
    match object.pointer("/metadata/managedFields") {
        None | Some(Value::Null) => Some(Vec::new()),
        Some(Value::Array(entries)) => entries.iter().map(Entry::read).collect(),
        Some(_) => None,
    }
}

/// Whether a request asks to forget all managers: `[]` or `[{}]`.
pub(super) fn is_reset(object: &Value) -> bool {
    let entries = object.pointer("/metadata/managedFields").and_then(Value::as_array);
    entries.is_some_and(|entries| entries.iter().all(|entry| entry.as_object().is_some_and(Map::is_empty)))
}

/// Writes the entries that own something, in Kubernetes' order.
pub(super) fn write(object: &mut Value, mut entries: Vec<Entry>) {
    entries.retain(|entry| !entry.fields.is_empty());
    let order = |entry: &Entry| {
        let rank = u8::from(entry.operation == Operation::Update);
        (rank, entry.time.clone(), entry.manager.clone(), entry.api_version.clone(), entry.subresource.clone())
    };
    entries.sort_by_key(order);
    merge_ancient(&mut entries);
    put(object, entries.iter().map(Entry::write).collect());
}

fn put(object: &mut Value, entries: Vec<Value>) {
    let Some(fields) = object.as_object_mut() else { return };
    let metadata = fields.entry("metadata").or_insert_with(|| json!({}));
    let Some(metadata) = metadata.as_object_mut() else { return };
    if entries.is_empty() {
        metadata.remove("managedFields");
    } else {
        metadata.insert("managedFields".to_owned(), Value::Array(entries));
    }
}

/// The everyday update: the manager already owns all it changes, and nobody else owns any of it, so that at most a time is new.
/// `false` where there is more to do.
pub(super) fn update_time(
    object: &mut Value,
    live: &Value,
    is_writer: impl Fn(&Value) -> bool,
    changed: &Set,
    lost: &Set,
    time: &str,
) -> bool {
    let pointer = "/metadata/managedFields";
    let (Some(entries), Some(before)) = (object.pointer(pointer).and_then(Value::as_array), live.pointer(pointer)) else {
        return false;
    };
    let Some(own) = entries.iter().position(&is_writer) else { return false };
    let unaffected = entries.iter().enumerate().all(|(index, entry)| {
        let Some(fields) = entry.get("fieldsV1") else { return false };
        if index == own { changed.is_within(fields) } else { !lost.touches(fields) }
    });
    if !unaffected || before.as_array() != Some(entries) {
        return false;
    }
    let mut entries = entries.clone();
    entries[own]["time"] = time.into();
    let order = |entry: &Value| {
        let text = |name: &str| entry.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        (text("operation"), text("time"), text("manager"), text("apiVersion"), text("subresource"))
    };
    entries.sort_by_key(order);
    put(object, entries);
    true
}

/// Keeps the number of updaters bounded: the oldest become one.
fn merge_ancient(entries: &mut Vec<Entry>) {
    while entries.iter().filter(|entry| entry.operation == Operation::Update).count() > MAX_UPDATERS {
        let Some(oldest) = entries.iter().position(|entry| entry.operation == Operation::Update && entry.manager != ANCIENT)
        else {
            return;
        };
        let oldest = entries.remove(oldest);
        match entries.iter_mut().find(|entry| entry.is(ANCIENT, Operation::Update, &oldest.api_version, "")) {
            Some(ancient) => {
                ancient.fields = ancient.fields.union(&oldest.fields);
                ancient.time = oldest.time;
            }
            None => {
                let place = entries.iter().position(|entry| entry.operation == Operation::Update).unwrap_or(entries.len());
                entries.insert(place, Entry { manager: ANCIENT.to_owned(), subresource: String::new(), ..oldest });
            }
        }
    }
}
