//! What a mesh process is given by the host it runs on, besides the network: files and a log.

use std::fmt::{self, Display};
use std::io;
use std::sync::Arc;

use jiff::Timestamp;

/// The files of the container or machine that a process runs on. Paths are absolute.
pub trait Files: Clone + Send + Sync + 'static {
    /// The whole content of a file.
    ///
    /// # Errors
    /// `NotFound` when it is not there.
    fn read(&self, path: &str) -> io::Result<Vec<u8>>;

    /// Replaces a file, creating it where it is missing.
    ///
    /// # Errors
    /// It cannot be written.
    fn write(&self, path: &str, content: &[u8]) -> io::Result<()>;
}

/// The operating system's files.
#[derive(Debug, Clone, Copy, Default)]
pub struct OsFiles;

impl Files for OsFiles {
    fn read(&self, path: &str) -> io::Result<Vec<u8>> {
        std::fs::read(path)
    }

    fn write(&self, path: &str, content: &[u8]) -> io::Result<()> {
        std::fs::write(path, content)
    }
}

/// How much a log line matters; Istio's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// Details for whoever works on the mesh.
    Debug,
    /// What happens.
    Info,
    /// What somebody should look at.
    Warn,
    /// What failed.
    Error,
}

impl Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        })
    }
}

/// Where a process writes its log, in Istio's form: time, level, scope and message, separated by tabs. Cloning is cheap.
#[derive(Clone)]
pub struct Log {
    sink: Arc<dyn Fn(&str) + Send + Sync>,
    level: LogLevel,
}

impl Log {
    /// A log that hands every line, with its newline, to `sink`. The sink must not block.
    pub fn new(sink: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self { sink: Arc::new(sink), level: LogLevel::Info }
    }

    /// Nothing below `level` is written from here on.
    #[must_use]
    pub fn at_level(mut self, level: LogLevel) -> Self {
        self.level = level;
        self
    }

    /// Writes a line.
    pub fn write(&self, level: LogLevel, scope: &str, message: impl Display) {
        if level >= self.level {
            // A message that holds a newline must not look like two.
            let message = message.to_string().replace('\n', "\\n");
            (self.sink)(&format!("{:.6}\t{level}\t{scope}\t{message}\n", Timestamp::now()));
        }
    }

    /// Details.
    pub fn debug(&self, scope: &str, message: impl Display) {
        self.write(LogLevel::Debug, scope, message);
    }

    /// What happens.
    pub fn info(&self, scope: &str, message: impl Display) {
        self.write(LogLevel::Info, scope, message);
    }

    /// What somebody should look at.
    pub fn warn(&self, scope: &str, message: impl Display) {
        self.write(LogLevel::Warn, scope, message);
    }

    /// What failed.
    pub fn error(&self, scope: &str, message: impl Display) {
        self.write(LogLevel::Error, scope, message);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn a_line_has_time_level_scope_and_message() {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let sink = lines.clone();
        let log = Log::new(move |line| sink.lock().unwrap().push(line.to_owned()));
        log.debug("ads", "unseen");
        log.warn("ads", "two\nlines");
        let lines = lines.lock().unwrap();
        assert_eq!(lines.len(), 1);
        let fields: Vec<_> = lines[0].split('\t').collect();
        assert!(fields[0].ends_with('Z') && fields[0].len() == "2026-08-22T15:00:18.123456Z".len(), "{}", fields[0]);
        assert_eq!(fields[1..], ["warn", "ads", "two\\nlines\n"]);
    }
}
