//! `kubectl create`: from files, or a few kinds from arguments.

use std::path::Path;

use base64::Engine;
use serde_json::{Map, Value, json};

use super::cli::{Create, CreateKind, Data, DryRun, How, SecretKind};
use super::rest::{self, Failure, with_query};
use super::targets::documents;
use super::{Session, Step, get};
use crate::output::{complain, print};

pub(super) async fn run(session: &Session, args: &Create) -> Result<Step, Failure> {
    let Some(kind) = &args.kind else {
        if args.filename.is_empty() {
            return Err(Failure::new(
                "must specify one of -f, or a kind: namespace, configmap, secret, serviceaccount, deployment",
            ));
        }
        return from_files(session, &args.filename).await;
    };
    let (object, how) = build(kind)?;
    if how.dry_run == DryRun::Client {
        return show(session, &object, how, " (dry run)");
    }
    let created = create(session, &object, how.dry_run).await?;
    show(session, &created, how, if how.dry_run == DryRun::Server { " (server dry run)" } else { "" })
}

async fn from_files(session: &Session, names: &[String]) -> Result<Step, Failure> {
    let mut step = Step::Done;
    for object in documents(names)? {
        match create(session, &object, DryRun::None).await {
            Ok(created) => said(session, &created, "")?,
            Err(failure) => {
                complain(&format!("{}\n", failure.when(&format!("error when creating \"{}\"", names.join("\", \"")))));
                step = Step::Failed;
            }
        }
    }
    Ok(step)
}

async fn create(session: &Session, object: &Value, dry_run: DryRun) -> Result<Value, Failure> {
    let resource = session.kind_of(object)?;
    let namespace = session.namespace_of(object)?;
    let dry_run = if dry_run == DryRun::Server { "All" } else { "" };
    let query = [("fieldManager", "kubectl-create"), ("fieldValidation", "Strict"), ("dryRun", dry_run)];
    session.rest.post(&with_query(&rest::path(resource, Some(&namespace), None), &query), object).await
}

fn show(session: &Session, object: &Value, how: &How, note: &str) -> Result<Step, Failure> {
    match &how.output {
        Some(output) => print(&get::format(object, output)?),
        None => said(session, object, note)?,
    }
    Ok(Step::Done)
}

fn said(session: &Session, object: &Value, note: &str) -> Result<(), Failure> {
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    print(&format!("{} created{note}\n", session.kind_of(object)?.of(name)));
    Ok(())
}

fn build(kind: &CreateKind) -> Result<(Value, &How), Failure> {
    Ok(match kind {
        CreateKind::Namespace { name, how } => {
            (json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}), how)
        }
        CreateKind::Serviceaccount { name, how } => {
            (json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}}), how)
        }
        CreateKind::Configmap { name, data, how } => {
            let data: Map<String, Value> = entries(data)?
                .into_iter()
                .map(|(key, content)| {
                    let text = String::from_utf8(content).map_err(|_| Failure::new(format!("{key}: not UTF-8; use a Secret")))?;
                    Ok((key, text.into()))
                })
                .collect::<Result<_, Failure>>()?;
            (json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}), how)
        }
        CreateKind::Secret { kind: SecretKind::Generic { name, data, how } } => (secret(name, "Opaque", entries(data)?), how),
        CreateKind::Secret { kind: SecretKind::Tls { name, cert, key, how } } => {
            let content = vec![("tls.crt".to_owned(), read(cert)?), ("tls.key".to_owned(), read(key)?)];
            (secret(name, "kubernetes.io/tls", content), how)
        }
        CreateKind::Deployment { name, image, replicas, how } => {
            let labels = json!({"app": name});
            let container = image.rsplit('/').next().unwrap_or(image).split([':', '@']).next().unwrap_or(image);
            let object = json!({
                "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "labels": labels},
                "spec": {
                    "replicas": replicas, "selector": {"matchLabels": labels},
                    "template": {"metadata": {"labels": labels}, "spec": {"containers": [{"name": container, "image": image}]}},
                },
            });
            (object, how)
        }
    })
}

fn secret(name: &str, kind: &str, content: Vec<(String, Vec<u8>)>) -> Value {
    let encode = |content: Vec<u8>| Value::from(base64::engine::general_purpose::STANDARD.encode(content));
    let data: Map<String, Value> = content.into_iter().map(|(key, content)| (key, encode(content))).collect();
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "type": kind, "data": data})
}

fn entries(data: &Data) -> Result<Vec<(String, Vec<u8>)>, Failure> {
    let mut entries = Vec::new();
    for literal in &data.from_literal {
        let (key, value) = literal
            .split_once('=')
            .ok_or_else(|| Failure::new(format!("invalid literal source {literal}, expected key=value")))?;
        entries.push((key.to_owned(), value.as_bytes().to_vec()));
    }
    for file in &data.from_file {
        let (key, path) = match file.split_once('=') {
            Some((key, path)) => (key.to_owned(), Path::new(path)),
            None => {
                let path = Path::new(file);
                (path.file_name().unwrap_or_default().to_string_lossy().into_owned(), path)
            }
        };
        entries.push((key, read(path)?));
    }
    Ok(entries)
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(path).map_err(|error| Failure::new(format!("{}: {error}", path.display())))
}
