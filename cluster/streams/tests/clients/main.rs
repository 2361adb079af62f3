//! Sessions with the clients that people use.

mod kube_rs;
mod kubectl;
mod server;
