//! The cluster as kubectl sees it. Every test starts a cluster of its own and drives it with the real client.

mod everyday;
mod images;
mod lab;
mod pods;
mod programs;
mod side_by_side;
mod streams;
mod workloads;
