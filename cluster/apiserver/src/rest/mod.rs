//! Objects over HTTP: reading, watching, and the one pipeline all writes go through.

mod chunks;
mod convert;
mod delete;
mod isolate;
mod list;
pub(crate) mod meta;
mod mutate;
mod patch;
mod view;
mod watch;

use std::sync::Arc;

use http::header::{CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, StatusCode};
use meshlab_objects::resource::Verb;
use meshlab_objects::{Reason, Status};

pub(crate) use convert::{EVENTS_GROUP, to_version};
pub(crate) use delete::DeleteOptions;
pub(crate) use isolate::{CRD_CLEANUP, complete_crd};
pub(crate) use meta::FieldValidation;
pub(crate) use mutate::{Mutation, WriteOptions, Written};
pub(crate) use patch::Patch;
pub(crate) use view::View;

use crate::api::Api;
use crate::auth::UserInfo;
use crate::http::{Accept, Response, warn};
use crate::registry::{Served, ServedVersion};
use crate::route::{Query, ResourcePath};
use crate::store::{Key, Object};

/// A request to a resource, routed and authorized.
pub(crate) struct Call {
    pub(crate) api: Arc<Api>,
    pub(crate) user: UserInfo,
    pub(crate) served: Arc<Served>,
    pub(crate) path: ResourcePath,
    pub(crate) query: Query,
    pub(crate) headers: HeaderMap,
    pub(crate) accept: Accept,
}

impl Call {
    /// Where the object of this call is stored.
    pub(crate) fn key(&self) -> Key {
        Key::new(self.namespace(), &self.path.name)
    }

    /// The namespace of the object; empty for what is not in one.
    pub(crate) fn namespace(&self) -> &str {
        if self.served.definition.namespaced { &self.path.namespace } else { "" }
    }

    /// The version that was asked for; the router has found it.
    pub(crate) fn version(&self) -> Result<&ServedVersion, Status> {
        let missing = || Status::new(Reason::NotFound, "the server could not find the requested resource");
        self.served.version(&self.path.version).ok_or_else(missing)
    }

    /// The object of this call as it is stored.
    ///
    /// # Errors
    /// 404 in Kubernetes' words.
    pub(crate) fn stored(&self) -> Result<Arc<Object>, Status> {
        self.api.store.get(&self.served.id, &self.key()).ok_or_else(|| self.not_found())
    }

    /// 404 for the object of this call.
    pub(crate) fn not_found(&self) -> Status {
        Status::not_found(&self.served.definition.group, &self.served.definition.plural, &self.path.name)
    }

    /// The content type of the body.
    pub(crate) fn content_type(&self) -> &str {
        self.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// How this call wants objects to be shown.
    pub(crate) fn view(&self) -> Result<View, Status> {
        View::new(self.served.clone(), &self.path.version, self.accept, &self.query)
    }

    /// The options all writes share.
    pub(crate) fn write_options(&self) -> Result<WriteOptions, Status> {
        let dry_run = match self.query.get("dryRun") {
            "" => false,
            "All" => true,
            other => {
                let cause = meta::invalid_option("dryRun", other, &["All"]);
                return Err(Status::invalid("meta.k8s.io", "CreateOptions", "", vec![cause]));
            }
        };
        Ok(WriteOptions {
            user: self.user.clone(),
            version: self.path.version.clone(),
            subresource: self.path.subresource.clone(),
            dry_run,
            validation: FieldValidation::parse(self.query.get("fieldValidation"))?,
            manager: meta::field_manager(self.query.get("fieldManager"), self.headers.get(USER_AGENT))?,
        })
    }

    /// Answers with one object.
    pub(crate) fn answer(&self, code: StatusCode, written: &Written) -> Result<Response, Status> {
        let mut response = self.view()?.answer(code, &written.object);
        warn(&mut response, &written.warnings);
        if let Some(deprecation) = &self.version()?.deprecation {
            warn(&mut response, std::slice::from_ref(deprecation));
        }
        Ok(response)
    }

    /// GET of one object.
    pub(crate) fn get(&self) -> Result<Response, Status> {
        let stored = self.stored()?;
        Ok(self.view()?.answer(StatusCode::OK, &stored))
    }

    /// Everything that is done to the resource itself and to its `status`.
    pub(crate) async fn dispatch(self, verb: &'static str, body: crate::http::Body) -> Result<Response, Status> {
        self.check_verb(verb)?;
        match verb {
            "get" => self.get(),
            "list" => self.list(),
            "watch" => self.watch(),
            "delete" => self.delete(body).await,
            "deletecollection" => self.delete_collection(body).await,
            "create" => {
                let decoded = self.decode_object(body).await?;
                let options = self.write_options()?;
                let written = self.api.create(&self.served, self.namespace(), decoded, &options).await?;
                self.answer(StatusCode::CREATED, &written)
            }
            "update" => {
                let decoded = self.decode_object(body).await?;
                self.update(decoded).await
            }
            "patch" => self.patch(body).await,
            other => Err(Status::new(Reason::MethodNotAllowed, format!("{other} is not supported"))),
        }
    }

    async fn update(&self, decoded: meta::Body) -> Result<Response, Status> {
        let options = self.write_options()?;
        let existing = self.api.store.get(&self.served.id, &self.key());
        if existing.is_none() && self.path.subresource.is_empty() && meta::can_create_on_update(&self.served.definition) {
            let written = self.api.create(&self.served, self.namespace(), decoded, &options).await?;
            return self.answer(StatusCode::CREATED, &written);
        }
        let written = self.api.modify(&self.served, &self.key(), &Mutation::Replace(decoded), &options).await?;
        self.answer(StatusCode::OK, &written)
    }

    fn check_verb(&self, verb: &str) -> Result<(), Status> {
        let known =
            [Verb::Create, Verb::Delete, Verb::DeleteCollection, Verb::Get, Verb::List, Verb::Patch, Verb::Update, Verb::Watch];
        let definition = &self.served.definition;
        let allowed =
            known.into_iter().find(|known| known.as_str() == verb).is_some_and(|verb| match self.path.subresource.as_str() {
                "" => definition.can(verb),
                name => definition.subresource(name).is_some_and(|subresource| subresource.verbs.contains(&verb)),
            });
        if allowed {
            return Ok(());
        }
        let message = "the server does not allow this method on the requested resource";
        Err(Status::new(Reason::MethodNotAllowed, message))
    }
}

#[cfg(test)]
mod tests;
