//! What is measured, and the limits.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::client::{Access, Call, Lines};
use crate::server::Server;
use crate::{Figure, Measured};

/// One line of the table.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) limit: Option<Figure>,
    pub(crate) measure: fn() -> Pin<Box<dyn Future<Output = Measured>>>,
}

const fn time(millis: f64) -> Option<Figure> {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "limits are small and positive")]
    Some(Figure::Time(Duration::from_micros((millis * 1e3) as u64)))
}

const fn memory(megabytes: u64) -> Option<Figure> {
    Some(Figure::Memory(megabytes * 1_000_000))
}

pub(crate) const ROWS: &[Row] = &[
    Row { name: "start to /readyz 200", limit: time(60.0), measure: || Box::pin(start()) },
    Row { name: "resident memory, idle", limit: memory(40), measure: || Box::pin(idle()) },
    Row { name: "1,000 pods of one Deployment, all Ready", limit: time(2000.0), measure: || Box::pin(fill()) },
    Row { name: "create → event, p99, 1,000 watchers, 10 to a connection", limit: time(10.0), measure: || Box::pin(watch(10)) },
    Row {
        name: "create → event, p99, 1,000 watchers, each on its connection",
        limit: time(10.0),
        measure: || Box::pin(watch(1)),
    },
    Row { name: "GET of one pod on a kept-alive connection, p50", limit: time(0.15), measure: || Box::pin(get()) },
    Row { name: "list of 10,000 pods as a Table", limit: time(150.0), measure: || Box::pin(list()) },
    Row { name: "each further idle cluster in the process", limit: memory(3), measure: || Box::pin(further()) },
];

/// Starts of which the median counts.
const STARTS: usize = 15;
/// Deployments of a thousand pods of which the median counts.
const FILLS: usize = 3;
/// Clients that watch.
const WATCHERS: usize = 1000;
/// Objects created under their eyes.
const EVENTS: usize = 200;
/// GETs of one pod.
const GETS: usize = 5000;
/// Lists of all pods.
const LISTS: usize = 9;
/// Clusters started side by side to measure what one more costs.
const CLUSTERS: usize = 30;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
/// As kubectl asks.
const TABLE: &str =
    "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";

fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

/// Sorted times.
struct Times(Vec<Duration>);

impl Times {
    fn new(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        Self(times)
    }

    /// The time that so many of a thousand do not exceed.
    fn permille(&self, permille: usize) -> Duration {
        self.0[(self.0.len() * permille).div_ceil(1000).saturating_sub(1)]
    }

    fn measured(&self, permille: usize, remark: impl FnOnce(String) -> String) -> Measured {
        let [half, most, all] = [500, 990, 1000].map(|permille| Figure::Time(self.permille(permille)).to_string());
        Measured { figure: Figure::Time(self.permille(permille)), remark: remark(format!("p50 {half}, p99 {most}, worst {all}")) }
    }
}

/// From the process' start to the answer of a client that had to be told where the server is.
async fn start() -> Measured {
    let mut times = Vec::new();
    for _ in 0..STARTS {
        let begin = Instant::now();
        let server = Server::start().await;
        let answer = server.access().http1().await.ask(Call::get("/readyz")).await;
        times.push(begin.elapsed());
        assert_eq!(answer, "ok");
    }
    Times::new(times).measured(500, |times| format!("a new process, with the client's handshake; {STARTS} of them: {times}"))
}

async fn idle() -> Measured {
    let server = Server::start().await;
    server.access().http1().await.ask(Call::get("/readyz")).await;
    let figure = Figure::Memory(server.settled_memory().await);
    let program = megabytes(server.program_pages());
    Measured { figure, remark: format!("with all built-in images; {program:.1} MB of it are pages of the program's file") }
}

/// Creates a Deployment and waits until all its pods are ready.
async fn deploy(access: &Access, name: &str, replicas: usize) -> Duration {
    let labels = json!({"app": name});
    let container = json!({"name": "main", "image": "busybox", "command": ["sleep", "infinity"]});
    let template = json!({"metadata": {"labels": labels}, "spec": {"containers": [container]}});
    let spec = json!({"replicas": replicas, "selector": {"matchLabels": labels}, "template": template});
    let object = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": spec});
    let watch = format!("{DEPLOYMENTS}?watch=true&fieldSelector=metadata.name%3D{name}");
    let (mut reader, mut writer) = (access.http1().await, access.http1().await);
    let mut events = Lines::new(reader.open(Call::get(&watch)).await);
    let begin = Instant::now();
    writer.ask(Call::post(DEPLOYMENTS, &object)).await;
    loop {
        let event: Value = serde_json::from_slice(&events.next().await).expect("an event");
        if event["object"]["status"]["readyReplicas"] == replicas {
            return begin.elapsed();
        }
    }
}

async fn fill() -> Measured {
    let mut times = Vec::new();
    let mut each = 0.0;
    for _ in 0..FILLS {
        let server = Server::start().await;
        let before = server.settled_memory().await;
        times.push(deploy(server.access(), "web", 1000).await);
        each = megabytes(server.memory().saturating_sub(before));
    }
    Times::new(times).measured(500, |times| format!("{times}; a pod takes {each:.0} kB"))
}

/// One client watches all ConfigMaps of a namespace, and says when it has seen each one created.
async fn follow(mut body: Incoming, seen: Arc<Seen>) -> Vec<Duration> {
    let mut times = Vec::with_capacity(EVENTS);
    let mut rest = Vec::new();
    while times.len() < EVENTS {
        let frame = body.frame().await.expect("the watch goes on").expect("a frame");
        let Some(data) = frame.data_ref() else { continue };
        rest.extend_from_slice(data);
        let Some(end) = rest.iter().rposition(|byte| *byte == b'\n') else { continue };
        let lines = std::str::from_utf8(&rest[..end]).expect("text");
        for line in lines.lines() {
            let Some((_, name)) = line.split_once("\"name\":\"event-") else { continue };
            let number: usize = name.split('"').next().expect("a name").parse().expect("a number");
            assert_eq!(number, times.len(), "events come in order, and none is missing");
            times.push(seen.since(number));
            seen.count();
        }
        rest.drain(..=end);
    }
    times
}

/// When each object was asked for, and how many watchers have not seen the last one.
struct Seen {
    epoch: Instant,
    asked: Vec<AtomicU64>,
    missing: AtomicUsize,
    all: Notify,
}

impl Seen {
    fn new() -> Arc<Self> {
        let asked = (0..EVENTS).map(|_| AtomicU64::default()).collect();
        Arc::new(Self { epoch: Instant::now(), asked, missing: AtomicUsize::new(0), all: Notify::new() })
    }

    fn ask(&self, number: usize) {
        self.missing.store(WATCHERS, Ordering::SeqCst);
        let nanos = u64::try_from(self.epoch.elapsed().as_nanos()).expect("less than five centuries");
        self.asked[number].store(nanos, Ordering::SeqCst);
    }

    fn since(&self, number: usize) -> Duration {
        self.epoch.elapsed().saturating_sub(Duration::from_nanos(self.asked[number].load(Ordering::SeqCst)))
    }

    fn count(&self) {
        if self.missing.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.all.notify_one();
        }
    }
}

/// From just before the request to the event at each of the watchers, of which `shared` share a connection with HTTP/2, as the
/// watches of a client-go program do.
async fn watch(shared: usize) -> Measured {
    let server = Server::start().await;
    let access = server.access();
    let before = server.settled_memory().await;
    let mut writer = access.http1().await;
    let list: Value = serde_json::from_slice(&writer.ask(Call::get(MAPS)).await).expect("a list");
    let path = format!("{MAPS}?watch=true&resourceVersion={}", list["metadata"]["resourceVersion"].as_str().expect("a revision"));
    let seen = Seen::new();
    let (mut clients, mut connections) = (Vec::new(), Vec::new());
    while clients.len() < WATCHERS {
        if shared == 1 {
            let mut connection = access.http1().await;
            clients.push(tokio::spawn(follow(connection.open(Call::get(&path)).await, seen.clone())));
        } else {
            let mut connection = access.http2().await;
            for _ in 0..shared {
                clients.push(tokio::spawn(follow(connection.open(Call::get(&path)).await, seen.clone())));
            }
            connections.push(connection);
        }
    }
    let each = server.settled_memory().await.saturating_sub(before) / WATCHERS as u64;
    for number in 0..EVENTS {
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("event-{number:03}")}, "data": {"a": "b"}});
        seen.ask(number);
        writer.ask(Call::post(MAPS, &map)).await;
        seen.all.notified().await;
    }
    let mut times = Vec::with_capacity(WATCHERS * EVENTS);
    for client in clients {
        times.extend(client.await.expect("a watcher"));
    }
    Times::new(times).measured(990, |times| format!("{EVENTS} events: {times}; a watcher takes {:.1} kB", each as f64 / 1e3))
}

async fn get() -> Measured {
    let server = Server::start().await;
    deploy(server.access(), "web", 1).await;
    let mut connection = server.access().http1().await;
    let list: Value = serde_json::from_slice(&connection.ask(Call::get(PODS)).await).expect("a list");
    let path = format!("{PODS}/{}", list["items"][0]["metadata"]["name"].as_str().expect("a pod"));
    let mut times = Vec::with_capacity(GETS);
    for _ in 0..GETS {
        let begin = Instant::now();
        connection.ask(Call::get(&path)).await;
        times.push(begin.elapsed());
    }
    let mut connection = server.access().http2().await;
    let mut over_http2 = Vec::with_capacity(GETS);
    for _ in 0..GETS {
        let begin = Instant::now();
        connection.ask(Call::get(&path)).await;
        over_http2.push(begin.elapsed());
    }
    let over_http2 = Figure::Time(Times::new(over_http2).permille(500));
    Times::new(times).measured(500, |times| format!("HTTP/1.1: {times}; HTTP/2: p50 {over_http2}"))
}

async fn list() -> Measured {
    let server = Server::start().await;
    let mut filled = Duration::ZERO;
    for name in ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"] {
        filled += deploy(server.access(), name, 1000).await;
    }
    let before = server.settled_memory().await;
    let mut connection = server.access().http2().await;
    let (mut times, mut size, mut peak) = (Vec::new(), 0, 0);
    for _ in 0..LISTS {
        let begin = Instant::now();
        let table = connection.ask(Call { accept: TABLE, ..Call::get(PODS) }).await;
        times.push(begin.elapsed());
        peak = peak.max(server.memory());
        size = table.len();
        let table: Value = serde_json::from_slice(&table).expect("JSON");
        assert_eq!(table["rows"].as_array().map(Vec::len), Some(10_000));
    }
    let (size, more) = (megabytes(size as u64), megabytes(peak.saturating_sub(before)));
    let (pods, filled) = (megabytes(before), filled.as_secs_f64());
    Times::new(times).measured(500, |times| {
        format!("{times}; {size:.1} MB, {more:.0} MB more in memory; the pods came in {filled:.1} s and take {pods:.0} MB")
    })
}

async fn further() -> Measured {
    let mut server = Server::start().await;
    let before = server.settled_memory().await;
    let begin = Instant::now();
    server.start_more(CLUSTERS).await;
    let each = begin.elapsed() / u32::try_from(CLUSTERS).expect("few");
    let more = server.settled_memory().await.saturating_sub(before);
    Measured {
        figure: Figure::Memory(more / CLUSTERS as u64),
        remark: format!("{CLUSTERS} of them, each started in {}", Figure::Time(each)),
    }
}
