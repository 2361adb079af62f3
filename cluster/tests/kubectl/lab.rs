//! A cluster, and kubectl to talk to it.

use std::process::Stdio;
use std::time::Duration;

use meshlab_cluster::{Cluster, ClusterOptions};
use tempfile::TempDir;
use tokio::process::Command;

/// A cluster whose only image is `tools`, its kubeconfig in a directory of its own.
pub(crate) struct Lab {
    pub(crate) cluster: Cluster,
    pub(crate) directory: TempDir,
}

impl Lab {
    /// Starts a cluster in memory.
    pub(crate) async fn start() -> Self {
        Self::start_with(ClusterOptions::default()).await
    }

    /// Starts a cluster; the image `tools` is added to its catalogue.
    pub(crate) async fn start_with(options: ClusterOptions) -> Self {
        let _ = tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
            .with_test_writer()
            .try_init();
        let directory = tempfile::tempdir().unwrap();
        let kubeconfig = Some(directory.path().join("kubeconfig"));
        let mut catalogue = options.catalogue;
        catalogue.register("tools", crate::programs::tools());
        let cluster = Cluster::start(ClusterOptions { catalogue, kubeconfig, ..options }).await.unwrap();
        Self { cluster, directory }
    }

    /// Runs kubectl, which must succeed, and answers its standard output, trimmed.
    pub(crate) async fn kubectl(&self, args: &[&str]) -> String {
        let (code, out, err) = self.try_kubectl(args).await;
        assert_eq!(code, Some(0), "kubectl {args:?}\n{out}\n{err}\n{}", self.events().await);
        out.trim().to_owned()
    }

    /// Runs kubectl: exit code, standard output, standard error.
    pub(crate) async fn try_kubectl(&self, args: &[&str]) -> (Option<i32>, String, String) {
        let child = self.command(args).kill_on_drop(true).output();
        let output =
            tokio::time::timeout(Duration::from_secs(60), child).await.expect("kubectl hangs").expect("kubectl is needed");
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        (output.status.code(), text(output.stdout), text(output.stderr))
    }

    /// Asks again until the answer is right. Fails with the last answer after 20 seconds.
    pub(crate) async fn until(&self, args: &[&str], right: impl Fn(&str) -> bool) {
        let begin = std::time::Instant::now();
        loop {
            let (_, out, error) = self.try_kubectl(args).await;
            if right(out.trim()) {
                return;
            }
            let late = begin.elapsed() > Duration::from_secs(20);
            assert!(!late, "kubectl {args:?} still says\n{out}{error}\n{}", self.events().await);
        }
    }

    /// A kubectl command to run.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("kubectl");
        command
            .args(args)
            .env("KUBECONFIG", self.directory.path().join("kubeconfig"))
            .env("KUBECACHEDIR", self.directory.path().join("cache"))
            .stdin(Stdio::null());
        command
    }

    async fn events(&self) -> String {
        let args = ["get", "pods,events", "-A"];
        let output = self.command(&args).output().await.unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Ends the cluster.
    pub(crate) async fn stop(self) {
        self.cluster.stop().await;
    }
}

/// Writes a manifest to a file and answers its path.
pub(crate) fn manifest(lab: &Lab, text: &str) -> String {
    let path = lab.directory.path().join("manifest.yaml");
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}
