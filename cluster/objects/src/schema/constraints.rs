//! What a schema says of values beyond their types.

use std::sync::OnceLock;

use regex::Regex;
use serde_json::Value;

use super::node::NodeId;

/// The value validations of one node.
#[derive(Debug, Clone, Default)]
pub(crate) struct Constraints {
    pub(crate) enumeration: Vec<Value>,
    pub(crate) pattern: Option<Pattern>,
    pub(crate) format: Option<Box<str>>,
    pub(crate) minimum: Option<f64>,
    pub(crate) exclusive_minimum: bool,
    pub(crate) maximum: Option<f64>,
    pub(crate) exclusive_maximum: bool,
    pub(crate) multiple_of: Option<f64>,
    pub(crate) min_length: Option<u64>,
    pub(crate) max_length: Option<u64>,
    pub(crate) min_items: Option<u64>,
    pub(crate) max_items: Option<u64>,
    pub(crate) unique_items: bool,
    pub(crate) min_properties: Option<u64>,
    pub(crate) max_properties: Option<u64>,
    pub(crate) all_of: Vec<NodeId>,
    pub(crate) any_of: Vec<NodeId>,
    pub(crate) one_of: Vec<NodeId>,
    pub(crate) not: Option<NodeId>,
}

impl Constraints {
    /// Whether nothing is constrained.
    pub(crate) fn is_empty(&self) -> bool {
        self.enumeration.is_empty()
            && self.pattern.is_none()
            && self.format.is_none()
            && [self.minimum, self.maximum, self.multiple_of].iter().all(Option::is_none)
            && [self.min_length, self.max_length, self.min_items, self.max_items, self.min_properties, self.max_properties]
                .iter()
                .all(Option::is_none)
            && !self.unique_items
            && self.all_of.is_empty()
            && self.any_of.is_empty()
            && self.one_of.is_empty()
            && self.not.is_none()
    }
}

/// A regular expression, compiled when it is first asked.
#[derive(Debug, Clone)]
pub(crate) struct Pattern {
    pub(crate) source: Box<str>,
    compiled: OnceLock<Option<Regex>>,
}

impl Pattern {
    pub(crate) fn new(source: &str) -> Self {
        Self { source: source.into(), compiled: OnceLock::new() }
    }

    /// Whether the text matches somewhere. A pattern that is no regular expression matches nothing.
    pub(crate) fn matches(&self, text: &str) -> bool {
        self.compiled.get_or_init(|| Regex::new(&self.source).ok()).as_ref().is_some_and(|regex| regex.is_match(text))
    }
}
