//! meshlab-compile
