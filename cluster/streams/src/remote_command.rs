//! Exec and attach.

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::Future;
use std::time::Duration;

use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::mux::{Outgoing, Session, pipe};
use crate::negotiate::CommandProtocol;
use crate::outcome::{Outcome, OutcomeFormat};
use crate::spdy::SpdyStream;
use crate::websocket::Encoding;
use crate::{BoxReader, BoxWriter, StreamError, spdy, websocket};

/// How long a client may take to open its SPDY streams, as the kubelet has it.
const STREAM_CREATION_TIMEOUT: Duration = Duration::from_secs(30);
/// Terminal sizes that may wait; a process that does not care about them must not stop the rest.
const SIZES: usize = 8;
/// The longest terminal size, as JSON.
const MAX_SIZE_TEXT: usize = 4096;

/// The channels of a WebSocket.
const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;

/// Which streams the request asks for: `stdin`, `stdout`, `stderr` and `tty` of its query. With a terminal there is no
/// standard error.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WantedStreams {
    /// Standard input.
    pub stdin: bool,
    /// Standard output.
    pub stdout: bool,
    /// Standard error.
    pub stderr: bool,
    /// A terminal.
    pub tty: bool,
}

/// Columns and rows of a terminal.
pub type TerminalSize = (u16, u16);

/// The client's streams of an exec or attach session. Dropped without [`RemoteCommand::finish`], it cuts the connection.
pub struct RemoteCommand {
    /// What the client types; ends when it closes its standard input or goes away.
    pub stdin: Option<DuplexStream>,
    /// What the client shows. Writing fails once the client is gone.
    pub stdout: Option<DuplexStream>,
    /// What the client shows as errors.
    pub stderr: Option<DuplexStream>,
    /// The sizes of the client's terminal.
    pub resize: Option<mpsc::Receiver<TerminalSize>>,
    exit: Exit,
}

/// What is needed to tell the client how it ended.
struct Exit {
    error: DuplexStream,
    error_pump: JoinHandle<()>,
    format: OutcomeFormat,
    /// Those of standard output and error, which the status must not overtake.
    pumps: Vec<JoinHandle<()>>,
    /// The server's halves of streams it never writes to. kubectl takes their end for the end of the session.
    silent: Vec<DuplexStream>,
    session: Session,
}

/// A process's ends, to be joined to the client's by [`RemoteCommand::run`].
#[derive(Default)]
pub struct ProcessStreams {
    /// Its standard input.
    pub stdin: Option<BoxWriter>,
    /// Its standard output.
    pub stdout: Option<BoxReader>,
    /// Its standard error.
    pub stderr: Option<BoxReader>,
    /// Its terminal's size.
    pub resize: Option<mpsc::Sender<TerminalSize>>,
}

impl RemoteCommand {
    /// Cancelled when the client has gone away.
    pub fn disconnected(&self) -> CancellationToken {
        self.exit.session.gone.clone()
    }

    /// Tells the client how it ended, after everything written to standard output and error, and closes the connection. Streams
    /// taken out of `self` must have been dropped or shut down, or this never returns.
    pub async fn finish(self, outcome: Outcome) {
        let Self { stdin, stdout, stderr, resize, exit } = self;
        drop((stdin, stdout, stderr, resize));
        exit.finish(outcome).await;
    }

    /// Joins the client to a process: copies all streams until the process has exited and its output is at its end, and then tells
    /// the client how it ended. When the client goes away first, the process's ends and `exit` are dropped.
    ///
    /// # Errors
    /// The client went away.
    pub async fn run(mut self, process: ProcessStreams, exit: impl Future<Output = Outcome>) -> Result<(), StreamError> {
        let disconnected = self.disconnected();
        let session = async move {
            let input = copy(self.stdin.take(), process.stdin);
            let resize = forward_sizes(self.resize.take(), process.resize);
            let output = async {
                let stdout = copy(process.stdout, self.stdout.take());
                let stderr = copy(process.stderr, self.stderr.take());
                let ((), (), outcome) = tokio::join!(stdout, stderr, exit);
                outcome
            };
            // The end of the input is not the end of the session.
            let input = async { tokio::join!(input, resize, std::future::pending::<Infallible>()).2 };
            let outcome = tokio::select! {
                outcome = output => outcome,
                never = input => match never {},
            };
            self.finish(outcome).await;
        };
        tokio::select! {
            biased;
            () = session => Ok(()),
            () = disconnected.cancelled() => Err(StreamError::Disconnected),
        }
    }
}

impl Exit {
    async fn finish(mut self, outcome: Outcome) {
        for pump in self.pumps {
            let _ = pump.await;
        }
        // A client that is gone cannot be told.
        let _ = self.error.write_all(&outcome.encode(self.format)).await;
        drop(self.error);
        let _ = self.error_pump.await;
        drop(self.silent);
        self.session.close().await;
    }
}

async fn forward_sizes(from: Option<mpsc::Receiver<TerminalSize>>, to: Option<mpsc::Sender<TerminalSize>>) {
    if let (Some(mut from), Some(to)) = (from, to) {
        while let Some(size) = from.recv().await {
            if to.send(size).await.is_err() {
                return;
            }
        }
    }
}

/// Copies until the end, which it passes on by dropping `to`.
async fn copy<R, W>(from: Option<R>, to: Option<W>)
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    if let (Some(mut from), Some(mut to)) = (from, to) {
        // Either end may be gone before the other; neither is an error of the session.
        let _ = tokio::io::copy(&mut from, &mut to).await;
        let _ = to.shutdown().await;
    }
}

pub(crate) async fn start<IO>(io: IO, protocol: CommandProtocol, wanted: WantedStreams) -> Result<RemoteCommand, StreamError>
where
    IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let wanted = WantedStreams { stderr: wanted.stderr && !wanted.tty, ..wanted };
    match protocol {
        CommandProtocol::WebSocket { encoding, outcome, close_signal } => {
            Ok(start_websocket(io, encoding, outcome, close_signal, wanted).await)
        }
        CommandProtocol::Spdy { outcome, resize } => start_spdy(io, outcome, resize, wanted).await,
    }
}

async fn start_websocket<IO>(
    io: IO,
    encoding: Encoding,
    format: OutcomeFormat,
    close_signal: bool,
    wanted: WantedStreams,
) -> RemoteCommand
where
    IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let mut inbound = HashMap::new();
    let mut receive = |channel, wanted: bool| {
        wanted.then(|| {
            let (writer, reader) = pipe();
            inbound.insert(channel, writer);
            reader
        })
    };
    let stdin = receive(STDIN, wanted.stdin);
    let sizes = receive(RESIZE, wanted.tty);
    let session = websocket::serve(io, encoding, close_signal, inbound).await;

    let mut pumps = Vec::new();
    let mut send = |channel, wanted: bool| {
        wanted.then(|| {
            let (writer, pump) = session.writer(u32::from(channel));
            pumps.push(pump);
            writer
        })
    };
    let stdout = send(STDOUT, wanted.stdout);
    let stderr = send(STDERR, wanted.stderr);
    let (error, error_pump) = session.writer(u32::from(ERROR));
    // An empty message on the first channel tells the client that it is connected.
    let first = if wanted.stdout {
        STDOUT
    } else if wanted.stderr {
        STDERR
    } else {
        ERROR
    };
    let _ = session.outgoing.send(Outgoing::Data(u32::from(first), bytes::Bytes::new())).await;
    let exit = Exit { error, error_pump, format, pumps, silent: Vec::new(), session };
    RemoteCommand { stdin, stdout, stderr, resize: sizes.map(read_sizes), exit }
}

async fn start_spdy<IO>(io: IO, format: OutcomeFormat, resize: bool, wanted: WantedStreams) -> Result<RemoteCommand, StreamError>
where
    IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (session, mut streams) = spdy::serve(io);
    let expected: Vec<&str> = [
        ("error", true),
        ("stdin", wanted.stdin),
        ("stdout", wanted.stdout),
        ("stderr", wanted.stderr),
        ("resize", wanted.tty && resize),
    ]
    .iter()
    .filter(|(_, wanted)| *wanted)
    .map(|(kind, _)| *kind)
    .collect();
    let mut opened: HashMap<&str, SpdyStream> = HashMap::new();
    let all = async {
        while opened.len() < expected.len() {
            let stream = streams.recv().await?;
            let kind = stream.headers.get("streamtype").unwrap_or_default();
            match expected.iter().find(|expected| **expected == kind && !opened.contains_key(*expected)) {
                Some(kind) => {
                    opened.insert(kind, stream);
                }
                None => spdy::refuse(&session.outgoing, &stream).await,
            }
        }
        Some(())
    };
    match tokio::time::timeout(STREAM_CREATION_TIMEOUT, all).await {
        Ok(Some(())) => {}
        Ok(None) => return Err(StreamError::Disconnected),
        Err(_) => {
            let missing: Vec<&str> = expected.into_iter().filter(|kind| !opened.contains_key(kind)).collect();
            return Err(StreamError::StreamsMissing { missing: missing.join(", ") });
        }
    }
    // Whatever else the client opens gets no attention; it must not hold up the connection either.
    tokio::spawn(async move { while streams.recv().await.is_some() {} });

    let error = opened.remove("error").ok_or(StreamError::Disconnected)?;
    let (mut silent, mut pumps) = (Vec::new(), Vec::new());
    let mut receive = |stream: SpdyStream| {
        silent.push(stream.writer);
        stream.reader
    };
    let stdin = opened.remove("stdin").map(&mut receive);
    let sizes = opened.remove("resize").map(&mut receive);
    let mut send = |stream: SpdyStream| {
        pumps.push(stream.pump);
        stream.writer
    };
    let stdout = opened.remove("stdout").map(&mut send);
    let stderr = opened.remove("stderr").map(&mut send);
    let exit = Exit { error: error.writer, error_pump: error.pump, format, pumps, silent, session };
    Ok(RemoteCommand { stdin, stdout, stderr, resize: sizes.map(read_sizes), exit })
}

/// Reads terminal sizes, JSON objects one after the other.
fn read_sizes(mut source: DuplexStream) -> mpsc::Receiver<TerminalSize> {
    let (sender, sizes) = mpsc::channel(SIZES);
    tokio::spawn(async move {
        let mut text = Vec::new();
        while let Ok(1..) = source.read_buf(&mut text).await {
            let Some((parsed, taken)) = parse_sizes(&text) else { return };
            text.drain(..taken);
            if text.len() > MAX_SIZE_TEXT {
                return;
            }
            for size in parsed {
                if sender.send(size).await.is_err() {
                    return;
                }
            }
        }
    });
    sizes
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SizeMessage {
    width: u16,
    height: u16,
}

/// The complete sizes at the beginning of `text` and their length; nothing if it cannot be one.
fn parse_sizes(text: &[u8]) -> Option<(Vec<TerminalSize>, usize)> {
    let mut messages = serde_json::Deserializer::from_slice(text).into_iter::<SizeMessage>();
    let (mut sizes, mut taken) = (Vec::new(), 0);
    loop {
        match messages.next() {
            Some(Ok(SizeMessage { width, height })) => {
                sizes.push((width, height));
                taken = messages.byte_offset();
            }
            Some(Err(error)) if error.is_eof() => return Some((sizes, taken)),
            Some(Err(_)) => return None,
            None => return Some((sizes, text.len())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminal_sizes_come_one_after_the_other_and_in_pieces() {
        let text = br#"{"Width":80,"Height":24}{"Width":100,"Height":30} {"Wid"#;
        let (sizes, taken) = parse_sizes(text).unwrap();
        assert_eq!(sizes, vec![(80, 24), (100, 30)]);
        assert_eq!(text[taken..].trim_ascii_start(), br#"{"Wid"#);
        assert!(parse_sizes(b"[1]").is_none());
        assert!(parse_sizes(br#"{"Width":-1,"Height":24}"#).is_none());
    }
}
