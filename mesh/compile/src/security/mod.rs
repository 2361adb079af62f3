//! Who may talk to a workload, and how.

pub(crate) mod authorization;
pub mod peer;
pub(crate) mod request;
pub(crate) mod selection;

pub use request::needed_key_sets;
