//! `kubectl logs`.

use futures::stream::SelectAll;
use futures::{AsyncBufReadExt, StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1 as core;
use kube::Api;
use kube::api::LogParams;

use super::cli::Logs;
use super::pods::{Pod, pods};
use super::rest::Failure;
use super::{Session, Step, pod_of};
use crate::output::{complain, print};

/// Lines that are shown of each container when a selector is given, and nothing else is said.
const TAIL_OF_SELECTED: i64 = 10;

pub(super) async fn run(session: &Session, args: &Logs) -> Result<Step, Failure> {
    let (pods, container) = match (args.what.as_slice(), args.selector.is_empty()) {
        ([], false) => (pods(session, &args.selector).await?, args.container.as_deref()),
        ([target], true) => (vec![pod_of(session, target).await?], args.container.as_deref()),
        ([target, container], true) if args.container.is_none() => {
            (vec![pod_of(session, target).await?], Some(container.as_str()))
        }
        _ => return Err(Failure::new("expected 'logs (POD | TYPE/NAME) [CONTAINER]' or -l SELECTOR")),
    };
    if pods.is_empty() {
        complain(&format!("No resources found in {} namespace.\n", session.namespace));
    }
    let mut sources = Vec::new();
    for pod in &pods {
        if args.all_containers {
            sources.extend(pod.containers(true).into_iter().map(|container| (pod, container)));
        } else {
            sources.push((pod, pod.container(container, |note| complain(&note))?));
        }
    }
    show(session, args, &sources).await
}

async fn show(session: &Session, args: &Logs, sources: &[(&Pod, String)]) -> Result<Step, Failure> {
    let mut live = SelectAll::new();
    for (pod, container) in sources {
        let tail = args.tail.or_else(|| (!args.selector.is_empty()).then_some(TAIL_OF_SELECTED));
        let params = LogParams {
            container: Some(container.clone()),
            follow: args.follow,
            previous: args.previous,
            timestamps: args.timestamps,
            tail_lines: tail.filter(|lines| *lines >= 0),
            since_seconds: args.since.map(|since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX).max(1)),
            ..LogParams::default()
        };
        let api: Api<core::Pod> = Api::namespaced(session.client(), &pod.namespace);
        let prefix = if args.prefix { format!("[pod/{}/{container}] ", pod.name) } else { String::new() };
        let mut lines = api.log_stream(&pod.name, &params).await?.lines();
        if args.follow {
            live.push(lines.map(move |line| line.map(|line| format!("{prefix}{line}\n"))).boxed());
            continue;
        }
        while let Some(line) = lines.try_next().await.map_err(Failure::new)? {
            print(&format!("{prefix}{line}\n"));
        }
    }
    while let Some(line) = live.try_next().await.map_err(Failure::new)? {
        print(&line);
    }
    Ok(Step::Done)
}
