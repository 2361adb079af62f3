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
mod files;
pub mod grade;
pub mod home;
mod kubectl;
pub mod lab_test;
pub mod labs;
mod output;
mod progress;
mod scaffold;
pub mod serve;
mod steps;
mod ui;
mod watch;
mod workdir;

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use tokio::runtime::{Builder, Runtime};

use crate::cli::{Cli, Command};
use crate::output::complain;

/// What the program was called as.
enum Called {
    Meshlab(Box<Cli>),
    /// By the link that `meshlab env` makes.
    Kubectl,
    /// By the links in the mesh's images.
    PilotAgent,
    PilotDiscovery,
}

impl Called {
    fn read() -> Self {
        let name = std::env::args_os().next();
        match name.as_deref().map(Path::new).and_then(Path::file_stem).and_then(OsStr::to_str) {
            Some("kubectl") => Self::Kubectl,
            Some("pilot-agent") => Self::PilotAgent,
            Some("pilot-discovery") => Self::PilotDiscovery,
            _ => Self::Meshlab(Box::new(Cli::parse())),
        }
    }

    /// Whether the process lives on, to serve others.
    fn serves(&self) -> bool {
        match self {
            Self::Meshlab(cli) => cli.command.serves(),
            Self::Kubectl => false,
            Self::PilotAgent | Self::PilotDiscovery => true,
        }
    }

    /// A proxy that has one core takes one thread, as it was measured (`side_by_side`); all others take as many as there are cores.
    fn runtime(&self) -> std::io::Result<Runtime> {
        let proxy = match self {
            Self::Meshlab(cli) => matches!(cli.command, Command::Proxy(_)),
            Self::PilotAgent => true,
            Self::Kubectl | Self::PilotDiscovery => false,
        };
        let one_core = std::thread::available_parallelism().is_ok_and(|cores| cores.get() == 1);
        let mut builder = if proxy && one_core { Builder::new_current_thread() } else { Builder::new_multi_thread() };
        builder.enable_all().build()
    }
}

/// Runs the command line and returns the exit code.
pub fn main() -> ExitCode {
    let started = Instant::now();
    let called = Called::read();
    if called.serves()
        && let Err(error) = meshlab_allocator::settle()
    {
        complain(&format!("meshlab goes on with more memory than it needs: its program cannot be started over: {error}\n"));
    }
    let runtime = match called.runtime() {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(&format!("error: no threads can be started: {error}\n"));
            return ExitCode::from(error::Exit::Failed.code());
        }
    };
    let arguments = || std::env::args_os().skip(1).collect::<Vec<OsString>>().into_iter();
    let result = match called {
        Called::Meshlab(cli) => runtime.block_on(commands::run(*cli, started)),
        Called::Kubectl => runtime.block_on(commands::kubectl_alone()),
        Called::PilotAgent => runtime.block_on(commands::mesh::agent(arguments())),
        Called::PilotDiscovery => runtime.block_on(commands::mesh::discovery(arguments())),
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
