//! Strategic merge patch: a merge patch that knows which lists are merged by key.
//!
//! Directives: `$patch: replace|delete|merge` in objects and list items, `$retainKeys`, `$setElementOrder/<list>`,
//! `$deleteFromPrimitiveList/<list>`.

use serde_json::{Map, Value};

use crate::schema::node::Cursor;

const PATCH: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const SET_ELEMENT_ORDER: &str = "$setElementOrder/";
const DELETE_FROM_PRIMITIVE_LIST: &str = "$deleteFromPrimitiveList/";

/// Why a patch cannot be applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Error {
    #[error("unable to decode patch: unrecognized $patch value {0}; use replace, delete or merge")]
    Directive(Value),
    #[error("merging lists cannot yet be specified in the patch")]
    MergeInList,
    #[error("unable to decode patch: {0} must be a list")]
    NotAList(String),
    #[error("map: {item} does not contain declared merge key: {key}")]
    NoMergeKey { item: Value, key: String },
    #[error("unable to decode patch: items of {0} are of different types in the object and in the patch")]
    MixedList(String),
}

type Object = Map<String, Value>;

/// What `$patch` says.
#[derive(PartialEq, Eq)]
enum Directive {
    Merge,
    Replace,
    Delete,
}

fn directive(patch: &Object) -> Result<Directive, Error> {
    match patch.get(PATCH) {
        None => Ok(Directive::Merge),
        Some(Value::String(name)) if name == "merge" => Ok(Directive::Merge),
        Some(Value::String(name)) if name == "replace" => Ok(Directive::Replace),
        Some(Value::String(name)) if name == "delete" => Ok(Directive::Delete),
        Some(other) => Err(Error::Directive(other.clone())),
    }
}

/// Merges a patch into an object. `at` is the schema of both; below fields it does not know, lists are replaced.
pub(super) fn merge(at: Cursor<'_>, target: &Object, patch: &Object) -> Result<Object, Error> {
    merge_object(Some(at), target, patch)
}

fn merge_object(at: Option<Cursor<'_>>, target: &Object, patch: &Object) -> Result<Object, Error> {
    match directive(patch)? {
        Directive::Merge => {}
        Directive::Replace => return Ok(clean_object(patch, true)),
        Directive::Delete => return Ok(Object::new()),
    }
    let mut merged = target.clone();
    if let Some(retained) = patch.get(RETAIN_KEYS) {
        let retained = retained.as_array().ok_or_else(|| Error::NotAList(RETAIN_KEYS.to_owned()))?;
        merged.retain(|key, _| retained.iter().any(|name| name == key));
    }
    for (name, change) in patch {
        if name == PATCH || name == RETAIN_KEYS || name.starts_with(SET_ELEMENT_ORDER) {
            continue;
        }
        if let Some(list) = name.strip_prefix(DELETE_FROM_PRIMITIVE_LIST) {
            delete_from_primitive_list(&mut merged, list, change)?;
            continue;
        }
        let field = at.and_then(|at| at.field(name));
        if change.is_null() {
            merged.remove(name);
            continue;
        }
        let value = match (merged.get(name), change) {
            (Some(Value::Object(old)), Value::Object(change)) => Value::Object(merge_object(field, old, change)?),
            (old, Value::Array(items)) if field.is_some_and(|field| field.node.patch.merge) => {
                let old = old.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
                let order = patch.get(&format!("{SET_ELEMENT_ORDER}{name}"));
                Value::Array(merge_list(field, name, old, items, order)?)
            }
            (None, Value::Object(change)) => match merge_object(field, &Object::new(), change)? {
                // A deletion of what is not there leaves nothing behind.
                empty if empty.is_empty() && directive(change)? == Directive::Delete => continue,
                made => Value::Object(made),
            },
            (_, change) => clean(change),
        };
        merged.insert(name.clone(), value);
    }
    // A list may be put in another order without a change to its items.
    for (name, order) in patch {
        let Some(list) = name.strip_prefix(SET_ELEMENT_ORDER) else { continue };
        let mergeable = at.and_then(|at| at.field(list)).filter(|field| field.node.patch.merge);
        if patch.contains_key(list) || mergeable.is_none() {
            continue;
        }
        let key = mergeable.and_then(|field| field.node.patch.merge_key.as_deref());
        let order = order.as_array().ok_or_else(|| Error::NotAList(name.clone()))?;
        if let Some(Value::Array(items)) = merged.get_mut(list) {
            *items = in_order(std::mem::take(items), order, key);
        }
    }
    Ok(merged)
}

fn delete_from_primitive_list(object: &mut Object, list: &str, gone: &Value) -> Result<(), Error> {
    let gone = gone.as_array().ok_or_else(|| Error::NotAList(format!("{DELETE_FROM_PRIMITIVE_LIST}{list}")))?;
    if let Some(Value::Array(items)) = object.get_mut(list) {
        items.retain(|item| !gone.contains(item));
    }
    Ok(())
}

/// Merges a list: objects by their merge key, scalars as a set.
fn merge_list(
    field: Option<Cursor<'_>>,
    name: &str,
    old: &[Value],
    changes: &[Value],
    order: Option<&Value>,
) -> Result<Vec<Value>, Error> {
    let key = field.and_then(|field| field.node.patch.merge_key.as_deref());
    let order = match order {
        Some(order) => Some(order.as_array().ok_or_else(|| Error::NotAList(format!("{SET_ELEMENT_ORDER}{name}")))?),
        None => None,
    };
    let objects = changes.iter().chain(old).any(Value::is_object);
    if objects && !changes.iter().chain(old).all(Value::is_object) {
        return Err(Error::MixedList(name.to_owned()));
    }
    let merged = match key.filter(|_| objects) {
        Some(key) => merge_objects(field.and_then(Cursor::items), key, old, changes)?,
        None if objects => changes.iter().map(clean).collect(),
        None => {
            let mut merged = old.to_vec();
            for change in changes {
                if !merged.contains(change) {
                    merged.push(change.clone());
                }
            }
            merged
        }
    };
    Ok(match order {
        Some(order) => in_order(merged, order, key),
        None => merged,
    })
}

fn merge_objects(at: Option<Cursor<'_>>, key: &str, old: &[Value], changes: &[Value]) -> Result<Vec<Value>, Error> {
    let (marked, changes): (Vec<&Object>, Vec<&Object>) =
        changes.iter().filter_map(Value::as_object).partition(|change| change.contains_key(PATCH));
    let key_of = |change: &Object| {
        change.get(key).cloned().ok_or_else(|| Error::NoMergeKey { item: Value::Object(change.clone()), key: key.to_owned() })
    };
    let mut merged = old.to_vec();
    for change in marked {
        match directive(change)? {
            // One item that says so replaces the whole list by the items without directives.
            Directive::Replace => return Ok(changes.iter().map(|other| Value::Object(clean_object(other, true))).collect()),
            Directive::Delete => {
                let gone = key_of(change)?;
                merged.retain(|item| item.get(key) != Some(&gone));
            }
            Directive::Merge => return Err(Error::MergeInList),
        }
    }
    for change in changes {
        let id = key_of(change)?;
        match merged.iter_mut().find(|item| item.get(key) == Some(&id)) {
            Some(item) => {
                let old = item.as_object().cloned().unwrap_or_default();
                *item = Value::Object(merge_object(at, &old, change)?);
            }
            None => merged.push(Value::Object(merge_object(at, &Object::new(), change)?)),
        }
    }
    Ok(merged)
}

/// Puts items in an order given by keys (`[{"name": "a"}, …]`, or the scalars themselves). Items that the order does not name keep
/// their place behind the item they followed.
fn in_order(items: Vec<Value>, order: &[Value], key: Option<&str>) -> Vec<Value> {
    let rank = |item: &Value| {
        order.iter().position(|wanted| match key {
            Some(key) if item.is_object() => wanted.get(key).is_some() && wanted.get(key) == item.get(key),
            _ => wanted == item,
        })
    };
    let (named, others): (Vec<_>, Vec<_>) =
        items.into_iter().enumerate().map(|(place, item)| (rank(&item), place, item)).partition(|(rank, ..)| rank.is_some());
    let mut named: Vec<_> = named;
    named.sort_by_key(|(rank, ..)| *rank);
    // What only the server has stands before the first named item that came after it.
    let mut sorted = Vec::with_capacity(named.len() + others.len());
    let mut others = others.into_iter().peekable();
    for (_, place, item) in named {
        while let Some((_, _, other)) = others.next_if(|(_, other_place, _)| *other_place < place) {
            sorted.push(other);
        }
        sorted.push(item);
    }
    sorted.extend(others.map(|(_, _, item)| item));
    sorted
}

/// A value of a patch where there is nothing to merge it into: without directives and nulls.
fn clean(value: &Value) -> Value {
    match value {
        Value::Object(fields) => Value::Object(clean_object(fields, false)),
        Value::Array(items) => {
            let deleted = |item: &&Value| item.get(PATCH).is_some_and(|directive| directive == "delete");
            let bare = |item: &&Value| item.as_object().is_some_and(|fields| fields.len() == 1 && fields.contains_key(PATCH));
            items.iter().filter(|item| !deleted(item) && !bare(item)).map(clean).collect()
        }
        other => other.clone(),
    }
}

fn clean_object(fields: &Object, keep_nulls: bool) -> Object {
    let is_directive = |name: &str| {
        name == PATCH
            || name == RETAIN_KEYS
            || name.starts_with(SET_ELEMENT_ORDER)
            || name.starts_with(DELETE_FROM_PRIMITIVE_LIST)
    };
    let kept = fields.iter().filter(|(name, value)| !is_directive(name) && (keep_nulls || !value.is_null()));
    kept.map(|(name, value)| (name.clone(), clean(value))).collect()
}
