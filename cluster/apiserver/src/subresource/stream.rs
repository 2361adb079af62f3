//! `pods/exec`, `pods/attach` and `pods/portforward`: the streaming protocols on one side, the node on the other.

use http::request::Parts;
use hyper_util::rt::TokioIo;
use meshlab_objects::{Reason, Status};
use meshlab_streams::{Outcome, PortForwardUpgrade, ProcessStreams, RemoteCommandUpgrade, UpgradeError, WantedStreams};
use serde_json::json;

use super::log::choose_container;
use crate::admission::{Attributes, Operation};
use crate::api::Upgrade;
use crate::http::{Response, full};
use crate::node::{ExecOptions, PodRef};
use crate::rest::Call;

fn pod_ref(call: &Call) -> PodRef {
    PodRef { namespace: call.namespace().to_owned(), name: call.path.name.clone() }
}

fn refused(error: &UpgradeError) -> Response {
    let mut response = Response::new(full(error.to_string()));
    *response.status_mut() = error.status();
    response.headers_mut().extend(error.headers());
    response
}

/// An upgrade needs a connection of its own, which HTTP/2 and calls within the process do not have.
fn connection(upgrade: Upgrade) -> Result<hyper::upgrade::OnUpgrade, Status> {
    upgrade.ok_or_else(|| Status::bad_request("Upgrade request required: streams need an HTTP/1.1 connection"))
}

async fn admit(call: &Call) -> Result<(), Status> {
    let pod = call.stored()?;
    let mut attributes = Attributes {
        operation: Operation::Connect,
        served: call.served.clone(),
        version: call.path.version.clone(),
        subresource: call.path.subresource.clone(),
        key: pod.key.clone(),
        user: call.user.clone(),
        dry_run: false,
        old: None,
        options: json!({}),
        warnings: Vec::new(),
    };
    call.api.validate_admission(&mut attributes, &pod.value()).await
}

/// exec and attach.
pub(super) async fn exec(call: &Call, parts: Parts, upgrade: Upgrade) -> Result<Response, Status> {
    let pod = call.stored()?;
    let query = &call.query;
    let attach = call.path.subresource == "attach";
    let tty = query.flag("tty");
    let options = ExecOptions {
        container: choose_container(&pod.value(), query.get("container"))?,
        command: query.all("command").map(str::to_owned).collect(),
        stdin: query.flag("stdin"),
        stdout: query.optional_flag("stdout").unwrap_or(attach),
        stderr: query.optional_flag("stderr").unwrap_or(attach) && !tty,
        tty,
    };
    if options.command.is_empty() && !attach {
        return Err(Status::bad_request("you must specify at least one command for the container"));
    }
    if !options.stdin && !options.stdout && !options.stderr {
        return Err(Status::bad_request("you must specify at least one of stdin, stdout, stderr"));
    }
    admit(call).await?;
    let connection = connection(upgrade)?;
    let request = http::Request::from_parts(parts, ());
    let negotiated = match RemoteCommandUpgrade::negotiate(&request) {
        Ok(negotiated) => negotiated,
        Err(error) => return Ok(refused(&error)),
    };
    // Asked for before the answer, so that what is refused at once is a plain Status.
    let node = call.api.node_agent()?;
    let response = negotiated.response::<http_body_util::Empty<bytes::Bytes>>().map(|_| full(""));
    let pod = pod_ref(call);
    let stop = call.api.stop.clone();
    let wanted = WantedStreams { stdin: options.stdin, stdout: options.stdout, stderr: options.stderr, tty };
    let session = async move {
        let io = match connection.await {
            Ok(upgraded) => TokioIo::new(upgraded),
            Err(error) => return tracing::debug!(%error, "the client did not upgrade"),
        };
        let command = match negotiated.start(io, wanted).await {
            Ok(command) => command,
            Err(error) => return tracing::debug!(%error, "a remote command's streams did not come up"),
        };
        let started = if attach { node.attach(&pod, options).await } else { node.exec(&pod, options).await };
        let session = match started {
            Ok(session) => session,
            Err(status) => {
                let reason = serde_json::to_value(status.reason).ok().and_then(|reason| reason.as_str().map(str::to_owned));
                let outcome = Outcome::Failed { message: status.message, reason: reason.unwrap_or_default(), code: status.code };
                return command.finish(outcome).await;
            }
        };
        let process = ProcessStreams {
            stdin: session.stdin.map(|writer| writer as meshlab_streams::BoxWriter),
            stdout: session.stdout.map(|reader| reader as meshlab_streams::BoxReader),
            stderr: session.stderr.map(|reader| reader as meshlab_streams::BoxReader),
            resize: session.resize,
        };
        let exit = async {
            match session.exit.await {
                Ok(code) => Outcome::Exited(code),
                Err(_) => Outcome::internal("the node lost the process"),
            }
        };
        if let Err(error) = command.run(process, exit).await {
            tracing::debug!(%error, "a remote command's client went away");
        }
    };
    spawn(call, async move {
        tokio::select! {
            () = session => {}
            () = stop.cancelled() => {}
        }
    });
    Ok(response)
}

fn spawn(call: &Call, session: impl Future<Output = ()> + Send + 'static) {
    call.api.tasks.spawn(session);
}

/// port-forward.
pub(super) async fn port_forward(call: &Call, parts: Parts, upgrade: Upgrade) -> Result<Response, Status> {
    let pod = call.stored()?;
    let pod = pod.value();
    if !matches!(pod["status"]["phase"].as_str(), Some("Running")) {
        let phase = pod["status"]["phase"].as_str().unwrap_or("Unknown");
        let message = format!("unable to forward port because pod is not running. Current status={phase}");
        return Err(Status::new(Reason::BadRequest, message));
    }
    admit(call).await?;
    let connection = connection(upgrade)?;
    let request = http::Request::from_parts(parts, ());
    let negotiated = match PortForwardUpgrade::negotiate(&request) {
        Ok(negotiated) => negotiated,
        Err(error) => return Ok(refused(&error)),
    };
    let node = call.api.node_agent()?;
    let response = negotiated.response::<http_body_util::Empty<bytes::Bytes>>().map(|_| full(""));
    let pod = pod_ref(call);
    let stop = call.api.stop.clone();
    let session = async move {
        let io = match connection.await {
            Ok(upgraded) => TokioIo::new(upgraded),
            Err(error) => return tracing::debug!(%error, "the client did not upgrade"),
        };
        let forward = negotiated.start(io).await;
        let connect = |port| {
            let (node, pod) = (node.clone(), pod.clone());
            async move {
                let (reader, writer) = node.port_forward(&pod, port).await.map_err(|status| status.message)?;
                Ok((reader as meshlab_streams::BoxReader, writer as meshlab_streams::BoxWriter))
            }
        };
        forward.run(connect).await;
    };
    spawn(call, async move {
        tokio::select! {
            () = session => {}
            () = stop.cancelled() => {}
        }
    });
    Ok(response)
}
