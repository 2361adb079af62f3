//! A network inside the process.
