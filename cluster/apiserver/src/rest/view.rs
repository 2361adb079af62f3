//! How a client sees objects: in its version, as JSON or YAML, as Tables or as metadata alone.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use jiff::Timestamp;
use meshlab_objects::Status;
use meshlab_objects::table::{Columns, IncludeObject, row, table};
use serde_json::{Value, json};

use super::{EVENTS_GROUP, to_version};
use crate::http::{Accept, Encoding, Representation, Response, json_answer, yaml_or_json};
use crate::registry::Served;
use crate::route::Query;
use crate::store::Object;

/// A client's view of one resource.
pub(crate) struct View {
    served: Arc<Served>,
    version: String,
    accept: Accept,
    include: IncludeObject,
    columns: Option<Columns>,
}

impl View {
    /// # Errors
    /// 400 for an unknown `includeObject`.
    pub(crate) fn new(served: Arc<Served>, version: &str, accept: Accept, query: &Query) -> Result<Self, Status> {
        let include = match query.get("includeObject") {
            "" | "Metadata" => IncludeObject::Metadata,
            "None" => IncludeObject::None,
            "Object" => IncludeObject::Object,
            other => return Err(Status::bad_request(format!("unrecognized includeObject value: {other:?}"))),
        };
        let columns = (accept.representation == Representation::Table).then(|| served.columns(version));
        Ok(Self { version: version.into(), accept, include, columns, served })
    }

    /// The stored bytes are what this client wants to see.
    pub(crate) fn is_plain(&self) -> bool {
        self.accept == Accept::JSON && self.is_stored_version()
    }

    fn is_stored_version(&self) -> bool {
        self.served.definition.storage_version == self.version
            && self.served.custom.is_none()
            && self.served.definition.group != EVENTS_GROUP
    }

    /// The object in the client's version.
    pub(crate) fn versioned<'a>(&self, object: &'a Object) -> Cow<'a, Value> {
        to_version(&object.value, &self.served.definition, &self.version)
    }

    /// One object as JSON, as metadata or whole.
    fn json(&self, object: &Object) -> Bytes {
        let unchanged = || object.value["apiVersion"].as_str() == Some(&self.served.api_version(&self.version));
        match self.accept.representation {
            Representation::Metadata => partial(&object.value).to_string().into(),
            _ if self.is_stored_version() || unchanged() => object.json(),
            _ => self.versioned(object).to_string().into(),
        }
    }

    /// Answers with one object.
    pub(crate) fn answer(&self, code: StatusCode, object: &Object) -> Response {
        match (self.accept.encoding, &self.columns) {
            (Encoding::Json, Some(columns)) => {
                let metadata = json!({"resourceVersion": object.revision.to_string()});
                let rows = vec![row(columns, &self.versioned(object), self.include, Timestamp::now())];
                json_answer(code, table(metadata, Some(columns), rows).to_string())
            }
            (Encoding::Json, None) => json_answer(code, self.json(object)),
            (Encoding::Yaml, _) => match self.accept.representation {
                Representation::Metadata => yaml_or_json(code, self.accept, &partial(&object.value)),
                _ => yaml_or_json(code, self.accept, &self.versioned(object)),
            },
        }
    }

    /// Answers with a list.
    pub(crate) fn answer_list(&self, metadata: Value, objects: &[Arc<Object>]) -> Response {
        if let Some(columns) = &self.columns {
            let now = Timestamp::now();
            let rows = objects.iter().map(|object| row(columns, &self.versioned(object), self.include, now)).collect();
            return yaml_or_json(StatusCode::OK, self.accept, &table(metadata, Some(columns), rows));
        }
        let partial_list = self.accept.representation == Representation::Metadata;
        let (kind, api_version) = if partial_list {
            ("PartialObjectMetadataList", "meta.k8s.io/v1".to_owned())
        } else {
            (self.served.definition.list_kind.as_str(), self.served.api_version(&self.version))
        };
        let head = json!({"apiVersion": api_version, "kind": kind, "metadata": metadata});
        if self.accept.encoding == Encoding::Yaml {
            let items = objects
                .iter()
                .map(|object| if partial_list { partial(&object.value) } else { self.versioned(object).into_owned() });
            let mut list = head;
            list["items"] = items.collect();
            return yaml_or_json(StatusCode::OK, self.accept, &list);
        }
        let items: Vec<Bytes> = objects.iter().map(|object| self.json(object)).collect();
        let mut text = head.to_string().into_bytes();
        text.pop();
        text.reserve(items.iter().map(|item| item.len() + 1).sum::<usize>() + 16);
        text.extend_from_slice(b",\"items\":[");
        for (index, item) in items.iter().enumerate() {
            if index > 0 {
                text.push(b',');
            }
            text.extend_from_slice(item);
        }
        text.extend_from_slice(b"]}");
        json_answer(StatusCode::OK, text)
    }

    /// The `object` of a watch event. Only the first Table of a stream carries the column definitions.
    pub(crate) fn event_object(&self, object: &Object, first: bool) -> Bytes {
        match &self.columns {
            Some(columns) => {
                let metadata = json!({"resourceVersion": object.revision.to_string()});
                let rows = vec![row(columns, &self.versioned(object), self.include, Timestamp::now())];
                table(metadata, first.then_some(columns), rows).to_string().into()
            }
            None => self.json(object),
        }
    }

    /// The `object` of a bookmark.
    pub(crate) fn bookmark(&self, revision: u64, initial_events_end: bool) -> Bytes {
        let mut metadata = json!({"creationTimestamp": null, "resourceVersion": revision.to_string()});
        if initial_events_end {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let value = match (&self.columns, self.accept.representation) {
            (Some(_), _) => table(metadata, None, Vec::new()),
            (None, Representation::Metadata) => {
                json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata})
            }
            (None, _) => {
                let api_version = self.served.api_version(&self.version);
                json!({"kind": self.served.definition.kind, "apiVersion": api_version, "metadata": metadata})
            }
        };
        value.to_string().into()
    }
}

fn partial(object: &Value) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"]})
}
