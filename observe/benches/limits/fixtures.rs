//! What the measurements are made on: targets that look like proxies, and the processor time of threads.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
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

/// Series of one proxy's statistics, with all of Istio's labels: `buckets` of histograms first, then counters of clusters.
pub(crate) fn proxy_series(target: usize, series: usize) -> Vec<String> {
    let bounds = [
        "0.5", "1", "5", "10", "25", "50", "100", "250", "500", "1000", "2500", "5000", "10000", "30000", "60000", "300000",
        "600000", "1800000", "3600000", "+Inf",
    ];
    let mut lines = Vec::with_capacity(series);
    for index in 0..series / 3 {
        let (bound, pair) = (bounds[index % bounds.len()], index / bounds.len());
        let (source, destination) = (target % 23, (target + pair) % 29);
        lines.push(format!(
            "istio_request_duration_milliseconds_bucket{{connection_security_policy=\"mutual_tls\",destination_app=\"app-{destination}\",\
             destination_canonical_revision=\"v1\",destination_canonical_service=\"app-{destination}\",destination_cluster=\"Kubernetes\",\
             destination_principal=\"spiffe://cluster.local/ns/webapp/sa/app-{destination}\",\
             destination_service=\"app-{destination}.webapp.svc.cluster.local\",destination_service_name=\"app-{destination}\",\
             destination_service_namespace=\"webapp\",destination_version=\"v1\",destination_workload=\"app-{destination}-v1\",\
             destination_workload_namespace=\"webapp\",grpc_response_status=\"\",reporter=\"destination\",request_protocol=\"http\",\
             response_code=\"200\",response_flags=\"-\",source_app=\"app-{source}\",source_canonical_revision=\"v1\",\
             source_canonical_service=\"app-{source}\",source_cluster=\"Kubernetes\",\
             source_principal=\"spiffe://cluster.local/ns/webapp/sa/app-{source}\",source_version=\"v1\",\
             source_workload=\"app-{source}-v{pair}\",source_workload_namespace=\"webapp\",target=\"{target}\",le=\"{bound}\"}}"
        ));
    }
    let names =
        ["upstream_rq_total", "upstream_rq_timeout", "upstream_cx_total", "upstream_cx_active", "upstream_rq_pending_overflow"];
    for index in lines.len()..series {
        let (name, cluster) = (names[index % names.len()], index / names.len());
        lines.push(format!(
            "envoy_cluster_{name}{{cluster_name=\"outbound|80|v{}|service-{cluster}.webapp.svc.cluster.local\"}}",
            index % 3
        ));
    }
    lines
}

/// The series as a scrape's body: a third of them (those of the histograms) grows, as with traffic; the others stand still.
pub(crate) fn body(series: &[String], scrape: usize) -> String {
    let mut text = String::with_capacity(series.iter().map(|line| line.len() + 32).sum());
    for (index, line) in series.iter().enumerate() {
        let value = if index < series.len() / 3 { scrape * (50 + index % 20) + index % 7 * scrape / 3 } else { index };
        writeln!(text, "{line} {value}").expect("a string takes everything");
    }
    text
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
