use super::*;
use crate::metrics::chunk::stale;
use crate::metrics::exposition;
use crate::metrics::labels::{NAME, pair};
use crate::metrics::times::{Moment, Timeline};
use crate::metrics::tsdb::Limits;

/// Adds samples every `step` from time 0 on; `None` is a scrape that does not have the series.
fn load(tsdb: &Tsdb, step: Millis, series: &str, values: impl IntoIterator<Item = Option<f64>>) {
    let (name, pairs) = exposition::labels(series).unwrap();
    let pairs = pairs.iter().map(|(name, value)| pair(name, value));
    let mut appender = tsdb.appender();
    let reference = appender.series(Labels::new(std::iter::once(pair(NAME, name)).chain(pairs).collect())).unwrap();
    for (index, value) in values.into_iter().enumerate() {
        if let Some(value) = value {
            appender.append(reference, Sample { time: step * index as i64, value });
        }
    }
}

fn growing(start: f64, by: f64, count: usize) -> impl Iterator<Item = Option<f64>> {
    (0..=count).map(move |index| Some(start + by * index as f64))
}

/// To 12 digits: what is computed by hand does not know the order in which a machine adds.
fn rounded(value: f64) -> String {
    format_number(format!("{value:.11e}").parse().unwrap_or(value))
}

fn lines(answer: Answer) -> String {
    match answer {
        Answer::Scalar(value) => rounded(value),
        Answer::Text(text) => format!("{text:?}"),
        Answer::Vector(samples) => {
            samples.iter().map(|(labels, sample)| format!("{labels} {}", rounded(sample.value))).collect::<Vec<_>>().join("\n")
        }
        Answer::Matrix(series) => matrix(series),
    }
}

fn matrix(series: Vec<(Labels, Vec<Sample>)>) -> String {
    let line = |(labels, samples): (Labels, Vec<Sample>)| {
        let samples = samples.iter().map(|sample| format!("{}@{}", rounded(sample.value), sample.time));
        format!("{labels} {}", samples.collect::<Vec<_>>().join(" "))
    };
    series.into_iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Evaluates at `minutes` after the first sample.
fn ask(tsdb: &Tsdb, query: &str, minutes: f64) -> String {
    instant(tsdb, query, (minutes * 60_000.0) as i64, Budget::default()).map_or_else(|error| format!("error: {error}"), lines)
}

/// Two instances of two jobs, a histogram, and a gauge, every minute.
fn sample() -> Tsdb {
    let tsdb = Tsdb::new(Limits::default());
    load(&tsdb, 60_000, r#"requests_total{job="api",instance="0"}"#, growing(0.0, 60.0, 10));
    load(&tsdb, 60_000, r#"requests_total{job="api",instance="1"}"#, growing(0.0, 120.0, 10));
    load(&tsdb, 60_000, r#"requests_total{job="web",instance="0"}"#, growing(0.0, 30.0, 10));
    load(&tsdb, 60_000, r#"errors_total{job="api",instance="0"}"#, growing(0.0, 6.0, 10));
    load(&tsdb, 60_000, r#"team{job="api",team="blue"}"#, growing(1.0, 0.0, 10));
    for (le, by) in [("0.1", 10.0), ("0.2", 30.0), ("1", 40.0), ("+Inf", 40.0)] {
        load(&tsdb, 60_000, &format!("seconds_bucket{{le=\"{le}\"}}"), growing(0.0, by, 10));
    }
    load(&tsdb, 60_000, "gauge", [1.0, 5.0, 2.0, 8.0, -3.0].map(Some));
    tsdb
}

#[test]
fn selectors_find_the_latest_sample_of_the_last_five_minutes() {
    let tsdb = sample();
    insta::assert_snapshot!(ask(&tsdb, r#"requests_total{job="api"}"#, 2.5), @r#"
    {__name__="requests_total", instance="0", job="api"} 120
    {__name__="requests_total", instance="1", job="api"} 240
    "#);
    insta::assert_snapshot!(ask(&tsdb, r#"{__name__=~"requests.*",instance!="0"}"#, 2.0), @r#"{__name__="requests_total", instance="1", job="api"} 240"#);
    // The last sample is of minute 4; a sample exactly five minutes old is too old.
    assert_eq!(ask(&tsdb, "gauge", 8.99), r#"{__name__="gauge"} -3"#);
    assert_eq!(ask(&tsdb, "gauge", 9.0), "");
    assert_eq!(ask(&tsdb, "gauge offset 1m", 4.0), r#"{__name__="gauge"} 8"#);
    assert_eq!(ask(&tsdb, "gauge offset -1m", 2.0), r#"{__name__="gauge"} 8"#);
    assert_eq!(ask(&tsdb, "gauge @ 60", 4.0), r#"{__name__="gauge"} 5"#);
    assert_eq!(ask(&tsdb, "gauge[2m]", 4.0), r#"{__name__="gauge"} 8@180000 -3@240000"#);
    assert_eq!(ask(&tsdb, "timestamp(gauge)", 2.5), "{} 120");
}

#[test]
fn a_series_that_ended_is_gone_at_once() {
    let tsdb = Tsdb::new(Limits::default());
    load(&tsdb, 60_000, "m", [Some(1.0), Some(2.0), Some(stale()), None, Some(4.0)]);
    assert_eq!(ask(&tsdb, "m", 1.9), r#"{__name__="m"} 2"#);
    assert_eq!(ask(&tsdb, "m", 2.0), "");
    assert_eq!(ask(&tsdb, "m", 4.0), r#"{__name__="m"} 4"#);
    assert_eq!(ask(&tsdb, "count_over_time(m[5m])", 4.0), "{} 3");
}

#[test]
fn rates_are_extrapolated_to_the_edges_of_the_window() {
    let tsdb = sample();
    // Samples at 1..=5 minutes; the first is a whole distance from the window's edge, and the counter does not go below zero.
    insta::assert_snapshot!(ask(&tsdb, r#"rate(requests_total{job="api"}[5m])"#, 5.0), @r#"
    {instance="0", job="api"} 1
    {instance="1", job="api"} 2
    "#);
    assert_eq!(ask(&tsdb, r#"increase(requests_total{job="web"}[2m])"#, 3.5), r#"{instance="0", job="web"} 60"#);
    let resets = Tsdb::new(Limits::default());
    load(&resets, 60_000, "c", [0.0, 10.0, 20.0, 5.0, 15.0].map(Some));
    // 10 → 20 → (reset) 5 → 15: 10 + 5 + 10 = 25 in three minutes, up to 30 s more at each edge of (0:30, 4:30].
    assert_eq!(ask(&resets, "increase(c[4m])", 4.5), "{} 33.3333333333");
    assert_eq!(ask(&resets, "resets(c[10m])", 4.5), "{} 1");
    assert_eq!(ask(&resets, "changes(c[10m])", 4.5), "{} 4");
    assert_eq!(ask(&resets, "irate(c[10m])", 3.5), "{} 0.0833333333333");
    assert_eq!(ask(&resets, "delta(c[2m])", 2.0), "{} 20");
    assert_eq!(ask(&resets, "idelta(c[5m])", 3.0), "{} -15");
    assert_eq!(ask(&resets, "rate(c[30s])", 3.0), "", "one sample has no rate");
}

#[test]
fn deriv_and_prediction_are_least_squares() {
    let tsdb = sample();
    assert_eq!(ask(&tsdb, r#"deriv(requests_total{job="web"}[5m])"#, 5.0), r#"{instance="0", job="web"} 0.5"#);
    assert_eq!(ask(&tsdb, r#"predict_linear(requests_total{job="web"}[5m], 60)"#, 5.0), r#"{instance="0", job="web"} 180"#);
}

#[test]
fn windows_are_summarized() {
    let tsdb = sample();
    let over = |function: &str| ask(&tsdb, &format!("{function}(gauge[10m])"), 4.0);
    let functions = [
        "sum_over_time",
        "avg_over_time",
        "min_over_time",
        "max_over_time",
        "count_over_time",
        "last_over_time",
        "stdvar_over_time",
    ];
    insta::assert_snapshot!(functions.map(over).join("\n"), @r#"
    {} 13
    {} 2.6
    {} -3
    {} 8
    {} 5
    {__name__="gauge"} -3
    {} 13.84
    "#);
    assert_eq!(ask(&tsdb, "quantile_over_time(0.5, gauge[10m])", 4.0), "{} 2");
    assert_eq!(
        ask(&tsdb, "max_over_time(rate(requests_total{job=\"web\"}[2m])[3m:1m])", 5.0),
        r#"{instance="0", job="web"} 0.5"#
    );
    assert_eq!(ask(&tsdb, "absent_over_time(nothing{a=\"b\",c!=\"d\"}[5m])", 4.0), r#"{a="b"} 1"#);
}

#[test]
fn aggregations() {
    let tsdb = sample();
    let at = |query: &str| ask(&tsdb, query, 2.0);
    assert_eq!(at("sum(requests_total)"), "{} 420");
    insta::assert_snapshot!(at("sum by (job) (requests_total)"), @r#"
    {job="api"} 360
    {job="web"} 60
    "#);
    insta::assert_snapshot!(at("avg without (instance) (requests_total)"), @r#"
    {job="api"} 180
    {job="web"} 60
    "#);
    insta::assert_snapshot!(at("topk(2, requests_total)"), @r#"
    {__name__="requests_total", instance="1", job="api"} 240
    {__name__="requests_total", instance="0", job="api"} 120
    "#);
    assert_eq!(at("bottomk(1, requests_total)"), r#"{__name__="requests_total", instance="0", job="web"} 60"#);
    assert_eq!(at("quantile(0.5, requests_total)"), "{} 120");
    assert_eq!(at("stdvar(requests_total)"), "{} 5600");
    assert_eq!(at("group(requests_total)"), "{} 1");
    insta::assert_snapshot!(at(r#"count_values("rank", requests_total > bool 100)"#), @r#"
    {rank="0"} 1
    {rank="1"} 2
    "#);
    assert_eq!(at(r#"count_values("a-b", requests_total)"#), r#"error: invalid label name "a-b""#);
}

#[test]
fn series_of_both_sides_meet_by_their_labels() {
    let tsdb = sample();
    let at = |query: &str| ask(&tsdb, query, 2.0);
    assert_eq!(at("errors_total / requests_total"), r#"{instance="0", job="api"} 0.1"#);
    insta::assert_snapshot!(at("requests_total * on (job) group_left (team) team"), @r#"
    {instance="0", job="api", team="blue"} 120
    {instance="1", job="api", team="blue"} 240
    "#);
    insta::assert_snapshot!(at("team * on (job) requests_total"), @r#"error: found duplicate series for the match group {job="api"} on the right hand-side of the operation: [{__name__="requests_total", instance="1", job="api"}, {__name__="requests_total", instance="0", job="api"}];many-to-many matching not allowed: matching labels must be unique on one side"#);
    assert_eq!(
        at("requests_total * on (job) team"),
        "error: multiple matches for labels: many-to-one matching must be explicit (group_left/group_right)"
    );
    insta::assert_snapshot!(at(r#"requests_total and on (job) team"#), @r#"
    {__name__="requests_total", instance="0", job="api"} 120
    {__name__="requests_total", instance="1", job="api"} 240
    "#);
    assert_eq!(at("requests_total unless on (job) team"), r#"{__name__="requests_total", instance="0", job="web"} 60"#);
    assert_eq!(at("team or nothing"), r#"{__name__="team", job="api", team="blue"} 1"#);
    insta::assert_snapshot!(at("requests_total > 100"), @r#"
    {__name__="requests_total", instance="0", job="api"} 120
    {__name__="requests_total", instance="1", job="api"} 240
    "#);
    assert_eq!(at("100 < bool errors_total"), r#"{instance="0", job="api"} 0"#);
    assert_eq!(at("-errors_total"), r#"{instance="0", job="api"} -12"#);
    assert_eq!(at("2 ^ 3 % 5"), "3");
    assert_eq!(at("1 > bool 2"), "0");
    assert_eq!(at("-1 % 3"), "-1");
}

#[test]
fn histograms() {
    let tsdb = sample();
    // Of 40 a minute: 10 up to 0.1, 20 up to 0.2, 10 up to 1. The 20th is in the middle of the second bucket.
    assert_eq!(ask(&tsdb, "histogram_quantile(0.5, rate(seconds_bucket[5m]))", 5.0), "{} 0.15");
    assert_eq!(ask(&tsdb, "histogram_quantile(0.1, rate(seconds_bucket[5m]))", 5.0), "{} 0.04");
    assert_eq!(ask(&tsdb, "histogram_quantile(1, rate(seconds_bucket[5m]))", 5.0), "{} 1");
    assert_eq!(ask(&tsdb, "histogram_quantile(2, seconds_bucket)", 5.0), "{} +Inf");
    assert_eq!(ask(&tsdb, r#"histogram_quantile(0.5, seconds_bucket{le!="+Inf"})"#, 5.0), "{} NaN");
}

#[test]
fn functions() {
    let tsdb = sample();
    let at = |query: &str| ask(&tsdb, query, 2.0);
    insta::assert_snapshot!(at(r#"label_replace(team, "color", "dark-$1", "team", "(.*)")"#), @r#"{__name__="team", color="dark-blue", job="api", team="blue"} 1"#);
    insta::assert_snapshot!(at(r#"label_join(team, "both", "/", "job", "team")"#), @r#"{__name__="team", both="api/blue", job="api", team="blue"} 1"#);
    assert_eq!(
        at(r#"label_replace(requests_total, "instance", "", "", "")"#),
        "error: vector cannot contain metrics with the same labelset"
    );
    assert_eq!(at("clamp(gauge, 3, 4)"), "{} 3");
    assert_eq!(at("clamp(gauge, 4, 3)"), "");
    assert_eq!(at("round(gauge / 3, 0.1)"), "{} 0.7");
    assert_eq!(at("scalar(gauge) + time()"), "122");
    assert_eq!(at("scalar(requests_total)"), "NaN");
    assert_eq!(at("absent(nothing{job=\"api\"})"), r#"{job="api"} 1"#);
    assert_eq!(at("absent(gauge)"), "");
    assert_eq!(at("day_of_week() * 100 + hour(vector(7200)) + year()"), "{} 2372", "1970-01-01 was a Thursday");
    insta::assert_snapshot!(at(r#"sort_desc({__name__=~"gauge|team"} + 0)"#), @r#"
    {} 2
    {job="api", team="blue"} 1
    "#);
}

#[test]
fn ranges_are_evaluated_at_every_step() {
    let tsdb = sample();
    let ask = |query: &str| {
        range(&tsdb, query, (0, 300_000, 60_000), Budget::default()).map_or_else(|error| format!("error: {error}"), matrix)
    };
    assert_eq!(ask("gauge > 1.5"), r#"{__name__="gauge"} 5@60000 2@120000 8@180000"#);
    assert_eq!(ask("sum(gauge) + sum(gauge @ start())"), "{} 2@0 6@60000 3@120000 9@180000 -2@240000 -2@300000");
    assert_eq!(ask("vector(1) unless gauge < 0"), "{} 1@0 1@60000 1@120000 1@180000");
    insta::assert_snapshot!(ask("topk(1, {__name__=~\"gauge|team\"})"), @r#"
    {__name__="gauge"} 5@60000 2@120000 8@180000
    {__name__="team", job="api", team="blue"} 1@0 1@240000 1@300000
    "#);
    insta::assert_snapshot!(ask("gauge[1m]"), @r#"error: invalid parameter "query": invalid expression type "range vector" for range query, must be Scalar or instant Vector"#);
}

#[test]
fn what_is_wrong_or_not_supported_is_named() {
    let tsdb = sample();
    let at = |query: &str| ask(&tsdb, query, 2.0);
    insta::assert_snapshot!(at("sum(gauge"), @r#"error: invalid parameter "query": parse error: unclosed left parenthesis"#);
    insta::assert_snapshot!(at("rate(gauge)"), @r#"error: invalid parameter "query": parse error: expected type range vector in call to function 'rate', got instant vector"#);
    insta::assert_snapshot!(at("nonsense(gauge)"), @r#"error: invalid parameter "query": parse error: unknown function with name 'nonsense'"#);
    insta::assert_snapshot!(at("histogram_avg(gauge)"), @r#"error: invalid parameter "query": function histogram_avg() is not supported"#);
    insta::assert_snapshot!(at("limitk(1, gauge)"), @r#"error: aggregation limitk is experimental and not supported"#);
    insta::assert_snapshot!(at(r#"{a=~"("}"#), @r#"error: invalid parameter "query": parse error: illegal regex for ("#);
    insta::assert_snapshot!(at("{}"), @r#"error: invalid parameter "query": parse error: vector selector must contain at least one non-empty matcher"#);
    insta::assert_snapshot!(at(&"-".repeat(5000)), @r#"error: invalid parameter "query": parse error: the query has more than 400 operators and parentheses"#);
    insta::assert_snapshot!(at(""), @r#"error: invalid parameter "query": parse error: no expression found in input"#);
}

#[test]
fn deep_nesting_does_not_exhaust_the_stack() {
    let nested = || {
        let tsdb = sample();
        let around = |before: &str| ask(&tsdb, &format!("{}gauge{}", before.repeat(400), ")".repeat(400)), 2.0);
        assert_eq!(around("("), r#"{__name__="gauge"} 2"#);
        assert_eq!(around("abs("), "{} 2");
        assert_eq!(around("sum("), "{} 2");
        assert_eq!(ask(&tsdb, &format!("{}1", "-".repeat(400)), 2.0), "1");
        assert_eq!(ask(&tsdb, &format!("1{}", " + 1".repeat(400)), 2.0), "401");
    };
    std::thread::Builder::new().stack_size(STACK).spawn(nested).unwrap().join().unwrap();
    assert!(selector(&"(".repeat(400)).unwrap_err().to_string().contains("more than 4 operators"));
}

#[test]
fn a_query_has_a_budget() {
    let tsdb = sample();
    let budget = Budget { values: 100, ..Budget::default() };
    let error = range(&tsdb, "requests_total", (0, 600_000, 1000), budget).unwrap_err();
    assert_eq!(error.to_string(), "query processing would load too many samples into memory in query execution");
    let budget = Budget { timeout: Duration::ZERO, ..Budget::default() };
    assert_eq!(instant(&tsdb, "requests_total", 60_000, budget).unwrap_err(), QueryError::Timeout);
    assert!(
        ask(&tsdb, "max_over_time(vector(1)[1000000h:1ms])", 5.0)
            .starts_with("error: query processing would load too many samples")
    );
}

/// Enough series for several threads, with resets, gaps and ends, at their target's times and at their own.
#[test]
fn what_is_folded_as_it_comes_is_what_is_folded_at_once() {
    let tsdb = Tsdb::new(Limits::default());
    let mut timeline = Timeline::default();
    let moments: Vec<_> = (0..60).map(|tick| timeline.at(tick * 5000)).collect();
    let mut appender = tsdb.appender();
    for index in 0..1300_usize {
        let labels = [("__name__", "m"), ("a", ["x", "y", "z"][index % 3]), ("i", &index.to_string())];
        let series = appender.series(Labels::of(labels)).unwrap();
        for (tick, moment) in moments.iter().enumerate().filter(|(tick, _)| index % 17 != 3 || tick % 7 != 2) {
            let value = if index % 13 == 5 && tick == 40 { stale() } else { (tick % (20 + index % 50) * (index % 11)) as f64 };
            let own = Moment::lone(moment.time + index as Millis % 5);
            appender.append_at(series, if index % 5 == 1 { &own } else { moment }, value);
        }
    }
    drop(appender);
    for fold in ["sum", "avg", "min", "max", "count", "group"] {
        for function in ["rate", "delta", "max_over_time", "deriv"] {
            let ask = |selector: &str| {
                let query = format!("{fold} by (a) ({function}({selector}[1m]))");
                matrix(range(&tsdb, &query, (0, 320_000, 15_000), Budget::default()).unwrap())
            };
            let at_once = ask(r#"{__name__=~"m"}"#);
            assert!(at_once.lines().count() == 3 && at_once.len() > 500, "{at_once}");
            assert_eq!(ask("m"), at_once, "{fold} {function}");
        }
    }
}
