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
    ours: Spread,
    envoy: Option<Spread>,
    ratio: Option<Spread>,
    limit: Limit,
}

/// What the turns of a measurement gave.
#[derive(Clone, Copy)]
struct Spread {
    median: f64,
    quartiles: (f64, f64),
}

impl Spread {
    fn of(values: &[f64]) -> Self {
        let mut values = values.to_vec();
        values.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let index = (values.len().saturating_sub(1) as f64 * share).round() as usize;
            values.get(index).copied().unwrap_or(f64::NAN)
        };
        Self { median: at(0.5), quartiles: (at(0.25), at(0.75)) }
    }
}

impl std::fmt::Display for Spread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let number = |value: f64| if value < 1000.0 { format!("{value:.2}") } else { format!("{value:.0}") };
        write!(f, "{} ({}–{})", number(self.median), number(self.quartiles.0), number(self.quartiles.1))
    }
}

impl Row {
    /// The ratio is the middle of the turns' ratios: what disturbs the machine disturbs neighbours alike.
    fn new(what: String, unit: &'static str, limit: Limit, ours: &[f64], envoy: Option<&[f64]>) -> Self {
        let ratios = envoy.map(|envoy| ours.iter().zip(envoy).map(|(ours, envoy)| ours / envoy).collect::<Vec<_>>());
        Self { what, unit, ours: Spread::of(ours), envoy: envoy.map(Spread::of), ratio: ratios.as_deref().map(Spread::of), limit }
    }

    fn text(&self) -> String {
        let text = |value: Option<Spread>| value.map_or_else(|| "–".to_owned(), |value| value.to_string());
        let (judged, limit, unit) = match self.limit {
            Limit::None => (None, None, ""),
            Limit::Ratio(limit) => (self.ratio.map(|ratio| ratio.median), Some(limit), ""),
            Limit::Ours(limit) => (Some(self.ours.median), Some(limit), self.unit),
        };
        let verdict = match judged.zip(limit) {
            Some((judged, limit)) if judged <= limit => "yes",
            Some(_) => "NO",
            None => "",
        };
        let limit = limit.map_or_else(String::new, |limit| format!("{limit} {unit}"));
        let (what, unit) = (&self.what, self.unit);
        format!("| {what} ({unit}) | {} | {} | {} | {limit} | {verdict} |", self.ours, text(self.envoy), text(self.ratio))
    }
}

/// Prints the table of all that was measured: medians and quartiles of the turns.
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
        rows.push(row("the load's own delay then, p99", "ms", Limit::None, |figures| &figures.late_p99));
    }
    rows
}

/// Says what is missing, so that nobody overlooks it.
#[expect(clippy::print_stderr, reason = "a benchmark that cannot run says so")]
pub(crate) fn complain(what: &str) {
    eprintln!("\n*** {what} ***\n");
}
