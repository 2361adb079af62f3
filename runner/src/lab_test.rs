//! `lab test`: a lab proves itself. Each step's starter must fail, its solution must pass, and each broken variant must fail at
//! the check it names and be told its own hint. Every step has a cluster of its own, in this process.

use std::time::Duration;

use meshlab_checks::{Check, ControlCase, Lab, Mode, ObjectEdit, Prober, Step, Verdict};

use crate::apply::{apply, delete, patch};
use crate::error::CommandError;
use crate::serve::{self, LabCluster};
use crate::steps::{self, objects};

/// How long a broken variant may take to show.
const CONTROL_DEADLINE: Duration = Duration::from_secs(10);

/// Between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Tests a lab, or one step of it. `say` hears each finding; returns how many were failures.
///
/// # Errors
/// The lab cannot be run at all.
pub async fn test(lab: &Lab, only: Option<&str>, mut say: impl FnMut(String)) -> Result<usize, CommandError> {
    let mut failures = 0;
    for (index, step) in lab.steps.iter().enumerate() {
        if only.is_some_and(|name| lab.step(name).is_none_or(|wanted| wanted.file.id != step.file.id)) {
            continue;
        }
        let mut test = StepTest::start(lab, index).await?;
        test.starter_fails().await;
        test.solution_passes().await?;
        for case in &step.controls {
            test.control_fails(case).await?;
            test.report(&mut failures, &mut say);
        }
        test.report(&mut failures, &mut say);
        test.cluster.stop().await;
    }
    Ok(failures)
}

struct StepTest<'a> {
    lab: &'a Lab,
    step: &'a Step,
    cluster: LabCluster,
    findings: Vec<(bool, String)>,
}

impl<'a> StepTest<'a> {
    /// A cluster where the steps before this one are solved.
    async fn start(lab: &'a Lab, index: usize) -> Result<Self, CommandError> {
        let cluster = serve::start_cluster(lab, None).await?;
        for earlier in &lab.steps[..index] {
            steps::apply_solution(&cluster.client(), earlier).await?;
        }
        let step = &lab.steps[index];
        apply(&cluster.client(), &objects(&step.starter)?).await?;
        Ok(Self { lab, step, cluster, findings: Vec::new() })
    }

    fn report(&mut self, failures: &mut usize, say: &mut impl FnMut(String)) {
        for (holds, finding) in std::mem::take(&mut self.findings) {
            *failures += usize::from(!holds);
            say(format!("{} {}: {finding}", if holds { "✓" } else { "✗" }, self.step.file.id));
        }
    }

    async fn starter_fails(&mut self) {
        let results = self.run(&self.step.checks).await;
        let failed = results.iter().filter(|(_, verdict)| matches!(verdict, Verdict::Fail { .. })).count();
        self.findings.push((failed > 0, format!("the starter fails ({failed} checks)")));
        // Who hands in nothing gets no points.
        let earns = |id: &str| self.step.checks.iter().any(|check| check.id == id && check.weight > 0);
        let given: Vec<&str> =
            results.iter().filter(|(id, verdict)| *verdict == Verdict::Pass && earns(id)).map(|(id, _)| id.as_str()).collect();
        if !given.is_empty() {
            let finding =
                format!("the starter earns points by {}: what passes before any work needs `weight: 0`", given.join(", "));
            self.findings.push((false, finding));
        }
    }

    async fn solution_passes(&mut self) -> Result<(), CommandError> {
        steps::apply_solution(&self.cluster.client(), self.step).await?;
        let results = self.run(&self.step.checks).await;
        let count = results.len();
        let wrong: Vec<String> = results
            .into_iter()
            .filter(|(_, verdict)| *verdict != Verdict::Pass)
            .map(|(id, verdict)| format!("\n    {id}: {}", explain(&verdict)))
            .collect();
        let finding = format!("the solution passes ({} of {count} checks){}", count - wrong.len(), wrong.concat());
        self.findings.push((wrong.is_empty(), finding));
        Ok(())
    }

    /// Applies the broken variant, looks at the check it names, and brings the solution back.
    async fn control_fails(&mut self, case: &ControlCase) -> Result<(), CommandError> {
        let client = self.cluster.client();
        let broken = case
            .apply(&self.step.solution)
            .map_err(|problem| CommandError::failed(format!("control {}: {problem}", case.name)))?;
        let broken = objects(&broken)?;
        let missing: Vec<_> = objects(&self.step.solution)?.into_iter().filter(|object| !contains(&broken, object)).collect();
        delete(&client, &missing).await?;
        let refused = apply(&client, &broken).await.err();
        // Only what is said of namespaces decides on injection; anything else needs no new pods.
        let restart = namespaces(&broken) != namespaces(&objects(&self.step.solution)?);
        if restart {
            steps::restart(&client, &self.step.file.restart).await?;
        }

        let (mut holds, mut finding, edit) = self.fails_at(case).await;
        if let (true, Some(edit)) = (holds, edit) {
            (holds, finding) = self.edit_passes(case, &edit).await?;
        }
        let refused = refused.map_or_else(String::new, |error| format!(" (refused when applied: {})", error.message));
        self.findings.push((holds, format!("control {}: {finding}{refused}", case.name)));

        let surplus: Vec<_> = broken.into_iter().filter(|object| !self.is_solution(object)).collect();
        delete(&client, &surplus).await?;
        if restart {
            return steps::apply_solution(&client, self.step).await;
        }
        apply(&client, &objects(&self.step.solution)?).await
    }

    /// Looks at the named check until it fails as it should, or for so long that it never will: what was applied takes a moment
    /// to reach every proxy.
    async fn fails_at(&self, case: &ControlCase) -> (bool, String, Option<ObjectEdit>) {
        let Some(check) = self.step.checks.iter().find(|check| check.id == case.fails) else {
            return (false, format!("{} is no check of this step", case.fails), None);
        };
        let check = Check { mode: Mode::Assert, ..check.clone() };
        let deadline = tokio::time::Instant::now() + CONTROL_DEADLINE;
        loop {
            let verdict = self.run(std::slice::from_ref(&check)).await.pop();
            let finding = match verdict {
                Some((_, Verdict::Fail { hints, edit, .. })) => match &case.told {
                    Some(wanted) if !hints.iter().any(|(id, _)| id == wanted) => format!("fails, but is not told {wanted:?}"),
                    _ => return (true, "fails where it should".to_owned(), edit.map(|edit| *edit)),
                },
                Some((_, verdict)) => format!("should fail at {}, but: {}", case.fails, explain(&verdict)),
                None => format!("{} was not looked at", case.fails),
            };
            if tokio::time::Instant::now() >= deadline {
                return (false, finding, None);
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// The smallest edit that a learner is told must make the check pass.
    async fn edit_passes(&self, case: &ControlCase, edit: &ObjectEdit) -> Result<(bool, String), CommandError> {
        patch(&self.cluster.client(), edit).await?;
        let check: Vec<Check> = self.step.checks.iter().filter(|check| check.id == case.fails).cloned().collect();
        Ok(match self.run(&check).await.pop() {
            Some((_, Verdict::Pass)) => (true, "fails where it should, and passes after the smallest edit".to_owned()),
            Some((_, verdict)) => (false, format!("does not pass after `{edit}`: {}", explain(&verdict))),
            None => (false, format!("{} was not looked at", case.fails)),
        })
    }

    fn is_solution(&self, object: &serde_json::Value) -> bool {
        objects(&self.step.solution).is_ok_and(|solution| contains(&solution, object))
    }

    async fn run(&self, checks: &[Check]) -> Vec<(String, Verdict)> {
        let prober = Prober::new(self.cluster.client(), self.lab.file.clients.clone());
        let checks: Vec<_> = checks.iter().map(|check| (self.step.file.id.clone(), check.clone())).collect();
        let report = meshlab_checks::run(&self.lab.file.name, &prober, &checks, |_| {}).await;
        report.results.into_iter().map(|result| (result.id, result.verdict)).collect()
    }
}

fn namespaces(objects: &[serde_json::Value]) -> Vec<&serde_json::Value> {
    objects.iter().filter(|object| object["kind"] == "Namespace").collect()
}

fn contains(objects: &[serde_json::Value], object: &serde_json::Value) -> bool {
    objects.iter().any(|other| steps::identity(other) == steps::identity(object))
}

fn explain(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Pass => "it passes".to_owned(),
        Verdict::Fail { mismatches, seen, .. } => {
            format!("{}; seen {seen}", mismatches.iter().map(|mismatch| mismatch.en.as_str()).collect::<Vec<_>>().join("; "))
        }
        Verdict::Skipped { because } => format!("skipped because of {because}"),
        Verdict::Error { message, .. } => format!("could not be measured: {}", message.en),
    }
}
