//! A tree of files in memory. Sub-trees are shared and copied only where they are changed, so a snapshot costs nothing.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::SystemTime;

use bytes::{Bytes, BytesMut};

/// What an entry counts against the quota beside its bytes, so that empty files are not free.
const ENTRY_BYTES: u64 = 256;

/// The longest name of one entry, as Linux has it.
const NAME_MAX: usize = 255;

/// What kind of thing is at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileType {
    /// A file with bytes.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// `/dev/null`: reads as empty, swallows what is written.
    Null,
}

/// What is known of a file beside its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metadata {
    /// What it is.
    pub file_type: FileType,
    /// Bytes in a file or in a link's target; 0 for others.
    pub size: u64,
    /// Permission bits, such as `0o644`.
    pub mode: u32,
    /// Time of last modification.
    pub modified: SystemTime,
}

/// A file, directory or link.
#[derive(Clone)]
pub(crate) struct Node {
    pub(super) mode: u32,
    pub(super) modified: SystemTime,
    content: Content,
}

#[derive(Clone)]
enum Content {
    File(Bytes),
    Directory(BTreeMap<String, Arc<Node>>),
    Symlink(String),
    Null,
}

impl Node {
    fn new(mode: u32, content: Content) -> Self {
        Self { mode, modified: SystemTime::now(), content }
    }

    pub(crate) fn directory() -> Self {
        Self::new(0o755, Content::Directory(BTreeMap::new()))
    }

    pub(crate) fn file(content: Bytes, mode: u32) -> Self {
        Self::new(mode, Content::File(content))
    }

    pub(crate) fn symlink(target: &str) -> Self {
        Self::new(0o777, Content::Symlink(target.to_owned()))
    }

    pub(crate) fn null() -> Self {
        Self::new(0o666, Content::Null)
    }

    pub(crate) fn with_mode(self, mode: u32) -> Self {
        Self { mode, ..self }
    }

    fn kind(&self) -> FileType {
        match &self.content {
            Content::File(_) => FileType::File,
            Content::Directory(_) => FileType::Directory,
            Content::Symlink(_) => FileType::Symlink,
            Content::Null => FileType::Null,
        }
    }

    fn size(&self) -> u64 {
        match &self.content {
            Content::File(bytes) => bytes.len() as u64,
            Content::Symlink(target) => target.len() as u64,
            Content::Directory(_) | Content::Null => 0,
        }
    }

    fn children(&self) -> Option<&BTreeMap<String, Arc<Self>>> {
        match &self.content {
            Content::Directory(children) => Some(children),
            _ => None,
        }
    }

    /// What this and all below it count against the quota. Trees are as deep as paths are long, which bounds the recursion.
    fn weight(&self) -> u64 {
        let below: u64 = self.children().into_iter().flat_map(BTreeMap::values).map(|child| child.weight()).sum();
        ENTRY_BYTES + self.size() + below
    }
}

/// A root directory with a quota.
#[derive(Clone)]
pub(crate) struct Tree {
    root: Arc<Node>,
    used: u64,
    quota: u64,
}

impl Tree {
    /// `root` itself is free; what is written from now on counts.
    pub(crate) fn new(root: Arc<Node>, quota: u64) -> Self {
        Self { root, used: 0, quota }
    }

    pub(crate) fn into_root(self) -> Arc<Node> {
        self.root
    }

    /// The node at `path`, or the error that opening it would give.
    fn get(&self, path: &[String]) -> io::Result<&Node> {
        let mut node = &self.root;
        for part in path {
            let children = node.children().ok_or_else(|| error(ErrorKind::NotADirectory))?;
            node = children.get(part).ok_or_else(|| error(ErrorKind::NotFound))?;
        }
        Ok(node)
    }

    fn get_mut(&mut self, path: &[String]) -> io::Result<&mut Node> {
        let mut node = Arc::make_mut(&mut self.root);
        for part in path {
            let Content::Directory(children) = &mut node.content else { return Err(error(ErrorKind::NotADirectory)) };
            node = Arc::make_mut(children.get_mut(part).ok_or_else(|| error(ErrorKind::NotFound))?);
        }
        Ok(node)
    }

    /// The directory that holds `path`, whose modification time becomes now, and the last component.
    fn parent_mut<'a>(&mut self, path: &'a [String]) -> io::Result<(&mut BTreeMap<String, Arc<Node>>, &'a String)> {
        let (name, parent) = path.split_last().ok_or_else(|| error(ErrorKind::ResourceBusy))?;
        let node = self.get_mut(parent)?;
        let Content::Directory(children) = &mut node.content else { return Err(error(ErrorKind::NotADirectory)) };
        node.modified = SystemTime::now();
        Ok((children, name))
    }

    fn charge(&mut self, more: u64, less: u64) -> io::Result<()> {
        let used = self.used.saturating_sub(less).saturating_add(more);
        if more > less && used > self.quota {
            return Err(error(ErrorKind::StorageFull));
        }
        self.used = used;
        Ok(())
    }

    pub(super) fn kind(&self, path: &[String]) -> Option<FileType> {
        self.get(path).ok().map(Node::kind)
    }

    pub(super) fn metadata(&self, path: &[String]) -> io::Result<Metadata> {
        let node = self.get(path)?;
        Ok(Metadata { file_type: node.kind(), size: node.size(), mode: node.mode, modified: node.modified })
    }

    pub(super) fn link(&self, path: &[String]) -> Option<String> {
        match &self.get(path).ok()?.content {
            Content::Symlink(target) => Some(target.clone()),
            _ => None,
        }
    }

    pub(super) fn names(&self, path: &[String]) -> io::Result<Vec<String>> {
        let node = self.get(path)?;
        let children = node.children().ok_or_else(|| error(ErrorKind::NotADirectory))?;
        Ok(children.keys().cloned().collect())
    }

    pub(super) fn read(&self, path: &[String]) -> io::Result<Bytes> {
        match &self.get(path)?.content {
            Content::File(bytes) => Ok(bytes.clone()),
            Content::Null => Ok(Bytes::new()),
            Content::Directory(_) => Err(error(ErrorKind::IsADirectory)),
            Content::Symlink(_) => Err(error(ErrorKind::NotFound)),
        }
    }

    pub(super) fn edit(&mut self, path: &[String], change: impl FnOnce(&mut Node)) -> io::Result<()> {
        self.get_mut(path).map(change)
    }

    pub(super) fn write(&mut self, path: &[String], content: Bytes) -> io::Result<()> {
        match self.kind(path) {
            None => return self.insert(path, Node::file(content, 0o644)),
            Some(FileType::Null) => return Ok(()),
            Some(FileType::Directory) => return Err(error(ErrorKind::IsADirectory)),
            Some(FileType::File | FileType::Symlink) => {}
        }
        self.charge(content.len() as u64, self.get(path)?.size())?;
        let node = self.get_mut(path)?;
        node.modified = SystemTime::now();
        node.content = Content::File(content);
        Ok(())
    }

    pub(super) fn append(&mut self, path: &[String], more: &[u8]) -> io::Result<()> {
        if self.kind(path) != Some(FileType::File) {
            return self.write(path, Bytes::copy_from_slice(more));
        }
        self.charge(more.len() as u64, 0)?;
        let node = self.get_mut(path)?;
        node.modified = SystemTime::now();
        if let Content::File(bytes) = &mut node.content {
            // In place while nobody else reads these bytes, so that appending a line at a time stays linear.
            let mut all = std::mem::take(bytes).try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..]));
            all.extend_from_slice(more);
            *bytes = all.freeze();
        }
        Ok(())
    }

    pub(super) fn insert(&mut self, path: &[String], node: Node) -> io::Result<()> {
        if self.kind(path).is_some() {
            return Err(error(ErrorKind::AlreadyExists));
        }
        if path.last().is_some_and(|name| name.len() > NAME_MAX) || path.len() > NAME_MAX {
            return Err(error(ErrorKind::InvalidFilename));
        }
        let weight = node.weight();
        self.parent_mut(path)?;
        self.charge(weight, 0)?;
        let (siblings, name) = self.parent_mut(path)?;
        siblings.insert(name.clone(), Arc::new(node));
        Ok(())
    }

    /// Puts `node` at `path` whatever is there, creating parents: for building a tree from a list of files.
    pub(crate) fn place(&mut self, path: &[String], node: Node) -> io::Result<()> {
        for end in 1..path.len() {
            if self.kind(&path[..end]).is_none() {
                self.insert(&path[..end], Node::directory())?;
            }
        }
        if self.kind(path).is_some() {
            self.remove(path)?;
        }
        self.insert(path, node)
    }

    pub(super) fn remove(&mut self, path: &[String]) -> io::Result<Arc<Node>> {
        self.get(path)?;
        let (siblings, name) = self.parent_mut(path)?;
        let node = siblings.remove(name).ok_or_else(|| error(ErrorKind::NotFound))?;
        self.charge(0, node.weight())?;
        Ok(node)
    }

    pub(super) fn rename(&mut self, from: &[String], to: &[String]) -> io::Result<()> {
        let source = self.get(from)?.kind();
        if from == to {
            return Ok(());
        }
        if to.starts_with(from) {
            return Err(error(ErrorKind::InvalidInput));
        }
        let (_, parent) = to.split_last().ok_or_else(|| error(ErrorKind::ResourceBusy))?;
        if self.get(parent)?.kind() != FileType::Directory {
            return Err(error(ErrorKind::NotADirectory));
        }
        match self.get(to) {
            Ok(target) => match (source == FileType::Directory, target.children()) {
                (true, Some(children)) if !children.is_empty() => return Err(error(ErrorKind::DirectoryNotEmpty)),
                (true, None) => return Err(error(ErrorKind::NotADirectory)),
                (false, Some(_)) => return Err(error(ErrorKind::IsADirectory)),
                _ => drop(self.remove(to)?),
            },
            Err(err) if err.kind() == ErrorKind::NotFound => {}
            Err(err) => return Err(err),
        }
        let node = self.remove(from)?;
        let weight = node.weight();
        let (siblings, name) = self.parent_mut(to)?;
        siblings.insert(name.clone(), node);
        self.used += weight;
        Ok(())
    }
}

/// The components of a path, without empty ones.
pub(crate) fn split(path: &str) -> Vec<String> {
    path.split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

/// An error with the words that `strerror` has for it.
pub(super) fn error(kind: ErrorKind) -> io::Error {
    let words = match kind {
        ErrorKind::NotFound => "No such file or directory",
        ErrorKind::AlreadyExists => "File exists",
        ErrorKind::NotADirectory => "Not a directory",
        ErrorKind::IsADirectory => "Is a directory",
        ErrorKind::DirectoryNotEmpty => "Directory not empty",
        ErrorKind::ReadOnlyFilesystem => "Read-only file system",
        ErrorKind::StorageFull => "No space left on device",
        ErrorKind::CrossesDevices => "Invalid cross-device link",
        ErrorKind::ResourceBusy => "Device or resource busy",
        ErrorKind::InvalidFilename => "File name too long",
        _ => "Invalid argument",
    };
    io::Error::new(kind, words)
}
