//! Tests of the compiler as its users call it, by the numbers of the semantics that they hold it to.

mod shape;
mod support;
