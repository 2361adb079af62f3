//! Objects as trees of owned fields: which paths an object has, how two differ, how one is merged into another.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::set::Set;
use crate::schema::node::{Cursor, ListType};

/// A value whose schema may be unknown: below fields that are kept without a schema, maps are taken apart and lists are not.
#[derive(Clone, Copy)]
pub(super) struct Typed<'a, 'v> {
    pub(super) at: Option<Cursor<'a>>,
    pub(super) value: &'v Value,
}

/// A part of a value.
struct Part<'a, 'v> {
    element: String,
    typed: Typed<'a, 'v>,
    /// The part itself is owned, not only what is in it.
    own: bool,
}

/// Why an object cannot be taken apart.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Error {
    /// Two items with one key.
    #[error("{path}: duplicate entries for key {key}")]
    Duplicate { path: String, key: String },
    /// An item without its key.
    #[error(
        "{path}: element {index}: associative list with keys has an element that omits key field {key:?} (and doesn't have default value)"
    )]
    MissingKey { path: String, index: usize, key: String },
}

impl<'a, 'v> Typed<'a, 'v> {
    fn with(self, value: &Value) -> Typed<'a, '_> {
        Typed { at: self.at, value }
    }

    /// The parts of a value that is taken apart; `None` for one that is owned as a whole.
    fn parts(self) -> Option<Vec<Part<'a, 'v>>> {
        match self.value {
            Value::Object(fields) if !self.is_atomic_map() => {
                Some(fields.iter().map(|(name, value)| self.field(name, value)).collect())
            }
            Value::Array(items) => {
                let item_schema = self.at.and_then(Cursor::items);
                let part =
                    |element: String, item: &'v Value| Part { element, typed: Typed { at: item_schema, value: item }, own: true };
                match &self.at?.node.list_type {
                    ListType::Atomic => None,
                    ListType::Set => Some(items.iter().map(|item| part(format!("v:{item}"), item)).collect()),
                    ListType::Map(keys) => Some(
                        items.iter().enumerate().map(|(index, item)| part(self.item_element(keys, index, item), item)).collect(),
                    ),
                }
            }
            _ => None,
        }
    }

    fn is_atomic_map(self) -> bool {
        // A built-in field without a schema (RawExtension) is taken as a whole.
        self.at.is_some_and(|at| at.node.atomic || at.schema.is_builtin() && at.node.preserve_unknown)
    }

    fn field(self, name: &str, value: &'v Value) -> Part<'a, 'v> {
        let declared = self.at.is_some_and(|at| at.property(name).is_some());
        let own = !declared || value.is_null() || value.as_object().is_some_and(Map::is_empty);
        Part { element: format!("f:{name}"), typed: Typed { at: self.at.and_then(|at| at.field(name)), value }, own }
    }

    /// `k:{"containerPort":80,"protocol":"TCP"}`; keys that are left out count with their default.
    fn item_element(self, keys: &[Box<str>], index: usize, item: &Value) -> String {
        let default = |key: &str| self.at?.items()?.property(key)?.node.default.as_ref();
        let key = |key: &str| Some((key.to_owned(), item.get(key).or_else(|| default(key))?.clone()));
        let found: BTreeMap<String, Value> = keys.iter().filter_map(|name| key(name)).collect();
        if found.is_empty() { format!("i:{index}") } else { format!("k:{}", serde_json::json!(found)) }
    }

    /// All paths of the value.
    pub(super) fn fields(self) -> Set {
        let mut set = Set::default();
        self.collect(&mut set);
        set
    }

    fn collect(self, set: &mut Set) {
        match self.parts() {
            None => set.own = true,
            Some(parts) => {
                for part in parts {
                    let child = set.child_mut(&part.element);
                    part.typed.collect(child);
                    child.own |= part.own;
                }
            }
        }
    }

    /// All paths of the value, its own and those of maps and lists included. Not those of built-in structs: in Go they are there
    /// before anyone sets them.
    fn collect_all(self, set: &mut Set) {
        set.own |= self.at.is_none_or(|at| at.node.type_name.is_none());
        match self.parts() {
            None => set.own = true,
            Some(parts) => {
                for part in parts {
                    let child = set.child_mut(&part.element);
                    part.typed.collect_all(child);
                    child.own |= part.own;
                }
            }
        }
    }

    /// Every path of the value, structs included.
    pub(super) fn every_path(self) -> Set {
        let mut set = Set { own: true, ..Set::default() };
        for part in self.parts().into_iter().flatten() {
            set.children.insert(part.element, part.typed.every_path());
        }
        set
    }

    /// Refuses lists whose items cannot be told apart.
    pub(super) fn check(self, path: &str) -> Result<(), Error> {
        if let (Value::Array(items), Some(ListType::Map(keys))) = (self.value, self.at.map(|at| &at.node.list_type)) {
            for (index, item) in items.iter().enumerate() {
                let default = |key: &str| self.at?.items()?.property(key)?.node.default.as_ref();
                if let Some(key) = keys.iter().find(|key| item.get(&***key).is_none() && default(key).is_none()) {
                    return Err(Error::MissingKey { path: path.to_owned(), index, key: key.to_string() });
                }
            }
        }
        let mut seen = std::collections::BTreeSet::new();
        for part in self.parts().into_iter().flatten() {
            let mut step = Set::default();
            step.child_mut(&part.element).own = true;
            let step = step.paths().pop().unwrap_or_default();
            if !seen.insert(part.element) {
                return Err(Error::Duplicate { path: path.to_owned(), key: step });
            }
            part.typed.check(&format!("{path}{step}"))?;
        }
        Ok(())
    }
}

/// How an object differs from what it was.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Difference {
    pub(super) added: Set,
    pub(super) modified: Set,
    pub(super) removed: Set,
}

impl Difference {
    pub(super) fn is_empty(&self) -> bool {
        self.added.is_empty() && self.modified.is_empty() && self.removed.is_empty()
    }

    fn attach(&mut self, element: &str, below: Self) {
        for (all, subset) in
            [(&mut self.added, below.added), (&mut self.modified, below.modified), (&mut self.removed, below.removed)]
        {
            if !subset.is_empty() {
                all.attach(element.to_owned(), subset);
            }
        }
    }
}

/// Compares two values of one schema.
pub(super) fn compare(old: Typed<'_, '_>, new: Typed<'_, '_>) -> Difference {
    let mut difference = Difference::default();
    if old.value == new.value {
        return difference;
    }
    if let (Value::Object(old_fields), Value::Object(new_fields)) = (old.value, new.value) {
        if old.is_atomic_map() {
            difference.modified.own = true;
            return difference;
        }
        // Most fields of an object stay as they were: only the others are looked into.
        for (name, value) in new_fields {
            let before = old_fields.get(name);
            if before == Some(value) {
                continue;
            }
            let part = new.field(name, value);
            difference.attach(&part.element, compare_parts(before.map(|before| old.field(name, before)), &part));
        }
        for (name, value) in old_fields.iter().filter(|(name, _)| !new_fields.contains_key(*name)) {
            let part = old.field(name, value);
            difference.attach(&part.element, Difference { removed: whole(&part), ..Difference::default() });
        }
        return difference;
    }
    match (old.parts(), new.parts()) {
        (Some(old_parts), Some(new_parts)) => {
            let mut old_parts: BTreeMap<String, Part<'_, '_>> =
                old_parts.into_iter().map(|part| (part.element.clone(), part)).collect();
            for part in new_parts {
                difference.attach(&part.element, compare_parts(old_parts.remove(&part.element), &part));
            }
            for (element, part) in old_parts {
                difference.attach(&element, Difference { removed: whole(&part), ..Difference::default() });
            }
        }
        (None, None) => difference.modified.own = true,
        // From a scalar, or null, to something that is taken apart, or back.
        (Some(_), _) => {
            difference.removed = old.fields();
            difference.modified.own = true;
        }
        (None, Some(_)) => {
            difference.added = new.fields();
            difference.removed.own = true;
        }
    }
    difference
}

fn compare_parts(old: Option<Part<'_, '_>>, new: &Part<'_, '_>) -> Difference {
    let Some(old) = old else {
        return Difference { added: whole(new), ..Difference::default() };
    };
    let mut difference = compare(old.typed, new.typed);
    // A declared field that is now empty (or no more so) is owned by itself (or by what is in it).
    difference.added.own |= new.own && !old.own;
    difference
}

/// All paths of a part that is there on one side only: those of maps and lists too.
fn whole(part: &Part<'_, '_>) -> Set {
    let mut set = Set::default();
    part.typed.collect_all(&mut set);
    set.own |= part.own;
    set
}

/// Merges a configuration into a live value.
pub(super) fn merge(live: Typed<'_, '_>, config: Typed<'_, '_>) -> Value {
    match (live.value, config.value) {
        (Value::Object(old), Value::Object(new)) if !config.is_atomic_map() => {
            let mut merged = old.clone();
            for (name, value) in new {
                let config = config.field(name, value).typed;
                let value = match old.get(name) {
                    Some(old) => merge(config.with(old), config),
                    None => value.clone(),
                };
                merged.insert(name.clone(), value);
            }
            Value::Object(merged)
        }
        (Value::Array(_), Value::Array(_)) => match (live.parts(), config.parts()) {
            (Some(old), Some(new)) => Value::Array(merge_items(old, new)),
            _ => config.value.clone(),
        },
        _ => config.value.clone(),
    }
}

/// The configuration's order holds; items that only the live list has keep their place before the item they stood before.
fn merge_items(old: Vec<Part<'_, '_>>, new: Vec<Part<'_, '_>>) -> Vec<Value> {
    let places: BTreeMap<&str, usize> = old.iter().enumerate().map(|(place, part)| (part.element.as_str(), place)).collect();
    let configured: std::collections::BTreeSet<&str> = new.iter().map(|part| part.element.as_str()).collect();
    let mut others = old.iter().enumerate().filter(|(_, part)| !configured.contains(part.element.as_str())).peekable();
    let mut merged = Vec::with_capacity(old.len() + new.len());
    for part in &new {
        match places.get(part.element.as_str()) {
            Some(place) => {
                while let Some((_, other)) = others.next_if(|(other_place, _)| other_place < place) {
                    merged.push(other.typed.value.clone());
                }
                merged.push(merge(old[*place].typed, part.typed));
            }
            None => merged.push(part.typed.value.clone()),
        }
    }
    merged.extend(others.map(|(_, other)| other.typed.value.clone()));
    merged
}

/// Removes what was applied before (`last`) and is no more in anyone's set (`managed`). `None`: the value goes as a whole.
pub(super) fn prune(typed: Typed<'_, '_>, last: &Set, managed: &Set) -> Option<Value> {
    if last.is_empty() {
        return Some(typed.value.clone());
    }
    if managed.is_empty() {
        return None;
    }
    let Some(parts) = typed.parts() else {
        // Owned as a whole; someone else's ownership of what was in it once keeps it.
        return Some(typed.value.clone());
    };
    let nothing = Set::default();
    let kept = parts.into_iter().filter_map(|part| {
        let last = last.child(&part.element).unwrap_or(&nothing);
        let managed = managed.child(&part.element).unwrap_or(&nothing);
        prune(part.typed, last, managed).map(|value| (part.element, value))
    });
    Some(match typed.value {
        Value::Array(_) => Value::Array(kept.map(|(_, value)| value).collect()),
        _ => Value::Object(
            kept.map(|(element, value)| (element.strip_prefix("f:").unwrap_or(&element).to_owned(), value)).collect(),
        ),
    })
}
