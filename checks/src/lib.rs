//! meshlab-checks
