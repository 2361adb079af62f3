//! HTTP/1.1 and HTTP/2 towards clients: reading requests, treating headers, answering.

pub(crate) mod body;
pub(crate) mod edge;
pub(crate) mod exchange;
pub(crate) mod guard;
pub(crate) mod handler;
pub(crate) mod local_reply;
pub(crate) mod path;
pub(crate) mod server;
pub(crate) mod upgrade;
