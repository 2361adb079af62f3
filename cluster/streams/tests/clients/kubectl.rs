//! kubectl, every version that is installed: `kubectl`, or `kubectl.1.27` and the like beside it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::timeout;

use crate::server::{LARGE, serve};

/// kubectl takes a few hundred milliseconds; a machine under load more.
const SOON: Duration = Duration::from_secs(60);

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
