//! What runs in a pod of the embedded cluster.
//!
//! A container image is an [`Image`]: a set of executables, each a Rust [`Program`], found by argv[0] exactly as a real
//! image's files are found in `$PATH`. The [`Catalogue`] maps image names to images. A running executable is a [`Process`]:
//! it gets its arguments, environment, file system, network and standard streams, and returns an exit code.

mod catalogue;
mod filesystem;
mod process;
mod spawn;
mod streams;
mod terminal;

pub use catalogue::{Catalogue, Image, ImageBuilder, ImageNotFound};
pub use filesystem::{FileSystem, FileType, Metadata, ProjectedFile, Volume};
pub use process::{Container, ExitCode, Process, Program, Signal, Signals, Stdio, absolute};
pub use spawn::{Child, Processes, Running, SpawnError};
pub use streams::{PipeReader, PipeWriter, Shared, pipe};
