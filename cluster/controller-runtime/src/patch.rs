//! JSON merge patches that say only what changed.

use serde::Serialize;
use serde_json::{Map, Value};

/// The merge patch that makes `new` of `old`, or `None` if they are equal. Lists are replaced as a whole (RFC 7386).
pub fn merge_patch<T: Serialize>(old: &T, new: &T) -> Option<Value> {
    // Kubernetes' own types always serialize; a value that does not would be equal to nothing.
    let old = serde_json::to_value(old).unwrap_or_default();
    let new = serde_json::to_value(new).unwrap_or_default();
    difference(&old, &new)
}

fn difference(old: &Value, new: &Value) -> Option<Value> {
    match (old, new) {
        _ if old == new => None,
        (Value::Object(old), Value::Object(new)) => {
            let gone = old.keys().filter(|key| !new.contains_key(*key)).map(|key| (key.clone(), Value::Null));
            let changed = new.iter().filter_map(|(key, value)| match old.get(key) {
                Some(known) => difference(known, value).map(|patch| (key.clone(), patch)),
                None => Some((key.clone(), value.clone())),
            });
            Some(Value::Object(gone.chain(changed).collect::<Map<_, _>>()))
        }
        _ => Some(new.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_differences_are_said() {
        let old = json!({"a": 1, "b": {"c": 1, "d": 2}, "e": [1], "f": 0});
        let new = json!({"a": 1, "b": {"c": 1, "d": 3}, "e": [1, 2], "g": {"h": 1}});
        assert_eq!(merge_patch(&old, &new), Some(json!({"b": {"d": 3}, "e": [1, 2], "f": null, "g": {"h": 1}})));
        assert_eq!(merge_patch(&old, &old), None);
    }
}
