//! Logs that are followed, terminals, forwarded ports: the streams between kubectl and a pod.

use std::process::Stdio;
use std::time::Duration;

use crate::lab::{Lab, manifest};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn input_goes_through_exec_and_attach() {
    let lab = Lab::start().await;
    lab.kubectl(&["run", "box", "--image=tools", "--command", "--", "sleep", "3600"]).await;
    lab.kubectl(&["wait", "pod/box", "--for=condition=Ready", "--timeout=20s"]).await;
    let said = talk(&lab, &["exec", "-i", "box", "--", "upper"], "through exec\n").await;
    assert_eq!(said, "THROUGH EXEC\n");
    let run = ["run", "talk", "-i", "--quiet", "--restart=Never", "--image=tools", "--command", "--", "upper"];
    assert_eq!(talk(&lab, &run, "through attach\n").await, "THROUGH ATTACH\n");
    lab.until(&["get", "pod", "talk", "-o", "jsonpath={.status.phase}"], |phase| phase == "Succeeded").await;
    lab.stop().await;
}

async fn talk(lab: &Lab, args: &[&str], input: &str) -> String {
    let mut child = lab.command(args).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).await.unwrap();
    drop(stdin);
    let output = tokio::time::timeout(Duration::from_secs(20), child.wait_with_output()).await.unwrap().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_is_forwarded_and_a_node_port_published() {
    let lab = Lab::start().await;
    lab.kubectl(&["create", "deployment", "web", "--image=tools"]).await;
    lab.kubectl(&["expose", "deployment", "web", "--port=80", "--target-port=8080", "--type=NodePort"]).await;
    lab.kubectl(&["rollout", "status", "deployment/web", "--timeout=20s"]).await;
    let mut forward =
        lab.command(&["port-forward", "deployment/web", ":8080"]).stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
    let mut lines = BufReader::new(forward.stdout.take().unwrap()).lines();
    let line = tokio::time::timeout(Duration::from_secs(20), lines.next_line()).await.unwrap().unwrap().unwrap();
    let port = line.trim_start_matches("Forwarding from 127.0.0.1:").split(' ').next().unwrap();
    assert!(get(&format!("127.0.0.1:{port}")).await.contains("web-"), "{line}");
    let annotation = ["get", "service", "web", "-o", "jsonpath={.metadata.annotations.meshlab\\.io/published-ports}"];
    lab.until(&annotation, |places| places.starts_with("80=127.0.0.1:")).await;
    let place = lab.kubectl(&annotation).await;
    assert!(get(place.trim_start_matches("80=")).await.contains("web-"), "{place}");
    lab.stop().await;
}

async fn get(address: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logs_are_followed_to_the_end_and_kept_of_the_previous_life() {
    let lab = Lab::start().await;
    let pod = "
apiVersion: v1
kind: Pod
metadata: {name: twice}
spec:
  restartPolicy: OnFailure
  containers:
  - {name: twice, image: tools, command: [upper], stdin: true}
";
    lab.kubectl(&["apply", "-f", &manifest(&lab, pod)]).await;
    lab.kubectl(&["wait", "pod/twice", "--for=condition=Ready", "--timeout=20s"]).await;
    let follow = lab.command(&["logs", "-f", "twice"]).stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
    talk_and_leave(&lab, "one\n").await;
    lab.until(&["logs", "twice"], |log| log == "ONE").await;
    lab.kubectl(&["delete", "pod", "twice", "--grace-period=1", "--timeout=20s"]).await;
    let output = tokio::time::timeout(Duration::from_secs(20), follow.wait_with_output()).await.unwrap().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "ONE\n");
    lab.kubectl(&["run", "again", "--image=tools", "--command", "--", "echo", "life"]).await;
    lab.until(&["logs", "again", "--previous"], |log| log == "life").await;
    lab.stop().await;
}

/// Types into the container's input and goes away without ending it.
async fn talk_and_leave(lab: &Lab, input: &str) {
    let mut child =
        lab.command(&["attach", "-i", "twice"]).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).await.unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = tokio::time::timeout(Duration::from_secs(20), lines.next_line()).await.unwrap().unwrap();
    assert_eq!(line.as_deref(), Some("ONE"));
    child.kill().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_debugging_container_joins_a_running_pod() {
    let lab = Lab::start().await;
    lab.kubectl(&["run", "web", "--image=tools"]).await;
    lab.kubectl(&["wait", "pod/web", "--for=condition=Ready", "--timeout=20s"]).await;
    lab.kubectl(&["debug", "web", "--image=tools", "--container=look", "--", "fetch", "localhost", "8080"]).await;
    lab.until(&["logs", "web", "-c", "look"], |log| log == "web").await;
    let code = ["get", "pod", "web", "-o", "jsonpath={.status.ephemeralContainerStatuses[0].state.terminated.exitCode}"];
    lab.until(&code, |code| code == "0").await;
    lab.stop().await;
}
