//! A learner's shell beside a running lab.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use tempfile::TempDir;

/// Ends what a block prints; nothing in a lab prints it.
const MARK: &str = "--- end of block ---";

/// One shell for the whole course, so that what one block sets, as `eval "$(meshlab env)"` does, holds for the next.
pub(crate) struct Shell {
    folder: TempDir,
    bash: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Shell {
    /// Starts a lab, and a shell in the learner's folder that has the binary on its PATH and no kubeconfig.
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let work = folder.path().join("work");
        let binary = Path::new(env!("CARGO_BIN_EXE_meshlab"));
        let binaries = binary.parent().expect("a folder of binaries").display();
        let path = std::env::var("PATH").unwrap_or_default();
        std::fs::create_dir(&work).expect("a folder in the temporary one");
        let mut bash = Command::new("bash")
            .args(["--noprofile", "--norc"])
            .current_dir(&work)
            .env("HOME", folder.path())
            .env("MESHLAB_HOME", folder.path().join("state"))
            .env("PATH", format!("{binaries}:{path}"))
            .env("LC_ALL", "C.UTF-8")
            .env_remove("KUBECONFIG")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("bash");
        let input = bash.stdin.take().expect("a pipe");
        let output = BufReader::new(bash.stdout.take().expect("a pipe"));
        let mut shell = Self { folder, bash, input, output };
        let started = shell.run("exec 2>&1\nmeshlab start --no-ui --lang en --workdir .\n");
        assert!(started.contains("is running"), "{started}");
        shell
    }

    /// Runs commands; what they print, both streams in order.
    pub(crate) fn run(&mut self, commands: &str) -> String {
        let script = self.folder.path().join("block.sh");
        std::fs::write(&script, commands).expect("a file in the temporary folder");
        writeln!(self.input, ". {} </dev/null\necho '{MARK}'", script.display()).expect("the shell listens");
        let mut printed = String::new();
        loop {
            let read = self.output.read_line(&mut printed).expect("the shell prints text");
            assert!(read > 0, "the shell ended:\n{printed}");
            if let Some(printed) = printed.strip_suffix(&format!("{MARK}\n")) {
                return printed.to_owned();
            }
        }
    }

    /// Puts all files of a folder into the learner's one.
    pub(crate) fn copy_files(&self, from: &Path) {
        for entry in std::fs::read_dir(from).expect("a folder of files") {
            let entry = entry.expect("a file");
            std::fs::copy(entry.path(), self.folder.path().join("work").join(entry.file_name())).expect("a copy");
        }
    }

    /// Sets the language of the course.
    pub(crate) fn speak(&mut self, language: &str) {
        let started = self.run(&format!("meshlab start --no-ui --lang {language}\n"));
        assert!(started.contains("meshlab check"), "{started}");
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let _ = writeln!(self.input, "meshlab stop\nexit");
        let _ = self.bash.wait();
    }
}
