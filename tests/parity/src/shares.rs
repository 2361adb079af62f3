//! Whether shares are what they should be, with a stated rate of error.
//!
//! Two questions for each outcome: is each proxy's share the expected one (exact binomial test), and do both proxies share alike
//! (Fisher's exact test)? [`ERROR_RATE`] is for the whole suite: a right pair of proxies fails it once in a thousand runs. It is
//! divided by the number of tests.

use std::collections::BTreeMap;

/// The probability that the suite fails though both proxies are right.
pub const ERROR_RATE: f64 = 0.001;

/// Natural logarithm of `n!`, summed once.
fn ln_factorials(n: u64) -> Vec<f64> {
    let mut out = vec![0.0; n as usize + 1];
    for k in 1..out.len() {
        out[k] = out[k - 1] + (k as f64).ln();
    }
    out
}

/// The probability, if each of `n` is a hit with probability `p`, of an outcome as unlikely as `hits` or more so.
pub fn binomial_test(hits: u64, n: u64, p: f64) -> f64 {
    if p <= 0.0 || p >= 1.0 {
        let certain = if p <= 0.0 { 0 } else { n };
        return if hits == certain { 1.0 } else { 0.0 };
    }
    let ln = ln_factorials(n);
    let probability = |k: u64| {
        let combinations = ln[n as usize] - ln[k as usize] - ln[(n - k) as usize];
        (combinations + k as f64 * p.ln() + (n - k) as f64 * (1.0 - p).ln()).exp()
    };
    sum_of_unlikely(probability(hits), (0..=n).map(probability))
}

/// The probability, if both have the same share, that they differ as much as here or more.
pub fn fisher_test(a: u64, of_a: u64, b: u64, of_b: u64) -> f64 {
    let (total, hits) = (of_a + of_b, a + b);
    let ln = ln_factorials(total);
    let combinations = |n: u64, k: u64| ln[n as usize] - ln[k as usize] - ln[(n - k) as usize];
    let probability = |k: u64| (combinations(of_a, k) + combinations(of_b, hits - k) - combinations(total, hits)).exp();
    sum_of_unlikely(probability(a), (hits.saturating_sub(of_b)..=hits.min(of_a)).map(probability))
}

fn sum_of_unlikely(observed: f64, all: impl Iterator<Item = f64>) -> f64 {
    // Rounding must not make an outcome less likely than itself.
    all.filter(|probability| *probability <= observed * (1.0 + 1e-9)).sum()
}

/// Tests that a comparison of these outcomes makes.
pub fn number_of_tests(expected: usize) -> usize {
    expected * 3
}

/// What is wrong with the shares. `threshold` is the error rate of a single test.
pub fn judge(
    ours: &BTreeMap<String, u64>,
    envoy: &BTreeMap<String, u64>,
    n: u64,
    expected: &BTreeMap<String, Option<f64>>,
    threshold: f64,
) -> Vec<String> {
    let mut problems = Vec::new();
    let count = |side: &BTreeMap<String, u64>, outcome: &str| side.get(outcome).copied().unwrap_or(0);
    for (outcome, share) in expected {
        for (side, counts) in [("ours", ours), ("Envoy", envoy)] {
            let Some(share) = *share else { continue };
            let hits = count(counts, outcome);
            let probability = binomial_test(hits, n, share);
            if probability < threshold {
                problems.push(format!("{side}: {outcome:?} {hits} of {n}, expected {share}: p = {probability:.1e}"));
            }
        }
        let (a, b) = (count(ours, outcome), count(envoy, outcome));
        let probability = fisher_test(a, n, b, n);
        if probability < threshold {
            problems.push(format!("{outcome:?}: ours {a} of {n}, Envoy {b} of {n}: p = {probability:.1e}"));
        }
    }
    for (side, counts) in [("ours", ours), ("Envoy", envoy)] {
        for outcome in counts.keys().filter(|outcome| !expected.contains_key(*outcome)) {
            problems.push(format!("{side}: unexpected outcome {outcome:?}, {} of {n}", counts[outcome]));
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_even_split_is_believed_and_a_skewed_one_is_not() {
        assert!(binomial_test(500, 1000, 0.5) > 0.99);
        assert!(binomial_test(400, 1000, 0.5) < 1e-9);
        assert_eq!(binomial_test(0, 10, 0.0), 1.0);
        assert_eq!(binomial_test(1, 10, 0.0), 0.0);
        // By hand: 2 · (1 + 10) / 1024.
        assert!((binomial_test(1, 10, 0.5) - 22.0 / 1024.0).abs() < 1e-12);
    }

    #[test]
    fn two_samples_of_one_share_are_alike() {
        assert!(fisher_test(500, 1000, 510, 1000) > 0.5);
        assert!(fisher_test(500, 1000, 650, 1000) < 1e-9);
        // The lady tasting tea: 3 of 4 and 1 of 4.
        assert!((fisher_test(3, 4, 1, 4) - 34.0 / 70.0).abs() < 1e-12);
    }
}
