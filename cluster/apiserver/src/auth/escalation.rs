//! Nobody can grant what they do not have.

use std::sync::Arc;

use meshlab_objects::Status;
use serde_json::Value;

use super::rbac::{Rule, aggregate, rules};
use super::{Action, UserInfo, forbidden};
use crate::api::Api;
use crate::registry::Served;
use crate::store::{GroupResource, Key};

const GROUP: &str = "rbac.authorization.k8s.io";

impl Api {
    /// Checks a write of a role or a binding.
    ///
    /// # Errors
    /// 403 where it would give more than the writer has, and the writer has neither `escalate` nor `bind`.
    pub(crate) fn check_escalation(
        &self,
        user: &UserInfo,
        served: &Arc<Served>,
        new: &Value,
        old: Option<&Value>,
    ) -> Result<(), Status> {
        if served.definition.group != GROUP || user.groups.iter().any(|group| group == "system:masters") {
            return Ok(());
        }
        let plural = served.definition.plural.as_str();
        let namespace = new["metadata"]["namespace"].as_str().unwrap_or_default();
        let name = new["metadata"]["name"].as_str().unwrap_or_default();
        let (verb, about, granted) = match plural {
            "roles" | "clusterroles" => {
                if old.is_some_and(|old| old["rules"] == new["rules"] && old["aggregationRule"] == new["aggregationRule"]) {
                    return Ok(());
                }
                let mut granted = rules(&new["rules"]);
                if new["aggregationRule"].is_object() {
                    granted.extend(rules(&aggregate(
                        new,
                        &self.store.list(&GroupResource::new(GROUP, "clusterroles"), None).objects,
                    )));
                }
                ("escalate", (plural, name), granted)
            }
            _ => {
                if old.is_some_and(|old| old["roleRef"] == new["roleRef"] && old["subjects"] == new["subjects"]) {
                    return Ok(());
                }
                let role = new["roleRef"]["name"].as_str().unwrap_or_default();
                let (plural, key) = match new["roleRef"]["kind"].as_str() {
                    Some("Role") => ("roles", Key::new(namespace, role)),
                    _ => ("clusterroles", Key::new("", role)),
                };
                let found = self.store.get(&GroupResource::new(GROUP, plural), &key);
                let granted = found.map(|role| rules(&role.value()["rules"])).unwrap_or_default();
                ("bind", (plural, role), granted)
            }
        };
        let action = Action {
            verb: verb.into(),
            group: GROUP.into(),
            resource: about.0.into(),
            name: about.1.into(),
            namespace: namespace.into(),
            ..Action::default()
        };
        if self.authorizer.decide(&self.store, user, &action).allowed {
            return Ok(());
        }
        let held = self.authorizer.rules(&self.store, user, namespace);
        let missing: Vec<String> = granted.iter().filter(|rule| !covers(&held, rule)).map(describe).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let why = format!(
            "user {:?} (groups={:?}) is attempting to grant RBAC permissions not currently held:\n{}",
            user.name,
            user.groups,
            missing.join("\n")
        );
        Err(forbidden(GROUP, plural, name, &why))
    }
}

/// Whether every single permission of a rule is in one of those that are held.
fn covers(held: &[Rule], rule: &Rule) -> bool {
    let one = |text: &str| vec![text.to_owned()];
    let contains = |list: &[String], wanted: &str| list.iter().any(|entry| entry == "*" || entry == wanted);
    let names: Vec<Option<&String>> = if rule.names.is_empty() { vec![None] } else { rule.names.iter().map(Some).collect() };
    rule.verbs.iter().all(|verb| {
        let urls = rule.urls.iter().all(|url| {
            let single = Rule { verbs: one(verb), urls: one(url), ..Rule::default() };
            held.iter().any(|held| contains(&held.verbs, verb) && single.urls.iter().all(|url| contains(&held.urls, url)))
        });
        let resources = rule.groups.iter().all(|group| {
            rule.resources.iter().all(|resource| {
                names.iter().all(|name| {
                    held.iter().any(|held| {
                        let names = held.names.is_empty() || name.is_some_and(|name| held.names.contains(name));
                        contains(&held.verbs, verb)
                            && contains(&held.groups, group)
                            && contains(&held.resources, resource)
                            && names
                    })
                })
            })
        });
        urls && resources
    })
}

fn describe(rule: &Rule) -> String {
    let mut parts = Vec::new();
    for (name, list) in [
        ("APIGroups", &rule.groups),
        ("Resources", &rule.resources),
        ("ResourceNames", &rule.names),
        ("NonResourceURLs", &rule.urls),
        ("Verbs", &rule.verbs),
    ] {
        if !list.is_empty() {
            parts.push(format!("{name}:{list:?}"));
        }
    }
    format!("{{{}}}", parts.join(", "))
}
