//! Which policies hold for a workload.

use std::sync::Arc;

use meshlab_istio_api::{LabelSelector, Object, TargetRef};

use crate::proxy::ProxyIdentity;
use crate::registry::selects;
use crate::sources::Store;

/// What a policy says of its targets.
pub(crate) trait Targeted {
    /// `spec.selector`
    fn selector(&self) -> Option<&LabelSelector>;
    /// Whether it is attached to Gateway API resources instead.
    fn target_refs(&self) -> (&Option<TargetRef>, &[TargetRef]);
}

macro_rules! targeted {
    ($($kind:ty),*) => {$(
        impl Targeted for $kind {
            fn selector(&self) -> Option<&LabelSelector> {
                self.selector.as_ref()
            }
            fn target_refs(&self) -> (&Option<TargetRef>, &[TargetRef]) {
                (&self.target_ref, &self.target_refs)
            }
        }
    )*};
}

targeted!(meshlab_istio_api::AuthorizationPolicy, meshlab_istio_api::RequestAuthentication, meshlab_istio_api::Telemetry);

/// Whether a policy has a selector with labels.
pub(crate) fn has_selector(policy: &impl Targeted) -> bool {
    policy.selector().is_some_and(|selector| !selector.match_labels.is_empty())
}

/// Whether a policy is attached to Gateway API resources.
pub(crate) fn is_attached(policy: &impl Targeted) -> bool {
    let (one, several) = policy.target_refs();
    one.is_some() || !several.is_empty()
}

/// The policies of the root namespace and of the workload's own that select it, oldest first in each. Those attached to Gateway
/// API resources hold for none.
pub(crate) fn select<'a, T: Targeted>(
    store: &'a Store<Object<T>>,
    proxy: &ProxyIdentity,
    root_namespace: &str,
) -> Vec<&'a Arc<Object<T>>> {
    let mut scopes = vec![root_namespace];
    if proxy.namespace != root_namespace {
        scopes.push(&proxy.namespace);
    }
    let mut out = Vec::new();
    for scope in scopes {
        let mut found: Vec<_> = store
            .range((scope.to_owned(), String::new())..)
            .take_while(|((namespace, _), _)| namespace == scope)
            .map(|(_, object)| object)
            .filter(|object| !is_attached(&object.spec))
            .filter(|object| object.spec.selector().is_none_or(|selector| selects(&selector.match_labels, &proxy.labels)))
            .collect();
        found.sort_by(|a, b| a.age_order().cmp(&b.age_order()));
        out.extend(found);
    }
    out
}
