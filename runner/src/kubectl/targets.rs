//! Which objects a command is about: `pods`, `deploy/x`, `gateway,virtualservice`, `-f file`.

use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::Session;
use super::cli::Select;
use super::resources::Resource;
use super::rest::{self, Failure, JSON, with_query};

/// One thing that was named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    /// One object.
    One { resource: Resource, namespace: String, name: String },
    /// All of a kind, as far as they are selected.
    All(Resource),
}

impl Session {
    /// Reads `TYPE[,TYPE] [NAME…]`, `TYPE/NAME…` and `-f`.
    pub(super) fn targets(&self, what: &[String], select: &Select) -> Result<Vec<Target>, Failure> {
        if !select.filename.is_empty() {
            let objects = documents(&select.filename)?;
            return objects.iter().map(|object| self.target_of(object)).collect();
        }
        let Some(first) = what.first() else {
            return Err(Failure::new("you must name a type of resource, such as pods"));
        };
        let one = |resource: &Resource, name: &str| Target::One {
            resource: resource.clone(),
            namespace: self.namespace.clone(),
            name: name.to_owned(),
        };
        if first.contains('/') {
            let named = what.iter().map(|item| {
                let (kind, name) = item
                    .split_once('/')
                    .filter(|(_, name)| !name.is_empty())
                    .ok_or_else(|| Failure::new(format!("there is no need to specify a resource type as a separate argument when passing arguments in resource/name form (got {item:?})")))?;
                Ok(one(self.resources.find(kind)?, name))
            });
            return named.collect();
        }
        let mut kinds: Vec<&Resource> = Vec::new();
        for name in first.split(',').filter(|name| !name.is_empty()) {
            match self.resources.category(name) {
                category if category.is_empty() => kinds.push(self.resources.find(name)?),
                category => kinds.extend(category),
            }
        }
        if what.len() == 1 {
            return Ok(kinds.into_iter().map(|kind| Target::All(kind.clone())).collect());
        }
        Ok(kinds.iter().flat_map(|kind| what[1..].iter().map(|name| one(kind, name))).collect())
    }

    /// The object that a manifest speaks of.
    pub(super) fn target_of(&self, object: &Value) -> Result<Target, Failure> {
        let resource = self.kind_of(object)?.clone();
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        Ok(Target::One { resource, namespace: self.namespace_of(object)?, name })
    }

    /// The server's kind of a manifest.
    pub(super) fn kind_of(&self, object: &Value) -> Result<&Resource, Failure> {
        let text = |field: &str| {
            object[field].as_str().ok_or_else(|| Failure::new(format!("Object '{field}' is missing in {}", brief(object))))
        };
        let (api_version, kind) = (text("apiVersion")?, text("kind")?);
        self.resources.of_object(api_version, kind).ok_or_else(|| {
            let name = object["metadata"]["name"].as_str().unwrap_or_default();
            Failure::new(format!(
                "resource mapping not found for name: \"{name}\": no matches for kind \"{kind}\" in version \"{api_version}\"\nensure CRDs are installed first"
            ))
        })
    }

    /// Where a manifest's object goes: its own namespace, which `-n` must not contradict, or the current one.
    pub(super) fn namespace_of(&self, object: &Value) -> Result<String, Failure> {
        match (object["metadata"]["namespace"].as_str(), &self.asked_namespace) {
            (Some(own), Some(asked)) if own != asked => Err(Failure::new(format!(
                "the namespace from the provided object \"{own}\" does not match the namespace \"{asked}\". You must pass '--namespace={own}' to perform this operation."
            ))),
            (Some(own), _) => Ok(own.to_owned()),
            (None, _) => Ok(self.namespace.clone()),
        }
    }

    /// The objects that a target stands for, each with its kind.
    pub(super) async fn objects(&self, target: &Target, select: &Select) -> Result<Vec<(Resource, Value)>, Failure> {
        match target {
            Target::One { resource, namespace, name } => {
                let object = self.rest.get(&rest::path(resource, Some(namespace), Some(name)), JSON).await?;
                Ok(vec![(resource.clone(), object)])
            }
            Target::All(resource) => {
                let list = self.rest.get(&self.list_path(resource, select), JSON).await?;
                let items = list["items"].as_array().cloned().unwrap_or_default();
                Ok(items.into_iter().map(|item| (resource.clone(), typed(item, resource))).collect())
            }
        }
    }

    /// Where the selected objects of a kind are listed.
    pub(super) fn list_path(&self, resource: &Resource, select: &Select) -> String {
        let namespace = (!select.all_namespaces).then_some(self.namespace.as_str());
        let query = [("labelSelector", select.selector.as_str()), ("fieldSelector", select.field_selector.as_str())];
        with_query(&rest::path(resource, namespace, None), &query)
    }
}

/// Items of a list come without their type.
pub(super) fn typed(mut item: Value, resource: &Resource) -> Value {
    item["apiVersion"] = resource.api_version().into();
    item["kind"] = resource.kind.clone().into();
    item
}

fn brief(object: &Value) -> String {
    object.to_string().chars().take(120).collect()
}

/// A manifest is no larger than this; whatever is, is no manifest.
const MAX_FILE: u64 = 16 * 1024 * 1024;

/// The documents of files, of the YAML and JSON files of folders, and of standard input.
pub(super) fn documents(names: &[String]) -> Result<Vec<Value>, Failure> {
    let mut all = Vec::new();
    for name in names {
        if name == "-" {
            let mut text = String::new();
            std::io::stdin().take(MAX_FILE).read_to_string(&mut text).map_err(|error| Failure::new(format!("STDIN: {error}")))?;
            all.extend(parse("STDIN", &text)?);
            continue;
        }
        if name.starts_with("http://") || name.starts_with("https://") {
            return Err(Failure::new(format!("{name}: the built-in kubectl reads files only; download it first")));
        }
        for path in files(Path::new(name))? {
            let text = std::fs::read_to_string(&path).map_err(|error| missing(&path, &error))?;
            all.extend(parse(&path.display().to_string(), &text)?);
        }
    }
    if all.is_empty() {
        return Err(Failure::new("no objects passed to apply"));
    }
    Ok(all)
}

fn files(path: &Path) -> Result<Vec<PathBuf>, Failure> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let entries = std::fs::read_dir(path).map_err(|error| missing(path, &error))?;
    let mut files: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.retain(|file| matches!(file.extension().and_then(|e| e.to_str()), Some("yaml" | "yml" | "json")));
    files.sort();
    Ok(files)
}

fn missing(path: &Path, error: &std::io::Error) -> Failure {
    match error.kind() {
        std::io::ErrorKind::NotFound => Failure::new(format!("the path \"{}\" does not exist", path.display())),
        _ => Failure::new(format!("{}: {error}", path.display())),
    }
}

/// The objects of a YAML text; the items of a `List` are objects of their own.
fn parse(name: &str, text: &str) -> Result<Vec<Value>, Failure> {
    let documents =
        crate::apply::documents(name, text).map_err(|error| Failure::new(format!("error parsing {}", error.message)))?;
    let mut objects = Vec::new();
    for document in documents {
        match document["items"].as_array() {
            Some(items) if document["kind"].as_str().is_some_and(|kind| kind.ends_with("List")) => objects.extend(items.clone()),
            _ => objects.push(document),
        }
    }
    Ok(objects)
}

impl Target {
    /// Its kind.
    pub(super) fn resource(&self) -> &Resource {
        match self {
            Self::One { resource, .. } | Self::All(resource) => resource,
        }
    }
}
