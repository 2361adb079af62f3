//! A container's log, in bounded memory.

mod attached;

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use jiff::Timestamp;
use meshlab_apiserver::LogOptions;
use parking_lot::Mutex;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::{oneshot, watch};

pub(crate) use attached::Attached;
use attached::AttachedClients;

/// Bytes kept; older lines are forgotten.
const KEPT: usize = 1 << 20;
/// A line longer than this is cut into pieces, as container runtimes do.
const LONGEST_PIECE: usize = 16 << 10;
/// What is counted for a line beside its text.
const PER_LINE: usize = 64;

/// A log; cloning shares it.
#[derive(Clone)]
pub(crate) struct Log {
    lines: Arc<Mutex<Lines>>,
    /// Counts changes, for those who follow.
    changed: watch::Sender<u64>,
    attached: AttachedClients,
}

/// A piece of output, as it was written.
pub(crate) type Piece = (Stream, Bytes);

/// Which of the two streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Out,
    Error,
}

#[derive(Default)]
struct Lines {
    lines: VecDeque<Line>,
    bytes: usize,
    /// Number of the first line that is still there.
    first: u64,
    unfinished: [Vec<u8>; 2],
    ended: bool,
}

struct Line {
    time: Timestamp,
    text: Bytes,
    /// Whether it ends here, or goes on in the next piece of the same stream.
    whole: bool,
}

impl Log {
    /// An empty log.
    pub(crate) fn new() -> Self {
        Self { lines: Arc::default(), changed: watch::Sender::new(0), attached: AttachedClients::default() }
    }

    /// An end to write to.
    pub(crate) fn writer(&self, stream: Stream) -> LogWriter {
        LogWriter { log: self.clone(), stream, _written: None }
    }

    /// An end to write to, and the news that nothing more will come from it.
    pub(crate) fn last_writer(&self, stream: Stream) -> (LogWriter, oneshot::Receiver<()>) {
        let (written, done) = oneshot::channel();
        (LogWriter { log: self.clone(), stream, _written: Some(written) }, done)
    }

    /// Everything written from now on, as it is written. At a terminal the line that is not finished comes first: a shell's prompt,
    /// which a real one draws anew when it learns the size of the client's terminal.
    pub(crate) fn attach(&self, terminal: bool) -> Attached {
        let lines = self.lines.lock();
        let prompt = Bytes::copy_from_slice(&lines.unfinished[Stream::Out as usize]);
        let attached = self.attached.add((terminal && !prompt.is_empty()).then_some((Stream::Out, prompt)));
        if lines.ended {
            self.attached.end();
        }
        attached
    }

    /// The container has ended: nothing more will come.
    pub(crate) fn end(&self) {
        let mut lines = self.lines.lock();
        for stream in [Stream::Out, Stream::Error] {
            let rest = std::mem::take(&mut lines.unfinished[stream as usize]);
            if !rest.is_empty() {
                lines.push(rest.into(), true, Timestamp::now());
            }
        }
        lines.ended = true;
        drop(lines);
        self.attached.end();
        self.changed.send_modify(|count| *count += 1);
    }

    /// Writes once all attached clients have room.
    fn poll_write(&self, stream: Stream, bytes: &[u8], context: &Context<'_>) -> Poll<()> {
        // Both under one lock, so that a client who comes now misses nothing and sees nothing twice.
        let mut lines = self.lines.lock();
        ready!(self.attached.poll_send(stream, bytes, context));
        let added = lines.write(stream, bytes);
        drop(lines);
        if added {
            self.changed.send_modify(|count| *count += 1);
        }
        Poll::Ready(())
    }

    /// The last lines, at most so many and so many bytes of them.
    pub(crate) fn tail(&self, lines: i64, bytes: usize) -> String {
        let kept = self.lines.lock();
        let (text, _, _) = kept.render(kept.begin(Timestamp::MIN, Some(lines)), Timestamp::MIN, false);
        String::from_utf8_lossy(&text[text.len().saturating_sub(bytes)..]).into_owned()
    }

    /// Writes what `options` asks for into `sink`, until the end or, when following, until the container ends or nobody reads.
    ///
    /// # Errors
    /// Nobody reads any more.
    pub(crate) async fn read(&self, options: &LogOptions, mut sink: impl AsyncWrite + Unpin) -> io::Result<()> {
        let mut changed = self.changed.subscribe();
        let since = since(options);
        let mut left = options.limit_bytes.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(0));
        let mut at = self.lines.lock().begin(since, options.tail_lines);
        loop {
            changed.mark_unchanged();
            let (mut chunk, next, ended) = self.lines.lock().render(at, since, options.timestamps);
            at = next;
            chunk.truncate(left);
            left -= chunk.len();
            sink.write_all(&chunk).await?;
            if left == 0 || !options.follow || ended {
                sink.flush().await?;
                return sink.shutdown().await;
            }
            sink.flush().await?;
            let _ = changed.changed().await;
        }
    }
}

fn since(options: &LogOptions) -> Timestamp {
    let time = options.since_time.as_deref().and_then(|time| time.parse().ok());
    let seconds = options
        .since_seconds
        .map(|seconds| Timestamp::now().checked_sub(jiff::SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MIN));
    time.or(seconds).unwrap_or(Timestamp::MIN)
}

impl Lines {
    /// Whether there are new lines.
    fn write(&mut self, stream: Stream, bytes: &[u8]) -> bool {
        let time = Timestamp::now();
        let mut unfinished = std::mem::take(&mut self.unfinished[stream as usize]);
        let mut added = false;
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            unfinished.extend_from_slice(piece);
            if unfinished.ends_with(b"\n") {
                unfinished.pop();
                self.push(std::mem::take(&mut unfinished).into(), true, time);
                added = true;
            }
            while unfinished.len() >= LONGEST_PIECE {
                let rest = unfinished.split_off(LONGEST_PIECE);
                self.push(std::mem::replace(&mut unfinished, rest).into(), false, time);
                added = true;
            }
        }
        self.unfinished[stream as usize] = unfinished;
        added
    }

    fn push(&mut self, text: Bytes, whole: bool, time: Timestamp) {
        self.bytes += text.len() + PER_LINE;
        self.lines.push_back(Line { time, text, whole });
        while self.bytes > KEPT {
            let Some(oldest) = self.lines.pop_front() else { return };
            self.bytes -= oldest.text.len() + PER_LINE;
            self.first += 1;
        }
    }

    /// The number of the first line to show.
    fn begin(&self, since: Timestamp, tail: Option<i64>) -> u64 {
        let young = self.lines.iter().position(|line| line.time >= since).unwrap_or(self.lines.len());
        let mut begin = young;
        if let Some(tail) = tail {
            let mut wanted = usize::try_from(tail).unwrap_or(0);
            begin = self.lines.len();
            while begin > young && (wanted > 0 || !self.lines[begin - 1].whole) {
                begin -= 1;
                if self.lines[begin].whole {
                    wanted -= 1;
                }
            }
        }
        self.first + begin as u64
    }

    /// The text from line number `at` on, the number after the last line, and whether nothing more will come.
    fn render(&self, at: u64, since: Timestamp, timestamps: bool) -> (Vec<u8>, u64, bool) {
        let mut text = Vec::new();
        let skip = usize::try_from(at.saturating_sub(self.first)).unwrap_or(usize::MAX);
        let mut begins_line = true;
        for line in self.lines.iter().skip(skip).filter(|line| line.time >= since) {
            if timestamps && begins_line {
                text.extend_from_slice(line.time.strftime("%Y-%m-%dT%H:%M:%S%.9fZ ").to_string().as_bytes());
            }
            text.extend_from_slice(&line.text);
            if line.whole {
                text.push(b'\n');
            }
            begins_line = line.whole;
        }
        (text, self.first + self.lines.len() as u64, self.ended)
    }
}

/// One of a process's output streams.
pub(crate) struct LogWriter {
    log: Log,
    stream: Stream,
    /// Dropped with the writer.
    _written: Option<oneshot::Sender<()>>,
}

impl AsyncWrite for LogWriter {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.log.poll_write(self.stream, bytes, context));
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Log {
        fn write(&self, stream: Stream, bytes: &[u8]) {
            assert!(self.poll_write(stream, bytes, &Context::from_waker(std::task::Waker::noop())).is_ready());
        }
    }

    async fn shown(log: &Log, options: LogOptions) -> String {
        let mut text = Vec::new();
        log.read(&options, &mut text).await.unwrap();
        String::from_utf8(text).unwrap()
    }

    #[tokio::test]
    async fn lines_of_both_streams_in_order_tail_and_limit() {
        let log = Log::new();
        log.write(Stream::Out, b"one\ntw");
        log.write(Stream::Error, b"oops\n");
        log.write(Stream::Out, b"o\nthree");
        assert_eq!(shown(&log, LogOptions::default()).await, "one\noops\ntwo\n", "an unfinished line is not shown");
        assert_eq!(shown(&log, LogOptions { tail_lines: Some(1), ..Default::default() }).await, "two\n");
        assert_eq!(shown(&log, LogOptions { tail_lines: Some(0), ..Default::default() }).await, "");
        assert_eq!(shown(&log, LogOptions { limit_bytes: Some(5), ..Default::default() }).await, "one\no");
        log.end();
        assert_eq!(shown(&log, LogOptions { tail_lines: Some(1), ..Default::default() }).await, "three\n");
        assert_eq!((log.tail(2, 100).as_str(), log.tail(2, 6).as_str()), ("two\nthree\n", "three\n"));
    }

    #[tokio::test]
    async fn time_stamps_and_ages() {
        let log = Log::new();
        log.write(Stream::Out, b"one\n");
        let stamped = shown(&log, LogOptions { timestamps: true, ..Default::default() }).await;
        let (time, text) = stamped.split_once(' ').unwrap();
        assert_eq!((time.len(), text), ("2026-01-01T00:00:00.000000000Z".len(), "one\n"));
        let future = LogOptions { since_time: Some("2999-01-01T00:00:00Z".into()), ..Default::default() };
        assert_eq!(shown(&log, future).await, "");
        assert_eq!(shown(&log, LogOptions { since_seconds: Some(60), ..Default::default() }).await, "one\n");
    }

    #[tokio::test]
    async fn following_ends_with_the_container() {
        let log = Log::new();
        let writer = log.clone();
        let following = tokio::spawn(async move { shown(&log, LogOptions { follow: true, ..Default::default() }).await });
        tokio::task::yield_now().await;
        writer.write(Stream::Out, b"late\n");
        writer.end();
        assert_eq!(following.await.unwrap(), "late\n");
    }

    #[tokio::test]
    async fn attached_clients_miss_nothing_and_hold_the_container_back() {
        let log = Log::new();
        let (mut slow, gone) = (log.attach(false), log.attach(false));
        let mut writer = log.writer(Stream::Out);
        let ender = log.clone();
        let writing = tokio::spawn(async move {
            for _ in 0..100 {
                writer.write_all(&[b'x'; 10_000]).await.unwrap();
            }
            ender.end();
        });
        tokio::task::yield_now().await;
        assert!(!writing.is_finished(), "nobody reads");
        drop(gone);
        let mut bytes = 0;
        while let Some((Stream::Out, piece)) = slow.next().await {
            bytes += piece.len();
        }
        assert_eq!(bytes, 1_000_000);
        writing.await.unwrap();
        assert_eq!(log.attach(false).next().await, None, "it has ended");
    }

    #[tokio::test]
    async fn a_terminal_shows_the_prompt_that_was_there_before() {
        let log = Log::new();
        log.write(Stream::Out, b"welcome\n/ # ");
        let (mut terminal, mut plain) = (log.attach(true), log.attach(false));
        log.write(Stream::Out, b"ls\n");
        assert_eq!(terminal.next().await.unwrap().1, "/ # ");
        assert_eq!((terminal.next().await.unwrap().1, plain.next().await.unwrap().1), ("ls\n".into(), "ls\n".into()));
    }

    #[tokio::test]
    async fn memory_is_bounded_and_long_lines_stay_whole() {
        let log = Log::new();
        for _ in 0..100 {
            log.write(Stream::Out, &[b'x'; 20_000]);
        }
        assert!(log.lines.lock().bytes <= KEPT);
        let log = Log::new();
        log.write(Stream::Out, &[b'x'; 20_000]);
        log.write(Stream::Out, b"\n");
        assert_eq!(shown(&log, LogOptions { tail_lines: Some(1), ..Default::default() }).await.len(), 20_001);
    }
}
