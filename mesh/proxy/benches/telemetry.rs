//! What telemetry adds to a request: the processor time of a sidecar with everything on (metrics, an access log, 1 % of requests
//! traced) beside one with everything off. At most 10 % of a request's time is the promise.
//!
//! `cargo bench --profile dist -p meshlab-proxy --bench telemetry` prints both, of the code as it is handed out. The proxy has a thread of its own, whose processor time the kernel
//! counts; client, application and collector have another. On and off take turns; the figure is the median of what neighbours differ
//! by, with its first and third quartile. On a busy machine, `chrt -r 1` before the command (as root) keeps the others away.
//!
//! On two cores it was 8.6 %, 1.2 µs of 16: the log line, headers kept for it, the headers of a trace that every request carries, sampled
//! or not, and three histograms. It had been 13 % with trace headers formatted by `fmt` and headers kept for spans that nobody samples.

#[path = "../tests/proxy/support.rs"]
#[expect(dead_code, reason = "the tests need more of it")]
mod support;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use meshlab_net::OsNet;
use meshlab_proxy::{Proxy, ProxyOptions};
use meshlab_proxy_config::*;
use support::{ISTIO_LOG, Setup, Upstream, cluster, to};
use tokio::net::TcpStream;
use tokio::runtime::Builder;
use tokio_util::sync::CancellationToken;

const CONNECTIONS: usize = 8;
const REQUESTS: usize = 2500;
/// On and off take turns, so that what else the machine does concerns both.
const ROUNDS: usize = 9;
const THREAD: &str = "measured-proxy";

/// As in the binary that is handed out.
#[global_allocator]
static ALLOCATOR: meshlab_allocator::MiMalloc = meshlab_allocator::MiMalloc;

fn main() {
    meshlab_allocator::settle().expect("this program can be started over");
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let (application, collector) = runtime.block_on(async { (Upstream::named("hello").await, Upstream::status(202).await) });
    let (mut on, mut off) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        for (telemetry, took) in [(true, &mut on), (false, &mut off)] {
            let serving = Serving::start(configuration(application.address, collector.address, telemetry));
            let load = || runtime.block_on(load(serving.address));
            // The first requests open connections and meet their series for the first time.
            load();
            let before = processor_time();
            load();
            took.push((processor_time() - before) / (CONNECTIONS * REQUESTS) as u32);
            for upstream in [&application, &collector] {
                upstream.seen.lock().expect("nobody panics with it").clear();
            }
        }
    }
    report(on, off);
}

#[expect(clippy::print_stdout, reason = "a benchmark's result")]
fn report(mut on: Vec<Duration>, mut off: Vec<Duration>) {
    let mut more: Vec<f64> = on.iter().zip(&off).map(|(on, off)| (on.as_secs_f64() / off.as_secs_f64() - 1.0) * 100.0).collect();
    on.sort();
    off.sort();
    more.sort_by(f64::total_cmp);
    let (median, low, high) = (ROUNDS / 2, ROUNDS / 4, ROUNDS - 1 - ROUNDS / 4);
    println!(
        "a request's processor time without telemetry {:.2?}, with all of it {:.2?}: {:.1} % more ({:.1}–{:.1}), at most 10 %",
        off[median], on[median], more[median], more[low], more[high]
    );
}

fn configuration(application: SocketAddr, collector: SocketAddr, telemetry: bool) -> ProxyConfig {
    let mut setup = Setup::new(vec![to("c")], vec![cluster("c", &[application]), cluster("zipkin", &[collector])]);
    setup.telemetry.workload =
        WorkloadLabels { workload: "web-v1".into(), namespace: "default".into(), app: "web".into(), ..WorkloadLabels::default() };
    if telemetry {
        setup.telemetry.access_logs = vec![AccessLog { format: LogFormat::Text(ISTIO_LOG.into()), filter: None, client: None }];
        setup.telemetry.tracing = Some(Tracing {
            sampling: Fraction(Fraction::ALL.0 / 100),
            cluster: "zipkin".into(),
            exporter: SpanExporter::Zipkin,
            service_name: "web.default".into(),
            custom_tags: BTreeMap::new(),
        });
    } else {
        let all = MetricOverride { metric: "ALL_METRICS".into(), client: None, disabled: true, tags: BTreeMap::new() };
        (setup.telemetry.metrics, setup.telemetry.access_logs) = (vec![all], Vec::new());
    }
    setup.build()
}

/// A proxy on a thread of its own, until dropped.
struct Serving {
    address: SocketAddr,
    thread: Option<JoinHandle<()>>,
    end: CancellationToken,
}

impl Serving {
    fn start(config: ProxyConfig) -> Self {
        let (sender, receiver) = mpsc::channel();
        let end = CancellationToken::new();
        let ended = end.clone();
        let serve = move || {
            let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let log: Mutex<Vec<u8>> = Mutex::default();
                let write = move |line: &str| {
                    let mut buffer = log.lock().expect("nobody panics with it");
                    buffer.extend_from_slice(line.as_bytes());
                    if buffer.len() > 64 << 10 {
                        buffer.clear();
                    }
                };
                let options = ProxyOptions { admin_address: None, access_log: Arc::new(write), ..ProxyOptions::default() };
                let proxy = Proxy::start(OsNet, options);
                proxy.apply(Arc::new(config)).expect("the configuration is good");
                sender.send(proxy.bound_address("l").expect("the listener is bound")).expect("somebody waits for it");
                ended.cancelled().await;
            });
        };
        let thread = std::thread::Builder::new().name(THREAD.to_owned()).spawn(serve).expect("a thread");
        Self { address: receiver.recv().expect("the proxy starts"), thread: Some(thread), end }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.end.cancel();
        // Its processor time must not be counted with the next one's.
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the proxy ends");
        }
    }
}

/// Some connections at a time.
async fn load(address: SocketAddr) {
    let running: Vec<_> = (0..CONNECTIONS).map(|_| tokio::spawn(requests(address))).collect();
    for connection in running {
        connection.await.expect("no request fails");
    }
}

/// One connection, and requests on it one after the other.
async fn requests(address: SocketAddr) {
    let stream = TcpStream::connect(address).await.expect("the proxy listens");
    stream.set_nodelay(true).expect("a TCP socket");
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("a connection");
    tokio::spawn(connection);
    for number in 0..REQUESTS {
        let request = Request::get(format!("/orders/{number}")).header("host", "app").header("user-agent", "bench");
        let response = sender.send_request(request.body(Empty::<bytes::Bytes>::new()).expect("a request")).await;
        let response = response.expect("a response");
        assert_eq!(response.status(), 200);
        response.into_body().collect().await.expect("all of it");
    }
}

/// Processor time of the measured proxy's thread, as the kernel counts it.
fn processor_time() -> Duration {
    let tasks = std::fs::read_dir("/proc/self/task").expect("Linux tells of threads");
    let nanoseconds = tasks.flatten().filter_map(|task| {
        let name = std::fs::read_to_string(task.path().join("comm")).ok()?;
        let schedule = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
        (name.trim() == THREAD).then(|| schedule.split(' ').next()?.parse::<u64>().ok())?
    });
    Duration::from_nanos(nanoseconds.sum())
}
