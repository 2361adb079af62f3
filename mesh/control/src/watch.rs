//! Following the objects of one kind.

use std::time::Duration;

use futures::StreamExt;

use kube::api::DynamicObject;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Resource};
use meshlab_proxy_config::Log;
use serde::de::DeserializeOwned;

/// First and longest pause before the API server is asked again after an error.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// A kind that the API server does not know may be about to be installed.
const ABSENT_PAUSE: Duration = Duration::from_millis(500);

/// What happened to the objects of a kind.
pub(crate) enum Change<K> {
    /// These are all there are.
    All(Vec<K>),
    /// One is new or different.
    Applied(K),
    /// One is gone.
    Deleted(K),
}

/// Follows all objects that `api` and `config` select, for as long as the future lives. `sink` sees [`Change::All`] first, empty if
/// the API server does not know the kind.
pub(crate) async fn watch<K>(api: Api<K>, config: watcher::Config, log: Log, mut sink: impl FnMut(Change<K>))
where
    K: Resource<DynamicType: Default> + Clone + DeserializeOwned + std::fmt::Debug + Send + 'static,
{
    follow(watcher(api, config), K::kind(&K::DynamicType::default()).as_ref(), log, &mut sink).await;
}

/// As [`watch`], for objects whose type is only known by name.
pub(crate) async fn watch_dynamic(
    api: Api<DynamicObject>,
    config: watcher::Config,
    kind: &str,
    log: Log,
    mut sink: impl FnMut(Change<DynamicObject>),
) {
    follow(watcher(api, config), kind, log, &mut sink).await;
}

async fn follow<K>(
    events: impl futures::Stream<Item = Result<Event<K>, watcher::Error>>,
    kind: &str,
    log: Log,
    sink: &mut impl FnMut(Change<K>),
) {
    let mut events = std::pin::pin!(events);
    let mut listed = Vec::new();
    let (mut pause, mut absent) = (FIRST_PAUSE, false);
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => listed = Vec::new(),
            Ok(Event::InitApply(object)) => listed.push(object),
            Ok(Event::InitDone) => sink(Change::All(std::mem::take(&mut listed))),
            Ok(Event::Apply(object)) => sink(Change::Applied(object)),
            Ok(Event::Delete(object)) => sink(Change::Deleted(object)),
            Err(error) if is_absent(&error) => {
                if !absent {
                    absent = true;
                    sink(Change::All(Vec::new()));
                    log.warn("kube", format_args!("{kind} is not installed in this cluster; waiting for its CRD"));
                }
                tokio::time::sleep(ABSENT_PAUSE).await;
                continue;
            }
            Err(error) => {
                log.warn("kube", format_args!("watching {kind}: {error}; trying again in {pause:?}"));
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
                continue;
            }
        }
        (pause, absent) = (FIRST_PAUSE, false);
    }
}

fn is_absent(error: &watcher::Error) -> bool {
    matches!(error, watcher::Error::InitialListFailed(kube::Error::Api(status)) if status.code == 404)
}
