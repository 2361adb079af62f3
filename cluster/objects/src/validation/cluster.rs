//! RBAC, webhook configurations, autoscalers and budgets.

use std::collections::BTreeSet;

use super::{Faults, Field, names};

const RBAC: &str = "rbac.authorization.k8s.io";

/// Rules of a role; those of a namespaced one cannot speak of URLs.
pub(super) fn rules(role: Field<'_>, namespaced: bool, faults: &mut Faults) {
    for rule in role.at("rules").items() {
        if rule.at("verbs").is_empty() {
            faults.required(&*rule.at("verbs").path, "verbs must contain at least one value");
        }
        let (urls, groups, resources) = (rule.at("nonResourceURLs"), rule.at("apiGroups"), rule.at("resources"));
        if !urls.is_empty() {
            if namespaced {
                faults.invalid(&*urls.path, urls.value.clone(), "namespaced rules cannot apply to non-resource URLs");
            }
            if !groups.is_empty() || !resources.is_empty() || !rule.at("resourceNames").is_empty() {
                faults.invalid(
                    &*urls.path,
                    urls.value.clone(),
                    "rules cannot apply to both regular resources and non-resource URLs",
                );
            }
            continue;
        }
        if groups.is_empty() {
            faults.required(&*groups.path, "resource rules must supply at least one api group");
        }
        if resources.is_empty() {
            faults.required(&*resources.path, "resource rules must supply at least one resource");
        }
    }
}

pub(super) fn role_binding(binding: Field<'_>, namespaced: bool, faults: &mut Faults) {
    let role = binding.at("roleRef");
    faults.one_of(&role.at("apiGroup"), &[RBAC]);
    let kinds: &[&str] = if namespaced { &["ClusterRole", "Role"] } else { &["ClusterRole"] };
    if role.at("kind").text().is_empty() {
        faults.required("roleRef.kind", "");
    }
    faults.one_of(&role.at("kind"), kinds);
    faults.required_name(&role.at("name"), names::path_segment);
    for subject in binding.at("subjects").items() {
        let (name, kind) = (subject.at("name"), subject.at("kind"));
        if name.text().is_empty() {
            faults.required(&*name.path, "");
        }
        faults.one_of(&kind, &["Group", "ServiceAccount", "User"]);
        match kind.text() {
            "ServiceAccount" => {
                if !name.text().is_empty() {
                    faults.named(&name, names::dns_subdomain);
                }
                faults.one_of(&subject.at("apiGroup"), &[""]);
                if subject.at("namespace").text().is_empty() {
                    faults.required(&*subject.at("namespace").path, "");
                }
            }
            "User" | "Group" => faults.one_of(&subject.at("apiGroup"), &[RBAC]),
            _ => {}
        }
    }
}

pub(super) fn role_ref_update(new: Field<'_>, old: Field<'_>, faults: &mut Faults) {
    let (new, old) = (new.at("roleRef"), old.at("roleRef"));
    if new.value != old.value {
        let text = |name: &str| new.at(name).text();
        let shown = format!("rbac.RoleRef{{APIGroup:{:?}, Kind:{:?}, Name:{:?}}}", text("apiGroup"), text("kind"), text("name"));
        faults.invalid_shown("roleRef", &shown, "cannot change roleRef");
    }
}

pub(super) fn webhooks(configuration: Field<'_>, faults: &mut Faults) {
    let mut seen = BTreeSet::new();
    for webhook in configuration.at("webhooks").items() {
        let name = webhook.at("name");
        if name.text().is_empty() {
            faults.required(&*name.path, "");
        } else {
            faults.named(&name, names::dns_subdomain);
            if name.text().split('.').count() < 3 {
                faults.invalid(&*name.path, name.text(), "should be a domain with at least three segments separated by dots");
            }
            if !seen.insert(name.text()) {
                faults.duplicate(&*name.path, name.text());
            }
        }
        faults.one_of(&webhook.at("failurePolicy"), &["Fail", "Ignore"]);
        faults.one_of(&webhook.at("matchPolicy"), &["Equivalent", "Exact"]);
        faults.one_of(&webhook.at("reinvocationPolicy"), &["IfNeeded", "Never"]);
        let side_effects = webhook.at("sideEffects");
        if side_effects.text().is_empty() {
            faults.required(&*side_effects.path, "must specify one of None, NoneOnDryRun");
        }
        faults.one_of(&side_effects, &["None", "NoneOnDryRun"]);
        let timeout = webhook.at("timeoutSeconds");
        if timeout.number().is_some_and(|seconds| !(1..=30).contains(&seconds)) {
            faults.invalid(&*timeout.path, timeout.value.clone(), "the timeout value must be between 1 and 30 seconds");
        }
        review_versions(&webhook.at("admissionReviewVersions"), faults);
        client(&webhook.at("clientConfig"), faults);
        for rule in webhook.at("rules").items() {
            for list in ["operations", "apiGroups", "apiVersions", "resources"] {
                if rule.at(list).is_empty() {
                    faults.required(&*rule.at(list).path, "");
                }
            }
            for operation in rule.at("operations").items() {
                faults.one_of(&operation, &["*", "CONNECT", "CREATE", "DELETE", "UPDATE"]);
            }
            faults.one_of(&rule.at("scope"), &["*", "Cluster", "Namespaced"]);
        }
    }
}

fn review_versions(versions: &Field<'_>, faults: &mut Faults) {
    if versions.is_empty() {
        faults.required(&*versions.path, "must specify one of v1, v1beta1");
    } else if !versions.items().iter().any(|version| matches!(version.text(), "v1" | "v1beta1")) {
        faults.invalid(&*versions.path, versions.value.clone(), "must include at least one of v1, v1beta1");
    }
}

fn client(client: &Field<'_>, faults: &mut Faults) {
    let (url, service) = (client.at("url"), client.at("service"));
    if url.is_set() == service.is_set() {
        faults.required(&*client.path, "exactly one of url or service is required");
    }
    if url.is_set() && !url.text().starts_with("https://") {
        faults.invalid(&*url.path, url.text(), "'https' is the only allowed URL scheme; desired format: https://host[/path]");
    }
    if service.is_set() {
        for name in ["name", "namespace"] {
            if service.at(name).text().is_empty() {
                faults.required(&*service.at(name).path, &format!("service {name} is required"));
            }
        }
        faults.port(&service.at("port"));
    }
}

pub(super) fn autoscaler(object: Field<'_>, faults: &mut Faults) {
    let spec = object.at("spec");
    let (min, max) = (spec.at("minReplicas"), spec.at("maxReplicas"));
    if min.number().is_some_and(|min| min < 1) {
        faults.invalid(&*min.path, min.value.clone(), "must be greater than or equal to 1");
    }
    if max.number().is_none_or(|max| max < 1) {
        faults.invalid(&*max.path, max.number().unwrap_or_default(), "must be greater than 0");
    }
    if let (Some(min), Some(most)) = (min.number(), max.number())
        && most < min
    {
        faults.invalid(&*max.path, most, "must be greater than or equal to `minReplicas`");
    }
    for name in ["kind", "name"] {
        let field = spec.at("scaleTargetRef").at(name);
        if field.text().is_empty() {
            faults.required(&*field.path, "");
        }
    }
}

pub(super) fn disruption_budget(object: Field<'_>, faults: &mut Faults) {
    let spec = object.at("spec");
    if spec.at("minAvailable").is_set() && spec.at("maxUnavailable").is_set() {
        faults.invalid("spec", spec.value.clone(), "minAvailable and maxUnavailable cannot be both set");
    }
}

pub(super) fn storage_class_update(new: Field<'_>, old: Field<'_>, faults: &mut Faults) {
    for name in ["parameters", "provisioner", "reclaimPolicy", "volumeBindingMode"] {
        if new.at(name).value != old.at(name).value {
            faults.forbidden(name, &format!("updates to {name} are forbidden."));
        }
    }
}
