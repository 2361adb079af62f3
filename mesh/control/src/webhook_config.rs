//! Telling the API server how to reach the webhooks: the CA bundle, and strictness once validation really works.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kube::api::{Api, ApiResource, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use kube::runtime::watcher;
use meshlab_proxy_config::Log;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

use crate::watch::{Change, watch_dynamic};

/// The two kinds of webhook configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Mutating,
    Validating,
}

impl Kind {
    fn resource(self) -> ApiResource {
        let (kind, plural) = match self {
            Self::Mutating => ("MutatingWebhookConfiguration", "mutatingwebhookconfigurations"),
            Self::Validating => ("ValidatingWebhookConfiguration", "validatingwebhookconfigurations"),
        };
        ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("admissionregistration.k8s.io", "v1", kind), plural)
    }

    /// Whether a webhook of this configuration is ours to fill in.
    fn is_ours(self, webhook: &Value) -> bool {
        let name = webhook["name"].as_str().unwrap_or_default();
        match self {
            Self::Mutating => name.ends_with("sidecar-injector.istio.io"),
            Self::Validating => name.ends_with("validation.istio.io"),
        }
    }

    /// The configuration as it should be; `None` when it is.
    fn completed(self, webhooks: &Value, ca_bundle: &str) -> Option<Value> {
        let mut completed = webhooks.clone();
        for webhook in completed.as_array_mut()?.iter_mut().filter(|webhook| self.is_ours(webhook)) {
            webhook["clientConfig"]["caBundle"] = ca_bundle.into();
            if self == Self::Validating {
                webhook["failurePolicy"] = "Fail".into();
            }
        }
        (completed != *webhooks).then_some(completed)
    }
}

/// Keeps the webhook configurations of `revision` filled in, whoever applies them anew. `done` becomes true when both kinds have been
/// looked through once.
pub(crate) async fn keep(client: kube::Client, revision: String, root: String, log: Log, done: watch::Sender<bool>) {
    let ca_bundle = STANDARD.encode(root);
    let mutating = keep_kind(Kind::Mutating, client.clone(), &revision, &ca_bundle, &log);
    let validating = keep_kind(Kind::Validating, client, &revision, &ca_bundle, &log);
    let (first, second) = (mutating.first_pass, validating.first_pass);
    let report = async {
        // A sender that is gone never looked through anything.
        if let (Ok(()), Ok(())) = tokio::join!(first, second) {
            done.send_replace(true);
        }
    };
    tokio::join!(mutating.work, validating.work, report);
}

struct Keeper<F> {
    work: F,
    first_pass: tokio::sync::oneshot::Receiver<()>,
}

fn keep_kind<'a>(
    kind: Kind,
    client: kube::Client,
    revision: &'a str,
    ca_bundle: &'a str,
    log: &'a Log,
) -> Keeper<impl Future<Output = ()> + 'a> {
    let (first_pass, receiver) = tokio::sync::oneshot::channel();
    let work = async move {
        let resource = kind.resource();
        let api: Api<DynamicObject> = Api::all_with(client, &resource);
        let (sender, mut changes) = mpsc::unbounded_channel();
        let selection = watcher::Config::default().labels(&format!("istio.io/rev={revision}"));
        let watching = watch_dynamic(api.clone(), selection, &resource.kind, log.clone(), move |change| {
            // The receiver lives as long as this watch does.
            let _ = sender.send(change);
        });
        let completing = async {
            let mut first_pass = Some(first_pass);
            while let Some(change) = changes.recv().await {
                let objects = match change {
                    Change::All(objects) => objects,
                    Change::Applied(object) => vec![object],
                    Change::Deleted(_) => continue,
                };
                for object in objects {
                    complete(kind, &api, object, ca_bundle, log).await;
                }
                if let Some(first_pass) = first_pass.take() {
                    let _ = first_pass.send(());
                }
            }
        };
        tokio::join!(watching, completing);
    };
    Keeper { work, first_pass: receiver }
}

async fn complete(kind: Kind, api: &Api<DynamicObject>, object: DynamicObject, ca_bundle: &str, log: &Log) {
    let Some(webhooks) = kind.completed(&object.data["webhooks"], ca_bundle) else { return };
    let name = object.metadata.name.clone().unwrap_or_default();
    let written = match kind {
        // Istio's role allows patching one kind and only updating the other.
        Kind::Mutating => {
            let version = object.metadata.resource_version.clone();
            let patch = json!({ "metadata": { "resourceVersion": version }, "webhooks": webhooks });
            api.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await
        }
        Kind::Validating => {
            let mut object = object;
            object.data["webhooks"] = webhooks;
            api.replace(&name, &PostParams::default(), &object).await
        }
    };
    match written {
        Ok(_) => log.info("webhooks", format_args!("Patched webhook {name} with CA bundle")),
        // Somebody else wrote; the watch brings what they wrote.
        Err(kube::Error::Api(status)) if status.code == 409 => {}
        Err(error) => log.error("webhooks", format_args!("cannot write the CA bundle into {name}: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_webhooks_are_filled_in() {
        let webhooks = json!([
            { "name": "namespace.sidecar-injector.istio.io", "clientConfig": { "service": { "name": "istiod" } } },
            { "name": "other.example.com", "clientConfig": {} },
        ]);
        let completed = Kind::Mutating.completed(&webhooks, "Q0E=").unwrap();
        assert_eq!(completed[0]["clientConfig"]["caBundle"], "Q0E=");
        assert_eq!(completed[1], webhooks[1]);
        assert_eq!(Kind::Mutating.completed(&completed, "Q0E="), None, "nothing left to do");
    }

    #[test]
    fn validation_becomes_strict() {
        let webhooks = json!([{ "name": "rev.validation.istio.io", "clientConfig": {}, "failurePolicy": "Ignore" }]);
        assert_eq!(Kind::Validating.completed(&webhooks, "Q0E=").unwrap()[0]["failurePolicy"], "Fail");
    }
}
