//! The built-in images, run as a learner runs them.

use std::process::Stdio;
use std::time::Duration;

use crate::lab::{Lab, manifest};
use futures::SinkExt;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{AttachParams, AttachedProcess, TerminalSize};
use kube::{Api, Client, Config};
use meshlab_cluster::ClusterOptions;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

async fn lab() -> Lab {
    Lab::start_with(ClusterOptions { catalogue: meshlab_images::catalogue(), ..Default::default() }).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nginx_serves_a_config_map_and_busybox_fetches_it() {
    let lab = lab().await;
    let site = "
apiVersion: v1
kind: ConfigMap
metadata: {name: page}
data: {index.html: 'hello from a ConfigMap'}
---
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec:
  containers:
  - {name: nginx, image: 'nginx:1.27', volumeMounts: [{name: page, mountPath: /usr/share/nginx/html}]}
  volumes: [{name: page, configMap: {name: page}}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Pod
metadata: {name: box}
spec:
  containers: [{name: box, image: 'busybox:1.36', command: [sh, -c, 'echo started; sleep 3600']}]
";
    lab.kubectl(&["apply", "-f", &manifest(&lab, site)]).await;
    lab.kubectl(&["wait", "pods", "--all", "--for=condition=Ready", "--timeout=20s"]).await;
    assert_eq!(lab.kubectl(&["exec", "box", "--", "wget", "-qO-", "http://web/"]).await, "hello from a ConfigMap");
    assert_eq!(lab.kubectl(&["logs", "box"]).await, "started");
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shell_reads_scripts_and_files_are_copied() {
    let lab = lab().await;
    lab.kubectl(&["run", "box", "--image=busybox:1.36", "--command", "--", "sleep", "3600"]).await;
    lab.kubectl(&["wait", "pod/box", "--for=condition=Ready", "--timeout=20s"]).await;
    let mut shell = lab
        .command(&["exec", "-i", "box", "--", "sh"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut stdin = shell.stdin.take().unwrap();
    stdin.write_all(b"cd /tmp\necho $((1 + 2)) > sum\ncat sum\n").await.unwrap();
    drop(stdin);
    let output = tokio::time::timeout(Duration::from_secs(20), shell.wait_with_output()).await.unwrap().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "3\n");
    let local = lab.directory.path().join("note.txt");
    std::fs::write(&local, "copied").unwrap();
    lab.kubectl(&["cp", local.to_str().unwrap(), "box:/tmp/note.txt"]).await;
    assert_eq!(lab.kubectl(&["exec", "box", "--", "cat", "/tmp/note.txt"]).await, "copied");
    let back = lab.directory.path().join("back.txt");
    lab.kubectl(&["cp", "box:/tmp/note.txt", back.to_str().unwrap()]).await;
    assert_eq!(std::fs::read_to_string(back).unwrap(), "copied");
    lab.stop().await;
}

/// Pods over the network, as exec and attach need them.
async fn pods(lab: &Lab) -> Api<Pod> {
    let kubeconfig = kube::config::Kubeconfig::from_yaml(&lab.cluster.kubeconfig()).unwrap();
    let config = Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await.unwrap();
    Api::default_namespaced(Client::try_from(config).unwrap())
}

/// Types, and reads what a terminal shows until the text appears.
async fn type_until(
    process: &mut (impl AsyncWriteExt + Unpin),
    screen: &mut (impl AsyncReadExt + Unpin),
    keys: &str,
    text: &str,
) -> String {
    process.write_all(keys.as_bytes()).await.unwrap();
    let mut shown = String::new();
    while !shown.contains(text) {
        let mut buffer = [0; 4096];
        let read = tokio::time::timeout(Duration::from_secs(20), screen.read(&mut buffer)).await;
        let count = read.unwrap_or_else(|_| panic!("{text:?} does not appear: {shown:?}")).unwrap();
        assert!(count > 0, "the terminal closed: {shown:?}");
        shown.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
    shown
}

fn streams(process: &mut AttachedProcess) -> (impl AsyncWriteExt + Unpin + use<>, impl AsyncReadExt + Unpin + use<>) {
    (process.stdin().unwrap(), process.stdout().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_terminal_has_a_size_a_history_and_control_keys() {
    let lab = lab().await;
    lab.kubectl(&["run", "box", "--image=busybox:1.36", "--command", "--", "sleep", "3600"]).await;
    lab.kubectl(&["wait", "pod/box", "--for=condition=Ready", "--timeout=20s"]).await;
    let mut process = pods(&lab).await.exec("box", ["sh"], &AttachParams::interactive_tty()).await.unwrap();
    let mut sizes = process.terminal_size().unwrap();
    let (mut keys, mut screen) = streams(&mut process);
    type_until(&mut keys, &mut screen, "", "# ").await;
    for (width, height) in [(111, 37), (150, 50)] {
        sizes.send(TerminalSize { width, height }).await.unwrap();
        // The size goes its own way: the first answer may still be that of before.
        while !type_until(&mut keys, &mut screen, "stty size\r", "/ # ").await.contains(&format!("{height} {width}\r\n")) {}
    }
    type_until(&mut keys, &mut screen, "echo $TERM; tty\r", "xterm\r\n/dev/pts/0\r\n").await;
    for word in ["first", "second"] {
        type_until(&mut keys, &mut screen, &format!("echo {word}\r"), &format!("\n{word}\r\n")).await;
    }
    type_until(&mut keys, &mut screen, "\x1b[A\x1b[A\r", "\nfirst\r\n").await;
    type_until(&mut keys, &mut screen, "sleep 100\r", "sleep 100").await;
    type_until(&mut keys, &mut screen, "\x03", "# ").await;
    type_until(&mut keys, &mut screen, "echo $?\r", "130\r\n").await;
    keys.write_all(b"exit 7\r").await.unwrap();
    let status = tokio::time::timeout(Duration::from_secs(20), process.take_status().unwrap()).await.unwrap().unwrap();
    let causes = status.details.and_then(|details| details.causes).unwrap_or_default();
    let exit_code = causes.iter().find(|cause| cause.reason.as_deref() == Some("ExitCode"));
    assert_eq!(exit_code.and_then(|cause| cause.message.as_deref()), Some("7"));
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_attached_sees_all_to_the_last_line() {
    let lab = lab().await;
    let chatty = "
apiVersion: v1
kind: Pod
metadata: {name: chatty}
spec:
  restartPolicy: Never
  containers: [{name: c, image: 'busybox:1.36', stdin: true, stdinOnce: true, tty: true, command: [sh, -c, 'read go; seq 1 20000; echo bye']}]
";
    lab.kubectl(&["apply", "-f", &manifest(&lab, chatty)]).await;
    lab.kubectl(&["wait", "pod/chatty", "--for=condition=Ready", "--timeout=20s"]).await;
    let mut process = pods(&lab).await.attach("chatty", &AttachParams::interactive_tty()).await.unwrap();
    let (mut keys, mut screen) = streams(&mut process);
    keys.write_all(b"go\r").await.unwrap();
    let mut shown = String::new();
    tokio::time::timeout(Duration::from_secs(20), screen.read_to_string(&mut shown)).await.unwrap().unwrap();
    let lines: Vec<&str> = shown.lines().collect();
    assert_eq!((lines.len(), lines.last()), (20_002, Some(&"bye")), "{}", lines[..lines.len().min(5)].join("|"));
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn probes_over_https_and_grpc_and_the_nodes_network() {
    let lab = lab().await;
    let probed = "
apiVersion: v1
kind: Pod
metadata: {name: probed}
spec:
  containers:
  - name: https
    image: busybox:1.36
    command: [sleep, '3600']
    readinessProbe: {httpGet: {scheme: HTTPS, host: 10.96.0.1, port: 443, path: /readyz}, periodSeconds: 1}
  - name: grpc
    image: ghcr.io/meshlab/webapp:v1
    readinessProbe: {grpc: {port: 8080}, periodSeconds: 1}
    livenessProbe: {grpc: {port: 8080, service: nobody}, periodSeconds: 1, failureThreshold: 1000}
---
apiVersion: v1
kind: Pod
metadata: {name: host}
spec:
  hostNetwork: true
  containers: [{name: c, image: 'busybox:1.36', command: [sleep, '3600']}]
";
    lab.kubectl(&["apply", "-f", &manifest(&lab, probed)]).await;
    lab.kubectl(&["wait", "pods", "--all", "--for=condition=Ready", "--timeout=20s"]).await;
    let unhealthy = ["get", "events", "--field-selector=reason=Unhealthy", "-o", "jsonpath={.items[*].message}"];
    let unknown = "Liveness probe failed: error: health rpc probe failed: rpc error: code = NotFound desc = unknown service";
    lab.until(&unhealthy, |messages| messages == unknown).await;
    assert_eq!(lab.kubectl(&["exec", "host", "--", "hostname"]).await, "meshlab");
    let addresses = lab.kubectl(&["get", "pod", "host", "-o", "jsonpath={.status.podIP} {.status.hostIP}"]).await;
    assert_eq!(addresses, "10.244.0.1 10.244.0.1");
    lab.stop().await;
}
