//! A running lab, and kubectl on it.

use std::io::Write;
use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use meshlab_checks::{CheckResult, Lab, Prober, Verdict};
use meshlab_runner::labs;
use meshlab_runner::serve::{LabCluster, start_cluster};
use tempfile::TempDir;

/// One lab for one test.
pub(crate) struct TestLab {
    pub(crate) lab: Lab,
    pub(crate) cluster: LabCluster,
    folder: TempDir,
}

impl TestLab {
    pub(crate) async fn start() -> Result<Self> {
        let lab = labs::load("phase3", None)?;
        let cluster = start_cluster(&lab, None).await?;
        let folder = tempfile::tempdir()?;
        std::fs::write(folder.path().join("kubeconfig"), cluster.cluster().kubeconfig())?;
        Ok(Self { lab, cluster, folder })
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

    /// Writes a step's solution into the learner's folder and applies it with kubectl.
    pub(crate) async fn solve(&self, step: &str) -> Result<()> {
        let step = self.lab.step(step).context("no such step")?;
        for file in &step.solution {
            std::fs::write(self.folder.path().join(&file.name), &file.content)?;
            self.shell(&format!("kubectl apply -f {}", file.name)).await?;
        }
        for namespace in &step.file.restart {
            self.shell(&format!("kubectl rollout restart deployment -n {namespace}")).await?;
            self.shell(&format!("kubectl rollout status deployment -n {namespace} --timeout=60s")).await?;
        }
        Ok(())
    }

    /// Runs the checks of a step.
    pub(crate) async fn check(&self, step: &str) -> Result<Vec<CheckResult>> {
        let step = self.lab.step(step).context("no such step")?;
        let prober = Prober::new(self.cluster.client(), self.lab.file.clients.clone());
        let checks: Vec<_> = step.checks.iter().map(|check| (step.file.id.clone(), check.clone())).collect();
        Ok(meshlab_checks::run("phase3", &prober, &checks, |_| {}).await.results)
    }

    /// Runs the checks of a step, all of which must pass.
    pub(crate) async fn must_pass(&self, step: &str) -> Result<()> {
        let results = self.check(step).await?;
        let wrong: Vec<_> = results.iter().filter(|result| result.verdict != Verdict::Pass).collect();
        ensure!(wrong.is_empty(), "{step}: {wrong:#?}");
        Ok(())
    }
}
