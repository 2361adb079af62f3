//! The allocator of meshlab's processes, and the one place for its settings: the program and the benchmarks have them from here.
//!
//! glibc's allocator keeps what a busy moment has taken and makes threads wait for each other: `check all` on the solved course
//! takes a fifth less CPU with mimalloc.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// ```
/// #[global_allocator]
/// static ALLOCATOR: meshlab_allocator::MiMalloc = meshlab_allocator::MiMalloc;
/// ```
pub use mimalloc::MiMalloc;

/// Why these two (2 cores, transparent huge pages by `madvise`, which mimalloc asks for):
///
/// | | proxy, plain | proxies of a pair with mTLS | solved lab after its checks |
/// |---|---:|---:|---:|
/// | mimalloc's defaults | 20 MiB, 22.4 µs | 27 MiB, 53.8 µs | 252 MB |
/// | no huge pages | 15 MiB, 22.1 µs | 18 MiB, 54.3 µs | 219 MB |
/// | and free pages purged after 100 ms instead of a second | 14 MiB, 22.5 µs | 18 MiB, 54.2 µs | 213 MB |
/// | after 10 ms | 15 MiB, 22.6 µs | 18 MiB, 57.7 µs | 212 MB |
/// | at once | 14 MiB, 22.8 µs | 18 MiB, 64.7 µs | 211 MB |
///
/// (Resident memory of one proxy under load, CPU of a request, resident memory of the lab.) A huge page is 2 MiB of memory for the
/// first byte that is touched; without them, starting and checking the lab also takes a tenth less CPU, as less is cleared.
const SETTINGS: [(&str, &str); 2] = [("MIMALLOC_ALLOW_THP", "0"), ("MIMALLOC_PURGE_DELAY", "100")];

/// Makes this process one whose allocator has our settings. To be called at the beginning of `main`, where a process is to live
/// long.
///
/// mimalloc reads them from the environment, once, before `main`; there is no safe call that sets them later. So the process
/// starts its program over in its place, with the same arguments and the same process id, which takes a millisecond or two. What
/// the environment already says is left as it is.
///
/// # Errors
/// The program cannot be started over. Nothing has happened then, and the process can go on with the allocator's defaults.
pub fn settle() -> io::Result<()> {
    let missing: Vec<_> = SETTINGS.into_iter().filter(|(name, _)| std::env::var_os(name).is_none()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let mut arguments = std::env::args_os();
    let mut command = Command::new(std::env::current_exe()?);
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    Err(command.args(arguments).envs(missing).exec())
}
