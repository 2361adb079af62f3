//! A lab in this process, with the addons forwarded to this machine by kubectl, and traffic.

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use meshlab_checks::Lab;
use meshlab_runner::labs;
use meshlab_runner::serve::{LabCluster, start_cluster};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

/// A lab whose steps on setup, routing and observability are solved.
pub(crate) struct BrowsedLab {
    lab: Lab,
    pub(crate) cluster: LabCluster,
    folder: TempDir,
}

/// A port of a Service on this machine, until dropped.
pub(crate) struct Forwarded {
    /// `http://127.0.0.1:PORT`
    pub(crate) url: String,
    _kubectl: Child,
}

impl BrowsedLab {
    pub(crate) async fn start() -> Result<Self> {
        let lab = labs::load("phase3", None)?;
        let cluster = start_cluster(&lab, None).await?;
        let folder = tempfile::tempdir()?;
        std::fs::write(folder.path().join("kubeconfig"), cluster.cluster().kubeconfig())?;
        let started = Self { lab, cluster, folder };
        for step in ["setup", "routing", "observability"] {
            started.solve(step).await?;
        }
        Ok(started)
    }

    fn kubectl(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("kubectl");
        command.args(arguments).env("KUBECONFIG", self.path("kubeconfig")).env("HOME", self.folder.path());
        command.stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    async fn run(&self, arguments: &[&str]) -> Result<()> {
        let output = self.kubectl(arguments).output().await.context("kubectl is missing: run .ci/install-tools")?;
        ensure!(output.status.success(), "kubectl {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    async fn solve(&self, step: &str) -> Result<()> {
        let step = self.lab.step(step).context("no such step")?;
        for file in &step.solution {
            self.apply(&file.name, &file.content).await?;
        }
        for namespace in &step.file.restart {
            self.run(&["rollout", "restart", "deployment", "-n", namespace]).await?;
            self.run(&["rollout", "status", "deployment", "-n", namespace, "--timeout=60s"]).await?;
        }
        Ok(())
    }

    /// `kubectl apply`.
    pub(crate) async fn apply(&self, name: &str, yaml: &str) -> Result<()> {
        let path = self.path(name);
        std::fs::write(&path, yaml)?;
        self.run(&["apply", "-f", path.to_str().context("a path that is no text")?]).await
    }

    /// `kubectl port-forward -n istio-system svc/SERVICE :PORT`.
    pub(crate) async fn forward(&self, service: &str, port: u16) -> Result<Forwarded> {
        let (service, port) = (format!("svc/{service}"), format!(":{port}"));
        let mut kubectl = self.kubectl(&["port-forward", "-n", "istio-system", &service, &port]);
        let mut kubectl = kubectl.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let mut lines = BufReader::new(kubectl.stdout.take().context("no output")?).lines();
        let line = lines.next_line().await?.with_context(|| format!("{service} is not forwarded"))?;
        let address = line.trim_start_matches("Forwarding from ").split(' ').next().unwrap_or_default();
        let url = format!("http://{address}");
        // It says something about each connection, and must find a reader.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Ok(Forwarded { url, _kubectl: kubectl })
    }
}

/// Steady requests to the web application, until dropped.
pub(crate) struct Traffic {
    rate: Arc<AtomicU32>,
    task: JoinHandle<()>,
}

impl Traffic {
    /// `gateway`: URL of the ingress gateway; `agent`: what the requests call themselves; `rate`: requests a second.
    pub(crate) fn start(gateway: &str, agent: &str, rate: u32) -> Result<Self> {
        let client = reqwest::Client::builder().no_proxy().user_agent(agent).timeout(Duration::from_secs(10)).build()?;
        let url = format!("{gateway}/order");
        let rate = Arc::new(AtomicU32::new(rate));
        let current = rate.clone();
        let task = tokio::spawn(async move {
            loop {
                let request = client.get(&url).header("host", "webapp.istio.local").send();
                tokio::spawn(async move { drop(request.await) });
                tokio::time::sleep(Duration::from_secs(1) / current.load(Ordering::Relaxed).max(1)).await;
            }
        });
        Ok(Self { rate, task })
    }

    pub(crate) fn set_rate(&self, rate: u32) {
        self.rate.store(rate, Ordering::Relaxed);
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.task.abort();
    }
}
