//! Label sets: what tells one time series from another.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use serde::ser::{Serialize, SerializeMap, Serializer};

/// The label that holds a metric's name.
pub(crate) const NAME: &str = "__name__";

/// One label. Equal pairs of a store share their memory.
pub(crate) type Pair = Arc<(Box<str>, Box<str>)>;

/// A set of labels, sorted by name, without empty values (which mean "no such label").
#[derive(Debug, Clone, Default)]
pub(crate) struct Labels(Arc<[Pair]>);

impl Labels {
    /// Sorts, and drops empty values. Of two labels with one name the first is kept.
    pub(crate) fn new(mut pairs: Vec<Pair>) -> Self {
        pairs.retain(|pair| !pair.1.is_empty());
        pairs.sort_by(|a, b| a.0.cmp(&b.0));
        pairs.dedup_by(|b, a| a.0 == b.0);
        Self(pairs.into())
    }

    /// From names and values.
    pub(crate) fn of<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        Self::new(pairs.into_iter().map(|(name, value)| pair(name, value)).collect())
    }

    pub(crate) fn pairs(&self) -> &[Pair] {
        &self.0
    }

    /// The value of label `name`; empty when there is no such label.
    pub(crate) fn get(&self, name: &str) -> &str {
        match self.0.binary_search_by(|pair| (*pair.0).cmp(name)) {
            Ok(index) => self.0.get(index).map_or("", |pair| &pair.1),
            Err(_) => "",
        }
    }

    /// Metric name.
    pub(crate) fn name(&self) -> &str {
        self.get(NAME)
    }

    pub(crate) fn without_name(&self) -> Self {
        if self.name().is_empty() { self.clone() } else { self.filtered(|name| name != NAME) }
    }

    /// Only the labels whose name `keep` accepts.
    pub(crate) fn filtered(&self, keep: impl Fn(&str) -> bool) -> Self {
        Self(self.0.iter().filter(|pair| keep(&pair.0)).cloned().collect())
    }

    /// With label `name` set to `value`; an empty value removes it.
    pub(crate) fn with(&self, name: &str, value: &str) -> Self {
        let mut pairs = Vec::with_capacity(self.0.len() + 1);
        pairs.push(pair(name, value));
        pairs.extend(self.0.iter().filter(|pair| &*pair.0 != name).cloned());
        Self::new(pairs)
    }
}

/// A label.
pub(crate) fn pair(name: &str, value: &str) -> Pair {
    Arc::new((name.into(), value.into()))
}

impl PartialEq for Labels {
    fn eq(&self, other: &Self) -> bool {
        self.0.len() == other.0.len() && self.0.iter().zip(other.0.iter()).all(|(a, b)| Arc::ptr_eq(a, b) || a == b)
    }
}

impl Eq for Labels {}

impl Hash for Labels {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl PartialOrd for Labels {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Labels {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.cmp(&other.0)
    }
}

impl fmt::Display for Labels {
    /// As PromQL writes it: `{code="200", le="+Inf"}`, with the metric's name among the labels.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (index, pair) in self.0.iter().enumerate() {
            write!(f, "{}{}={:?}", if index == 0 { "" } else { ", " }, pair.0, pair.1)?;
        }
        f.write_str("}")
    }
}

impl Serialize for Labels {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for pair in self.0.iter() {
            map.serialize_entry(&*pair.0, &*pair.1)?;
        }
        map.end()
    }
}

/// Whether `name` can be a label: `[a-zA-Z_][a-zA-Z0-9_]*`.
pub(crate) fn is_label_name(name: &str) -> bool {
    let mut characters = name.bytes();
    characters.next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
        && characters.all(|next| next.is_ascii_alphanumeric() || next == b'_')
}
