//! The runner: command line, sessions, backends. The binary is a call of [`main`].

mod analyze;
pub mod apply;
mod backend;
mod cli;
mod commands;
mod control;
pub mod error;
mod explain;
pub mod external;
pub mod grade;
pub mod home;
mod kubectl;
pub mod lab_test;
pub mod labs;
mod output;
pub mod programs;
mod progress;
mod scaffold;
pub mod serve;
mod steps;
mod ui;
mod watch;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;

use crate::cli::Cli;
use crate::output::complain;

/// Runs the command line and returns the exit code. Called as `kubectl` (the link that `meshlab env` makes), it is kubectl.
pub fn main() -> ExitCode {
    let started = Instant::now();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(&format!("error: no threads can be started: {error}\n"));
            return ExitCode::from(error::Exit::Failed.code());
        }
    };
    let name = std::env::args_os().next().map(PathBuf::from);
    let is_kubectl = name.as_deref().and_then(Path::file_stem).is_some_and(|stem| stem == "kubectl");
    let result = if is_kubectl {
        runtime.block_on(commands::kubectl_alone())
    } else {
        runtime.block_on(commands::run(Cli::parse(), started))
    };
    runtime.shutdown_background();
    match result {
        Ok(exit) => ExitCode::from(exit.code()),
        Err(error) => {
            complain(&format!("{error}\n"));
            ExitCode::from(error.exit.code())
        }
    }
}
