//! What a pod needs before its containers: an address, and volumes.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use kube::ResourceExt;
use kube::api::{Api, PostParams};
use meshlab_controller_runtime::EventType;
use meshlab_net::HostOptions;
use tokio::time::Instant;

use super::launch::NamespaceObjects;
use super::{API_RETRY, CONFIG_RETRY, Message, PodTask};
use crate::environment::PodFacts;
use crate::volumes::{TokenKey, Volumes, tokens};

/// What is missing may be on its way, such as a new namespace's `kube-root-ca.crt`: nobody is told of it before so long.
pub(super) const COMPLAIN_AFTER: Duration = Duration::from_millis(250);
/// The domain of all cluster names.
const CLUSTER_DOMAIN: &str = "cluster.local";

impl PodTask {
    pub(super) fn ensure_network(&mut self) -> bool {
        if self.net.is_some() {
            return true;
        }
        let spec = self.pod.spec.clone().unwrap_or_default();
        if spec.host_network == Some(true) {
            self.net = Some(self.node.network.host());
        } else {
            let Some(address) = self.node.addresses.take() else {
                let message = "Failed to create pod sandbox: no free address in 10.244.0.0/16".to_owned();
                self.event(None, EventType::Warning, "FailedCreatePodSandBox", message);
                self.wake(Instant::now() + CONFIG_RETRY);
                return false;
            };
            match self.node.network.attach(address, self.host_options(&spec)) {
                Ok(net) => {
                    self.net = Some(net);
                    self.address = Some(address);
                }
                Err(error) => {
                    // The address stays taken: whoever has it on the network is not one of ours.
                    let message = format!("Failed to create pod sandbox: {address}: {error}");
                    self.event(None, EventType::Warning, "FailedCreatePodSandBox", message);
                    self.wake(Instant::now() + API_RETRY);
                    return false;
                }
            }
        }
        self.runtime.set_net(self.net.clone());
        true
    }

    pub(super) fn host_options(&self, spec: &k8s_openapi::api::core::v1::PodSpec) -> HostOptions {
        let namespace = self.pod.namespace().unwrap_or_default();
        let mut options = match spec.dns_policy.as_deref() {
            Some("Default" | "None") => HostOptions::external(self.hostname.clone()),
            _ => HostOptions::pod(self.hostname.clone(), &namespace, CLUSTER_DOMAIN),
        };
        if let Some(config) = &spec.dns_config {
            options.search.extend(config.searches.iter().flatten().cloned());
            let ndots = config.options.iter().flatten().find(|option| option.name.as_deref() == Some("ndots"));
            if let Some(ndots) = ndots.and_then(|option| option.value.as_deref()?.parse().ok()) {
                options.ndots = ndots;
            }
        }
        for alias in spec.host_aliases.iter().flatten() {
            if let Ok(address) = alias.ip.parse() {
                options.aliases.extend(alias.hostnames.iter().flatten().map(|name| (name.clone(), address)));
            }
        }
        options
    }

    pub(super) fn ensure_volumes(&mut self, at: Instant) -> bool {
        if self.volumes.is_some() {
            return true;
        }
        if self.retry_volumes_at.is_some_and(|retry| retry > at) {
            return false;
        }
        self.retry_volumes_at = None;
        if self.tokens.is_none() {
            if tokens(&self.pod).is_empty() {
                self.tokens = Some(BTreeMap::new());
            } else {
                self.ask_tokens();
                return false;
            }
        }
        let no_tokens = BTreeMap::new();
        let pod_ip = self.pod_ip();
        let facts = PodFacts { pod: &self.pod, pod_ip: &pod_ip, host_ip: &self.node.address };
        let objects = NamespaceObjects::of(&self.pod, &self.node.informers);
        match Volumes::prepare(&facts, &objects, self.tokens.as_ref().unwrap_or(&no_tokens)) {
            Ok(volumes) => {
                self.volumes = Some(volumes);
                true
            }
            Err(error) => {
                self.complain_of_volumes(error.to_string(), at);
                false
            }
        }
    }

    /// Waits for what volumes miss, and tells of it if that takes time.
    pub(super) fn complain_of_volumes(&mut self, complaint: String, at: Instant) {
        let since = *self.volumes_missing_since.get_or_insert(at);
        if at < since + COMPLAIN_AFTER {
            self.retry_volumes_at = Some(since + COMPLAIN_AFTER);
        } else {
            self.event(None, EventType::Warning, "FailedMount", complaint);
            self.retry_volumes_at = Some(at + CONFIG_RETRY);
        }
    }

    pub(super) fn refresh_volumes(&mut self) {
        let pod_ip = self.pod_ip();
        let Some(volumes) = &mut self.volumes else { return };
        let no_tokens = BTreeMap::new();
        let facts = PodFacts { pod: &self.pod, pod_ip: &pod_ip, host_ip: &self.node.address };
        let objects = NamespaceObjects::of(&self.pod, &self.node.informers);
        volumes.refresh(&facts, &objects, self.tokens.as_ref().unwrap_or(&no_tokens));
    }

    pub(super) fn pod_ip(&self) -> String {
        self.net.as_ref().map(|net| net.address().to_string()).unwrap_or_default()
    }

    /// Has the API server issue the tokens that the pod's volumes ask for.
    pub(super) fn ask_tokens(&mut self) {
        if std::mem::replace(&mut self.asking_tokens, true) {
            return;
        }
        let (pod, client, sender) = (self.pod.clone(), self.node.client.clone(), self.sender.clone());
        tokio::spawn(async move {
            let answer = issue_tokens(&pod, client).await.map_err(|error| error.to_string());
            let _ = sender.send(Message::Tokens(answer));
        });
    }

    pub(super) fn release(&mut self) {
        self.runtime.set_net(None);
        self.net = None;
        if let Some(address) = self.address.take() {
            self.node.network.detach(address);
            self.node.addresses.give_back(address);
        }
    }
}

async fn issue_tokens(pod: &Pod, client: kube::Client) -> Result<BTreeMap<TokenKey, String>, kube::Error> {
    let api: Api<ServiceAccount> = Api::namespaced(client, &pod.namespace().unwrap_or_default());
    let spec = pod.spec.as_ref();
    let account = spec.and_then(|spec| spec.service_account_name.as_deref()).filter(|name| !name.is_empty()).unwrap_or("default");
    let mut issued = BTreeMap::new();
    for key in tokens(pod) {
        let request = TokenRequest {
            spec: TokenRequestSpec {
                audiences: Some(key.audience.clone()).filter(|audience| !audience.is_empty()).into_iter().collect(),
                expiration_seconds: Some(key.expiration_seconds),
                bound_object_ref: Some(BoundObjectReference {
                    api_version: Some("v1".to_owned()),
                    kind: Some("Pod".to_owned()),
                    name: pod.metadata.name.clone(),
                    uid: pod.metadata.uid.clone(),
                }),
            },
            ..Default::default()
        };
        let answer: TokenRequest = api.create_subresource("token", account, &PostParams::default(), &request).await?;
        issued.insert(key, answer.status.map(|status| status.token).unwrap_or_default());
    }
    Ok(issued)
}
