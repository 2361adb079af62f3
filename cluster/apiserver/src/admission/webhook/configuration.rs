//! `MutatingWebhookConfiguration` and `ValidatingWebhookConfiguration`: which webhooks a request concerns.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use meshlab_objects::Status;
use meshlab_objects::selector::LabelSelector;
use serde_json::Value;

use super::super::Attributes;
use super::SharedWebhooks;
use crate::api::Api;
use crate::store::{GroupResource, Key};

const GROUP: &str = "admissionregistration.k8s.io";
/// Kubernetes' default.
const DEFAULT_TIMEOUT: u64 = 10;

/// Which of the two kinds of webhooks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Mutating,
    Validating,
}

/// What becomes of a request when a webhook cannot be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FailurePolicy {
    Fail,
    Ignore,
}

/// Whether a webhook does more than answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SideEffects {
    /// None, or none on a dry run.
    None,
    Some,
}

/// Where a webhook is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Endpoint {
    Url(String),
    Service { namespace: String, name: String, port: u16, path: String },
}

/// One webhook, matched to a request.
#[derive(Debug, Clone)]
pub(super) struct Webhook {
    pub(super) name: String,
    pub(super) endpoint: Endpoint,
    /// PEM; empty for the system's own roots.
    pub(super) ca: Vec<u8>,
    pub(super) timeout: Duration,
    pub(super) failure_policy: FailurePolicy,
    pub(super) side_effects: SideEffects,
    pub(super) reinvocation_if_needed: bool,
    /// Name and CEL expression.
    pub(super) conditions: Vec<(String, String)>,
    object_selector: Option<LabelSelector>,
    namespace_selector: Option<LabelSelector>,
    /// The version of the object that it is sent.
    pub(super) version: String,
}

/// The webhooks that a request concerns, in their order.
///
/// # Errors
/// 500 where a configuration cannot be understood and its policy is to fail.
pub(super) fn load(api: &Api, attributes: &Attributes, phase: Phase) -> Result<SharedWebhooks, Status> {
    // Webhooks that judge webhooks could lock everybody out.
    if attributes.served.definition.group == GROUP {
        return Ok(Vec::new());
    }
    let plural = match phase {
        Phase::Mutating => "mutatingwebhookconfigurations",
        Phase::Validating => "validatingwebhookconfigurations",
    };
    let id = GroupResource::new(GROUP, plural);
    if api.store.count(&id) == 0 {
        return Ok(Vec::new());
    }
    let mut matching = Vec::new();
    for configuration in api.store.list(&id, None).objects {
        let configuration = configuration.value();
        for webhook in configuration["webhooks"].as_array().into_iter().flatten() {
            let Some(version) = matching_version(webhook, attributes) else { continue };
            if selects_namespace(api, webhook, attributes)? {
                matching.push((webhook.clone(), version));
            }
        }
    }
    matching.iter().map(|(webhook, version)| read(webhook, version).map(Arc::new)).collect()
}

fn texts(value: &Value) -> impl Iterator<Item = &str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str)
}

/// The version in which a rule wants the object, if any does.
fn matching_version(webhook: &Value, attributes: &Attributes) -> Option<String> {
    let definition = &attributes.served.definition;
    let rules: Vec<&Value> = webhook["rules"].as_array().into_iter().flatten().collect();
    let any = |version: &str| rules.iter().any(|rule| rule_matches(rule, attributes, version));
    if any(&attributes.version) {
        return Some(attributes.version.clone());
    }
    if webhook["matchPolicy"].as_str() == Some("Exact") {
        return None;
    }
    definition.versions.iter().find(|version| any(version)).cloned()
}

fn rule_matches(rule: &Value, attributes: &Attributes, version: &str) -> bool {
    let definition = &attributes.served.definition;
    let has = |list: &Value, wanted: &str| texts(list).any(|entry| entry == "*" || entry == wanted);
    let scope = match rule["scope"].as_str() {
        Some("Cluster") => !definition.namespaced,
        Some("Namespaced") => definition.namespaced,
        _ => true,
    };
    let (plural, subresource) = (definition.plural.as_str(), attributes.subresource.as_str());
    let resource = texts(&rule["resources"]).any(|entry| match entry.split_once('/') {
        None => subresource.is_empty() && (entry == "*" || entry == plural),
        Some((resource, sub)) => {
            (resource == "*" || resource == plural) && (sub == "*" || (sub == subresource && !subresource.is_empty()))
        }
    });
    scope
        && resource
        && has(&rule["operations"], attributes.operation.name())
        && has(&rule["apiGroups"], &definition.group)
        && has(&rule["apiVersions"], version)
}

/// A selector that is left out selects everything.
fn selector(value: &Value) -> Result<Option<LabelSelector>, Status> {
    if value.is_null() { Ok(None) } else { LabelSelector::from_value(value).map(Some) }
}

fn selects_namespace(api: &Api, webhook: &Value, attributes: &Attributes) -> Result<bool, Status> {
    let Some(selector) = selector(&webhook["namespaceSelector"])?.filter(|selector| !selector.is_empty()) else {
        return Ok(true);
    };
    let definition = &attributes.served.definition;
    let is_namespace = definition.group.is_empty() && definition.plural == "namespaces";
    if is_namespace {
        // A namespace is selected by its own labels, the new ones when there are any; the caller knows those of the old one.
        let labels = attributes.old.as_ref().and_then(|old| old["metadata"].get("labels"));
        return Ok(attributes.old.is_none() || selector.matches(labels));
    }
    if attributes.key.namespace().is_empty() {
        return Ok(true);
    }
    let namespace = api.store.get(&GroupResource::new("", "namespaces"), &Key::new("", attributes.key.namespace()));
    Ok(namespace.is_some_and(|namespace| selector.matches(namespace.value()["metadata"].get("labels"))))
}

fn read(webhook: &Value, version: &str) -> Result<Webhook, Status> {
    let name = webhook["name"].as_str().unwrap_or_default().to_owned();
    let broken = |why: &str| Status::internal(format!("failed calling webhook {name:?}: {why}"));
    let config = &webhook["clientConfig"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let endpoint = match (config["url"].as_str(), &config["service"]) {
        (Some(url), Value::Null) => Endpoint::Url(url.to_owned()),
        (None, service) if service.is_object() => Endpoint::Service {
            namespace: text(&service["namespace"]),
            name: text(&service["name"]),
            port: service["port"].as_u64().and_then(|port| u16::try_from(port).ok()).unwrap_or(443),
            path: service["path"].as_str().unwrap_or("/").to_owned(),
        },
        _ => return Err(broken("exactly one of clientConfig.url and clientConfig.service must be set")),
    };
    let ca = match config["caBundle"].as_str() {
        None | Some("") => Vec::new(),
        Some(encoded) => BASE64_STANDARD.decode(encoded).map_err(|_| broken("clientConfig.caBundle is not base64"))?,
    };
    let seconds = webhook["timeoutSeconds"].as_u64().unwrap_or(DEFAULT_TIMEOUT).clamp(1, 30);
    let conditions = webhook["matchConditions"].as_array().into_iter().flatten();
    Ok(Webhook {
        endpoint,
        ca,
        timeout: Duration::from_secs(seconds),
        failure_policy: if webhook["failurePolicy"] == "Ignore" { FailurePolicy::Ignore } else { FailurePolicy::Fail },
        side_effects: match webhook["sideEffects"].as_str() {
            Some("None" | "NoneOnDryRun") => SideEffects::None,
            _ => SideEffects::Some,
        },
        reinvocation_if_needed: webhook["reinvocationPolicy"] == "IfNeeded",
        conditions: conditions.map(|condition| (text(&condition["name"]), text(&condition["expression"]))).collect(),
        object_selector: selector(&webhook["objectSelector"])?,
        namespace_selector: selector(&webhook["namespaceSelector"])?,
        version: version.to_owned(),
        name,
    })
}

impl Webhook {
    /// Whether the labels of the object, before or after the change, are selected.
    pub(super) fn selects(&self, attributes: &Attributes, object: &Value) -> bool {
        let labelled = |selector: &LabelSelector| {
            let old = attributes.old.as_ref();
            [Some(object), old]
                .into_iter()
                .flatten()
                .filter(|object| object.is_object())
                .any(|object| selector.matches(object["metadata"].get("labels")))
        };
        let definition = &attributes.served.definition;
        let is_new_namespace = definition.group.is_empty() && definition.plural == "namespaces" && object.is_object();
        let by_own_labels = |selector: &LabelSelector| !is_new_namespace || selector.matches(object["metadata"].get("labels"));
        self.object_selector.as_ref().is_none_or(|selector| selector.is_empty() || labelled(selector))
            && self.namespace_selector.as_ref().is_none_or(|selector| selector.is_empty() || by_own_labels(selector))
    }
}
