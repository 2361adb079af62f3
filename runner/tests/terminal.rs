//! The terminal UI in a terminal: the real binary behind a pseudo-terminal, and a screen that understands what it writes.

use std::io::{Read, Write};
use std::num::NonZeroU16;
use std::process::Child;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use pty_process::blocking::{Command, Pty};
use tempfile::TempDir;

/// Nothing that is waited for takes this long, on the slowest machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// `meshlab` with a state folder of its own.
fn meshlab(folder: &TempDir, arguments: &[&str]) -> std::process::Command {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_meshlab"));
    command.args(arguments).current_dir(folder.path()).env("MESHLAB_HOME", folder.path().join("state"));
    command
}

/// A program in a terminal.
struct Terminal {
    pty: Arc<Pty>,
    child: Child,
    bytes: Receiver<Vec<u8>>,
    screen: vt100::Parser,
    /// All that was ever written.
    written: String,
}

impl Terminal {
    /// Opens the UI in English, at 80×24, with these variables set.
    fn open(folder: &TempDir, variables: &[(&str, &str)]) -> Self {
        let (pty, pts) = pty_process::blocking::open().expect("a pseudo-terminal");
        pty.resize(pty_process::Size::new(24, 80)).expect("a size");
        let command = Command::new(env!("CARGO_BIN_EXE_meshlab"))
            .args(["start", "--lang", "en", "--workdir", "work"])
            .current_dir(folder.path())
            .env("MESHLAB_HOME", folder.path().join("state"))
            .env("TERM", "xterm-256color")
            .env_remove("NO_COLOR")
            .envs(variables.iter().copied());
        let child = command.spawn(pts).expect("the binary starts");
        let pty = Arc::new(pty);
        let (sender, bytes) = channel();
        let reader = Arc::clone(&pty);
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            // Reading fails when the program is gone.
            while let Ok(length @ 1..) = (&*reader).read(&mut buffer) {
                if sender.send(buffer[..length].to_vec()).is_err() {
                    return;
                }
            }
        });
        let screen = vt100::Parser::new(size(24), size(80), 0);
        Self { pty, child, bytes, screen, written: String::new() }
    }

    fn contents(&self) -> String {
        self.screen.screen().contents()
    }

    /// Waits until the screen shows what is wanted.
    fn wait_for(&mut self, what: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.contents().contains(what) {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.bytes.recv_timeout(left) {
                Ok(bytes) => {
                    self.screen.process(&bytes);
                    self.written.push_str(&String::from_utf8_lossy(&bytes));
                }
                Err(error) => panic!("{what:?} does not appear ({error}):\n{}", self.contents()),
            }
        }
    }

    fn press(&mut self, keys: &str) {
        (&*self.pty).write_all(keys.as_bytes()).expect("the program listens");
    }

    fn resize(&mut self, rows: u16, columns: u16) {
        self.pty.resize(pty_process::Size::new(rows, columns)).expect("a size");
        self.screen.set_size(size(rows), size(columns));
    }

    /// Whether any cell of the screen has a colour.
    fn is_coloured(&self) -> bool {
        let screen = self.screen.screen();
        let (rows, columns) = screen.size();
        let cells = (0..rows.get()).flat_map(|row| (0..columns.get()).map(move |column| (row, column)));
        let mut colours =
            cells.filter_map(|(row, column)| screen.cell(row, column)).flat_map(|cell| [cell.fgcolor(), cell.bgcolor()]);
        colours.any(|colour| colour != vt100::Color::Default)
    }

    /// Waits until the program ends by itself.
    fn ended(mut self) {
        let status = self.child.wait().expect("the program ends");
        assert!(status.success(), "{status}:\n{}", self.contents());
    }
}

fn size(cells: u16) -> NonZeroU16 {
    NonZeroU16::new(cells).expect("a terminal has cells")
}

/// Stops the lab, however the test ends.
struct Lab(TempDir);

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = meshlab(&self.0, &["stop"]).output();
    }
}

#[test]
fn a_learner_walks_through_the_first_step_at_a_terminal() {
    let lab = Lab(tempfile::tempdir().expect("a temporary folder"));
    let mut terminal = Terminal::open(&lab.0, &[]);
    terminal.wait_for("1. Setup: control plane and sidecars");
    terminal.wait_for("A service mesh puts a proxy beside every instance of every service.");
    terminal.wait_for("✗ Namespace webapp asks for sidecars by its label");
    assert!(terminal.is_coloured(), "the screen has no colours");

    // A command of the text runs with one key.
    terminal.press("\t\t");
    terminal.wait_for("▶ kubectl get pods -n istio-system");
    terminal.press("r");
    terminal.wait_for("istio-ingressgateway-");
    terminal.press("q");

    // The solution, applied; the debrief says that all passed, and nothing advances by itself.
    terminal.press("s");
    terminal.wait_for("a: write and apply");
    terminal.press("a");
    terminal.wait_for("(y/n)");
    terminal.press("y");
    terminal.wait_for("✓ passed");
    terminal.press("\x1b");
    terminal.wait_for("13/13 passed");
    terminal.wait_for("✓1 setup");

    // The cluster changes behind the UI's back, and it notices.
    let label = "kubectl --kubeconfig state/kubeconfig label namespace webapp istio-injection-";
    let status = std::process::Command::new("sh").args(["-c", label]).current_dir(lab.0.path()).status().expect("kubectl");
    assert!(status.success());
    terminal.wait_for("✗ Namespace webapp asks for sidecars by its label");

    // A file that is no YAML is told of as it is saved.
    std::fs::write(lab.0.path().join("work/01-istio-setup.yaml"), "kind: Namespace\n\tname: webapp\n").expect("a file");
    terminal.wait_for("01-istio-setup.yaml: ");

    // Another size, and another language.
    terminal.resize(40, 130);
    terminal.wait_for("╮╭");
    terminal.press("L");
    terminal.wait_for("コントロールプレーンとサイドカー");
    terminal.press("q");
    terminal.ended();

    // Without colour, everything is still there.
    let mut terminal = Terminal::open(&lab.0, &[("NO_COLOR", "1")]);
    terminal.wait_for("Why it matters");
    terminal.wait_for("✗ Namespace webapp asks for sidecars by its label");
    assert!(!terminal.is_coloured(), "NO_COLOR is set");
    terminal.press("q");
    terminal.ended();

    // For a screen reader, lines and nothing else.
    let mut terminal = Terminal::open(&lab.0, &[("MESHLAB_PLAIN", "1")]);
    terminal.resize(500, 130);
    terminal.wait_for("Picture: A request goes from client through both sidecars");
    terminal.wait_for("checks pass.");
    terminal.press("r 2\n");
    terminal.wait_for("istio-ingressgateway-");
    assert!(!terminal.written.contains("\x1b["), "plain lines have no escape sequences");
    terminal.press("q\n");
    terminal.ended();
    assert!(lab.0.path().join("state/progress.json").exists());
}
