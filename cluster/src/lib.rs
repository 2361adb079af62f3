//! meshlab-cluster
