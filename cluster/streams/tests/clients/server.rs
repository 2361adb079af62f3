//! An API server with one pod, whose exec and port-forward always do the same.

use std::convert::Infallible;
use std::net::SocketAddr;

use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use meshlab_streams::{
    BoxReader, BoxWriter, Outcome, PortForwardUpgrade, ProcessStreams, RemoteCommandUpgrade, UpgradeError, WantedStreams,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// More than any window or buffer on the way.
pub(crate) const LARGE: usize = 500_000;

const POD: &str = r#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":"web","namespace":"default"},
    "spec":{"containers":[{"name":"web","image":"web"}]},"status":{"phase":"Running"}}"#;
const RESOURCES: &str = r#"{"kind":"APIResourceList","groupVersion":"v1","resources":[
    {"name":"pods","singularName":"pod","namespaced":true,"kind":"Pod","verbs":["get"]}]}"#;

async fn answer(mut request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path().to_owned();
    let json = match path.as_str() {
        "/version" => r#"{"major":"1","minor":"33","gitVersion":"v1.33.0"}"#,
        "/api" => r#"{"kind":"APIVersions","versions":["v1"]}"#,
        "/apis" => r#"{"kind":"APIGroupList","apiVersion":"v1","groups":[]}"#,
        "/api/v1" => RESOURCES,
        "/api/v1/namespaces/default/pods/web" => POD,
        "/api/v1/namespaces/default/pods/web/exec" => {
            return Ok(upgrade(RemoteCommandUpgrade::negotiate(&request), |answer| {
                let on_upgrade = hyper::upgrade::on(&mut request);
                let query = request.uri().query().unwrap_or_default().to_owned();
                let response = answer.response();
                tokio::spawn(async move {
                    let io = TokioIo::new(on_upgrade.await.unwrap());
                    let has = |name: &str| query.split('&').any(|pair| pair == format!("{name}=true"));
                    let wanted =
                        WantedStreams { stdin: has("stdin"), stdout: has("stdout"), stderr: has("stderr"), tty: has("tty") };
                    let (process, exit) = shout();
                    answer.start(io, wanted).await.unwrap().run(process, exit).await.unwrap();
                });
                response
            }));
        }
        "/api/v1/namespaces/default/pods/web/portforward" => {
            return Ok(upgrade(PortForwardUpgrade::negotiate(&request), |answer| {
                let on_upgrade = hyper::upgrade::on(&mut request);
                let response = answer.response();
                tokio::spawn(async move {
                    answer.start(TokioIo::new(on_upgrade.await.unwrap())).await.run(echo).await;
                });
                response
            }));
        }
        _ => {
            let mut response =
                Response::new(Full::from(r#"{"kind":"Status","status":"Failure","code":404,"reason":"NotFound"}"#));
            *response.status_mut() = StatusCode::NOT_FOUND;
            return Ok(response);
        }
    };
    Ok(Response::builder().header("Content-Type", "application/json").body(Full::from(json)).unwrap())
}

fn upgrade<U>(negotiated: Result<U, UpgradeError>, start: impl FnOnce(U) -> Response<Full<Bytes>>) -> Response<Full<Bytes>> {
    match negotiated {
        Ok(upgrade) => start(upgrade),
        Err(error) => {
            let mut response = Response::new(Full::from(error.to_string()));
            *response.status_mut() = error.status();
            *response.headers_mut() = error.headers();
            response
        }
    }
}

/// A process that repeats its standard input in capitals, goes on for long, complains, and exits with 3.
fn shout() -> (ProcessStreams, impl Future<Output = Outcome>) {
    let ((stdin, mut stdin_end), (mut stdout_end, stdout), (mut stderr_end, stderr)) =
        (tokio::io::duplex(1024), tokio::io::duplex(1024), tokio::io::duplex(1024));
    let process = async move {
        let mut input = String::new();
        stdin_end.read_to_string(&mut input).await.unwrap();
        stdout_end.write_all(input.to_uppercase().as_bytes()).await.unwrap();
        stdout_end.write_all(&vec![b'x'; LARGE]).await.unwrap();
        stderr_end.write_all(b"so loud\n").await.unwrap();
        Outcome::Exited(3)
    };
    let streams = ProcessStreams {
        stdin: Some(Box::new(stdin)),
        stdout: Some(Box::new(stdout)),
        stderr: Some(Box::new(stderr)),
        resize: None,
    };
    (streams, process)
}

/// A pod that says its port, then echoes.
async fn echo(port: u16) -> Result<(BoxReader, BoxWriter), String> {
    let (ours, theirs) = tokio::io::duplex(1024);
    tokio::spawn(async move {
        let (mut read, mut write) = tokio::io::split(theirs);
        write.write_all(format!("{port}:").as_bytes()).await?;
        tokio::io::copy(&mut read, &mut write).await?;
        write.shutdown().await
    });
    let (read, write) = tokio::io::split(ours);
    Ok((Box::new(read), Box::new(write)))
}

pub(crate) async fn serve() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let connection = hyper::server::conn::http1::Builder::new();
            tokio::spawn(connection.serve_connection(TokioIo::new(stream), service_fn(answer)).with_upgrades());
        }
    });
    address
}
