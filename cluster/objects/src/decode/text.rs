//! JSON and YAML to values, naming the fields that stand twice.

use std::{cell::RefCell, fmt};

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::Decoded;

/// As deep as an object may nest; serde_json stops at 128 by itself.
const MAX_DEPTH: usize = 120;
/// As many values as an object may have, so that YAML aliases cannot multiply without end.
const MAX_NODES: usize = 2_000_000;
/// As many bytes of text as an object may have, for the same reason. A body has at most 3 MiB.
const MAX_TEXT: usize = 16 * 1024 * 1024;
/// As many duplicates as are named.
const MAX_DUPLICATES: usize = 100;

pub(super) fn json(body: &[u8]) -> Result<Decoded, serde_json::Error> {
    let walk = Walk::default();
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let value = Seed { walk: &walk, depth: 0, whole_floats: false }.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(walk.finish(value))
}

pub(super) fn yaml(body: &[u8]) -> Result<Decoded, String> {
    let walk = Walk::default();
    let options = serde_saphyr::options! {
        duplicate_keys: serde_saphyr::DuplicateKeyPolicy::PassThrough,
        legacy_octal_numbers: true,
        ignore_binary_tag_for_string: true,
        with_snippet: false,
    };
    let value = serde_saphyr::with_deserializer_from_slice_with_options(body, options, |deserializer| {
        Seed { walk: &walk, depth: 0, whole_floats: true }.deserialize(deserializer)
    })
    .map_err(|error| error.to_string())?;
    Ok(walk.finish(value))
}

/// What is noted on the way through a document.
#[derive(Default)]
struct Walk {
    path: RefCell<String>,
    duplicates: RefCell<Vec<String>>,
    nodes: RefCell<usize>,
    text: RefCell<usize>,
}

impl Walk {
    fn finish(self, value: Value) -> Decoded {
        Decoded { value, strict_errors: self.duplicates.into_inner() }
    }

    /// Runs something one step further down the path.
    fn below<T>(&self, step: impl FnOnce(&mut String), inside: impl FnOnce() -> T) -> T {
        let length = self.path.borrow().len();
        step(&mut self.path.borrow_mut());
        let result = inside();
        self.path.borrow_mut().truncate(length);
        result
    }

    fn note_duplicate(&self, name: &str) {
        let mut duplicates = self.duplicates.borrow_mut();
        if duplicates.len() >= MAX_DUPLICATES {
            return;
        }
        let path = self.path.borrow();
        let dot = if path.is_empty() { "" } else { "." };
        let message = format!("duplicate field {:?}", format!("{path}{dot}{name}"));
        if !duplicates.contains(&message) {
            duplicates.push(message);
        }
    }
}

#[derive(Clone, Copy)]
struct Seed<'a> {
    walk: &'a Walk,
    depth: usize,
    /// `1e3` is the integer 1000, as it is after YAML has become JSON.
    whole_floats: bool,
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        if self.depth > MAX_DEPTH {
            return Err(D::Error::custom(format!("exceeded max depth {MAX_DEPTH}")));
        }
        let mut nodes = self.walk.nodes.borrow_mut();
        *nodes += 1;
        if *nodes > MAX_NODES {
            return Err(D::Error::custom(format!("more than {MAX_NODES} values")));
        }
        drop(nodes);
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        if self.whole_floats && value.fract() == 0.0 && value.abs() < 9e15 {
            return Ok((value as i64).into());
        }
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom(format!("unsupported value: {value}")))
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Value, E> {
        self.visit_string(value.to_owned())
    }

    fn visit_string<E: serde::de::Error>(self, value: String) -> Result<Value, E> {
        let mut text = self.walk.text.borrow_mut();
        *text += value.len();
        if *text > MAX_TEXT {
            return Err(E::custom(format!("more than {MAX_TEXT} bytes of text")));
        }
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        loop {
            let seed = Self { depth: self.depth + 1, ..self };
            let next = self.walk.below(|path| path.push_str(&format!("[{}]", list.len())), || items.next_element_seed(seed))?;
            match next {
                Some(item) => list.push(item),
                None => return Ok(Value::Array(list)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(name) = fields.next_key_seed(Key)? {
            let seed = Self { depth: self.depth + 1, ..self };
            let step = |path: &mut String| {
                if !path.is_empty() {
                    path.push('.');
                }
                path.push_str(&name);
            };
            let value = self.walk.below(step, || fields.next_value_seed(seed))?;
            if map.contains_key(&name) {
                self.walk.note_duplicate(&name);
            }
            map.insert(name, value);
        }
        Ok(Value::Object(map))
    }
}

/// A key: any scalar, as text.
struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Visitor<'_> for Key {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, value: &str) -> Result<String, E> {
        Ok(value.to_owned())
    }

    fn visit_string<E>(self, value: String) -> Result<String, E> {
        Ok(value)
    }

    fn visit_bool<E>(self, value: bool) -> Result<String, E> {
        Ok(value.to_string())
    }

    fn visit_i64<E>(self, value: i64) -> Result<String, E> {
        Ok(value.to_string())
    }

    fn visit_u64<E>(self, value: u64) -> Result<String, E> {
        Ok(value.to_string())
    }

    fn visit_f64<E>(self, value: f64) -> Result<String, E> {
        Ok(value.to_string())
    }

    fn visit_unit<E>(self) -> Result<String, E> {
        Ok("null".to_owned())
    }
}
