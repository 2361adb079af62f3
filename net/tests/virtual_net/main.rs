//! The network inside the process, seen from its hosts.

mod capture;
mod conditions;
mod connections;
mod fixture;
mod names;
mod publish;
mod redirection;
mod services;
