//! Looking: each probe turns a piece of the cluster into one JSON value.

mod log;
mod resource;
mod telemetry;
mod traffic;

use std::collections::BTreeMap;

use kube::Client;
use meshlab_probe_protocol::{HttpRequest, Outcome};
use serde_json::Value;

use crate::check::Probe;
use crate::{Text, lab};

pub(crate) use traffic::{field, observation, send};

/// Why a probe could not look. Never a pass, never a fail: the check ends in error.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", message.en)]
pub struct ProbeError {
    /// What went wrong.
    pub message: Text,
    /// How to mend it, where that is known.
    pub hint: Option<Text>,
}

impl ProbeError {
    pub(crate) fn new(message: Text) -> Self {
        Self { message, hint: None }
    }

    /// What another program, or the cluster, said.
    pub(crate) fn of(error: impl std::fmt::Display) -> Self {
        Self::new(Text::same(error))
    }

    pub(crate) fn with_hint(mut self, hint: Text) -> Self {
        self.hint = Some(hint);
        self
    }
}

/// What probes work with.
#[derive(Clone)]
pub struct Prober {
    pub(crate) client: Client,
    pub(crate) clients: BTreeMap<String, lab::Client>,
}

impl Prober {
    /// `clients`: those of the lab, from which traffic is sent.
    pub fn new(client: Client, clients: BTreeMap<String, lab::Client>) -> Self {
        Self { client, clients }
    }

    /// Sends one request from a client of the lab, and says what became of it.
    ///
    /// # Errors
    /// [`ProbeError`] when it could not be sent; a request that gets no answer is an outcome.
    pub async fn send(&self, from: &str, request: &HttpRequest) -> Result<Outcome, ProbeError> {
        let outcomes = send(self, from, request, 1, 1).await?;
        outcomes.into_iter().next().ok_or_else(|| ProbeError::of(format!("prober {from}: it sent nothing")))
    }

    /// Looks once.
    ///
    /// # Errors
    /// [`ProbeError`] when it could not be measured; an object that is not there, or a request that gets no answer, is an
    /// observation and no error.
    pub async fn look(&self, probe: &Probe) -> Result<Value, ProbeError> {
        match probe {
            Probe::Resource(probe) => resource::look(self, probe).await,
            Probe::Traffic(probe) => traffic::look(self, probe).await,
            Probe::Split(_) => Err(ProbeError::of("a split is sampled, not looked at")),
            Probe::Metrics(probe) => telemetry::metrics(self, probe).await,
            Probe::Traces(probe) => telemetry::traces(self, probe).await,
            Probe::Log(probe) => log::look(self, probe).await,
        }
    }
}

/// The ready pods with these labels.
pub(crate) async fn ready_pods(client: &Client, namespace: &str, selector: &str) -> Result<Vec<String>, ProbeError> {
    use k8s_openapi::api::core::v1::Pod;
    let pods = kube::Api::<Pod>::namespaced(client.clone(), namespace);
    let list = pods.list(&kube::api::ListParams::default().labels(selector)).await.map_err(ProbeError::of)?;
    let ready = |pod: &Pod| {
        let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
        let ready = conditions.is_some_and(|all| all.iter().any(|c| c.type_ == "Ready" && c.status == "True"));
        ready && pod.metadata.deletion_timestamp.is_none()
    };
    Ok(list.items.into_iter().filter(ready).filter_map(|pod| pod.metadata.name).collect())
}
