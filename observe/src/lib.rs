//! meshlab-observe
