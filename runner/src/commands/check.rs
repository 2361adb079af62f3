//! `check`: proves steps or single checks.

use std::io::IsTerminal;

use meshlab_checks::report::{self, Format, Style, result_text, summary_text};
use meshlab_checks::{Check, Prober, Report};

use super::Session;
use crate::cli::Output;
use crate::error::{CommandError, Exit, Hint};
use crate::output::print;

/// Runs the checks named, and again after every save if `watch` is set.
pub(super) async fn run(mut session: Session, names: &[String], watch: bool, output: Output) -> Result<Exit, CommandError> {
    let checks = select(&session, names)?;
    let client = session.client().await?;
    let prober = Prober::new(client, session.lab.file.clients.clone());
    if !watch {
        let report = once(&session, &prober, &checks, output).await;
        remember(&mut session, &report)?;
        return Ok(exit_of(&report));
    }
    let workdir = session.progress()?.workdir.clone();
    let mut saves = crate::watch::saves(&workdir)?;
    loop {
        let report = once(&session, &prober, &checks, output).await;
        remember(&mut session, &report)?;
        tokio::select! {
            saved = saves.recv() => if saved.is_none() { return Ok(exit_of(&report)) },
            _ = tokio::signal::ctrl_c() => return Ok(exit_of(&report)),
        }
    }
}

/// The checks that names stand for: step, alias, `all`, or check id. Without a name: the current step.
fn select(session: &Session, names: &[String]) -> Result<Vec<(String, Check)>, CommandError> {
    let all = || session.lab.steps.iter().flat_map(|step| step.checks.iter().map(|check| (step.file.id.clone(), check.clone())));
    let of_step = |id: &str| all().filter(|(step, _)| step == id).collect::<Vec<_>>();
    if names.is_empty() {
        return Ok(of_step(&session.progress()?.current(&session.lab).file.id));
    }
    let mut selected = Vec::new();
    for name in names {
        let found: Vec<(String, Check)> = match session.lab.step(name) {
            _ if name == "all" => all().collect(),
            Some(step) => of_step(&step.file.id),
            None => all().filter(|(_, check)| &check.id == name).collect(),
        };
        if found.is_empty() {
            let steps: Vec<&str> = session.lab.steps.iter().map(|step| step.file.id.as_str()).collect();
            return Err(CommandError::usage(format!("there is no step and no check {name:?}"))
                .with_hint(Hint::new(format!("steps: all, {}", steps.join(", ")))));
        }
        selected.extend(found);
    }
    let mut seen = std::collections::BTreeSet::new();
    selected.retain(|(_, check)| seen.insert(check.id.clone()));
    Ok(selected)
}

async fn once(session: &Session, prober: &Prober, checks: &[(String, Check)], output: Output) -> Report {
    let style = style();
    let live = output == Output::Text;
    let report = meshlab_checks::run(&session.lab.file.name, prober, checks, |result| {
        if live {
            print(&result_text(result, session.language, style));
        }
    });
    let report = report.await;
    if live {
        print(&summary_text(&report, session.language, style));
    } else {
        print(&report::render(&report, Format::from(output), session.language, Style::Plain));
    }
    report
}

/// Marks the steps all of whose checks passed, and shows the debrief of one that passes for the first time.
fn remember(session: &mut Session, report: &Report) -> Result<(), CommandError> {
    let passed: Vec<(String, String)> = session
        .lab
        .steps
        .iter()
        .filter(|step| {
            let of_step: Vec<_> = report.results.iter().filter(|result| result.step == step.file.id).collect();
            let all = of_step.len() == step.checks.len();
            all && of_step.iter().all(|result| result.verdict == meshlab_checks::Verdict::Pass)
        })
        .map(|step| (step.file.id.clone(), step.debrief[session.language.tag()].clone()))
        .collect();
    let progress = session.progress_mut()?;
    let mut debriefs = Vec::new();
    for (id, debrief) in passed {
        if progress.passed.insert(id) {
            debriefs.push(debrief);
        }
    }
    session.progress()?.save(&session.home)?;
    if style() == Style::Colour || std::io::stdout().is_terminal() {
        debriefs.iter().for_each(|debrief| print(&format!("\n{debrief}")));
    }
    Ok(())
}

fn exit_of(report: &Report) -> Exit {
    let tally = report.tally();
    match () {
        () if report.all_passed() => Exit::Ok,
        () if tally.failed + tally.skipped > 0 => Exit::Failed,
        () => Exit::Unmeasured,
    }
}

fn style() -> Style {
    if crate::output::colour() { Style::Colour } else { Style::Plain }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use meshlab_checks::Language;

    use super::*;
    use crate::home::Home;
    use crate::labs;
    use crate::progress::Progress;

    #[test]
    fn sections_have_the_names_of_the_course() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::open(Some(folder.path().to_owned())).unwrap();
        let lab = labs::load(labs::DEFAULT, None).unwrap();
        let progress = Some(Progress::new(&lab, PathBuf::new(), Language::En));
        let session = Session { home, lab, language: Language::En, progress, labs: None };
        let selected = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            select(&session, &names).map(|checks| checks.into_iter().map(|(step, _)| step).collect::<Vec<_>>())
        };
        for (section, step) in [
            ("gateway", "routing"),
            ("traffic", "canary"),
            ("security", "security"),
            ("observability", "observability"),
            ("1", "setup"),
        ] {
            let steps = selected(&[section]).unwrap();
            assert!(!steps.is_empty() && steps.iter().all(|found| found == step), "{section}: {steps:?}");
        }
        let all = selected(&["all"]).unwrap();
        assert!(all.len() >= 60 && all[0] == "setup" && all.last().unwrap() == "observability");
        assert_eq!(selected(&[]).unwrap(), selected(&["setup"]).unwrap());
        assert_eq!(selected(&["orders-flow"]).unwrap(), ["observability"]);
        assert_eq!(selected(&["nothing"]).unwrap_err().exit, Exit::Usage);
    }
}
