//! Tests of the compiler as its users call it, by the numbers of the semantics that they hold it to.

mod destination_rules;
mod incremental;
mod invariants;
mod scope;
mod security;
mod semantics;
mod shape;
mod support;
mod virtual_services;
