//! Processes: pinned to a core, asked what they have used, ended with the benchmark.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The core of the proxies.
pub(crate) const PROXY_CORE: u8 = 0;
/// The core of the load and the backend.
pub(crate) const LOAD_CORE: u8 = 1;

/// A running process. It ends when this is dropped.
pub(crate) struct Process {
    child: Child,
}

impl Process {
    /// Starts this benchmark's own program on a core.
    pub(crate) fn own(core: u8, arguments: &[&str]) -> Self {
        let program = std::env::current_exe().expect("this program has a path");
        Self::start(core, &program, arguments)
    }

    /// Starts a program on a core.
    pub(crate) fn start(core: u8, program: &Path, arguments: &[&str]) -> Self {
        let mut command = pinned(core, program, arguments);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().expect("taskset and the program can be started");
        Self { child }
    }

    /// CPU used so far, by all threads, in user and kernel mode.
    pub(crate) fn cpu(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).expect("the process is running");
        // Fields 14 and 15 of proc(5), counted after the name, which may have spaces and stands in parentheses.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
        let ticks: u64 = fields[11..13].iter().map(|field| field.parse::<u64>().expect("a number of ticks")).sum();
        Duration::from_millis(ticks * 10)
    }

    /// Resident memory, in MiB.
    pub(crate) fn resident(&self) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("the process is running");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("proc(5) has VmRSS");
        line.trim().trim_end_matches(" kB").parse::<f64>().expect("a number of KiB") / 1024.0
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `taskset` becomes the program, so that the process that is started is the one that is measured.
fn pinned(core: u8, program: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new("taskset");
    command.args(["--cpu-list", &core.to_string()]).arg(program).args(arguments);
    command
}

/// Runs this benchmark's own program on a core to its end, and gives what it printed; `meanwhile` is called once it runs.
pub(crate) fn run_own(core: u8, arguments: &[&str], meanwhile: impl FnOnce()) -> String {
    let program = std::env::current_exe().expect("this program has a path");
    let child = pinned(core, &program, arguments).stdout(Stdio::piped()).spawn().expect("taskset can be started");
    meanwhile();
    let output = child.wait_with_output().expect("its output can be read");
    assert!(output.status.success(), "{arguments:?} failed");
    String::from_utf8(output.stdout).expect("it prints text")
}

/// An address on this machine that is free now.
pub(crate) fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port")
}

/// Waits until something listens.
pub(crate) fn wait_for(address: SocketAddr) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while TcpStream::connect(address).is_err() {
        assert!(Instant::now() < deadline, "nothing listens on {address}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
