//! Schemas of custom resources: the rules of structural schemas, and from such a schema to nodes.

use serde_json::{Map, Value, json};

use super::{
    Schema, builtin,
    cel::Rules,
    constraints::{Constraints, Pattern},
    messages::{forbidden, invalid, not_supported, required},
    node::{ListType, Node, NodeId, Type},
};
use crate::Cause;

/// As deep as a schema may nest; the same bound CEL compilation has.
const MAX_DEPTH: usize = 60;
const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];

pub(super) fn schema(source: &Value) -> Result<Schema, Vec<Cause>> {
    let mut builder = Builder { nodes: builtin::object_meta(), causes: Vec::new() };
    let object_meta = 0;
    let root = builder.root(source, object_meta);
    if builder.causes.is_empty() {
        Ok(Schema { nodes: builder.nodes, root, builtin: false, rules: Rules::of(source) })
    } else {
        Err(builder.causes)
    }
}

struct Builder {
    nodes: Vec<Node>,
    causes: Vec<Cause>,
}

/// Where in the schema a node stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Root,
    Property,
    Item,
    AdditionalProperty,
    /// Below `allOf`, `anyOf`, `oneOf` or `not`: constraints only.
    Junctor,
}

impl Builder {
    fn add(&mut self, node: Node) -> NodeId {
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    fn root(&mut self, source: &Value, object_meta: NodeId) -> NodeId {
        let root = self.node(source, "", Place::Root, 0);
        let text = self.add(Node { r#type: Type::String, ..Node::default() });
        let declared = self.nodes[root].properties.get("metadata").copied();
        // A CRD may constrain metadata.name; the shape of metadata is Kubernetes'.
        if let Some(metadata) = declared {
            let wrapper = self.add(Node { properties: [("metadata".into(), metadata)].into(), ..Node::default() });
            self.nodes[root].constraints.get_or_insert_default().all_of.push(wrapper);
        }
        for (name, node) in [("apiVersion", text), ("kind", text), ("metadata", object_meta)] {
            self.nodes[root].properties.insert(name.into(), node);
        }
        root
    }

    fn node(&mut self, schema: &Value, path: &str, place: Place, depth: usize) -> NodeId {
        let Some(fields) = schema.as_object() else {
            self.causes.push(invalid(trimmed(path), schema, "must be a schema"));
            return self.add(Node::default());
        };
        if depth > MAX_DEPTH {
            self.causes.push(forbidden(trimmed(path), &format!("schemas may not nest deeper than {MAX_DEPTH}")));
            return self.add(Node::default());
        }
        self.forbidden_keywords(fields, path, place);
        let mut node = Node {
            r#type: self.node_type(fields, path, place),
            nullable: flag(fields, "nullable"),
            preserve_unknown: flag(fields, "x-kubernetes-preserve-unknown-fields"),
            embedded_resource: flag(fields, "x-kubernetes-embedded-resource"),
            atomic: text(fields, "x-kubernetes-map-type") == "atomic",
            default: fields.get("default").cloned(),
            required: strings(fields, "required").into_iter().map(Into::into).collect(),
            ..Node::default()
        };
        let below = |normal| if place == Place::Junctor { Place::Junctor } else { normal };
        if let Some(properties) = fields.get("properties").and_then(Value::as_object) {
            for (name, property) in properties {
                let id = self.node(property, &format!("{path}properties[{name}]."), below(Place::Property), depth + 1);
                node.properties.insert(name.as_str().into(), id);
            }
        }
        match fields.get("additionalProperties") {
            Some(Value::Bool(true)) => node.additional = Some(self.add(Node { preserve_unknown: true, ..Node::default() })),
            Some(values) if values.is_object() => {
                let values =
                    self.node(values, &format!("{path}additionalProperties."), below(Place::AdditionalProperty), depth + 1);
                node.additional = Some(values);
            }
            _ => {}
        }
        if let Some(items) = fields.get("items") {
            node.items = Some(self.node(items, &format!("{path}items."), below(Place::Item), depth + 1));
        }
        node.list_type = self.list_type(fields, path);
        let constraints = self.constraints(fields, path, depth);
        node.constraints = (!constraints.is_empty()).then(|| Box::new(constraints));
        // Objects without any word on their fields have none; junctors only constrain.
        if place == Place::Junctor && node.r#type == Type::Any {
            node.preserve_unknown = true;
        }
        self.add(node)
    }

    fn node_type(&mut self, fields: &Map<String, Value>, path: &str, place: Place) -> Type {
        let name = text(fields, "type");
        let free = flag(fields, "x-kubernetes-int-or-string") || flag(fields, "x-kubernetes-preserve-unknown-fields");
        match place {
            Place::Root if name.is_empty() => self.causes.push(required(format!("{path}type"), "must not be empty at the root")),
            Place::Root if name != "object" => {
                self.causes.push(invalid(format!("{path}type"), &json!(name), "must be object at the root"));
            }
            Place::Property if name.is_empty() && !free => {
                self.causes.push(required(format!("{path}type"), "must not be empty for specified object fields"));
            }
            Place::AdditionalProperty if name.is_empty() && !free => {
                self.causes.push(required(format!("{path}type"), "must not be empty for specified object fields"));
            }
            Place::Item if name.is_empty() && !free => {
                self.causes.push(required(format!("{path}type"), "must not be empty for specified array items"));
            }
            _ => {}
        }
        if flag(fields, "x-kubernetes-int-or-string") {
            return Type::IntOrString;
        }
        match name {
            "object" => Type::Object,
            "array" => {
                if !fields.contains_key("items") && place != Place::Junctor {
                    self.causes.push(required(format!("{path}items"), "must be specified"));
                }
                Type::Array
            }
            "string" => Type::String,
            "integer" => Type::Integer,
            "number" => Type::Number,
            "boolean" => Type::Boolean,
            "" => Type::Any,
            _ => {
                let types = TYPES.map(Value::from);
                self.causes.push(not_supported(format!("{path}type"), &json!(name), &types));
                Type::Any
            }
        }
    }

    fn forbidden_keywords(&mut self, fields: &Map<String, Value>, path: &str, place: Place) {
        for (keyword, detail) in [
            ("$ref", "$ref is not supported"),
            ("dependencies", "dependencies is not supported"),
            ("definitions", "definitions is not supported"),
            ("patternProperties", "patternProperties is not supported"),
            ("additionalItems", "additionalItems is not supported"),
            ("id", "id is not supported"),
        ] {
            if fields.contains_key(keyword) {
                self.causes.push(forbidden(format!("{path}{keyword}"), detail));
            }
        }
        if flag(fields, "uniqueItems") {
            let detail = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
            self.causes.push(forbidden(format!("{path}uniqueItems"), detail));
        }
        if fields.get("additionalProperties") == Some(&Value::Bool(false)) {
            self.causes.push(forbidden(format!("{path}additionalProperties"), "additionalProperties cannot be set to false"));
        } else if fields.contains_key("additionalProperties") && fields.contains_key("properties") {
            let detail = "additionalProperties and properties are mutual exclusive";
            self.causes.push(forbidden(format!("{path}additionalProperties"), detail));
        }
        if place == Place::Junctor {
            let int_or_string = fields.get("type").is_some_and(|name| name == "integer" || name == "string");
            for keyword in ["type", "default", "nullable", "additionalProperties", "description", "title"] {
                let stated = fields.get(keyword).is_some_and(|value| value.as_str() != Some("") && value != &Value::Bool(false));
                if stated && !(keyword == "type" && int_or_string) {
                    self.causes.push(forbidden(format!("{path}{keyword}"), "must be empty to be structural"));
                }
            }
        }
    }

    fn list_type(&mut self, fields: &Map<String, Value>, path: &str) -> ListType {
        let list_type = text(fields, "x-kubernetes-list-type");
        if !list_type.is_empty() && text(fields, "type") != "array" {
            self.causes.push(invalid(
                format!("{path}type"),
                fields.get("type").unwrap_or(&json!("")),
                "must be array if x-kubernetes-list-type is specified",
            ));
        }
        match list_type {
            "" | "atomic" => ListType::Atomic,
            "set" => ListType::Set,
            "map" => {
                let keys = strings(fields, "x-kubernetes-list-map-keys");
                if keys.is_empty() {
                    let detail = "must not be empty if x-kubernetes-list-type is map";
                    self.causes.push(required(format!("{path}x-kubernetes-list-map-keys"), detail));
                }
                let properties = fields.get("items").and_then(|items| items.get("properties"));
                for (index, key) in keys.iter().enumerate() {
                    if properties.and_then(|properties| properties.get(key)).is_none() {
                        let field = format!("{path}x-kubernetes-list-map-keys[{index}]");
                        self.causes.push(invalid(field, &json!(key), "entries must all be names of item properties"));
                    }
                }
                ListType::Map(keys.into_iter().map(Into::into).collect())
            }
            other => {
                let supported = ["atomic", "map", "set"].map(Value::from);
                self.causes.push(not_supported(format!("{path}x-kubernetes-list-type"), &json!(other), &supported));
                ListType::Atomic
            }
        }
    }

    fn constraints(&mut self, fields: &Map<String, Value>, path: &str, depth: usize) -> Constraints {
        let pattern = fields.get("pattern").and_then(Value::as_str).filter(|pattern| !pattern.is_empty());
        if let Some(source) = pattern
            && let Err(error) = regex::Regex::new(source)
        {
            let detail = format!("must be a valid regular expression, but isn't: {error}");
            self.causes.push(invalid(format!("{path}pattern"), &json!(source), &detail));
        }
        let number = |keyword: &str| fields.get(keyword).and_then(Value::as_f64);
        let count = |keyword: &str| fields.get(keyword).and_then(Value::as_u64);
        let mut branches = |keyword: &str| -> Vec<NodeId> {
            let list = fields.get(keyword).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
            list.iter()
                .enumerate()
                .map(|(index, branch)| self.node(branch, &format!("{path}{keyword}[{index}]."), Place::Junctor, depth + 1))
                .collect()
        };
        let (all_of, any_of, one_of) = (branches("allOf"), branches("anyOf"), branches("oneOf"));
        let not = fields.get("not").map(|branch| self.node(branch, &format!("{path}not."), Place::Junctor, depth + 1));
        Constraints {
            enumeration: fields.get("enum").and_then(Value::as_array).cloned().unwrap_or_default(),
            pattern: pattern.map(Pattern::new),
            format: fields.get("format").and_then(Value::as_str).map(Into::into),
            minimum: number("minimum"),
            exclusive_minimum: flag(fields, "exclusiveMinimum"),
            maximum: number("maximum"),
            exclusive_maximum: flag(fields, "exclusiveMaximum"),
            multiple_of: number("multipleOf"),
            min_length: count("minLength"),
            max_length: count("maxLength"),
            min_items: count("minItems"),
            max_items: count("maxItems"),
            unique_items: false,
            min_properties: count("minProperties"),
            max_properties: count("maxProperties"),
            all_of,
            any_of,
            one_of,
            not,
        }
    }
}

fn trimmed(path: &str) -> String {
    path.trim_end_matches('.').to_owned()
}

fn flag(fields: &Map<String, Value>, keyword: &str) -> bool {
    fields.get(keyword).and_then(Value::as_bool).unwrap_or_default()
}

fn text<'a>(fields: &'a Map<String, Value>, keyword: &str) -> &'a str {
    fields.get(keyword).and_then(Value::as_str).unwrap_or_default()
}

fn strings(fields: &Map<String, Value>, keyword: &str) -> Vec<String> {
    let list = fields.get(keyword).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    list.iter().filter_map(Value::as_str).map(str::to_owned).collect()
}
