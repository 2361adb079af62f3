//! How a command ends when it does not end well: an exit code, a message, and what to do about it.

use std::fmt;
use std::io;
use std::path::Path;

/// Documented exit codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// All passed.
    Ok,
    /// Something failed.
    Failed,
    /// The command was called wrongly.
    Usage,
    /// The lab is not running.
    NotRunning,
    /// It could not be measured.
    Unmeasured,
    /// `exec`: whatever the command in the container ended with.
    Command(u8),
}

impl Exit {
    /// What the process ends with.
    pub fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::NotRunning => 3,
            Self::Unmeasured => 4,
            Self::Command(code) => code,
        }
    }
}

/// What to do about an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hint(String);

impl Hint {
    /// One piece of advice, as a clause that begins in lower case.
    pub fn new(advice: impl Into<String>) -> Self {
        Self(advice.into())
    }
}

/// An error that ends a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandError {
    /// Exit code.
    pub exit: Exit,
    /// What went wrong, and where.
    pub message: String,
    /// How to mend it.
    pub hints: Vec<Hint>,
}

impl CommandError {
    /// Exit 1.
    pub fn failed(message: impl Into<String>) -> Self {
        Self { exit: Exit::Failed, message: message.into(), hints: Vec::new() }
    }

    /// Exit 2.
    pub fn usage(message: impl Into<String>) -> Self {
        Self { exit: Exit::Usage, ..Self::failed(message) }
    }

    /// Exit 3.
    pub fn not_running() -> Self {
        Self { exit: Exit::NotRunning, ..Self::failed("the lab is not running") }
            .with_hint(Hint::new("start it with `meshlab start`"))
    }

    /// Exit 4.
    pub fn unmeasured(message: impl Into<String>) -> Self {
        Self { exit: Exit::Unmeasured, ..Self::failed(message) }
    }

    /// Exit 1, for a file.
    pub fn io(path: &Path, error: &io::Error) -> Self {
        let failed = Self::failed(format!("{}: {error}", path.display()));
        match error.kind() {
            io::ErrorKind::StorageFull => failed.with_hint(Hint::new("free some space on that disk; nothing was lost")),
            io::ErrorKind::PermissionDenied => failed.with_hint(Hint::new("check who owns it")),
            _ => failed,
        }
    }

    /// Adds advice.
    #[must_use]
    pub fn with_hint(mut self, hint: Hint) -> Self {
        self.hints.push(hint);
        self
    }
}

impl fmt::Display for CommandError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "error: {}", self.message)?;
        self.hints.iter().try_for_each(|Hint(advice)| write!(formatter, "\nhint: {advice}"))
    }
}

impl std::error::Error for CommandError {}

impl From<kube::Error> for CommandError {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) if status.message.contains("webhook") => Self::failed(status.message).with_hint(Hint::new(
                "a webhook has a say here: `kubectl get validatingwebhookconfigurations,mutatingwebhookconfigurations`; delete what you \
                 added, `meshlab reset` brings back what belongs to the mesh",
            )),
            kube::Error::Api(status) => Self::failed(status.message),
            other => Self::failed(format!("the cluster does not answer: {other}")),
        }
    }
}
