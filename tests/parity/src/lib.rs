//! Parity: what our proxy does with a configuration, beside what Envoy does with the same one.
//!
//! A case file under `cases/` holds Istio resources and requests. [`world`] compiles the resources with our compiler; the result is
//! served once by our proxy and once by Envoy, for which [`translate`] writes it as a static bootstrap configuration. Both forward
//! to the same scripted [`upstream`]s. Every request is sent through both, and what the client, the upstream and the access log saw
//! is compared field by field ([`observation`]). Envoy is right where they differ, unless the case states the difference.

mod authz;
pub mod case;
pub mod certificates;
pub mod client;
pub mod envoy;
pub mod observation;
pub mod place;
pub mod run;
pub mod shares;
pub mod tokens;
pub mod translate;
pub mod upstream;
pub mod world;
