//! How fast a cluster is and how small, beside the limits that this project set itself. `cargo bench -p meshlab-cluster`
//!
//! Every row has a server of its own: a process that runs the built-in images with its objects on disk, as `meshlab start` does. The
//! figures are what another process sees, over TLS on 127.0.0.1; both share the machine's cores, so that on a machine of two
//! cores a row with many clients also pays for those. Figures depend on the machine, and nothing here fails on a slow one. On a
//! busy one they mean little: `chrt -r 1` before the command (as root) keeps the others away for the minute that it takes.
//!
//! Where it goes, found with `perf` and in `/proc/PID/smaps` on two cores (release build, no link-time optimization):
//! - Idle memory is mostly the program itself: 32 of 39 MB are its pages in the file cache, which all processes of a machine share.
//! - A start is 50 ms of CPU. Nearly half of it is aws-lc, which gathers entropy from the CPU's jitter before a process' first key
//!   (a build with `AWS_LC_SYS_NO_JITTER_ENTROPY=1` would take the kernel's alone); a fifth is pages of the program coming in;
//!   schemas are 4 %. Further clusters of the process start in 7 ms.
//! - A thousand pods are 1.4 s of CPU, a quarter of it in the allocator (measured with glibc's): every small map of a JSON value is a tree with
//!   room for eleven fields.
//! - A thousand watchers on connections of their own cost a TLS record and a system call each, for every event, at either end. That
//!   is what there is to do on two cores in 10 ms; watches that share connections, as those of one client-go program do, cost less.
//!
//! `cargo bench -p meshlab-cluster -- pods` measures the rows whose name contains `pods`.
#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

mod client;
mod rows;
mod server;

use std::time::Duration;

/// The allocator of the binary `meshlab`.
#[global_allocator]
static ALLOCATOR: meshlab_allocator::MiMalloc = meshlab_allocator::MiMalloc;

/// What a row measures.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
enum Figure {
    Time(Duration),
    /// Bytes.
    Memory(u64),
}

impl std::fmt::Display for Figure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = match *self {
            Self::Time(time) if time < Duration::from_millis(1) => format!("{:.0} µs", time.as_secs_f64() * 1e6),
            Self::Time(time) if time < Duration::from_secs(1) => format!("{:.1} ms", time.as_secs_f64() * 1e3),
            Self::Time(time) => format!("{:.2} s", time.as_secs_f64()),
            Self::Memory(bytes) => format!("{:.1} MB", bytes as f64 / 1e6),
        };
        f.pad(&text)
    }
}

/// A figure, and what else is worth knowing.
struct Measured {
    figure: Figure,
    remark: String,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let options = server::Options::parse(&arguments);
    if options.is_some() {
        // As a lab does.
        meshlab_allocator::settle().expect("this program can be started over");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    if let Some(options) = options {
        return runtime.block_on(server::serve(options));
    }
    // Cargo passes `--bench`.
    let wanted: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with("--")).collect();
    println!("| what | at most | measured | | |\n|---|---:|---:|---|---|");
    for row in rows::ROWS {
        if !wanted.is_empty() && !wanted.iter().any(|wanted| row.name.contains(wanted.as_str())) {
            continue;
        }
        let Measured { figure, remark } = runtime.block_on((row.measure)());
        let verdict = match row.limit {
            Some(limit) if figure > limit => "over",
            Some(_) => "ok",
            None => "",
        };
        let limit = row.limit.map(|limit| limit.to_string()).unwrap_or_default();
        println!("| {:<62} | {limit:>8} | {figure:>9} | {verdict:<4} | {remark} |", row.name);
    }
}
