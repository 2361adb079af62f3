//! From a request to an answer.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::FutureExt;
use http::request::Parts;
use http::{Method, StatusCode};
use meshlab_net::VirtualNet;
use meshlab_objects::{Reason, Status};
use parking_lot::RwLock;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admission::Webhooks;
use crate::auth::{self, Action, Authorizer, Caller, Tokens, UserInfo};
use crate::http::{Accept, Body, Request, Response, error_answer, json_answer, pretty};
use crate::metrics::Metrics;
use crate::node::SharedNodeAgent;
use crate::registry::{Registry, Served};
use crate::rest::{Call, DeleteOptions, FieldValidation, WriteOptions, meta};
use crate::route::{self, Query, ResourcePath, Route};
use crate::store::{GroupResource, Object, Store};
use crate::{discovery, subresource};

/// One cluster's API.
pub(crate) struct Api {
    pub(crate) store: Store,
    registry: RwLock<Arc<Registry>>,
    pub(crate) tokens: Tokens,
    /// Bearer tokens that were set when the server was started.
    pub(crate) static_tokens: HashMap<String, UserInfo>,
    pub(crate) authorizer: Authorizer,
    pub(crate) webhooks: Webhooks,
    pub(crate) network: VirtualNet,
    node: RwLock<Option<SharedNodeAgent>>,
    /// Held while a Service is given its address.
    pub(crate) service_addresses: Arc<Mutex<()>>,
    pub(crate) metrics: Metrics,
    pub(crate) stop: CancellationToken,
    /// What goes on behind the requests' backs.
    pub(crate) tasks: TaskTracker,
}

/// Headers of upgrades travel with the request.
pub(crate) type Upgrade = Option<hyper::upgrade::OnUpgrade>;

impl Api {
    pub(crate) fn new(store: Store, tokens: Tokens, static_tokens: HashMap<String, UserInfo>, network: VirtualNet) -> Arc<Self> {
        let api = Arc::new(Self {
            store,
            registry: RwLock::new(Registry::builtin()),
            tokens,
            static_tokens,
            authorizer: Authorizer::default(),
            webhooks: Webhooks::default(),
            network,
            node: RwLock::new(None),
            service_addresses: Arc::default(),
            metrics: Metrics::default(),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        });
        api.reload_crds();
        api
    }

    /// What is served now.
    pub(crate) fn registry(&self) -> Arc<Registry> {
        self.registry.read().clone()
    }

    pub(crate) fn set_node_agent(&self, agent: SharedNodeAgent) {
        *self.node.write() = Some(agent);
    }

    /// The node.
    ///
    /// # Errors
    /// 503 while there is none.
    pub(crate) fn node_agent(&self) -> Result<SharedNodeAgent, Status> {
        let none = || Status::new(Reason::ServiceUnavailable, "no node is ready to serve this request");
        self.node.read().clone().ok_or_else(none)
    }

    fn reload_crds(&self) {
        let mut registry = self.registry.write();
        let crds = self.store.list(&GroupResource::new("apiextensions.k8s.io", "customresourcedefinitions"), None).objects;
        *registry = Registry::with_crds(&registry, &crds);
    }

    /// Whatever a write has to lead to at once.
    pub(crate) fn after_write(&self, served: &Served, _object: &Object) {
        if served.definition.group == "apiextensions.k8s.io" && served.definition.plural == "customresourcedefinitions" {
            self.reload_crds();
        }
    }

    /// The options of a write by the server itself.
    pub(crate) fn own_write(&self, served: &Served) -> WriteOptions {
        WriteOptions {
            user: UserInfo::apiserver(),
            version: served.definition.storage_version.clone(),
            subresource: String::new(),
            dry_run: false,
            validation: FieldValidation::Ignore,
            manager: "kube-apiserver".into(),
        }
    }

    /// Deletes as the server itself.
    pub(crate) async fn delete_as_server(&self, served: &Arc<Served>, object: &Object) -> Result<(), Status> {
        let options = DeleteOptions::default();
        match self.delete_object(served, &object.key, &options, &self.own_write(served)).await {
            Ok(_) => Ok(()),
            Err(status) if status.reason == Reason::NotFound => Ok(()),
            Err(status) => Err(status),
        }
    }

    /// Answers a request. Never fails and never panics: what goes wrong is in the answer.
    pub(crate) async fn respond(self: Arc<Self>, caller: Caller, request: Request) -> Response {
        let method = request.method().clone();
        let pretty = pretty::is_wanted(request.uri().query().unwrap_or_default(), request.headers());
        let api = self.clone();
        let answered = AssertUnwindSafe(api.answer(caller, request)).catch_unwind().await;
        let response = match answered {
            Ok(Ok(response)) => response,
            Ok(Err(status)) => error_answer(&status),
            Err(_) => error_answer(&Status::internal("a bug in this server; its log has the details")),
        };
        self.metrics.count(&method, response.status());
        if pretty { pretty::indent(response).await } else { response }
    }

    async fn answer(self: Arc<Self>, caller: Caller, request: Request) -> Result<Response, Status> {
        let (mut parts, body) = request.into_parts();
        let user = self.authenticate(&caller, &parts.headers)?;
        let user = self.impersonate(user, &parts.headers)?;
        let query = Query::parse(parts.uri.query().unwrap_or_default());
        match Route::parse(parts.uri.path())? {
            Route::Other => {
                self.authorize_path(&user, &parts)?;
                discovery::answer(&self, &parts, &query)
            }
            Route::Resource(path) => {
                let upgrade = parts.extensions.remove::<hyper::upgrade::OnUpgrade>();
                self.answer_resource(user, path, query, parts, upgrade, body).await
            }
        }
    }

    fn authorize_path(&self, user: &UserInfo, parts: &Parts) -> Result<(), Status> {
        let verb = match parts.method {
            Method::GET | Method::HEAD => "get",
            Method::POST => "post",
            Method::PUT => "put",
            Method::PATCH => "patch",
            Method::DELETE => "delete",
            _ => "unknown",
        };
        let action = Action { verb: verb.into(), path: Some(parts.uri.path().to_owned()), ..Action::default() };
        if self.authorizer.decide(&self.store, user, &action).allowed { Ok(()) } else { Err(action.refusal(user)) }
    }

    async fn answer_resource(
        self: Arc<Self>,
        user: UserInfo,
        path: ResourcePath,
        query: Query,
        parts: Parts,
        upgrade: Upgrade,
        body: Body,
    ) -> Result<Response, Status> {
        let verb = route::verb(&parts.method, &path, &query)?;
        let action = Action {
            verb: verb.into(),
            group: path.group.clone(),
            version: path.version.clone(),
            resource: path.resource.clone(),
            subresource: path.subresource.clone(),
            namespace: path.namespace.clone(),
            name: path.name.clone(),
            path: None,
        };
        if !self.authorizer.decide(&self.store, &user, &action).allowed {
            return Err(action.refusal(&user));
        }
        let missing = || Status::new(Reason::NotFound, "the server could not find the requested resource");
        let served = self.registry().find(&path.group, &path.version, &path.resource).cloned().ok_or_else(missing)?;
        let scoped = path.resource == "namespaces" && path.group.is_empty();
        if !served.definition.namespaced && !path.namespace.is_empty() && !scoped {
            return Err(missing());
        }
        if served.definition.namespaced && path.namespace.is_empty() && !path.name.is_empty() {
            return Err(missing());
        }
        // What is streamed or proxied is not negotiated.
        let raw = matches!(path.subresource.as_str(), "log" | "exec" | "attach" | "portforward" | "proxy");
        let accept = if raw { Accept::JSON } else { Accept::parse(&parts.headers)? };
        let reviews = auth::is_review(&path.group, &path.resource);
        let call = Call { api: self, user, served, path, query, headers: parts.headers.clone(), accept };
        let answered = match call.path.subresource.as_str() {
            "" if reviews => auth::review(&call, verb, body).await,
            "" if call.path.resource == "bindings" && call.path.group.is_empty() => subresource::bind_by_body(&call, body).await,
            "" | "status" | "finalize" | "ephemeralcontainers" | "resize" => call.dispatch(verb, body).await,
            _ => subresource::answer(call, verb, parts, upgrade, body).await,
        };
        answered.map(|mut response| {
            if raw || verb == "watch" {
                response.extensions_mut().insert(pretty::Verbatim);
            }
            response
        })
    }

    /// Puts an object into an empty store.
    pub(crate) async fn seed(&self, group: &str, plural: &str, value: serde_json::Value) -> Result<(), Status> {
        let served = self.registry().need(group, plural)?;
        let namespace = meta::meta(&value, "namespace").to_owned();
        let body = meta::Body { value, strict_errors: Vec::new() };
        match self.create(&served, &namespace, body, &self.own_write(&served)).await {
            Ok(_) => Ok(()),
            Err(status) if status.reason == Reason::AlreadyExists => Ok(()),
            Err(status) => Err(status),
        }
    }
}

/// The answer of `/healthz` and its like.
pub(crate) fn healthy() -> Response {
    crate::http::text_answer(StatusCode::OK, "ok")
}

/// A value as a JSON answer.
pub(crate) fn json(value: &serde_json::Value) -> Response {
    json_answer(StatusCode::OK, value.to_string())
}
