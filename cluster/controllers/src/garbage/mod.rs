//! Garbage collection: objects whose owners are gone go too, and deletion in the foreground or with orphans waits for them.

mod graph;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::{TryStreamExt, pin_mut};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, DynamicObject, PartialObjectMeta, Patch, Preconditions};
use kube::core::GroupVersion;
use kube::discovery::{ApiResource, Discovery, Scope, verbs};
use kube::runtime::watcher::{self, Event};
use meshlab_controller_runtime::{Outcome, WorkQueue, catch_panic, is_not_found};
use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::Context;
use graph::{Graph, Node, Work};

const FOREGROUND: &str = "foregroundDeletion";
const ORPHAN: &str = "orphan";
/// Objects looked at, at a time.
const WORKERS: usize = 32;
/// How long to gather changes of CRDs before looking for new kinds.
const SETTLE: Duration = Duration::from_millis(20);
/// How long to wait before a broken watch is opened again.
const RETRY: Duration = Duration::from_millis(200);
/// Kinds that own nothing, are owned by nothing, and change all the time.
const IGNORED: [&str; 3] = ["events", "leases", "componentstatuses"];

/// Collects garbage, until the cluster stops.
pub(crate) async fn run(context: Arc<Context>) {
    let collector = Arc::new(Collector {
        context,
        graph: Mutex::default(),
        queue: WorkQueue::new(),
        kinds_changed: Notify::new(),
        resources: Mutex::default(),
    });
    let handle = |uid| {
        let collector = collector.clone();
        async move { collector.reconcile(uid).await }
    };
    tokio::join!(collector.clone().follow_kinds(), collector.queue.run("garbage", WORKERS, handle));
}

struct Collector {
    context: Arc<Context>,
    graph: Mutex<Graph>,
    queue: WorkQueue<String>,
    /// Custom resource definitions came or went.
    kinds_changed: Notify,
    /// Every kind watched, by group and kind.
    resources: Mutex<HashMap<(String, String), (ApiResource, Scope)>>,
}

impl Collector {
    /// Watches the metadata of every kind there is, and of those that come.
    async fn follow_kinds(self: Arc<Self>) {
        let all = self.context.stop.child_token();
        let _guard = all.clone().drop_guard();
        let mut watches: HashMap<ApiResource, CancellationToken> = HashMap::new();
        loop {
            match self.discover().await {
                Ok(found) => {
                    watches.retain(|resource, stop| {
                        let stays = found.contains_key(resource);
                        if !stays {
                            stop.cancel();
                        }
                        stays
                    });
                    for resource in found.keys() {
                        watches.entry(resource.clone()).or_insert_with(|| {
                            let stop = all.child_token();
                            tokio::spawn(stop.clone().run_until_cancelled_owned(self.clone().follow(resource.clone())));
                            stop
                        });
                    }
                    *self.resources.lock() = found
                        .into_iter()
                        .map(|(resource, scope)| ((resource.group.clone(), resource.kind.clone()), (resource, scope)))
                        .collect();
                    self.kinds_changed.notified().await;
                    tokio::time::sleep(SETTLE).await;
                }
                Err(error) => {
                    tracing::debug!(%error, "discovery failed, trying again");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    async fn discover(&self) -> Result<HashMap<ApiResource, Scope>, kube::Error> {
        let discovery = Discovery::new(self.context.client.clone()).run_aggregated().await?;
        let resources = discovery.groups().flat_map(kube::discovery::ApiGroup::recommended_resources);
        Ok(resources
            .filter(|(resource, capabilities)| {
                let able = [verbs::LIST, verbs::WATCH, verbs::DELETE].iter().all(|verb| capabilities.supports_operation(verb));
                able && !IGNORED.contains(&resource.plural.as_str())
            })
            .map(|(resource, capabilities)| (resource, capabilities.scope))
            .collect())
    }

    async fn follow(self: Arc<Self>, resource: ApiResource) {
        let work = async {
            let api: Api<PartialObjectMeta<DynamicObject>> = Api::all_with(self.context.client.clone(), &resource);
            let stream = watcher::watcher(api, watcher::Config::default());
            pin_mut!(stream);
            let mut listed: Option<Vec<String>> = None;
            loop {
                match stream.try_next().await {
                    Ok(Some(Event::Init)) => listed = Some(Vec::new()),
                    Ok(Some(Event::InitApply(object))) => {
                        listed.iter_mut().for_each(|listed| listed.extend(object.uid()));
                        self.enter(&resource, &object);
                    }
                    Ok(Some(Event::InitDone)) => {
                        let listed = listed.take().unwrap_or_default();
                        let gone = self.graph.lock().missing(&resource, &listed);
                        gone.iter().for_each(|uid| self.leave(uid));
                    }
                    Ok(Some(Event::Apply(object))) => self.enter(&resource, &object),
                    Ok(Some(Event::Delete(object))) => self.leave(&object.uid().unwrap_or_default()),
                    Ok(None) => return,
                    Err(error) => {
                        tracing::debug!(kind = resource.kind, %error, "watch broke, opening it again");
                        tokio::time::sleep(RETRY).await;
                    }
                }
                if resource.plural == "customresourcedefinitions" {
                    self.kinds_changed.notify_one();
                }
            }
        };
        if let Err(panic) = catch_panic(work).await {
            tracing::error!(kind = resource.kind, panic, "a garbage collection watch panicked");
        }
        // What was of a kind that is no more needs no collecting.
        let gone = self.graph.lock().missing(&resource, &[]);
        gone.iter().for_each(|uid| self.leave(uid));
    }

    fn enter(&self, resource: &ApiResource, object: &PartialObjectMeta<DynamicObject>) {
        let Some(uid) = object.uid() else { return };
        let node = Node {
            resource: resource.clone(),
            namespace: object.namespace(),
            name: object.name_any(),
            owners: object.owner_references().to_vec(),
            finalizers: object.finalizers().to_vec(),
            deleting: object.metadata.deletion_timestamp.is_some(),
        };
        for uid in self.graph.lock().upsert(&uid, node) {
            self.queue.add(uid);
        }
    }

    fn leave(&self, uid: &str) {
        for uid in self.graph.lock().remove(uid) {
            self.queue.add(uid);
        }
    }

    async fn reconcile(&self, uid: String) -> Result<Outcome, kube::Error> {
        let work = self.graph.lock().work(&uid);
        match work {
            Work::Nothing => {}
            Work::CheckOwners(node) => self.check_owners(&uid, &node).await?,
            Work::Orphan(node, dependents) => {
                for (dependent_uid, dependent) in dependents {
                    let left = dependent.owners.iter().filter(|owner| owner.uid != uid).cloned().collect();
                    self.set_owners(&dependent_uid, &dependent, left).await?;
                }
                self.remove_finalizer(&uid, &node, ORPHAN).await?;
            }
            Work::DeleteDependents(dependents) => {
                for (dependent_uid, dependent) in dependents {
                    self.delete(&dependent_uid, &dependent, DeleteParams::foreground()).await?;
                }
            }
            Work::FinishForeground(node) => self.remove_finalizer(&uid, &node, FOREGROUND).await?,
        }
        Ok(Outcome::default())
    }

    /// Deletes an object that has lost all its owners; forgets those it has lost if others are left.
    async fn check_owners(&self, uid: &str, node: &Node) -> Result<(), kube::Error> {
        let mut alive = Vec::new();
        for owner in &node.owners {
            if self.exists(node, owner).await? {
                alive.push(owner.clone());
            }
        }
        if alive.is_empty() {
            let policy = match () {
                () if node.finalizers.iter().any(|finalizer| finalizer == ORPHAN) => DeleteParams::orphan(),
                () if node.finalizers.iter().any(|finalizer| finalizer == FOREGROUND) => DeleteParams::foreground(),
                () => DeleteParams::background(),
            };
            self.delete(uid, node, policy).await
        } else if alive.len() < node.owners.len() {
            self.set_owners(uid, node, alive).await
        } else {
            Ok(())
        }
    }

    /// Whether an owner is there, asking the API server where the watches have not shown it.
    async fn exists(&self, node: &Node, owner: &OwnerReference) -> Result<bool, kube::Error> {
        if self.graph.lock().contains(&owner.uid) {
            return Ok(true);
        }
        let group = owner.api_version.parse::<GroupVersion>().map(|version| version.group).unwrap_or_default();
        let Some((resource, scope)) = self.resources.lock().get(&(group, owner.kind.clone())).cloned() else {
            // An unknown kind may be one whose definition is still on its way: never delete on a guess.
            return Ok(true);
        };
        let api = self.api(&resource, node.namespace.as_deref().filter(|_| scope == Scope::Namespaced));
        let found = api.get_metadata_opt(&owner.name).await?;
        Ok(found.is_some_and(|found| found.uid().as_ref() == Some(&owner.uid)))
    }

    fn api(&self, resource: &ApiResource, namespace: Option<&str>) -> Api<DynamicObject> {
        match namespace {
            Some(namespace) => Api::namespaced_with(self.context.client.clone(), namespace, resource),
            None => Api::all_with(self.context.client.clone(), resource),
        }
    }

    async fn delete(&self, uid: &str, node: &Node, policy: DeleteParams) -> Result<(), kube::Error> {
        let same = Preconditions { uid: Some(uid.to_owned()), resource_version: None };
        let api = self.api(&node.resource, node.namespace.as_deref());
        settled(api.delete(&node.name, &policy.preconditions(same)).await.map(drop))
    }

    async fn set_owners(&self, uid: &str, node: &Node, owners: Vec<OwnerReference>) -> Result<(), kube::Error> {
        let owners = (!owners.is_empty()).then_some(owners);
        self.patch(node, json!({"metadata": {"uid": uid, "ownerReferences": owners}})).await
    }

    async fn remove_finalizer(&self, uid: &str, node: &Node, finalizer: &str) -> Result<(), kube::Error> {
        let api = self.api(&node.resource, node.namespace.as_deref());
        let Some(now) = api.get_metadata_opt(&node.name).await?.filter(|now| now.uid().as_deref() == Some(uid)) else {
            return Ok(());
        };
        let left: Vec<&String> = now.finalizers().iter().filter(|known| *known != finalizer).collect();
        // The resource version makes sure that nobody's finalizer is lost.
        let metadata = json!({"uid": uid, "resourceVersion": now.resource_version(), "finalizers": left});
        self.patch(node, json!({"metadata": metadata})).await
    }

    async fn patch(&self, node: &Node, patch: serde_json::Value) -> Result<(), kube::Error> {
        let api = self.api(&node.resource, node.namespace.as_deref());
        settled(api.patch_metadata(&node.name, &Default::default(), &Patch::Merge(patch)).await.map(drop))
    }
}

/// An object that is gone needs nothing more; neither does another one of the same name.
fn settled(answer: Result<(), kube::Error>) -> Result<(), kube::Error> {
    match answer {
        Err(error) if is_not_found(&error) => Ok(()),
        Err(kube::Error::Api(status)) if status.reason == "Conflict" && status.message.contains("UID") => Ok(()),
        answer => answer,
    }
}
