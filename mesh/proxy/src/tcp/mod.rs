//! Connections that are passed on as bytes.

pub(crate) mod copy;
pub(crate) mod peer_exchange;
pub(crate) mod proxy;
