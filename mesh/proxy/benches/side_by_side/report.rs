//! The table.

use crate::load::RATE;
use crate::scenario::{Figures, Kind};

/// What the issue asks for.
#[derive(Clone, Copy)]
enum Limit {
    None,
    /// Of ours to Envoy's.
    Ratio(f64),
    /// Of ours alone, in the row's unit.
    Ours(f64),
}

/// One line.
struct Row {
    what: String,
    unit: &'static str,
    ours: f64,
    envoy: Option<f64>,
    ratio: Option<f64>,
    limit: Limit,
}

impl Row {
    /// The ratio is the middle of the rounds' ratios: what disturbs the machine disturbs neighbours in a round alike.
    fn new(what: String, unit: &'static str, limit: Limit, ours: &[f64], envoy: Option<&[f64]>) -> Self {
        let ratios = envoy.map(|envoy| ours.iter().zip(envoy).map(|(ours, envoy)| ours / envoy).collect::<Vec<_>>());
        Self { what, unit, ours: median(ours), envoy: envoy.map(median), ratio: ratios.as_deref().map(median), limit }
    }

    fn text(&self) -> String {
        let number = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), |value| format!("{value:.2}"));
        let (judged, limit, unit) = match self.limit {
            Limit::None => (None, None, ""),
            Limit::Ratio(limit) => (self.ratio, Some(limit), ""),
            Limit::Ours(limit) => (Some(self.ours), Some(limit), self.unit),
        };
        let verdict = match judged.zip(limit) {
            Some((judged, limit)) if judged <= limit => "yes",
            Some(_) => "NO",
            None => "",
        };
        let limit = limit.map_or_else(String::new, |limit| format!("{limit} {unit}"));
        let (what, unit) = (&self.what, self.unit);
        format!("| {what} ({unit}) | {:.2} | {} | {} | {limit} | {verdict} |", self.ours, number(self.envoy), number(self.ratio))
    }
}

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Prints the table of all that was measured: medians of the rounds.
#[expect(clippy::print_stdout, reason = "a benchmark's result")]
pub(crate) fn print(measured: &[(Kind, Figures)]) {
    println!("| | ours | Envoy | ratio | at most | met |\n|---|---|---|---|---|---|");
    for kind in [Kind::Plain, Kind::Pair, Kind::PairHttp2] {
        let mut of_kind = measured.iter().filter(|(measured, _)| *measured == kind).map(|(_, figures)| figures);
        if let Some(ours) = of_kind.next() {
            rows(kind, ours, of_kind.next()).iter().for_each(|row| println!("{}", row.text()));
        }
    }
}

fn rows(kind: Kind, ours: &Figures, envoy: Option<&Figures>) -> Vec<Row> {
    let (way, limit) = match kind {
        Kind::Plain => ("plain hop", Limit::Ratio(0.45)),
        Kind::Pair => ("sidecar pair with mTLS", Limit::Ratio(0.55)),
        Kind::PairHttp2 => ("sidecar pair with mTLS, HTTP/2 between", Limit::None),
    };
    let row = |what: &str, unit, limit, of: fn(&Figures) -> &[f64]| {
        Row::new(format!("{way}: {what}"), unit, limit, of(ours), envoy.map(of))
    };
    let mut rows = vec![
        row("CPU of a request", "µs", limit, |figures| &figures.cpu),
        row("requests at saturation", "1/s", Limit::None, |figures| &figures.throughput),
        row("resident memory of one proxy under load", "MiB", Limit::Ours(20.0), |figures| &figures.resident),
    ];
    if kind == Kind::Pair {
        rows.push(row(&format!("p50 at {RATE} rps"), "ms", Limit::None, |figures| &figures.p50));
        rows.push(row(&format!("p99 at {RATE} rps"), "ms", Limit::Ratio(0.8), |figures| &figures.p99));
    }
    rows
}

/// Says what is missing, so that nobody overlooks it.
#[expect(clippy::print_stderr, reason = "a benchmark that cannot run says so")]
pub(crate) fn complain(what: &str) {
    eprintln!("\n*** {what} ***\n");
}
