//! What the mesh did: metrics, traces and the service graph, under the names and with the APIs of Istio's addons.
//!
//! Four programs, each a function that serves until it is told to end: [`prometheus`], [`jaeger`], [`grafana`] and [`kiali`].
//! They know the network ([`meshlab_net::Net`]) and the Kubernetes API, and neither the mesh nor the cluster.

mod access_logs;
mod client;
mod dashboards;
#[doc(hidden)]
pub mod fuzzing;
mod graph;
mod inventory;
mod manifests;
mod metrics;
mod pages;
mod prometheus_client;
mod server;
mod traces;

pub use dashboards::{GrafanaOptions, grafana};
pub use graph::{KialiOptions, kiali};
pub use manifests::manifests;
pub use metrics::{Limits, PrometheusOptions, StaticTarget, prometheus, prometheus_of};
pub use traces::{JaegerOptions, TraceLimits, jaeger};
