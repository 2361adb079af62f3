//! meshlab
