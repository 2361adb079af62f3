//! Files that are replaced as a whole: after a crash, or on a full disk, there is the old content or the new, never a part.

use std::io::{self, Write};
use std::path::Path;

use tempfile::{Builder, NamedTempFile};

/// Who may read a file that is written.
#[derive(Clone, Copy)]
enum Readers {
    /// Its owner alone: keys and what meshlab remembers.
    Owner,
    /// Whoever the user's umask lets.
    Everybody,
}

/// Replaces a file that only its owner may read.
///
/// # Errors
/// The folder cannot be written; the file is as it was.
pub(crate) fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    persist(beside(path, content, Readers::Owner)?, path)
}

/// New content for a file, complete on the disk beside it, that [`persist`] puts in its place. Dropping it removes it.
///
/// # Errors
/// The folder cannot be written.
pub(crate) fn prepare(path: &Path, content: &[u8]) -> io::Result<NamedTempFile> {
    beside(path, content, Readers::Everybody)
}

/// Puts prepared content in place.
///
/// # Errors
/// The folder cannot be written; the file is as it was.
pub(crate) fn persist(content: NamedTempFile, path: &Path) -> io::Result<()> {
    content.persist(path).map(drop).map_err(|error| error.error)
}

fn beside(path: &Path, content: &[u8], readers: Readers) -> io::Result<NamedTempFile> {
    let mut builder = Builder::new();
    builder.prefix(".meshlab-").suffix(".tmp");
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(match readers {
        Readers::Owner => 0o600,
        Readers::Everybody => 0o666,
    }));
    let mut file = builder.tempfile_in(path.parent().unwrap_or(Path::new(".")))?;
    file.write_all(content)?;
    if let Readers::Owner = readers {
        // 15 ms each, so not for the learner's files: seven are written at the first start, and a lost one is written again.
        file.as_file().sync_all()?;
    }
    Ok(file)
}
