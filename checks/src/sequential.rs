//! Judging a traffic split from live requests, with a stated error rate.
//!
//! Wald's sequential probability ratio test: each category's share `p` is tested against `p + δ` and against `p - δ` as the
//! requests come in, and sampling stops as soon as the evidence is strong enough either way. Nothing is retried until it is
//! green: at most [`SAMPLES`] are judged, and the verdict is wrong with a probability of at most [`ERROR_RATE`] in each direction. A true 60/40 does not pass for 50/50, and
//! a true 95/5 does not fail.

use std::collections::BTreeMap;

/// The most that either kind of wrong verdict may happen, over the whole test of one split.
pub const ERROR_RATE: f64 = 1e-4;

/// How many samples of one split may be judged, each by a test of its own.
pub const SAMPLES: u32 = 2;

/// What the evidence so far says.
#[derive(Debug, Clone, PartialEq)]
pub enum Decision {
    /// Go on sampling.
    Undecided,
    /// The split is as expected, within the margins.
    AsExpected,
    /// This category's share is not as expected.
    Off {
        /// Its name.
        category: String,
    },
}

/// A running test of one split.
#[derive(Debug, Clone)]
pub struct SplitTest {
    categories: BTreeMap<String, Category>,
    boundary: f64,
    unexpected: Option<String>,
    samples: u64,
}

#[derive(Debug, Clone)]
struct Category {
    share: f64,
    seen: u64,
    above: Option<RatioTest>,
    below: Option<RatioTest>,
}

/// One simple hypothesis against another, both Bernoulli.
#[derive(Debug, Clone)]
struct RatioTest {
    hit: f64,
    miss: f64,
    log_ratio: f64,
    decided: Option<bool>,
}

impl RatioTest {
    fn new(expected: f64, alternative: f64) -> Self {
        let ratio = |p: f64, q: f64| if p == 0.0 && q == 0.0 { 0.0 } else { (p / q).ln() };
        Self { hit: ratio(alternative, expected), miss: ratio(1.0 - alternative, 1.0 - expected), log_ratio: 0.0, decided: None }
    }

    /// `decided` becomes `Some(true)` for the alternative. A decision stays.
    fn observe(&mut self, hit: bool, boundary: f64) {
        if self.decided.is_none() {
            self.log_ratio += if hit { self.hit } else { self.miss };
            if self.log_ratio >= boundary {
                self.decided = Some(true);
            } else if self.log_ratio <= -boundary {
                self.decided = Some(false);
            }
        }
    }
}

/// The margin around an expected share: how far off a split must be for the test to be sure to refuse it.
///
/// A tenth where shares are middling; four fifths of the share (or of its complement) where they are small, because 95/5
/// must be told from 91/9; 2 % where everything, or nothing, is expected.
pub fn default_margin(share: f64) -> f64 {
    let distance = share.min(1.0 - share);
    if distance <= 0.0 { 0.02 } else { (distance * 0.8).min(0.1) }
}

impl SplitTest {
    /// `expected`: category → weight, relative to their sum. `margin` replaces [`default_margin`] for all categories.
    ///
    /// # Panics
    /// When the weights do not sum to something positive: check files are linted for that before.
    pub fn new(expected: &BTreeMap<String, u32>, margin: Option<f64>) -> Self {
        let total: f64 = expected.values().map(|weight| f64::from(*weight)).sum();
        assert!(total > 0.0, "a split needs a positive weight");
        // Two tests a category, and two samples at most; the error rate is shared among them.
        let tests = 2.0 * f64::from(SAMPLES) * expected.len() as f64;
        let boundary = ((1.0 - ERROR_RATE / tests) / (ERROR_RATE / tests)).ln();
        let categories = expected.iter().map(|(name, weight)| {
            let share = f64::from(*weight) / total;
            let margin = margin.unwrap_or_else(|| default_margin(share));
            let alternative = |other: f64| (0.0 < other && other < 1.0).then(|| RatioTest::new(share, other));
            let category = Category { share, seen: 0, above: alternative(share + margin), below: alternative(share - margin) };
            (name.clone(), category)
        });
        Self { categories: categories.collect(), boundary, unexpected: None, samples: 0 }
    }

    /// Takes one observation.
    pub fn observe(&mut self, observed: &str) {
        self.samples += 1;
        if !self.categories.contains_key(observed) {
            self.unexpected.get_or_insert_with(|| observed.to_owned());
        }
        for (name, category) in &mut self.categories {
            let hit = name == observed;
            category.seen += u64::from(hit);
            for test in [&mut category.above, &mut category.below].into_iter().flatten() {
                test.observe(hit, self.boundary);
            }
        }
    }

    /// What the evidence says. A category that is not expected at all decides at once.
    pub fn decision(&self) -> Decision {
        if let Some(category) = &self.unexpected {
            return Decision::Off { category: category.clone() };
        }
        let mut undecided = false;
        for (name, category) in &self.categories {
            for test in [&category.above, &category.below].into_iter().flatten() {
                match test.decided {
                    Some(true) => return Decision::Off { category: name.clone() },
                    Some(false) => {}
                    None => undecided = true,
                }
            }
        }
        if undecided { Decision::Undecided } else { Decision::AsExpected }
    }

    /// How many observations were made.
    pub fn samples(&self) -> u64 {
        self.samples
    }

    /// Category → share expected and share seen, both 0 to 1.
    pub fn shares(&self) -> BTreeMap<&str, (f64, f64)> {
        let share = |seen: u64| if self.samples == 0 { 0.0 } else { seen as f64 / self.samples as f64 };
        self.categories.iter().map(|(name, category)| (name.as_str(), (category.share, share(category.seen)))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A small deterministic generator (SplitMix64), so that a run can be repeated.
    struct Random(u64);

    impl Random {
        fn uniform(&mut self) -> f64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.0;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
        }
    }

    fn split(v1: u32, v2: u32) -> BTreeMap<String, u32> {
        BTreeMap::from([("v1".to_owned(), v1), ("v2".to_owned(), v2)])
    }

    /// Runs the test against traffic whose true share of v2 is `truth`; returns the decision and the requests it took.
    fn run(expected: &BTreeMap<String, u32>, truth: f64, seed: u64) -> (Decision, u64) {
        let mut random = Random(seed);
        let mut test = SplitTest::new(expected, None);
        while test.decision() == Decision::Undecided {
            test.observe(if random.uniform() < truth { "v2" } else { "v1" });
        }
        (test.decision(), test.samples())
    }

    /// Wrong verdicts in 1,000 runs. At an error rate of 1 in 10,000, two or more happen with a probability below 0.5 %.
    fn wrong(expected: (u32, u32), truth: f64, should_pass: bool) -> usize {
        let expected = split(expected.0, expected.1);
        (0..1_000).filter(|seed| (run(&expected, truth, seed * 7919).0 == Decision::AsExpected) != should_pass).count()
    }

    #[test]
    fn true_splits_pass() {
        assert!(wrong((50, 50), 0.5, true) < 2);
        assert!(wrong((95, 5), 0.05, true) < 2);
        assert!(wrong((90, 10), 0.10, true) < 2);
    }

    #[test]
    fn splits_beyond_the_margin_fail() {
        assert!(wrong((50, 50), 0.6, false) < 2);
        assert!(wrong((50, 50), 0.4, false) < 2);
        assert!(wrong((95, 5), 0.09, false) < 2);
        assert!(wrong((95, 5), 0.01, false) < 2);
        assert_eq!(wrong((95, 5), 0.95, false), 0, "weights on the wrong subset");
    }

    #[test]
    fn all_or_nothing_is_decided_by_one_stray_answer_or_by_many_right_ones() {
        let all = BTreeMap::from([("v2".to_owned(), 100)]);
        let (decision, samples) = run(&all, 1.0, 1);
        assert_eq!(decision, Decision::AsExpected);
        assert!(samples > 400, "{samples} requests cannot tell 100 % from 98 % so surely");
        let mut test = SplitTest::new(&all, None);
        test.observe("v1");
        assert_eq!(test.decision(), Decision::Off { category: "v1".to_owned() });
    }

    #[test]
    fn a_split_needs_a_few_hundred_requests() {
        let mean = |expected: (u32, u32), truth: f64| {
            (0..200).map(|seed| run(&split(expected.0, expected.1), truth, seed).1).sum::<u64>() / 200
        };
        assert!((300..1_500).contains(&mean((50, 50), 0.5)), "{}", mean((50, 50), 0.5));
        assert!((300..2_500).contains(&mean((95, 5), 0.05)), "{}", mean((95, 5), 0.05));
    }
}
