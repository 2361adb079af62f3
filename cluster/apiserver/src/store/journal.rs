//! The append-only log on disk.
//!
//! Generation *n* is a snapshot `state-n.snapshot` (absent for the first) followed by a log `state-n.log`. Compaction opens the log
//! of generation *n + 1*, writes the snapshot of that generation beside it and only then removes generation *n*, so that at
//! every moment a complete generation is on disk.
//!
//! A record is a little-endian `u32` length, the CRC-32 of the payload, and the payload, a JSON document.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use flate2::Crc;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::object::{GroupResource, Object};

/// A log shorter than this is not worth compacting.
const SMALLEST_COMPACTION: u64 = 8 << 20;

/// One change, as written.
#[derive(Serialize, Deserialize)]
pub(super) struct Record<'a> {
    #[serde(rename = "rev")]
    pub(super) revision: u64,
    #[serde(borrow)]
    pub(super) group: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    pub(super) resource: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    pub(super) key: std::borrow::Cow<'a, str>,
    /// The object; absent where it was deleted.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub(super) value: Option<&'a RawValue>,
}

pub(super) fn log_path(directory: &Path, generation: u64) -> PathBuf {
    directory.join(format!("state-{generation:06}.log"))
}

pub(super) fn snapshot_path(directory: &Path, generation: u64) -> PathBuf {
    directory.join(format!("state-{generation:06}.snapshot"))
}

/// The open log.
pub(super) struct Journal {
    directory: PathBuf,
    generation: u64,
    path: PathBuf,
    file: File,
    length: u64,
    /// Something may be behind the last whole record.
    torn: bool,
    /// Size of the snapshot under this log.
    base: u64,
    compacting: Arc<AtomicBool>,
    /// Held while the process uses the directory; gone once the journal is closed.
    lock: Option<File>,
}

impl Journal {
    /// Goes on writing a log behind its first `length` bytes.
    pub(super) fn open(directory: &Path, generation: u64, length: u64, base: u64, lock: File) -> io::Result<Self> {
        let path = log_path(directory, generation);
        let mut journal = Self {
            directory: directory.to_owned(),
            generation,
            file: open_private(&path)?,
            path,
            length,
            torn: true,
            base,
            compacting: Arc::default(),
            lock: Some(lock),
        };
        journal.cut()?;
        Ok(journal)
    }

    /// Goes on in another file, such as one that is always full.
    #[cfg(test)]
    pub(super) fn write_to(&mut self, file: File) -> File {
        std::mem::replace(&mut self.file, file)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes one change. On an error nothing of it remains in the log.
    pub(super) fn append(&mut self, resource: &GroupResource, object: &Object, deleted: bool) -> io::Result<()> {
        if self.lock.is_none() {
            return Err(io::Error::other("the cluster was stopped"));
        }
        let record = encode(resource, object, deleted)?;
        if self.torn {
            self.cut()?;
        }
        if let Err(error) = self.file.write_all(&record) {
            // A part of the record may be there. What cannot be cut off now is cut off before the next record; should there be
            // none, the next start drops it as a torn tail.
            self.torn = true;
            if let Err(cut) = self.cut() {
                tracing::error!(path = %self.path.display(), error = %cut, "cannot remove a torn record");
            }
            return Err(error);
        }
        self.length += record.len() as u64;
        Ok(())
    }

    /// Removes what is behind the last whole record.
    fn cut(&mut self) -> io::Result<()> {
        self.file.set_len(self.length)?;
        self.file.seek(SeekFrom::Start(self.length))?;
        self.torn = false;
        Ok(())
    }

    /// Flushes the log and leaves the directory to whoever opens it next. Nothing can be written any more.
    pub(super) fn close(&mut self) -> io::Result<()> {
        let result = self.file.sync_data();
        self.lock = None;
        result
    }

    /// The log has outgrown what it describes.
    pub(super) fn wants_compaction(&self) -> bool {
        self.length > SMALLEST_COMPACTION.max(2 * self.base) && !self.compacting.load(Ordering::Relaxed)
    }

    /// Starts the next generation from `objects`, which must be all there are. The snapshot is written by a thread of its own.
    pub(super) fn compact(&mut self, revision: u64, objects: Vec<(GroupResource, Arc<Object>)>) {
        let (old, new) = (self.generation, self.generation + 1);
        let path = log_path(&self.directory, new);
        let file = match open_private(&path).and_then(|file| file.set_len(0).map(|()| file)) {
            Ok(file) => file,
            Err(error) => {
                // Tried again once the log has doubled.
                tracing::warn!(path = %path.display(), %error, "cannot start a new log");
                self.base = self.length;
                return;
            }
        };
        self.base = self.length / 2;
        (self.generation, self.path, self.file, self.length, self.torn) = (new, path, file, 0, false);
        self.compacting.store(true, Ordering::Relaxed);
        let (directory, compacting) = (self.directory.clone(), self.compacting.clone());
        let work = move || {
            match write_snapshot(&directory, new, revision, &objects) {
                Ok(()) => remove_generations_up_to(&directory, old),
                // The older generation and both logs stay: together they are complete.
                Err(error) => tracing::warn!(%error, directory = %directory.display(), "cannot write a snapshot"),
            }
            compacting.store(false, Ordering::Relaxed);
        };
        if let Err(error) = std::thread::Builder::new().name("meshlab-snapshot".into()).spawn(work) {
            tracing::warn!(%error, "cannot start the snapshot thread");
            self.compacting.store(false, Ordering::Relaxed);
        }
    }
}

fn open_private(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).read(true).create(true).truncate(false);
    // Secrets are in it.
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Length and checksum of a record, to be filled in by [`seal`].
const HEAD: usize = 8;

fn encode(resource: &GroupResource, object: &Object, deleted: bool) -> io::Result<Vec<u8>> {
    let mut bytes = open_record(&Record {
        revision: object.revision,
        group: (&*resource.group).into(),
        resource: (&*resource.resource).into(),
        key: object.key.as_str().into(),
        value: None,
    })?;
    if !deleted {
        // The object is JSON already. As a `RawValue` it would be parsed once more.
        bytes.pop();
        bytes.extend_from_slice(b",\"value\":");
        bytes.extend_from_slice(&object.json());
        bytes.push(b'}');
    }
    seal(bytes)
}

fn open_record(record: &Record<'_>) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; HEAD];
    serde_json::to_writer(&mut bytes, record)?;
    Ok(bytes)
}

fn seal(mut bytes: Vec<u8>) -> io::Result<Vec<u8>> {
    let (head, payload) = bytes.split_at_mut(HEAD);
    let length = u32::try_from(payload.len()).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
    head[..4].copy_from_slice(&length.to_le_bytes());
    head[4..].copy_from_slice(&checksum(payload).to_le_bytes());
    Ok(bytes)
}

pub(super) fn checksum(payload: &[u8]) -> u32 {
    let mut crc = Crc::new();
    crc.update(payload);
    crc.sum()
}

/// Writes a snapshot under another name and renames it when it is complete. Its last record has no resource and tells the revision.
fn write_snapshot(directory: &Path, generation: u64, revision: u64, objects: &[(GroupResource, Arc<Object>)]) -> io::Result<()> {
    let path = snapshot_path(directory, generation);
    let unfinished = path.with_extension("unfinished");
    let file = open_private(&unfinished)?;
    file.set_len(0)?;
    let mut writer = io::BufWriter::with_capacity(1 << 20, file);
    for (resource, object) in objects {
        writer.write_all(&encode(resource, object, false)?)?;
    }
    let end = Record { revision, group: "".into(), resource: "".into(), key: "".into(), value: None };
    writer.write_all(&seal(open_record(&end)?)?)?;
    writer.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
    fs::rename(&unfinished, &path)
}

fn remove_generations_up_to(directory: &Path, last: u64) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        if generation_of(&path).is_some_and(|(generation, _)| generation <= last)
            && let Err(error) = fs::remove_file(&path)
        {
            tracing::warn!(%error, path = %path.display(), "cannot remove an old generation");
        }
    }
}

/// What kind of file of ours this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FileKind {
    Log,
    Snapshot,
}

pub(super) fn generation_of(path: &Path) -> Option<(u64, FileKind)> {
    let name = path.file_name()?.to_str()?.strip_prefix("state-")?;
    let (generation, extension) = name.split_once('.')?;
    let kind = match extension {
        "log" => FileKind::Log,
        "snapshot" => FileKind::Snapshot,
        _ => return None,
    };
    Some((generation.parse().ok()?, kind))
}
