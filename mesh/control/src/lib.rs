//! meshlab-control
