//! Running checks: dependencies, deadlines, controls, and the verdict.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures::stream::{FuturesUnordered, StreamExt};
use meshlab_probe_protocol::Outcome;
use serde_json::{Value, json};

use crate::assertion::{self, Mismatch};
use crate::check::{Check, Control, Mode, SplitProbe};
use crate::probe::{ProbeError, Prober, field, observation, send};
use crate::sequential::{Decision, SplitTest};
use crate::{CheckResult, Probe, Report, Text, Verdict};

/// Between two looks at a check that converges or holds.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Checks under way at the same time: enough to hide waiting, few enough not to disturb each other's timings.
const AT_ONCE: usize = 6;

/// Between the two samples of a split.
const SETTLE: Duration = Duration::from_secs(1);

/// Requests sent between two looks at a sequential test.
const SPLIT_BATCH: u32 = 100;

/// A split that is still open after so many requests cannot be told: it lies between what passes and what fails.
const SPLIT_LIMIT: u64 = 20_000;

/// Runs `checks` (step id and check), in parallel as far as their needs allow. `on_result` hears of each as it ends.
pub async fn run(lab: &str, prober: &Prober, checks: &[(String, Check)], mut on_result: impl FnMut(&CheckResult)) -> Report {
    let mut results: BTreeMap<usize, CheckResult> = BTreeMap::new();
    let mut waiting: Vec<usize> = (0..checks.len()).collect();
    let mut running = FuturesUnordered::new();
    loop {
        let mut blocked = Vec::new();
        for index in std::mem::take(&mut waiting) {
            let (step, check) = &checks[index];
            match readiness(check, checks, &results) {
                Readiness::Ready if running.len() < AT_ONCE => running.push(async move {
                    let started = Instant::now();
                    let verdict = judge(prober, check).await;
                    (index, result(step, check, verdict, started.elapsed()))
                }),
                Readiness::Ready | Readiness::Waits => blocked.push(index),
                Readiness::Hopeless(because) => {
                    let result = result(step, check, Verdict::Skipped { because }, Duration::ZERO);
                    on_result(&result);
                    results.insert(index, result);
                }
            }
        }
        waiting = blocked;
        match running.next().await {
            Some((index, result)) => {
                on_result(&result);
                results.insert(index, result);
            }
            None if waiting.is_empty() => break,
            // Nothing runs and nothing can start: the needs that are left form a circle, or were skipped just now.
            None if waiting.iter().all(|&index| matches!(readiness(&checks[index].1, checks, &results), Readiness::Waits)) => {
                for index in std::mem::take(&mut waiting) {
                    let (step, check) = &checks[index];
                    let verdict = Verdict::Error { message: "its needs form a circle".to_owned(), hint: None };
                    results.insert(index, result(step, check, verdict, Duration::ZERO));
                }
            }
            None => {}
        }
    }
    Report { lab: lab.to_owned(), results: results.into_values().collect() }
}

enum Readiness {
    Ready,
    Waits,
    Hopeless(String),
}

/// A need that is not among the checks of this run is not waited for: who asks for one check gets that one.
fn readiness(check: &Check, checks: &[(String, Check)], results: &BTreeMap<usize, CheckResult>) -> Readiness {
    let mut waits = false;
    for need in &check.needs {
        let Some(index) = checks.iter().position(|(_, other)| &other.id == need) else { continue };
        match results.get(&index).map(|result| &result.verdict) {
            None => waits = true,
            Some(Verdict::Pass) => {}
            Some(_) => return Readiness::Hopeless(need.clone()),
        }
    }
    if waits { Readiness::Waits } else { Readiness::Ready }
}

fn result(step: &str, check: &Check, verdict: Verdict, duration: Duration) -> CheckResult {
    CheckResult {
        id: check.id.clone(),
        step: step.to_owned(),
        title: check.title.clone(),
        why: check.why.clone(),
        fix: check.fix.clone(),
        weight: check.weight,
        verdict,
        duration,
    }
}

/// One look: what was seen, and where it parts from the expectation.
struct Look {
    seen: Value,
    mismatches: Vec<Mismatch>,
}

async fn judge(prober: &Prober, check: &Check) -> Verdict {
    let verdict = match (&check.probe, check.mode) {
        (Probe::Split(split), _) => sample(prober, split).await,
        (_, Mode::Assert) => look(prober, check).await.map(conclude),
        (_, Mode::Converge) => converge(prober, check).await,
        (_, Mode::Hold) => hold(prober, check).await,
    };
    match verdict {
        Ok(Verdict::Fail { mismatches, seen, .. }) => {
            let hints = misconceptions(prober, check, &seen).await;
            let seen = if check.expect.is_null() { seen } else { assertion::prune(&check.expect, &seen) };
            Verdict::Fail { mismatches, seen, hints }
        }
        Ok(verdict) => verdict,
        Err(error) => Verdict::Error { message: error.message, hint: error.hint },
    }
}

async fn look(prober: &Prober, check: &Check) -> Result<Look, ProbeError> {
    let seen = prober.look(&check.probe).await?;
    let mismatches = assertion::compare(&check.expect, &seen).map_err(ProbeError::new)?;
    // A refusal only counts while the control works: a dead service refuses everybody.
    if let (true, Some(control)) = (mismatches.is_empty(), &check.control) {
        expect_control(prober, control).await?;
    }
    Ok(Look { seen, mismatches })
}

async fn expect_control(prober: &Prober, control: &Control) -> Result<(), ProbeError> {
    let seen = prober.look(&control.probe).await?;
    let mismatches = assertion::compare(&control.expect, &seen).map_err(ProbeError::new)?;
    match mismatches.first() {
        None => Ok(()),
        Some(first) => {
            let message = format!("the refusal proves nothing, because what should be let through is not: {first}");
            Err(ProbeError::new(message).with_hint("mend that first: the check compares the two"))
        }
    }
}

fn conclude(look: Look) -> Verdict {
    if look.mismatches.is_empty() {
        return Verdict::Pass;
    }
    let mismatches = look.mismatches.iter().map(Mismatch::to_string).collect();
    Verdict::Fail { mismatches, seen: look.seen, hints: Vec::new() }
}

async fn converge(prober: &Prober, check: &Check) -> Result<Verdict, ProbeError> {
    let deadline = tokio::time::Instant::now() + check.deadline();
    loop {
        let last = look(prober, check).await;
        match &last {
            Ok(look) if look.mismatches.is_empty() => return Ok(Verdict::Pass),
            _ if tokio::time::Instant::now() + LOOK_AGAIN >= deadline => return last.map(conclude),
            _ => tokio::time::sleep(LOOK_AGAIN).await,
        }
    }
}

async fn hold(prober: &Prober, check: &Check) -> Result<Verdict, ProbeError> {
    let deadline = tokio::time::Instant::now() + check.deadline();
    loop {
        let last = look(prober, check).await?;
        if !last.mismatches.is_empty() || tokio::time::Instant::now() >= deadline {
            return Ok(conclude(last));
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Judges a split by one sample, and by a second one where the first says no: what was just applied takes a moment to reach every
/// proxy. Both are foreseen in the error rate; there is no third.
async fn sample(prober: &Prober, split: &SplitProbe) -> Result<Verdict, ProbeError> {
    let first = sample_once(prober, split).await?;
    if first == Verdict::Pass {
        return Ok(first);
    }
    tokio::time::sleep(SETTLE).await;
    sample_once(prober, split).await
}

/// Samples a split until the test decides. A response without the wanted field counts as `status 503` (or what it
/// was), and a request without a response as the kind of its error (`timeout`), so that a route that fails is seen to.
async fn sample_once(prober: &Prober, split: &SplitProbe) -> Result<Verdict, ProbeError> {
    let mut test = SplitTest::new(&split.shares, split.margin);
    let mut odd: Option<Value> = None;
    while test.decision() == Decision::Undecided {
        if test.samples() >= SPLIT_LIMIT {
            let message = format!("undecided after {SPLIT_LIMIT} requests: {}", shares(&test));
            return Err(
                ProbeError::new(message).with_hint("the shares lie just between what passes and what fails; check the weights")
            );
        }
        for outcome in send(prober, &split.from, &split.request, SPLIT_BATCH, split.concurrency).await? {
            let (category, seen) = categorise(&outcome, &split.by);
            if !split.shares.contains_key(&category) {
                odd.get_or_insert(seen);
            }
            test.observe(&category);
            if test.decision() != Decision::Undecided {
                break;
            }
        }
    }
    match test.decision() {
        Decision::AsExpected => Ok(Verdict::Pass),
        Decision::Off { category } => {
            let seen_shares: BTreeMap<&str, f64> = test.shares().into_iter().map(|(name, (_, seen))| (name, seen)).collect();
            let seen = json!({"shares": seen_shares, "requests": test.samples(), "odd": odd});
            let why = format!("{category:?} does not have the share it should: {}", shares(&test));
            Ok(Verdict::Fail { mismatches: vec![why], seen, hints: Vec::new() })
        }
        Decision::Undecided => Err(ProbeError::new("the test ended without a decision")),
    }
}

fn categorise(outcome: &Outcome, by: &str) -> (String, Value) {
    let seen = observation(outcome);
    let category = field(&seen, by).unwrap_or_else(|| match outcome.status {
        Some(status) => format!("status {status}"),
        None => field(&seen, "error.kind").unwrap_or_else(|| "nothing".to_owned()),
    });
    (category, seen)
}

/// `v1 48.2 % (50 % expected), v2 …, of 731 requests`
fn shares(test: &SplitTest) -> String {
    let shares = test.shares().into_iter();
    let shares: Vec<String> =
        shares.map(|(name, (p, seen))| format!("{name} {:.1} % ({:.0} % expected)", seen * 100.0, p * 100.0)).collect();
    format!("{}, of {} requests", shares.join(", "), test.samples())
}

async fn misconceptions(prober: &Prober, check: &Check, seen: &Value) -> Vec<(String, Text)> {
    let mut hints = Vec::new();
    for misconception in &check.misconceptions {
        let looked;
        let seen = match &misconception.probe {
            None => seen,
            Some(probe) => match prober.look(probe).await {
                Ok(value) => {
                    looked = value;
                    &looked
                }
                // A hint that cannot be looked for is left out; the verdict does not depend on it.
                Err(_) => continue,
            },
        };
        if assertion::compare(&misconception.when, seen).is_ok_and(|mismatches| mismatches.is_empty()) {
            hints.push((misconception.id.clone(), misconception.hint.clone()));
        }
    }
    hints
}
