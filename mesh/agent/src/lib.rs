//! meshlab-agent
