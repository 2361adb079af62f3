//! Deployments: one replica set per pod template, and orderly changes from one to the next.

mod rollout;
mod status;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, ReplicaSet, ReplicaSetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, Patch, PostParams};
use meshlab_controller_runtime::{
    EventRecorder, EventType, Key, Outcome, WorkQueue, controller_of, controller_reference, is_not_found, is_terminating,
    matches_selector, now,
};
use serde_json::json;

use crate::{Context, owner, pods, template};
use rollout::{Bounds, Share, Size};
use status::Progress;

const REVISION: &str = "deployment.kubernetes.io/revision";
const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
const DESIRED_REPLICAS: &str = "deployment.kubernetes.io/desired-replicas";
const MAX_REPLICAS: &str = "deployment.kubernetes.io/max-replicas";
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Deployments reconciled at a time.
const WORKERS: usize = 8;
/// Old replica sets kept for `kubectl rollout undo` when the deployment does not say.
const DEFAULT_HISTORY: i32 = 10;

/// Rolls out every deployment, until the cluster stops.
pub(crate) async fn run(context: Arc<Context>) {
    let queue = WorkQueue::new();
    watch(&context, &queue);
    let recorder = context.recorder("deployment-controller");
    let handle = |key| reconcile(context.clone(), recorder.clone(), key);
    queue.run("deployment", WORKERS, handle).await;
}

fn watch(context: &Context, queue: &WorkQueue<Key>) {
    let add = queue.clone();
    context.informers.deployments.on_change(move |_, new| {
        if let Some(deployment) = new {
            add.add(Key::of(deployment.as_ref()));
        }
    });
    let add = queue.clone();
    let deployments = context.informers.deployments.clone();
    context.informers.replica_sets.on_change(move |old, new| {
        for set in [old, new].into_iter().flatten() {
            let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
            match controller_of(set.as_ref()) {
                Some(owner) if owner.kind == "Deployment" => add.add(Key::new(namespace, &owner.name)),
                Some(_) => {}
                None => {
                    let labels = set.metadata.labels.as_ref();
                    let all = deployments.in_namespace(namespace);
                    let matching = all
                        .iter()
                        .filter(|deployment| matches_selector(deployment.spec.as_ref().map(|spec| &spec.selector), labels));
                    matching.for_each(|deployment| add.add(Key::of(deployment.as_ref())));
                }
            }
        }
    });
    // A `Recreate` deployment waits for its old pods to be gone.
    let add = queue.clone();
    let sets = context.informers.replica_sets.clone();
    context.informers.pods.on_change(move |old, new| {
        if let (Some(pod), None) = (old, new)
            && let Some(owner) = controller_of(pod.as_ref()).filter(|owner| owner.kind == "ReplicaSet")
            && let Some(set) = sets.get(pod.metadata.namespace.as_deref().unwrap_or_default(), &owner.name)
            && let Some(owner) = controller_of(set.as_ref())
        {
            add.add(Key::new(set.metadata.namespace.as_deref().unwrap_or_default(), &owner.name));
        }
    });
}

async fn reconcile(context: Arc<Context>, recorder: EventRecorder, key: Key) -> Result<Outcome, kube::Error> {
    let Some(deployment) = context.informers.deployments.at(&key) else { return Ok(Outcome::default()) };
    let Some(spec) = &deployment.spec else { return Ok(Outcome::default()) };
    let sync = Sync { context: &context, recorder: &recorder, deployment: &deployment, spec, bounds: Bounds::of(spec) };
    sync.run().await
}

/// One reconciliation of one deployment.
struct Sync<'a> {
    context: &'a Context,
    recorder: &'a EventRecorder,
    deployment: &'a Deployment,
    spec: &'a DeploymentSpec,
    bounds: Bounds,
}

impl Sync<'_> {
    async fn run(&self) -> Result<Outcome, kube::Error> {
        let mut sets = self.claimed().await?;
        if is_terminating(self.deployment) {
            self.write_status(&sets, &Progress::None, None).await?;
            return Ok(Outcome::default());
        }
        let paused = self.spec.paused == Some(true);
        let mut progress = if paused { Progress::Paused } else { Progress::None };
        let mut collisions = self.deployment.status.as_ref().and_then(|status| status.collision_count);
        if paused || self.size_changed(&sets) {
            self.scale_proportionally(&sets).await?;
        } else if rollout::is_recreate(self.deployment) {
            self.recreate(&sets, &mut progress, &mut collisions).await?;
        } else {
            self.ensure_new_set(&sets, &mut progress, &mut collisions).await?;
            self.roll(&self.owned()).await?;
        }
        sets = self.owned();
        let status = self.write_status(&sets, &progress, collisions).await?;
        if !paused && status::is_complete(self.deployment, &status) {
            self.delete_old_revisions(&sets).await?;
        }
        let deadline = self.spec.progress_deadline_seconds;
        let again = deadline.and_then(|deadline| status::until_deadline(status::progressing(&status), deadline, &now()));
        let again = again.filter(|left| !left.is_zero()).map(|left| left + Duration::from_secs(1));
        Ok(Outcome { again, ..Outcome::default() })
    }

    /// The deployment's replica sets, oldest first, after adopting orphans.
    async fn claimed(&self) -> Result<Vec<Arc<ReplicaSet>>, kube::Error> {
        let informer = &self.context.informers.replica_sets;
        for set in informer.in_namespace(&self.namespace()) {
            let orphan = controller_of(set.as_ref()).is_none() && !is_terminating(set.as_ref());
            if orphan && !is_terminating(self.deployment) && matches_selector(Some(&self.spec.selector), Some(set.labels())) {
                pods::adopt(&self.context.client, informer, set.as_ref(), controller_reference(self.deployment)).await?;
            }
        }
        Ok(self.owned())
    }

    fn owned(&self) -> Vec<Arc<ReplicaSet>> {
        let uid = self.deployment.uid().unwrap_or_default();
        let mut sets = self.context.informers.replica_sets.in_namespace(&self.namespace());
        sets.retain(|set| controller_of(set.as_ref()).is_some_and(|owner| owner.uid == uid));
        sets.sort_by_key(|set| set.metadata.creation_timestamp.clone());
        sets
    }

    fn namespace(&self) -> String {
        self.deployment.namespace().unwrap_or_default()
    }

    /// The replica set of the current template.
    fn new_set<'s>(&self, sets: &'s [Arc<ReplicaSet>]) -> Option<&'s Arc<ReplicaSet>> {
        let template = |set: &ReplicaSet| set.spec.as_ref().and_then(|spec| spec.template.clone()).unwrap_or_default();
        sets.iter().find(|set| template::equal(&template(set), &self.spec.template))
    }

    fn old_sets(&self, sets: &[Arc<ReplicaSet>]) -> Vec<Arc<ReplicaSet>> {
        let new = self.new_set(sets).map(|set| set.uid());
        sets.iter().filter(|set| Some(set.uid()) != new).cloned().collect()
    }

    /// Makes sure that there is a replica set for the template and that it carries the newest revision.
    async fn ensure_new_set(
        &self,
        sets: &[Arc<ReplicaSet>],
        progress: &mut Progress,
        collisions: &mut Option<i32>,
    ) -> Result<(), kube::Error> {
        let latest = self.old_sets(sets).iter().map(|set| revision(set.as_ref())).max().unwrap_or(0);
        match self.new_set(sets) {
            Some(set) => {
                let revision = revision(set.as_ref()).max(latest + 1);
                self.annotate_new_set(set, revision).await?;
                self.write_revision(revision).await?;
                if self.deployment.status.as_ref().and_then(status::progressing).is_none() {
                    *progress = Progress::Found(set.name_any());
                }
            }
            None => {
                if let Some(name) = self.create_new_set(sets, latest + 1, collisions).await? {
                    *progress = Progress::Created(name);
                    self.write_revision(latest + 1).await?;
                }
            }
        }
        Ok(())
    }

    /// Creates the replica set for the template; `None` if its name is taken, in which case the next pass tries another one.
    async fn create_new_set(
        &self,
        sets: &[Arc<ReplicaSet>],
        revision: i64,
        collisions: &mut Option<i32>,
    ) -> Result<Option<String>, kube::Error> {
        let hash = template::hash(&self.spec.template, collisions.unwrap_or(0));
        let size = match rollout::is_recreate(self.deployment) {
            true => self.bounds.replicas,
            false => rollout::next_new_size(self.bounds, 0, sets.iter().map(|set| replicas(set)).sum()),
        };
        let set = self.describe_set(&hash, revision, size);
        let api = self.replica_sets();
        match api.create(&PostParams::default(), &set).await {
            Ok(created) => {
                let name = created.name_any();
                self.context.informers.replica_sets.observe(created);
                self.recorder.record(
                    self.deployment,
                    EventType::Normal,
                    "ScalingReplicaSet",
                    format!("Scaled up replica set {name} from 0 to {size}"),
                );
                Ok(Some(name))
            }
            Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => {
                let found = api.get(&set.name_any()).await?;
                let ours = controller_of(&found).is_some_and(|owner| Some(&owner.uid) == self.deployment.metadata.uid.as_ref());
                let same = found.spec.as_ref().and_then(|spec| spec.template.as_ref());
                if ours && same.is_some_and(|found| template::equal(found, &self.spec.template)) {
                    self.context.informers.replica_sets.observe(found);
                } else {
                    *collisions = Some(collisions.unwrap_or(0) + 1);
                }
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn describe_set(&self, hash: &str, revision: i64, size: i32) -> ReplicaSet {
        let mut template = self.spec.template.clone();
        let labels = template.metadata.get_or_insert_default().labels.get_or_insert_default();
        labels.insert(template::HASH_LABEL.to_owned(), hash.to_owned());
        let labels = labels.clone();
        let mut selector = self.spec.selector.clone();
        selector.match_labels.get_or_insert_default().insert(template::HASH_LABEL.to_owned(), hash.to_owned());
        let mut annotations = self.inherited_annotations();
        annotations.insert(REVISION.to_owned(), revision.to_string());
        annotations.extend(self.size_annotations());
        ReplicaSet {
            metadata: ObjectMeta {
                name: Some(format!("{}-{hash}", self.deployment.name_any())),
                namespace: Some(self.namespace()),
                labels: Some(labels),
                annotations: Some(annotations),
                owner_references: Some(vec![controller_reference(self.deployment)]),
                ..Default::default()
            },
            spec: Some(ReplicaSetSpec {
                replicas: Some(size),
                min_ready_seconds: self.spec.min_ready_seconds,
                selector,
                template: Some(template),
            }),
            status: None,
        }
    }

    /// The deployment's annotations that its replica sets carry too (`kubernetes.io/change-cause` among them).
    fn inherited_annotations(&self) -> BTreeMap<String, String> {
        let own = [LAST_APPLIED, REVISION, REVISION_HISTORY, DESIRED_REPLICAS, MAX_REPLICAS];
        let annotations = self.deployment.annotations().iter();
        annotations.filter(|(key, _)| !own.contains(&key.as_str())).map(|(key, value)| (key.clone(), value.clone())).collect()
    }

    fn size_annotations(&self) -> [(String, String); 2] {
        [
            (DESIRED_REPLICAS.to_owned(), self.bounds.replicas.to_string()),
            (MAX_REPLICAS.to_owned(), self.bounds.most().to_string()),
        ]
    }

    async fn annotate_new_set(&self, set: &ReplicaSet, revision: i64) -> Result<(), kube::Error> {
        let mut annotations = set.annotations().clone();
        annotations.extend(self.inherited_annotations());
        let old_revision = annotations.insert(REVISION.to_owned(), revision.to_string());
        if let Some(old) = old_revision.filter(|old| *old != revision.to_string()) {
            let history = annotations.entry(REVISION_HISTORY.to_owned()).or_default();
            *history = if history.is_empty() { old } else { format!("{history},{old}") };
        }
        let min_ready = self.spec.min_ready_seconds;
        let known_min_ready = set.spec.as_ref().and_then(|spec| spec.min_ready_seconds);
        if annotations == *set.annotations() && min_ready.unwrap_or(0) == known_min_ready.unwrap_or(0) {
            return Ok(());
        }
        self.patch_set(set, json!({"metadata": {"annotations": annotations}, "spec": {"minReadySeconds": min_ready}})).await
    }

    async fn write_revision(&self, revision: i64) -> Result<(), kube::Error> {
        if self::revision(self.deployment) == revision {
            return Ok(());
        }
        let patch = Patch::Merge(json!({"metadata": {"annotations": {REVISION: revision.to_string()}}}));
        let api: Api<Deployment> = Api::namespaced(self.context.client.clone(), &self.namespace());
        match api.patch(&self.deployment.name_any(), &Default::default(), &patch).await {
            Ok(updated) => self.context.informers.deployments.observe(updated),
            Err(error) if is_not_found(&error) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// One step of a rolling update: the new set grows first; when it cannot, the old ones shrink.
    async fn roll(&self, sets: &[Arc<ReplicaSet>]) -> Result<(), kube::Error> {
        let Some(new) = self.new_set(sets) else { return Ok(()) };
        let old = self.old_sets(sets);
        let total: i32 = sets.iter().map(|set| replicas(set)).sum();
        let next = rollout::next_new_size(self.bounds, replicas(new), total);
        if next != replicas(new) {
            self.resize(new, next).await?;
        }
        let new = Size { replicas: next, available: size(new).available };
        let sizes: Vec<Size> = old.iter().map(|set| size(set)).collect();
        for (set, next) in old.iter().zip(rollout::next_old_sizes(self.bounds, new, &sizes)) {
            if next != replicas(set) {
                self.resize(set, next).await?;
            }
        }
        Ok(())
    }

    /// One step of a recreation: all old pods go, then the new set comes.
    async fn recreate(
        &self,
        sets: &[Arc<ReplicaSet>],
        progress: &mut Progress,
        collisions: &mut Option<i32>,
    ) -> Result<(), kube::Error> {
        let old = self.old_sets(sets);
        for set in old.iter().filter(|set| replicas(set) > 0) {
            self.resize(set, 0).await?;
        }
        if self.has_running_pods(&old) {
            return Ok(());
        }
        self.ensure_new_set(sets, progress, collisions).await?;
        let sets = self.owned();
        match self.new_set(&sets) {
            Some(new) if replicas(new) != self.bounds.replicas => self.resize(new, self.bounds.replicas).await,
            _ => Ok(()),
        }
    }

    fn has_running_pods(&self, sets: &[Arc<ReplicaSet>]) -> bool {
        let uids: Vec<_> = sets.iter().filter_map(|set| set.uid()).collect();
        let pods = self.context.informers.pods.in_namespace(&self.namespace());
        pods.iter()
            .any(|pod| !pods::is_finished(pod) && controller_of(pod.as_ref()).is_some_and(|owner| uids.contains(&owner.uid)))
    }

    /// Whether the deployment's own size changed since its replica sets were last resized.
    fn size_changed(&self, sets: &[Arc<ReplicaSet>]) -> bool {
        let desired = |set: &ReplicaSet| set.annotations().get(DESIRED_REPLICAS).and_then(|desired| desired.parse::<i32>().ok());
        let active = sets.iter().filter(|set| replicas(set) > 0);
        active.filter_map(|set| desired(set)).any(|desired| desired != self.bounds.replicas)
    }

    async fn scale_proportionally(&self, sets: &[Arc<ReplicaSet>]) -> Result<(), kube::Error> {
        let mut active: Vec<Arc<ReplicaSet>> = sets.iter().filter(|set| replicas(set) > 0).cloned().collect();
        if active.len() <= 1 {
            let only = active.pop().or_else(|| self.new_set(sets).cloned()).or_else(|| sets.last().cloned());
            return match only {
                Some(set) => self.resize(&set, self.bounds.replicas).await,
                None => Ok(()),
            };
        }
        let saturated = self
            .new_set(sets)
            .is_some_and(|new| replicas(new) == self.bounds.replicas && size(new).available == self.bounds.replicas);
        if saturated {
            for set in self.old_sets(sets).iter().filter(|set| replicas(set) > 0) {
                self.resize(set, 0).await?;
            }
            return Ok(());
        }
        if rollout::is_recreate(self.deployment) {
            return Ok(());
        }
        // Largest first; of equals, the newer one grows and the older one shrinks.
        let grows = self.bounds.most() > active.iter().map(|set| replicas(set)).sum();
        active.sort_by_key(|set| std::cmp::Reverse(replicas(set)));
        if grows {
            active.sort_by_key(|set| {
                (std::cmp::Reverse(replicas(set)), std::cmp::Reverse(set.metadata.creation_timestamp.clone()))
            });
        }
        let shares: Vec<Share> = active.iter().map(|set| share(set)).collect();
        for (set, next) in active.iter().zip(rollout::proportional_sizes(self.bounds, &shares)) {
            self.resize(set, next).await?;
        }
        Ok(())
    }

    /// Sets a replica set's size and notes for which size of the deployment that was.
    async fn resize(&self, set: &ReplicaSet, to: i32) -> Result<(), kube::Error> {
        let from = replicas(set);
        let annotations: BTreeMap<String, String> = self.size_annotations().into();
        let noted = annotations.iter().all(|(key, value)| set.annotations().get(key) == Some(value));
        if from == to && noted {
            return Ok(());
        }
        self.patch_set(set, json!({"metadata": {"annotations": annotations}, "spec": {"replicas": to}})).await?;
        if from != to {
            let direction = if to > from { "up" } else { "down" };
            let message = format!("Scaled {direction} replica set {} from {from} to {to}", set.name_any());
            self.recorder.record(self.deployment, EventType::Normal, "ScalingReplicaSet", message);
        }
        Ok(())
    }

    async fn patch_set(&self, set: &ReplicaSet, patch: serde_json::Value) -> Result<(), kube::Error> {
        let updated = self.replica_sets().patch(&set.name_any(), &Default::default(), &Patch::Merge(patch)).await?;
        self.context.informers.replica_sets.observe(updated);
        Ok(())
    }

    fn replica_sets(&self) -> Api<ReplicaSet> {
        Api::namespaced(self.context.client.clone(), &self.namespace())
    }

    async fn delete_old_revisions(&self, sets: &[Arc<ReplicaSet>]) -> Result<(), kube::Error> {
        let keep = usize::try_from(self.spec.revision_history_limit.unwrap_or(DEFAULT_HISTORY)).unwrap_or(0);
        let mut old = self.old_sets(sets);
        old.retain(|set| !is_terminating(set.as_ref()));
        old.sort_by_key(|set| revision(set.as_ref()));
        let surplus = old.len().saturating_sub(keep);
        for set in old.iter().take(surplus) {
            let empty = replicas(set) == 0 && set.status.as_ref().is_none_or(|status| status.replicas == 0);
            if empty
                && let Err(error) = self.replica_sets().delete(&set.name_any(), &DeleteParams::background()).await
                && !is_not_found(&error)
            {
                return Err(error);
            }
        }
        Ok(())
    }

    async fn write_status(
        &self,
        sets: &[Arc<ReplicaSet>],
        progress: &Progress,
        collisions: Option<i32>,
    ) -> Result<k8s_openapi::api::apps::v1::DeploymentStatus, kube::Error> {
        let new = self.new_set(sets).map(AsRef::as_ref);
        let status = status::status(self.deployment, new, sets, progress, collisions, &now());
        let deployments = &self.context.informers.deployments;
        owner::write_status(&self.context.client, deployments, self.deployment, &self.deployment.status, &status).await?;
        Ok(status)
    }
}

fn replicas(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
}

fn size(set: &ReplicaSet) -> Size {
    let available = set.status.as_ref().and_then(|status| status.available_replicas).unwrap_or(0);
    Size { replicas: replicas(set), available }
}

fn share(set: &ReplicaSet) -> Share {
    let most_then = set.annotations().get(MAX_REPLICAS).and_then(|most| most.parse().ok()).unwrap_or(0);
    Share { replicas: replicas(set), most_then }
}

fn revision<K: kube::Resource>(object: &K) -> i64 {
    object.annotations().get(REVISION).and_then(|revision| revision.parse().ok()).unwrap_or(0)
}
