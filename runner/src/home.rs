//! `$MESHLAB_HOME`: where a lab keeps its state between commands.

use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{CommandError, Hint};
use crate::files::write_private;

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

    /// What is known of a lab that runs on another cluster, while one does.
    pub fn external(&self) -> PathBuf {
        self.0.join("external.json")
    }

    /// Where links to this program under other names are.
    pub fn bin(&self) -> PathBuf {
        self.0.join("bin")
    }

    /// The home of the lab that commands are about: this one, or that of the lab that was started by name.
    ///
    /// # Errors
    /// The file that names it cannot be read.
    pub fn current(&self) -> Result<Self, CommandError> {
        let pointer = self.0.join(CURRENT);
        match std::fs::read_to_string(&pointer) {
            Ok(name) if is_lab_name(name.trim()) => self.of_lab(name.trim()),
            Ok(name) => Err(CommandError::failed(format!("{}: {name:?} is no lab", pointer.display()))
                .with_hint(Hint::new(format!("delete {}", pointer.display())))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(self.clone()),
            Err(error) => Err(CommandError::io(&pointer, &error)),
        }
    }

    /// Makes a lab the one that commands are about: `None` is the one that lives in this folder itself.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn set_current(&self, lab: Option<&str>) -> Result<Self, CommandError> {
        let pointer = self.0.join(CURRENT);
        let Some(name) = lab else {
            return match std::fs::remove_file(&pointer) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(CommandError::io(&pointer, &error)),
                _ => Ok(self.clone()),
            };
        };
        let home = self.of_lab(name)?;
        write_private(&pointer, name.as_bytes()).map_err(|error| CommandError::io(&pointer, &error))?;
        Ok(home)
    }

    fn of_lab(&self, name: &str) -> Result<Self, CommandError> {
        let path = self.0.join("labs").join(name);
        std::fs::create_dir_all(&path).map_err(|error| CommandError::io(&path, &error))?;
        Ok(Self(path))
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

/// Names the lab that commands are about, where that is not the one of this folder itself.
const CURRENT: &str = "current";

/// Lab names are folder names that need no quoting anywhere.
pub fn is_lab_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    !name.is_empty() && name.len() <= 40 && name.chars().all(plain) && !name.starts_with('-')
}

fn platform_data_dir() -> Option<PathBuf> {
    let from = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if cfg!(target_os = "macos") {
        return from("HOME").map(|home| home.join("Library/Application Support/meshlab"));
    }
    from("XDG_DATA_HOME").or_else(|| from("HOME").map(|home| home.join(".local/share"))).map(|data| data.join("meshlab"))
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
    write_private(path, &content).map_err(|error| CommandError::io(path, &error))
}
