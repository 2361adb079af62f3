//! A log that is written by a thread of its own, so that no request waits for whoever reads it.

use std::io::Write;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// Lines are written when there are so many bytes of them, or after [`INTERVAL`]: Envoy's buffer of an access log, and the time
/// that Istio gives it.
const BUFFER: usize = 64 * 1024;
const INTERVAL: Duration = Duration::from_secs(1);
/// Bytes that wait for a slow reader. What does not fit is counted and left out.
const MAXIMUM: usize = 4 * 1024 * 1024;

/// Gathers lines in memory and writes them in large pieces. Dropping it writes what is left.
pub struct BufferedLog {
    shared: Arc<Shared>,
    writer: Option<JoinHandle<()>>,
}

struct Shared {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Default)]
struct Waiting {
    lines: Vec<u8>,
    left_out: u64,
    closed: bool,
}

impl BufferedLog {
    /// Starts the thread that writes to `output`. When that fails to take something, nothing more is written.
    ///
    /// # Errors
    /// There can be no more threads.
    pub fn start(output: impl Write + Send + 'static) -> std::io::Result<Self> {
        let shared = Arc::new(Shared { waiting: Mutex::default(), changed: Condvar::new() });
        let writing = shared.clone();
        let writer = std::thread::Builder::new().name("log".to_owned()).spawn(move || write(&writing, output))?;
        Ok(Self { shared, writer: Some(writer) })
    }

    /// Takes lines, each with its newline; it never blocks.
    pub fn sink(&self) -> impl Fn(&str) + Send + Sync + 'static {
        let shared = self.shared.clone();
        move |line| shared.take(line)
    }
}

impl Drop for BufferedLog {
    fn drop(&mut self) {
        self.shared.waiting.lock().closed = true;
        self.shared.changed.notify_one();
        if let Some(writer) = self.writer.take() {
            // If it has panicked there is nobody left to tell.
            let _ = writer.join();
        }
    }
}

impl Shared {
    fn take(&self, line: &str) {
        let mut waiting = self.waiting.lock();
        let before = waiting.lines.len();
        if waiting.closed || before + line.len() > MAXIMUM {
            waiting.left_out += 1;
            return;
        }
        waiting.lines.extend_from_slice(line.as_bytes());
        // The writer sleeps until there is something, and then until there is enough.
        if before == 0 || (before < BUFFER && waiting.lines.len() >= BUFFER) {
            self.changed.notify_one();
        }
    }
}

fn write(shared: &Shared, mut output: impl Write) {
    let mut writing = Vec::new();
    loop {
        let (closed, left_out) = {
            let mut waiting = shared.waiting.lock();
            shared.changed.wait_while(&mut waiting, |waiting| waiting.lines.is_empty() && !waiting.closed);
            let gathering = |waiting: &mut Waiting| waiting.lines.len() < BUFFER && !waiting.closed;
            shared.changed.wait_while_for(&mut waiting, gathering, INTERVAL);
            std::mem::swap(&mut writing, &mut waiting.lines);
            (waiting.closed, std::mem::take(&mut waiting.left_out))
        };
        if left_out > 0 {
            writing.extend_from_slice(format!("{left_out} lines of log were left out\n").as_bytes());
        }
        if output.write_all(&writing).and_then(|()| output.flush()).is_err() {
            shared.waiting.lock().closed = true;
            return;
        }
        if closed {
            return;
        }
        if writing.len() < BUFFER {
            // The burst is over, and so is the need for its memory.
            writing.shrink_to(2 * BUFFER);
        }
        writing.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Instant;

    use super::*;

    /// Says what it was given, and waits to be allowed to take it.
    struct Output {
        given: mpsc::Sender<String>,
        allowed: mpsc::Receiver<()>,
    }

    impl Write for Output {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.given.send(String::from_utf8_lossy(bytes).into_owned()).map_err(std::io::Error::other)?;
            self.allowed.recv().map_err(std::io::Error::other)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn output() -> (Output, mpsc::Receiver<String>, mpsc::Sender<()>) {
        let (given, received) = mpsc::channel();
        let (allow, allowed) = mpsc::channel();
        (Output { given, allowed }, received, allow)
    }

    #[test]
    fn lines_are_written_together_when_there_are_enough() {
        let (output, received, allow) = output();
        let log = BufferedLog::start(output).unwrap();
        let sink = log.sink();
        let line = format!("{}\n", "x".repeat(1023));
        let started = Instant::now();
        (0..64).for_each(|_| sink(&line));
        let given = received.recv().unwrap();
        // Unless this test was itself kept from running, it did not wait for the time.
        assert!(given.len() == BUFFER || started.elapsed() >= INTERVAL, "{}", given.len());
        allow.send(()).unwrap();
    }

    #[test]
    fn the_rest_is_written_at_the_end() {
        let (output, received, allow) = output();
        let log = BufferedLog::start(output).unwrap();
        log.sink()("last words\n");
        allow.send(()).unwrap();
        drop(log);
        assert_eq!(received.recv().unwrap(), "last words\n");
    }

    #[test]
    fn a_slow_reader_costs_lines_and_no_memory_without_end() {
        let (output, received, allow) = output();
        let log = BufferedLog::start(output).unwrap();
        let sink = log.sink();
        let piece = format!("{}\n", "x".repeat(BUFFER));
        sink(&piece);
        // It is being written, and nobody takes it.
        assert_eq!(received.recv().unwrap().len(), piece.len());
        let fit = MAXIMUM / piece.len();
        (0..fit + 3).for_each(|_| sink(&piece));
        allow.send(()).unwrap();
        allow.send(()).unwrap();
        let rest = received.recv().unwrap();
        assert!(rest.ends_with("x\n3 lines of log were left out\n"), "{}", &rest[rest.len() - 50..]);
        assert_eq!(rest.matches("x\n").count(), fit);
    }
}
