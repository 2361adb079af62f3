//! A server, and the real kubectl to talk to it.
#![expect(dead_code, reason = "not every test uses every helper")]

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use meshlab_apiserver::{ApiServer, ApiServerOptions, UserInfo};
use meshlab_net::{VirtualNet, VirtualNetOptions};
use tokio::io::AsyncBufReadExt;

/// The versions of kubectl that are supported; each is used where it is installed.
pub(crate) const VERSIONS: [&str; 7] = ["1.27", "1.28", "1.29", "1.30", "1.31", "1.32", "1.33"];

/// A server with a kubeconfig on disk.
pub(crate) struct Cluster {
    pub(crate) server: ApiServer,
    directory: tempfile::TempDir,
}

impl Cluster {
    pub(crate) async fn start() -> Self {
        Self::start_with(ApiServerOptions::new(VirtualNet::new(VirtualNetOptions::default()))).await
    }

    pub(crate) async fn start_with(options: ApiServerOptions) -> Self {
        let server = ApiServer::start(options).await.unwrap();
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("kubeconfig"), server.kubeconfig()).unwrap();
        let cluster = Self { server, directory };
        cluster.service_account("default").await;
        cluster
    }

    /// What the service-account controller would do.
    pub(crate) async fn service_account(&self, namespace: &str) {
        use k8s_openapi::api::core::v1::ServiceAccount;
        let accounts = kube::Api::<ServiceAccount>::namespaced(self.server.client(UserInfo::admin()), namespace);
        let mut account = ServiceAccount::default();
        account.metadata.name = Some("default".into());
        accounts.create(&Default::default(), &account).await.unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn command(&self, version: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(kubectl(version));
        command.args(arguments).env("KUBECONFIG", self.path("kubeconfig")).env("HOME", self.directory.path());
        command
    }

    /// Runs kubectl of the newest version; panics with its words if it fails.
    pub(crate) async fn kubectl(&self, arguments: &[&str]) -> String {
        self.kubectl_of("1.33", arguments, None).await
    }

    pub(crate) async fn apply(&self, manifest: &str) -> String {
        self.kubectl_of("1.33", &["apply", "-f", "-"], Some(manifest)).await
    }

    pub(crate) async fn kubectl_of(&self, version: &str, arguments: &[&str], input: Option<&str>) -> String {
        let output = self.output(version, arguments, input).await;
        assert!(output.status.success(), "kubectl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
    }

    /// Runs kubectl that has to fail; returns its words.
    pub(crate) async fn refused(&self, arguments: &[&str], input: Option<&str>) -> String {
        let output = self.output("1.33", arguments, input).await;
        assert!(!output.status.success(), "kubectl {arguments:?} succeeded: {}", String::from_utf8_lossy(&output.stdout));
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    pub(crate) async fn output(&self, version: &str, arguments: &[&str], input: Option<&str>) -> Output {
        let mut command = self.command(version, arguments);
        let input = input.map(str::to_owned);
        tokio::task::spawn_blocking(move || {
            let stdin = if input.is_some() { Stdio::piped() } else { Stdio::null() };
            let mut child =
                command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("kubectl must be installed");
            if let (Some(input), Some(mut stdin)) = (input, child.stdin.take()) {
                stdin.write_all(input.as_bytes()).unwrap();
            }
            child.wait_with_output().unwrap()
        })
        .await
        .unwrap()
    }

    /// Forwards any free port of 127.0.0.1; returns it once kubectl has said which.
    pub(crate) async fn port_forward(&self, version: &str, target: &str, port: u16) -> (tokio::process::Child, u16) {
        let mut command = tokio::process::Command::from(self.command(version, &["port-forward", target, &format!(":{port}")]));
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
        let mut lines = tokio::io::BufReader::new(child.stdout.take().unwrap()).lines();
        let line = lines.next_line().await.unwrap().expect("kubectl port-forward ended early");
        // kubectl goes on writing, and ends when nobody reads.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let local = line.strip_prefix("Forwarding from 127.0.0.1:").and_then(|rest| rest.split(' ').next());
        (child, local.unwrap_or_else(|| panic!("{line}")).parse().unwrap())
    }

    /// kube-rs over the network.
    pub(crate) async fn over_tls(&self) -> kube::Client {
        let kubeconfig = kube::config::Kubeconfig::from_yaml(&self.server.kubeconfig()).unwrap();
        kube::Client::try_from(kube::Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await.unwrap()).unwrap()
    }
}

/// The binary of a version, `kubectl.1.27` beside the one that is found in `PATH`; that one itself where there are no others.
pub(crate) fn kubectl(version: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let plain = std::env::split_paths(&path).map(|folder| folder.join("kubectl")).find(|file| file.exists());
    let plain = plain.expect("kubectl must be installed to test against it: https://kubernetes.io/docs/tasks/tools/");
    let versioned = plain.canonicalize().unwrap().with_file_name(format!("kubectl.{version}"));
    if versioned.exists() { versioned } else { plain }
}
