//! The process that is measured.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use meshlab_cluster::{Cluster, ClusterOptions};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::client::Access;

/// The first argument of the process that serves.
const SERVE: &str = "serve-a-cluster";

/// What the server's process is told on its command line.
pub(crate) struct Options {
    directory: PathBuf,
}

impl Options {
    /// `None` if this is not the server's process.
    pub(crate) fn parse(arguments: &[String]) -> Option<Self> {
        match arguments {
            [first, directory, ..] if first == SERVE => Some(Self { directory: directory.into() }),
            _ => None,
        }
    }
}

/// Serves a cluster until standard input ends. Every line there asks for so many further clusters.
pub(crate) async fn serve(options: Options) {
    let options =
        ClusterOptions { catalogue: meshlab_images::catalogue(), data_dir: Some(options.directory), ..ClusterOptions::default() };
    let cluster = Cluster::start(options).await.expect("a cluster");
    println!("{}", serde_json::to_string(&cluster.kubeconfig()).expect("text is JSON"));
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    let mut more = Vec::new();
    while let Ok(Some(line)) = lines.next_line().await {
        for _ in 0..line.parse().expect("a number of clusters") {
            let options = ClusterOptions { catalogue: meshlab_images::catalogue(), ..ClusterOptions::default() };
            more.push(Cluster::start(options).await.expect("a further cluster"));
        }
        println!("done");
    }
}

/// A server's process; dropping it ends it.
pub(crate) struct Server {
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    access: Access,
    _directory: TempDir,
}

impl Server {
    /// Starts a process with one cluster, and waits until it has said how to reach it.
    pub(crate) async fn start() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command.arg(SERVE).arg(directory.path()).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().expect("a process");
        let input = child.stdin.take().expect("its input");
        let mut output = BufReader::new(child.stdout.take().expect("its output")).lines();
        let kubeconfig = output.next_line().await.expect("a line").expect("a kubeconfig");
        let access = Access::new(&serde_json::from_str::<String>(&kubeconfig).expect("a kubeconfig"));
        Self { child, input, output, access, _directory: directory }
    }

    /// How to reach the cluster.
    pub(crate) fn access(&self) -> &Access {
        &self.access
    }

    /// Starts further clusters in the process.
    pub(crate) async fn start_more(&mut self, clusters: usize) {
        self.input.write_all(format!("{clusters}\n").as_bytes()).await.expect("the process listens");
        self.output.next_line().await.expect("a line").expect("further clusters");
    }

    /// Resident memory in bytes, once it has not changed for two seconds.
    pub(crate) async fn settled_memory(&self) -> u64 {
        let (mut last, mut since) = (0, 0);
        loop {
            let now = self.memory();
            since = if now.abs_diff(last) < 64 << 10 { since + 1 } else { 0 };
            if since == 8 {
                return now;
            }
            last = now;
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    }

    /// Resident memory in bytes, now.
    pub(crate) fn memory(&self) -> u64 {
        self.status("VmRSS:")
    }

    /// How much of it only mirrors files, above all the program's own.
    pub(crate) fn program_pages(&self) -> u64 {
        self.status("RssFile:")
    }

    /// A line of the process' status in bytes.
    fn status(&self, name: &str) -> u64 {
        let path = format!("/proc/{}/status", self.child.id().expect("the process runs"));
        let status = std::fs::read_to_string(path).expect("memory is measured where there is /proc");
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a line of this name");
        let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
        kilobytes << 10
    }
}
