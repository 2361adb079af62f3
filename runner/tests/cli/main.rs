//! The commands, as a shell calls them: what they print and how they end.
//!
//! One lab is started and all commands that need one are tried on it, one after the other, as a learner would.

mod alone;
mod harness;
mod on_lab;
mod submissions;
