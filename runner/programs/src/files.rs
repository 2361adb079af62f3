//! Files, as the mesh's programs read and write them.

use std::io;

use meshlab_program::FileSystem;
use meshlab_proxy_config::{Files, OsFiles};

/// The machine's files or a container's.
#[derive(Clone)]
pub(crate) enum AnyFiles {
    Os(OsFiles),
    Container(FileSystem),
}

impl Files for AnyFiles {
    fn read(&self, path: &str) -> io::Result<Vec<u8>> {
        match self {
            Self::Os(files) => files.read(path),
            Self::Container(files) => files.read(path).map(|content| content.to_vec()),
        }
    }

    fn write(&self, path: &str, content: &[u8]) -> io::Result<()> {
        match self {
            Self::Os(files) => files.write(path, content),
            Self::Container(files) => files.write(path, content.to_vec()),
        }
    }
}
