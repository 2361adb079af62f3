//! meshlab-streams
