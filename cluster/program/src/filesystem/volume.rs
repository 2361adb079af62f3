//! Volumes: trees that several containers of a pod can share.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use parking_lot::Mutex;

use super::tree::{FileType, Node, Tree, split};

/// A volume's files. Cloning is cheap and yields the same volume.
#[derive(Clone)]
pub struct Volume(Arc<Inner>);

struct Inner {
    tree: Mutex<Tree>,
    projected: bool,
}

/// A file of a ConfigMap, Secret, downward API or projected volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProjectedFile {
    /// Its content.
    pub content: Bytes,
    /// Its permission bits, such as `0o644`.
    pub mode: u32,
}

impl Volume {
    /// An empty, writable volume that refuses to grow beyond `quota` bytes (`emptyDir`, with its `sizeLimit`).
    pub fn empty_dir(quota: u64) -> Self {
        let root = Node::directory().with_mode(0o777);
        Self::of(Tree::new(Arc::new(root), quota), false)
    }

    /// A volume whose content is given as a whole (ConfigMap, Secret, downward API, projected): path below the volume's root, and file.
    ///
    /// # Errors
    /// As [`Volume::replace`].
    pub fn projected(files: &BTreeMap<String, ProjectedFile>) -> io::Result<Self> {
        Ok(Self::of(project(files)?, true))
    }

    pub(crate) fn over(root: Arc<Node>, quota: u64) -> Self {
        Self::of(Tree::new(root, quota), false)
    }

    fn of(tree: Tree, projected: bool) -> Self {
        Self(Arc::new(Inner { tree: Mutex::new(tree), projected }))
    }

    /// Replaces the whole content at once: a reader sees all of the old or all of the new. As the kubelet does it, the files are
    /// in a dated directory to which `..data` points, and each name at the top is a link through `..data`.
    ///
    /// # Errors
    /// `InvalidInput` where a path is empty or has a `..` component; `AlreadyExists`/`NotADirectory` where one path is a directory of another.
    pub fn replace(&self, files: &BTreeMap<String, ProjectedFile>) -> io::Result<()> {
        let tree = project(files)?;
        *self.0.tree.lock() = tree;
        Ok(())
    }

    pub(super) fn is_projected(&self) -> bool {
        self.0.projected
    }

    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// A volume of its own with the content of this moment.
    pub(super) fn snapshot(&self) -> Self {
        Self::of(self.0.tree.lock().clone(), self.0.projected)
    }

    pub(super) fn with<T>(&self, use_tree: impl FnOnce(&mut Tree) -> T) -> T {
        use_tree(&mut self.0.tree.lock())
    }

    pub(super) fn file_type(&self, path: &[String]) -> io::Result<FileType> {
        self.with(|tree| tree.metadata(path)).map(|metadata| metadata.file_type)
    }
}

fn project(files: &BTreeMap<String, ProjectedFile>) -> io::Result<Tree> {
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let dated = format!("..{}.{:09}", since_epoch.as_secs(), since_epoch.subsec_nanos());
    // The content is bounded where it comes from: a ConfigMap or Secret holds at most 1 MiB.
    let mut tree = Tree::new(Arc::new(Node::directory().with_mode(0o777)), u64::MAX);
    tree.place(std::slice::from_ref(&dated), Node::directory())?;
    tree.place(&split("..data"), Node::symlink(&dated))?;
    for (path, file) in files {
        let parts = split(path);
        if parts.is_empty() || parts.iter().any(|part| part == ".." || part == ".") {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("volume path {path:?} must stay inside the volume")));
        }
        let inside: Vec<String> = std::iter::once(dated.clone()).chain(parts.iter().cloned()).collect();
        tree.place(&inside, Node::file(file.content.clone(), file.mode))?;
        tree.place(&parts[..1], Node::symlink(&format!("..data/{}", parts[0])))?;
    }
    Ok(tree)
}
