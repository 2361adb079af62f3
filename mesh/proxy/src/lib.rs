//! meshlab-proxy
