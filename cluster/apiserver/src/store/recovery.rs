//! Reads the log of an earlier life.

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use super::journal::{FileKind, Journal, Record, checksum, generation_of, log_path, snapshot_path};
use super::object::{GroupResource, Key, Object};

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process has it.
    #[error("{path} is in use by another process; stop that one first, or choose another directory", path = path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// A file is not what was written.
    #[error(
        "{path} is damaged at byte {offset}: {why}. To start afresh, remove the directory {directory}; what it holds is then lost",
        path = path.display(), directory = directory.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where in it.
        offset: usize,
        /// What is wrong.
        why: String,
        /// The whole data directory.
        directory: PathBuf,
    },
    /// The system refused.
    #[error("cannot open {path}: {source}", path = path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// What a directory held.
pub(super) struct Recovered {
    pub(super) revision: u64,
    pub(super) objects: Vec<(GroupResource, Key, Object)>,
    pub(super) journal: Journal,
}

/// An object by its resource and key.
type Objects = BTreeMap<(GroupResource, Key), Object>;

pub(super) fn recover(directory: &Path) -> Result<Recovered, OpenError> {
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| OpenError::Io { path, source }
    };
    fs::create_dir_all(directory).map_err(io(directory))?;
    let lock = lock(directory)?;
    let (mut logs, mut snapshots) = (Vec::new(), Vec::new());
    for entry in fs::read_dir(directory).map_err(io(directory))? {
        match generation_of(&entry.map_err(io(directory))?.path()) {
            Some((generation, FileKind::Log)) => logs.push(generation),
            Some((generation, FileKind::Snapshot)) => snapshots.push(generation),
            None => {}
        }
    }
    logs.sort_unstable();
    let first = snapshots.iter().max().copied().unwrap_or(1);
    let (mut revision, mut objects) = (0, Objects::new());
    let mut base = 0;
    if snapshots.contains(&first) {
        let path = snapshot_path(directory, first);
        base = replay(directory, &path, Tail::MustBeWhole, &mut revision, &mut objects)?;
    }
    logs.retain(|generation| *generation >= first);
    let mut length = 0;
    for generation in &logs {
        // Only the last log can have been cut off in the middle of a write.
        let tail = if Some(generation) == logs.last() { Tail::MayBeTorn } else { Tail::MustBeWhole };
        length = replay(directory, &log_path(directory, *generation), tail, &mut revision, &mut objects)?;
    }
    let generation = logs.last().copied().unwrap_or(first);
    let journal = Journal::open(directory, generation, length, base, lock).map_err(io(&log_path(directory, generation)))?;
    let objects = objects.into_iter().map(|((resource, key), object)| (resource, key, object)).collect();
    Ok(Recovered { revision, objects, journal })
}

fn lock(directory: &Path) -> Result<File, OpenError> {
    let path = directory.join("lock");
    let open = || fs::OpenOptions::new().create(true).truncate(false).write(true).open(&path);
    let file = open().map_err(|source| OpenError::Io { path: path.clone(), source })?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse { path: directory.to_owned() }),
        Err(TryLockError::Error(source)) => Err(OpenError::Io { path, source }),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Tail {
    MayBeTorn,
    MustBeWhole,
}

/// Applies the records of one file; returns the length of its sound part.
fn replay(directory: &Path, path: &Path, tail: Tail, revision: &mut u64, objects: &mut Objects) -> Result<u64, OpenError> {
    let bytes = fs::read(path).map_err(|source| OpenError::Io { path: path.to_owned(), source })?;
    let damaged =
        |offset, why: String| OpenError::Damaged { path: path.to_owned(), offset, why, directory: directory.to_owned() };
    let mut offset = 0;
    while offset < bytes.len() {
        match split_record(&bytes[offset..]) {
            Split::Whole { payload, length } => {
                apply(payload, revision, objects).map_err(|why| damaged(offset, why))?;
                offset += length;
            }
            Split::Torn if tail == Tail::MayBeTorn => {
                let dropped = bytes.len() - offset;
                tracing::warn!(path = %path.display(), offset, dropped, "the last record was not written completely; it is dropped");
                break;
            }
            Split::Torn => return Err(damaged(offset, "the file ends within a record".into())),
            Split::Damaged => return Err(damaged(offset, "the checksum of a record is wrong".into())),
        }
    }
    Ok(offset as u64)
}

enum Split<'a> {
    Whole { payload: &'a [u8], length: usize },
    Torn,
    Damaged,
}

fn split_record(bytes: &[u8]) -> Split<'_> {
    let Some((head, rest)) = bytes.split_at_checked(8) else { return Split::Torn };
    let [l0, l1, l2, l3, c0, c1, c2, c3] = head else { return Split::Torn };
    let length = u32::from_le_bytes([*l0, *l1, *l2, *l3]) as usize;
    let sum = u32::from_le_bytes([*c0, *c1, *c2, *c3]);
    match rest.split_at_checked(length) {
        Some((payload, _)) if length > 0 && checksum(payload) == sum => Split::Whole { payload, length: 8 + length },
        // A file that grew before its content reached the disk ends in zeros.
        Some((payload, after))
            if after.is_empty() || (length == 0 && payload.is_empty() && rest.iter().all(|byte| *byte == 0)) =>
        {
            Split::Torn
        }
        Some(_) => Split::Damaged,
        // The length itself may be damaged, but a record that was cut off looks just the same, and only it can be here:
        // whatever follows a damaged length is lost with it, so a length that no request could have caused is damage.
        None if length > MAX_RECORD => Split::Damaged,
        None => Split::Torn,
    }
}

/// Bodies end at 3 MiB; defaults and managed fields may add to that.
const MAX_RECORD: usize = 32 << 20;

fn apply(payload: &[u8], revision: &mut u64, objects: &mut Objects) -> Result<(), String> {
    let record: Record<'_> =
        serde_json::from_slice(payload).map_err(|error| format!("a record is not what was written: {error}"))?;
    *revision = record.revision.max(*revision);
    if record.resource.is_empty() {
        return Ok(());
    }
    let resource = GroupResource::new(&record.group, &record.resource);
    let key = Key::parse(&record.key);
    match record.value {
        Some(value) => {
            let value = serde_json::from_str(value.get()).map_err(|error| error.to_string())?;
            let object = Object::new(key.clone(), record.revision, value);
            objects.insert((resource, key), object);
        }
        None => {
            objects.remove(&(resource, key));
        }
    }
    Ok(())
}
