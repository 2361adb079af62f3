//! meshlab-tests
