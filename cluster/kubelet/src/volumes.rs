//! A pod's volumes: what is in them, and keeping that up to date.

use std::collections::BTreeMap;

use bytes::Bytes;
use k8s_openapi::api::core::v1::{
    ConfigMap, DownwardAPIVolumeFile, KeyToPath, Pod, Secret, ServiceAccountTokenProjection, Volume as VolumeSpec,
};
use meshlab_program::{ProjectedFile, Volume};
use thiserror::Error;

use crate::environment::{Objects, PodFacts, field, resource};
use crate::quantity;

/// An `emptyDir` without `sizeLimit` may hold so much; real nodes have a disk, we have memory.
const EMPTY_DIR_BYTES: u64 = 256 << 20;
/// Permission bits of projected files when nobody says.
const DEFAULT_MODE: i32 = 0o644;

/// Why a volume cannot be mounted; the kubelet's words.
#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum VolumeError {
    #[error("MountVolume.SetUp failed for volume {volume:?} : configmap {name:?} not found")]
    NoConfigMap { volume: String, name: String },
    #[error("MountVolume.SetUp failed for volume {volume:?} : secret {name:?} not found")]
    NoSecret { volume: String, name: String },
    #[error("MountVolume.SetUp failed for volume {volume:?} : references non-existent config key: {key}")]
    NoConfigKey { volume: String, key: String },
    #[error("MountVolume.SetUp failed for volume {volume:?} : references non-existent secret key: {key}")]
    NoSecretKey { volume: String, key: String },
    #[error("MountVolume.SetUp failed for volume {volume:?} : {reason}")]
    Other { volume: String, reason: String },
    #[error(
        "MountVolume.SetUp failed for volume {volume:?} : this cluster has configMap, secret, projected, downwardAPI and emptyDir \
         volumes only; use a kind cluster for others"
    )]
    Unsupported { volume: String },
}

/// Which service account token a volume asks for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TokenKey {
    pub(crate) audience: String,
    pub(crate) expiration_seconds: i64,
}

impl TokenKey {
    fn of(projection: &ServiceAccountTokenProjection) -> Self {
        Self {
            audience: projection.audience.clone().unwrap_or_default(),
            expiration_seconds: projection.expiration_seconds.unwrap_or(3600),
        }
    }
}

/// The tokens that a pod's volumes ask for.
pub(crate) fn tokens(pod: &Pod) -> Vec<TokenKey> {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let sources = volumes.filter_map(|volume| volume.projected.as_ref()).flat_map(|projected| projected.sources.iter().flatten());
    let mut tokens: Vec<TokenKey> =
        sources.filter_map(|source| source.service_account_token.as_ref()).map(TokenKey::of).collect();
    tokens.sort();
    tokens.dedup();
    tokens
}

/// A pod's volumes by name.
#[derive(Default)]
pub(crate) struct Volumes {
    by_name: BTreeMap<String, (Volume, Option<Files>)>,
}

type Files = BTreeMap<String, ProjectedFile>;

impl Volumes {
    /// Makes all volumes of a pod.
    ///
    /// # Errors
    /// What one of them needs is missing.
    pub(crate) fn prepare(
        facts: &PodFacts<'_>,
        objects: &impl Objects,
        tokens: &BTreeMap<TokenKey, String>,
    ) -> Result<Self, VolumeError> {
        let mut by_name = BTreeMap::new();
        for volume in facts.pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten()) {
            let files = files(volume, facts, objects, tokens)?;
            let made = match &files {
                Some(files) => Volume::projected(files).map_err(|error| other(volume, &error))?,
                None => empty_dir(volume)?,
            };
            by_name.insert(volume.name.clone(), (made, files));
        }
        Ok(Self { by_name })
    }

    /// Brings the content of projected volumes up to date. What has gone missing since stays as it was, as on a real node.
    pub(crate) fn refresh(&mut self, facts: &PodFacts<'_>, objects: &impl Objects, tokens: &BTreeMap<TokenKey, String>) {
        for volume in facts.pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten()) {
            let Some((made, known)) = self.by_name.get_mut(&volume.name) else { continue };
            if let Ok(Some(files)) = files(volume, facts, objects, tokens)
                && known.as_ref() != Some(&files)
                && made.replace(&files).is_ok()
            {
                *known = Some(files);
            }
        }
    }

    /// A volume by name.
    pub(crate) fn get(&self, name: &str) -> Option<&Volume> {
        self.by_name.get(name).map(|(volume, _)| volume)
    }
}

fn other(volume: &VolumeSpec, reason: &impl ToString) -> VolumeError {
    VolumeError::Other { volume: volume.name.clone(), reason: reason.to_string() }
}

fn empty_dir(volume: &VolumeSpec) -> Result<Volume, VolumeError> {
    let limit = match volume.empty_dir.as_ref().and_then(|source| source.size_limit.as_ref()) {
        Some(limit) => {
            let milli = quantity::milli(&limit.0).ok_or_else(|| other(volume, &format!("malformed sizeLimit {:?}", limit.0)))?;
            u64::try_from(milli / 1000).unwrap_or(u64::MAX)
        }
        None => EMPTY_DIR_BYTES,
    };
    Ok(Volume::empty_dir(limit))
}

/// The files of a projected volume; `None` for one that starts empty.
fn files(
    volume: &VolumeSpec,
    facts: &PodFacts<'_>,
    objects: &impl Objects,
    tokens: &BTreeMap<TokenKey, String>,
) -> Result<Option<Files>, VolumeError> {
    let name = volume.name.as_str();
    if let Some(source) = &volume.config_map {
        let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
        let files = config_map_files(name, objects, &source.name, source.items.as_deref(), source.optional, mode)?;
        return Ok(Some(files));
    }
    if let Some(source) = &volume.secret {
        let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
        let secret = source.secret_name.as_deref().unwrap_or_default();
        return secret_files(name, objects, secret, source.items.as_deref(), source.optional, mode).map(Some);
    }
    if let Some(source) = &volume.downward_api {
        let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
        return downward_files(volume, facts, source.items.as_deref(), mode).map(Some);
    }
    if let Some(source) = &volume.projected {
        let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
        let mut files = Files::new();
        for source in source.sources.iter().flatten() {
            if let Some(map) = &source.config_map {
                files.extend(config_map_files(name, objects, &map.name, map.items.as_deref(), map.optional, mode)?);
            }
            if let Some(secret) = &source.secret {
                files.extend(secret_files(name, objects, &secret.name, secret.items.as_deref(), secret.optional, mode)?);
            }
            if let Some(downward) = &source.downward_api {
                files.extend(downward_files(volume, facts, downward.items.as_deref(), mode)?);
            }
            if let Some(projection) = &source.service_account_token {
                let token = tokens.get(&TokenKey::of(projection)).ok_or_else(|| other(volume, &"no service account token"))?;
                files.insert(projection.path.clone(), file(Bytes::from(token.clone()), mode));
            }
            if source.cluster_trust_bundle.is_some() {
                return Err(other(volume, &"clusterTrustBundle projections are not supported"));
            }
        }
        return Ok(Some(files));
    }
    if volume.empty_dir.is_some() { Ok(None) } else { Err(VolumeError::Unsupported { volume: name.to_owned() }) }
}

fn file(content: Bytes, mode: i32) -> ProjectedFile {
    ProjectedFile { content, mode: u32::try_from(mode).unwrap_or(0o644) & 0o7777 }
}

fn config_map_files(
    volume: &str,
    objects: &impl Objects,
    name: &str,
    items: Option<&[KeyToPath]>,
    optional: Option<bool>,
    mode: i32,
) -> Result<Files, VolumeError> {
    let optional = optional == Some(true);
    let Some(map) = objects.config_map(name) else {
        let missing = VolumeError::NoConfigMap { volume: volume.to_owned(), name: name.to_owned() };
        return if optional { Ok(Files::new()) } else { Err(missing) };
    };
    let missing = |key: String| VolumeError::NoConfigKey { volume: volume.to_owned(), key };
    pick(content_of_config_map(&map), items, optional, mode).map_err(missing)
}

fn content_of_config_map(map: &ConfigMap) -> BTreeMap<String, Bytes> {
    let text = map.data.iter().flatten().map(|(key, value)| (key.clone(), Bytes::from(value.clone())));
    let binary = map.binary_data.iter().flatten().map(|(key, value)| (key.clone(), Bytes::from(value.0.clone())));
    text.chain(binary).collect()
}

fn secret_files(
    volume: &str,
    objects: &impl Objects,
    name: &str,
    items: Option<&[KeyToPath]>,
    optional: Option<bool>,
    mode: i32,
) -> Result<Files, VolumeError> {
    let optional = optional == Some(true);
    let Some(secret) = objects.secret(name) else {
        let missing = VolumeError::NoSecret { volume: volume.to_owned(), name: name.to_owned() };
        return if optional { Ok(Files::new()) } else { Err(missing) };
    };
    let missing = |key: String| VolumeError::NoSecretKey { volume: volume.to_owned(), key };
    pick(content_of_secret(&secret), items, optional, mode).map_err(missing)
}

fn content_of_secret(secret: &Secret) -> BTreeMap<String, Bytes> {
    secret.data.iter().flatten().map(|(key, value)| (key.clone(), Bytes::from(value.0.clone()))).collect()
}

/// All keys as files, or the listed ones at their paths. The error is the key that is missing.
fn pick(content: BTreeMap<String, Bytes>, items: Option<&[KeyToPath]>, optional: bool, mode: i32) -> Result<Files, String> {
    let Some(items) = items.filter(|items| !items.is_empty()) else {
        return Ok(content.into_iter().map(|(key, content)| (key, file(content, mode))).collect());
    };
    let mut files = Files::new();
    for item in items {
        match content.get(&item.key) {
            Some(content) => {
                files.insert(item.path.clone(), file(content.clone(), item.mode.unwrap_or(mode)));
            }
            None if optional => {}
            None => return Err(item.key.clone()),
        }
    }
    Ok(files)
}

fn downward_files(
    volume: &VolumeSpec,
    facts: &PodFacts<'_>,
    items: Option<&[DownwardAPIVolumeFile]>,
    mode: i32,
) -> Result<Files, VolumeError> {
    let mut files = Files::new();
    for item in items.unwrap_or_default() {
        let value = match (&item.field_ref, &item.resource_field_ref) {
            (Some(selector), _) => field(facts, selector),
            (None, Some(selector)) => {
                let none = k8s_openapi::api::core::v1::Container::default();
                resource(facts.pod, &none, selector)
            }
            (None, None) => Ok(String::new()),
        };
        let value = value.map_err(|reason| other(volume, &reason))?;
        files.insert(item.path.clone(), file(Bytes::from(value), item.mode.unwrap_or(mode)));
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::environment::tests::Fixed;
    use serde_json::{Value, json};

    fn pod(volume: Value) -> Pod {
        let metadata = json!({"name": "web", "namespace": "ns", "labels": {"app": "web"}});
        serde_json::from_value(json!({"metadata": metadata, "spec": {"containers": [], "volumes": [volume]}})).unwrap()
    }

    fn shown(volume: Value) -> Result<String, String> {
        let pod = pod(volume);
        let facts = PodFacts { pod: &pod, pod_ip: "", host_ip: "" };
        let objects =
            Fixed { config_maps: json!({"cm": {"a.txt": "A", "b.txt": "B"}}), secrets: json!({"s": {"k": "c2VjcmV0"}}) };
        let tokens = tokens(&pod).into_iter().map(|key| (key.clone(), format!("token for {}", key.audience))).collect();
        let files = files(&pod.spec.as_ref().unwrap().volumes.as_ref().unwrap()[0], &facts, &objects, &tokens);
        let files = files.map_err(|error| error.to_string())?.unwrap_or_default();
        let line = |(path, file): (&String, &ProjectedFile)| {
            format!("{path} {:o} {}", file.mode, String::from_utf8_lossy(&file.content))
        };
        Ok(files.iter().map(line).collect::<Vec<_>>().join("\n"))
    }

    #[test]
    fn files_of_every_kind_of_volume() {
        assert_eq!(shown(json!({"name": "v", "configMap": {"name": "cm"}})).unwrap(), "a.txt 644 A\nb.txt 644 B");
        let items = json!([{"key": "b.txt", "path": "dir/x", "mode": 0o600}]);
        assert_eq!(shown(json!({"name": "v", "configMap": {"name": "cm", "items": items}})).unwrap(), "dir/x 600 B");
        let projected = json!({"defaultMode": 0o640, "sources": [
            {"secret": {"name": "s"}},
            {"serviceAccountToken": {"audience": "istio-ca", "path": "token"}},
            {"downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
        ]});
        let text = shown(json!({"name": "v", "projected": projected})).unwrap();
        assert_eq!(text, "k 640 secret\nlabels 640 app=\"web\"\ntoken 640 token for istio-ca");
    }

    #[test]
    fn what_is_missing_is_named() {
        let error = |volume| shown(volume).unwrap_err();
        assert_eq!(
            error(json!({"name": "v", "configMap": {"name": "none"}})),
            "MountVolume.SetUp failed for volume \"v\" : configmap \"none\" not found"
        );
        assert!(error(json!({"name": "v", "hostPath": {"path": "/"}})).contains("kind cluster"));
        assert_eq!(shown(json!({"name": "v", "secret": {"secretName": "none", "optional": true}})).unwrap(), "");
    }
}
