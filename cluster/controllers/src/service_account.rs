//! What every namespace has from the start: the service account `default` and the certificate authority of the API server.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, Patch, PostParams};
use meshlab_controller_runtime::{Informer, Key, Outcome, WorkQueue, is_not_found, is_terminating};
use serde_json::json;

use crate::Context;

const DEFAULT: &str = "default";
const ROOT_CA: &str = "kube-root-ca.crt";
const CA_KEY: &str = "ca.crt";

/// Gives every namespace its defaults, until the cluster stops.
pub(crate) async fn run(context: Arc<Context>) {
    let queue = WorkQueue::new();
    let add = queue.clone();
    context.informers.namespaces.on_change(move |_, new| {
        if let Some(namespace) = new {
            add.add(namespace.metadata.name.clone().unwrap_or_default());
        }
    });
    readd(&context.informers.service_accounts, DEFAULT, &queue);
    readd(&context.informers.config_maps, ROOT_CA, &queue);
    let handle = |namespace| reconcile(context.clone(), namespace);
    queue.run("service-account", 4, handle).await;
}

/// Looks at a namespace again when its object of this name was changed or deleted.
fn readd<K>(informer: &Informer<K>, name: &'static str, queue: &WorkQueue<String>)
where
    K: kube::Resource<DynamicType = ()> + Clone + serde::de::DeserializeOwned + std::fmt::Debug + Send + Sync + 'static,
{
    let add = queue.clone();
    informer.on_change(move |old, new| {
        let key = new.or(old).map(|object| Key::of(object.as_ref()));
        if let Some(key) = key.filter(|key| key.name == name) {
            add.add(key.namespace);
        }
    });
}

async fn reconcile(context: Arc<Context>, namespace: String) -> Result<Outcome, kube::Error> {
    let alive = context.informers.namespaces.get("", &namespace).is_some_and(|namespace| !is_terminating(namespace.as_ref()));
    if !alive {
        return Ok(Outcome::default());
    }
    let metadata =
        |name: &str| ObjectMeta { name: Some(name.to_owned()), namespace: Some(namespace.clone()), ..Default::default() };
    if context.informers.service_accounts.get(&namespace, DEFAULT).is_none() {
        let account = ServiceAccount { metadata: metadata(DEFAULT), ..Default::default() };
        create(&context, &context.informers.service_accounts, &namespace, &account).await?;
    }
    let data = BTreeMap::from([(CA_KEY.to_owned(), context.ca_pem.clone())]);
    match context.informers.config_maps.get(&namespace, ROOT_CA) {
        None => {
            let mut authority = ConfigMap { metadata: metadata(ROOT_CA), data: Some(data), ..Default::default() };
            let why = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the \
                       internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes \
                       clusters.";
            authority.metadata.annotations = Some(BTreeMap::from([("kubernetes.io/description".to_owned(), why.to_owned())]));
            create(&context, &context.informers.config_maps, &namespace, &authority).await?;
        }
        Some(known) if known.data.as_ref() != Some(&data) => {
            let api: Api<ConfigMap> = Api::namespaced(context.client.clone(), &namespace);
            let patch = Patch::Merge(json!({"data": data}));
            match api.patch(ROOT_CA, &Default::default(), &patch).await {
                Err(error) if !is_not_found(&error) => return Err(error),
                _ => {}
            }
        }
        Some(_) => {}
    }
    Ok(Outcome::default())
}

async fn create<K>(context: &Context, informer: &Informer<K>, namespace: &str, object: &K) -> Result<(), kube::Error>
where
    K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
        + Clone
        + serde::Serialize
        + serde::de::DeserializeOwned
        + std::fmt::Debug
        + Send
        + Sync
        + 'static,
{
    let api: Api<K> = Api::namespaced(context.client.clone(), namespace);
    match api.create(&PostParams::default(), object).await {
        Ok(created) => informer.observe(created),
        Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => {}
        Err(error) => return Err(error),
    }
    Ok(())
}
