//! Parts of an object that are not the object: scale, eviction, tokens, logs, streams, proxying.

mod binding;
mod eviction;
mod log;
mod proxy;
mod scale;
mod stream;
mod token;

use futures::FutureExt;
use http::request::Parts;
use meshlab_objects::{Reason, Status};

pub(crate) use binding::bind_by_body;

use crate::api::Upgrade;
use crate::http::{Body, Response};
use crate::rest::Call;

/// Answers a request to a subresource.
pub(crate) async fn answer(call: Call, verb: &str, parts: Parts, upgrade: Upgrade, body: Body) -> Result<Response, Status> {
    let definition = &call.served.definition;
    if definition.subresource(&call.path.subresource).is_none() {
        return Err(Status::new(Reason::NotFound, "the server could not find the requested resource"));
    }
    match (call.path.subresource.as_str(), verb) {
        ("scale", "get") => scale::get(&call),
        ("scale", "update") => scale::update(&call, body).boxed().await,
        ("scale", "patch") => scale::patch(&call, body).boxed().await,
        ("eviction", "create") => eviction::evict(&call, body).boxed().await,
        ("token", "create") => token::issue(&call, body).boxed().await,
        ("binding", "create") => binding::bind(&call, body).boxed().await,
        ("log", "get") => log::read(&call).boxed().await,
        ("exec" | "attach", "get" | "create") => stream::exec(&call, parts, upgrade).boxed().await,
        ("portforward", "get" | "create") => stream::port_forward(&call, parts, upgrade).boxed().await,
        ("proxy", _) => proxy::forward(call, parts, upgrade, body).boxed().await,
        _ => {
            let message = "the server does not allow this method on the requested resource";
            Err(Status::new(Reason::MethodNotAllowed, message))
        }
    }
}
