//! `exportTo`: which namespaces see a resource.

use std::collections::BTreeSet;

/// The namespaces that see a resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Visibility {
    /// All.
    Public,
    /// None at all (`~`).
    None,
    /// These.
    Namespaces(BTreeSet<String>),
}

impl Visibility {
    /// Reads `exportTo`. `*` wins over everything beside it; an empty list takes the mesh's default.
    pub fn parse(export_to: &[String], default: &[String], namespace: &str) -> Self {
        let list = if export_to.is_empty() { default } else { export_to };
        if list.is_empty() || list.iter().any(|entry| entry == "*") {
            return Self::Public;
        }
        if list.iter().any(|entry| entry == "~") {
            return Self::None;
        }
        Self::Namespaces(list.iter().map(|entry| if entry == "." { namespace.to_owned() } else { entry.clone() }).collect())
    }

    /// Whether `namespace` sees it.
    pub fn visible_in(&self, namespace: &str) -> bool {
        match self {
            Self::Public => true,
            Self::None => false,
            Self::Namespaces(namespaces) => namespaces.contains(namespace),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fact_08_star_wins_and_tilde_hides() {
        let parse = |entries: &[&str]| {
            Visibility::parse(&entries.iter().map(|e| (*e).to_owned()).collect::<Vec<_>>(), &["*".to_owned()], "own")
        };
        assert_eq!(parse(&[]), Visibility::Public);
        assert_eq!(parse(&[".", "*"]), Visibility::Public);
        assert!(!parse(&["~"]).visible_in("own"));
        assert!(parse(&[".", "b"]).visible_in("own") && parse(&[".", "b"]).visible_in("b") && !parse(&["."]).visible_in("b"));
    }
}
