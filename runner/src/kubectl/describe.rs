//! `kubectl describe`: an object in words, with its events. Pods, Deployments and Services have pages of their own; every other
//! kind is shown field by field, as kubectl shows kinds that it does not know.

use std::fmt::Write;

use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

use super::cli::{Describe, Select};
use super::get::labels;
use super::jsonpath::text;
use super::resources::Resource;
use super::rest::{self, Failure, JSON, with_query};
use super::table::columns;
use super::{Session, Step};
use crate::output::{complain, print};

pub(super) async fn run(session: &Session, args: &Describe) -> Result<Step, Failure> {
    let mut step = Step::Done;
    let mut first = true;
    for target in session.targets(&args.what, &args.select)? {
        let objects = match session.objects(&target, &args.select).await {
            Ok(objects) => objects,
            Err(failure) => {
                complain(&format!("{failure}\n"));
                step = Step::Failed;
                continue;
            }
        };
        if objects.is_empty() {
            complain(&format!("No resources found in {} namespace.\n", session.namespace));
        }
        for (resource, object) in objects {
            let events = events(session, &object).await?;
            let page = match resource.kind.as_str() {
                "Pod" => pod(&object),
                "Deployment" => deployment(&object),
                "Service" => service(session, &object).await?,
                _ => generic(&resource, &object),
            };
            let separator = if std::mem::take(&mut first) { "" } else { "\n\n" };
            print(&format!("{separator}{page}{}", events_text(&events)));
        }
    }
    Ok(step)
}

/// The events about an object, oldest first.
async fn events(session: &Session, object: &Value) -> Result<Vec<Value>, Failure> {
    let resource = session.resources.find("events")?;
    let uid = text(&object["metadata"]["uid"]);
    let namespace = object["metadata"]["namespace"].as_str().unwrap_or("default");
    let path = rest::path(resource, Some(namespace), None);
    let list = session.rest.get(&with_query(&path, &[("fieldSelector", &format!("involvedObject.uid={uid}"))]), JSON).await?;
    let mut events = list["items"].as_array().cloned().unwrap_or_default();
    events.sort_by_key(seen);
    Ok(events)
}

fn seen(event: &Value) -> String {
    let times = ["lastTimestamp", "eventTime", "firstTimestamp"].map(|field| &event[field]);
    times.into_iter().find(|time| time.is_string()).map(text).unwrap_or_default()
}

fn events_text(events: &[Value]) -> String {
    if events.is_empty() {
        return "Events:         <none>\n".to_owned();
    }
    let row = |cells: [&str; 5]| cells.map(str::to_owned).to_vec();
    let mut rows = vec![row(["Type", "Reason", "Age", "From", "Message"]), row(["----", "------", "----", "----", "-------"])];
    rows.extend(events.iter().map(|event| {
        let from = match text(&event["source"]["component"]) {
            empty if empty.is_empty() => text(&event["reportingComponent"]),
            component => component,
        };
        vec![text(&event["type"]), text(&event["reason"]), age(&seen(event)), from, text(&event["message"])]
    }));
    format!("Events:\n{}", indent(&columns(&rows), 2))
}

/// `5m`, `3h`, as kubectl shortens ages.
pub(super) fn age(time: &str) -> String {
    let Ok(then) = time.parse::<Timestamp>() else { return "<unknown>".to_owned() };
    let seconds = (Timestamp::now().as_second() - then.as_second()).max(0);
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

fn indent(text: &str, by: usize) -> String {
    text.lines().map(|line| format!("{:by$}{line}\n", "")).collect()
}

/// Lines of `Label:  value`, the values below each other.
struct Page {
    text: String,
    width: usize,
}

impl Page {
    fn new(width: usize) -> Self {
        Self { text: String::new(), width }
    }

    fn line(&mut self, label: &str, value: &str) -> &mut Self {
        let _ = writeln!(self.text, "{:<width$}{value}", format!("{label}:"), width = self.width);
        self
    }

    /// One value on each line, or `<none>`.
    fn list(&mut self, label: &str, values: &[String]) -> &mut Self {
        let (first, rest) = values.split_first().map_or(("<none>", &[][..]), |(first, rest)| (first.as_str(), rest));
        self.line(label, first);
        for value in rest {
            let _ = writeln!(self.text, "{:width$}{value}", "", width = self.width);
        }
        self
    }

    fn head(&mut self, object: &Value) -> &mut Self {
        let metadata = &object["metadata"];
        self.line("Name", &text(&metadata["name"]));
        if metadata["namespace"].is_string() {
            self.line("Namespace", &text(&metadata["namespace"]));
        }
        self
    }

    fn marks(&mut self, object: &Value) -> &mut Self {
        let metadata = &object["metadata"];
        self.list("Labels", &pairs(&metadata["labels"], "="));
        self.list("Annotations", &pairs(&metadata["annotations"], ": "))
    }
}

fn pairs(map: &Value, separator: &str) -> Vec<String> {
    let shown = |key: &str| key != "kubectl.kubernetes.io/last-applied-configuration";
    let pairs = map.as_object().into_iter().flatten().filter(|(key, _)| shown(key));
    pairs.map(|(key, value)| format!("{key}{separator}{}", text(value))).collect()
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn or_none(text: String) -> String {
    if text.is_empty() { "<none>".to_owned() } else { text }
}

fn pod(object: &Value) -> String {
    let (spec, status) = (&object["spec"], &object["status"]);
    let mut page = Page::new(18);
    page.head(object);
    page.line("Service Account", &text(&spec["serviceAccountName"]));
    page.line("Node", &format!("{}/{}", or_none(text(&spec["nodeName"])), text(&status["hostIP"])));
    page.line("Start Time", &text(&status["startTime"]));
    page.marks(object);
    let terminating = object["metadata"]["deletionTimestamp"].is_string();
    page.line("Status", if terminating { "Terminating" } else { status["phase"].as_str().unwrap_or_default() });
    for field in ["reason", "message"].into_iter().filter(|field| status[*field].is_string()) {
        page.line(if field == "reason" { "Reason" } else { "Message" }, &text(&status[field]));
    }
    page.line("IP", &text(&status["podIP"]));
    let owners: Vec<String> = items(&object["metadata"]["ownerReferences"])
        .iter()
        .filter(|owner| owner["controller"] == true)
        .map(|owner| format!("{}/{}", text(&owner["kind"]), text(&owner["name"])))
        .collect();
    if let Some(owner) = owners.first() {
        page.line("Controlled By", owner);
    }
    let mut out = page.text;
    for (title, containers, statuses) in
        [("Init Containers", "initContainers", "initContainerStatuses"), ("Containers", "containers", "containerStatuses")]
    {
        if items(&spec[containers]).is_empty() {
            continue;
        }
        let _ = writeln!(out, "{title}:");
        for container in items(&spec[containers]) {
            let state = items(&status[statuses]).iter().find(|state| state["name"] == container["name"]);
            out.push_str(&container_text(container, state.unwrap_or(&Value::Null)));
        }
    }
    let conditions = items(&status["conditions"]).iter().map(|c| vec![text(&c["type"]), text(&c["status"])]);
    let header = vec!["Type".to_owned(), "Status".to_owned()];
    let _ = write!(out, "Conditions:\n{}", indent(&columns(&std::iter::once(header).chain(conditions).collect::<Vec<_>>()), 2));
    out.push_str("Volumes:\n");
    for volume in items(&spec["volumes"]) {
        let kind = volume.as_object().into_iter().flatten().find(|(key, _)| *key != "name");
        let what = kind.map(|(kind, value)| {
            let name = ["name", "secretName"].iter().find_map(|field| value[*field].as_str());
            format!("{kind} {}", name.unwrap_or_default())
        });
        let _ = writeln!(out, "  {}: {}", text(&volume["name"]), what.unwrap_or_default().trim_end());
    }
    out
}

fn container_text(container: &Value, status: &Value) -> String {
    let mut page = Page::new(16);
    page.line("Image", &text(&container["image"]));
    let ports: Vec<String> = items(&container["ports"])
        .iter()
        .map(|port| format!("{}/{}", port["containerPort"], port["protocol"].as_str().unwrap_or("TCP")))
        .collect();
    page.line("Ports", &or_none(ports.join(", ")));
    for (label, field) in [("Command", "command"), ("Args", "args")] {
        let words: Vec<String> = items(&container[field]).iter().map(text).collect();
        if !words.is_empty() {
            page.list(label, &words);
        }
    }
    state(&mut page, "State", &status["state"]);
    if status["lastState"].as_object().is_some_and(|state| !state.is_empty()) {
        state(&mut page, "Last State", &status["lastState"]);
    }
    page.line("Ready", if status["ready"] == true { "True" } else { "False" });
    page.line("Restart Count", &status["restartCount"].as_i64().unwrap_or(0).to_string());
    for (label, field) in [("Liveness", "livenessProbe"), ("Readiness", "readinessProbe"), ("Startup", "startupProbe")] {
        if let Some(probe) = container[field].as_object() {
            page.line(label, &probe_text(&Value::Object(probe.clone())));
        }
    }
    let environment: Vec<String> = items(&container["env"])
        .iter()
        .map(|variable| match variable["value"].as_str() {
            Some(value) => format!("{}: {value}", text(&variable["name"])),
            None => format!("{}: (from {})", text(&variable["name"]), variable["valueFrom"]),
        })
        .collect();
    page.list("Environment", &environment);
    let mounts: Vec<String> = items(&container["volumeMounts"])
        .iter()
        .map(|mount| {
            let access = if mount["readOnly"] == true { "ro" } else { "rw" };
            format!("{} from {} ({access})", text(&mount["mountPath"]), text(&mount["name"]))
        })
        .collect();
    page.list("Mounts", &mounts);
    format!("  {}:\n{}", text(&container["name"]), indent(&page.text, 4))
}

/// `Running`, `Waiting` or `Terminated`, and what is known of it.
fn state(page: &mut Page, label: &str, state: &Value) {
    let Some((kind, details)) = state.as_object().and_then(|state| state.iter().next()) else {
        page.line(label, "Waiting");
        return;
    };
    page.line(label, &heading(kind));
    for (label, field) in [
        ("  Reason", "reason"),
        ("  Message", "message"),
        ("  Exit Code", "exitCode"),
        ("  Started", "startedAt"),
        ("  Finished", "finishedAt"),
    ] {
        if !details[field].is_null() {
            page.line(label, &text(&details[field]));
        }
    }
}

fn probe_text(probe: &Value) -> String {
    let how = if let Some(get) = probe["httpGet"].as_object() {
        let field = |name: &str| get.get(name).map(text).unwrap_or_default();
        format!("http-get {}://:{}{}", or_http(field("scheme")), field("port"), field("path"))
    } else if probe["tcpSocket"].is_object() {
        format!("tcp-socket :{}", text(&probe["tcpSocket"]["port"]))
    } else if probe["exec"].is_object() {
        format!("exec {}", probe["exec"]["command"])
    } else {
        format!("grpc <pod>:{}", text(&probe["grpc"]["port"]))
    };
    let number = |field: &str, default: i64| probe[field].as_i64().unwrap_or(default);
    format!(
        "{how} delay={}s timeout={}s period={}s #success={} #failure={}",
        number("initialDelaySeconds", 0),
        number("timeoutSeconds", 1),
        number("periodSeconds", 10),
        number("successThreshold", 1),
        number("failureThreshold", 3),
    )
}

fn or_http(scheme: String) -> String {
    if scheme.is_empty() { "http".to_owned() } else { scheme.to_lowercase() }
}

fn deployment(object: &Value) -> String {
    let (spec, status) = (&object["spec"], &object["status"]);
    let mut page = Page::new(24);
    page.head(object).line("CreationTimestamp", &text(&object["metadata"]["creationTimestamp"])).marks(object);
    page.line("Selector", &labels(&spec["selector"]["matchLabels"]));
    let of = |field: &str| status[field].as_i64().unwrap_or(0);
    let counts = format!(
        "{} desired | {} updated | {} total | {} available | {} unavailable",
        spec["replicas"].as_i64().unwrap_or(1),
        of("updatedReplicas"),
        of("replicas"),
        of("availableReplicas"),
        of("unavailableReplicas")
    );
    page.line("Replicas", &counts).line("StrategyType", &text(&spec["strategy"]["type"]));
    let mut out = page.text;
    let template = &spec["template"];
    let mut page = Page::new(18);
    page.list("Labels", &pairs(&template["metadata"]["labels"], "="));
    page.list("Annotations", &pairs(&template["metadata"]["annotations"], ": "));
    page.line("Service Account", &or_none(text(&template["spec"]["serviceAccountName"])));
    let _ = write!(out, "Pod Template:\n{}  Containers:\n", indent(&page.text, 2));
    for container in items(&template["spec"]["containers"]) {
        let mut page = Page::new(16);
        page.line("Image", &text(&container["image"]));
        let environment: Vec<String> = items(&container["env"])
            .iter()
            .map(|variable| format!("{}: {}", text(&variable["name"]), text(&variable["value"])))
            .collect();
        page.list("Environment", &environment);
        let _ = write!(out, "   {}:\n{}", text(&container["name"]), indent(&page.text, 4));
    }
    let rows = items(&status["conditions"]).iter().map(|c| vec![text(&c["type"]), text(&c["status"]), text(&c["reason"])]);
    let header = ["Type", "Status", "Reason"].map(str::to_owned).to_vec();
    let _ = write!(out, "Conditions:\n{}", indent(&columns(&std::iter::once(header).chain(rows).collect::<Vec<_>>()), 2));
    out
}

async fn service(session: &Session, object: &Value) -> Result<String, Failure> {
    let spec = &object["spec"];
    let mut page = Page::new(26);
    page.head(object).marks(object).line("Selector", &labels(&spec["selector"])).line("Type", &text(&spec["type"]));
    page.line("IP", &text(&spec["clusterIP"]));
    let ingress: Vec<String> = items(&object["status"]["loadBalancer"]["ingress"])
        .iter()
        .filter_map(|entry| entry["ip"].as_str().or(entry["hostname"].as_str()).map(str::to_owned))
        .collect();
    if !ingress.is_empty() {
        page.line("LoadBalancer Ingress", &ingress.join(", "));
    }
    let slices = session.resources.find("endpointslices.discovery.k8s.io")?;
    let select =
        Select { selector: format!("kubernetes.io/service-name={}", text(&object["metadata"]["name"])), ..Select::default() };
    let namespace = object["metadata"]["namespace"].as_str();
    let path = with_query(&rest::path(slices, namespace, None), &[("labelSelector", &select.selector)]);
    let slices = session.rest.get(&path, JSON).await?;
    for port in items(&spec["ports"]) {
        let protocol = port["protocol"].as_str().unwrap_or("TCP");
        let name = port["name"].as_str().unwrap_or("<unset>");
        page.line("Port", &format!("{name}  {}/{protocol}", port["port"]));
        page.line("TargetPort", &format!("{}/{protocol}", text(&port["targetPort"])));
        if port["nodePort"].is_number() {
            page.line("NodePort", &format!("{name}  {}/{protocol}", port["nodePort"]));
        }
        page.line("Endpoints", &endpoints(&slices, port));
    }
    page.line("Session Affinity", spec["sessionAffinity"].as_str().unwrap_or("None"));
    Ok(page.text)
}

/// `10.244.0.3:8080,10.244.0.4:8080`, of ready pods.
fn endpoints(slices: &Value, port: &Value) -> String {
    let mut all = Vec::new();
    for slice in items(&slices["items"]) {
        let number =
            items(&slice["ports"]).iter().find(|own| own["name"].as_str().unwrap_or("") == port["name"].as_str().unwrap_or(""));
        let Some(number) = number.and_then(|own| own["port"].as_u64()) else { continue };
        for endpoint in items(&slice["endpoints"]).iter().filter(|endpoint| endpoint["conditions"]["ready"] != false) {
            all.extend(items(&endpoint["addresses"]).iter().map(|address| format!("{}:{number}", text(address))));
        }
    }
    or_none(all.join(","))
}

/// Field by field.
fn generic(resource: &Resource, object: &Value) -> String {
    let mut page = Page::new(14);
    page.head(object).marks(object).line("API Version", &resource.api_version()).line("Kind", &resource.kind);
    let mut out = page.text;
    for (key, value) in object.as_object().into_iter().flatten() {
        if matches!(key.as_str(), "apiVersion" | "kind") {
            continue;
        }
        let mut value = value.clone();
        if let Some(metadata) = value.as_object_mut().filter(|_| key == "metadata") {
            for shown in ["name", "namespace", "labels", "annotations", "managedFields"] {
                metadata.remove(shown);
            }
        }
        // A Secret's content is not for the screen.
        if resource.kind == "Secret" && key == "data" {
            for content in value.as_object_mut().into_iter().flat_map(|data| data.values_mut()) {
                *content = format!("{} characters of base64", content.as_str().map_or(0, str::len)).into();
            }
        }
        field(&mut out, key, &value, 0);
    }
    out
}

/// Maps whose keys are the user's own words.
const OWN_KEYS: [&str; 3] = ["data", "binaryData", "stringData"];

fn field(out: &mut String, key: &str, value: &Value, depth: usize) {
    let label = format!("{:width$}{}:", "", heading(key), width = depth * 2);
    match value {
        Value::Object(fields) if OWN_KEYS.contains(&key) && fields.values().all(Value::is_string) => {
            let _ = writeln!(out, "{label}");
            for (key, value) in fields {
                let _ = writeln!(out, "{:width$}{key}:  {}", "", text(value), width = depth * 2 + 2);
            }
        }
        Value::Object(fields) => {
            let _ = writeln!(out, "{label}");
            fields.iter().for_each(|(key, value)| field(out, key, value, depth + 1));
        }
        Value::Array(items) => {
            let _ = writeln!(out, "{label}");
            for item in items {
                match item {
                    Value::Object(fields) => fields.iter().for_each(|(key, value)| field(out, key, value, depth + 1)),
                    other => {
                        let _ = writeln!(out, "{:width$}{}", "", text(other), width = depth * 2 + 2);
                    }
                }
            }
        }
        other => {
            let _ = writeln!(out, "{label}  {}", text(other));
        }
    }
}

/// `creationTimestamp` → `Creation Timestamp`; what is no plain word (a label, a file name) stays as it is.
fn heading(key: &str) -> String {
    if !key.chars().all(|c| c.is_ascii_alphanumeric()) {
        return key.to_owned();
    }
    let mut words = String::new();
    let mut before = '\0';
    for character in key.chars() {
        if words.is_empty() {
            words.push(character.to_ascii_uppercase());
        } else {
            if character.is_ascii_uppercase() && before.is_ascii_lowercase() {
                words.push(' ');
            }
            words.push(character);
        }
        before = character;
    }
    words
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn kinds_without_a_page_are_shown_field_by_field() {
        let resource = Resource::for_test("networking.istio.io", "v1", "Gateway");
        let gateway = json!({
            "apiVersion": "networking.istio.io/v1", "kind": "Gateway",
            "metadata": {"name": "webapp-gateway", "namespace": "webapp", "creationTimestamp": "2026-11-22T00:00:00Z"},
            "spec": {"selector": {"istio": "ingressgateway"}, "servers": [{"hosts": ["webapp.istio.local"], "port": {"number": 80}}]},
        });
        insta::assert_snapshot!(generic(&resource, &gateway) + &events_text(&[]), @r"
        Name:         webapp-gateway
        Namespace:    webapp
        Labels:       <none>
        Annotations:  <none>
        API Version:  networking.istio.io/v1
        Kind:         Gateway
        Metadata:
          Creation Timestamp:  2026-11-22T00:00:00Z
        Spec:
          Selector:
            Istio:  ingressgateway
          Servers:
            Hosts:
              webapp.istio.local
            Port:
              Number:  80
        Events:         <none>
        ");
    }
}
