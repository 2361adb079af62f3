//! The API server of the embedded cluster.

mod node;

pub use node::{ExecOptions, ExecSession, LogOptions, NodeAgent, PodRef, Reader, SharedNodeAgent, Writer};
