//! What the measurements are made on: targets that look like proxies, and the processor time of threads.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Mutex;
use std::time::Duration;

use axum::Router;
use axum::extract::Path;
use axum::routing::get;
use tokio::runtime::{Builder, Runtime};

/// A runtime whose threads can be told from all others by their name.
pub(crate) fn runtime(name: &'static str, threads: usize) -> Runtime {
    Builder::new_multi_thread().worker_threads(threads).thread_name(name).enable_all().build().expect("a runtime")
}

/// Processor time of this process' threads whose name begins so, as the kernel counts it.
pub(crate) fn processor_time(name: &str) -> Duration {
    let tasks = std::fs::read_dir("/proc/self/task").expect("Linux tells of threads");
    let nanoseconds = tasks.flatten().filter_map(|task| {
        let thread = std::fs::read_to_string(task.path().join("comm")).ok()?;
        let schedule = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
        thread.starts_with(name).then(|| schedule.split(' ').next()?.parse::<u64>().ok())?
    });
    Duration::from_nanos(nanoseconds.sum())
}

/// Processor time of this whole process, threads that have ended included.
pub(crate) fn own_processor_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux tells of processes");
    // Fields 14 and 15 of proc(5), in hundredths of a second, counted after the name in parentheses.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks: u64 = fields[11..13].iter().filter_map(|field| field.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
}

/// Series of one proxy's statistics as Envoy's merged page has them: Istio's histograms with all of their labels, and counters of
/// clusters, most of which stand still.
pub(crate) struct Proxy {
    series: Vec<String>,
    /// So many of the series, the first ones, grow.
    growing: usize,
    /// Of the growing ones, and what the next growth is drawn from.
    counters: Mutex<(Vec<u64>, u64)>,
}

const BOUNDS: [&str; 20] = [
    "0.5", "1", "5", "10", "25", "50", "100", "250", "500", "1000", "2500", "5000", "10000", "30000", "60000", "300000",
    "600000", "1800000", "3600000", "+Inf",
];

impl Proxy {
    /// `buckets`: how many of the `series` are of histograms. Those grow. `labels`: what every series has besides.
    pub(crate) fn new(target: usize, buckets: usize, series: usize, labels: &str) -> Self {
        let bucket = |index: usize| {
            let (bound, pair) = (BOUNDS[index % BOUNDS.len()], index / BOUNDS.len());
            let (source, destination) = (target % 23, (target + pair) % 29);
            format!(
                "istio_request_duration_milliseconds_bucket{{connection_security_policy=\"mutual_tls\",destination_app=\"app-{destination}\",\
                 destination_canonical_revision=\"v1\",destination_canonical_service=\"app-{destination}\",destination_cluster=\"Kubernetes\",\
                 destination_principal=\"spiffe://cluster.local/ns/webapp/sa/app-{destination}\",\
                 destination_service=\"app-{destination}.webapp.svc.cluster.local\",destination_service_name=\"app-{destination}\",\
                 destination_service_namespace=\"webapp\",destination_version=\"v1\",destination_workload=\"app-{destination}-v1\",\
                 destination_workload_namespace=\"webapp\",grpc_response_status=\"\",reporter=\"destination\",request_protocol=\"http\",\
                 response_code=\"200\",response_flags=\"-\",source_app=\"app-{source}\",source_canonical_revision=\"v1\",\
                 source_canonical_service=\"app-{source}\",source_cluster=\"Kubernetes\",\
                 source_principal=\"spiffe://cluster.local/ns/webapp/sa/app-{source}\",source_version=\"v1\",\
                 source_workload=\"app-{source}-v{pair}\",source_workload_namespace=\"webapp\",target=\"{target}\"{labels},le=\"{bound}\"}}"
            )
        };
        let names = [
            "upstream_rq_total",
            "upstream_rq_timeout",
            "upstream_cx_total",
            "upstream_cx_active",
            "upstream_rq_pending_overflow",
        ];
        let counter = |index: usize| {
            let (name, cluster) = (names[index % names.len()], index / names.len());
            let version = index % 3;
            format!(
                "envoy_cluster_{name}{{cluster_name=\"outbound|80|v{version}|service-{cluster}.webapp.svc.cluster.local\"{labels}}}"
            )
        };
        Self {
            series: (0..buckets).map(bucket).chain((buckets..series).map(counter)).collect(),
            growing: buckets,
            counters: Mutex::new((vec![0; buckets], 0x9e37_79b9_7f4a_7c15 ^ target as u64)),
        }
    }

    /// The next scrape's body. What grows does so by a random number up to twice its mean, which is 0 to 59 by series: traffic is
    /// not even, and must not look so to a store that writes down changes. With `time`, samples say when they were taken.
    pub(crate) fn scrape(&self, time: Option<i64>) -> String {
        let (counters, random) = &mut *self.counters.lock().expect("nobody panics with it");
        let mut text = String::with_capacity(self.series.iter().map(|line| line.len() + 32).sum());
        let time = time.map(|time| format!(" {time}")).unwrap_or_default();
        for (index, line) in self.series.iter().enumerate() {
            let value = match counters.get_mut(index) {
                Some(counter) if index < self.growing => {
                    // Knuth's linear congruential generator; its high bits are good enough.
                    *random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    *counter += (*random >> 33) % (index as u64 % 60 * 2 + 1);
                    *counter
                }
                _ => index as u64,
            };
            writeln!(text, "{line} {value}{time}").expect("a string takes everything");
        }
        text
    }
}

/// Serves `answer` for the number behind the slash; what has no answer is left waiting.
pub(crate) fn serve(runtime: &Runtime, answer: impl Fn(usize) -> Option<String> + Clone + Send + Sync + 'static) -> SocketAddr {
    let listener = runtime.block_on(tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).expect("a port is free");
    let address = listener.local_addr().expect("the listener has an address");
    let handler = async move |Path(target): Path<usize>| match answer(target) {
        Some(body) => body,
        None => std::future::pending().await,
    };
    let router = Router::new().route("/{target}", get(handler));
    runtime.spawn(async move { axum::serve(listener, router).await });
    address
}

/// An address that is free now.
pub(crate) fn free_address() -> SocketAddr {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
    listener.local_addr().expect("the listener has an address")
}

/// The median of some durations.
pub(crate) fn median(mut took: Vec<Duration>) -> Duration {
    took.sort();
    took[took.len() / 2]
}

/// Asks until there is an answer with `part`.
pub(crate) async fn until(url: &str, part: &str) {
    loop {
        if let Ok(response) = reqwest::get(url).await
            && response.text().await.is_ok_and(|text| text.contains(part))
        {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
