//! The Prometheus text format.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::metrics::{BUCKETS, Histogram};

/// Samples by metric, so that each is declared once; equal label sets are added up.
#[derive(Default)]
pub(crate) struct Exposition {
    counters: BTreeMap<String, BTreeMap<String, u64>>,
    gauges: BTreeMap<String, BTreeMap<String, u64>>,
    histograms: BTreeMap<String, BTreeMap<String, Distribution>>,
}

/// Cumulative counts by bucket, the whole count, the sum.
type Distribution = (Vec<u64>, u64, f64);

impl Exposition {
    pub(crate) fn counter(&mut self, name: &str, labels: &[(String, String)], value: u64) {
        *self.counters.entry(name.to_owned()).or_default().entry(render(labels)).or_default() += value;
    }

    pub(crate) fn gauge(&mut self, name: &str, labels: &[(String, String)], value: u64) {
        *self.gauges.entry(name.to_owned()).or_default().entry(render(labels)).or_default() += value;
    }

    pub(crate) fn histogram(&mut self, name: &str, labels: &[(String, String)], histogram: &Histogram) {
        let (cumulative, count, sum) = histogram.read();
        let entry = self.histograms.entry(name.to_owned()).or_default().entry(render(labels)).or_default();
        if entry.0.is_empty() {
            entry.0 = vec![0; cumulative.len()];
        }
        entry.0.iter_mut().zip(&cumulative).for_each(|(total, more)| *total += more);
        entry.1 += count;
        entry.2 += sum;
    }

    pub(crate) fn finish(self) -> String {
        let mut out = String::new();
        // Writing to a string cannot fail.
        let mut line = |arguments: std::fmt::Arguments<'_>| {
            let _ = out.write_fmt(arguments);
        };
        for (kind, families) in [("counter", self.counters), ("gauge", self.gauges)] {
            for (name, samples) in families {
                line(format_args!("# TYPE {name} {kind}\n"));
                for (labels, value) in samples {
                    line(format_args!("{name}{{{labels}}} {value}\n"));
                }
            }
        }
        for (name, samples) in self.histograms {
            line(format_args!("# TYPE {name} histogram\n"));
            for (labels, (cumulative, count, sum)) in samples {
                let comma = if labels.is_empty() { "" } else { "," };
                for (bound, value) in BUCKETS.iter().zip(&cumulative) {
                    line(format_args!("{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {value}\n"));
                }
                line(format_args!("{name}_bucket{{{labels}{comma}le=\"+Inf\"}} {count}\n"));
                line(format_args!("{name}_sum{{{labels}}} {sum}\n"));
                line(format_args!("{name}_count{{{labels}}} {count}\n"));
            }
        }
        out
    }
}

fn render(labels: &[(String, String)]) -> String {
    let mut out = String::new();
    for (index, (name, value)) in labels.iter().enumerate() {
        let comma = if index > 0 { "," } else { "" };
        let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let _ = write!(out, "{comma}{name}=\"{value}\"");
    }
    out
}
