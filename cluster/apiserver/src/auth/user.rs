//! Who makes a request.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// A user as authentication found it, `authentication.k8s.io/v1` `UserInfo`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UserInfo {
    /// Name: `system:serviceaccount:default:web`.
    pub name: String,
    /// Identity over time; empty for users without one.
    pub uid: String,
    /// Groups: `system:masters`.
    pub groups: Vec<String>,
    /// Whatever else the authenticator knows.
    pub extra: BTreeMap<String, Vec<String>>,
}

impl UserInfo {
    /// Nobody in particular, and so without the group of the authenticated.
    pub fn anonymous() -> Self {
        Self { name: "system:anonymous".into(), groups: vec!["system:unauthenticated".into()], ..Self::default() }
    }

    /// A user with these groups and `system:authenticated`.
    pub fn new(name: &str, groups: &[&str]) -> Self {
        let groups = groups.iter().copied().chain(["system:authenticated"]).map(str::to_owned).collect();
        Self { name: name.into(), groups, ..Self::default() }
    }

    /// The administrator of the kubeconfig, of group `system:masters`, who may do everything.
    pub fn admin() -> Self {
        Self::new("kubernetes-admin", &["system:masters"])
    }

    /// The controllers of this process. A member of `system:masters`, since they are one process and no boundary is between them.
    pub fn controller_manager() -> Self {
        Self::new("system:kube-controller-manager", &["system:masters"])
    }

    /// The server itself.
    pub fn apiserver() -> Self {
        Self::new("system:apiserver", &["system:masters"])
    }

    /// The kubelet of a node. A member of `system:masters`, since there is no node authorizer.
    pub fn node(name: &str) -> Self {
        Self::new(&format!("system:node:{name}"), &["system:nodes", "system:masters"])
    }

    /// A service account.
    pub fn service_account(namespace: &str, name: &str) -> Self {
        Self::new(
            &format!("system:serviceaccount:{namespace}:{name}"),
            &["system:serviceaccounts", &format!("system:serviceaccounts:{namespace}")],
        )
    }

    /// The user as API objects show it.
    pub(crate) fn to_value(&self) -> Value {
        let mut value = json!({"username": self.name});
        if !self.uid.is_empty() {
            value["uid"] = json!(self.uid);
        }
        if !self.groups.is_empty() {
            value["groups"] = json!(self.groups);
        }
        if !self.extra.is_empty() {
            value["extra"] = json!(self.extra);
        }
        value
    }
}
