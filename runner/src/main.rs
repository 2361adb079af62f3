//! `meshlab`, the command.

use std::process::ExitCode;

fn main() -> ExitCode {
    meshlab_runner::main()
}
