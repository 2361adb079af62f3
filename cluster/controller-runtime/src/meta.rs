//! Selectors, owners and times.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, OwnerReference, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::Resource;

/// The present, in whole seconds as Kubernetes writes it.
pub fn now() -> Time {
    let second = Timestamp::now().as_second();
    Time(Timestamp::from_second(second).unwrap_or(Timestamp::UNIX_EPOCH))
}

/// 1 January 1970: what Kubernetes writes where something never began.
pub fn epoch() -> Time {
    Time(Timestamp::UNIX_EPOCH)
}

/// Whether a label selector matches. One that selects nothing explicitly (`None`) matches nothing; an empty one everything.
pub fn matches_selector(selector: Option<&LabelSelector>, labels: Option<&BTreeMap<String, String>>) -> bool {
    let Some(selector) = selector else { return false };
    let value = |key: &str| labels.and_then(|labels| labels.get(key));
    let by_labels = selector.match_labels.iter().flatten().all(|(key, wanted)| value(key) == Some(wanted));
    by_labels
        && selector.match_expressions.iter().flatten().all(|term| {
            let values = term.values.as_deref().unwrap_or_default();
            match (term.operator.as_str(), value(&term.key)) {
                ("In", Some(value)) => values.contains(value),
                ("NotIn", Some(value)) => !values.contains(value),
                ("Exists", value) => value.is_some(),
                ("NotIn" | "DoesNotExist", None) => true,
                _ => false,
            }
        })
}

/// The owner that controls an object, if there is one.
pub fn controller_of<K: Resource>(object: &K) -> Option<&OwnerReference> {
    object.meta().owner_references.iter().flatten().find(|owner| owner.controller == Some(true))
}

/// A reference that makes `owner` the controller of another object.
pub fn controller_reference<K: Resource<DynamicType = ()>>(owner: &K) -> OwnerReference {
    OwnerReference {
        api_version: K::api_version(&()).into_owned(),
        kind: K::kind(&()).into_owned(),
        name: owner.meta().name.clone().unwrap_or_default(),
        uid: owner.meta().uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// What an Event says it is about.
pub fn object_reference<K: Resource<DynamicType = ()>>(object: &K) -> ObjectReference {
    ObjectReference {
        api_version: Some(K::api_version(&()).into_owned()),
        kind: Some(K::kind(&()).into_owned()),
        name: object.meta().name.clone(),
        namespace: object.meta().namespace.clone(),
        uid: object.meta().uid.clone(),
        resource_version: object.meta().resource_version.clone(),
        field_path: None,
    }
}

/// Whether the object's deletion was asked for.
pub fn is_terminating<K: Resource>(object: &K) -> bool {
    object.meta().deletion_timestamp.is_some()
}

/// Whether a call failed because the object is not there (any more).
pub fn is_not_found(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

/// Resolves an absolute or percentage value against `total`. A malformed percentage counts as 0, as it fails validation anyway.
pub fn scaled_value(value: &IntOrString, total: i32, round_up: bool) -> i32 {
    match value {
        IntOrString::Int(value) => *value,
        IntOrString::String(text) => {
            let percent: i64 = text.strip_suffix('%').and_then(|percent| percent.parse().ok()).unwrap_or(0);
            let product = percent.saturating_mul(i64::from(total));
            let scaled = if round_up { (product + 99).div_euclid(100) } else { product.div_euclid(100) };
            i32::try_from(scaled).unwrap_or(i32::MAX)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelectorRequirement;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn selectors_match_as_the_api_defines_them() {
        let expression = |key: &str, operator: &str, values: &[&str]| LabelSelector {
            match_expressions: Some(vec![LabelSelectorRequirement {
                key: key.into(),
                operator: operator.into(),
                values: Some(values.iter().map(|value| (*value).to_owned()).collect()),
            }]),
            ..Default::default()
        };
        let web = labels(&[("app", "web")]);
        assert!(!matches_selector(None, Some(&web)));
        assert!(matches_selector(Some(&LabelSelector::default()), Some(&web)));
        assert!(matches_selector(Some(&expression("app", "In", &["web", "db"])), Some(&web)));
        assert!(!matches_selector(Some(&expression("app", "NotIn", &["web"])), Some(&web)));
        assert!(matches_selector(Some(&expression("tier", "NotIn", &["web"])), Some(&web)));
        assert!(matches_selector(Some(&expression("tier", "DoesNotExist", &[])), Some(&web)));
        assert!(!matches_selector(Some(&expression("tier", "Exists", &[])), None));
    }

    #[test]
    fn percentages_round_as_asked() {
        let quarter = IntOrString::String("25%".into());
        assert_eq!(scaled_value(&quarter, 3, true), 1);
        assert_eq!(scaled_value(&quarter, 3, false), 0);
        assert_eq!(scaled_value(&IntOrString::Int(2), 3, false), 2);
    }
}
