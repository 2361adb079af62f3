//! The tree (for recursive types: the graph) a schema is made of.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::Value;

use super::{Schema, constraints::Constraints};

/// Index of a node in its schema.
pub(crate) type NodeId = usize;

/// The type of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Type {
    /// Not stated: anything goes.
    #[default]
    Any,
    Object,
    Array,
    String,
    Integer,
    Number,
    Boolean,
    IntOrString,
    /// A quantity: a string, or a number that is kept as a string.
    Quantity,
}

/// What `x-kubernetes-list-type` says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) enum ListType {
    #[default]
    Atomic,
    Set,
    /// With the names of the key fields.
    Map(Vec<Box<str>>),
}

/// Strategic merge patch: what the patch strategy and merge key of a field say.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct PatchStrategy {
    pub(crate) merge: bool,
    pub(crate) retain_keys: bool,
    pub(crate) merge_key: Option<Box<str>>,
}

/// One node.
#[derive(Debug, Clone, Default)]
pub(crate) struct Node {
    /// Full name of the built-in type, where it is a struct.
    pub(crate) type_name: Option<Arc<str>>,
    pub(crate) r#type: Type,
    pub(crate) nullable: bool,
    pub(crate) properties: BTreeMap<Box<str>, NodeId>,
    /// Values of keys beside `properties`.
    pub(crate) additional: Option<NodeId>,
    pub(crate) items: Option<NodeId>,
    pub(crate) required: Vec<Box<str>>,
    pub(crate) preserve_unknown: bool,
    pub(crate) embedded_resource: bool,
    pub(crate) list_type: ListType,
    /// Server-side apply takes the map or struct as a whole.
    pub(crate) atomic: bool,
    pub(crate) patch: PatchStrategy,
    pub(crate) default: Option<Value>,
    pub(crate) constraints: Option<Box<Constraints>>,
}

/// A node and the schema it belongs to, to walk along.
#[derive(Clone, Copy)]
pub(crate) struct Cursor<'a> {
    pub(crate) schema: &'a Schema,
    pub(crate) node: &'a Node,
}

impl<'a> Cursor<'a> {
    pub(crate) fn to(self, id: NodeId) -> Self {
        Self { schema: self.schema, node: &self.schema.nodes[id] }
    }

    /// A declared property.
    pub(crate) fn property(self, name: &str) -> Option<Self> {
        self.node.properties.get(name).map(|id| self.to(*id))
    }

    /// A declared property, or what `additionalProperties` says of other keys.
    pub(crate) fn field(self, name: &str) -> Option<Self> {
        self.property(name).or_else(|| self.additional())
    }

    /// What `additionalProperties` says.
    pub(crate) fn additional(self) -> Option<Self> {
        self.node.additional.map(|id| self.to(id))
    }

    pub(crate) fn items(self) -> Option<Self> {
        self.node.items.map(|id| self.to(id))
    }

    /// Whether keys that are not declared are kept as they are.
    pub(crate) fn is_open(self) -> bool {
        self.node.preserve_unknown || self.node.r#type == Type::Any && self.node.properties.is_empty()
    }

    /// The name of the built-in type, or an empty string.
    pub(crate) fn type_name(self) -> &'a str {
        self.node.type_name.as_deref().unwrap_or_default()
    }
}
