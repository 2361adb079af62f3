//! Real kubectl against the server.

mod support;

use support::Cluster;

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
