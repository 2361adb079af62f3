//! `lab list`, `lab lint`, `lab test`: for authors.

use super::print;
use crate::cli::{Cli, LabCommand};
use crate::error::{CommandError, Exit};
use crate::{lab_test, labs};

pub(super) async fn run(command: &LabCommand, cli: &Cli) -> Result<Exit, CommandError> {
    match command {
        LabCommand::List => {
            labs::names(cli.labs.as_deref())?.iter().for_each(|name| print(&format!("{name}\n")));
            Ok(Exit::Ok)
        }
        LabCommand::Lint { lab } => {
            let problems = labs::load(lab, cli.labs.as_deref())?.lint();
            problems.iter().for_each(|problem| print(&format!("{problem}\n")));
            Ok(if problems.is_empty() { Exit::Ok } else { Exit::Failed })
        }
        LabCommand::Test { lab, step } => {
            let lab = labs::load(lab, cli.labs.as_deref())?;
            let failures = lab_test::test(&lab, step.as_deref(), |line| print(&format!("{line}\n"))).await?;
            Ok(if failures == 0 { Exit::Ok } else { Exit::Failed })
        }
    }
}
