//! Not doing again what was done before.
//!
//! After every change of the cluster everything is compiled anew, and nearly all of it comes out as it was. So whatever costs much is
//! a function of few inputs, and is remembered by them: the inputs are a small struct, [`Memo::get`] looks it up, and only if it
//! is not there the function runs. Three rules make that safe:
//!
//! - Objects are never changed in place. A changed object is a new one, in a new allocation; hence inputs that are objects are
//!   compared by identity ([`Same`]), which costs nothing, and the rest (a port, a namespace) by value.
//! - A remembered function is given its inputs and nothing else. It is a `fn`, not a closure, so it has nothing else to look at, and
//!   what it does not look at it cannot depend on. There is nothing to invalidate, hence nothing that can be forgotten.
//! - What the latest two states of the cluster did not ask for is dropped ([`Memo::forget`]).
//!
//! What is left to be done for every change is to gather inputs and to compare addresses. The layers, from the outside in:
//!
//! | remembered | by |
//! |---|---|
//! | all services, all VirtualServices, all DestinationRules | the stores that they are made from |
//! | one service | its object, its slices, the pods these name |
//! | one VirtualService with its delegates, the DestinationRules of one host | their objects |
//! | the outbound side of all sidecars alike | all of the above, the Sidecar |
//! | the clusters and endpoints of one service | the service, its DestinationRule |
//! | the routes of one VirtualService on one port | it, its destinations with their DestinationRules |
//! | one virtual host | its service, its routes |
//!
//! `cargo bench -p meshlab-control` measures what comes of it: 1,000 services with 10 endpoints each, 100 proxies of 10 workloads, one
//! route changed, on two cores. Processor time of a round from the API server to the last acknowledgement, all ends in one process:
//! 798 ms without this and with whole route tables sent, 66 ms with only the virtual hosts that changed sent (see `Delta` in
//! `meshlab-proxy-config`), 14 ms with both. With one proxy, where compiling counts most, 45 ms became 6 ms. What is left grows with the
//! number of workloads, each of which gets maps of its own from names to shared resources: 54 ms for 100 workloads.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use meshlab_proxy_config::{Cluster, Endpoints, RouteConfiguration};

use crate::compiler::{Outbound, OutboundInputs};
use crate::destination_rule::{ConsolidatedRule, DestinationRules, DestinationRulesInputs, RuleInputs};
use crate::registry::{EntryInputs, MeshService, ServiceInputs, Services, ServicesInputs};
use crate::route::{Named, Routes, RoutesInputs, ServiceRouteInputs, SniffedInputs, VirtualHostInputs};
use crate::security::peer::{PeerPolicies, PeerPoliciesInputs};
use crate::virtual_service::{Resolved, VirtualServiceInputs, VirtualServices, VirtualServicesInputs};
use crate::{cluster, snapshot};

/// A shared object that is equal to itself only. As long as this is held, its address is not given to another.
#[derive(Debug)]
pub(crate) struct Same<T>(Arc<T>);

impl<T> Same<T> {
    /// A new object.
    pub(crate) fn new(object: T) -> Self {
        Self(Arc::new(object))
    }

    /// One that others have too.
    pub(crate) fn of(object: &Arc<T>) -> Self {
        Self(object.clone())
    }
}

impl<T> Clone for Same<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Deref for Same<T> {
    type Target = Arc<T>;

    fn deref(&self) -> &Arc<T> {
        &self.0
    }
}

impl<T> PartialEq for Same<T> {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl<T> Eq for Same<T> {}

impl<T> Hash for Same<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.0).addr().hash(state);
    }
}

/// The results of one function, by its inputs. May be asked by several threads at once: who comes second waits for the first.
#[derive(Debug)]
pub(crate) struct Memo<I, O>(Mutex<Generations<I, O>>);

#[derive(Debug)]
struct Generations<I, O> {
    /// Asked for since the last change.
    now: HashMap<I, Arc<OnceLock<O>>>,
    /// Asked for since the change before that, and not since.
    before: HashMap<I, Arc<OnceLock<O>>>,
}

impl<I, O> Default for Memo<I, O> {
    fn default() -> Self {
        Self(Mutex::new(Generations { now: HashMap::new(), before: HashMap::new() }))
    }
}

impl<I: Hash + Eq + Clone, O: Clone> Memo<I, O> {
    /// What `function` makes of the inputs. The other memos are for the steps of its work.
    pub(crate) fn get(&self, inputs: I, memos: &Memos, function: fn(&I, &Memos) -> O) -> O {
        let result = {
            let mut generations = self.lock();
            let generations = &mut *generations;
            if let Some(known) = generations.now.get(&inputs) {
                known.clone()
            } else {
                let (inputs, result) =
                    generations.before.remove_entry(&inputs).unwrap_or_else(|| (inputs.clone(), Arc::default()));
                generations.now.insert(inputs, result.clone());
                result
            }
        };
        result.get_or_init(|| function(&inputs, memos)).clone()
    }

    /// A new state of the cluster: what was not asked for since the last one is dropped.
    fn forget(&self) {
        let mut generations = self.lock();
        let generations = &mut *generations;
        generations.before = std::mem::take(&mut generations.now);
    }

    fn lock(&self) -> MutexGuard<'_, Generations<I, O>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Everything that is remembered.
#[derive(Debug, Default)]
pub(crate) struct Memos {
    pub(crate) services: Memo<ServicesInputs, Same<Services>>,
    pub(crate) kubernetes_services: Memo<ServiceInputs, Arc<MeshService>>,
    pub(crate) service_entries: Memo<EntryInputs, Arc<[Arc<MeshService>]>>,
    pub(crate) virtual_services: Memo<VirtualServicesInputs, Same<VirtualServices>>,
    pub(crate) resolved: Memo<VirtualServiceInputs, Resolved>,
    pub(crate) destination_rules: Memo<DestinationRulesInputs, Same<DestinationRules>>,
    pub(crate) rules: Memo<RuleInputs, Arc<[Arc<ConsolidatedRule>]>>,
    pub(crate) peer_policies: Memo<PeerPoliciesInputs, Same<PeerPolicies>>,
    pub(crate) label_keys: Memo<snapshot::LabelKeysInputs, Arc<snapshot::LabelKeys>>,
    pub(crate) pods_by_ip: Memo<snapshot::PodsInputs, Arc<snapshot::PodsByIp>>,
    pub(crate) outbound: Memo<OutboundInputs, Arc<Outbound>>,
    pub(crate) clusters: Memo<cluster::ClusterInputs, Arc<[cluster::Compiled]>>,
    pub(crate) routes: Memo<RoutesInputs, Routes>,
    pub(crate) service_routes: Memo<ServiceRouteInputs, Routes>,
    pub(crate) virtual_hosts: Memo<VirtualHostInputs, Arc<Named>>,
    pub(crate) sniffed: Memo<SniffedInputs, Arc<RouteConfiguration>>,
    pub(crate) equal_clusters: Equal<Cluster>,
    pub(crate) equal_endpoints: Equal<Endpoints>,
}

impl Memos {
    /// A new state of the cluster is about to be compiled.
    pub(crate) fn forget(&self) {
        self.services.forget();
        self.kubernetes_services.forget();
        self.service_entries.forget();
        self.virtual_services.forget();
        self.resolved.forget();
        self.destination_rules.forget();
        self.rules.forget();
        self.peer_policies.forget();
        self.label_keys.forget();
        self.pods_by_ip.forget();
        self.outbound.forget();
        self.clusters.forget();
        self.routes.forget();
        self.service_routes.forget();
        self.virtual_hosts.forget();
        self.sniffed.forget();
        self.equal_clusters.forget();
        self.equal_endpoints.forget();
    }
}

/// The resource that was last made under each name. One that comes out equal, for other clients or from other inputs, is that same one:
/// it takes no memory of its own, and who compares by address sees that nothing has changed.
#[derive(Debug)]
pub(crate) struct Equal<T>(Mutex<HashMap<String, Weak<T>>>);

impl<T> Default for Equal<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: PartialEq> Equal<T> {
    /// `made`, or what was made before if that is equal.
    pub(crate) fn share(&self, name: &str, made: T) -> Arc<T> {
        let mut known = self.lock();
        if let Some(equal) = known.get(name).and_then(Weak::upgrade).filter(|known| **known == made) {
            return equal;
        }
        let made = Arc::new(made);
        known.insert(name.to_owned(), Arc::downgrade(&made));
        made
    }

    /// Names that nobody has any more.
    fn forget(&self) {
        self.lock().retain(|_, known| known.strong_count() > 0);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Weak<T>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Its length, and a count of how often that was looked up, which real functions could not have: they see their inputs only.
    type Inputs = Same<(AtomicUsize, &'static str)>;

    fn length(inputs: &Inputs, _: &Memos) -> usize {
        inputs.0.0.fetch_add(1, Ordering::Relaxed);
        inputs.0.1.len()
    }

    fn runs(inputs: &Inputs) -> usize {
        inputs.0.0.load(Ordering::Relaxed)
    }

    #[test]
    fn a_function_runs_once_for_the_same_inputs() {
        let (memo, memos) = (Memo::default(), Memos::default());
        let (one, other) = (Same::new((AtomicUsize::new(0), "ab")), Same::new((AtomicUsize::new(0), "abc")));
        for _ in 0..3 {
            assert_eq!(memo.get(one.clone(), &memos, length), 2);
            assert_eq!(memo.get(other.clone(), &memos, length), 3);
            memo.forget();
        }
        assert_eq!((runs(&one), runs(&other)), (1, 1));
    }

    #[test]
    fn what_two_states_did_not_ask_for_is_dropped() {
        let (memo, memos) = (Memo::default(), Memos::default());
        let inputs: Inputs = Same::new((AtomicUsize::new(0), "ab"));
        memo.get(inputs.clone(), &memos, length);
        memo.forget();
        assert_eq!(Arc::strong_count(&inputs), 2);
        memo.forget();
        assert_eq!(Arc::strong_count(&inputs), 1);
        memo.get(inputs.clone(), &memos, length);
        assert_eq!(runs(&inputs), 2);
    }

    #[test]
    fn equal_resources_are_one_while_somebody_has_them() {
        let equal = Equal::<String>::default();
        let (first, second) = (equal.share("a", "x".to_owned()), equal.share("a", "x".to_owned()));
        assert!(Arc::ptr_eq(&first, &second));
        assert!(!Arc::ptr_eq(&first, &equal.share("a", "y".to_owned())));
        drop((first, second));
        equal.forget();
        assert!(equal.lock().is_empty());
    }
}
