//! A running lab, and kubectl on it.

use std::io::Write;
use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Result, ensure};
use meshlab_runner::labs;
use meshlab_runner::serve::{LabCluster, start_cluster};
use tempfile::TempDir;

/// One lab for one test.
pub(crate) struct TestLab {
    pub(crate) cluster: LabCluster,
    folder: TempDir,
}

impl TestLab {
    pub(crate) async fn start() -> Result<Self> {
        let lab = labs::load("phase3", None)?;
        let cluster = start_cluster(&lab, None).await?;
        let folder = tempfile::tempdir()?;
        std::fs::write(folder.path().join("kubeconfig"), cluster.cluster().kubeconfig())?;
        Ok(Self { cluster, folder })
    }

    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.folder.path().join("kubeconfig")
    }

    /// Runs a shell command in the learner's folder; what it printed, both streams.
    pub(crate) async fn shell(&self, command: &str) -> Result<String> {
        let output = tokio::process::Command::new("sh")
            .args(["-ec", command])
            .env("KUBECONFIG", self.kubeconfig())
            .env("HOME", self.folder.path())
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await?;
        let text = [&output.stdout[..], &output.stderr[..]].map(String::from_utf8_lossy).concat();
        ensure!(output.status.success(), "{command}\n{}\n{text}", output.status);
        Ok(text)
    }

    /// `kubectl apply -f -`.
    pub(crate) async fn kubectl_apply(&self, yaml: &str) -> Result<String> {
        let mut file = tempfile::NamedTempFile::new_in(self.folder.path())?;
        file.write_all(yaml.as_bytes())?;
        self.shell(&format!("kubectl apply -f {}", file.path().display())).await
    }
}
