//! The learner's files. Whatever is written over them, what the learner wrote himself is kept.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use meshlab_checks::{Lab, Manifest, Step};

use crate::error::CommandError;
use crate::files;

/// Writes the starter files that are not there yet; a file of the learner's is never touched.
///
/// # Errors
/// The folder cannot be written.
pub(crate) fn write_starters(workdir: &Path, lab: &Lab) -> Result<Vec<PathBuf>, CommandError> {
    std::fs::create_dir_all(workdir).map_err(|error| CommandError::io(workdir, &error))?;
    let mut written = Vec::new();
    for manifest in lab.steps.iter().flat_map(|step| &step.starter) {
        let path = workdir.join(&manifest.name);
        if !path.exists() {
            replace(workdir, &manifest.name, &manifest.content)?;
            written.push(path);
        }
    }
    Ok(written)
}

/// Writes a step's starter or solution. What is the course's own word for word is not kept: it can be had again.
///
/// # Errors
/// The folder cannot be written; the file that could not be written is as it was.
pub(crate) fn write_step(workdir: &Path, step: &Step, manifests: &[Manifest]) -> Result<(), CommandError> {
    for manifest in manifests {
        let of_course = |content: &[u8]| {
            let same = |known: &&Manifest| known.name == manifest.name && known.content.as_bytes() == content;
            step.starter.iter().chain(&step.solution).any(|known| same(&known))
        };
        write(workdir, &manifest.name, &manifest.content, of_course)?;
    }
    Ok(())
}

/// Writes one file; what was there is kept if it differs.
///
/// # Errors
/// The folder cannot be written; the file is as it was.
pub(crate) fn replace(workdir: &Path, name: &str, content: &str) -> Result<(), CommandError> {
    write(workdir, name, content, |_| false)
}

fn write(workdir: &Path, name: &str, content: &str, is_worthless: impl Fn(&[u8]) -> bool) -> Result<(), CommandError> {
    let path = workdir.join(name);
    let failed = |error| CommandError::io(&path, &error);
    // First of all the new content, complete: on a full disk the old one must not have gone yet.
    let new = files::prepare(&path, content.as_bytes()).map_err(failed)?;
    match std::fs::read(&path) {
        Ok(old) if old == content.as_bytes() => return Ok(()),
        Ok(old) if !is_worthless(&old) => keep(&path, &old).map_err(failed)?,
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    files::persist(new, &path).map_err(failed)
}

/// Moves a file to `NAME.bak`, or to `NAME.bak.2` and so on where another content is kept already.
fn keep(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut backup = path.as_os_str().to_owned();
    backup.push(".bak");
    let first = backup.clone();
    for number in 2_u64.. {
        match std::fs::read(&backup) {
            Ok(kept) if kept == content => break,
            Err(error) if error.kind() == ErrorKind::NotFound => return std::fs::rename(path, backup),
            _ => {
                backup.clone_from(&first);
                backup.push(format!(".{number}"));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contents(folder: &Path) -> Vec<String> {
        let mut all: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .map(|path| format!("{}: {}", path.file_name().unwrap().display(), std::fs::read_to_string(&path).unwrap()))
            .collect();
        all.sort();
        all
    }

    #[test]
    fn nothing_that_was_written_over_is_lost() {
        let folder = tempfile::tempdir().unwrap();
        for content in ["one", "two", "two", "one", "three"] {
            replace(folder.path(), "a.yaml", content).unwrap();
        }
        insta::assert_debug_snapshot!(contents(folder.path()), @r#"
        [
            "a.yaml.bak.2: two",
            "a.yaml.bak: one",
            "a.yaml: three",
        ]
        "#);
    }

    #[test]
    fn what_the_course_wrote_is_not_kept() {
        let folder = tempfile::tempdir().unwrap();
        let lab = crate::labs::load("phase3", None).unwrap();
        let step = &lab.steps[0];
        write_starters(folder.path(), &lab).unwrap();
        write_step(folder.path(), step, &step.solution).unwrap();
        write_step(folder.path(), step, &step.starter).unwrap();
        assert_eq!(
            std::fs::read_dir(folder.path()).unwrap().count(),
            lab.steps.iter().map(|step| step.starter.len()).sum::<usize>()
        );
        std::fs::write(folder.path().join(&step.starter[0].name), "mine").unwrap();
        write_step(folder.path(), step, &step.solution).unwrap();
        let kept = folder.path().join(format!("{}.bak", step.starter[0].name));
        assert_eq!(std::fs::read_to_string(kept).unwrap(), "mine");
    }

    #[cfg(unix)]
    #[test]
    fn a_file_that_cannot_be_written_is_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        replace(folder.path(), "a.yaml", "mine").unwrap();
        let gone = folder.path().join("gone");
        assert!(replace(&gone, "a.yaml", "new").is_err());
        // Longer than a file's name may be, so that even root's new file cannot be put in place.
        let name = "n".repeat(256);
        assert!(replace(folder.path(), &name, "new").is_err());
        assert_eq!(contents(folder.path()), ["a.yaml: mine"]);
    }
}
