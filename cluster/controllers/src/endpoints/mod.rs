//! Endpoints and endpoint slices: where the pods behind a service are.

mod addresses;
mod mirror;
mod slices;
mod subsets;

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Endpoints, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, Patch, PostParams};
use meshlab_controller_runtime::{Key, Outcome, WorkQueue, is_not_found, merge_patch};

use crate::Context;

/// Services reconciled at a time.
const WORKERS: usize = 4;
/// The label that ties a slice to its service.
pub(crate) const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// The label that says who writes a slice.
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// This controller, as a slice's label names it.
const MANAGER: &str = "endpointslice-controller.k8s.io";
/// The label of a headless service's slices and endpoints.
const HEADLESS: &str = "service.kubernetes.io/headless";

/// Keeps the endpoints of every service that selects pods, until the cluster stops.
pub(crate) async fn run(context: Arc<Context>) {
    let queue = WorkQueue::new();
    watch(&context, &queue);
    let handle = |key| reconcile(context.clone(), key);
    queue.run("endpoints", WORKERS, handle).await;
}

fn watch(context: &Context, queue: &WorkQueue<Key>) {
    let add = queue.clone();
    context.informers.services.on_change(move |old, new| {
        if let Some(service) = new.or(old) {
            add.add(Key::of(service.as_ref()));
        }
    });
    let add = queue.clone();
    let services = context.informers.services.clone();
    context.informers.pods.on_change(move |old, new| {
        if let (Some(old), Some(new)) = (old, new)
            && !addresses::matters(old, new)
        {
            return;
        }
        let Some(pod) = new.or(old) else { return };
        for service in services.in_namespace(pod.metadata.namespace.as_deref().unwrap_or_default()) {
            if [old, new].into_iter().flatten().any(|pod| selects(&service, pod)) {
                add.add(Key::of(service.as_ref()));
            }
        }
    });
    let add = queue.clone();
    context.informers.endpoint_slices.on_change(move |old, new| {
        let Some(slice) = new.or(old) else { return };
        if let Some(service) = slice.labels().get(SERVICE_NAME) {
            add.add(Key::new(slice.metadata.namespace.as_deref().unwrap_or_default(), service));
        }
    });
    let add = queue.clone();
    context.informers.endpoints.on_change(move |old, new| {
        if let Some(endpoints) = new.or(old) {
            add.add(Key::of(endpoints.as_ref()));
        }
    });
}

fn selector(service: &Service) -> Option<&BTreeMap<String, String>> {
    service.spec.as_ref()?.selector.as_ref().filter(|selector| !selector.is_empty())
}

fn selects(service: &Service, pod: &Pod) -> bool {
    selector(service).is_some_and(|selector| selector.iter().all(|(key, value)| pod.labels().get(key) == Some(value)))
}

fn is_headless(service: &Service) -> bool {
    service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref()) == Some("None")
}

async fn reconcile(context: Arc<Context>, key: Key) -> Result<Outcome, kube::Error> {
    let Some(service) = context.informers.services.at(&key) else {
        remove_all(&context, &key).await?;
        return Ok(Outcome::default());
    };
    if service.metadata.deletion_timestamp.is_some() {
        return Ok(Outcome::default());
    }
    if selector(&service).is_none() {
        // Somebody else writes the endpoints of a service without selector.
        write_mirror(&context, &key).await?;
        return Ok(Outcome::default());
    }
    let pods: Vec<Arc<Pod>> =
        context.informers.pods.in_namespace(&key.namespace).into_iter().filter(|pod| selects(&service, pod)).collect();
    let groups = addresses::groups(&service, &pods);
    write_slices(&context, &service, slices::plan(&service, &groups, &owned_slices(&context, &key, MANAGER))).await?;
    write_endpoints(&context, &service, subsets::endpoints(&service, &groups)).await?;
    Ok(Outcome::default().resting(pods.len()))
}

/// Brings the mirrored slices to what the endpoints of a service without selector say.
async fn write_mirror(context: &Context, key: &Key) -> Result<(), kube::Error> {
    let endpoints = context.informers.endpoints.at(key).filter(|endpoints| mirror::wants_mirror(endpoints));
    let wanted = endpoints.map(|endpoints| mirror::slices(&endpoints)).unwrap_or_default();
    let api: Api<EndpointSlice> = Api::namespaced(context.client.clone(), &key.namespace);
    let informer = &context.informers.endpoint_slices;
    let known = owned_slices(context, key, mirror::MANAGER);
    for slice in known.iter().filter(|known| !wanted.iter().any(|wanted| wanted.name_any() == known.name_any())) {
        delete(&api, &slice.name_any()).await?;
    }
    for slice in wanted {
        match known.iter().find(|known| known.name_any() == slice.name_any()) {
            None => informer.observe(api.create(&PostParams::default(), &slice).await?),
            Some(known) => {
                let mut next = EndpointSlice::clone(known);
                (next.endpoints, next.ports, next.metadata.labels) = (slice.endpoints, slice.ports, slice.metadata.labels);
                if let Some(patch) = merge_patch(known.as_ref(), &next) {
                    informer.observe(api.patch(&known.name_any(), &Default::default(), &Patch::Merge(patch)).await?);
                }
            }
        }
    }
    Ok(())
}

fn owned_slices(context: &Context, key: &Key, manager: &str) -> Vec<Arc<EndpointSlice>> {
    let mut slices = context.informers.endpoint_slices.in_namespace(&key.namespace);
    slices.retain(|slice| {
        let labels = slice.labels();
        labels.get(SERVICE_NAME) == Some(&key.name) && labels.get(MANAGED_BY).map(String::as_str) == Some(manager)
    });
    slices
}

async fn write_slices(context: &Context, service: &Service, plan: slices::Plan) -> Result<(), kube::Error> {
    let api: Api<EndpointSlice> = Api::namespaced(context.client.clone(), &service.namespace().unwrap_or_default());
    let informer = &context.informers.endpoint_slices;
    for slice in plan.create {
        informer.observe(api.create(&PostParams::default(), &slice).await?);
    }
    for (old, new) in plan.update {
        let Some(patch) = merge_patch(old.as_ref(), &new) else { continue };
        match api.patch(&old.name_any(), &Default::default(), &Patch::Merge(patch)).await {
            Ok(updated) => informer.observe(updated),
            Err(error) if is_not_found(&error) => {}
            Err(error) => return Err(error),
        }
    }
    for name in plan.delete {
        delete(&api, &name).await?;
    }
    Ok(())
}

async fn write_endpoints(context: &Context, service: &Service, wanted: Endpoints) -> Result<(), kube::Error> {
    let namespace = service.namespace().unwrap_or_default();
    let api: Api<Endpoints> = Api::namespaced(context.client.clone(), &namespace);
    let informer = &context.informers.endpoints;
    match informer.get(&namespace, &service.name_any()) {
        None => match api.create(&PostParams::default(), &wanted).await {
            Ok(created) => informer.observe(created),
            // The cache is a moment behind; its news brings us back here.
            Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => {}
            Err(error) => return Err(error),
        },
        Some(known) => {
            let mut next = known.as_ref().clone();
            next.metadata.labels = wanted.metadata.labels;
            next.subsets = wanted.subsets;
            if let Some(patch) = merge_patch(known.as_ref(), &next) {
                match api.patch(&service.name_any(), &Default::default(), &Patch::Merge(patch)).await {
                    Ok(updated) => informer.observe(updated),
                    Err(error) if is_not_found(&error) => {}
                    Err(error) => return Err(error),
                }
            }
        }
    }
    Ok(())
}

/// A service is gone: so are its endpoints.
async fn remove_all(context: &Context, key: &Key) -> Result<(), kube::Error> {
    let slices: Api<EndpointSlice> = Api::namespaced(context.client.clone(), &key.namespace);
    for slice in [MANAGER, mirror::MANAGER].iter().flat_map(|manager| owned_slices(context, key, manager)) {
        delete(&slices, &slice.name_any()).await?;
    }
    let managed = |endpoints: &Arc<Endpoints>| endpoints.labels().contains_key(subsets::MANAGED_BY);
    if context.informers.endpoints.at(key).as_ref().is_some_and(managed) {
        delete(&Api::<Endpoints>::namespaced(context.client.clone(), &key.namespace), &key.name).await?;
    }
    Ok(())
}

async fn delete<K>(api: &Api<K>, name: &str) -> Result<(), kube::Error>
where
    K: Clone + serde::de::DeserializeOwned + std::fmt::Debug,
{
    match api.delete(name, &DeleteParams::background()).await {
        Err(error) if !is_not_found(&error) => Err(error),
        _ => Ok(()),
    }
}
