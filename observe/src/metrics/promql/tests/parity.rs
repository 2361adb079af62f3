//! The same samples in a real Prometheus and here: the answers agree.
//!
//! Needs `prometheus` and `promtool` (Debian's package `prometheus`): `cargo test -p meshlab-observe -- --ignored parity`.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};

use meshlab_net::OsNet;
use serde_json::Value;

use super::*;
use crate::client::Fetch;
use crate::metrics::labels::is_label_name;

/// Sunday, and a multiple of an hour.
const START: Millis = 1_700_000_000_000 - 1_700_000_000_000 % 3_600_000;
/// Off the samples' times: Prometheus 2 takes a sample at the very edge of a window, Prometheus 3 does not.
const AT: Millis = START + 1_503_217;

/// About 25 minutes of samples, 15 seconds apart and never quite.
fn samples() -> Vec<(String, Vec<Sample>)> {
    let mut series = Vec::new();
    let mut seed = 42_u64;
    let mut random = move || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as f64 / f64::from(1_u32 << 31)
    };
    let times: Vec<Millis> = (0..110).map(|tick| START + 7 + tick * 15_000 + tick * 7919 % 997).collect();
    for (workload, rate) in [("web", 7.0), ("api", 20.0), ("payment", 1.0)] {
        for code in ["200", "404", "503"] {
            let (mut value, reset) = (0.0, random() * 100.0);
            let counter = times.iter().enumerate().map(|(tick, time)| {
                value = if tick == reset as usize { 0.0 } else { value + (random() * rate).floor() };
                Sample { time: *time, value }
            });
            series.push((format!("requests_total{{workload=\"{workload}\",code=\"{code}\"}}"), counter.collect()));
        }
        let gauge = times.iter().map(|time| Sample { time: *time, value: (random() - 0.3) * 1000.0 });
        series.push((format!("load{{workload=\"{workload}\"}}"), gauge.collect()));
        let bounds = ["1", "5", "25", "100", "+Inf"];
        let mut counts = [0.0; 5];
        let mut buckets: Vec<Vec<Sample>> = vec![Vec::new(); 5];
        for time in &times {
            let mut more = 0.0;
            for (count, bucket) in counts.iter_mut().zip(&mut buckets) {
                more += (random() * rate).floor();
                *count += more;
                bucket.push(Sample { time: *time, value: *count });
            }
        }
        for (bound, bucket) in bounds.into_iter().zip(buckets) {
            series.push((format!("latency_bucket{{workload=\"{workload}\",le=\"{bound}\"}}"), bucket));
        }
        series.push((
            format!("info{{workload=\"{workload}\",version=\"v{rate}\"}}"),
            times.iter().map(|time| Sample { time: *time, value: 1.0 }).collect(),
        ));
    }
    let gap = times.iter().enumerate().filter(|(tick, _)| !(20..60).contains(tick));
    series.push(("gappy".to_owned(), gap.map(|(tick, time)| Sample { time: *time, value: tick as f64 }).collect()));
    let strange = [1.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.0, 1e300, 5e-324];
    series.push((
        "strange".to_owned(),
        times.iter().enumerate().map(|(tick, time)| Sample { time: *time, value: strange[tick % 7] }).collect(),
    ));
    series
}

const QUERIES: &[&str] = &[
    "requests_total",
    "requests_total{code=~\"2..|404\"}",
    "requests_total{code!~\"2..\"} offset 3m",
    "requests_total @ 1700000400",
    "rate(requests_total[1m])",
    "rate(requests_total[5m])",
    "rate(requests_total[20s])",
    "increase(requests_total[7m13s])",
    "irate(requests_total[2m])",
    "delta(load[5m])",
    "idelta(load[5m])",
    "deriv(load[10m])",
    "predict_linear(load[10m], 600)",
    "changes(gappy[20m])",
    "resets(requests_total[20m])",
    "rate(gappy[15m])",
    "increase(gappy[20m])",
    "gappy",
    "avg_over_time(load[5m])",
    "sum_over_time(load[5m])",
    "min_over_time(load[5m])",
    "max_over_time(load[5m])",
    "count_over_time(gappy[20m])",
    "last_over_time(gappy[20m])",
    "present_over_time(gappy[20m])",
    "stddev_over_time(load[5m])",
    "stdvar_over_time(load[5m])",
    "quantile_over_time(0.9, load[5m])",
    "absent_over_time(nothing{a=\"b\"}[5m])",
    "min_over_time(strange[5m])",
    "max_over_time(strange[5m])",
    "sum(rate(requests_total[1m]))",
    "sum by (workload) (rate(requests_total[1m]))",
    "sum without (code) (rate(requests_total[1m]))",
    "avg(load)",
    "min(load)",
    "max by (workload) (requests_total)",
    "count(requests_total)",
    "group by (code) (requests_total)",
    "stddev(load)",
    "stdvar by (code) (requests_total)",
    "topk(2, load)",
    "bottomk(2, load)",
    "topk by (workload) (1, requests_total)",
    "quantile(0.75, load)",
    "count_values(\"value\", info)",
    "histogram_quantile(0.95, sum by (le, workload) (rate(latency_bucket[1m])))",
    "histogram_quantile(0.5, rate(latency_bucket[5m]))",
    "histogram_quantile(0.99, sum by (le) (latency_bucket))",
    "histogram_quantile(0, latency_bucket)",
    "histogram_quantile(1.5, latency_bucket)",
    "sum by (workload) (rate(requests_total{code=~\"5..\"}[5m])) / sum by (workload) (rate(requests_total[5m]))",
    "requests_total / on (workload) group_left (version) info",
    "info * on (workload) group_right (version) requests_total",
    "requests_total{code=\"200\"} - ignoring (code) requests_total{code=\"404\"}",
    "requests_total{code=\"200\"} + on (workload) requests_total{code=\"404\"}",
    "load > 0",
    "load > bool 0",
    "0 < load",
    "load == load",
    "requests_total and on (workload) (load > 0)",
    "requests_total unless on (workload) (load > 0)",
    "load or requests_total",
    "(load > 0) or vector(1)",
    "load % 7 + load ^ 2 - -load",
    "sum by (workload) (load atan2 2)",
    "abs(load)",
    "ceil(load) + floor(load)",
    "round(load, 5)",
    "clamp(load, -10, 10)",
    "clamp_min(load, 0)",
    "clamp_max(load, 0)",
    "exp(load / 1000)",
    "ln(load)",
    "log2(abs(load)) + log10(abs(load))",
    "sqrt(load)",
    "sgn(load)",
    "sin(load) + cosh(load / 1000)",
    "scalar(load{workload=\"api\"})",
    "vector(time())",
    "timestamp(load)",
    "timestamp(load + 0)",
    "absent(nothing{a=\"b\"})",
    "absent(load)",
    "day_of_week() + hour() + minute() + month() + year() + day_of_month() + days_in_month() + day_of_year()",
    "label_replace(load, \"short\", \"${1}-x\", \"workload\", \"(.).*\")",
    "label_join(requests_total, \"both\", \"-\", \"workload\", \"code\")",
    "sort(load)",
    "sort_desc(load)",
    "max_over_time(sum(rate(requests_total[1m]))[10m:30s])",
    "avg_over_time(rate(requests_total[1m])[5m:])",
    "sum_over_time((load > 0)[10m:1m] offset 1m)",
    "rate(requests_total[1m] @ end())",
    "strange + 1",
    "sum(strange)",
    "pi() * 2",
    "\"text\"",
    "1 / 0",
    "-1 / 0",
    "0 / 0",
];

struct Prometheus(Child);

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
#[ignore = "needs prometheus and promtool"]
async fn agrees_with_prometheus() {
    let directory = std::env::temp_dir().join(format!("meshlab-parity-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let tsdb = Tsdb::new(Limits::default());
    let mut text = String::new();
    for (series, samples) in samples() {
        let (name, pairs) = exposition::labels(&series).unwrap();
        let mut appender = tsdb.appender();
        let labels = std::iter::once(pair(NAME, name)).chain(pairs.iter().map(|(name, value)| pair(name, value)));
        let reference = appender.series(Labels::new(labels.collect())).unwrap();
        for sample in samples {
            appender.append(reference, sample);
            writeln!(text, "{series} {} {}", format_number(sample.value), sample.time as f64 / 1000.0).unwrap();
        }
    }
    text.push_str("# EOF\n");
    let (input, data) = (directory.join("samples.txt"), directory.join("data"));
    std::fs::write(&input, text).unwrap();
    let status = Command::new("promtool")
        .args(["tsdb", "create-blocks-from", "openmetrics"])
        .arg(&input)
        .arg(&data)
        .stdout(Stdio::null())
        .status();
    assert!(status.expect("promtool is installed").success());
    std::fs::write(directory.join("prometheus.yml"), "").unwrap();
    let address = {
        let free = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        free.local_addr().unwrap()
    };
    let child = Command::new("prometheus")
        .arg(format!("--config.file={}", directory.join("prometheus.yml").display()))
        .arg(format!("--storage.tsdb.path={}", data.display()))
        .args(["--storage.tsdb.retention.time=100y", "--query.lookback-delta=5m", &format!("--web.listen-address={address}")])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let _prometheus = Prometheus(child.expect("prometheus is installed"));
    wait_until_ready(address).await;

    let mut differences = Vec::new();
    for query in QUERIES {
        let escaped: String = url::form_urlencoded::byte_serialize(query.as_bytes()).collect();
        let theirs = get(address, &format!("/api/v1/query?query={escaped}&time={}", AT as f64 / 1000.0)).await.expect(query);
        let ours = instant(&tsdb, query, AT, Budget::default()).unwrap_or_else(|error| panic!("{query}: {error}"));
        compare(query, &ours_as_rows(ours), &rows(&theirs), &mut differences);
        let kind = theirs["data"]["resultType"].as_str();
        if kind == Some("string") {
            continue;
        }
        // Windows that begin long before a counter does are extended otherwise since Prometheus 3.
        let (start, end, step) = (START + 400_113, START + 1_700_113, 61_000);
        let path =
            format!("/api/v1/query_range?query={escaped}&start={}&end={}&step=61", start as f64 / 1000.0, end as f64 / 1000.0);
        let theirs = get(address, &path).await.expect(query);
        let ours = range(&tsdb, query, (start, end, step), Budget::default()).unwrap_or_else(|error| panic!("{query}: {error}"));
        compare(&format!("range of {query}"), &ours_as_rows(Answer::Matrix(ours)), &rows(&theirs), &mut differences);
    }
    std::fs::remove_dir_all(&directory).unwrap();
    assert!(differences.is_empty(), "{} differences\n{}", differences.len(), differences.join("\n"));
}

async fn wait_until_ready(address: SocketAddr) {
    for _ in 0..300 {
        if get_text(address, "/-/ready").await.is_some() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("prometheus is not ready within 30 seconds");
}

async fn get_text(address: SocketAddr, path: &str) -> Option<String> {
    let fetch = Fetch { address, host: "localhost", path, accept: "*/*", timeout: Duration::from_secs(10), max_bytes: 64 << 20 };
    fetch.get(&OsNet).await.ok().map(|body| String::from_utf8_lossy(&body).into_owned())
}

async fn get(address: SocketAddr, path: &str) -> Option<Value> {
    serde_json::from_str(&get_text(address, path).await?).ok()
}

/// Labels and a list of (seconds, value).
type Table = Vec<(String, Vec<(f64, f64)>)>;

fn rows(answer: &Value) -> Table {
    let point = |point: &Value| {
        let value = point[1].as_str().and_then(exposition::number).unwrap_or(f64::NAN);
        (point[0].as_f64().unwrap_or_default(), value)
    };
    let result = &answer["data"]["result"];
    match answer["data"]["resultType"].as_str() {
        Some("scalar") => vec![(String::new(), vec![point(result)])],
        Some("string") => vec![(result[1].to_string(), Vec::new())],
        _ => {
            let row = |row: &Value| {
                let labels = row["metric"].as_object().into_iter().flatten().map(|(name, value)| {
                    assert!(is_label_name(name));
                    (name.as_str(), value.as_str().unwrap_or_default())
                });
                let points = match row["values"].as_array() {
                    Some(points) => points.iter().map(point).collect(),
                    None => vec![point(&row["value"])],
                };
                (Labels::of(labels).to_string(), points)
            };
            result.as_array().into_iter().flatten().map(row).collect()
        }
    }
}

fn ours_as_rows(answer: Answer) -> Table {
    let point = |sample: &Sample| (sample.time as f64 / 1000.0, sample.value);
    match answer {
        Answer::Scalar(value) => vec![(String::new(), vec![(AT as f64 / 1000.0, value)])],
        Answer::Text(text) => vec![(format!("{text:?}"), Vec::new())],
        Answer::Vector(samples) => samples.iter().map(|(labels, sample)| (labels.to_string(), vec![point(sample)])).collect(),
        Answer::Matrix(series) => {
            series.iter().map(|(labels, samples)| (labels.to_string(), samples.iter().map(point).collect())).collect()
        }
    }
}

fn compare(query: &str, ours: &Table, theirs: &Table, differences: &mut Vec<String>) {
    let sorted = |table: &Table| {
        let mut table = table.clone();
        if !query.starts_with("sort") {
            table.sort_by(|a, b| a.0.cmp(&b.0));
        }
        table
    };
    let same = |a: f64, b: f64| a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= 1e-9 * a.abs().max(b.abs());
    let (ours, theirs) = (sorted(ours), sorted(theirs));
    let equal = ours.len() == theirs.len()
        && ours.iter().zip(&theirs).all(|(a, b)| {
            a.0 == b.0 && a.1.len() == b.1.len() && a.1.iter().zip(&b.1).all(|(a, b)| same(a.0, b.0) && same(a.1, b.1))
        });
    if !equal {
        let series = ours.iter().zip(&theirs).find(|(a, b)| !(a.0 == b.0 && a.1.len() == b.1.len()));
        let point = ours.iter().zip(&theirs).flat_map(|(a, b)| a.1.iter().zip(&b.1).map(|points| (&a.0, points)));
        let point = point.into_iter().find(|(_, (a, b))| !(same(a.0, b.0) && same(a.1, b.1)));
        differences.push(format!("{query}: {} and {} series\n  {series:?}\n  {point:?}", ours.len(), theirs.len()));
    }
}
