//! Grading: each submission is a folder with the learner's files of the course, and is judged in an embedded cluster of its own.
//!
//! Steps are taken in order, as a learner takes them: a step's files are applied, then its checks run. A submission that cannot be
//! read, or that is refused, gets a verdict that says so, and never stops the others.

mod apply;
mod report;

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use futures::StreamExt;
use meshlab_checks::{Lab, Prober, Report, Step};
use serde::Serialize;
use serde_json::Value;

use crate::apply::documents;
use crate::error::CommandError;
use crate::serve::start_cluster;
use crate::steps;

pub use self::report::{Format, render, render_one};

/// The largest file that is read; whatever is larger is no manifest of the course.
const MAX_FILE: u64 = 1024 * 1024;

/// The most objects that one file may hold: they all live in the memory of the grader.
const MAX_OBJECTS: usize = 200;

/// How submissions are judged.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// So many at the same time.
    pub jobs: usize,
    /// How long one may take.
    pub timeout: Duration,
}

/// A folder that was handed in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submission {
    /// The folder's name.
    pub name: String,
    /// Where it is.
    pub folder: PathBuf,
}

/// What is wrong with a submission beside its checks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Step.
    pub step: String,
    /// File, or the empty string where it is none's.
    pub file: String,
    /// What is wrong, with line and column where there are any.
    pub message: String,
}

/// A submission, judged.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Graded {
    /// The submission's name.
    pub name: String,
    /// Files that are missing or malformed, objects that were refused.
    pub problems: Vec<Problem>,
    /// Why it could not be judged, if it could not.
    pub broken: Option<String>,
    /// All checks. Empty if it could not be judged.
    #[serde(serialize_with = "report::serialize")]
    pub report: Report,
    /// How long it took, in milliseconds.
    pub duration_ms: u64,
}

/// The submissions in a folder: each folder in it, in the order of their names. Files and hidden folders are passed over.
///
/// # Errors
/// It cannot be read, or holds none.
pub fn submissions(folder: &Path) -> Result<Vec<Submission>, CommandError> {
    let entries = std::fs::read_dir(folder).map_err(|error| CommandError::io(folder, &error))?;
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| CommandError::io(folder, &error))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if is_folder && !name.starts_with('.') {
            found.push(Submission { name, folder: entry.path() });
        }
    }
    if found.is_empty() {
        return Err(CommandError::usage(format!("{}: there are no submissions in it", folder.display()))
            .with_hint(crate::error::Hint::new("each submission is a folder in it, with the learner's files")));
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

/// Judges submissions; `on_graded` hears of each as it is done. The result has the order of the submissions.
pub async fn grade(lab: &Lab, submissions: &[Submission], options: Options, mut on_graded: impl FnMut(&Graded)) -> Vec<Graded> {
    let judged = submissions.iter().cloned().enumerate().map(|(place, submission)| {
        let (lab, timeout) = (lab.clone(), options.timeout);
        async move {
            let name = submission.name.clone();
            let started = Instant::now();
            // A task of its own: should the grader itself fail over it, the others go on.
            let task = tokio::spawn(async move { tokio::time::timeout(timeout, judge(&lab, &submission)).await });
            let _abort = AbortOnDrop(task.abort_handle());
            let mut graded = match task.await {
                Ok(Ok(Ok(graded))) => graded,
                Ok(Ok(Err(error))) => Graded::broken(name, error.message),
                Ok(Err(_)) => Graded::broken(name, format!("not done after {} s", timeout.as_secs())),
                Err(panic) => Graded::broken(name, format!("a mistake of meshlab's own: {panic}")),
            };
            graded.duration_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
            (place, graded)
        }
    });
    let mut running = futures::stream::iter(judged).buffer_unordered(options.jobs.max(1));
    let mut all = Vec::with_capacity(submissions.len());
    while let Some((place, graded)) = running.next().await {
        on_graded(&graded);
        all.push((place, graded));
    }
    all.sort_by_key(|(place, _)| *place);
    all.into_iter().map(|(_, graded)| graded).collect()
}

struct AbortOnDrop(tokio::task::AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Graded {
    fn broken(name: String, why: String) -> Self {
        let report = Report { lab: String::new(), results: Vec::new() };
        Self { name, problems: Vec::new(), broken: Some(why), report, duration_ms: 0 }
    }
}

/// One submission in a cluster of its own.
async fn judge(lab: &Lab, submission: &Submission) -> Result<Graded, CommandError> {
    let cluster = start_cluster(lab, None).await?;
    let client = cluster.client();
    let prober = Prober::new(client.clone(), lab.file.clients.clone());
    let mut problems = Vec::new();
    let mut results = Vec::new();
    for step in &lab.steps {
        let mut problem = |file: &str, message: String| {
            problems.push(Problem { step: step.file.id.clone(), file: file.to_owned(), message });
        };
        for (file, objects) in read(&submission.folder, step, &mut problem) {
            for message in apply::each(&client, &objects).await? {
                problem(&file, message);
            }
        }
        if let Err(error) = steps::restart(&client, &step.file.restart).await {
            problem("", error.message);
        }
        let checks: Vec<_> = step.checks.iter().map(|check| (step.file.id.clone(), check.clone())).collect();
        results.extend(meshlab_checks::run(&lab.file.name, &prober, &checks, |_| {}).await.results);
    }
    cluster.stop().await;
    let report = Report { lab: lab.file.name.clone(), results };
    Ok(Graded { name: submission.name.clone(), problems, broken: None, report, duration_ms: 0 })
}

/// The objects of a step's files; what cannot be read is a problem.
fn read(folder: &Path, step: &Step, problem: &mut impl FnMut(&str, String)) -> Vec<(String, Vec<Value>)> {
    let mut all = Vec::new();
    for name in &step.file.files {
        let objects =
            read_file(&folder.join(name)).and_then(|text| documents(name, &text).map_err(|error| strip(&error.message, name)));
        match objects {
            Ok(objects) if objects.len() > MAX_OBJECTS => {
                problem(name, format!("{} objects; {MAX_OBJECTS} are the most", objects.len()));
            }
            Ok(objects) => all.push((name.clone(), objects)),
            Err(message) => problem(name, message),
        }
    }
    all
}

fn strip(message: &str, name: &str) -> String {
    message.strip_prefix(&format!("{name}: ")).unwrap_or(message).to_owned()
}

/// A plain file's text. Links are not followed: a submission must not show the grader's own files.
fn read_file(path: &Path) -> Result<String, String> {
    let kind = match std::fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err("there is no such file".to_owned()),
        Err(error) => return Err(error.to_string()),
    };
    if !kind.is_file() {
        return Err("it is no plain file".to_owned());
    }
    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    let mut bytes = Vec::new();
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(format!("it is larger than {MAX_FILE} bytes"));
    }
    String::from_utf8(bytes).map_err(|error| format!("it is not UTF-8: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        assert_eq!(read_file(&path("a.yaml")), Err("there is no such file".to_owned()));
        std::os::unix::fs::symlink("/etc/passwd", path("link.yaml")).unwrap();
        assert_eq!(read_file(&path("link.yaml")), Err("it is no plain file".to_owned()));
        std::fs::write(path("large.yaml"), vec![b'a'; MAX_FILE as usize + 1]).unwrap();
        assert_eq!(read_file(&path("large.yaml")), Err("it is larger than 1048576 bytes".to_owned()));
        std::fs::write(path("binary.yaml"), [0xff, 0xfe]).unwrap();
        assert!(read_file(&path("binary.yaml")).unwrap_err().starts_with("it is not UTF-8"));
    }

    #[test]
    fn submissions_are_the_folders_in_order() {
        let folder = tempfile::tempdir().unwrap();
        assert!(submissions(folder.path()).unwrap_err().message.ends_with("there are no submissions in it"));
        for name in ["bob", "alice", ".git"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
        }
        std::fs::write(folder.path().join("notes.txt"), "").unwrap();
        let names: Vec<String> = submissions(folder.path()).unwrap().into_iter().map(|submission| submission.name).collect();
        assert_eq!(names, ["alice", "bob"]);
    }
}
