//! What a learner waits for, and what the lab takes of the machine: `cargo bench -p meshlab`, as a table.
//!
//! Everything is measured from outside, with the program as it is built: a command is timed from its start to its end. Saving a file
//! is timed by `check --watch`, which looks at the same files in the same way as the terminal UI; drawing the result is not in it.
//!
//! What was found (2 cores):
//! - `check all` is waiting, not work: 2.5 s of CPU in the lab. Its longest checks wait for late answers (a fault of 5 s, cut at 1 s),
//!   so they send many at once.
//! - Of the memory, 50 MB are pages of the program's file: generic code is compiled for every type it is used with, and no table of
//!   unwinding can be left out, because a task that panics must not take the lab with it. Built for size as a whole, but for what
//!   requests pass through, the file is 67 MB.
//! - A solved lab has 103 MB of its own before its checks and 149 MB after them: the rest are the checks' metrics, traces and
//!   connections.
#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const PROGRAM: &str = env!("CARGO_BIN_EXE_meshlab");

/// Steps of the course.
const STEPS: usize = 5;

/// Labs started, and runs of all checks.
const ROUNDS: usize = 5;

/// The step whose file is saved, and the file.
const SAVED: (&str, &str) = ("routing", "02-gateway-virtualservice.yaml");

fn main() {
    let folder = tempfile::tempdir().expect("a folder");
    println!("| what | at most | median | worst |");
    println!("|---|---:|---:|---:|");
    let starts = (0..ROUNDS).map(|round| {
        let lab = Lab { folder: folder.path().join(round.to_string()) };
        fs::create_dir(&lab.folder).expect("a folder");
        let took = lab.time(&["start", "--no-ui"]);
        (lab, took)
    });
    let (mut labs, starts): (Vec<Lab>, Vec<Duration>) = starts.map(|(lab, took)| (lab.stopped(), took)).unzip();
    row("`start --no-ui` in an empty folder", "1.0 s", &starts);

    let lab = labs.pop().expect("a lab");
    lab.run(&["start", "--no-ui"]);
    lab.run(&["solve", "--apply"]);
    for _ in 1..STEPS {
        lab.run(&["next"]);
        lab.run(&["solve", "--apply"]);
    }
    // The first run waits for what was just applied.
    lab.run(&["check", "all"]);
    let checks = (0..ROUNDS).map(|_| {
        // The pods that the round before had ejected must be back, and each time that takes longer.
        lab.run(&["check", "breaker-sheds-load"]);
        lab.time(&["check", "all"])
    });
    let checks: Vec<Duration> = checks.collect();
    row("`check all` on the solved course", "5.0 s", &checks);
    row("file saved → verdict of its step", "1.0 s", &lab.verdicts_after_saving());
    println!("| resident memory of the lab, solved, after the checks | 150 MB | {:.0} MB | |", lab.resident() / 1e6);
    let size = fs::metadata(PROGRAM).expect("the program").len();
    println!("| the binary, stripped | 40 MB | {:.1} MB | |", size as f64 / 1e6);
    lab.run(&["stop"]);
}

fn row(what: &str, at_most: &str, took: &[Duration]) {
    let mut took = took.to_vec();
    took.sort();
    println!(
        "| {what} | {at_most} | {:.2} s | {:.2} s |",
        took[took.len() / 2].as_secs_f64(),
        took[took.len() - 1].as_secs_f64()
    );
}

/// A lab with a home of its own.
struct Lab {
    folder: PathBuf,
}

impl Lab {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        command.args(arguments).current_dir(&self.folder).env("MESHLAB_HOME", self.folder.join("home")).env("LC_ALL", "C");
        command.stdin(Stdio::null());
        command
    }

    /// What a command that succeeds prints.
    fn run(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().expect("the program");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{arguments:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
        text
    }

    fn time(&self, arguments: &[&str]) -> Duration {
        let started = Instant::now();
        self.run(arguments);
        started.elapsed()
    }

    fn stopped(self) -> Self {
        self.run(&["stop"]);
        self
    }

    fn verdicts_after_saving(&self) -> Vec<Duration> {
        let file = self.folder.join("meshlab-phase3").join(SAVED.1);
        let mut watching = self.command(&["check", "--watch", SAVED.0]).stdout(Stdio::piped()).spawn().expect("the program");
        let mut lines = BufReader::new(watching.stdout.take().expect("its output")).lines();
        let mut verdict = || {
            lines
                .find(|line| line.as_ref().is_ok_and(|line| line.contains("passed — points")))
                .expect("a verdict")
                .expect("a line");
        };
        verdict();
        let took = (0..ROUNDS)
            .map(|_| {
                let text = fs::read_to_string(&file).expect("the learner's file");
                let saved = Instant::now();
                fs::write(&file, text).expect("the learner's file");
                verdict();
                saved.elapsed()
            })
            .collect();
        watching.kill().expect("the program runs");
        watching.wait().expect("the program ends");
        took
    }

    /// Bytes.
    fn resident(&self) -> f64 {
        let status = self.run(&["status"]);
        let process = status.split_once("(process ").and_then(|(_, rest)| rest.split_once(','));
        let process = process.expect("the lab's process in what `status` says").0;
        let path = Path::new("/proc").join(process).join("status");
        let status = fs::read_to_string(path).expect("a Linux");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a size");
        line.trim().trim_end_matches(" kB").parse::<f64>().expect("kilobytes") * 1024.0
    }
}
