//! How commands talk to the lab's process: one JSON line each way over a Unix socket in `$MESHLAB_HOME`, which only its owner
//! can open.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;

use crate::error::{CommandError, Hint};
use crate::home::{Home, read_json};

/// What a command asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Request {
    /// What is running?
    Status,
    /// Stop, keeping everything.
    Stop,
}

/// What the lab's process says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Status {
    /// Process id; none where the lab runs on another cluster.
    pub pid: Option<u32>,
    /// `embedded`, `kind` or `kubeconfig:CONTEXT`. A lab of an earlier version does not say; there was no other.
    #[serde(default = "embedded")]
    pub cluster: String,
    /// `meshlab` version.
    pub version: String,
    /// Lab.
    pub lab: String,
    /// API server.
    pub api_server: String,
    /// Kubeconfig.
    pub kubeconfig: PathBuf,
    /// Where the ingress gateway answers on this machine, if it is published.
    pub gateway: Option<String>,
    /// From the command to a gateway that answers, in milliseconds.
    pub started_in_ms: u64,
}

fn embedded() -> String {
    "embedded".to_owned()
}

/// Asks the lab's process; `None` if none is running. Of a lab on another cluster, what was noted when it was started.
///
/// # Errors
/// It runs but does not answer as it should.
pub(crate) async fn ask(home: &Home, request: &Request) -> Result<Option<Status>, CommandError> {
    let Ok(stream) = UnixStream::connect(home.control_socket()).await else { return read_json(&home.external()) };
    let talk = async {
        let (reader, mut writer) = stream.into_split();
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        writer.write_all(&line).await?;
        let mut answer = String::new();
        BufReader::new(reader).read_line(&mut answer).await?;
        Ok::<Status, std::io::Error>(serde_json::from_str(&answer)?)
    };
    talk.await.map(Some).map_err(|error| {
        CommandError::failed(format!("the lab's process does not answer: {error}"))
            .with_hint(Hint::new(format!("its log is {}", home.log().display())))
    })
}

/// Waits until nobody holds the socket any more.
///
/// # Errors
/// The process is still there after ten seconds.
pub(crate) async fn wait_until_gone(home: &Home) -> Result<(), CommandError> {
    let gone = async {
        while UnixStream::connect(home.control_socket()).await.is_ok() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), gone).await.map_err(|_| {
        CommandError::failed("the lab's process does not end").with_hint(Hint::new("its log tells why; `kill -9` loses nothing"))
    })
}

/// The lab's end: answers [`Request::Status`], and passes [`Request::Stop`] on.
///
/// # Errors
/// The socket cannot be made.
pub(crate) fn listen(home: &Home, status: Status, stop: mpsc::Sender<()>) -> Result<tokio::task::JoinHandle<()>, CommandError> {
    let path = home.control_socket();
    // A socket that nobody listens on is left over from a crash.
    let _ = std::fs::remove_file(&path);
    let listener = UnixListener::bind(&path).map_err(|error| CommandError::io(&path, &error))?;
    Ok(tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream, status.clone(), stop.clone()));
        }
    }))
}

async fn answer(stream: UnixStream, status: Status, stop: mpsc::Sender<()>) {
    let (reader, mut writer) = stream.into_split();
    let mut line = String::new();
    if BufReader::new(reader).read_line(&mut line).await.is_err() {
        return;
    }
    let Ok(request) = serde_json::from_str::<Request>(&line) else { return };
    let Ok(mut answer) = serde_json::to_vec(&status) else { return };
    answer.push(b'\n');
    // Whoever asked may be gone; the request stands all the same.
    let _ = writer.write_all(&answer).await;
    if request == Request::Stop {
        let _ = stop.send(()).await;
    }
}
