//! Calls of the program, and what is the same about their output each time.

use std::path::{Path, PathBuf};
use std::process::Output;

use regex::Regex;
use tempfile::TempDir;

/// A home of its own, and the lab that is started in it.
pub(crate) struct Home {
    folder: TempDir,
}

impl Home {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `meshlab ARGUMENTS`, in English, in this folder.
    pub(crate) fn command(&self, arguments: &[&str]) -> assert_cmd::Command {
        let mut command = assert_cmd::Command::new(env!("CARGO_BIN_EXE_meshlab"));
        command.args(arguments).current_dir(self.folder.path()).env("MESHLAB_HOME", self.path("home"));
        command.env("HOME", self.folder.path()).env("LC_ALL", "C").env_remove("KUBECONFIG").env_remove("MESHLAB_LOG");
        command.timeout(std::time::Duration::from_secs(300));
        command
    }

    /// What a command prints (standard error below `--`), and its exit code if that is not 0.
    pub(crate) fn run(&self, arguments: &[&str]) -> String {
        self.shown(&self.command(arguments).output().unwrap())
    }

    /// The same with standard input.
    pub(crate) fn pipe(&self, arguments: &[&str], input: &str) -> String {
        self.shown(&self.command(arguments).write_stdin(input).output().unwrap())
    }

    /// One line, split at spaces.
    pub(crate) fn line(&self, line: &str) -> String {
        self.run(&line.split(' ').collect::<Vec<_>>())
    }

    pub(crate) fn write(&self, name: &str, content: &str) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    pub(crate) fn shown(&self, output: &Output) -> String {
        let [mut text, errors] = [&output.stdout, &output.stderr].map(|bytes| self.redacted(&String::from_utf8_lossy(bytes)));
        if !errors.is_empty() {
            text.push_str(&format!("--\n{errors}"));
        }
        match output.status.code() {
            Some(0) => text,
            code => format!("{text}exit {}\n", code.map_or("by a signal".to_owned(), |code| code.to_string())),
        }
    }

    /// Names, addresses, ages and widths that differ from run to run.
    fn redacted(&self, text: &str) -> String {
        let real = self.folder.path().canonicalize().unwrap();
        let text = text.replace(real.to_str().unwrap(), "DIR").replace(self.folder.path().to_str().unwrap(), "DIR");
        [
            (r"-[0-9a-f]{6,10}-[a-z0-9]{5}\b", "-POD"),
            (r"\b10\.\d+\.\d+\.\d+(:\d+)?\b", "ADDRESS"),
            (r"127\.0\.0\.1:\d+", "127.0.0.1:PORT"),
            (r"\b\d+m?s\b", "TIME"),
            (r"\b\d+\.\d+ s\b", "TIME"),
            (r"\d{4}-\d\d-\d\dT[\d:.]+Z", "DATE"),
            (r", \d+ ms\b", ", TIME"),
            (r"process \d+", "process PID"),
            (r" {3,}", "   "),
            (r" +\n", "\n"),
        ]
        .into_iter()
        .fold(text, |text, (pattern, with)| Regex::new(pattern).unwrap().replace_all(&text, with).into_owned())
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        // Most homes have no lab that runs.
        let _ = self.command(&["stop"]).output();
    }
}

/// The course's own folder in this repository.
pub(crate) fn course() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../labs/phase3"))
}
