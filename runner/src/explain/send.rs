//! Sending the request from where it is asked for: a client of the lab, or any pod that has curl.

use std::collections::BTreeMap;
use std::time::Instant;

use kube::Client;
use meshlab_checks::{Lab, Prober};
use meshlab_probe_protocol::{Failure, FailureKind, HttpRequest, Outcome};

use crate::error::{CommandError, Hint};
use crate::kubectl::{self, Session};

/// The client of a lab that stands for users outside.
const OUTSIDE: &str = "outside";

/// Where the ingress gateway is, for those who come from outside.
const GATEWAY: &str = "istio-ingressgateway.istio-system";

/// Who sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A client of the lab, by name.
    Client(String),
    /// A pod: namespace, and `NAME` or `TYPE/NAME`.
    Pod(String, String),
}

impl Origin {
    /// `outside`, another client of the lab, `[NAMESPACE/]POD` or `NAMESPACE/TYPE/NAME`.
    ///
    /// # Errors
    /// It is none of these.
    pub(crate) fn parse(text: &str, lab: &Lab) -> Result<Self, CommandError> {
        if lab.file.clients.contains_key(text) {
            return Ok(Self::Client(text.to_owned()));
        }
        let own = lab.file.namespaces.first().map_or("default", String::as_str);
        let (namespace, pod) = match text.split('/').collect::<Vec<_>>().as_slice() {
            [pod] if *pod != OUTSIDE => (own, (*pod).to_owned()),
            ["deploy" | "deployment" | "pod" | "svc" | "service", _] => (own, text.to_owned()),
            [namespace, pod] => (*namespace, (*pod).to_owned()),
            [namespace, kind, name] => (*namespace, format!("{kind}/{name}")),
            _ => {
                let known = lab.file.clients.keys().cloned().collect::<Vec<_>>().join(", ");
                return Err(CommandError::usage(format!("--from {text:?}: the lab has no such client"))
                    .with_hint(Hint::new(format!("clients: {known}; or a pod as NAMESPACE/POD or NAMESPACE/deploy/NAME"))));
            }
        };
        Ok(Self::Pod(namespace.to_owned(), pod))
    }

    /// How it is called in the explanation.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Client(name) => name.clone(),
            Self::Pod(namespace, pod) => format!("{namespace}/{pod}"),
        }
    }
}

pub(super) async fn send(client: &Client, lab: &Lab, from: &Origin, mut request: HttpRequest) -> Result<Outcome, CommandError> {
    match from {
        Origin::Client(name) => {
            if name == OUTSIDE {
                request.connect_to = through_gateway(&request.url)?;
            }
            let prober = Prober::new(client.clone(), lab.file.clients.clone());
            prober.send(name, &request).await.map_err(|error| {
                let hint = error.hint.clone().map(|hint| Hint::new(hint.en));
                let unmeasured = CommandError::unmeasured(error.message.en);
                hint.map_or(unmeasured.clone(), |hint| unmeasured.with_hint(hint))
            })
        }
        Origin::Pod(namespace, pod) => with_curl(client, namespace, pod, &request).await,
    }
}

/// A user outside finds the gateway behind every name of the outer world; names of the cluster stay what they are.
fn through_gateway(url: &str) -> Result<Option<String>, CommandError> {
    let url = check_url(url)?;
    let host = url.host_str().unwrap_or_default();
    let inside =
        host.ends_with(".svc.cluster.local") || host.ends_with(".istio-system") || host.parse::<std::net::IpAddr>().is_ok();
    let port = url.port_or_known_default().unwrap_or(80);
    Ok((!inside).then(|| format!("{GATEWAY}:{port}")))
}

/// Reads a URL of which only http and https are sent.
pub(crate) fn check_url(url: &str) -> Result<reqwest::Url, CommandError> {
    let parsed = reqwest::Url::parse(url).map_err(|error| CommandError::usage(format!("{url}: {error}")))?;
    if !matches!(parsed.scheme(), "http" | "https") || !parsed.has_host() {
        return Err(CommandError::usage(format!("{url}: an http:// or https:// URL is wanted")));
    }
    Ok(parsed)
}

/// Runs curl in the pod's own container.
async fn with_curl(client: &Client, namespace: &str, target: &str, request: &HttpRequest) -> Result<Outcome, CommandError> {
    let failed = |failure: kubectl::Failure| CommandError::failed(failure.to_string().trim_start_matches("error: ").to_owned());
    let session = Session::new(client.clone(), Some(namespace.to_owned())).await.map_err(failed)?;
    let pod = kubectl::pod_of(&session, target).await.map_err(failed)?;
    let (container, _) = pod.default_container();
    let seconds = request.timeout_ms.div_ceil(1000).to_string();
    let mut command: Vec<String> =
        ["curl", "-sSk", "-i", "--max-time", &seconds, "-X", &request.method].map(str::to_owned).to_vec();
    for (name, value) in &request.headers {
        command.extend(["-H".to_owned(), format!("{name}: {value}")]);
    }
    command.push(request.url.clone());
    let started = Instant::now();
    let captured = kubectl::capture(client.clone(), (namespace, &pod.name, &container), &command).await.map_err(|failure| {
        CommandError::unmeasured(format!(
            "{namespace}/{}, container {container}: {}",
            pod.name,
            failure.to_string().trim_start_matches("error: ")
        ))
        .with_hint(Hint::new("the container needs curl; clients of the lab need nothing: `--from outside`"))
    })?;
    let duration_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    if captured.code == 0 {
        return Ok(Outcome { duration_ms, ..answer(&captured.stdout) });
    }
    let kind = match captured.code {
        6 => FailureKind::Dns,
        7 => FailureKind::Refused,
        28 => FailureKind::Timeout,
        35 | 51 | 58 | 60 => FailureKind::Tls,
        52 | 55 | 56 => FailureKind::Reset,
        1 | 8 => FailureKind::Protocol,
        126 | 127 => {
            return Err(CommandError::unmeasured(format!("{namespace}/{}, container {container} has no curl", pod.name))
                .with_hint(Hint::new("send from a client of the lab instead: `--from outside`")));
        }
        _ => FailureKind::Connect,
    };
    let message = captured.stderr.trim().to_owned();
    Ok(Outcome { duration_ms, error: Some(Failure { kind, message }), ..nothing() })
}

fn nothing() -> Outcome {
    Outcome { status: None, headers: BTreeMap::new(), body: String::new(), duration_ms: 0, error: None, peer_names: Vec::new() }
}

/// Reads `curl -i`'s output: of several answers (100 Continue) the last.
fn answer(output: &[u8]) -> Outcome {
    let text = String::from_utf8_lossy(output);
    let mut rest: &str = &text;
    let mut outcome = nothing();
    while rest.starts_with("HTTP/") {
        let (head, body) = rest.split_once("\r\n\r\n").or_else(|| rest.split_once("\n\n")).unwrap_or((rest, ""));
        let mut lines = head.lines();
        outcome.status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok());
        outcome.headers = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.trim().to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        rest = body;
        if outcome.status.is_some_and(|status| status >= 200) {
            break;
        }
    }
    outcome.body = rest.to_owned();
    outcome
}
