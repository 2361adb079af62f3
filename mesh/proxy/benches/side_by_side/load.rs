//! Clients: as many requests as go through, or so many a second whatever comes back.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::report::complain;

/// Connections that send as fast as they get answers.
const SATURATING_CONNECTIONS: usize = 64;
/// Connections that share [`RATE`].
const PACED_CONNECTIONS: u32 = 32;
/// Requests a second, all paced connections together.
pub(crate) const RATE: u32 = 2000;
/// Paced requests that are not judged: connections are opened in this time.
const WARM_UP: Duration = Duration::from_millis(500);

const REQUEST: &[u8] =
    b"GET /reviews/7?page=1 HTTP/1.1\r\nhost: reviews.default.svc.cluster.local\r\nuser-agent: side-by-side/1\r\naccept: */*\r\n\r\n";
/// The backend's body.
const BODY: usize = 1024;

/// What a client has to tell, printed as one line of JSON.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Outcome {
    pub(crate) requests: u64,
    pub(crate) seconds: f64,
    /// Milliseconds.
    pub(crate) p50: f64,
    /// Milliseconds.
    pub(crate) p99: f64,
    /// Milliseconds by which requests left late although their connection was free: of a hundred, the latest but one.
    pub(crate) late_p99: f64,
}

/// One request at a given rate.
struct Paced {
    /// Since the beginning.
    due: Duration,
    /// It left so long after it was due and its connection was free.
    late: Duration,
    /// Its answer was there so long after it was due.
    latency: Duration,
}

/// In milliseconds.
fn percentile(percent: usize, mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    let index = (times.len() * percent / 100).min(times.len().saturating_sub(1));
    times.get(index).map_or(0.0, Duration::as_secs_f64) * 1000.0
}

impl Outcome {
    fn of(latencies: Vec<Duration>, late: Vec<Duration>, requests: u64, took: Duration) -> Self {
        Self {
            requests,
            seconds: took.as_secs_f64(),
            p50: percentile(50, latencies.clone()),
            p99: percentile(99, latencies),
            late_p99: percentile(99, late),
        }
    }

    #[expect(clippy::print_stdout, reason = "how it tells the process that started it")]
    fn print(&self) {
        println!("{}", serde_json::to_string(self).expect("plain numbers"));
    }
}

/// Whether an answer has come to its end.
fn is_whole(seen: &[u8]) -> bool {
    if seen.len() >= 15 && !seen.starts_with(b"HTTP/1.1 200 OK") {
        complain(&format!("not the backend's answer: {}", String::from_utf8_lossy(seen)));
        // Once for all connections.
        std::process::exit(1);
    }
    // The body has no line ends in it.
    seen.len() > BODY && seen.windows(4).rposition(|end| end == b"\r\n\r\n").is_some_and(|head| seen.len() - head - 4 == BODY)
}

/// A closed loop: every connection sends its next request when it has its answer.
pub(crate) fn saturate(address: SocketAddr, seconds: f64) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let outcome = runtime.block_on(async {
        let started = Instant::now();
        let end = started + Duration::from_secs_f64(seconds);
        let mut connections = tokio::task::JoinSet::new();
        for _ in 0..SATURATING_CONNECTIONS {
            connections.spawn(saturate_one(address, end));
        }
        let latencies: Vec<Duration> = connections.join_all().await.into_iter().flatten().collect();
        let requests = latencies.len() as u64;
        Outcome::of(latencies, Vec::new(), requests, started.elapsed())
    });
    outcome.print();
}

async fn saturate_one(address: SocketAddr, end: Instant) -> Vec<Duration> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(address).await.expect("the proxy listens");
    stream.set_nodelay(true).expect("a TCP socket");
    let mut latencies = Vec::new();
    let mut seen = Vec::with_capacity(8192);
    while Instant::now() < end {
        let sent = Instant::now();
        stream.write_all(REQUEST).await.expect("the proxy takes requests");
        seen.clear();
        while !is_whole(&seen) {
            let read = stream.read_buf(&mut seen).await.expect("the proxy answers");
            assert!(read > 0, "the proxy closed a connection");
        }
        latencies.push(sent.elapsed());
    }
    latencies
}

/// An open loop: requests leave when they are due, late answers or not, and time counts from when they were due. Each connection
/// is a thread, which the kernel wakes to some 50 µs, where timers of the runtime go by whole milliseconds.
pub(crate) fn pace(address: SocketAddr, seconds: f64) {
    let started = Instant::now();
    let period = Duration::from_secs(1) * PACED_CONNECTIONS / RATE;
    let threads: Vec<_> = (0..PACED_CONNECTIONS)
        .map(|index| {
            let first = started + period * index / PACED_CONNECTIONS;
            std::thread::spawn(move || pace_one(address, first, period, seconds))
        })
        .collect();
    let all: Vec<Paced> = threads.into_iter().flat_map(|thread| thread.join().expect("a connection")).collect();
    let judged = || all.iter().filter(|request| request.due >= WARM_UP);
    let latencies = judged().map(|request| request.latency).collect();
    let late = judged().map(|request| request.late).collect();
    Outcome::of(latencies, late, all.len() as u64, started.elapsed()).print();
}

fn pace_one(address: SocketAddr, first: Instant, period: Duration, seconds: f64) -> Vec<Paced> {
    let mut stream = TcpStream::connect(address).expect("the proxy listens");
    stream.set_nodelay(true).expect("a TCP socket");
    let mut requests = Vec::new();
    let mut buffer = [0; 8192];
    let mut free = Instant::now();
    for turn in 0.. {
        let due = period * turn;
        if due.as_secs_f64() > seconds {
            break;
        }
        std::thread::sleep((first + due).saturating_duration_since(Instant::now()));
        let late = Instant::now().saturating_duration_since((first + due).max(free));
        stream.write_all(REQUEST).expect("the proxy takes requests");
        let mut filled = 0;
        while !is_whole(&buffer[..filled]) {
            let read = stream.read(&mut buffer[filled..]).expect("the proxy answers");
            assert!(read > 0, "the proxy closed a connection");
            filled += read;
        }
        free = Instant::now();
        requests.push(Paced { due, late, latency: free.saturating_duration_since(first + due) });
    }
    requests
}
