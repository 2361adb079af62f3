//! `kubectl delete`, `label`, `annotate`, `patch`, `scale`: changes of objects that are there.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::cli::{Delete, Mark, Patch, PatchType, Scale, Select};
use super::resources::Resource;
use super::rest::{self, Failure, JSON};
use super::targets::Target;
use super::{Session, Step};
use crate::output::{complain, print};

/// The media type in which null removes a field.
pub(super) const MERGE: &str = "application/merge-patch+json";

/// Between two looks whether an object is gone.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// `TYPE` alone means nothing to commands that change: they want a name, `--all` or a selector.
fn refuse_everything(targets: &[Target], select: &Select, all: bool) -> Result<(), Failure> {
    let everything = targets.iter().any(|target| matches!(target, Target::All(_)));
    if everything && !all && select.selector.is_empty() && select.field_selector.is_empty() {
        return Err(Failure::new("resource(s) were provided, but no name was specified"));
    }
    Ok(())
}

pub(super) async fn delete(session: &Session, args: &Delete) -> Result<Step, Failure> {
    let targets = session.targets(&args.what, &args.select)?;
    refuse_everything(&targets, &args.select, args.all)?;
    let mut step = Step::Done;
    let mut gone: Vec<(String, Value)> = Vec::new();
    for target in &targets {
        let objects = match session.objects(target, &args.select).await {
            Ok(objects) => objects,
            Err(failure) if args.ignore_not_found && failure.is_not_found() => continue,
            Err(failure) => {
                complain(&format!("{failure}\n"));
                step = Step::Failed;
                continue;
            }
        };
        if objects.is_empty() && !args.ignore_not_found {
            complain("No resources found\n");
        }
        for (resource, object) in objects {
            match delete_one(session, &resource, &object, args).await {
                Ok(path) => gone.push((path, object["metadata"]["uid"].clone())),
                Err(failure) if failure.is_not_found() => {}
                Err(failure) => {
                    complain(&format!("{failure}\n"));
                    step = Step::Failed;
                }
            }
        }
    }
    for (path, uid) in gone.iter().filter(|_| args.wait) {
        wait_until_gone(session, path, uid).await?;
    }
    Ok(step)
}

async fn delete_one(session: &Session, resource: &Resource, object: &Value, args: &Delete) -> Result<String, Failure> {
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    let path = rest::path(resource, object["metadata"]["namespace"].as_str(), Some(name));
    let grace = match (args.force, args.now) {
        (true, _) => Some(0),
        (false, true) => Some(1),
        (false, false) => args.grace_period,
    };
    let mut options = json!({"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"});
    if let Some(seconds) = grace {
        options["gracePeriodSeconds"] = seconds.into();
    }
    session.rest.delete(&path, &options).await?;
    let label = resource.label();
    print(&match object["metadata"]["namespace"].as_str() {
        Some(namespace) => format!("{label} \"{name}\" deleted from {namespace} namespace\n"),
        None => format!("{label} \"{name}\" deleted\n"),
    });
    Ok(path)
}

/// Until there is no such object, or another one of that name.
pub(super) async fn wait_until_gone(session: &Session, path: &str, uid: &Value) -> Result<(), Failure> {
    loop {
        match session.rest.get(path, JSON).await {
            Ok(object) if object["metadata"]["uid"] == *uid => tokio::time::sleep(LOOK_AGAIN).await,
            Ok(_) => return Ok(()),
            Err(failure) if failure.is_not_found() => return Ok(()),
            Err(failure) => return Err(failure),
        }
    }
}

/// Sets and removes labels or annotations; `field` says which.
pub(super) async fn mark(session: &Session, args: &Mark, field: &str) -> Result<Step, Failure> {
    let is_mark = |text: &&String| text.contains('=') || text.ends_with('-');
    let (marks, what): (Vec<&String>, Vec<&String>) = args.what.iter().partition(is_mark);
    if marks.is_empty() {
        return Err(Failure::new(format!("at least one {} update is required: KEY=VALUE or KEY-", field.trim_end_matches('s'))));
    }
    let what: Vec<String> = what.into_iter().cloned().collect();
    let targets = session.targets(&what, &args.select)?;
    refuse_everything(&targets, &args.select, args.all || args.select.all_namespaces)?;
    let mut changes = Map::new();
    for mark in marks {
        match mark.split_once('=') {
            Some((key, value)) => changes.insert(key.to_owned(), value.into()),
            None => changes.insert(mark.trim_end_matches('-').to_owned(), Value::Null),
        };
    }
    let mut step = Step::Done;
    for target in &targets {
        for (resource, object) in session.objects(target, &args.select).await? {
            if let Err(failure) = mark_one(session, &resource, &object, &changes, args.overwrite, field).await {
                complain(&format!("{failure}\n"));
                step = Step::Failed;
            }
        }
    }
    Ok(step)
}

async fn mark_one(
    session: &Session,
    resource: &Resource,
    object: &Value,
    changes: &Map<String, Value>,
    overwrite: bool,
    field: &str,
) -> Result<(), Failure> {
    let had = &object["metadata"][field];
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    for (key, value) in changes {
        match (&had[key], value) {
            (Value::String(old), Value::String(new)) if old != new && !overwrite => {
                return Err(Failure::new(format!("'{key}' already has a value ({old}), and --overwrite is false")));
            }
            (Value::Null, Value::Null) => print(&format!("{} \"{key}\" not found.\n", field.trim_end_matches('s'))),
            _ => {}
        }
    }
    let verb = if field == "labels" { "label" } else { "annotate" };
    let participle = if field == "labels" { "labeled" } else { "annotated" };
    let changed = changes.iter().any(|(key, value)| had[key] != *value);
    if changed {
        let path = rest::path(resource, object["metadata"]["namespace"].as_str(), Some(name));
        let path = rest::with_query(&path, &[("fieldManager", &format!("kubectl-{verb}"))]);
        session.rest.patch(&path, MERGE, &json!({"metadata": {field: changes}})).await?;
    }
    let removed_only = changes.values().all(Value::is_null);
    let how = match (changed, removed_only, field) {
        (true, true, "labels") => "unlabeled",
        (false, _, "labels") => "not labeled",
        _ => participle,
    };
    print(&format!("{} {how}\n", resource.of(name)));
    Ok(())
}

pub(super) async fn patch(session: &Session, args: &Patch) -> Result<Step, Failure> {
    let patch: Value =
        serde_saphyr::from_str(&args.patch).map_err(|error| Failure::new(format!("unable to parse the patch: {error}")))?;
    let targets = session.targets(&args.what, &Select::default())?;
    refuse_everything(&targets, &Select::default(), false)?;
    for target in &targets {
        let Target::One { resource, namespace, name } = target else { continue };
        let media = match args.kind {
            PatchType::Json => "application/json-patch+json",
            PatchType::Merge => MERGE,
            PatchType::Strategic => "application/strategic-merge-patch+json",
        };
        let path = rest::path(resource, Some(namespace), Some(name));
        let before = session.rest.get(&path, JSON).await?;
        let after = session.rest.patch(&rest::with_query(&path, &[("fieldManager", "kubectl-patch")]), media, &patch).await?;
        let same = before["metadata"]["resourceVersion"] == after["metadata"]["resourceVersion"];
        print(&format!("{} patched{}\n", resource.of(name), if same { " (no change)" } else { "" }));
    }
    Ok(Step::Done)
}

pub(super) async fn scale(session: &Session, args: &Scale) -> Result<Step, Failure> {
    let targets = session.targets(&args.what, &args.select)?;
    refuse_everything(&targets, &args.select, false)?;
    for target in &targets {
        for (resource, object) in session.objects(target, &args.select).await? {
            let name = object["metadata"]["name"].as_str().unwrap_or_default();
            let path = rest::path(&resource, object["metadata"]["namespace"].as_str(), Some(name));
            session.rest.patch(&format!("{path}/scale"), MERGE, &json!({"spec": {"replicas": args.replicas}})).await?;
            print(&format!("{} scaled\n", resource.of(name)));
        }
    }
    Ok(Step::Done)
}
