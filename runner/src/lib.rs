//! The runner: command line, sessions, backends. The binary is a call of [`main`].

pub mod apply;
mod cli;
mod commands;
mod control;
pub mod error;
pub mod external;
pub mod home;
pub mod lab_test;
pub mod labs;
pub mod programs;
mod progress;
pub mod serve;
mod steps;
mod ui;
mod watch;

use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;

use crate::cli::Cli;

/// Runs the command line and returns the exit code.
#[expect(clippy::print_stderr, reason = "errors of a command go to the terminal, and only from here")]
pub fn main() -> ExitCode {
    let started = Instant::now();
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: no threads can be started: {error}");
            return ExitCode::from(error::Exit::Failed as u8);
        }
    };
    let result = runtime.block_on(commands::run(cli, started));
    runtime.shutdown_background();
    match result {
        Ok(exit) => ExitCode::from(exit as u8),
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(error.exit as u8)
        }
    }
}

/// The commands of a step's text, as they stand in it.
pub fn commands_of(text: &str) -> Vec<String> {
    ui::commands(text)
}
