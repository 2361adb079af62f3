//! `meshlab`, the command.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: meshlab_allocator::MiMalloc = meshlab_allocator::MiMalloc;

fn main() -> ExitCode {
    meshlab_runner::main()
}
