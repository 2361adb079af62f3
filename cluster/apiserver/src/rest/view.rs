//! How a client sees objects: in its version, as JSON or YAML, as Tables or as metadata alone.

use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use jiff::Timestamp;
use meshlab_objects::Status;
use meshlab_objects::table::{Columns, IncludeObject, Row, Table};
use serde_json::{Value, json};

use super::chunks::list_body;
use super::{EVENTS_GROUP, to_version};
use crate::http::{Accept, Encoding, Representation, Response, json_answer, json_answer_of, yaml_or_json};
use crate::registry::Served;
use crate::route::Query;
use crate::store::Object;

/// A client's view of one resource.
pub(crate) struct View {
    served: Arc<Served>,
    version: String,
    accept: Accept,
    include: IncludeObject,
    columns: Option<Arc<Columns>>,
    /// Of the client's version.
    api_version: String,
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
        Ok(Self { version: version.into(), accept, include, columns, api_version: served.api_version(version), served })
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
    pub(crate) fn versioned(&self, object: &Object) -> Arc<Value> {
        if self.is_unchanged(object) {
            return object.value();
        }
        Arc::new(to_version(&object.value(), &self.served.definition, &self.version).into_owned())
    }

    fn is_unchanged(&self, object: &Object) -> bool {
        object.api_version() == self.api_version
    }

    /// One object as JSON, as metadata or whole.
    fn json(&self, object: &Object) -> Bytes {
        match self.accept.representation {
            Representation::Metadata => partial(&object.value()).to_string().into(),
            _ if self.is_stored_version() || self.is_unchanged(object) => object.json(),
            _ => self.versioned(object).to_string().into(),
        }
    }

    /// A Table of one object.
    fn table(&self, object: &Object, columns: &Columns, with_definitions: bool) -> String {
        let metadata = json!({"resourceVersion": object.revision.to_string()});
        let value = self.versioned(object);
        let row = Row::new(columns, &value, self.include, Timestamp::now());
        Table::new(metadata, with_definitions.then_some(columns), vec![row]).to_string()
    }

    /// Answers with one object.
    pub(crate) fn answer(&self, code: StatusCode, object: &Object) -> Response {
        match (self.accept.encoding, &self.columns) {
            (Encoding::Json, Some(columns)) => json_answer(code, self.table(object, columns, true)),
            (Encoding::Json, None) => json_answer(code, self.json(object)),
            (Encoding::Yaml, _) => match self.accept.representation {
                Representation::Metadata => yaml_or_json(code, self.accept, &partial(&object.value())),
                _ => yaml_or_json(code, self.accept, &self.versioned(object)),
            },
        }
    }

    /// Answers with a list.
    pub(crate) fn answer_list(self, metadata: Value, objects: Vec<Arc<Object>>) -> Response {
        if self.accept.encoding == Encoding::Yaml {
            return self.yaml_list(metadata, &objects);
        }
        let body = match self.columns.clone() {
            Some(columns) => {
                let now = Timestamp::now();
                list_body(Table::head(metadata, &columns), objects, move |chunk, object| {
                    let value = self.versioned(object);
                    let row = Row::new(&columns, &value, self.include, now);
                    // Neither memory nor JSON values can fail to be written.
                    let _ = serde_json::to_writer(chunk, &row);
                })
            }
            None => {
                let mut head = self.list_head(metadata).to_string();
                head.truncate(head.len() - "}".len());
                list_body(head + ",\"items\":[", objects, move |chunk, object| chunk.extend_from_slice(&self.json(object)))
            }
        };
        json_answer_of(StatusCode::OK, body)
    }

    /// A list but for its items.
    fn list_head(&self, metadata: Value) -> Value {
        match self.accept.representation {
            Representation::Metadata => {
                json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadataList", "metadata": metadata})
            }
            _ => json!({"apiVersion": self.api_version, "kind": self.served.definition.list_kind, "metadata": metadata}),
        }
    }

    /// A list in YAML, which has no Tables here. It is for a person's eyes, and so built as a whole.
    fn yaml_list(&self, metadata: Value, objects: &[Arc<Object>]) -> Response {
        let partial_list = self.accept.representation == Representation::Metadata;
        let item = |object: &Arc<Object>| {
            if partial_list { partial(&object.value()) } else { Arc::unwrap_or_clone(self.versioned(object)) }
        };
        let mut list = self.list_head(metadata);
        list["items"] = objects.iter().map(item).collect();
        yaml_or_json(StatusCode::OK, self.accept, &list)
    }

    /// The `object` of a watch event. Only the first Table of a stream carries the column definitions.
    pub(crate) fn event_object(&self, object: &Object, first: bool) -> Bytes {
        match &self.columns {
            Some(columns) => self.table(object, columns, first).into(),
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
            (Some(_), _) => return Table::new(metadata, None, Vec::new()).to_string().into(),
            (None, Representation::Metadata) => {
                json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata})
            }
            (None, _) => json!({"kind": self.served.definition.kind, "apiVersion": self.api_version, "metadata": metadata}),
        };
        value.to_string().into()
    }
}

fn partial(object: &Value) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"]})
}
