//! A container's file system, as the mesh's programs read and write it.

use std::io;

use meshlab_program::FileSystem;
use meshlab_proxy_config::Files;

/// The file system of one container.
#[derive(Clone)]
pub(super) struct ContainerFiles(pub(super) FileSystem);

impl Files for ContainerFiles {
    fn read(&self, path: &str) -> io::Result<Vec<u8>> {
        self.0.read(path).map(|content| content.to_vec())
    }

    fn write(&self, path: &str, content: &[u8]) -> io::Result<()> {
        self.0.write(path, content.to_vec())
    }
}
