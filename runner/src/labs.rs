//! Labs: those compiled into the binary, or a folder given with `--labs`.

use std::path::{Path, PathBuf};

use meshlab_checks::{Lab, LabError, LabSource};

use crate::error::{CommandError, Hint};
use crate::home::is_lab_name;

/// The lab that is started when none is named.
pub const DEFAULT: &str = "phase3";

#[derive(rust_embed::RustEmbed)]
#[folder = "../labs"]
struct Embedded;

/// One lab's files.
pub enum Source {
    /// Compiled in, under this name.
    Embedded(String),
    /// A folder.
    Folder(PathBuf),
}

impl LabSource for Source {
    fn read(&self, path: &str) -> Option<String> {
        match self {
            Self::Embedded(name) => {
                let file = Embedded::get(&format!("{name}/{path}"))?;
                String::from_utf8(file.data.into_owned()).ok()
            }
            Self::Folder(folder) => std::fs::read_to_string(folder.join(path)).ok(),
        }
    }

    fn list(&self, folder: &str) -> Vec<String> {
        let mut names: Vec<String> = match self {
            Self::Embedded(name) => {
                let prefix = format!("{name}/{folder}/");
                let files = Embedded::iter().filter_map(|path| path.strip_prefix(&prefix).map(str::to_owned));
                files.filter(|name| !name.contains('/')).collect()
            }
            Self::Folder(root) => match std::fs::read_dir(root.join(folder)) {
                Ok(entries) => entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect(),
                Err(_) => Vec::new(),
            },
        };
        names.sort();
        names
    }
}

/// Loads a lab by name; `folder` is `--labs`.
///
/// # Errors
/// There is no such lab, or it is malformed; the message names the file.
pub fn load(name: &str, folder: Option<&Path>) -> Result<Lab, CommandError> {
    let source = match folder {
        Some(folder) => Source::Folder(folder.join(name)),
        None => Source::Embedded(name.to_owned()),
    };
    if !is_lab_name(name) {
        return Err(CommandError::usage(format!("{name:?} is no name of a lab: lower case letters, digits and dashes")));
    }
    let lab = Lab::load(&source).map_err(|error| match error {
        LabError::Missing { ref path } if path == "lab.yaml" => CommandError::usage(format!("there is no lab {name:?}"))
            .with_hint(Hint::new("`meshlab lab list` shows the labs there are")),
        error => CommandError::usage(format!("lab {name}: {error}")),
    })?;
    if lab.steps.is_empty() {
        return Err(CommandError::usage(format!("lab {name}: lab.yaml: it has no steps")));
    }
    if lab.file.name != name {
        return Err(CommandError::usage(format!("lab {name}: lab.yaml calls it {:?}", lab.file.name))
            .with_hint(Hint::new("the folder and the name in lab.yaml must be the same")));
    }
    Ok(lab)
}

/// The names of all labs.
///
/// # Errors
/// `folder` cannot be read.
pub fn names(folder: Option<&Path>) -> Result<Vec<String>, CommandError> {
    let mut names: Vec<String> = match folder {
        None => Embedded::iter().filter_map(|path| path.strip_suffix("/lab.yaml").map(str::to_owned)).collect(),
        Some(folder) => {
            let entries = std::fs::read_dir(folder).map_err(|error| CommandError::io(folder, &error))?;
            let labs = entries.filter_map(Result::ok).filter(|entry| entry.path().join("lab.yaml").is_file());
            labs.filter_map(|entry| entry.file_name().into_string().ok()).collect()
        }
    };
    names.sort();
    Ok(names)
}
