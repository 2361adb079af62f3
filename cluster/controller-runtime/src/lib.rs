//! What controllers and the kubelet are built from: a shared cache of objects ([`Informer`]), a queue of keys to reconcile
//! ([`WorkQueue`]), a recorder of Events ([`EventRecorder`]), and the arithmetic of selectors, owners and times.
//!
//! The one departure from other libraries of this kind is [`Informer::observe`]: a write's answer goes straight into the cache,
//! so that a controller reads its own writes and needs no table of expectations.

mod events;
mod informer;
mod informers;
mod meta;
mod patch;
mod queue;
mod tasks;

pub use events::{EventRecorder, EventType};
pub use informer::{Informer, Key};
pub use informers::Informers;
pub use meta::{
    controller_of, controller_reference, epoch, is_not_found, is_terminating, matches_selector, now, object_reference,
    scaled_value,
};
pub use patch::merge_patch;
pub use queue::{AsyncHandler, Outcome, WorkQueue};
pub use tasks::{catch_panic, supervise};
