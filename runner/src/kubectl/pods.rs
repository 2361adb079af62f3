//! From what was named to the pod that is meant.

use serde_json::Value;

use super::Session;
use super::cli::Select;
use super::get::labels;
use super::rest::{self, Failure, JSON};

/// A pod.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Pod {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) object: Value,
}

impl Pod {
    fn new(object: Value) -> Self {
        let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
        Self { namespace: text("namespace"), name: text("name"), object }
    }

    /// Names of its containers; of the init containers as well.
    pub(crate) fn containers(&self, init: bool) -> Vec<String> {
        let names = |field: &str| {
            let containers = self.object["spec"][field].as_array().into_iter().flatten();
            containers.filter_map(|container| container["name"].as_str().map(str::to_owned)).collect::<Vec<_>>()
        };
        let mut all = names("containers");
        if init {
            all.extend(names("initContainers"));
        }
        all
    }

    /// The container that is meant when none is named, and whether that had to be chosen among several.
    pub(crate) fn default_container(&self) -> (String, bool) {
        let all = self.containers(false);
        let annotated = self.object["metadata"]["annotations"]["kubectl.kubernetes.io/default-container"].as_str();
        let chosen = annotated.map(str::to_owned).filter(|name| all.contains(name)).or_else(|| all.first().cloned());
        (chosen.unwrap_or_default(), all.len() > 1 && annotated.is_none())
    }

    /// The container `wanted`, or the default; a choice among several is told to `say`.
    pub(super) fn container(&self, wanted: Option<&str>, say: impl Fn(String)) -> Result<String, Failure> {
        let all = self.containers(true);
        if let Some(wanted) = wanted {
            let known = all.iter().any(|name| name == wanted);
            return known.then(|| wanted.to_owned()).ok_or_else(|| {
                Failure::new(format!("container {wanted} is not valid for pod {}; it has {}", self.name, all.join(", ")))
            });
        }
        let (chosen, chose) = self.default_container();
        if chose {
            say(format!("Defaulted container \"{chosen}\" out of: {}\n", all.join(", ")));
        }
        Ok(chosen)
    }

    fn is_ready(&self) -> bool {
        let conditions = self.object["status"]["conditions"].as_array();
        let ready = conditions.is_some_and(|all| all.iter().any(|c| c["type"] == "Ready" && c["status"] == "True"));
        ready && self.object["metadata"]["deletionTimestamp"].is_null()
    }
}

/// The pod of `NAME` or `TYPE/NAME`: of a Service or a Deployment, one that is ready.
pub(crate) async fn pod_of(session: &Session, target: &str) -> Result<Pod, Failure> {
    let (kind, name) = target.split_once('/').unwrap_or(("pod", target));
    let resource = session.resources.find(kind)?;
    let object = session.rest.get(&rest::path(resource, Some(&session.namespace), Some(name)), JSON).await?;
    if resource.kind == "Pod" {
        return Ok(Pod::new(object));
    }
    let selector = match resource.kind.as_str() {
        "Service" => labels(&object["spec"]["selector"]),
        _ => selector(&object["spec"]["selector"])?,
    };
    if selector == "<none>" {
        return Err(Failure::new(format!("{target} selects no pods")));
    }
    let mut pods = pods(session, &selector).await?;
    let ready = pods.iter().position(Pod::is_ready);
    let place = ready.or_else(|| (!pods.is_empty()).then_some(0));
    place
        .map(|place| pods.swap_remove(place))
        .ok_or_else(|| Failure::new(format!("there are no pods of {target} in namespace {}", session.namespace)))
}

/// The pods with these labels, newest first.
pub(super) async fn pods(session: &Session, selector: &str) -> Result<Vec<Pod>, Failure> {
    let resource = session.resources.find("pods")?;
    let select = Select { selector: selector.to_owned(), ..Select::default() };
    let list = session.rest.get(&session.list_path(resource, &select), JSON).await?;
    let mut pods: Vec<Pod> = list["items"].as_array().cloned().unwrap_or_default().into_iter().map(Pod::new).collect();
    let created = |pod: &Pod| pod.object["metadata"]["creationTimestamp"].as_str().unwrap_or_default().to_owned();
    pods.sort_by_key(|pod| std::cmp::Reverse(created(pod)));
    Ok(pods)
}

/// A label selector as the API takes it in a query.
fn selector(selector: &Value) -> Result<String, Failure> {
    let mut parts = Vec::new();
    if let Some(matches) = selector["matchLabels"].as_object() {
        parts.extend(matches.iter().map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default())));
    }
    for expression in selector["matchExpressions"].as_array().into_iter().flatten() {
        let key = expression["key"].as_str().unwrap_or_default();
        let values: Vec<&str> = expression["values"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let values = values.join(",");
        parts.push(match expression["operator"].as_str() {
            Some("In") => format!("{key} in ({values})"),
            Some("NotIn") => format!("{key} notin ({values})"),
            Some("Exists") => key.to_owned(),
            Some("DoesNotExist") => format!("!{key}"),
            other => return Err(Failure::new(format!("selector operator {other:?}"))),
        });
    }
    if parts.is_empty() { Err(Failure::new("it has no pods of its own")) } else { Ok(parts.join(",")) }
}
