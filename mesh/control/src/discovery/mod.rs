//! Giving every proxy its configuration: compile once per class of proxy, send what changed, hear what the proxy says.

mod hub;
mod stream;

pub(crate) use hub::{Compiled, Hub, Published, World};
pub(crate) use stream::{Discovery, certificate, stream};
