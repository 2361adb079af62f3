//! The built-in images, run as a learner runs them.

use std::process::Stdio;
use std::time::Duration;

use crate::lab::{Lab, manifest};
use meshlab_cluster::ClusterOptions;
use tokio::io::AsyncWriteExt;

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
