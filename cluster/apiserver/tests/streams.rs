//! Logs, exec, attach and port-forward: kubectl of several generations on one side, a node on the other.

mod support;

use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{AttachParams, Patch, PatchParams, PostParams};
use meshlab_apiserver::{ExecOptions, ExecSession, LogOptions, NodeAgent, PodRef, Reader, UserInfo, Writer};
use meshlab_objects::{Reason, Status};
use serde_json::json;
use support::{Cluster, VERSIONS};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::oneshot;

/// A node whose containers log what they were asked for, run `cat` and `exit`, and echo on every port.
struct Node;

#[async_trait]
impl NodeAgent for Node {
    async fn logs(&self, pod: &PodRef, options: LogOptions) -> Result<Reader, Status> {
        let text = format!("{}/{} {} {:?}\n", pod.namespace, pod.name, options.container, options.tail_lines);
        Ok(Box::new(std::io::Cursor::new(text.into_bytes())))
    }

    async fn exec(&self, _: &PodRef, options: ExecOptions) -> Result<ExecSession, Status> {
        let (exited, exit) = oneshot::channel();
        let (stdin, mut input) = tokio::io::duplex(1024);
        let (mut output, stdout) = tokio::io::duplex(1024);
        match options.command[0].as_str() {
            "cat" => tokio::spawn(async move {
                tokio::io::copy(&mut input, &mut output).await.unwrap();
                exited.send(0).unwrap();
            }),
            "exit" => tokio::spawn(async move {
                output.write_all(b"bye\n").await.unwrap();
                exited.send(options.command[1].parse().unwrap()).unwrap();
            }),
            other => return Err(Status::new(Reason::NotFound, format!("no such command: {other}"))),
        };
        let stdin = options.stdin.then(|| Box::new(stdin) as Writer);
        Ok(ExecSession { stdin, stdout: Some(Box::new(stdout)), stderr: None, resize: None, exit })
    }

    async fn attach(&self, pod: &PodRef, options: ExecOptions) -> Result<ExecSession, Status> {
        self.exec(pod, ExecOptions { command: vec!["exit".into(), "0".into()], ..options }).await
    }

    async fn port_forward(&self, _: &PodRef, port: u16) -> Result<(Reader, Writer), Status> {
        let (near, far) = tokio::io::duplex(1024);
        let (reader, writer) = tokio::io::split(near);
        tokio::spawn(async move {
            let (mut from, mut to) = tokio::io::split(far);
            to.write_all(format!("port {port}: ").as_bytes()).await.unwrap();
            // The client may go away at any time.
            let _ = tokio::io::copy(&mut from, &mut to).await;
        });
        Ok((Box::new(reader), Box::new(writer)))
    }
}

async fn cluster() -> Cluster {
    let cluster = Cluster::start().await;
    cluster.server.set_node_agent(Arc::new(Node));
    let pods = Api::<Pod>::default_namespaced(cluster.server.client(UserInfo::admin()));
    let pod = json!({"metadata": {"name": "web"}, "spec": {"nodeName": "node", "containers": [{"name": "web", "image": "app"}]}});
    pods.create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.unwrap();
    let status = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
    pods.patch_status("web", &PatchParams::default(), &Patch::Merge(&status)).await.unwrap();
    cluster
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_reads_logs() {
    let cluster = cluster().await;
    assert_eq!(cluster.kubectl(&["logs", "web", "--tail=3"]).await, "default/web web Some(3)\n");
    let unknown = cluster.refused(&["logs", "web", "-c", "other"], None).await;
    assert_eq!(unknown, "error: container other is not valid for pod web\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_runs_commands_over_spdy_and_websocket() {
    let cluster = cluster().await;
    for version in VERSIONS {
        let echoed = cluster.kubectl_of(version, &["exec", "-i", "web", "--", "cat"], Some("hello")).await;
        assert_eq!(echoed, "hello", "{version}");
        let failed = cluster.output(version, &["exec", "web", "--", "exit", "7"], None).await;
        assert_eq!(String::from_utf8_lossy(&failed.stdout), "bye\n", "{version}");
        assert_eq!(failed.status.code(), Some(7), "{version}");
    }
    let missing = cluster.refused(&["exec", "web", "--", "nothing"], None).await;
    assert!(missing.contains("no such command: nothing"), "{missing}");
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_forwards_ports() {
    let cluster = cluster().await;
    for version in VERSIONS {
        let (mut child, port) = cluster.port_forward(version, "pod/web", 8080).await;
        let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        stream.write_all(b"ping").await.unwrap();
        let mut answer = [0; 15];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"port 8080: ping", "{version}");
        child.kill().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kube_rs_runs_commands_and_forwards_ports() {
    let cluster = cluster().await;
    let pods = Api::<Pod>::default_namespaced(cluster.over_tls().await);
    let mut process = pods.exec("web", ["cat"], &AttachParams::default().stdin(true).stderr(false)).await.unwrap();
    let (mut stdin, mut stdout) = (process.stdin().unwrap(), process.stdout().unwrap());
    stdin.write_all(b"hello").await.unwrap();
    let mut answer = [0; 5];
    stdout.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"hello");
    let mut forward = pods.portforward("web", &[9000]).await.unwrap();
    let mut stream = forward.take_stream(9000).unwrap();
    stream.write_all(b"!").await.unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"port 9000: !");
}
