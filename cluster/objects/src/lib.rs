//! Kubernetes objects as data: schemas, decoding, patches, server-side apply, validation, tables. No input or output here.

mod status;

pub use status::{Cause, CauseReason, Reason, Status};
