//! Which images there are, and what is in them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use thiserror::Error;

use crate::Program;
use crate::filesystem::{Node, Tree, split};

/// What a look at a built-in executable's file shows.
const EXECUTABLE_CONTENT: &[u8] = b"This program is built into meshlab; it has no file of its own.\n";

/// A container image: default command, environment, and the executables found by name.
pub struct Image {
    /// Default `argv` prefix, as a Dockerfile's `ENTRYPOINT`. A container's `command` replaces it (and drops [`Image::cmd`]).
    pub entrypoint: Vec<String>,
    /// Default arguments, as a Dockerfile's `CMD`. A container's `args` replaces them.
    pub cmd: Vec<String>,
    /// Environment that the container's own `env` is laid over.
    pub env: BTreeMap<String, String>,
    /// User id a container runs as when its pod does not say.
    pub uid: u32,
    /// Working directory when the container does not say. Empty means `/`.
    pub working_dir: String,
    files: BTreeMap<String, Bytes>,
    executables: BTreeMap<String, Arc<dyn Program>>,
    root: Arc<Node>,
}

impl Image {
    /// Starts describing an image.
    pub fn builder() -> ImageBuilder {
        ImageBuilder(Self {
            entrypoint: Vec::new(),
            cmd: Vec::new(),
            env: BTreeMap::new(),
            uid: 0,
            working_dir: String::new(),
            files: BTreeMap::new(),
            executables: BTreeMap::new(),
            root: Arc::new(Node::directory()),
        })
    }

    /// The files of a fresh container.
    pub(crate) fn root(&self) -> Arc<Node> {
        self.root.clone()
    }

    /// Finds an executable as `execvp` would: by base name, whatever directory it is called with.
    pub fn executable(&self, argv0: &str) -> Option<Arc<dyn Program>> {
        let name = argv0.rsplit('/').next().unwrap_or(argv0);
        self.executables.get(name).cloned()
    }

    /// The names of all executables, sorted.
    pub fn executable_names(&self) -> impl Iterator<Item = &str> {
        self.executables.keys().map(String::as_str)
    }
}

/// Builds an [`Image`].
pub struct ImageBuilder(Image);

impl ImageBuilder {
    /// Adds an executable under `name`; a later one replaces an earlier one.
    #[must_use]
    pub fn executable(mut self, name: &str, program: Arc<dyn Program>) -> Self {
        self.0.executables.insert(name.to_owned(), program);
        self
    }

    /// Adds every executable, file and environment variable of `other` that is not there yet (a base image).
    #[must_use]
    pub fn base(mut self, other: &Image) -> Self {
        for (name, program) in &other.executables {
            self.0.executables.entry(name.clone()).or_insert_with(|| program.clone());
        }
        for (path, content) in &other.files {
            self.0.files.entry(path.clone()).or_insert_with(|| content.clone());
        }
        for (name, value) in &other.env {
            self.0.env.entry(name.clone()).or_insert_with(|| value.clone());
        }
        self
    }

    /// Sets the default command.
    #[must_use]
    pub fn entrypoint<S: Into<String>>(mut self, argv: impl IntoIterator<Item = S>) -> Self {
        self.0.entrypoint = argv.into_iter().map(Into::into).collect();
        self
    }

    /// Sets the default arguments.
    #[must_use]
    pub fn cmd<S: Into<String>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.0.cmd = args.into_iter().map(Into::into).collect();
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.0.env.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Sets the default user id.
    #[must_use]
    pub fn uid(mut self, uid: u32) -> Self {
        self.0.uid = uid;
        self
    }

    /// Sets the working directory.
    #[must_use]
    pub fn working_dir(mut self, path: &str) -> Self {
        self.0.working_dir = path.to_owned();
        self
    }

    /// Adds a file, present in a fresh container, under its absolute path.
    #[must_use]
    pub fn file(mut self, path: &str, content: impl Into<Bytes>) -> Self {
        self.0.files.insert(path.to_owned(), content.into());
        self
    }

    /// Done.
    ///
    /// # Panics
    /// Two of the files cannot be together, such as `/a` and `/a/b`.
    pub fn build(mut self) -> Arc<Image> {
        self.0.root = self.lay_out();
        Arc::new(self.0)
    }

    /// The directories that every image has, the executables as files in `/usr/bin`, and the image's own files.
    fn lay_out(&self) -> Arc<Node> {
        let mut tree = Tree::new(Arc::new(Node::directory()), u64::MAX);
        let mut place = |path: &str, node: Node| {
            tree.place(&split(path), node).unwrap_or_else(|err| panic!("the image cannot have a file {path}: {err}"));
        };
        for directory in ["/etc", "/home", "/root", "/run", "/usr/local", "/var/log", "/var/run"] {
            place(directory, Node::directory());
        }
        place("/tmp", Node::directory().with_mode(0o1777));
        place("/dev/null", Node::null());
        for (link, target) in [("/bin", "usr/bin"), ("/sbin", "usr/bin"), ("/usr/sbin", "bin"), ("/usr/local/bin", "../bin")] {
            place(link, Node::symlink(target));
        }
        for name in self.0.executables.keys() {
            place(&format!("/usr/bin/{name}"), Node::file(Bytes::from_static(EXECUTABLE_CONTENT), 0o755));
        }
        for (path, content) in &self.0.files {
            place(path, Node::file(content.clone(), 0o644));
        }
        tree.into_root()
    }
}

/// All images that a cluster can run, found by name.
#[derive(Default, Clone)]
pub struct Catalogue {
    entries: Vec<(String, Arc<Image>)>,
}

/// No image has this name.
#[derive(Debug, Error)]
#[error("no image {name:?}; this cluster has: {}", available.join(", "))]
pub struct ImageNotFound {
    /// The name asked for.
    pub name: String,
    /// The name patterns there are.
    pub available: Vec<String>,
}

impl Catalogue {
    /// Registers an image under a name such as `nginx` or `ghcr.io/meshlab/pilot`. A container's image matches when its
    /// repository, without registry host and `library/` prefix or with them, is `name`; any tag or digest is accepted.
    /// Where two match, the one registered last wins.
    pub fn register(&mut self, name: &str, image: Arc<Image>) {
        self.entries.push((name.to_owned(), image));
    }

    /// Finds the image for a container's `image` field.
    ///
    /// # Errors
    /// [`ImageNotFound`], which names the images there are.
    pub fn find(&self, name: &str) -> Result<Arc<Image>, ImageNotFound> {
        let repository = repository(name).ok_or_else(|| self.not_found(name))?;
        let found = self.entries.iter().rev().find(|(known, _)| is_named(repository, known));
        found.map(|(_, image)| image.clone()).ok_or_else(|| self.not_found(name))
    }

    fn not_found(&self, name: &str) -> ImageNotFound {
        let names: BTreeSet<&String> = self.entries.iter().map(|(name, _)| name).collect();
        ImageNotFound { name: name.to_owned(), available: names.into_iter().cloned().collect() }
    }
}

/// A reference without its tag and digest; None where one of them cannot be. The grammar:
/// <https://github.com/distribution/reference/blob/main/reference.go>.
fn repository(reference: &str) -> Option<&str> {
    let (reference, digest) = reference.split_once('@').map_or((reference, None), |(rest, digest)| (rest, Some(digest)));
    let is_hex = |hex: &str| !hex.is_empty() && hex.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    if !digest.is_none_or(|digest| digest.strip_prefix("sha256:").is_some_and(is_hex)) {
        return None;
    }
    // A colon before the last slash is that of the registry's port.
    let last = reference.rfind('/').map_or(0, |slash| slash + 1);
    let Some(colon) = reference[last..].find(':').map(|colon| last + colon) else { return Some(reference) };
    let tag = &reference[colon + 1..];
    let fine = tag.len() <= 128 && tag.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'));
    (fine && !tag.is_empty() && !tag.starts_with(['.', '-'])).then_some(&reference[..colon])
}

/// Whether a repository is `name`, perhaps with a registry's host or `library/` in front.
fn is_named(repository: &str, name: &str) -> bool {
    let without_host = match repository.split_once('/') {
        Some((host, rest)) if host.contains(['.', ':']) || host == "localhost" => rest,
        _ => repository,
    };
    repository == name || without_host == name || without_host.strip_prefix("library/") == Some(name)
}
