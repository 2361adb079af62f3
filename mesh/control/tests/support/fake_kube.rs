//! A Kubernetes API server that only stores, lists and watches, on a virtual network: enough for the mesh to run against the wire.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use meshlab_net::{Listener, Net};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// One object's place: `/api/v1` or `/apis/group/version`, plural, namespace, name.
type Place = (String, String, String, String);

struct Event {
    kind: &'static str,
    place: Place,
    object: Value,
}

/// The API server. Cloning yields the same one.
#[derive(Clone)]
pub(crate) struct FakeKube {
    state: Arc<Mutex<State>>,
    revision: Arc<watch::Sender<usize>>,
    /// PEM certificate that clients trust.
    pub(crate) ca: String,
    /// Where it listens.
    pub(crate) address: SocketAddr,
}

#[derive(Default)]
struct State {
    objects: BTreeMap<Place, Value>,
    events: Vec<Event>,
}

impl FakeKube {
    /// Starts to listen.
    pub(crate) async fn start<N: Net>(net: N, ip: IpAddr) -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(vec![ip.to_string()]).unwrap().self_signed(&key).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let mut config = builder.with_no_client_auth().with_single_cert(vec![certificate.der().clone()], private).unwrap();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let address = SocketAddr::new(ip, 6443);
        let mut listener = net.listen(address).await.unwrap();
        let this = Self { state: Arc::default(), revision: Arc::new(watch::channel(0).0), ca: certificate.pem(), address };
        let server = this.clone();
        tokio::spawn(async move {
            while let Ok(stream) = listener.accept().await {
                let (server, acceptor) = (server.clone(), acceptor.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let service = service_fn(move |request| {
                        let server = server.clone();
                        async move { Ok::<_, Infallible>(server.answer(request).await) }
                    });
                    let _ = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        this
    }

    /// Creates or replaces an object, as `kubectl apply` would.
    pub(crate) fn apply(&self, plural: &str, object: Value) {
        let api_version = object["apiVersion"].as_str().unwrap();
        let prefix = if api_version.contains('/') { format!("/apis/{api_version}") } else { format!("/api/{api_version}") };
        let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
        self.put((prefix, plural.to_owned(), text("namespace"), text("name")), object);
    }

    /// An object as it is now.
    pub(crate) fn get(&self, prefix: &str, plural: &str, namespace: &str, name: &str) -> Option<Value> {
        let place = (prefix.to_owned(), plural.to_owned(), namespace.to_owned(), name.to_owned());
        self.state.lock().unwrap().objects.get(&place).cloned()
    }

    /// Waits until `test` holds for the object.
    pub(crate) async fn wait(
        &self,
        prefix: &str,
        plural: &str,
        namespace: &str,
        name: &str,
        test: impl Fn(&Value) -> bool,
    ) -> Value {
        let mut revision = self.revision.subscribe();
        loop {
            revision.borrow_and_update();
            if let Some(object) = self.get(prefix, plural, namespace, name).filter(|object| test(object)) {
                return object;
            }
            revision.changed().await.unwrap();
        }
    }

    fn put(&self, place: Place, mut object: Value) -> Value {
        let mut state = self.state.lock().unwrap();
        let revision = state.events.len() + 1;
        object["metadata"]["resourceVersion"] = revision.to_string().into();
        let kind = if state.objects.insert(place.clone(), object.clone()).is_some() { "MODIFIED" } else { "ADDED" };
        state.events.push(Event { kind, place, object: object.clone() });
        self.revision.send_replace(revision);
        object
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let query: BTreeMap<String, String> = head
            .uri
            .query()
            .unwrap_or_default()
            .split('&')
            .filter_map(|pair| {
                let (name, value) = pair.split_once('=')?;
                Some((name.to_owned(), value.replace("%3D", "=").replace("%2F", "/")))
            })
            .collect();
        if head.uri.path().ends_with("/tokenreviews") {
            return review(&serde_json::from_slice(&body).unwrap());
        }
        let place = parse(head.uri.path());
        let named = !place.3.is_empty();
        match head.method {
            Method::GET if named => match self.state.lock().unwrap().objects.get(&place) {
                Some(object) => respond(StatusCode::OK, object),
                None => failure(404, "NotFound"),
            },
            Method::GET if query.get("watch").is_some_and(|watch| watch == "true" || watch == "1") => self.watch(place, query),
            Method::GET => self.list(&place, &query),
            Method::POST => {
                let object: Value = serde_json::from_slice(&body).unwrap();
                let name = object["metadata"]["name"].as_str().unwrap().to_owned();
                let place = (place.0, place.1, place.2.clone(), name);
                if self.state.lock().unwrap().objects.contains_key(&place) {
                    return failure(409, "AlreadyExists");
                }
                let mut object = object;
                object["metadata"]["namespace"] = place.2.clone().into();
                respond(StatusCode::CREATED, &self.put(place, object))
            }
            Method::PUT => respond(StatusCode::OK, &self.put(place, serde_json::from_slice(&body).unwrap())),
            Method::PATCH => {
                let had = self.state.lock().unwrap().objects.get(&place).cloned();
                let Some(mut object) = had else { return failure(404, "NotFound") };
                json_patch::merge(&mut object, &serde_json::from_slice(&body).unwrap());
                respond(StatusCode::OK, &self.put(place, object))
            }
            _ => failure(405, "MethodNotAllowed"),
        }
    }

    fn list(&self, place: &Place, query: &BTreeMap<String, String>) -> Response<Body> {
        let state = self.state.lock().unwrap();
        let items: Vec<_> =
            state.objects.iter().filter(|(at, object)| selected(place, query, at, object)).map(|(_, object)| object).collect();
        let revision = state.events.len().to_string();
        respond(
            StatusCode::OK,
            &json!({ "kind": "List", "apiVersion": "v1", "metadata": { "resourceVersion": revision }, "items": items }),
        )
    }

    fn watch(&self, place: Place, query: BTreeMap<String, String>) -> Response<Body> {
        let (this, mut revision) = (self.clone(), self.revision.subscribe());
        let mut next: usize = query.get("resourceVersion").and_then(|revision| revision.parse().ok()).unwrap_or(0);
        let (sender, receiver) = tokio::sync::mpsc::channel(64);
        tokio::spawn(async move {
            loop {
                revision.borrow_and_update();
                let lines: Vec<_> = {
                    let state = this.state.lock().unwrap();
                    let events =
                        state.events[next..].iter().filter(|event| selected(&place, &query, &event.place, &event.object));
                    let lines =
                        events.map(|event| format!("{}\n", json!({ "type": event.kind, "object": event.object }))).collect();
                    next = state.events.len();
                    lines
                };
                for line in lines {
                    if sender.send(Ok(Frame::data(Bytes::from(line)))).await.is_err() {
                        return;
                    }
                }
                tokio::select! {
                    changed = revision.changed() => if changed.is_err() { return },
                    () = sender.closed() => return,
                }
            }
        });
        Response::new(StreamBody::new(tokio_stream::wrappers::ReceiverStream::new(receiver)).boxed_unsync())
    }
}

fn selected(wanted: &Place, query: &BTreeMap<String, String>, at: &Place, object: &Value) -> bool {
    let same = wanted.0 == at.0 && wanted.1 == at.1 && (wanted.2.is_empty() || wanted.2 == at.2);
    let field = query.get("fieldSelector").and_then(|selector| selector.strip_prefix("metadata.name="));
    let label = query.get("labelSelector").and_then(|selector| selector.split_once('='));
    same && field.is_none_or(|name| at.3 == name) && label.is_none_or(|(name, value)| object["metadata"]["labels"][name] == value)
}

/// Takes a path apart; `/status` is the object itself.
fn parse(path: &str) -> Place {
    let parts: Vec<_> = path.trim_matches('/').split('/').collect();
    let (prefix, rest) = parts.split_at(if parts[0] == "api" { 2 } else { 3 });
    let rest = rest.strip_suffix(&["status"]).unwrap_or(rest);
    let (namespace, plural, name) = match rest {
        ["namespaces", namespace, plural, name] => (*namespace, *plural, *name),
        ["namespaces", namespace, plural] => (*namespace, *plural, ""),
        [plural, name] => ("", *plural, *name),
        [plural] => ("", *plural, ""),
        other => panic!("no path of the API: {other:?}"),
    };
    (format!("/{}", prefix.join("/")), plural.to_owned(), namespace.to_owned(), name.to_owned())
}

/// Accepts tokens of the form `token-of:<namespace>:<service account>`.
fn review(review: &Value) -> Response<Body> {
    let token = review["spec"]["token"].as_str().unwrap_or_default();
    let mut answer = review.clone();
    answer["status"] = match token.strip_prefix("token-of:") {
        Some(account) if review["spec"]["audiences"] == json!(["istio-ca"]) => {
            json!({ "authenticated": true, "user": { "username": format!("system:serviceaccount:{account}") } })
        }
        _ => json!({ "authenticated": false, "error": "invalid bearer token" }),
    };
    respond(StatusCode::CREATED, &answer)
}

fn failure(code: u16, reason: &str) -> Response<Body> {
    let status = json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": reason, "reason": reason, "code": code });
    respond(StatusCode::from_u16(code).unwrap(), &status)
}

fn respond(status: StatusCode, value: &Value) -> Response<Body> {
    let mut response = Response::new(Full::from(value.to_string()).boxed_unsync());
    *response.status_mut() = status;
    response
}
