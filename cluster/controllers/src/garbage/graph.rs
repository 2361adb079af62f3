//! Who owns whom. No input or output here.

use std::collections::{HashMap, HashSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::discovery::ApiResource;

use super::{FOREGROUND, ORPHAN};

/// An object as far as its owners are concerned.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node {
    pub(super) resource: ApiResource,
    pub(super) namespace: Option<String>,
    pub(super) name: String,
    pub(super) owners: Vec<OwnerReference>,
    pub(super) finalizers: Vec<String>,
    pub(super) deleting: bool,
}

impl Node {
    fn deletes_with(&self, finalizer: &str) -> bool {
        self.deleting && self.finalizers.iter().any(|known| known == finalizer)
    }
}

/// All objects by uid, and the dependents of each.
#[derive(Default)]
pub(super) struct Graph {
    nodes: HashMap<String, Node>,
    dependents: HashMap<String, HashSet<String>>,
}

/// What there is to do about an object.
#[derive(Debug, PartialEq)]
pub(super) enum Work {
    Nothing,
    /// An owner is missing: see whether it is gone.
    CheckOwners(Node),
    /// It is deleted with orphans: cut its dependents loose, then let it go.
    Orphan(Node, Vec<(String, Node)>),
    /// It is deleted in the foreground: its dependents go first.
    DeleteDependents(Vec<(String, Node)>),
    /// It is deleted in the foreground, and nothing blocks it any more.
    FinishForeground(Node),
}

impl Graph {
    /// Whether there is an object of this uid.
    pub(super) fn contains(&self, uid: &str) -> bool {
        self.nodes.contains_key(uid)
    }

    /// Adds or changes an object; answers whom to look at.
    pub(super) fn upsert(&mut self, uid: &str, node: Node) -> Vec<String> {
        let old = self.nodes.get(uid);
        if old == Some(&node) {
            return Vec::new();
        }
        let mut affected = vec![uid.to_owned()];
        for owner in old.map(|old| old.owners.clone()).unwrap_or_default() {
            self.forget(&owner.uid, uid);
            affected.push(owner.uid);
        }
        for owner in &node.owners {
            self.dependents.entry(owner.uid.clone()).or_default().insert(uid.to_owned());
            affected.push(owner.uid.clone());
        }
        self.nodes.insert(uid.to_owned(), node);
        affected.retain(|uid| self.needs_work(uid));
        affected
    }

    /// Removes an object; answers whom to look at.
    pub(super) fn remove(&mut self, uid: &str) -> Vec<String> {
        let Some(node) = self.nodes.remove(uid) else { return Vec::new() };
        let mut affected: Vec<String> = self.dependents.get(uid).into_iter().flatten().cloned().collect();
        for owner in node.owners {
            self.forget(&owner.uid, uid);
            affected.push(owner.uid);
        }
        affected.retain(|uid| self.needs_work(uid));
        affected
    }

    fn forget(&mut self, owner: &str, dependent: &str) {
        if let Some(dependents) = self.dependents.get_mut(owner) {
            dependents.remove(dependent);
            if dependents.is_empty() {
                self.dependents.remove(owner);
            }
        }
    }

    /// The objects of a kind that are not in `listed`.
    pub(super) fn missing(&self, resource: &ApiResource, listed: &[String]) -> Vec<String> {
        let listed: HashSet<&String> = listed.iter().collect();
        let of_kind = self.nodes.iter().filter(|(_, node)| node.resource == *resource);
        of_kind.map(|(uid, _)| uid).filter(|uid| !listed.contains(uid)).cloned().collect()
    }

    fn needs_work(&self, uid: &str) -> bool {
        self.work(uid) != Work::Nothing
    }

    /// What there is to do about an object.
    pub(super) fn work(&self, uid: &str) -> Work {
        let Some(node) = self.nodes.get(uid) else { return Work::Nothing };
        if node.deletes_with(ORPHAN) {
            return Work::Orphan(node.clone(), self.dependents_of(uid).collect());
        }
        if node.deletes_with(FOREGROUND) {
            let blocking = |(_, dependent): &(String, Node)| {
                dependent.owners.iter().any(|owner| owner.uid == uid && owner.block_owner_deletion == Some(true))
            };
            let waiting: Vec<_> = self.dependents_of(uid).filter(|(_, dependent)| !dependent.deleting).collect();
            return match (waiting.is_empty(), self.dependents_of(uid).any(|dependent| blocking(&dependent))) {
                (false, _) => Work::DeleteDependents(waiting),
                (true, true) => Work::Nothing,
                (true, false) => Work::FinishForeground(node.clone()),
            };
        }
        let lost = node.owners.iter().any(|owner| !self.contains(&owner.uid));
        if lost && !node.deleting { Work::CheckOwners(node.clone()) } else { Work::Nothing }
    }

    fn dependents_of(&self, uid: &str) -> impl Iterator<Item = (String, Node)> {
        let uids = self.dependents.get(uid).into_iter().flatten();
        uids.filter_map(|uid| Some((uid.clone(), self.nodes.get(uid)?.clone())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::ConfigMap;

    fn node(owners: &[&str]) -> Node {
        let owner = |uid: &&str| OwnerReference {
            uid: (*uid).to_owned(),
            kind: "ConfigMap".to_owned(),
            block_owner_deletion: Some(true),
            ..Default::default()
        };
        Node {
            resource: ApiResource::erase::<ConfigMap>(&()),
            namespace: Some("ns".into()),
            name: "n".into(),
            owners: owners.iter().map(owner).collect(),
            finalizers: Vec::new(),
            deleting: false,
        }
    }

    fn deleting(finalizer: &str) -> Node {
        Node { deleting: true, finalizers: vec![finalizer.into()], ..node(&[]) }
    }

    #[test]
    fn a_removed_owner_sends_us_to_its_dependents() {
        let mut graph = Graph::default();
        assert!(graph.upsert("owner", node(&[])).is_empty());
        assert!(graph.upsert("child", node(&["owner"])).is_empty());
        assert_eq!(graph.remove("owner"), ["child"]);
        assert!(matches!(graph.work("child"), Work::CheckOwners(_)));
    }

    #[test]
    fn foreground_deletion_waits_for_the_dependents() {
        let mut graph = Graph::default();
        graph.upsert("owner", node(&[]));
        graph.upsert("child", node(&["owner"]));
        assert_eq!(graph.upsert("owner", deleting(FOREGROUND)), ["owner"]);
        assert!(matches!(graph.work("owner"), Work::DeleteDependents(dependents) if dependents.len() == 1));
        graph.upsert("child", Node { deleting: true, ..node(&["owner"]) });
        assert_eq!(graph.work("owner"), Work::Nothing);
        assert_eq!(graph.remove("child"), ["owner"]);
        assert!(matches!(graph.work("owner"), Work::FinishForeground(_)));
    }

    #[test]
    fn orphans_are_cut_loose() {
        let mut graph = Graph::default();
        graph.upsert("owner", deleting(ORPHAN));
        graph.upsert("child", node(&["owner"]));
        assert!(matches!(graph.work("owner"), Work::Orphan(_, dependents) if dependents.len() == 1));
    }
}
