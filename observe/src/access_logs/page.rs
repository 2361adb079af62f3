//! The tail of the access logs as a page.

use std::collections::BTreeSet;
use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use http::{HeaderMap, StatusCode};
use minijinja::{Value, context};
use serde::Serialize;
use url::form_urlencoded;

use super::entry::{Direction, Entry};
use super::flags::{FLAGS, details, flag};
use super::{Filter, Found, tail};
use crate::graph::PRODUCT;
use crate::inventory::Inventory;
use crate::pages::{Language, Page, Query, live, measured, parameter, part, value};

/// Time from one update to the next.
const LIVE: Duration = Duration::from_secs(3);

#[derive(Serialize)]
struct Row {
    key: String,
    time: String,
    workload: String,
    namespace: String,
    pod: String,
    direction: &'static str,
    /// Who is at the other end.
    peer: String,
    request: String,
    authority: String,
    code: String,
    /// Class of the style sheet.
    class: &'static str,
    flags: Vec<ExplainedFlag>,
    explained: Vec<&'static str>,
    duration: String,
    fields: Vec<(String, String)>,
    line: String,
}

#[derive(Serialize)]
struct ExplainedFlag {
    short: String,
    long: &'static str,
    meaning: &'static str,
}

impl Filter {
    fn of(query: &Query) -> Self {
        let text = |name: &str| parameter(query, name).unwrap_or_default().chars().take(200).collect();
        Self { namespace: text("namespace"), workload: text("workload"), errors: text("only") == "errors", text: text("text") }
    }
}

pub(crate) async fn page(State(client): State<kube::Client>, query: Query, headers: HeaderMap) -> Response {
    let page = Page::new(&PRODUCT, "logs.html", "../", &query, &headers);
    let filter = Filter::of(&query);
    let inventory = match Inventory::look(&client).await {
        Ok(inventory) => inventory,
        Err(message) => return page.error(StatusCode::SERVICE_UNAVAILABLE, &message),
    };
    let proxied = || inventory.pods.iter().filter(|pod| pod.proxied);
    let namespaces: BTreeSet<&str> = proxied().map(|pod| pod.namespace.as_str()).collect();
    let in_namespace = |namespace: &str| filter.namespace.is_empty() || namespace == filter.namespace;
    let workloads: BTreeSet<&str> =
        proxied().filter(|pod| in_namespace(&pod.namespace)).map(|pod| pod.workload.as_str()).collect();
    let parameters = form_urlencoded::Serializer::new(String::new())
        .append_pair("namespace", &filter.namespace)
        .append_pair("workload", &filter.workload)
        .append_pair("only", if filter.errors { "errors" } else { "" })
        .append_pair("text", &filter.text)
        .append_pair("lang", page.language.code())
        .finish();
    let explained = |flag: &super::flags::Flag| (flag.short, flag.long, flag.meaning(page.language));
    let found = content(&tail(&client, &inventory, &filter).await, &inventory, page.language);
    page.render(context! {
        namespaces => value(namespaces), workloads => value(workloads), namespace => filter.namespace, workload => filter.workload,
        errors => filter.errors, text => filter.text, live => format!("logs/live?{parameters}"),
        glossary => value(FLAGS.iter().map(explained).collect::<Vec<_>>()),
        ..found
    })
}

pub(crate) async fn updates(State(client): State<kube::Client>, query: Query, headers: HeaderMap) -> Response {
    let (language, filter) = (Language::of(&query, &headers), Filter::of(&query));
    live(LIVE, move || {
        let (client, filter) = (client.clone(), filter.clone());
        async move {
            let inventory = Inventory::look(&client).await?;
            part("logs_part.html", "../", language, content(&tail(&client, &inventory, &filter).await, &inventory, language))
        }
    })
}

fn content(found: &Found, inventory: &Inventory, language: Language) -> Value {
    let rows: Vec<_> = found.entries.iter().map(|entry| row(entry, inventory, language)).collect();
    context! {
        rows => value(rows), read => found.read, unread => found.unread, others => found.others, older => found.older,
        failed => value(&found.failed),
    }
}

fn row(entry: &Entry, inventory: &Inventory, language: Language) -> Row {
    let code = entry.code();
    let flags: Vec<_> = entry
        .flags()
        .into_iter()
        .map(|short| {
            let known = flag(&short);
            let meaning = known.map_or(language.text("unknown_flag"), |flag| flag.meaning(language));
            ExplainedFlag { long: known.map_or("", |flag| flag.long), meaning, short }
        })
        .collect();
    let mut explained: Vec<&'static str> = flags.iter().map(|flag| flag.meaning).collect();
    explained.extend(details(&entry.get("response_code_details"), code, language));
    let request = if entry.is_http() {
        format!("{} {}", entry.get("method"), entry.get("path"))
    } else {
        format!("TCP {}", entry.get("downstream_local_address"))
    };
    let identity = entry.get("request_id");
    Row {
        key: format!("{}{}{}{identity}", entry.time, entry.pod, entry.get("upstream_cluster")),
        time: clock(&entry.time),
        workload: entry.workload.clone(),
        namespace: entry.namespace.clone(),
        pod: entry.pod.clone(),
        direction: match entry.direction() {
            Direction::Inbound => "in",
            Direction::Outbound => "out",
            Direction::Unknown => "",
        },
        peer: peer(entry, inventory),
        request,
        authority: entry.get("authority"),
        code: match code {
            0 if entry.is_http() => "0".to_owned(),
            0 => String::new(),
            code => code.to_string(),
        },
        class: match code {
            500.. => "bad",
            0 if entry.is_http() => "bad",
            400..500 => "warn",
            _ if !entry.flags().is_empty() => "warn",
            _ => "good",
        },
        flags,
        explained,
        duration: entry.get("duration").parse().map(|millis: f64| measured(millis, "ms")).unwrap_or_default(),
        fields: entry.fields(),
        line: entry.line.clone(),
    }
}

/// `2026-11-22T22:34:02.175Z` as `22:34:02.175`; what is not a time, as it is.
fn clock(time: &str) -> String {
    match time.parse::<jiff::Timestamp>() {
        Ok(time) => time.strftime("%H:%M:%S%.3f").to_string(),
        Err(_) => time.chars().take(40).collect(),
    }
}

/// Who is at the other end of the request: the workload with the caller's address, or the service that was called.
fn peer(entry: &Entry, inventory: &Inventory) -> String {
    let cluster = entry.get("upstream_cluster");
    match entry.direction() {
        Direction::Outbound => {
            let parts: Vec<&str> = cluster.split([';', '|']).collect();
            let [_, _, subset, host, ..] = parts[..] else { return cluster };
            format!("{} {subset}", host.split('.').next().unwrap_or(host)).trim_end().to_owned()
        }
        _ => {
            let address = entry.get("downstream_remote_address");
            let host = address.rsplit_once(':').map_or(address.as_str(), |(host, _)| host);
            inventory.at(host).unwrap_or(host).to_owned()
        }
    }
}
