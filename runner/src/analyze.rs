//! What `istioctl analyze` looks at: the cluster, files that are not applied yet, or both.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use kube::Client;
use kube::api::{Api, DynamicObject, ListParams};
use kube::core::GroupVersionKind;
use kube::discovery::ApiResource;
use meshlab_analyze::{Message, analyze, analyze_object};
use meshlab_compile::{MeshConfig, Snapshot, Sources};
use meshlab_istio_api::Kind;
use serde_json::Value;

use crate::apply::documents;
use crate::error::CommandError;

/// Everything that is looked at.
#[derive(Default)]
pub(crate) struct Analysis {
    sources: Sources,
    /// Findings on objects that stand for themselves.
    own: Vec<Message>,
}

impl Analysis {
    /// Takes in what the cluster has.
    ///
    /// # Errors
    /// It does not answer.
    pub(crate) async fn cluster(&mut self, client: &Client) -> Result<(), CommandError> {
        let kubernetes = [
            ("", "v1", "Service", "services"),
            ("", "v1", "Pod", "pods"),
            ("", "v1", "Namespace", "namespaces"),
            ("", "v1", "Secret", "secrets"),
            ("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices"),
        ];
        let istio = Kind::ALL.map(|kind| (kind.group().name(), kind.storage_version(), kind.name(), kind.plural()));
        for (group, version, kind, plural) in kubernetes.into_iter().chain(istio) {
            let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural);
            let list = match Api::<DynamicObject>::all_with(client.clone(), &resource).list(&ListParams::default()).await {
                Ok(list) => list,
                // The mesh is not installed, or not this kind of it: then there is none.
                Err(kube::Error::Api(status)) if status.is_not_found() => continue,
                Err(error) => return Err(error.into()),
            };
            for object in list.items {
                let Ok(mut object) = serde_json::to_value(object) else { continue };
                object["apiVersion"] = resource.api_version.clone().into();
                object["kind"] = resource.kind.clone().into();
                self.take(&object);
            }
        }
        self.mesh_config(client).await
    }

    /// The mesh's own settings, from ConfigMap `istio`.
    async fn mesh_config(&mut self, client: &Client) -> Result<(), CommandError> {
        let api: Api<k8s_openapi::api::core::v1::ConfigMap> = Api::namespaced(client.clone(), "istio-system");
        let Some(map) = api.get_opt("istio").await? else { return Ok(()) };
        let Some(text) = map.data.and_then(|mut data| data.remove("mesh")) else { return Ok(()) };
        let parsed: Result<MeshConfig, _> = serde_saphyr::from_str(&text);
        let config = parsed.map_err(|error| CommandError::failed(format!("ConfigMap istio-system/istio, key mesh: {error}")))?;
        self.sources.mesh = std::sync::Arc::new(config);
        Ok(())
    }

    /// Takes in what files would change. Objects without a namespace go to `namespace`.
    ///
    /// # Errors
    /// A file cannot be read, or is no YAML.
    pub(crate) fn files(&mut self, paths: &[PathBuf], namespace: &str) -> Result<(), CommandError> {
        for path in files(paths)? {
            let text = std::fs::read_to_string(&path).map_err(|error| CommandError::io(&path, &error))?;
            for mut object in documents(&path.display().to_string(), &text)? {
                let is_namespaced = object["kind"] != "Namespace";
                if is_namespaced && object["metadata"].is_object() && object["metadata"]["namespace"].is_null() {
                    object["metadata"]["namespace"] = namespace.into();
                }
                self.take(&object);
            }
        }
        Ok(())
    }

    fn take(&mut self, object: &Value) {
        self.own.extend(analyze_object(object));
        // What cannot be read has a finding of its own by now.
        let _ = self.sources.apply(object);
    }

    /// All findings, worst first; only those of one namespace if it is named.
    pub(crate) fn findings(self, namespace: Option<&str>) -> Vec<Message> {
        let snapshot = Snapshot::new(self.sources);
        let all: BTreeSet<Message> = self.own.into_iter().chain(analyze(&snapshot)).collect();
        let in_it = |message: &Message| {
            let origin = &message.origin;
            namespace.is_none_or(|wanted| origin.namespace == wanted || (origin.kind == "Namespace" && origin.name == wanted))
        };
        let mut shown: Vec<Message> = all.into_iter().filter(in_it).collect();
        shown.sort_by(|a, b| (a.severity(), a).cmp(&(b.severity(), b)));
        shown
    }
}

/// Files as they are, and the YAML files of folders.
fn files(paths: &[PathBuf]) -> Result<Vec<PathBuf>, CommandError> {
    let mut all = Vec::new();
    for path in paths {
        if !path.is_dir() {
            all.push(path.clone());
            continue;
        }
        let entries = std::fs::read_dir(path).map_err(|error| CommandError::io(path, &error))?;
        let mut inside: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        inside.retain(|file| is_manifest(file));
        inside.sort();
        all.extend(inside);
    }
    Ok(all)
}

fn is_manifest(path: &Path) -> bool {
    matches!(path.extension().and_then(|extension| extension.to_str()), Some("yaml" | "yml" | "json"))
}
