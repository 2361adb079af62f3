//! kube-rs.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, AttachParams};
use kube::{Client, Config};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::server::{LARGE, serve};

const SOON: Duration = Duration::from_secs(60);

async fn pods() -> Api<Pod> {
    let server = serve().await;
    let config = Config::new(format!("http://{server}").parse().unwrap());
    Api::namespaced(Client::try_from(config).unwrap(), "default")
}

#[tokio::test(flavor = "multi_thread")]
async fn exec_carries_streams_and_the_exit_code() {
    let mut process = pods().await.exec("web", ["shout"], &AttachParams::default().stdin(true)).await.unwrap();
    let (mut stdin, mut stdout, mut stderr) = (process.stdin().unwrap(), process.stdout().unwrap(), process.stderr().unwrap());
    let status = process.take_status().unwrap();
    stdin.write_all(b"hello").await.unwrap();
    stdin.shutdown().await.unwrap();
    let (mut output, mut errors) = (Vec::new(), String::new());
    let reading = async { tokio::try_join!(stdout.read_to_end(&mut output), stderr.read_to_string(&mut errors)).unwrap() };
    timeout(SOON, reading).await.unwrap();
    assert!(output.starts_with(b"HELLOx"));
    assert_eq!((output.len(), errors.as_str()), (5 + LARGE, "so loud\n"));
    let status = timeout(SOON, status).await.unwrap().unwrap();
    assert_eq!(status.reason.as_deref(), Some("NonZeroExitCode"));
    let causes = status.details.unwrap().causes.unwrap();
    assert_eq!(causes[0].message.as_deref(), Some("3"));
    timeout(SOON, process.join()).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn port_forward_carries_several_ports() {
    let mut forward = pods().await.portforward("web", &[80, 8080]).await.unwrap();
    for port in [8080, 80] {
        let mut stream = forward.take_stream(port).unwrap();
        stream.write_all(b"hello").await.unwrap();
        let expected = format!("{port}:hello");
        let mut received = vec![0; expected.len()];
        timeout(SOON, stream.read_exact(&mut received)).await.unwrap().unwrap();
        assert_eq!(received, expected.as_bytes());
    }
}
