//! Sessions with real kubectl, every version that is installed: `kubectl`, and `kubectl.1.27` and the like beside it.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use meshlab_streams::{
    BoxReader, BoxWriter, Outcome, PortForwardUpgrade, ProcessStreams, RemoteCommandUpgrade, UpgradeError, WantedStreams,
};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio::time::timeout;

/// kubectl takes a few hundred milliseconds; a machine under load more.
const SOON: Duration = Duration::from_secs(60);
/// More than any window or buffer on the way.
const LARGE: usize = 500_000;

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

async fn serve() -> SocketAddr {
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

/// Every kubectl on this machine.
fn kubectls() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let kubectl = std::env::split_paths(&path).map(|folder| folder.join("kubectl")).find(|file| file.exists());
    let kubectl = kubectl.expect("kubectl must be installed to test against it: https://kubernetes.io/docs/tasks/tools/");
    let kubectl = kubectl.canonicalize().unwrap();
    let beside = kubectl.parent().unwrap().read_dir().unwrap().map(|entry| entry.unwrap().path());
    let mut versions: Vec<PathBuf> =
        beside.filter(|file| file.file_name().unwrap().to_string_lossy().starts_with("kubectl.1.")).collect();
    versions.sort();
    // A `kubectl` with others beside it may only be there to choose among them.
    if versions.is_empty() { vec![kubectl] } else { versions }
}

fn command(kubectl: &PathBuf, server: SocketAddr, home: &tempfile::TempDir, arguments: &[&str]) -> Command {
    let mut command = Command::new(kubectl);
    command.args(["--server", &format!("http://{server}")]).args(arguments);
    let config = home.path().join("config");
    std::fs::write(&config, "{apiVersion: v1, kind: Config}").unwrap();
    command.env("HOME", home.path()).env("KUBECONFIG", config);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_exec_carries_streams_and_the_exit_code() {
    let server = serve().await;
    for kubectl in kubectls() {
        let home = tempfile::tempdir().unwrap();
        let mut child = command(&kubectl, server, &home, &["exec", "-i", "web", "--", "shout"]).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(b"hello").await.unwrap();
        drop(stdin);
        let output = timeout(SOON, child.wait_with_output()).await.unwrap().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "{}: {errors}", kubectl.display());
        assert_eq!(errors, "so loud\ncommand terminated with exit code 3\n", "{}", kubectl.display());
        assert!(output.stdout.starts_with(b"HELLOx"), "{}", kubectl.display());
        assert_eq!(output.stdout.len(), 5 + LARGE, "{}", kubectl.display());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_port_forward_carries_connections_side_by_side() {
    let server = serve().await;
    for kubectl in kubectls() {
        let home = tempfile::tempdir().unwrap();
        let mut child = command(&kubectl, server, &home, &["port-forward", "pod/web", ":8080"]).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = timeout(SOON, lines.next_line()).await.unwrap().unwrap().unwrap();
        let port: u16 = line.split("127.0.0.1:").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
        let talk = async |message: Vec<u8>| {
            let (mut read, mut write) = TcpStream::connect(("127.0.0.1", port)).await.unwrap().into_split();
            let mut received = Vec::new();
            let upload = async {
                write.write_all(&message).await.unwrap();
                write.shutdown().await.unwrap();
            };
            tokio::join!(upload, async { read.read_to_end(&mut received).await.unwrap() });
            assert_eq!(received, [b"8080:", message.as_slice()].concat(), "{}", kubectl.display());
        };
        let both = async { tokio::join!(talk(vec![b'a'; LARGE]), talk(b"short".to_vec())) };
        timeout(SOON, both).await.unwrap();
        child.kill().await.unwrap();
    }
}
