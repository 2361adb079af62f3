//! `kubectl get`.

use futures::{AsyncBufReadExt, StreamExt};
use serde_json::{Value, json};

use super::cli::{Get, Output};
use super::jsonpath::{Template, text};
use super::resources::Resource;
use super::rest::{self, Failure, JSON, TABLE, with_query};
use super::table::columns;
use super::targets::{Target, typed};
use super::{Session, Step};
use crate::output::{complain, print};

pub(super) async fn run(session: &Session, args: &Get) -> Result<Step, Failure> {
    let targets = session.targets(&args.what, &args.select)?;
    match &args.output {
        None => tables(session, args, &targets, false).await,
        Some(Output::Table { wide }) => tables(session, args, &targets, *wide).await,
        Some(output) => objects(session, args, &targets, output).await,
    }
}

/// Rows of one kind.
struct Table {
    resource: Resource,
    definitions: Vec<Value>,
    rows: Vec<Value>,
}

async fn tables(session: &Session, args: &Get, targets: &[Target], wide: bool) -> Result<Step, Failure> {
    let mut step = Step::Done;
    let mut found: Vec<Table> = Vec::new();
    let mut position = String::new();
    for target in targets {
        let (path, resource) = match target {
            Target::One { resource, namespace, name } => (rest::path(resource, Some(namespace), Some(name)), resource),
            Target::All(resource) => (session.list_path(resource, &args.select), resource),
        };
        let table = match session.rest.get(&path, TABLE).await {
            Ok(table) => table,
            Err(failure) if args.ignore_not_found && failure.is_not_found() => continue,
            Err(failure) => {
                complain(&format!("{failure}\n"));
                step = Step::Failed;
                continue;
            }
        };
        position = table["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned();
        let rows = table["rows"].as_array().cloned().unwrap_or_default();
        let definitions = table["columnDefinitions"].as_array().cloned().unwrap_or_default();
        match found.last_mut().filter(|last| last.resource == *resource) {
            Some(last) => last.rows.extend(rows),
            None => found.push(Table { resource: resource.clone(), definitions, rows }),
        }
    }
    let several = {
        let mut kinds: Vec<String> = targets.iter().map(|target| target.resource().label()).collect();
        kinds.dedup();
        kinds.len() > 1
    };
    found.retain(|table| !table.rows.is_empty());
    if found.is_empty() && step == Step::Done && !args.ignore_not_found {
        nothing(session, args, targets);
    }
    for (place, table) in found.iter_mut().enumerate() {
        if let Some(path) = &args.sort_by {
            sort(&mut table.rows, path)?;
        }
        if place > 0 {
            print("\n");
        }
        print(&render(table, args, wide, several));
    }
    if args.watch {
        return watch(session, args, targets, wide, &position).await;
    }
    Ok(step)
}

fn nothing(session: &Session, args: &Get, targets: &[Target]) {
    let namespaced = targets.iter().any(|target| target.resource().namespaced);
    complain(&if namespaced && !args.select.all_namespaces {
        format!("No resources found in {} namespace.\n", session.namespace)
    } else {
        "No resources found\n".to_owned()
    });
}

fn sort(rows: &mut [Value], path: &str) -> Result<(), Failure> {
    let template = Template::parse(path).map_err(Failure::new)?;
    let key = |row: &Value| template.first(&row["object"]).cloned().unwrap_or_default();
    rows.sort_by(|a, b| match (key(a), key(b)) {
        (Value::Number(a), Value::Number(b)) => a.as_f64().unwrap_or(0.0).total_cmp(&b.as_f64().unwrap_or(0.0)),
        (a, b) => text(&a).cmp(&text(&b)),
    });
    Ok(())
}

fn render(table: &Table, args: &Get, wide: bool, several: bool) -> String {
    let with_namespace = args.select.all_namespaces && table.resource.namespaced;
    let shown: Vec<usize> =
        (0..table.definitions.len()).filter(|at| wide || table.definitions[*at]["priority"].as_i64().unwrap_or(0) == 0).collect();
    let mut lines = Vec::new();
    if !args.no_headers {
        let mut header: Vec<String> = if with_namespace { vec!["NAMESPACE".to_owned()] } else { Vec::new() };
        header.extend(shown.iter().map(|at| text(&table.definitions[*at]["name"]).to_uppercase()));
        header.extend(args.label_columns.iter().map(|label| label.rsplit('/').next().unwrap_or(label).to_uppercase()));
        header.extend(args.show_labels.then(|| "LABELS".to_owned()));
        lines.push(header);
    }
    lines.extend(table.rows.iter().map(|row| line(row, table, &shown, args, with_namespace, several)));
    columns(&lines)
}

fn line(row: &Value, table: &Table, shown: &[usize], args: &Get, with_namespace: bool, several: bool) -> Vec<String> {
    let metadata = &row["object"]["metadata"];
    let mut line: Vec<String> = if with_namespace { vec![text(&metadata["namespace"])] } else { Vec::new() };
    for at in shown {
        let is_name = table.definitions[*at]["format"] == "name" || *at == 0;
        line.push(match &row["cells"][*at] {
            Value::Null => "<none>".to_owned(),
            cell if is_name && several => table.resource.of(&text(cell)),
            cell => text(cell),
        });
    }
    line.extend(args.label_columns.iter().map(|label| text(&metadata["labels"][label])));
    line.extend(args.show_labels.then(|| labels(&metadata["labels"])));
    line
}

/// `a=1,b=2`.
pub(super) fn labels(labels: &Value) -> String {
    match labels.as_object().filter(|labels| !labels.is_empty()) {
        Some(labels) => labels.iter().map(|(key, value)| format!("{key}={}", text(value))).collect::<Vec<_>>().join(","),
        None => "<none>".to_owned(),
    }
}

/// Goes on with what changes after `position`, until the server or the user ends it.
async fn watch(session: &Session, args: &Get, targets: &[Target], wide: bool, position: &str) -> Result<Step, Failure> {
    let [target] = targets else {
        return Err(Failure::new("you may only watch a single resource or type of resource at a time"));
    };
    let resource = target.resource();
    let (namespace, field) = match target {
        Target::One { namespace, name, .. } => (Some(namespace.as_str()), format!("metadata.name={name}")),
        Target::All(_) => {
            ((!args.select.all_namespaces).then_some(session.namespace.as_str()), args.select.field_selector.clone())
        }
    };
    let query = [
        ("watch", "true"),
        ("resourceVersion", position),
        ("labelSelector", args.select.selector.as_str()),
        ("fieldSelector", field.as_str()),
    ];
    let path = with_query(&rest::path(resource, namespace, None), &query);
    let request = http::Request::get(path).header(http::header::ACCEPT, TABLE).body(Vec::new()).map_err(Failure::new)?;
    let mut lines = std::pin::pin!(session.rest.0.request_stream(request).await?.lines());
    let mut definitions = Vec::new();
    while let Some(event) = lines.next().await {
        let event: Value = serde_json::from_str(&event.map_err(Failure::new)?).map_err(Failure::new)?;
        match event["type"].as_str() {
            Some("ADDED" | "MODIFIED" | "DELETED") => {}
            Some("ERROR") => return Err(Failure::new(text(&event["object"]["message"]))),
            _ => continue,
        }
        let object = &event["object"];
        if let Some(columns) = object["columnDefinitions"].as_array().filter(|columns| !columns.is_empty()) {
            definitions.clone_from(columns);
        }
        let rows = object["rows"].as_array().cloned().unwrap_or_default();
        let table = Table { resource: resource.clone(), definitions: definitions.clone(), rows };
        let quiet = Get { no_headers: true, ..args.clone() };
        print(&render(&table, &quiet, wide, false));
    }
    Ok(Step::Done)
}

async fn objects(session: &Session, args: &Get, targets: &[Target], output: &Output) -> Result<Step, Failure> {
    let mut step = Step::Done;
    let mut found = Vec::new();
    for target in targets {
        match target {
            // A list is asked for as such, so that it keeps its resource version.
            Target::All(resource) => {
                let list = session.rest.get(&session.list_path(resource, &args.select), JSON).await?;
                let items = list["items"].as_array().cloned().unwrap_or_default();
                found.extend(items.into_iter().map(|item| (resource.clone(), typed(item, resource))));
            }
            one @ Target::One { .. } => match session.objects(one, &args.select).await {
                Ok(one) => found.extend(one),
                Err(failure) if args.ignore_not_found && failure.is_not_found() => {}
                Err(failure) => {
                    complain(&format!("{failure}\n"));
                    step = Step::Failed;
                }
            },
        }
    }
    if !args.show_managed_fields {
        for (_, object) in &mut found {
            if let Some(metadata) = object["metadata"].as_object_mut() {
                metadata.remove("managedFields");
            }
        }
    }
    let single = matches!(targets, [Target::One { .. }]);
    if single && found.is_empty() {
        return Ok(step);
    }
    if *output == Output::Name {
        found.iter().for_each(|(resource, object)| print(&format!("{}\n", resource.of(&text(&object["metadata"]["name"])))));
        return Ok(step);
    }
    let mut all: Vec<Value> = found.into_iter().map(|(_, object)| object).collect();
    if let Some(path) = &args.sort_by {
        let mut rows: Vec<Value> = all.into_iter().map(|object| json!({"object": object})).collect();
        sort(&mut rows, path)?;
        all = rows.into_iter().map(|mut row| row["object"].take()).collect();
    }
    let value = if single {
        all.pop().unwrap_or_default()
    } else {
        json!({"apiVersion": "v1", "items": all, "kind": "List", "metadata": {"resourceVersion": ""}})
    };
    print(&format(&value, output)?);
    Ok(step)
}

/// A value, written as asked.
pub(super) fn format(value: &Value, output: &Output) -> Result<String, Failure> {
    match output {
        Output::Json => Ok(format!("{value:#}\n")),
        Output::Yaml => serde_saphyr::to_string(value).map_err(Failure::new),
        Output::JsonPath(template) => Ok(Template::parse(template).map_err(Failure::new)?.render(value)),
        Output::CustomColumns(spec) => custom_columns(value, spec),
        Output::Name | Output::Table { .. } => Ok(String::new()),
    }
}

/// `NAME:.metadata.name,PHASE:.status.phase`.
fn custom_columns(value: &Value, spec: &str) -> Result<String, Failure> {
    let mut header = Vec::new();
    let mut templates = Vec::new();
    for column in spec.split(',') {
        let (name, path) = column.split_once(':').ok_or_else(|| {
            Failure::new(format!("unexpected custom-columns spec: {column}, expected <header>:<json-path-expr>"))
        })?;
        header.push(name.to_owned());
        templates.push(Template::parse(path).map_err(Failure::new)?);
    }
    let items = match value["items"].as_array().filter(|_| value["kind"] == "List") {
        Some(items) => items.clone(),
        None => vec![value.clone()],
    };
    let cell = |template: &Template, item: &Value| match template.render(item) {
        empty if empty.is_empty() => "<none>".to_owned(),
        text => text,
    };
    let mut lines = vec![header];
    lines.extend(items.iter().map(|item| templates.iter().map(|template| cell(template, item)).collect()));
    Ok(columns(&lines))
}
