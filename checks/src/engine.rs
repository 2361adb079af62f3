//! Running checks: dependencies, deadlines, controls, and the verdict.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures::stream::{FuturesUnordered, StreamExt};
use meshlab_probe_protocol::Outcome;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::assertion::{self, Mismatch};
use crate::check::{Check, Control, Mode, SplitProbe};
use crate::probe::{ProbeError, Prober, field, observation, send};
use crate::sequential::{Decision, SplitTest};
use crate::{CheckResult, ObjectEdit, Probe, Report, Text, Verdict, edit};

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
    let mut busy = 0;
    let (alone, others) = watch::channel(false);
    loop {
        let mut blocked = Vec::new();
        for index in std::mem::take(&mut waiting) {
            let (step, check) = &checks[index];
            match readiness(check, checks, &results) {
                Readiness::Ready if busy < AT_ONCE || check.mode == Mode::Safeguard => {
                    busy += usize::from(check.mode != Mode::Safeguard);
                    let others = others.clone();
                    running.push(async move {
                        let started = Instant::now();
                        let verdict = judge(prober, check, others).await;
                        (index, result(step, check, verdict, started.elapsed()))
                    });
                }
                Readiness::Ready | Readiness::Waits => blocked.push(index),
                Readiness::Hopeless(because) => {
                    let result = result(step, check, Verdict::Skipped { because }, Duration::ZERO);
                    on_result(&result);
                    results.insert(index, result);
                }
            }
        }
        waiting = blocked;
        // Safeguards hold until nothing else is under way.
        alone.send_replace(busy == 0);
        match running.next().await {
            Some((index, result)) => {
                busy -= usize::from(checks[index].1.mode != Mode::Safeguard);
                on_result(&result);
                results.insert(index, result);
            }
            None if waiting.is_empty() => break,
            // Nothing runs and nothing can start: the needs that are left form a circle, or were skipped just now.
            None if waiting.iter().all(|&index| matches!(readiness(&checks[index].1, checks, &results), Readiness::Waits)) => {
                for index in std::mem::take(&mut waiting) {
                    let (step, check) = &checks[index];
                    let verdict = Verdict::Error { message: circle(), hint: None };
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

fn circle() -> Text {
    Text { ja: "前提とするチェックが循環しています".to_owned(), en: "its needs form a circle".to_owned() }
}

/// One look: what was seen, and where it parts from the expectation.
struct Look {
    seen: Value,
    mismatches: Vec<Mismatch>,
}

async fn judge(prober: &Prober, check: &Check, others: watch::Receiver<bool>) -> Verdict {
    let verdict = match (&check.probe, check.mode) {
        (Probe::Split(split), _) => sample(prober, split).await,
        (_, Mode::Assert) => look(prober, check).await.map(|look| conclude(check, look)),
        (_, Mode::Converge) => converge(prober, check).await,
        (_, Mode::Hold) => {
            let deadline = Instant::now() + check.deadline();
            hold(prober, check, || Instant::now() >= deadline).await
        }
        (_, Mode::Safeguard) => hold(prober, check, || *others.borrow()).await,
    };
    match verdict {
        Ok(Verdict::Fail { mismatches, seen, .. }) => explain(prober, check, mismatches, seen).await,
        Ok(verdict) => verdict,
        Err(error) => Verdict::Error { message: error.message, hint: error.hint },
    }
}

/// A failure with all that helps: what was looked at, what should be there, the hints that fit, and the smallest edit.
async fn explain(prober: &Prober, check: &Check, mismatches: Vec<Text>, seen: Value) -> Verdict {
    let (hints, edit_of_hint) = misconceptions(prober, check, &seen).await;
    let about = check.probe.in_words();
    let pruned = if check.expect.is_null() { seen.clone() } else { assertion::prune(&check.expect, &seen) };
    if check.secret {
        return Verdict::Fail { mismatches, about, expected: Value::Null, seen: pruned, edit: None, hints };
    }
    let edit = edit_of_hint.or_else(|| match &check.probe {
        Probe::Resource(probe) => ObjectEdit::of(probe, edit::smallest(&check.expect, &seen)?),
        _ => None,
    });
    Verdict::Fail { mismatches, about, expected: check.expect.clone(), seen: pruned, edit: edit.map(Box::new), hints }
}

async fn look(prober: &Prober, check: &Check) -> Result<Look, ProbeError> {
    let seen = prober.look(&check.probe).await?;
    let mismatches = assertion::compare(&check.expect, &seen).map_err(ProbeError::of)?;
    // A refusal only counts while the control works: a dead service refuses everybody.
    if let (true, Some(control)) = (mismatches.is_empty(), &check.control) {
        expect_control(prober, control).await?;
    }
    Ok(Look { seen, mismatches })
}

async fn expect_control(prober: &Prober, control: &Control) -> Result<(), ProbeError> {
    let seen = prober.look(&control.probe).await?;
    let mismatches = assertion::compare(&control.expect, &seen).map_err(ProbeError::of)?;
    match mismatches.first() {
        None => Ok(()),
        Some(first) => {
            let Text { ja, en } = first.in_words();
            Err(ProbeError::new(Text {
                ja: format!("通るはずのものが通らないため、拒否されても証明になりません: {ja}"),
                en: format!("the refusal proves nothing, because what should be let through is not: {en}"),
            })
            .with_hint(Text {
                ja: "先にそちらを直してください。このチェックは両方を比べます".to_owned(),
                en: "mend that first: the check compares the two".to_owned(),
            }))
        }
    }
}

fn conclude(check: &Check, look: Look) -> Verdict {
    if look.mismatches.is_empty() {
        return Verdict::Pass;
    }
    with_seen(summarise(&look.mismatches, check.secret), look.seen)
}

fn with_seen(mismatches: Vec<Text>, seen: Value) -> Verdict {
    match Verdict::fail(mismatches) {
        Verdict::Fail { mismatches, about, expected, edit, hints, .. } => {
            Verdict::Fail { mismatches, about, expected, seen, edit, hints }
        }
        verdict => verdict,
    }
}

/// One line for each mismatch; those of a list's items that are alike are one line, with their number.
fn summarise(mismatches: &[Mismatch], secret: bool) -> Vec<Text> {
    let words = |mismatch: &Mismatch| if secret { mismatch.in_words_without_expected() } else { mismatch.in_words() };
    let mut lines: Vec<(Text, usize, Text)> = Vec::new();
    for mismatch in mismatches {
        let general = words(&Mismatch { path: any_item(&mismatch.path), ..mismatch.clone() });
        match lines.iter_mut().find(|(other, _, _)| *other == general) {
            Some((_, count, _)) => *count += 1,
            None => lines.push((general, 1, words(mismatch))),
        }
    }
    let line = |(Text { ja, en }, count, exact): (Text, usize, Text)| match count {
        1 => exact,
        _ => Text { ja: format!("{ja} ({count} 回)"), en: format!("{en} ({count} times)") },
    };
    lines.into_iter().map(line).collect()
}

/// `responses[3].status` → `responses[*].status`.
fn any_item(path: &str) -> String {
    let mut general = String::new();
    for (number, piece) in path.split('[').enumerate() {
        match piece.split_once(']') {
            Some((index, rest)) if number > 0 && index.bytes().all(|byte| byte.is_ascii_digit()) => {
                general.push_str(&format!("[*]{rest}"));
            }
            _ if number > 0 => general.push_str(&format!("[{piece}")),
            _ => general.push_str(piece),
        }
    }
    general
}

async fn converge(prober: &Prober, check: &Check) -> Result<Verdict, ProbeError> {
    let deadline = tokio::time::Instant::now() + check.deadline();
    loop {
        let last = look(prober, check).await;
        match &last {
            Ok(look) if look.mismatches.is_empty() => return Ok(Verdict::Pass),
            _ if tokio::time::Instant::now() + LOOK_AGAIN >= deadline => return last.map(|look| conclude(check, look)),
            _ => tokio::time::sleep(LOOK_AGAIN).await,
        }
    }
}

async fn hold(prober: &Prober, check: &Check, is_over: impl Fn() -> bool) -> Result<Verdict, ProbeError> {
    loop {
        // What is over by now is looked at once more: what changed last counts, too.
        let is_last = is_over();
        let last = look(prober, check).await?;
        if !last.mismatches.is_empty() || is_last {
            return Ok(conclude(check, last));
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
    // Requests that wait for a late answer wait together.
    let batch = SPLIT_BATCH.max(split.concurrency);
    let mut odd: Option<Value> = None;
    while test.decision() == Decision::Undecided {
        if test.samples() >= SPLIT_LIMIT {
            let Text { ja, en } = shares(&test);
            return Err(ProbeError::new(Text {
                ja: format!("{SPLIT_LIMIT} リクエストでも判定できません: {ja}"),
                en: format!("undecided after {SPLIT_LIMIT} requests: {en}"),
            })
            .with_hint(Text {
                ja: "割合が合格と不合格のちょうど境目にあります。重みを確認してください".to_owned(),
                en: "the shares lie just between what passes and what fails; check the weights".to_owned(),
            }));
        }
        for outcome in send(prober, &split.from, &split.request, batch, split.concurrency).await? {
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
            let Text { ja, en } = shares(&test);
            let why = Text {
                ja: format!("{category:?} の割合が期待と違います: {ja}"),
                en: format!("{category:?} does not have the share it should: {en}"),
            };
            Ok(with_seen(vec![why], seen))
        }
        Decision::Undecided => Err(ProbeError::of("the test ended without a decision")),
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
fn shares(test: &SplitTest) -> Text {
    let all = test.shares();
    let each = |word: fn(f64) -> String| {
        let shares = all.iter().map(|(name, (p, seen))| format!("{name} {:.1} % ({})", seen * 100.0, word(p * 100.0)));
        shares.collect::<Vec<_>>().join(", ")
    };
    Text {
        ja: format!("{}、{} リクエスト中", each(|p| format!("期待値 {p:.0} %")), test.samples()),
        en: format!("{}, of {} requests", each(|p| format!("{p:.0} % expected")), test.samples()),
    }
}

/// The hints that fit, and the edit that the first of them knows.
async fn misconceptions(prober: &Prober, check: &Check, seen: &Value) -> (Vec<(String, Text)>, Option<ObjectEdit>) {
    let mut hints = Vec::new();
    let mut edit = None;
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
            let probe = misconception.probe.as_ref().unwrap_or(&check.probe);
            if let (None, Probe::Resource(probe), Some(patch)) = (&edit, probe, &misconception.edit) {
                edit = ObjectEdit::of(probe, patch.clone());
            }
        }
    }
    (hints, edit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mismatches_that_are_alike_are_one_line() {
        let mismatch =
            |path: &str, actual: Value| Mismatch { path: path.to_owned(), expected: Text::same(200), actual: Some(actual) };
        let mismatches = [
            mismatch("responses[0].status", json!(503)),
            mismatch("responses[1].status", json!(503)),
            mismatch("responses[2].status", json!(404)),
            mismatch("labels[\"a.b\"]", json!(1)),
        ];
        let lines = |secret| summarise(&mismatches, secret).into_iter().map(|line| line.en).collect::<Vec<_>>().join("\n");
        insta::assert_snapshot!(lines(true), @r#"
        responses[*].status: got 503 (2 times)
        responses[2].status: got 404
        labels["a.b"]: got 1
        "#);
        insta::assert_snapshot!(lines(false), @r#"
        responses[*].status: expected 200, got 503 (2 times)
        responses[2].status: expected 200, got 404
        labels["a.b"]: expected 200, got 1
        "#);
    }
}
