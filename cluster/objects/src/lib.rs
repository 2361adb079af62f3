//! Kubernetes objects as data: schemas, decoding, patches, server-side apply, validation, tables. No input or output here.
//!
//! Objects are [`serde_json::Value`]s. What is known about a kind stands in two places: its [`resource::ResourceDefinition`]
//! (how it is served) and its [`schema::Schema`] (how it is shaped). Everything else is a pure function over these.

pub mod apply;
pub mod decode;
pub mod openapi;
pub mod patch;
pub mod quantity;
pub mod resource;
pub mod schema;
pub mod selector;
mod status;
pub mod table;
pub mod validation;

pub use status::{Cause, CauseReason, Reason, Status};

/// The Kubernetes version whose API this is.
pub const KUBERNETES_VERSION: &str = "v1.33.4";
