//! The shortest way from a manifest to a pod that runs: with real kubectl.

mod common;

use common::{Lab, manifest};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployment_and_its_service_lead_to_ready_pods_with_logs() {
    let lab = Lab::start().await;
    lab.kubectl(&["apply", "-f", &manifest(&lab, WEB)]).await;
    lab.kubectl(&["rollout", "status", "deployment/web", "--timeout=20s"]).await;
    let ready = lab.kubectl(&["get", "deployment", "web", "-o", "jsonpath={.status.readyReplicas}"]).await;
    assert_eq!(ready, "2");
    let logs = lab.kubectl(&["logs", "deployment/web"]).await;
    assert!(logs.contains("hello from"), "{logs}");
    lab.stop().await;
}

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
      containers:
      - name: web
        image: busybox:1.36
        command: [sh, -c, 'echo hello from $HOSTNAME; sleep 3600']
        env: [{name: HOSTNAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: 8080}]
";
