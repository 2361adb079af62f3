//! `grade`: a folder of submissions.

use std::time::Duration;

use meshlab_checks::report::Style;

use crate::cli::{Cli, GradeArgs, GradeOutput};
use crate::error::{CommandError, Exit};
use crate::grade::{Format, Graded, Options, grade, render, render_one, submissions};
use crate::labs;
use crate::output::{colour, complain, print};

pub(super) async fn run(args: &GradeArgs, cli: &Cli) -> Result<Exit, CommandError> {
    let lab = labs::load(&args.lab, cli.labs.as_deref())?;
    let submissions = submissions(&args.folder)?;
    let language = super::language(cli, None);
    let format = match args.output {
        GradeOutput::Text => Format::Text,
        GradeOutput::Json => Format::Json,
        GradeOutput::Junit => Format::Junit,
        GradeOutput::Csv => Format::Csv,
    };
    if let Some(folder) = &args.reports {
        std::fs::create_dir_all(folder).map_err(|error| CommandError::io(folder, &error))?;
    }
    let options = Options { jobs: usize::from(args.jobs), timeout: Duration::from_secs(args.timeout) };
    let (mut done, mut unwritten) = (0, None);
    let all = grade(&lab, &submissions, options, |graded| {
        done += 1;
        let (reached, possible) = graded.report.score();
        let points = if graded.broken.is_some() { "!".to_owned() } else { format!("{reached}/{possible}") };
        complain(&format!("[{done}/{}] {} {points}\n", submissions.len(), graded.name));
        if let Some(folder) = &args.reports {
            let path = folder.join(format!("{}.{}", graded.name, extension(format)));
            if let Err(error) = std::fs::write(&path, render_one(graded, format, language)) {
                unwritten.get_or_insert(CommandError::io(&path, &error));
            }
        }
    })
    .await;
    print(&render(&all, format, language, if colour() { Style::Colour } else { Style::Plain }));
    unwritten.map_or_else(|| Ok(exit_of(&all)), Err)
}

fn extension(format: Format) -> &'static str {
    match format {
        Format::Text => "txt",
        Format::Json => "json",
        Format::Junit => "xml",
        Format::Csv => "csv",
    }
}

fn exit_of(all: &[Graded]) -> Exit {
    let unmeasured = all.iter().any(|graded| graded.broken.is_some() || graded.report.tally().errors > 0);
    let failed = all.iter().any(|graded| {
        let tally = graded.report.tally();
        tally.failed + tally.skipped + graded.problems.len() > 0
    });
    match (failed, unmeasured) {
        (true, _) => Exit::Failed,
        (false, true) => Exit::Unmeasured,
        (false, false) => Exit::Ok,
    }
}
