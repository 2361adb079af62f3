//! GET of a collection.

use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use meshlab_objects::selector::{FieldSelector, LabelSelector};
use meshlab_objects::{Cause, CauseReason, Reason, Status};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Call;
use super::convert::{EVENTS_GROUP, event_from_core};
use crate::http::Response;
use crate::registry::Served;
use crate::route::Query;
use crate::store::{Expired, Key, Listing, Object};

/// Which objects a client wants.
#[derive(Debug, Clone, Default)]
pub(super) struct Selection {
    labels: LabelSelector,
    fields: FieldSelector,
    /// `metadata.name`, where the path has it.
    name: Option<String>,
    /// Nothing is left out.
    all: bool,
    /// Field selectors name the fields of `events.k8s.io`, which are not those that are stored.
    events: bool,
}

impl Selection {
    /// # Errors
    /// 400 for a malformed selector.
    pub(super) fn parse(served: &Served, version: &str, query: &Query) -> Result<Self, Status> {
        let (labels, fields) = (query.get("labelSelector"), query.get("fieldSelector"));
        let selectable = served.version(version).map(|version| version.selectable_fields.as_slice()).unwrap_or_default();
        let labels = if labels.is_empty() { None } else { Some(LabelSelector::parse(labels)?) };
        let fields = match fields {
            "" => None,
            text => Some(FieldSelector::parse(&served.definition.kind_in(version), selectable, text)?),
        };
        let all = labels.as_ref().is_none_or(LabelSelector::is_empty) && fields.as_ref().is_none_or(FieldSelector::is_empty);
        let events = served.definition.group == EVENTS_GROUP;
        Ok(Self { labels: labels.unwrap_or_default(), fields: fields.unwrap_or_default(), name: None, all, events })
    }

    /// Only the object of this name.
    pub(super) fn named(mut self, name: &str) -> Self {
        if !name.is_empty() {
            (self.name, self.all) = (Some(name.to_owned()), false);
        }
        self
    }

    pub(super) fn is_all(&self) -> bool {
        self.all
    }

    pub(super) fn matches(&self, object: &Object) -> bool {
        self.all
            || (self.name.as_deref().is_none_or(|name| object.key.name() == name)
                && (self.labels.is_empty() || self.labels.matches(object.value()["metadata"].get("labels")))
                && (self.fields.is_empty() || self.fields_match(object)))
    }

    fn fields_match(&self, object: &Object) -> bool {
        let value = object.value();
        if self.events { self.fields.matches(&event_from_core(&value)) } else { self.fields.matches(&value) }
    }

    /// The one object this can be about, for a look-up instead of a scan.
    fn only(&self) -> Option<&str> {
        self.name.as_deref().or_else(|| self.fields.name())
    }
}

/// The place where the next chunk begins.
#[derive(Serialize, Deserialize)]
struct Continue {
    /// Revision of the list.
    rv: u64,
    /// The last key that was handed out.
    after: String,
}

impl Continue {
    fn parse(token: &str) -> Result<Self, Status> {
        let parse = || serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(token).ok()?).ok();
        parse().ok_or_else(|| Status::bad_request("continue key is not valid: it is none that this server handed out"))
    }

    fn token(&self) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(json!(self).to_string())
    }
}

/// What the client wants to know about the age of the data.
pub(super) struct Revision {
    pub(super) requested: Option<u64>,
    pub(super) matching: Match,
}

/// `resourceVersionMatch`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Match {
    Unset,
    Exact,
    NotOlderThan,
}

impl Revision {
    /// # Errors
    /// 400 and 422, in Kubernetes' words.
    pub(super) fn parse(query: &Query) -> Result<Self, Status> {
        let text = query.get("resourceVersion");
        let requested = match text {
            "" => None,
            _ => Some(text.parse().map_err(|_| {
                Status::bad_request(format!(
                    "invalid resource version {text:?}: strconv.ParseUint: parsing {text:?}: invalid syntax"
                ))
            })?),
        };
        let matching = match query.get("resourceVersionMatch") {
            "" => Match::Unset,
            "Exact" => Match::Exact,
            "NotOlderThan" => Match::NotOlderThan,
            other => {
                return Err(invalid_list_options(super::meta::invalid_option(
                    "resourceVersionMatch",
                    other,
                    &["Exact", "NotOlderThan", ""],
                )));
            }
        };
        Ok(Self { requested, matching })
    }
}

pub(super) fn forbidden_option(field: &str, why: &str) -> Status {
    invalid_list_options(Cause {
        reason: CauseReason::FieldValueForbidden,
        message: format!("Forbidden: {why}"),
        field: field.into(),
    })
}

fn invalid_list_options(cause: Cause) -> Status {
    Status::invalid("meta.k8s.io", "ListOptions", "", vec![cause])
}

/// 504 for a revision of the future.
pub(super) fn too_large(requested: u64, current: u64) -> Status {
    let mut status = Status::new(Reason::Timeout, format!("Too large resource version: {requested}, current: {current}"));
    status.retry_after_seconds = Some(1);
    status
}

/// 410 for a revision of the past.
pub(super) fn expired(expired: Expired) -> Status {
    Status::new(Reason::Expired, format!("too old resource version: {} ({})", expired.requested, expired.oldest))
}

impl Call {
    pub(super) fn selection(&self) -> Result<Selection, Status> {
        Ok(Selection::parse(&self.served, &self.path.version, &self.query)?.named(&self.path.name))
    }

    /// The namespace to list; `None` for all.
    pub(super) fn scope(&self) -> Option<&str> {
        Some(self.namespace()).filter(|namespace| !namespace.is_empty())
    }

    pub(super) fn list(&self) -> Result<Response, Status> {
        let selection = self.selection()?;
        let limit = self.query.number("limit")?.and_then(|limit| usize::try_from(limit).ok()).filter(|limit| *limit > 0);
        if self.query.optional_flag("sendInitialEvents").is_some() {
            return Err(forbidden_option("sendInitialEvents", "sendInitialEvents is forbidden for list"));
        }
        let (listing, after) = self.listing(&selection, limit.is_some())?;
        let mut selected: Vec<Arc<Object>> = listing.objects;
        if let Some(after) = &after {
            selected.retain(|object| object.key.as_str() > after.as_str());
        }
        selected.retain(|object| selection.matches(object));
        let mut metadata = json!({"resourceVersion": listing.revision.to_string()});
        if let Some(limit) = limit
            && selected.len() > limit
        {
            let remaining = selected.len() - limit;
            selected.truncate(limit);
            if let Some(last) = selected.last() {
                let token = Continue { rv: listing.revision, after: last.key.as_str().to_owned() };
                metadata["continue"] = Value::String(token.token());
            }
            // With a selector a real server does not know, and clients rely on the field's absence.
            if selection.is_all() {
                metadata["remainingItemCount"] = json!(remaining);
            }
        }
        Ok(self.view()?.answer_list(metadata, selected))
    }

    fn listing(&self, selection: &Selection, limited: bool) -> Result<(Listing, Option<String>), Status> {
        let store = &self.api.store;
        let revision = Revision::parse(&self.query)?;
        let token = self.query.get("continue");
        if revision.requested.is_none() && revision.matching != Match::Unset {
            return Err(forbidden_option(
                "resourceVersionMatch",
                "resourceVersionMatch is forbidden unless resourceVersion is provided",
            ));
        }
        if !token.is_empty() {
            if revision.matching != Match::Unset {
                let why = "resourceVersionMatch is forbidden when continue is provided";
                return Err(forbidden_option("resourceVersionMatch", why));
            }
            if revision.requested.is_some_and(|requested| requested != 0) {
                return Err(Status::bad_request("specifying resource version is not allowed when using continue"));
            }
            let token = Continue::parse(token)?;
            let too_old = "The provided continue parameter is too old to display a consistent list result. \
                           You must start a new list without the continue parameter.";
            let listing = store.list_at(&self.served.id, self.scope(), token.rv.min(store.revision()));
            return Ok((listing.map_err(|_| Status::new(Reason::Expired, too_old))?, Some(token.after)));
        }
        let current = store.revision();
        match (revision.requested, revision.matching) {
            (Some(0), Match::Exact) => {
                let why = "resourceVersionMatch \"Exact\" is forbidden for resourceVersion \"0\"";
                return Err(forbidden_option("resourceVersionMatch", why));
            }
            (Some(requested), _) if requested > current => return Err(too_large(requested, current)),
            (Some(requested), matching) if matching == Match::Exact || (matching == Match::Unset && limited && requested > 0) => {
                return Ok((store.list_at(&self.served.id, self.scope(), requested).map_err(expired)?, None));
            }
            _ => {}
        }
        if let (Some(name), true) = (selection.only(), self.scope().is_some() || !self.served.definition.namespaced) {
            let revision = store.revision();
            let object = store.get(&self.served.id, &Key::new(self.namespace(), name));
            return Ok((Listing { revision, objects: object.into_iter().collect() }, None));
        }
        Ok((store.list(&self.served.id, self.scope()), None))
    }
}
