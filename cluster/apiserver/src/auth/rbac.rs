//! Role-based access control.

use std::collections::HashMap;
use std::sync::Arc;

use meshlab_objects::Status;
use meshlab_objects::selector::LabelSelector;
use parking_lot::RwLock;
use serde_json::Value;

use super::{UserInfo, forbidden};
use crate::store::{GroupResource, Object, Store};

/// What somebody wants to do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Action {
    pub(crate) verb: String,
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) resource: String,
    pub(crate) subresource: String,
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// Set for what is not a resource; then only the verb counts besides.
    pub(crate) path: Option<String>,
}

impl Action {
    /// `pods/log`
    fn combined(&self) -> String {
        if self.subresource.is_empty() { self.resource.clone() } else { format!("{}/{}", self.resource, self.subresource) }
    }

    /// 403 in Kubernetes' words.
    pub(crate) fn refusal(&self, user: &UserInfo) -> Status {
        if let Some(path) = &self.path {
            let why = format!("forbidden: User {:?} cannot {} path {path:?}", user.name, self.verb);
            return Status::new(meshlab_objects::Reason::Forbidden, why);
        }
        let scope = if self.namespace.is_empty() {
            "at the cluster scope".to_owned()
        } else {
            format!("in the namespace {:?}", self.namespace)
        };
        let (user, verb, group) = (&user.name, &self.verb, &self.group);
        let why = format!("User {user:?} cannot {verb} resource {:?} in API group {group:?} {scope}", self.combined());
        forbidden(&self.group, &self.resource, &self.name, &why)
    }
}

/// Whether it is allowed, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Decision {
    pub(crate) allowed: bool,
    pub(crate) reason: String,
}

/// A `PolicyRule`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) verbs: Vec<String>,
    pub(crate) groups: Vec<String>,
    pub(crate) resources: Vec<String>,
    pub(crate) names: Vec<String>,
    pub(crate) urls: Vec<String>,
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn has(list: &[String], wanted: &str) -> bool {
    list.iter().any(|entry| entry == "*" || entry == wanted)
}

impl Rule {
    pub(crate) fn from_value(rule: &Value) -> Self {
        Self {
            verbs: texts(&rule["verbs"]),
            groups: texts(&rule["apiGroups"]),
            resources: texts(&rule["resources"]),
            names: texts(&rule["resourceNames"]),
            urls: texts(&rule["nonResourceURLs"]),
        }
    }

    pub(crate) fn allows(&self, action: &Action) -> bool {
        if !has(&self.verbs, &action.verb) {
            return false;
        }
        if let Some(path) = &action.path {
            return self.urls.iter().any(|url| match url.strip_suffix('*') {
                Some(prefix) => path.starts_with(prefix),
                None => url == path,
            });
        }
        has(&self.groups, &action.group)
            && self.allows_resource(action)
            && (self.names.is_empty() || self.names.contains(&action.name))
    }

    fn allows_resource(&self, action: &Action) -> bool {
        let any_resource = format!("*/{}", action.subresource);
        let combined = action.combined();
        let matches =
            |entry: &String| entry == "*" || *entry == combined || (!action.subresource.is_empty() && *entry == any_resource);
        self.resources.iter().any(matches)
    }
}

#[derive(Debug)]
enum Subject {
    User(String),
    Group(String),
}

impl Subject {
    fn from_value(subject: &Value, namespace: &str) -> Option<Self> {
        let name = subject["name"].as_str()?;
        Some(match subject["kind"].as_str()? {
            "User" => Self::User(name.to_owned()),
            "Group" => Self::Group(name.to_owned()),
            "ServiceAccount" => {
                let namespace = subject["namespace"].as_str().unwrap_or(namespace);
                Self::User(format!("system:serviceaccount:{namespace}:{name}"))
            }
            _ => return None,
        })
    }

    fn is(&self, user: &UserInfo) -> bool {
        match self {
            Self::User(name) => *name == user.name,
            Self::Group(name) => user.groups.contains(name),
        }
    }
}

/// A binding whose role has been looked up.
struct Grant {
    subjects: Vec<Subject>,
    rules: Arc<Vec<Rule>>,
    /// For the reason of a decision.
    why: String,
}

/// All grants, at one moment.
#[derive(Default)]
struct Grants {
    at: [u64; 4],
    cluster: Vec<Grant>,
    namespaced: HashMap<String, Vec<Grant>>,
}

/// Decides, from the RBAC objects in the store.
#[derive(Default)]
pub(crate) struct Authorizer {
    grants: RwLock<Arc<Grants>>,
}

/// The resources that decisions depend on.
const RESOURCES: [&str; 4] = ["clusterroles", "roles", "clusterrolebindings", "rolebindings"];

fn resource(plural: &str) -> GroupResource {
    GroupResource::new("rbac.authorization.k8s.io", plural)
}

impl Authorizer {
    /// Whether the user may do that.
    pub(crate) fn decide(&self, store: &Store, user: &UserInfo, action: &Action) -> Decision {
        if user.groups.iter().any(|group| group == "system:masters") {
            return Decision { allowed: true, reason: String::new() };
        }
        let grants = self.grants(store);
        let found = grants.of(user, &action.namespace).find(|grant| grant.rules.iter().any(|rule| rule.allows(action)));
        match found {
            Some(grant) => Decision { allowed: true, reason: format!("RBAC: allowed by {}", grant.why) },
            None => Decision { allowed: false, reason: String::new() },
        }
    }

    /// Every rule that holds for the user in a namespace.
    pub(crate) fn rules(&self, store: &Store, user: &UserInfo, namespace: &str) -> Vec<Rule> {
        let masters = user.groups.iter().any(|group| group == "system:masters");
        let all = masters.then(everything).into_iter().flatten();
        let grants = self.grants(store);
        all.chain(grants.of(user, namespace).flat_map(|grant| grant.rules.iter().cloned())).collect()
    }

    fn grants(&self, store: &Store) -> Arc<Grants> {
        let at = RESOURCES.map(|plural| store.newest(&resource(plural)));
        let known = self.grants.read().clone();
        // Zeros are what a fresh cache has too, but then there is nothing to grant.
        if known.at == at {
            return known;
        }
        let new = Arc::new(Grants::load(store, at));
        self.grants.write().clone_from(&new);
        new
    }
}

fn everything() -> [Rule; 2] {
    let any = || vec!["*".to_owned()];
    [
        Rule { verbs: any(), groups: any(), resources: any(), ..Rule::default() },
        Rule { verbs: any(), urls: any(), ..Rule::default() },
    ]
}

impl Grants {
    fn of<'a>(&'a self, user: &'a UserInfo, namespace: &str) -> impl Iterator<Item = &'a Grant> {
        let local = self.namespaced.get(namespace).map(Vec::as_slice).unwrap_or_default();
        self.cluster.iter().chain(local).filter(move |grant| grant.subjects.iter().any(|subject| subject.is(user)))
    }

    fn load(store: &Store, at: [u64; 4]) -> Self {
        let [cluster_roles, roles, cluster_bindings, bindings] =
            RESOURCES.map(|plural| store.list(&resource(plural), None).objects);
        let rules_of = |role: &Object| Arc::new(rules(&role.value()["rules"]));
        let mut by_name: HashMap<&str, Arc<Vec<Rule>>> = HashMap::new();
        for role in &cluster_roles {
            let value = role.value();
            let rules = if value["aggregationRule"].is_object() {
                Arc::new(rules(&aggregate(&value, &cluster_roles)))
            } else {
                rules_of(role)
            };
            by_name.insert(role.key.name(), rules);
        }
        let local: HashMap<&str, Arc<Vec<Rule>>> = roles.iter().map(|role| (role.key.as_str(), rules_of(role))).collect();
        let grant = |binding: &Object, kind: &str| {
            let (namespace, value) = (binding.key.namespace(), binding.value());
            let role = value["roleRef"]["name"].as_str()?;
            let rules = match value["roleRef"]["kind"].as_str()? {
                "ClusterRole" => by_name.get(role)?.clone(),
                "Role" => local.get(format!("{namespace}/{role}").as_str())?.clone(),
                _ => return None,
            };
            let subjects = value["subjects"].as_array().into_iter().flatten();
            let subjects = subjects.filter_map(|subject| Subject::from_value(subject, namespace)).collect();
            let role_kind = value["roleRef"]["kind"].as_str().unwrap_or_default();
            let why = format!("{kind} {:?} of {role_kind} {role:?}", binding.key.as_str());
            Some(Grant { subjects, rules, why })
        };
        let cluster = cluster_bindings.iter().filter_map(|binding| grant(binding, "ClusterRoleBinding")).collect();
        let mut namespaced: HashMap<String, Vec<Grant>> = HashMap::new();
        for binding in &bindings {
            if let Some(grant) = grant(binding, "RoleBinding") {
                namespaced.entry(binding.key.namespace().to_owned()).or_default().push(grant);
            }
        }
        Self { at, cluster, namespaced }
    }
}

pub(crate) fn rules(value: &Value) -> Vec<Rule> {
    value.as_array().into_iter().flatten().map(Rule::from_value).collect()
}

/// The rules of an aggregated role: those of every role that its selectors choose.
pub(crate) fn aggregate(role: &Value, all: &[Arc<Object>]) -> Value {
    let selectors = role["aggregationRule"]["clusterRoleSelectors"].as_array().into_iter().flatten();
    let selectors: Vec<LabelSelector> = selectors.filter_map(|selector| LabelSelector::from_value(selector).ok()).collect();
    let mut rules: Vec<Value> = Vec::new();
    for other in all.iter().filter(|other| other.key.name() != role["metadata"]["name"].as_str().unwrap_or_default()) {
        let other = other.value();
        let labels = other["metadata"].get("labels");
        if !selectors.iter().any(|selector| selector.matches(labels)) {
            continue;
        }
        for rule in other["rules"].as_array().into_iter().flatten() {
            if !rules.contains(rule) {
                rules.push(rule.clone());
            }
        }
    }
    Value::Array(rules)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn action(verb: &str, resource: &str, subresource: &str, name: &str) -> Action {
        let [verb, resource, subresource, name] = [verb, resource, subresource, name].map(str::to_owned);
        Action { verb, resource, subresource, name, ..Action::default() }
    }

    #[test]
    fn a_rule_allows_what_it_names_and_nothing_else() {
        let rule = |value| Rule::from_value(&value);
        let pods = rule(json!({"apiGroups": [""], "resources": ["pods", "*/scale"], "verbs": ["get"]}));
        assert!(pods.allows(&action("get", "pods", "", "web")));
        assert!(!pods.allows(&action("list", "pods", "", "")));
        assert!(!pods.allows(&action("get", "pods", "log", "web")));
        assert!(pods.allows(&action("get", "deployments", "scale", "web")));
        let named = rule(json!({"apiGroups": [""], "resources": ["pods"], "verbs": ["*"], "resourceNames": ["web"]}));
        assert!(named.allows(&action("delete", "pods", "", "web")));
        assert!(!named.allows(&action("create", "pods", "", "")));
        let urls = rule(json!({"nonResourceURLs": ["/healthz", "/api*"], "verbs": ["get"]}));
        let path = |path: &str| Action { verb: "get".into(), path: Some(path.into()), ..Action::default() };
        assert!(urls.allows(&path("/apis/apps")) && urls.allows(&path("/healthz")) && !urls.allows(&path("/healthz/x")));
        assert!(!urls.allows(&action("get", "pods", "", "web")));
    }
}
