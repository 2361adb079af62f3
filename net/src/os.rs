//! The operating system's sockets.
