//! What was acknowledged is there after `kill -9`, whenever that comes.
#![expect(clippy::print_stdout, reason = "the process that is killed tells its address there")]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config, ResourceExt};
use meshlab_apiserver::{ApiServer, ApiServerOptions, UserInfo};
use meshlab_net::{VirtualNet, VirtualNetOptions};
use tokio::sync::Semaphore;

const DIRECTORY: &str = "MESHLAB_TEST_DATA_DIR";

fn options(directory: &Path) -> ApiServerOptions {
    let mut options = ApiServerOptions::new(VirtualNet::new(VirtualNetOptions::default()));
    options.data_dir = Some(directory.to_owned());
    options
}

#[tokio::test]
#[ignore = "the process that `acknowledged_writes_survive_a_kill` kills"]
async fn a_server_to_kill() {
    let directory = std::env::var_os(DIRECTORY).expect("a data directory");
    let server = ApiServer::start(options(directory.as_ref())).await.unwrap();
    println!("\nkubeconfig {}", serde_json::to_string(&server.kubeconfig()).unwrap());
    std::future::pending::<()>().await;
}

/// A server's process, and a client of it over TLS.
struct Server {
    process: Child,
    client: Client,
}

impl Server {
    /// `shell` is run first, by a shell that then becomes the server.
    async fn start(directory: &Path, shell: &str) -> Self {
        let mut command = Command::new("sh");
        command.arg("-c").arg(format!("{shell} exec \"$0\" --exact a_server_to_kill --ignored --nocapture"));
        command.arg(std::env::current_exe().unwrap()).env(DIRECTORY, directory).stdout(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines().map(Result::unwrap);
        let kubeconfig = lines.find_map(|line| line.strip_prefix("kubeconfig ").map(str::to_owned)).expect("a server");
        let kubeconfig = Kubeconfig::from_yaml(&serde_json::from_str::<String>(&kubeconfig).unwrap()).unwrap();
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
        Self { process, client: Client::try_from(config).unwrap() }
    }

    /// `kill -9`
    fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn map(name: &str) -> ConfigMap {
    let mut map = ConfigMap::default();
    map.metadata.name = Some(name.to_owned());
    map
}

/// Writes without end, until the server is gone; returns the names that were acknowledged.
async fn write(client: Client, writer: String, count: Arc<Semaphore>) -> Vec<String> {
    let maps: Api<ConfigMap> = Api::namespaced(client, "default");
    let mut acknowledged = Vec::new();
    loop {
        match maps.create(&PostParams::default(), &map(&format!("writer-{writer}-{}", acknowledged.len()))).await {
            Ok(created) => {
                acknowledged.push(created.name_any());
                count.add_permits(1);
            }
            Err(kube::Error::Api(status)) => panic!("{status:?}"),
            Err(_) => return acknowledged,
        }
    }
}

/// The names that the directory holds, in order.
async fn stored(directory: &Path) -> Vec<String> {
    let server = ApiServer::start(options(directory)).await.unwrap();
    let maps: Api<ConfigMap> = Api::namespaced(server.client(UserInfo::admin()), "default");
    let mut names: Vec<String> = maps.list(&Default::default()).await.unwrap().iter().map(ResourceExt::name_any).collect();
    names.sort();
    server.stop().await;
    names
}

#[tokio::test]
async fn acknowledged_writes_survive_a_kill() {
    let directory = tempfile::tempdir().unwrap();
    let mut expected = Vec::new();
    for life in 0..3 {
        let mut server = Server::start(directory.path(), "").await;
        let count = Arc::new(Semaphore::new(0));
        let write = |writer: u32| tokio::spawn(write(server.client.clone(), format!("{life}-{writer}"), count.clone()));
        let writers: Vec<_> = (0..4).map(write).collect();
        // Somewhere in the middle of their writes; no moment may be a wrong one.
        count.acquire_many(60 + life).await.unwrap().forget();
        server.kill();
        for writer in writers {
            expected.extend(writer.await.unwrap());
        }
    }
    let found = stored(directory.path()).await;
    let missing: Vec<&String> = expected.iter().filter(|name| found.binary_search(name).is_err()).collect();
    assert!(missing.is_empty(), "{} of {} are missing: {missing:?}", missing.len(), expected.len());
    // A write may be on disk whose answer the kill cut off.
    assert!(found.len() <= expected.len() + 3 * 4);
}

#[tokio::test]
async fn a_journal_that_cannot_grow_refuses_writes_and_loses_nothing() {
    let directory = tempfile::tempdir().unwrap();
    // The largest file the process may write, in blocks of 512 bytes or more: about what a new cluster needs, and a little.
    let mut server = Server::start(directory.path(), "trap '' XFSZ; ulimit -f 256;").await;
    let maps: Api<ConfigMap> = Api::namespaced(server.client.clone(), "default");
    let filled = |number: usize| {
        let mut map = map(&format!("map-{number:04}"));
        map.data = Some([("filler".to_owned(), "x".repeat(1000))].into());
        map
    };
    let mut written = 0;
    let refusal = loop {
        match maps.create(&PostParams::default(), &filled(written)).await {
            Ok(_) => written += 1,
            Err(kube::Error::Api(status)) => break status,
            Err(other) => panic!("{other}"),
        }
        assert!(written < 1000, "the limit does not hold");
    };
    let message = &refusal.message;
    assert!(refusal.code == 500 && message.contains("state-000001.log") && message.contains("File too large"), "{message}");
    assert!(maps.create(&PostParams::default(), &filled(written)).await.is_err());
    assert_eq!(maps.list(&Default::default()).await.unwrap().items.len(), written);
    assert_eq!(maps.get("map-0000").await.unwrap().name_any(), "map-0000");
    server.kill();
    let names: Vec<String> = (0..written).map(|number| format!("map-{number:04}")).collect();
    assert_eq!(stored(directory.path()).await, names);
}
