//! Hearing of changes in the cluster.

use std::collections::HashSet;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::{BoxStream, SelectAll};
use kube::api::{Api, DynamicObject};
use kube::core::{GroupVersionKind, PartialObjectMeta};
use kube::runtime::watcher::{Config, Event};
use kube::runtime::{WatchStreamExt, watcher as watch};
use kube::{Client, discovery};
use meshlab_checks::Lab;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use crate::steps;

/// What comes within this time is one change.
const QUIET: Duration = Duration::from_millis(250);

/// A rollout goes on for a while; who watches it hears of it this often.
const LONGEST: Duration = Duration::from_secs(1);

/// Yields a unit after each change of an object of a kind that the lab's files speak of, and of a pod, until the receiver is
/// dropped.
pub(crate) fn changes(client: Client, lab: &Lab) -> mpsc::Receiver<()> {
    let kinds = kinds(lab);
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        let mut all = SelectAll::new();
        for kind in kinds {
            // A kind that is not served cannot change either.
            if let Ok((resource, _)) = discovery::pinned_kind(&client, &kind).await {
                all.push(changes_of(Api::all_with(client.clone(), &resource)));
            }
        }
        while all.next().await.is_some() {
            let end = Instant::now() + LONGEST;
            while timeout_at(end.min(Instant::now() + QUIET), all.next()).await.is_ok_and(|change| change.is_some()) {}
            if sender.send(()).await.is_err() {
                return;
            }
        }
    });
    receiver
}

/// A unit for each object that was made, changed or deleted since the first list; and for a later list, since the watch was
/// broken and something may have been missed.
fn changes_of(api: Api<PartialObjectMeta<DynamicObject>>) -> BoxStream<'static, ()> {
    let mut listed = false;
    watch(api, Config::default())
        .default_backoff()
        .filter_map(move |event| {
            let is_change = match event {
                Ok(Event::Apply(_) | Event::Delete(_)) => true,
                Ok(Event::InitDone) => std::mem::replace(&mut listed, true),
                Ok(Event::Init | Event::InitApply(_)) | Err(_) => false,
            };
            futures::future::ready(is_change.then_some(()))
        })
        .boxed()
}

fn kinds(lab: &Lab) -> HashSet<GroupVersionKind> {
    let objects = lab.steps.iter().filter_map(|step| steps::objects(&step.solution).ok()).flatten();
    let of_lab = objects.filter_map(|object| {
        let (api_version, kind) = (object["apiVersion"].as_str()?.to_owned(), object["kind"].as_str()?.to_owned());
        let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
        Some(GroupVersionKind::gvk(group, version, &kind))
    });
    of_lab.chain([GroupVersionKind::gvk("", "v1", "Pod")]).collect()
}
