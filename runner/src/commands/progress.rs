//! `progress export` and `progress import`: to another machine.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use meshlab_checks::Language;
use serde::{Deserialize, Serialize};

use crate::cli::{Cli, ProgressCommand};
use crate::error::{CommandError, Exit, Hint};
use crate::home::{Home, read_json, write_json};
use crate::labs;
use crate::output::print;
use crate::progress::Progress;

/// The newest form of the file that is understood.
const FORMAT: u32 = 1;

/// What is taken along.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Export {
    format: u32,
    progress: Progress,
    /// The learner's files, by name.
    files: BTreeMap<String, String>,
}

pub(super) async fn run(command: &ProgressCommand, cli: &Cli) -> Result<Exit, CommandError> {
    let root = Home::open(cli.home.clone())?;
    match command {
        ProgressCommand::Export { file } => export(&root, file.as_deref()),
        ProgressCommand::Import { file, workdir } => import(&root, cli, file, workdir.clone()).await,
    }
}

fn export(root: &Home, file: Option<&Path>) -> Result<Exit, CommandError> {
    let progress = Progress::load(&root.current()?)?
        .ok_or_else(|| CommandError::failed("there is no progress yet").with_hint(Hint::new("`meshlab start` begins a lab")))?;
    let lab = labs::load(&progress.lab, progress.labs.as_deref())?;
    let mut files = BTreeMap::new();
    for name in lab.steps.iter().flat_map(|step| &step.file.files) {
        let path = progress.workdir.join(name);
        match std::fs::read_to_string(&path) {
            Ok(content) => drop(files.insert(name.clone(), content)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(CommandError::io(&path, &error)),
        }
    }
    let export = Export { format: FORMAT, progress, files };
    match file {
        Some(path) => write_json(path, &export)?,
        None => {
            let value = serde_json::to_value(&export).map_err(|error| CommandError::failed(error.to_string()))?;
            print(&format!("{value:#}\n"));
        }
    }
    Ok(Exit::Ok)
}

async fn import(root: &Home, cli: &Cli, file: &Path, workdir: Option<PathBuf>) -> Result<Exit, CommandError> {
    let format: Option<Format> = read_json(file)?;
    match format {
        None => return Err(CommandError::usage(format!("{}: there is no such file", file.display()))),
        Some(Format { format }) if format > FORMAT => {
            return Err(CommandError::usage(format!(
                "{}: it has format {format}, this meshlab knows up to {FORMAT}",
                file.display()
            ))
            .with_hint(Hint::new("use a newer meshlab")));
        }
        Some(_) => {}
    }
    let Some(Export { progress: mut imported, files, .. }) = read_json::<Export>(file)? else { return Ok(Exit::Usage) };
    let folder = cli.labs.clone().or_else(|| imported.labs.clone());
    let lab = labs::load(&imported.lab, folder.as_deref())?;
    let home = super::lifecycle::switch(root, &imported.lab, folder.as_deref()).await?;
    let before = Progress::load(&home)?;
    imported.workdir = match (workdir, &before) {
        (Some(workdir), _) => std::path::absolute(&workdir).map_err(|error| CommandError::io(&workdir, &error))?,
        (None, Some(before)) => before.workdir.clone(),
        (None, None) => {
            let here = std::env::current_dir().map_err(|error| CommandError::failed(format!("current folder: {error}")))?;
            here.join(format!("meshlab-{}", imported.lab))
        }
    };
    imported.labs = folder;
    // What was done here counts as well.
    if let Some(before) = &before {
        imported.passed.extend(before.passed.iter().cloned());
    }
    std::fs::create_dir_all(&imported.workdir).map_err(|error| CommandError::io(&imported.workdir, &error))?;
    // Only the lab's own files are written, whatever names the import has.
    for name in lab.steps.iter().flat_map(|step| &step.file.files) {
        if let Some(content) = files.get(name) {
            crate::workdir::replace(&imported.workdir, name, content)?;
        }
    }
    imported.save(&home)?;
    let place = imported.workdir.display();
    print(&match super::language(cli, Some(&imported)) {
        Language::En => format!(
            "Imported: lab {}, steps passed: {}. Your files are in {place}; those that differed are kept as *.bak.\n",
            imported.lab,
            imported.passed.len()
        ),
        Language::Ja => format!(
            "取り込みました: ラボ {}、合格済みステップ {}。ファイルは {place} にあり、異なっていたものは *.bak として残してあります。\n",
            imported.lab,
            imported.passed.len()
        ),
    });
    Ok(Exit::Ok)
}

/// What even a newer file has.
#[derive(Deserialize)]
struct Format {
    format: u32,
}
