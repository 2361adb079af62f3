//! `lab list`, `lab lint`, `lab test`, `lab new`, `lab preview`: for authors.

use std::path::Path;

use crate::cli::{Cli, LabCommand};
use crate::error::{CommandError, Exit};
use crate::output::print;
use crate::{lab_test, labs, scaffold};

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
        LabCommand::New { name, into } => {
            let into = into.clone().or_else(|| cli.labs.clone()).unwrap_or_else(|| Path::new(".").to_owned());
            for path in scaffold::create(name, &into)? {
                print(&format!("{}\n", path.display()));
            }
            let into = into.display();
            print(&format!(
                "\nmeshlab --labs {into} lab lint {name}\nmeshlab --labs {into} lab test {name}\nmeshlab --labs {into} start {name}\n"
            ));
            Ok(Exit::Ok)
        }
        LabCommand::Preview { lab, step, html } => {
            let lab = labs::load(lab, cli.labs.as_deref())?;
            let steps = match step {
                None => lab.steps.iter().collect(),
                Some(name) => vec![lab.step(name).ok_or_else(|| CommandError::usage(format!("there is no step {name:?}")))?],
            };
            let language = super::language(cli, None);
            let text = scaffold::preview(&lab, &steps, language);
            match html {
                None => print(&text),
                Some(path) => {
                    let text = scaffold::with_pictures(&text, &steps, language);
                    let page = scaffold::page(lab.file.title.get(language), &text, language);
                    std::fs::write(path, page).map_err(|error| CommandError::io(path, &error))?;
                    print(&format!("{}\n", path.display()));
                }
            }
            Ok(Exit::Ok)
        }
        LabCommand::Test { lab, step } => {
            let lab = labs::load(lab, cli.labs.as_deref())?;
            let failures = lab_test::test(&lab, step.as_deref(), |line| print(&format!("{line}\n"))).await?;
            Ok(if failures == 0 { Exit::Ok } else { Exit::Failed })
        }
    }
}
