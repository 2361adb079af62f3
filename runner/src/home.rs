//! `$MESHLAB_HOME`: where a lab keeps its state between commands.

use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{CommandError, Hint};

/// The state folder and what is in it.
#[derive(Debug, Clone)]
pub struct Home(PathBuf);

impl Home {
    /// `explicit` (from `--home` or `$MESHLAB_HOME`), or the platform's data directory.
    ///
    /// # Errors
    /// Neither is known, or the folder cannot be made.
    pub fn open(explicit: Option<PathBuf>) -> Result<Self, CommandError> {
        let path = explicit.or_else(platform_data_dir).ok_or_else(|| {
            CommandError::usage("there is no place for meshlab's state: HOME is not set")
                .with_hint(Hint::new("set MESHLAB_HOME to a folder"))
        })?;
        std::fs::create_dir_all(&path).map_err(|error| CommandError::io(&path, &error))?;
        let path = path.canonicalize().map_err(|error| CommandError::io(&path, &error))?;
        Ok(Self(path))
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The kubeconfig of the running lab, mode 0600.
    pub fn kubeconfig(&self) -> PathBuf {
        self.0.join("kubeconfig")
    }

    /// Where the embedded cluster keeps its objects.
    pub fn cluster_data(&self) -> PathBuf {
        self.0.join("cluster")
    }

    /// The socket through which commands talk to the lab's process.
    pub fn control_socket(&self) -> PathBuf {
        self.0.join("control.sock")
    }

    /// What the lab's process has to say.
    pub fn log(&self) -> PathBuf {
        self.0.join("lab.log")
    }

    /// How far the learner is.
    pub fn progress(&self) -> PathBuf {
        self.0.join("progress.json")
    }
}

fn platform_data_dir() -> Option<PathBuf> {
    let from = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if cfg!(target_os = "macos") {
        return from("HOME").map(|home| home.join("Library/Application Support/meshlab"));
    }
    from("XDG_DATA_HOME").or_else(|| from("HOME").map(|home| home.join(".local/share"))).map(|data| data.join("meshlab"))
}

/// Replaces a file as a whole: after a crash there is the old content or the new, never a part.
///
/// # Errors
/// The folder cannot be written.
pub fn write_atomically(path: &Path, content: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension(format!("tmp{}", std::process::id()));
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&temporary)?;
    io::Write::write_all(&mut file, content)?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)
}

/// Reads a JSON file; `None` if there is none.
///
/// # Errors
/// It cannot be read, or is not what it should be; the message names it.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, CommandError> {
    match std::fs::read(path) {
        Ok(content) => serde_json::from_slice(&content).map(Some).map_err(|error| {
            CommandError::failed(format!("{}: {error}", path.display()))
                .with_hint(Hint::new(format!("move {} away to start afresh", path.display())))
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(CommandError::io(path, &error)),
    }
}

/// Writes a JSON file as a whole.
///
/// # Errors
/// It cannot be written; the message names it.
pub fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<(), CommandError> {
    let content = serde_json::to_vec_pretty(value).map_err(|error| CommandError::failed(error.to_string()))?;
    write_atomically(path, &content).map_err(|error| CommandError::io(path, &error))
}
