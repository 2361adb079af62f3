//! `list`, `show`, `next`, `prev`, `hint`, `solve`, `reset`: walking through the steps.

use meshlab_checks::Language;

use super::Session;
use crate::error::{CommandError, Exit, Hint};
use crate::output::print;
use crate::steps;

/// The steps, with a mark at the current one and at those that passed.
pub(super) fn list(session: &Session) -> Result<Exit, CommandError> {
    let progress = session.progress.as_ref();
    let current = progress.map(|progress| progress.current(&session.lab).file.id.as_str());
    for (i, step) in session.lab.steps.iter().enumerate() {
        let id = &step.file.id;
        let passed = if progress.is_some_and(|progress| progress.passed.contains(id)) { "✓" } else { " " };
        let here = if current == Some(id) { "→" } else { " " };
        print(&format!("{here} {passed} {} {id:<14} {}\n", i + 1, step.file.title.get(session.language)));
    }
    for page in &session.lab.pages {
        print(&format!("      {:<14} {}\n", page.file.id, page.file.title.get(session.language)));
    }
    Ok(Exit::Ok)
}

/// The text of a step, or a background page.
pub(super) fn show(session: &Session, step: Option<String>) -> Result<Exit, CommandError> {
    if let Some(page) = session.lab.pages.iter().find(|page| Some(&page.file.id) == step.as_ref()) {
        print(&page.text[session.language.tag()]);
        return Ok(Exit::Ok);
    }
    let step = match (&session.progress, step) {
        (None, None) => session.step(Some("1"))?,
        (_, step) => session.step(step.as_deref())?,
    };
    print(&step.text[session.language.tag()]);
    Ok(Exit::Ok)
}

/// To the next or the previous step.
pub(super) fn go(mut session: Session, by: isize) -> Result<Exit, CommandError> {
    let id = session.progress()?.current(&session.lab).file.id.clone();
    let here = session.lab.steps.iter().position(|step| step.file.id == id).unwrap_or(0);
    let target = here.checked_add_signed(by).and_then(|index| session.lab.steps.get(index));
    let target = target.ok_or_else(|| {
        CommandError::failed(if by > 0 { "this is the last step" } else { "this is the first step" })
            .with_hint(Hint::new("`meshlab list` shows all of them"))
    })?;
    let (id, title) = (target.file.id.clone(), target.file.title.get(session.language).to_owned());
    session.progress_mut()?.step = id;
    session.progress()?.save(&session.home)?;
    print(&format!("{title}\n"));
    Ok(Exit::Ok)
}

/// The next hint of the current step.
pub(super) fn hint(mut session: Session) -> Result<Exit, CommandError> {
    let step = session.progress()?.current(&session.lab);
    let (id, hints) = (step.file.id.clone(), step.hints[session.language.tag()].clone());
    let shown = session.progress()?.hints.get(&id).copied().unwrap_or(0);
    let number = shown.min(hints.len().saturating_sub(1));
    let hint = hints.get(number).ok_or_else(|| CommandError::failed("this step has no hints"))?;
    print(&format!("{}/{}\n\n{hint}\n", number + 1, hints.len()));
    session.progress_mut()?.hints.insert(id, number + 1);
    session.progress()?.save(&session.home)?;
    Ok(Exit::Ok)
}

/// Shows the solution, or writes and applies it.
pub(super) async fn solve(session: Session, apply: bool) -> Result<Exit, CommandError> {
    let progress = session.progress()?;
    let step = progress.current(&session.lab);
    if !apply {
        for manifest in &step.solution {
            print(&format!("# {}\n{}\n", manifest.name, manifest.content.trim_end()));
        }
        return Ok(Exit::Ok);
    }
    let client = session.client().await?;
    steps::solve(&client, &progress.workdir, step).await?;
    print(match session.language {
        Language::En => {
            "The solution is written and applied; what you had written is kept as *.bak. `meshlab check` proves it.\n"
        }
        Language::Ja => {
            "解答を書き込み、適用しました。自分で書いた内容は *.bak に残してあります。`meshlab check` で検証できます。\n"
        }
    });
    Ok(Exit::Ok)
}

/// Brings a step, or all, back to the start.
pub(super) async fn reset(session: Session, step: Option<String>) -> Result<Exit, CommandError> {
    let client = session.client().await?;
    let workdir = session.progress()?.workdir.clone();
    match step {
        Some(name) => steps::reset(&client, &workdir, session.step(Some(&name))?).await?,
        None => {
            // First of all the namespaces and the mesh that the steps stand on.
            steps::restore_application(&client, &session.lab).await?;
            // From the last to the first, so that nothing is left without what it stands on.
            for step in session.lab.steps.iter().rev() {
                steps::reset(&client, &workdir, step).await?;
            }
        }
    }
    print(match session.language {
        Language::En => "Back at the start; what you had written is kept as *.bak.\n",
        Language::Ja => "最初の状態に戻しました。自分で書いた内容は *.bak に残してあります。\n",
    });
    Ok(Exit::Ok)
}
