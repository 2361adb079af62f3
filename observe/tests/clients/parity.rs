//! A real Prometheus and ours scrape the same target; whatever is asked, the answers agree.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::routing::get;
use meshlab_observe::StaticTarget;
use serde_json::Value;

use crate::support::{Prometheus, json, ours, query, serve, until};

/// Milliseconds since 1970.
type Millis = i64;

/// How often the target changes: about 25 minutes, in steps of 15 seconds.
const TICKS: usize = 110;

/// A series as the target writes it, and its value at each tick.
type Series = (String, Vec<Option<f64>>);

/// When the samples were taken: about half an hour ago, every 15 seconds, and never quite.
struct Clock {
    /// A whole minute.
    start: Millis,
}

impl Clock {
    fn new() -> Self {
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis() as Millis;
        let start = now - 28 * 60_000;
        Self { start: start - start % 60_000 }
    }

    fn tick(&self, tick: usize) -> Millis {
        let tick = tick as Millis;
        self.start + 7 + tick * 15_000 + tick * 7919 % 997
    }

    /// Off the samples' times: Prometheus 2 takes a sample at the very edge of a window, Prometheus 3 does not.
    fn at(&self) -> Millis {
        self.start + 1_503_217
    }
}

fn series() -> Vec<Series> {
    let mut series = Vec::new();
    let mut seed = 42_u64;
    let mut random = move || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as f64 / f64::from(1_u32 << 31)
    };
    for (workload, rate) in [("web", 7.0), ("api", 20.0), ("payment", 1.0)] {
        for code in ["200", "404", "503"] {
            let (mut value, reset) = (0.0, random() * 100.0);
            let counter = (0..TICKS).map(|tick| {
                value = if tick == reset as usize { 0.0 } else { value + (random() * rate).floor() };
                Some(value)
            });
            series.push((format!("requests_total{{workload=\"{workload}\",code=\"{code}\"}}"), counter.collect()));
        }
        series.push((format!("load{{workload=\"{workload}\"}}"), (0..TICKS).map(|_| Some((random() - 0.3) * 1000.0)).collect()));
        let bounds = ["1", "5", "25", "100", "+Inf"];
        let mut counts = [0.0; 5];
        let mut buckets: Vec<Vec<Option<f64>>> = vec![Vec::new(); 5];
        for _ in 0..TICKS {
            let mut more = 0.0;
            for (count, bucket) in counts.iter_mut().zip(&mut buckets) {
                more += (random() * rate).floor();
                *count += more;
                bucket.push(Some(*count));
            }
        }
        for (bound, bucket) in bounds.into_iter().zip(buckets) {
            series.push((format!("latency_bucket{{workload=\"{workload}\",le=\"{bound}\"}}"), bucket));
        }
        series.push((format!("info{{workload=\"{workload}\",version=\"v{rate}\"}}"), vec![Some(1.0); TICKS]));
    }
    let gap = (0..TICKS).map(|tick| (!(20..60).contains(&tick)).then_some(tick as f64));
    series.push(("gappy".to_owned(), gap.collect()));
    let strange = [1.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.0, 1e300, 5e-324];
    series.push(("strange".to_owned(), (0..TICKS).map(|tick| Some(strange[tick % 7])).collect()));
    series
}

/// What the target says at a tick, with the time of it.
fn body(series: &[Series], clock: &Clock, tick: usize) -> String {
    let mut text = String::new();
    for (name, values) in series {
        if let Some(value) = values[tick] {
            // Go and Rust write all numbers alike but for these.
            let value =
                if value.is_infinite() { if value > 0.0 { "+Inf".into() } else { "-Inf".into() } } else { value.to_string() };
            writeln!(text, "{name} {value} {}", clock.tick(tick)).unwrap();
        }
    }
    text
}

const QUERIES: &[&str] = &[
    "requests_total",
    "requests_total{code=~\"2..|404\"}",
    "requests_total{code!~\"2..\"} offset 3m",
    "requests_total @ AT",
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

#[tokio::test]
async fn sixty_queries_and_more_agree_with_prometheus() {
    const { assert!(QUERIES.len() >= 60) };
    let (clock, tick) = (Arc::new(Clock::new()), Arc::new(AtomicUsize::new(0)));
    let target = {
        let (clock, tick, series) = (clock.clone(), tick.clone(), series());
        serve(Router::new().route("/metrics", get(async move || body(&series, &clock, tick.load(Ordering::SeqCst))))).await
    };
    let job = StaticTarget { job: "app".to_owned(), address: target, path: "/metrics".to_owned() };
    let (ours, _end) = ours(vec![job], Duration::from_millis(20)).await;
    let prometheus =
        Prometheus::start(&[format!("{{job_name: app, static_configs: [{{targets: ['{target}']}}]}}")], "20ms").await;
    let theirs = prometheus.address;
    for now in 0..TICKS {
        tick.store(now, Ordering::SeqCst);
        // The next one comes when both have this one.
        let time = clock.tick(now) as f64 / 1000.0;
        let scraped = async |address| {
            until("the scrape", async || {
                let last = query(address, "max(timestamp(info))", Some(time + 0.001)).await?;
                (last["data"]["result"][0]["value"][1].as_str()?.parse::<f64>().ok()? >= time).then_some(())
            })
            .await;
        };
        tokio::join!(scraped(ours), scraped(theirs));
    }

    let mut differences = Vec::new();
    for text in QUERIES {
        let text = text.replace("AT", &(clock.start / 1000 + 400).to_string());
        let at = clock.at() as f64 / 1000.0;
        let (mine, real) = tokio::join!(query(ours, &text, Some(at)), query(theirs, &text, Some(at)));
        let (mine, real) = (mine.unwrap(), real.unwrap());
        compare(&text, &mine, &real, &mut differences);
        if real["data"]["resultType"] == "string" {
            continue;
        }
        // Windows that begin long before a counter does are extended otherwise since Prometheus 3.
        let (start, end) = ((clock.start + 400_113) as f64 / 1000.0, (clock.start + 1_640_113) as f64 / 1000.0);
        let escaped: String = url::form_urlencoded::byte_serialize(text.as_bytes()).collect();
        let path = format!("/api/v1/query_range?query={escaped}&start={start}&end={end}&step=61");
        let (mine, real) = tokio::join!(json(ours, &path), json(theirs, &path));
        compare(&format!("range of {text}"), &mine.unwrap(), &real.unwrap(), &mut differences);
    }
    assert!(differences.is_empty(), "{} differences\n{}", differences.len(), differences.join("\n"));
}

/// Labels and a list of (seconds, value).
type Table = Vec<(String, Vec<(f64, f64)>)>;

fn rows(query: &str, answer: &Value) -> Table {
    assert_eq!(answer["status"], "success", "{query}: {answer}");
    let point = |point: &Value| {
        let value = match point[1].as_str().unwrap() {
            "+Inf" => f64::INFINITY,
            "-Inf" => f64::NEG_INFINITY,
            text => text.parse().unwrap(),
        };
        (point[0].as_f64().unwrap(), value)
    };
    let result = &answer["data"]["result"];
    let mut table: Table = match answer["data"]["resultType"].as_str().unwrap() {
        "scalar" => vec![(String::new(), vec![point(result)])],
        "string" => vec![(result[1].to_string(), Vec::new())],
        _ => {
            let row = |row: &Value| {
                let points =
                    row["values"].as_array().map_or_else(|| vec![point(&row["value"])], |all| all.iter().map(point).collect());
                (row["metric"].to_string(), points)
            };
            result.as_array().unwrap().iter().map(row).collect()
        }
    };
    if !query.starts_with("sort") {
        table.sort_by(|a, b| a.0.cmp(&b.0));
    }
    table
}

fn compare(query: &str, ours: &Value, theirs: &Value, differences: &mut Vec<String>) {
    let same = |a: f64, b: f64| a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= 1e-9 * a.abs().max(b.abs());
    let (ours, theirs) = (rows(query, ours), rows(query, theirs));
    let equal = ours.len() == theirs.len()
        && ours.iter().zip(&theirs).all(|(a, b)| {
            a.0 == b.0 && a.1.len() == b.1.len() && a.1.iter().zip(&b.1).all(|(a, b)| same(a.0, b.0) && same(a.1, b.1))
        });
    if !equal {
        let series = ours.iter().zip(&theirs).find(|(a, b)| !(a.0 == b.0 && a.1.len() == b.1.len()));
        let mut points = ours.iter().zip(&theirs).flat_map(|(a, b)| a.1.iter().zip(&b.1).map(|points| (&a.0, points)));
        let point = points.find(|(_, (a, b))| !(same(a.0, b.0) && same(a.1, b.1)));
        differences.push(format!("{query}: {} and {} series\n  {series:?}\n  {point:?}", ours.len(), theirs.len()));
    }
}
