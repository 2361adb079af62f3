//! Who may talk to a workload, and how.

pub mod authorization;
pub mod peer;
pub mod request;
