//! The root certificate in every namespace: ConfigMap `istio-ca-root-cert`, which sidecars mount.

use std::collections::{BTreeMap, BTreeSet};

use futures::StreamExt;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::ResourceExt;
use kube::api::{Api, ObjectMeta, PostParams};
use kube::runtime::watcher;
use meshlab_proxy_config::Log;
use tokio::sync::mpsc;

use crate::watch::{Change, watch};

const NAME: &str = "istio-ca-root-cert";
const KEY: &str = "root-cert.pem";
/// How many namespaces are written to at once.
const PARALLEL: usize = 16;

enum Event {
    Namespaces(Change<Namespace>),
    ConfigMaps(Change<ConfigMap>),
}

/// Keeps the ConfigMap of every namespace equal to `root`.
pub(crate) async fn keep(client: kube::Client, root: String, log: Log) {
    let (sender, mut events) = mpsc::unbounded_channel();
    let config_maps = sender.clone();
    let selection = watcher::Config::default().fields(&format!("metadata.name={NAME}"));
    let watching_config_maps = watch(Api::<ConfigMap>::all(client.clone()), selection, log.clone(), move |change| {
        // The receiver lives as long as the watches do.
        let _ = config_maps.send(Event::ConfigMaps(change));
    });
    let watching_namespaces =
        watch(Api::<Namespace>::all(client.clone()), watcher::Config::default(), log.clone(), move |change| {
            let _ = sender.send(Event::Namespaces(change));
        });
    let writing = async {
        let mut state = State::default();
        while let Some(event) = events.recv().await {
            state.take(event, &root);
            while let Ok(event) = events.try_recv() {
                state.take(event, &root);
            }
            let writes = state.missing().into_iter().map(|namespace| {
                let replace = state.is_stale(&namespace);
                write(client.clone(), namespace, replace, root.clone(), log.clone())
            });
            futures::stream::iter(writes).buffer_unordered(PARALLEL).collect::<()>().await;
        }
    };
    tokio::join!(watching_config_maps, watching_namespaces, writing);
}

/// Which namespaces there are, and which have the ConfigMap as it should be (`true`) or otherwise.
#[derive(Default)]
struct State {
    namespaces: BTreeSet<String>,
    config_maps: Option<BTreeMap<String, bool>>,
}

impl State {
    fn take(&mut self, event: Event, root: &str) {
        let is_good = |map: &ConfigMap| map.data.as_ref().and_then(|data| data.get(KEY)).is_some_and(|had| had == root);
        let terminating = |namespace: &Namespace| namespace.metadata.deletion_timestamp.is_some();
        let place = |map: &ConfigMap| map.namespace().unwrap_or_default();
        match event {
            Event::Namespaces(Change::All(all)) => {
                self.namespaces = all.iter().filter(|namespace| !terminating(namespace)).map(ResourceExt::name_any).collect();
            }
            Event::Namespaces(Change::Applied(namespace)) if !terminating(&namespace) => {
                self.namespaces.insert(namespace.name_any());
            }
            Event::Namespaces(Change::Applied(namespace) | Change::Deleted(namespace)) => {
                self.namespaces.remove(&namespace.name_any());
            }
            Event::ConfigMaps(Change::All(all)) => {
                self.config_maps = Some(all.iter().map(|map| (place(map), is_good(map))).collect());
            }
            Event::ConfigMaps(Change::Applied(map)) => {
                self.config_maps.get_or_insert_default().insert(place(&map), is_good(&map));
            }
            Event::ConfigMaps(Change::Deleted(map)) => {
                self.config_maps.get_or_insert_default().remove(&place(&map));
            }
        }
    }

    /// Namespaces to write to; none before it is known what is there.
    fn missing(&self) -> Vec<String> {
        let Some(had) = &self.config_maps else { return Vec::new() };
        let ignored =
            |namespace: &str| ["kube-system", "kube-public", "kube-node-lease", "local-path-storage"].contains(&namespace);
        let missing = self.namespaces.iter().filter(|namespace| had.get(*namespace) != Some(&true) && !ignored(namespace));
        missing.cloned().collect()
    }

    fn is_stale(&self, namespace: &str) -> bool {
        self.config_maps.as_ref().is_some_and(|had| had.contains_key(namespace))
    }
}

async fn write(client: kube::Client, namespace: String, replace: bool, root: String, log: Log) {
    let labels = BTreeMap::from([("istio.io/config".to_owned(), "true".to_owned())]);
    let metadata = ObjectMeta { name: Some(NAME.into()), labels: Some(labels), ..ObjectMeta::default() };
    let data = BTreeMap::from([(KEY.to_owned(), root)]);
    let map = ConfigMap { metadata, data: Some(data), ..ConfigMap::default() };
    let api: Api<ConfigMap> = Api::namespaced(client, &namespace);
    let written = if replace {
        api.replace(NAME, &PostParams::default(), &map).await.map(drop)
    } else {
        api.create(&PostParams::default(), &map).await.map(drop)
    };
    match written {
        Ok(()) => {}
        // Written by another replica, or the namespace is going: the watches tell.
        Err(kube::Error::Api(status)) if [404, 409].contains(&status.code) => {}
        Err(kube::Error::Api(status)) if status.code == 403 && status.message.contains("terminat") => {}
        Err(error) => log.error("namespace", format_args!("cannot write ConfigMap {namespace}/{NAME}: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn namespace(name: &str) -> Namespace {
        Namespace { metadata: ObjectMeta { name: Some(name.into()), ..ObjectMeta::default() }, ..Namespace::default() }
    }

    fn config_map(namespace: &str, root: &str) -> ConfigMap {
        let metadata = ObjectMeta { name: Some(NAME.into()), namespace: Some(namespace.into()), ..ObjectMeta::default() };
        ConfigMap { metadata, data: Some([(KEY.to_owned(), root.to_owned())].into()), ..ConfigMap::default() }
    }

    #[test]
    fn every_namespace_but_kubernetes_own_gets_the_root() {
        let mut state = State::default();
        state.take(Event::Namespaces(Change::All(vec![namespace("a"), namespace("b"), namespace("kube-system")])), "root");
        assert!(state.missing().is_empty(), "it is not known yet what is there");
        state.take(Event::ConfigMaps(Change::All(vec![config_map("a", "root")])), "root");
        assert_eq!(state.missing(), ["b"]);
        state.take(Event::ConfigMaps(Change::Applied(config_map("b", "root"))), "root");
        assert!(state.missing().is_empty());
        state.take(Event::ConfigMaps(Change::Applied(config_map("a", "tampered"))), "root");
        assert!(state.missing() == ["a"] && state.is_stale("a"));
        state.take(Event::ConfigMaps(Change::Deleted(config_map("a", ""))), "root");
        assert!(state.missing() == ["a"] && !state.is_stale("a"));
        state.take(Event::Namespaces(Change::Deleted(namespace("a"))), "root");
        assert!(state.missing().is_empty());
    }
}
