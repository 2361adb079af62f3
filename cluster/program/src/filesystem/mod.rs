//! A container's files: the image's own, a writable layer over them, and the volumes mounted at paths.
//!
//! Nothing here touches the host's disk. Errors carry the kind and the words that the operating system would give.

mod tree;
mod volume;

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use parking_lot::RwLock;

pub use tree::{FileType, Metadata};
pub(crate) use tree::{Node, Tree, split};
pub use volume::{ProjectedFile, Volume};

use tree::error;

/// How many symbolic links one path may go through, as Linux counts them.
const MAX_LINKS: usize = 40;

/// Bytes that a container may write outside its volumes.
const WRITABLE_LAYER_BYTES: u64 = 64 << 20;

/// The files that a container sees. Cloning is cheap and yields the same files.
///
/// Paths are absolute; a relative one is taken from `/`. `..` and symbolic links are resolved inside, so no path leads out.
/// Permission bits are kept and shown but not enforced; only a read-only mount or root refuses writes.
#[derive(Clone)]
pub struct FileSystem(Arc<RwLock<Mounts>>);

struct Mounts {
    root: Volume,
    read_only_root: bool,
    over: Vec<Mount>,
}

struct Mount {
    at: Vec<String>,
    volume: Volume,
    inside: Vec<String>,
    read_only: bool,
}

/// Where a path ends: a place inside one volume, where something may or may not be.
struct Place {
    absolute: Vec<String>,
    volume: Volume,
    inside: Vec<String>,
    read_only: bool,
}

impl Default for FileSystem {
    fn default() -> Self {
        Self::with_root(Volume::empty_dir(WRITABLE_LAYER_BYTES))
    }
}

impl FileSystem {
    /// A fresh container's files. The image's content is shared, and copied only where it is written to.
    pub fn new(image: &crate::Image) -> Self {
        Self::with_root(Volume::over(image.root(), WRITABLE_LAYER_BYTES))
    }

    fn with_root(root: Volume) -> Self {
        Self(Arc::new(RwLock::new(Mounts { root, read_only_root: false, over: Vec::new() })))
    }

    /// Refuses writes outside of volumes from now on (`securityContext.readOnlyRootFilesystem`).
    pub fn set_root_read_only(&self) {
        self.0.write().read_only_root = true;
    }

    /// Mounts `volume`, or what `sub_path` names in it (a directory, or a single file), at `path`. Missing parents and a missing
    /// `sub_path` are created as directories. A `sub_path` of a projected volume shows the content of this moment for good,
    /// as in Kubernetes, where such a mount gets no updates. Mount parents before children.
    ///
    /// # Errors
    /// A parent of `path` is a file; the volume has no room for the new `sub_path`.
    pub fn mount(&self, path: &str, volume: &Volume, sub_path: &str, read_only: bool) -> io::Result<()> {
        let (volume, inside) = match split(sub_path).is_empty() {
            true => (volume.clone(), Vec::new()),
            false => {
                let volume = if volume.is_projected() { volume.snapshot() } else { volume.clone() };
                let alone = Self::with_root(volume.clone());
                if alone.symlink_metadata(sub_path).is_err() {
                    alone.create_dir_all(sub_path)?;
                }
                (volume, alone.place(sub_path, true)?.inside)
            }
        };
        self.make_mount_point(path, volume.file_type(&inside)? == FileType::Directory)?;
        let at = self.place(path, true)?.absolute;
        let mut mounts = self.0.write();
        mounts.over.retain(|mount| mount.at != at);
        mounts.over.push(Mount { at, volume, inside, read_only });
        mounts.over.sort_by_key(|mount| std::cmp::Reverse(mount.at.len()));
        Ok(())
    }

    fn make_mount_point(&self, path: &str, directory: bool) -> io::Result<()> {
        if self.metadata(path).is_ok() {
            return Ok(());
        }
        let parts = split(path);
        let parents = if directory { &parts[..] } else { &parts[..parts.len().saturating_sub(1)] };
        self.make_directories(&format!("/{}", parents.join("/")), true)?;
        if !directory {
            let place = self.place(path, true)?;
            place.volume.with(|tree| tree.write(&place.inside, Bytes::new()))?;
        }
        Ok(())
    }

    /// Reads a whole file.
    ///
    /// # Errors
    /// `NotFound`, `NotADirectory`, `IsADirectory`.
    pub fn read(&self, path: &str) -> io::Result<Bytes> {
        let place = self.place(path, true)?;
        place.volume.with(|tree| tree.read(&place.inside))
    }

    /// Reads a whole file as text; bytes that are not UTF-8 become U+FFFD.
    ///
    /// # Errors
    /// As [`FileSystem::read`].
    pub fn read_text(&self, path: &str) -> io::Result<String> {
        Ok(String::from_utf8_lossy(&self.read(path)?).into_owned())
    }

    /// Creates a file or replaces its content.
    ///
    /// # Errors
    /// `NotFound` (no parent directory), `NotADirectory`, `IsADirectory`, `ReadOnlyFilesystem`, `StorageFull`.
    pub fn write(&self, path: &str, content: impl Into<Bytes>) -> io::Result<()> {
        let place = self.place(path, true)?.writable()?;
        place.volume.with(|tree| tree.write(&place.inside, content.into()))
    }

    /// Adds to the end of a file, creating it where it is missing.
    ///
    /// # Errors
    /// As [`FileSystem::write`].
    pub fn append(&self, path: &str, content: &[u8]) -> io::Result<()> {
        let place = self.place(path, true)?.writable()?;
        place.volume.with(|tree| tree.append(&place.inside, content))
    }

    /// Creates one directory.
    ///
    /// # Errors
    /// `AlreadyExists`, and as [`FileSystem::write`].
    pub fn create_dir(&self, path: &str) -> io::Result<()> {
        let place = self.place(path, true)?.writable()?;
        place.volume.with(|tree| tree.insert(&place.inside, Node::directory()))
    }

    /// Creates a directory and its missing parents.
    ///
    /// # Errors
    /// `NotADirectory`, `ReadOnlyFilesystem`, `StorageFull`.
    pub fn create_dir_all(&self, path: &str) -> io::Result<()> {
        self.make_directories(path, false)
    }

    fn make_directories(&self, path: &str, even_if_read_only: bool) -> io::Result<()> {
        let mut so_far = String::new();
        for part in path.split('/').filter(|part| !part.is_empty()) {
            so_far = format!("{so_far}/{part}");
            match self.metadata(&so_far) {
                Ok(found) if found.file_type == FileType::Directory => continue,
                Ok(_) => return Err(error(io::ErrorKind::NotADirectory)),
                Err(err) if err.kind() == io::ErrorKind::NotFound => {}
                Err(err) => return Err(err),
            }
            let place = self.place(&so_far, true)?;
            let place = if even_if_read_only { place } else { place.writable()? };
            match place.volume.with(|tree| tree.insert(&place.inside, Node::directory())) {
                // Another process of the container was faster.
                Err(err) if err.kind() == io::ErrorKind::AlreadyExists => {}
                result => result?,
            }
        }
        Ok(())
    }

    /// The entries of a directory with what [`FileSystem::symlink_metadata`] says of each, sorted by name.
    ///
    /// # Errors
    /// `NotFound`, `NotADirectory`.
    pub fn list(&self, path: &str) -> io::Result<Vec<(String, Metadata)>> {
        let place = self.place(path, true)?;
        let names = place.volume.with(|tree| tree.names(&place.inside))?;
        let directory = place.absolute.join("/");
        // An entry that was removed since is left out, as readdir would.
        Ok(names
            .into_iter()
            .filter_map(|name| Some((name.clone(), self.symlink_metadata(&format!("/{directory}/{name}")).ok()?)))
            .collect())
    }

    /// What is at a path, symbolic links followed.
    ///
    /// # Errors
    /// `NotFound`, `NotADirectory`.
    pub fn metadata(&self, path: &str) -> io::Result<Metadata> {
        let place = self.place(path, true)?;
        place.volume.with(|tree| tree.metadata(&place.inside))
    }

    /// What is at a path, which may be a symbolic link itself.
    ///
    /// # Errors
    /// `NotFound`, `NotADirectory`.
    pub fn symlink_metadata(&self, path: &str) -> io::Result<Metadata> {
        let place = self.place(path, false)?;
        place.volume.with(|tree| tree.metadata(&place.inside))
    }

    /// Whether something is at a path, symbolic links followed.
    pub fn exists(&self, path: &str) -> bool {
        self.metadata(path).is_ok()
    }

    /// Sets the permission bits.
    ///
    /// # Errors
    /// `NotFound`, `NotADirectory`, `ReadOnlyFilesystem`.
    pub fn set_mode(&self, path: &str, mode: u32) -> io::Result<()> {
        let place = self.place(path, true)?.writable()?;
        place.volume.with(|tree| tree.edit(&place.inside, |node| node.mode = mode & 0o7777))
    }

    /// Sets the time of last modification.
    ///
    /// # Errors
    /// `NotFound`, `NotADirectory`, `ReadOnlyFilesystem`.
    pub fn set_modified(&self, path: &str, modified: SystemTime) -> io::Result<()> {
        let place = self.place(path, true)?.writable()?;
        place.volume.with(|tree| tree.edit(&place.inside, |node| node.modified = modified))
    }

    /// Removes a file or a symbolic link.
    ///
    /// # Errors
    /// `NotFound`, `NotADirectory`, `IsADirectory`, `ReadOnlyFilesystem`, `ResourceBusy` (a volume is mounted there).
    pub fn remove_file(&self, path: &str) -> io::Result<()> {
        if self.symlink_metadata(path)?.file_type == FileType::Directory {
            return Err(error(io::ErrorKind::IsADirectory));
        }
        self.remove(path)
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    /// `NotFound`, `NotADirectory`, `DirectoryNotEmpty`, `ReadOnlyFilesystem`, `ResourceBusy` (a volume is mounted there).
    pub fn remove_dir(&self, path: &str) -> io::Result<()> {
        match self.list(path)?.is_empty() {
            true => self.remove(path),
            false => Err(error(io::ErrorKind::DirectoryNotEmpty)),
        }
    }

    /// Removes a directory and all it holds.
    ///
    /// # Errors
    /// `NotFound`, `ReadOnlyFilesystem`, `ResourceBusy` (a volume is mounted there or below).
    pub fn remove_dir_all(&self, path: &str) -> io::Result<()> {
        self.remove(path)
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        let place = self.place(path, false)?.writable()?;
        self.refuse_mount_point(&place)?;
        place.volume.with(|tree| tree.remove(&place.inside)).map(drop)
    }

    /// Moves a file or directory. An existing file, or an empty directory, at the target is replaced.
    ///
    /// # Errors
    /// `NotFound`, `CrossesDevices` (the two are on different volumes), `DirectoryNotEmpty`, `IsADirectory`, `NotADirectory`,
    /// `InvalidInput` (a directory into itself), `ReadOnlyFilesystem`, `ResourceBusy` (a volume is mounted there).
    pub fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let (from, to) = (self.place(from, false)?.writable()?, self.place(to, false)?.writable()?);
        self.refuse_mount_point(&from)?;
        self.refuse_mount_point(&to)?;
        if !from.volume.is(&to.volume) {
            return Err(error(io::ErrorKind::CrossesDevices));
        }
        from.volume.with(|tree| tree.rename(&from.inside, &to.inside))
    }

    /// Makes `link` a symbolic link to `target`.
    ///
    /// # Errors
    /// `AlreadyExists`, and as [`FileSystem::write`].
    pub fn symlink(&self, target: &str, link: &str) -> io::Result<()> {
        let place = self.place(link, false)?.writable()?;
        place.volume.with(|tree| tree.insert(&place.inside, Node::symlink(target)))
    }

    /// Where a symbolic link points.
    ///
    /// # Errors
    /// `NotFound`; `InvalidInput` where it is not a symbolic link.
    pub fn read_link(&self, path: &str) -> io::Result<String> {
        let place = self.place(path, false)?;
        place.volume.with(|tree| tree.link(&place.inside)).ok_or_else(|| error(io::ErrorKind::InvalidInput))
    }

    /// The absolute path without symbolic links, `.` and `..`.
    ///
    /// # Errors
    /// `NotFound`, `NotADirectory`.
    pub fn canonicalize(&self, path: &str) -> io::Result<String> {
        let place = self.place(path, true)?;
        place.volume.with(|tree| tree.metadata(&place.inside))?;
        Ok(format!("/{}", place.absolute.join("/")))
    }

    fn refuse_mount_point(&self, place: &Place) -> io::Result<()> {
        match place.absolute.is_empty() || self.0.read().over.iter().any(|mount| mount.at.starts_with(&place.absolute)) {
            true => Err(error(io::ErrorKind::ResourceBusy)),
            false => Ok(()),
        }
    }

    /// Walks a path as the kernel does, one component at a time. The last component need not exist.
    fn place(&self, path: &str, follow_last: bool) -> io::Result<Place> {
        // A trailing slash asks for what a link points to.
        let follow_last = follow_last || path.ends_with('/');
        let mut todo: VecDeque<String> = split(path).into();
        let mut here = self.locate(Vec::new());
        let mut links = 0;
        while let Some(part) = todo.pop_front() {
            let mut next = here.absolute.clone();
            match part.as_str() {
                "." => continue,
                ".." => drop(next.pop()),
                _ => next.push(part),
            }
            let next = self.locate(next);
            match next.volume.with(|tree| tree.kind(&next.inside)) {
                Some(FileType::Symlink) if follow_last || !todo.is_empty() => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(io::Error::other("Too many levels of symbolic links"));
                    }
                    let target = next.volume.with(|tree| tree.link(&next.inside)).unwrap_or_default();
                    if target.starts_with('/') {
                        here = self.locate(Vec::new());
                    }
                    for part in split(&target).into_iter().rev() {
                        todo.push_front(part);
                    }
                }
                Some(FileType::Directory) => here = next,
                Some(_) if todo.is_empty() => here = next,
                Some(_) => return Err(error(io::ErrorKind::NotADirectory)),
                None if todo.is_empty() => here = next,
                None => return Err(error(io::ErrorKind::NotFound)),
            }
        }
        Ok(here)
    }

    fn locate(&self, absolute: Vec<String>) -> Place {
        let mounts = self.0.read();
        match mounts.over.iter().find(|mount| absolute.starts_with(&mount.at)) {
            Some(mount) => {
                let inside = [&mount.inside[..], &absolute[mount.at.len()..]].concat();
                Place { absolute, volume: mount.volume.clone(), inside, read_only: mount.read_only }
            }
            None => Place { inside: absolute.clone(), absolute, volume: mounts.root.clone(), read_only: mounts.read_only_root },
        }
    }
}

impl Place {
    fn writable(self) -> io::Result<Self> {
        if self.read_only { Err(error(io::ErrorKind::ReadOnlyFilesystem)) } else { Ok(self) }
    }
}
