//! What a pod is: containers, environment, volumes, probes, and what kubectl shows of them.

use crate::lab::{Lab, manifest};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn environment_volumes_and_init_containers() {
    let lab = Lab::start().await;
    let pod = "
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {colour: blue}
---
apiVersion: v1
kind: Secret
metadata: {name: keys}
data: {token: aHVzaA==}
---
apiVersion: v1
kind: Pod
metadata: {name: box, labels: {app: box}}
spec:
  initContainers:
  - {name: prepare, image: tools, command: [write, /shared/note, prepared], volumeMounts: [{name: shared, mountPath: /shared}]}
  containers:
  - name: box
    image: tools
    command: [sleep, '3600']
    env:
    - {name: COLOUR, valueFrom: {configMapKeyRef: {name: settings, key: colour}}}
    - {name: TOKEN, valueFrom: {secretKeyRef: {name: keys, key: token}}}
    - {name: IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
    - {name: SENTENCE, value: the $(COLOUR) box}
    volumeMounts:
    - {name: shared, mountPath: /shared}
    - {name: settings, mountPath: /etc/settings}
    - {name: about, mountPath: /etc/about}
  volumes:
  - {name: shared, emptyDir: {}}
  - {name: settings, configMap: {name: settings}}
  - {name: about, downwardAPI: {items: [{path: labels, fieldRef: {fieldPath: metadata.labels}}]}}
";
    lab.kubectl(&["apply", "-f", &manifest(&lab, pod)]).await;
    lab.kubectl(&["wait", "pod/box", "--for=condition=Ready", "--timeout=20s"]).await;
    let ip = lab.kubectl(&["get", "pod", "box", "-o", "jsonpath={.status.podIP}"]).await;
    let environment = lab.kubectl(&["exec", "box", "--", "env"]).await;
    for line in ["COLOUR=blue", "TOKEN=hush", "SENTENCE=the blue box", "IMAGE=tools", &format!("IP={ip}")] {
        assert!(environment.lines().any(|known| known == line), "{line} is not in\n{environment}");
    }
    assert_eq!(lab.kubectl(&["exec", "box", "--", "cat", "/shared/note"]).await, "prepared");
    assert_eq!(lab.kubectl(&["exec", "box", "--", "cat", "/etc/about/labels"]).await, "app=\"box\"");
    let token = lab.kubectl(&["exec", "box", "--", "cat", "/var/run/secrets/kubernetes.io/serviceaccount/token"]).await;
    assert_eq!(token.split('.').count(), 3, "{token}");
    lab.kubectl(&["patch", "configmap", "settings", "--type=merge", "-p", "{\"data\":{\"colour\":\"red\"}}"]).await;
    lab.until(&["exec", "box", "--", "cat", "/etc/settings/colour"], |colour| colour == "red").await;
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_goes_wrong_is_said() {
    let lab = Lab::start().await;
    lab.kubectl(&["run", "nobody", "--image=postgres"]).await;
    lab.kubectl(&["run", "lost", "--image=tools", "--command", "--", "nosuch"]).await;
    lab.kubectl(&["run", "crash", "--image=tools", "--command", "--", "exit", "7"]).await;
    let missing = "
apiVersion: v1
kind: Pod
metadata: {name: missing}
spec:
  containers: [{name: missing, image: tools, envFrom: [{configMapRef: {name: later}}]}]
";
    lab.kubectl(&["apply", "-f", &manifest(&lab, missing)]).await;
    let waiting = |pod: &'static str| ["get", "pod", pod, "-o", "jsonpath={.status.containerStatuses[0].state.waiting.reason}"];
    lab.until(&waiting("nobody"), |reason| reason == "ImagePullBackOff").await;
    lab.until(&waiting("missing"), |reason| reason == "CreateContainerConfigError").await;
    lab.until(&waiting("crash"), |reason| reason == "CrashLoopBackOff").await;
    lab.until(&waiting("lost"), |reason| reason == "CrashLoopBackOff").await;
    let described = lab.kubectl(&["describe", "pod", "nobody"]).await;
    assert!(described.contains("this cluster has: tools") && described.contains("such as kind"), "{described}");
    let last = |pod: &'static str, field: &str| {
        vec![
            "get".to_owned(),
            "pod".to_owned(),
            pod.to_owned(),
            "-o".to_owned(),
            format!("jsonpath={{.status.containerStatuses[0].lastState.terminated.{field}}}"),
        ]
    };
    let ask = async |args: Vec<String>| lab.kubectl(&args.iter().map(String::as_str).collect::<Vec<_>>()).await;
    assert_eq!(ask(last("crash", "exitCode")).await, "7");
    assert_eq!(ask(last("lost", "exitCode")).await, "128");
    assert!(ask(last("lost", "message")).await.contains("exec: \"nosuch\": executable file not found in $PATH"));
    lab.kubectl(&["create", "configmap", "later", "--from-literal=A=1"]).await;
    lab.kubectl(&["wait", "pod/missing", "--for=condition=Ready", "--timeout=5s"]).await;
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn probes_decide_on_readiness_and_restarts() {
    let lab = Lab::start().await;
    let pod = "
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec:
  terminationGracePeriodSeconds: 1
  initContainers:
  - name: helper
    image: tools
    restartPolicy: Always
    command: [serve, '9000', '0.2']
    startupProbe: {tcpSocket: {port: 9000}, periodSeconds: 1, failureThreshold: 30}
  containers:
  - name: web
    image: tools
    readinessProbe: {httpGet: {port: 8080}, periodSeconds: 1, failureThreshold: 1}
    livenessProbe: {exec: {command: [cat, /alive]}, periodSeconds: 1, failureThreshold: 1, initialDelaySeconds: 1}
    lifecycle: {postStart: {exec: {command: [write, /alive, 'yes']}}}
";
    lab.kubectl(&["apply", "-f", &manifest(&lab, pod)]).await;
    lab.kubectl(&["wait", "pod/web", "--for=condition=Ready", "--timeout=20s"]).await;
    lab.kubectl(&["exec", "web", "-c", "web", "--", "write", "/sick", "yes"]).await;
    lab.kubectl(&["wait", "pod/web", "--for=condition=Ready=false", "--timeout=20s"]).await;
    let events =
        lab.kubectl(&["get", "events", "--field-selector", "reason=Unhealthy", "-o", "jsonpath={.items[*].message}"]).await;
    assert!(events.contains("Readiness probe failed: HTTP probe failed with statuscode: 503"), "{events}");
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logs_exec_and_deletion() {
    let lab = Lab::start().await;
    lab.kubectl(&["run", "box", "--image=tools", "--command", "--", "sleep", "0.3", "5"]).await;
    lab.until(&["get", "pod", "box", "-o", "jsonpath={.status.containerStatuses[0].restartCount}"], |count| {
        count != "0" && !count.is_empty()
    })
    .await;
    lab.kubectl(&["run", "stubborn", "--image=tools", "--restart=Never", "--command", "--", "stubborn"]).await;
    lab.kubectl(&["wait", "pod/stubborn", "--for=condition=Ready", "--timeout=20s"]).await;
    let (code, _, error) = lab.try_kubectl(&["exec", "stubborn", "--", "exit", "9"]).await;
    assert_eq!(code, Some(9), "{error}");
    let (_, _, error) = lab.try_kubectl(&["exec", "stubborn", "--", "nosuch"]).await;
    assert!(error.contains("executable file not found in $PATH"), "{error}");
    let begin = std::time::Instant::now();
    lab.kubectl(&["delete", "pod", "stubborn", "--grace-period=1", "--timeout=20s"]).await;
    assert!(begin.elapsed().as_secs() < 10);
    lab.kubectl(&["run", "talk", "--image=tools", "--restart=Never", "--command", "--", "echo", "hello"]).await;
    lab.until(&["get", "pod", "talk", "-o", "jsonpath={.status.phase}"], |phase| phase == "Succeeded").await;
    assert_eq!(lab.kubectl(&["logs", "talk"]).await, "hello");
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_resumes_from_its_data_directory() {
    let data = tempfile::tempdir().unwrap();
    let options = || meshlab_cluster::ClusterOptions { data_dir: Some(data.path().to_owned()), ..Default::default() };
    let lab = Lab::start_with(options()).await;
    lab.kubectl(&["create", "deployment", "web", "--image=tools"]).await;
    lab.kubectl(&["rollout", "status", "deployment/web", "--timeout=20s"]).await;
    let name = lab.kubectl(&["get", "pods", "-o", "name"]).await;
    lab.stop().await;
    let lab = Lab::start_with(options()).await;
    let restarts = ["get", "pods", "-o", "jsonpath={.items[0].status.containerStatuses[0].restartCount}"];
    lab.until(&restarts, |count| count == "1").await;
    assert_eq!(lab.kubectl(&["get", "pods", "-o", "name"]).await, name);
    lab.kubectl(&["wait", "pods", "--all", "--for=condition=Ready", "--timeout=20s"]).await;
    lab.stop().await;
}
