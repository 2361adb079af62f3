//! What the API types' sources say beside their schemas: protobuf numbers, list and map semantics, patch strategies.

use std::{collections::HashMap, sync::OnceLock};

/// Written by `tools/fields.py`; its first lines say how to read it.
const TABLE: &str = include_str!("fields.txt");

/// A type of the Kubernetes API.
#[derive(Debug, Default)]
pub(crate) struct TypeFacts {
    /// Server-side apply takes values of this type as a whole.
    pub(crate) atomic: bool,
    /// Its fields.
    pub(crate) fields: Vec<FieldFacts>,
}

/// How often a field's value stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    One,
    List,
    /// Keys are strings.
    Map,
}

/// A field of a type.
#[derive(Debug)]
pub(crate) struct FieldFacts {
    /// Protobuf field number.
    pub(crate) number: u32,
    /// Name in JSON; empty where the fields of the target stand in its place (an embedded Go struct).
    pub(crate) name: &'static str,
    pub(crate) shape: Shape,
    /// A protobuf scalar, or the full name of a type.
    pub(crate) target: &'static str,
    /// `atomic`, `set` or `map`; empty where the source does not say.
    pub(crate) list_type: &'static str,
    pub(crate) list_map_keys: Vec<&'static str>,
    /// Server-side apply takes the map or struct as a whole.
    pub(crate) atomic: bool,
    /// `merge`, `retainKeys` or both.
    pub(crate) patch_strategy: &'static str,
    pub(crate) merge_key: Option<&'static str>,
    /// The default the sources state, which is part of a list map's key where the field is one.
    pub(crate) default: Option<&'static str>,
}

/// The facts of a type by its full name, `io.k8s.api.core.v1.Pod`.
pub(crate) fn type_facts(name: &str) -> Option<&'static TypeFacts> {
    static TYPES: OnceLock<HashMap<&'static str, TypeFacts>> = OnceLock::new();
    TYPES.get_or_init(parse).get(name)
}

/// The facts of a field of a type, those of embedded structs included.
pub(crate) fn field_facts(type_name: &str, field: &str) -> Option<&'static FieldFacts> {
    let facts = type_facts(type_name)?;
    facts.fields.iter().find(|candidate| candidate.name == field).or_else(|| {
        let embedded = facts.fields.iter().filter(|candidate| candidate.name.is_empty());
        embedded.filter_map(|inline| field_facts(inline.target, field)).next()
    })
}

fn parse() -> HashMap<&'static str, TypeFacts> {
    let mut types: HashMap<&'static str, TypeFacts> = HashMap::new();
    let mut current = "";
    for line in TABLE.lines().filter(|line| !line.starts_with('#')) {
        if let Some(field) = line.strip_prefix(' ') {
            if let (Some(facts), Some(field)) = (types.get_mut(current), parse_field(field)) {
                facts.fields.push(field);
            }
        } else {
            let (name, atomic) = line.split_once(' ').map_or((line, false), |(name, _)| (name, true));
            types.insert(name, TypeFacts { atomic, fields: Vec::new() });
            current = name;
        }
    }
    types
}

fn parse_field(line: &'static str) -> Option<FieldFacts> {
    let mut words = line.split(' ');
    let number = words.next()?.parse().ok()?;
    let name = words.next().map(|name| if name == "inline" { "" } else { name })?;
    let target = words.next()?;
    let (shape, target) = match (target.strip_prefix("[]"), target.strip_prefix("{}")) {
        (Some(item), _) => (Shape::List, item),
        (_, Some(value)) => (Shape::Map, value),
        _ => (Shape::One, target),
    };
    let mut field = FieldFacts {
        number,
        name,
        shape,
        target,
        list_type: "",
        list_map_keys: Vec::new(),
        atomic: false,
        patch_strategy: "",
        merge_key: None,
        default: None,
    };
    for (fact, value) in words.filter_map(|word| word.split_once('=')) {
        match fact {
            "list" => field.list_type = value,
            "keys" => field.list_map_keys = value.split(',').collect(),
            "map" | "struct" => field.atomic = value == "atomic",
            "patch" => field.patch_strategy = value,
            "key" => field.merge_key = Some(value),
            "default" => field.default = Some(value),
            _ => {}
        }
    }
    Some(field)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_read_whole() {
        let lines = TABLE.lines().filter(|line| line.starts_with(' ')).count();
        let fields: usize = parse().values().map(|facts| facts.fields.len()).sum();
        assert_eq!(fields, lines);
    }

    #[test]
    fn ports_of_a_service() {
        let ports = field_facts("io.k8s.api.core.v1.ServiceSpec", "ports").unwrap();
        assert_eq!((ports.list_type, ports.merge_key), ("map", Some("port")));
        assert_eq!(ports.list_map_keys, ["port", "protocol"]);
    }

    #[test]
    fn embedded_structs_are_looked_through() {
        assert!(field_facts("io.k8s.api.core.v1.Volume", "emptyDir").is_some());
    }
}
