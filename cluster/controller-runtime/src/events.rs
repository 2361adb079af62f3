//! Events: what controllers tell a person who runs `kubectl describe`.

use std::collections::{HashMap, VecDeque};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::{Client, Resource};
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::meta::{is_not_found, now, object_reference};
use crate::supervise;

/// Events waiting to be written. More than this are dropped: an Event is a help, not a record.
const PENDING: usize = 16_384;
/// How many different events are remembered for counting repetitions, as client-go has it.
const REMEMBERED: usize = 4096;
/// Events about one object that may be written at once, and how long one more takes; client-go's spam filter.
const BURST: f64 = 25.0;
const REFILL_PER_SECOND: f64 = 1.0 / 300.0;

/// An event's type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventType {
    /// All is as it should be.
    Normal,
    /// Somebody may want to look.
    Warning,
}

impl EventType {
    fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

/// Writes Events in the background; equal ones are counted, not repeated. Cloning is cheap.
#[derive(Clone)]
pub struct EventRecorder {
    sender: mpsc::Sender<Record>,
}

struct Record {
    about: ObjectReference,
    event_type: EventType,
    reason: String,
    message: String,
    time: Time,
}

impl EventRecorder {
    /// A recorder that signs with `component` (and `host`, where it is a node's).
    pub fn start(client: Client, component: &str, host: Option<&str>, stop: CancellationToken) -> Self {
        let (sender, receiver) = mpsc::channel(PENDING);
        let source = EventSource { component: Some(component.to_owned()), host: host.map(str::to_owned) };
        let writer = std::sync::Arc::new(tokio::sync::Mutex::new(Writer {
            client,
            source,
            receiver,
            known: HashMap::new(),
            order: VecDeque::new(),
            allowance: HashMap::new(),
        }));
        supervise("event recorder", stop, move || {
            let writer = writer.clone();
            async move { writer.lock().await.run().await }
        });
        Self { sender }
    }

    /// Records an event about `object`.
    pub fn record<K: Resource<DynamicType = ()>>(&self, object: &K, event_type: EventType, reason: &str, message: String) {
        self.record_about(object_reference(object), event_type, reason, message);
    }

    /// Records an event about what `about` refers to.
    pub fn record_about(&self, about: ObjectReference, event_type: EventType, reason: &str, message: String) {
        let record = Record { about, event_type, reason: reason.to_owned(), message, time: now() };
        if self.sender.try_send(record).is_err() {
            tracing::debug!(reason, "too many events at once: one is dropped");
        }
    }
}

#[derive(PartialEq, Eq, Hash, Clone)]
struct Identity {
    uid: String,
    field_path: Option<String>,
    event_type: EventType,
    reason: String,
    message: String,
}

struct Known {
    namespace: String,
    name: String,
    count: i32,
    first: Time,
}

struct Writer {
    client: Client,
    source: EventSource,
    receiver: mpsc::Receiver<Record>,
    known: HashMap<Identity, Known>,
    order: VecDeque<Identity>,
    allowance: HashMap<String, (f64, Timestamp)>,
}

impl Writer {
    async fn run(&mut self) {
        while let Some(record) = self.receiver.recv().await {
            let uid = record.about.uid.clone().unwrap_or_default();
            if !self.allow(&uid, record.time.0) {
                continue;
            }
            if let Err(error) = self.write(record, uid).await {
                tracing::debug!(%error, "an event was not written");
            }
        }
    }

    fn allow(&mut self, uid: &str, time: Timestamp) -> bool {
        if self.allowance.len() > REMEMBERED {
            self.allowance.retain(|_, (left, last)| refilled(*left, *last, time) < BURST);
        }
        let (left, last) = self.allowance.entry(uid.to_owned()).or_insert((BURST, time));
        *left = refilled(*left, *last, time);
        *last = time;
        let allowed = *left >= 1.0;
        if allowed {
            *left -= 1.0;
        }
        allowed
    }

    async fn write(&mut self, record: Record, uid: String) -> Result<(), kube::Error> {
        let identity = Identity {
            uid,
            field_path: record.about.field_path.clone(),
            event_type: record.event_type,
            reason: record.reason.clone(),
            message: record.message.clone(),
        };
        if let Some(known) = self.known.get_mut(&identity) {
            known.count += 1;
            let api: Api<Event> = Api::namespaced(self.client.clone(), &known.namespace);
            let patch = Patch::Merge(json!({"count": known.count, "lastTimestamp": record.time}));
            match api.patch(&known.name, &PatchParams::default(), &patch).await {
                Err(error) if is_not_found(&error) => {}
                answer => return answer.map(drop),
            }
        }
        self.create(record, identity).await
    }

    async fn create(&mut self, record: Record, identity: Identity) -> Result<(), kube::Error> {
        let namespace = record.about.namespace.clone().unwrap_or_else(|| "default".to_owned());
        let name = format!("{}.{:x}", record.about.name.as_deref().unwrap_or_default(), Timestamp::now().as_nanosecond());
        let first = self.known.get(&identity).map_or_else(|| record.time.clone(), |known| known.first.clone());
        let count = self.known.get(&identity).map_or(1, |known| known.count);
        let event = Event {
            metadata: ObjectMeta { name: Some(name.clone()), namespace: Some(namespace.clone()), ..Default::default() },
            involved_object: record.about,
            type_: Some(record.event_type.as_str().to_owned()),
            reason: Some(record.reason),
            message: Some(record.message),
            source: Some(self.source.clone()),
            reporting_component: self.source.component.clone(),
            reporting_instance: self.source.host.clone().or_else(|| Some(String::new())),
            first_timestamp: Some(first.clone()),
            last_timestamp: Some(record.time),
            count: Some(count),
            ..Default::default()
        };
        let api: Api<Event> = Api::namespaced(self.client.clone(), &namespace);
        api.create(&PostParams::default(), &event).await?;
        if self.known.insert(identity.clone(), Known { namespace, name, count, first }).is_none() {
            self.order.push_back(identity);
        }
        while self.order.len() > REMEMBERED {
            if let Some(oldest) = self.order.pop_front() {
                self.known.remove(&oldest);
            }
        }
        Ok(())
    }
}

#[expect(clippy::cast_precision_loss, reason = "an allowance of 25 events needs no exact seconds")]
fn refilled(left: f64, last: Timestamp, time: Timestamp) -> f64 {
    let seconds = (time.as_second() - last.as_second()).max(0) as f64;
    (left + seconds * REFILL_PER_SECOND).min(BURST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_allowance_refills_one_event_in_five_minutes() {
        let begin = Timestamp::UNIX_EPOCH;
        assert!((refilled(0.0, begin, Timestamp::from_second(300).unwrap()) - 1.0).abs() < 1e-9);
        assert!((refilled(0.0, begin, Timestamp::from_second(1_000_000).unwrap()) - BURST).abs() < 1e-9);
    }
}
