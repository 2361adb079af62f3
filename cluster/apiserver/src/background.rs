//! What the server does behind the requests' backs: aggregated roles and the clean-up of CRDs that are being deleted.

use std::sync::Arc;

use meshlab_objects::Status;
use serde_json::json;

use crate::api::Api;
use crate::auth;
use crate::rest::{CRD_CLEANUP, Mutation, Patch, meta};
use crate::server::seed_own_service;
use crate::store::{GroupResource, Key, Object};

/// Starts the tasks.
pub(crate) fn spawn(api: &Arc<Api>) {
    let roles = api.clone();
    api.tasks.spawn(async move {
        follow(&roles, &GroupResource::new(auth::RBAC_GROUP, "clusterroles"), || aggregate_roles(&roles)).await;
    });
    let services = api.clone();
    api.tasks.spawn(async move {
        follow(&services, &GroupResource::new("", "services"), || restore_own_service(&services)).await;
    });
    let crds = api.clone();
    api.tasks.spawn(async move {
        follow(&crds, &GroupResource::new("apiextensions.k8s.io", "customresourcedefinitions"), || clean_up_crds(&crds)).await;
    });
}

/// Runs `work` now and after every change of a resource.
async fn follow<F, W>(api: &Arc<Api>, resource: &GroupResource, work: F)
where
    F: Fn() -> W,
    W: Future<Output = Result<(), Status>>,
{
    loop {
        let (_, mut watcher) = api.store.list_and_watch(resource, None);
        loop {
            if let Err(error) = work().await {
                tracing::warn!(%resource, %error, "cannot follow a change");
            }
            tokio::select! {
                changes = watcher.next() => if changes.is_err() { break },
                () = api.stop.cancelled() => return,
            }
        }
    }
}

async fn restore_own_service(api: &Arc<Api>) -> Result<(), Status> {
    if api.store.get(&GroupResource::new("", "services"), &Key::new("default", "kubernetes")).is_some() {
        return Ok(());
    }
    seed_own_service(api, &api.network).await
}

/// Writes the rules of aggregated roles where they are not what their selectors choose.
async fn aggregate_roles(api: &Arc<Api>) -> Result<(), Status> {
    let served = api.registry().need(auth::RBAC_GROUP, "clusterroles")?;
    // A role can be aggregated into one that is aggregated in turn; each round settles one level.
    for _ in 0..8 {
        let roles = api.store.list(&served.id, None).objects;
        let mut settled = true;
        for role in &roles {
            let value = role.value();
            if !value["aggregationRule"].is_object() {
                continue;
            }
            let rules = auth::aggregate(&value, &roles);
            if value["rules"] == rules {
                continue;
            }
            settled = false;
            let mutation = Mutation::Patch(Patch::Merge(json!({ "rules": rules })));
            match api.modify(&served, &role.key, &mutation, &api.own_write(&served)).await {
                Ok(_) => {}
                Err(status) if status.code == 404 => {}
                Err(status) => return Err(status),
            }
        }
        if settled {
            break;
        }
    }
    Ok(())
}

/// Deletes the objects of CRDs that are being deleted, and then lets the CRDs go.
async fn clean_up_crds(api: &Arc<Api>) -> Result<(), Status> {
    let crds = api.registry().need("apiextensions.k8s.io", "customresourcedefinitions")?;
    for crd in api.store.list(&crds.id, None).objects {
        let value = crd.value();
        let finalizers = meta::finalizers(&value);
        if !meta::is_being_deleted(&value) || !finalizers.iter().any(|finalizer| finalizer == CRD_CLEANUP) {
            continue;
        }
        let api = api.clone();
        api.tasks.clone().spawn(async move {
            tokio::select! {
                done = empty_and_release(&api, &crd) => if let Err(error) = done {
                    tracing::warn!(crd = crd.key.as_str(), %error, "cannot clean up after a CRD");
                },
                () = api.stop.cancelled() => {}
            }
        });
    }
    Ok(())
}

async fn empty_and_release(api: &Arc<Api>, crd: &Object) -> Result<(), Status> {
    let text = |field: &serde_json::Value| field.as_str().unwrap_or_default().to_owned();
    let value = crd.value();
    let spec = &value["spec"];
    let (group, plural) = (text(&spec["group"]), text(&spec["names"]["plural"]));
    if let Some(served) = api.registry().resource(&group, &plural).cloned() {
        loop {
            let (listing, mut watcher) = api.store.list_and_watch(&served.id, None);
            if listing.objects.is_empty() {
                break;
            }
            for object in listing.objects {
                if !meta::is_being_deleted(&object.value()) {
                    api.delete_as_server(&served, &object).await?;
                }
            }
            if api.store.count(&served.id) == 0 {
                break;
            }
            // Finalizers hold the rest back; each one that goes is a change.
            drop(watcher.next().await);
        }
    }
    let crds = api.registry().need("apiextensions.k8s.io", "customresourcedefinitions")?;
    let mut finalizers = meta::finalizers(&value);
    finalizers.retain(|finalizer| finalizer != CRD_CLEANUP);
    let mutation = Mutation::Patch(Patch::Merge(json!({"metadata": {"finalizers": finalizers}})));
    match api.modify(&crds, &crd.key, &mutation, &api.own_write(&crds)).await {
        Ok(_) => Ok(()),
        Err(status) if status.code == 404 => Ok(()),
        Err(status) => Err(status),
    }
}
