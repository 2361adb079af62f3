//! `kubectl apply`.

use serde_json::Value;

use super::cli::{Apply, DryRun};
use super::rest::{self, Failure, JSON, with_query};
use super::targets::documents;
use super::{Session, Step, get};
use crate::output::{complain, print};

/// Who is said to have set the fields.
const MANAGER: &str = "kubectl";
/// The media type of an object to be merged by the server.
const APPLY: &str = "application/apply-patch+yaml";

/// Applies every object, also when some are refused.
pub(super) async fn run(session: &Session, args: &Apply) -> Result<Step, Failure> {
    let objects = documents(&args.filename)?;
    let mut fresh: Option<Session> = None;
    let mut step = Step::Done;
    for object in objects {
        // An earlier document may have defined this one's kind.
        if fresh.as_ref().unwrap_or(session).kind_of(&object).is_err() {
            fresh = Some(Session::new(session.client(), session.asked_namespace.clone()).await?);
        }
        if let Err(failure) = one(fresh.as_ref().unwrap_or(session), &object, args).await {
            complain(&format!("{failure}\n"));
            step = Step::Failed;
        }
    }
    Ok(step)
}

async fn one(session: &Session, object: &Value, args: &Apply) -> Result<(), Failure> {
    let resource = session.kind_of(object)?;
    let name = object["metadata"]["name"].as_str().filter(|name| !name.is_empty());
    let name = name.ok_or_else(|| Failure::new(format!("{}: resource name may not be empty", resource.kind)))?;
    let namespace = session.namespace_of(object)?;
    let path = rest::path(resource, Some(&namespace), Some(name));
    let said = |how: &str, note: &str| print(&format!("{} {how}{note}\n", resource.of(name)));
    let before = match session.rest.get(&path, JSON).await {
        Ok(object) => Some(object),
        Err(failure) if failure.is_not_found() => None,
        Err(failure) => return Err(failure),
    };
    if args.dry_run == DryRun::Client {
        said(if before.is_some() { "configured" } else { "created" }, " (dry run)");
        return Ok(());
    }
    let dry_run = if args.dry_run == DryRun::Server { "All" } else { "" };
    let query = [("fieldManager", MANAGER), ("force", "true"), ("fieldValidation", "Strict"), ("dryRun", dry_run)];
    let mut object = object.clone();
    if resource.namespaced {
        object["metadata"]["namespace"] = namespace.into();
    }
    let file = args.filename.join("\", \"");
    let doing = if before.is_some() { "error when applying patch" } else { "error when creating" };
    let after = session.rest.patch(&with_query(&path, &query), APPLY, &object).await;
    let after = after.map_err(|failure| failure.when(&format!("{doing} \"{file}\"")))?;
    if let Some(output) = &args.output {
        print(&get::format(&after, output)?);
        return Ok(());
    }
    let how = match &before {
        None => "created",
        Some(before) if before["metadata"]["resourceVersion"] == after["metadata"]["resourceVersion"] => "unchanged",
        Some(_) => "configured",
    };
    said(how, if dry_run.is_empty() { "" } else { " (server dry run)" });
    Ok(())
}
