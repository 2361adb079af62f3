//! Real kubectl against the server.

mod support;

use support::{Cluster, VERSIONS};

#[tokio::test(flavor = "multi_thread")]
async fn objects_come_and_go() {
    let cluster = Cluster::start().await;
    for version in ["1.27", "1.29", "1.31", "1.33"] {
        let namespace = format!("shop-{}", version.replace('.', "-"));
        let created = cluster.kubectl_of(version, &["create", "namespace", &namespace], None).await;
        assert_eq!(created, format!("namespace/{namespace} created\n"));
        cluster
            .kubectl_of(version, &["create", "configmap", "settings", "--from-literal=colour=blue", "-n", &namespace], None)
            .await;
        let colour = cluster
            .kubectl_of(version, &["get", "configmap", "settings", "-n", &namespace, "-o", "jsonpath={.data.colour}"], None)
            .await;
        assert_eq!(colour, "blue");
        let listed = cluster.kubectl_of(version, &["get", "configmaps", "-n", &namespace, "-o", "name"], None).await;
        assert_eq!(listed, "configmap/settings\n");
        cluster.kubectl_of(version, &["delete", "configmap", "settings", "-n", &namespace], None).await;
    }
    let gone = cluster.refused(&["get", "configmap", "settings"], None).await;
    assert_eq!(gone, "Error from server (NotFound): configmaps \"settings\" not found\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn apply_creates_changes_and_checks_strictly() {
    let cluster = Cluster::start().await;
    for version in VERSIONS {
        let name = format!("web-{}", version.replace('.', "-"));
        let manifest = |replicas: &str| {
            format!(
                "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: {name}}}\nspec:\n  {replicas}\n  selector: {{matchLabels: {{app: web}}}}\n  \
                 template:\n    metadata: {{labels: {{app: web}}}}\n    spec: {{containers: [{{name: web, image: app}}]}}\n"
            )
        };
        let apply = async |manifest: String| {
            let output = cluster.output(version, &["apply", "-f", "-"], Some(&manifest)).await;
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
        };
        assert_eq!(apply(manifest("replicas: 1")).await, format!("deployment.apps/{name} created\n"), "{version}");
        assert_eq!(apply(manifest("replicas: 1")).await, format!("deployment.apps/{name} unchanged\n"), "{version}");
        assert_eq!(apply(manifest("replicas: 2")).await, format!("deployment.apps/{name} configured\n"), "{version}");
        let refused = apply(manifest("replica: 3")).await;
        assert!(refused.contains("strict decoding error: unknown field \"spec.replica\""), "{version}: {refused}");
    }
}
