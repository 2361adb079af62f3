//! The proxy on the operating system's sockets, in front of real servers. Facts are those of the mesh's reference of Istio's semantics.

mod support;

mod access;
mod config;
mod faults;
mod framing;
mod golden;
mod health;
mod mtls;
mod retries;
mod routing;
mod tcp;
mod telemetry;
