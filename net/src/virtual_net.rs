//! A network inside the process.
//!
//! A [`VirtualNet`] is the fabric: it knows every host (a pod, the node, a server outside the cluster), every service address and
//! every DNS name. A [`PodNet`] is one host's view of it. A connection takes the way a packet takes through Linux:
//!
//! 1. in the client's pod, the rules that `istio-init` sets may redirect it to the sidecar ([`Redirect`]);
//! 2. on the node, a service address is exchanged for one of its endpoints, as kube-proxy does ([`ServicePort`]);
//! 3. on the link between two hosts, conditions may delay, cut or reset it ([`LinkCondition`]), and a [`Capture`] may record it;
//! 4. in the server's pod, the rules may redirect it to the sidecar once more.
//!
//! Only connecting looks at shared tables. Bytes then flow through two bounded pipes that nobody but their two ends locks.

mod capture;
mod connection;
mod dns;
mod fabric;
mod host;
mod link;
mod pipe;
mod pod_net;
mod publish;
mod redirect;
mod service;

pub use capture::{Capture, CaptureOptions};
pub use connection::VirtualStream;
pub use dns::{Lookup, Record};
pub use fabric::{Egress, VirtualNet, VirtualNetOptions};
pub use host::{HostOptions, VirtualListener};
pub use link::{ConditionId, Link, LinkCondition};
pub use pod_net::PodNet;
pub use publish::Published;
pub use redirect::{Redirect, RedirectParseError, Selection};
pub use service::ServicePort;
