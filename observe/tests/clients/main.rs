//! Clients that others wrote: Prometheus and its promtool, and OpenTelemetry's exporters.
//!
//! Prometheus and promtool are those of Debian's package `prometheus`, which `.ci/install-tools` installs.

mod federation;
mod otlp;
mod parity;
mod promtool;
mod support;
