//! A `kube::Client` without a network.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::header::{HeaderValue, USER_AGENT};
use http_body_util::BodyExt;
use kube::client::Body as KubeBody;

use crate::api::Api;
use crate::auth::{Caller, UserInfo};
use crate::http::Response;

/// Hands requests to the router as they are.
#[derive(Clone)]
struct InProcess {
    api: Arc<Api>,
    user: UserInfo,
    /// Becomes the field manager of writes that name none.
    agent: String,
}

impl tower::Service<http::Request<KubeBody>> for InProcess {
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: http::Request<KubeBody>) -> Self::Future {
        if !request.headers().contains_key(USER_AGENT)
            && let Ok(agent) = HeaderValue::from_str(&self.agent)
        {
            request.headers_mut().insert(USER_AGENT, agent);
        }
        let request = request.map(|body| body.map_err(Into::into).boxed_unsync());
        let answer = self.api.clone().respond(Caller::InProcess(self.user.clone()), request);
        Box::pin(async move { Ok(answer.await) })
    }
}

/// A client that is this user. It cannot exec, attach or port-forward, which need a connection.
pub(crate) fn client(api: Arc<Api>, user: UserInfo) -> kube::Client {
    let agent = agent(&user.name);
    kube::Client::new(InProcess { api, user, agent }, "default")
}

/// The program that has this user on a real cluster.
fn agent(user: &str) -> String {
    match user.strip_prefix("system:") {
        Some(node) if node.starts_with("node:") => "kubelet".to_owned(),
        Some(component) if !component.contains(':') => component.to_owned(),
        _ => "meshlab".to_owned(),
    }
}
