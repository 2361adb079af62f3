//! `histogram_quantile` of classic histograms.

use ahash::AHashMap;

use super::value::Row;
use crate::metrics::exposition::number;
use crate::metrics::labels::{Labels, NAME};

/// Bucket counts that differ by less than this share are taken for equal: rates of one histogram are not exact.
const SMALL: f64 = 1e-12;

/// Upper bounds, with a count for each step.
type Buckets = Vec<(f64, Vec<Option<f64>>)>;

/// The quantile of each histogram in `rows` (series with a label `le`), with a `q` for each step.
pub(super) fn histogram_quantile(quantiles: &[f64], rows: Vec<Row>) -> Vec<Row> {
    let mut histograms: Vec<(Labels, Buckets)> = Vec::new();
    let mut known: AHashMap<Labels, usize> = AHashMap::new();
    for row in rows {
        let Some(bound) = number(row.labels.get("le")) else { continue };
        let labels = row.labels.filtered(|name| name != "le" && name != NAME);
        let index = *known.entry(labels).or_insert_with_key(|labels| {
            histograms.push((labels.clone(), Vec::new()));
            histograms.len() - 1
        });
        histograms[index].1.push((bound, row.values));
    }
    let mut buckets = Vec::new();
    histograms
        .into_iter()
        .map(|(labels, mut bounds)| {
            bounds.sort_by(|a, b| a.0.total_cmp(&b.0));
            let values = quantiles.iter().enumerate().map(|(step, q)| {
                buckets.clear();
                buckets.extend(bounds.iter().filter_map(|(bound, counts)| Some((*bound, (*counts.get(step)?)?))));
                if buckets.is_empty() { None } else { Some(bucket_quantile(*q, &mut buckets)) }
            });
            Row { labels, values: values.collect() }
        })
        .collect()
}

/// The quantile of one histogram: upper bounds in ascending order, with cumulative counts.
fn bucket_quantile(q: f64, buckets: &mut Vec<(f64, f64)>) -> f64 {
    if q.is_nan() {
        return f64::NAN;
    }
    if q < 0.0 {
        return f64::NEG_INFINITY;
    }
    if q > 1.0 {
        return f64::INFINITY;
    }
    if buckets.last().is_none_or(|last| last.0 != f64::INFINITY) {
        return f64::NAN;
    }
    // `1` and `1.0` are one bucket.
    buckets.dedup_by(|next, bucket| {
        let same = next.0 == bucket.0;
        if same {
            bucket.1 += next.1;
        }
        same
    });
    make_monotonic(buckets);
    let (Some(last), true) = (buckets.last(), buckets.len() >= 2) else { return f64::NAN };
    let observations = last.1;
    if observations == 0.0 || observations.is_nan() {
        return f64::NAN;
    }
    let rank = q * observations;
    let highest = buckets.len() - 1;
    let found = buckets[..highest].iter().position(|bucket| bucket.1 >= rank).unwrap_or(highest);
    if found == highest {
        return buckets[highest - 1].0;
    }
    let (end, count) = buckets[found];
    let (start, below) = match found.checked_sub(1) {
        Some(before) => buckets[before],
        None if end <= 0.0 => return end,
        None => (0.0, 0.0),
    };
    start + (end - start) * ((rank - below) / (count - below))
}

fn make_monotonic(buckets: &mut [(f64, f64)]) {
    let Some(mut before) = buckets.first().map(|bucket| bucket.1) else { return };
    for bucket in &mut buckets[1..] {
        let small = (bucket.1 - before).abs() / (bucket.1.abs() + before.abs()).min(f64::MAX) < SMALL;
        if bucket.1 < before || small {
            bucket.1 = before;
        }
        before = bucket.1;
    }
}
