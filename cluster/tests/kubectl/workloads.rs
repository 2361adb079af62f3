//! Deployments, services and jobs through real kubectl.

use crate::lab::{Lab, manifest};

const WEB: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: web
        image: tools:1
        ports: [{name: http, containerPort: 8080}]
        readinessProbe: {httpGet: {path: /, port: http}}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: http}]
---
apiVersion: v1
kind: Pod
metadata: {name: client, labels: {app: client}}
spec:
  containers: [{name: client, image: tools, command: [sleep, '3600']}]
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployment_and_its_service_lead_to_ready_pods_that_answer_by_name() {
    let lab = Lab::start().await;
    lab.kubectl(&["apply", "-f", &manifest(&lab, WEB)]).await;
    lab.kubectl(&["rollout", "status", "deployment/web", "--timeout=20s"]).await;
    lab.kubectl(&["wait", "pod/client", "--for=condition=Ready", "--timeout=20s"]).await;
    let ready = lab.kubectl(&["get", "deployment", "web", "-o", "jsonpath={.status.readyReplicas}"]).await;
    assert_eq!(ready, "2");
    for host in ["web", "web.default.svc.cluster.local"] {
        let answer = lab.kubectl(&["exec", "client", "--", "fetch", host, "80"]).await;
        assert!(answer.starts_with("web-"), "{answer}");
    }
    let endpoints = lab.kubectl(&["get", "endpoints", "web", "-o", "jsonpath={.subsets[0].addresses[*].ip}"]).await;
    let slice = lab
        .kubectl(&[
            "get",
            "endpointslices",
            "-l",
            "kubernetes.io/service-name=web",
            "-o",
            "jsonpath={.items[*].endpoints[*].addresses[*]}",
        ])
        .await;
    let sorted = |text: &str| {
        let mut words: Vec<String> = text.split(' ').map(str::to_owned).collect();
        words.sort();
        words
    };
    assert_eq!((sorted(&endpoints), sorted(&endpoints).len()), (sorted(&slice), 2));
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rollouts_go_forward_and_back_and_pause() {
    let lab = Lab::start().await;
    lab.kubectl(&["apply", "-f", &manifest(&lab, WEB)]).await;
    lab.kubectl(&["rollout", "status", "deployment/web", "--timeout=20s"]).await;
    lab.kubectl(&["set", "image", "deployment/web", "web=tools:2"]).await;
    lab.kubectl(&["rollout", "status", "deployment/web", "--timeout=20s"]).await;
    let image = [
        "get",
        "pods",
        "-l",
        "app=web",
        "--field-selector=status.phase=Running",
        "-o",
        "jsonpath={.items[*].spec.containers[0].image}",
    ];
    lab.until(&image, |images| images == "tools:2 tools:2").await;
    let history = lab.kubectl(&["rollout", "history", "deployment/web"]).await;
    assert!(history.contains("\n1 ") && history.contains("\n2 "), "{history}");
    lab.kubectl(&["rollout", "undo", "deployment/web"]).await;
    lab.kubectl(&["rollout", "status", "deployment/web", "--timeout=20s"]).await;
    lab.until(&image, |images| images == "tools:1 tools:1").await;
    lab.kubectl(&["rollout", "restart", "deployment/web"]).await;
    lab.kubectl(&["rollout", "status", "deployment/web", "--timeout=20s"]).await;
    lab.kubectl(&["scale", "deployment/web", "--replicas=4"]).await;
    lab.kubectl(&["rollout", "status", "deployment/web", "--timeout=20s"]).await;
    lab.until(&["get", "deployment", "web", "-o", "jsonpath={.status.readyReplicas}"], |ready| ready == "4").await;
    lab.kubectl(&["rollout", "pause", "deployment/web"]).await;
    lab.kubectl(&["set", "image", "deployment/web", "web=tools:3"]).await;
    lab.until(&["get", "deployment", "web", "-o", "jsonpath={.status.conditions[?(@.type=='Progressing')].reason}"], |r| {
        r == "DeploymentPaused"
    })
    .await;
    let sets = lab.kubectl(&["get", "replicasets", "-o", "name"]).await;
    lab.kubectl(&["rollout", "resume", "deployment/web"]).await;
    lab.kubectl(&["rollout", "status", "deployment/web", "--timeout=20s"]).await;
    let after = lab.kubectl(&["get", "replicasets", "-o", "name"]).await;
    assert_eq!(after.lines().count(), sets.lines().count() + 1);
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleting_takes_the_dependents_and_a_namespace_takes_everything() {
    let lab = Lab::start().await;
    lab.kubectl(&["create", "namespace", "shop"]).await;
    lab.kubectl(&["-n", "shop", "apply", "-f", &manifest(&lab, WEB)]).await;
    lab.kubectl(&["-n", "shop", "rollout", "status", "deployment/web", "--timeout=20s"]).await;
    lab.kubectl(&["-n", "shop", "delete", "deployment", "web", "--cascade=foreground", "--timeout=20s"]).await;
    assert_eq!(lab.kubectl(&["-n", "shop", "get", "replicasets,pods", "-l", "app=web", "-o", "name"]).await, "");
    lab.kubectl(&["delete", "namespace", "shop", "--timeout=30s"]).await;
    let (code, _, error) = lab.try_kubectl(&["get", "namespace", "shop"]).await;
    assert_eq!(code, Some(1));
    assert!(error.contains("namespaces \"shop\" not found"), "{error}");
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relabelled_pod_leaves_its_set_and_is_replaced() {
    let lab = Lab::start().await;
    lab.kubectl(&["apply", "-f", &manifest(&lab, WEB)]).await;
    lab.kubectl(&["rollout", "status", "deployment/web", "--timeout=20s"]).await;
    let strayed = lab.kubectl(&["get", "pods", "-l", "app=web", "-o", "jsonpath={.items[0].metadata.name}"]).await;
    lab.kubectl(&["label", "pod", &strayed, "app=debug", "--overwrite"]).await;
    lab.until(&["get", "pods", "-l", "app=web", "-o", "jsonpath={.items[*].status.phase}"], |phases| phases == "Running Running")
        .await;
    assert_eq!(lab.kubectl(&["get", "pod", &strayed, "-o", "jsonpath={.metadata.ownerReferences}"]).await, "");
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orphaned_pods_live_on() {
    let lab = Lab::start().await;
    lab.kubectl(&["apply", "-f", &manifest(&lab, WEB)]).await;
    lab.kubectl(&["rollout", "status", "deployment/web", "--timeout=20s"]).await;
    lab.kubectl(&["delete", "deployment", "web", "--cascade=orphan", "--timeout=20s"]).await;
    let owners =
        lab.kubectl(&["get", "replicasets", "-l", "app=web", "-o", "jsonpath={.items[*].metadata.ownerReferences}"]).await;
    assert_eq!(owners, "");
    assert_eq!(lab.kubectl(&["get", "pods", "-l", "app=web", "-o", "name"]).await.lines().count(), 2);
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_complete_or_fail() {
    let lab = Lab::start().await;
    lab.kubectl(&["create", "job", "good", "--image=tools", "--", "echo", "done"]).await;
    lab.kubectl(&["wait", "job/good", "--for=condition=Complete", "--timeout=20s"]).await;
    assert_eq!(lab.kubectl(&["logs", "job/good"]).await, "done");
    let bad = "
apiVersion: batch/v1
kind: Job
metadata: {name: bad}
spec:
  backoffLimit: 0
  template:
    spec:
      restartPolicy: Never
      containers: [{name: bad, image: tools, command: [exit, '3']}]
";
    lab.kubectl(&["apply", "-f", &manifest(&lab, bad)]).await;
    lab.kubectl(&["wait", "job/bad", "--for=condition=Failed", "--timeout=20s"]).await;
    let code =
        ["get", "pods", "-l", "job-name=bad", "-o", "jsonpath={.items[0].status.containerStatuses[0].state.terminated.exitCode}"];
    assert_eq!(lab.kubectl(&code).await, "3");
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stateful_and_daemon_sets_run_and_roll() {
    let lab = Lab::start().await;
    let sets = |image: &str| {
        let template = |app: &str| {
            format!(
                "{{metadata: {{labels: {{app: {app}}}}}, spec: {{terminationGracePeriodSeconds: 1, containers: [{{name: c, image: '{image}'}}]}}}}"
            )
        };
        format!(
            "
apiVersion: v1
kind: Service
metadata: {{name: db}}
spec: {{clusterIP: None, selector: {{app: db}}, ports: [{{port: 8080}}]}}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {{name: db}}
spec: {{serviceName: db, replicas: 2, selector: {{matchLabels: {{app: db}}}}, template: {}}}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {{name: agent}}
spec: {{selector: {{matchLabels: {{app: agent}}}}, template: {}}}
",
            template("db"),
            template("agent")
        )
    };
    for image in ["tools:1", "tools:2"] {
        lab.kubectl(&["apply", "-f", &manifest(&lab, &sets(image))]).await;
        lab.kubectl(&["rollout", "status", "statefulset/db", "--timeout=20s"]).await;
        lab.kubectl(&["rollout", "status", "daemonset/agent", "--timeout=20s"]).await;
        let images = ["get", "pods", "-o", "jsonpath={.items[*].spec.containers[0].image}"];
        lab.until(&images, |images| images == [image; 3].join(" ")).await;
    }
    let fetch = ["exec", "db-0", "--", "fetch", "db-1.db.default.svc.cluster.local", "8080"];
    lab.until(&fetch, |name| name == "db-1").await;
    lab.kubectl(&["delete", "statefulset/db", "daemonset/agent", "--timeout=20s"]).await;
    lab.until(&["get", "pods", "-o", "name"], str::is_empty).await;
    lab.stop().await;
}
