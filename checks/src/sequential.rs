//! Judging a traffic split from live requests, with a stated error rate.
//!
//! Wald's sequential probability ratio test: each category's share `p` is tested against `p + δ` and against `p - δ` as the
//! requests come in, and sampling stops as soon as the evidence is strong enough either way. Nothing is retried until it is
//! green: at most [`SAMPLES`] are judged, and the verdict is wrong with a probability of at most [`ERROR_RATE`] in each direction.
//! A true 60/40 does not pass for 50/50, and a true 95/5 does not fail. The tests compute these probabilities exactly.

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

    /// How one sample of a split in two ends, exactly.
    #[derive(Debug, Clone, Copy, Default)]
    struct Ends {
        pass: f64,
        fail: f64,
        /// Nothing is decided after [`LONGEST`] requests.
        open: f64,
    }

    /// As many requests as the engine sends before it says that a split cannot be told.
    const LONGEST: usize = 20_000;

    /// Follows all ways that the requests can go at once. Of a split in two, one category tells all: its share is tested against
    /// more and against less, and the other category's tests are the same two. As long as a test is open, its ratio follows from
    /// the requests and the hits so far; so a way is told by these and by which of the two tests is still open.
    fn ends(percent: u32, truth: f64) -> Ends {
        let test = SplitTest::new(&split(100 - percent, percent), None);
        let category = &test.categories["v2"];
        let tests = [&category.above, &category.below].map(|test| test.as_ref().expect("an alternative on both sides"));
        // Way → probability; bit 0: the test against more is open, bit 1: the one against less.
        let mut open: [BTreeMap<usize, f64>; 4] = Default::default();
        open[3].insert(0, 1.0);
        let mut ends = Ends::default();
        for requests in 1..=LONGEST {
            let mut next: [BTreeMap<usize, f64>; 4] = Default::default();
            for (tests_open, ways) in open.iter().enumerate() {
                for (&hits, &probability) in ways {
                    for (hit, chance) in [(1, truth), (0, 1.0 - truth)] {
                        let (hits, probability) = (hits + hit, probability * chance);
                        let mut still_open = tests_open;
                        let mut is_off = false;
                        for (bit, ratio) in tests.iter().enumerate().filter(|(bit, _)| tests_open & (1 << bit) != 0) {
                            let log_ratio = hits as f64 * ratio.hit + (requests - hits) as f64 * ratio.miss;
                            is_off |= log_ratio >= test.boundary;
                            still_open &= if log_ratio <= -test.boundary { !(1 << bit) } else { !0 };
                        }
                        match (is_off, still_open) {
                            (true, _) => ends.fail += probability,
                            (false, 0) => ends.pass += probability,
                            // Too improbable to matter, all of them together.
                            (false, _) if probability < 1e-16 => ends.open += probability,
                            (false, open) => *next[open].entry(hits).or_default() += probability,
                        }
                    }
                }
            }
            open = next;
            if open.iter().all(BTreeMap::is_empty) {
                break;
            }
        }
        ends.open += open.iter().flat_map(BTreeMap::values).sum::<f64>();
        ends
    }

    /// What a verdict of up to [`SAMPLES`] samples may be: a pass if one of them passes, a failure if all fail.
    fn verdict(percent: u32, truth: f64) -> Ends {
        let one = ends(percent, truth);
        let pass = 1.0 - (1.0 - one.pass).powi(2);
        Ends { pass, fail: one.fail.powi(2), open: 1.0 - pass - one.fail.powi(2) }
    }

    #[test]
    fn a_true_60_40_never_passes_for_50_50_and_a_true_95_5_never_fails() {
        for percent in [50, 5] {
            let right = verdict(percent, f64::from(percent) / 100.0);
            assert!(right.fail <= ERROR_RATE && right.pass >= 1.0 - ERROR_RATE, "{percent}: {right:?}");
        }
        for (percent, truth) in [(50, 0.6), (50, 0.4), (5, 0.09), (5, 0.01), (5, 0.2), (5, 0.95)] {
            let wrong = verdict(percent, truth);
            assert!(wrong.pass <= ERROR_RATE && wrong.fail >= 1.0 - 2.0 * ERROR_RATE, "{percent} of {truth}: {wrong:?}");
        }
    }

    proptest::proptest! {
        #![proptest_config(proptest::test_runner::Config { cases: 6, ..Default::default() })]

        /// For any weight, what is right passes, and what is off by the margin or more, on either side, does not.
        #[test]
        fn both_error_rates_hold_for_any_weight(percent in 3u32..=97, off in 1.0..1.5f64, above: bool) {
            let share = f64::from(percent) / 100.0;
            let right = verdict(percent, share);
            proptest::prop_assert!(right.fail <= ERROR_RATE, "{percent}: {right:?}");
            let distance = off * default_margin(share);
            let truth = if above { share + distance } else { share - distance };
            if (0.0..=1.0).contains(&truth) {
                let wrong = verdict(percent, truth);
                proptest::prop_assert!(wrong.pass <= ERROR_RATE, "{percent} of {truth}: {wrong:?}");
            }
        }
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
            (0..20).map(|seed| run(&split(expected.0, expected.1), truth, seed).1).sum::<u64>() / 20
        };
        assert!((300..1_500).contains(&mean((50, 50), 0.5)), "{}", mean((50, 50), 0.5));
        assert!((300..2_500).contains(&mean((95, 5), 0.05)), "{}", mean((95, 5), 0.05));
    }
}
