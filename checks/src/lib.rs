//! What a lab asserts, and how a verdict is reached.
//!
//! This crate knows the Kubernetes API and the prober's protocol, and nothing else: a verdict is the same on every backend.

pub mod assertion;
mod check;
mod edit;
mod engine;
mod lab;
mod probe;
pub mod report;
pub mod sequential;
mod text;
mod verdict;
mod wording;

pub use check::{
    Check, CheckFile, Control, LogProbe, MetricsProbe, Misconception, Mode, Probe, ResourceProbe, SplitProbe, TracesProbe,
    TrafficProbe,
};
pub use edit::ObjectEdit;
pub use engine::run;
pub use lab::{Client, ControlCase, Edit, FORMAT, Lab, LabError, LabFile, LabSource, Manifest, Page, PageFile, Step, StepFile};
pub use probe::{ProbeError, Prober};
pub use text::{Language, Text};
pub use verdict::{CheckResult, Report, Tally, Verdict};
