//! The terminal driver: what Linux' tty layer does between `kubectl exec -it`, which sends every key as it is pressed, and a
//! program, which reads lines.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::sync::{mpsc, watch};
use tokio_util::task::AbortOnDropHandle;

use crate::{Shared, Signal, Stdio, pipe};

/// The longest line, as Linux has it; further keys are ignored until the line is sent.
const MAX_LINE: usize = 4095;

/// Lines typed ahead of the program.
const LINES_AHEAD: usize = 64;

impl Stdio {
    /// The streams of a process with a terminal. `keys` is what the user types, `screen` what the user sees; `size` is in columns
    /// and rows. Lines are edited and echoed here, `Ctrl-C` sends [`Signal::Interrupt`] to `signals`, `Ctrl-D` ends the input, and
    /// every line feed of the output gets its carriage return. `screen` is closed when the process has ended and all is written.
    pub fn terminal(
        keys: impl AsyncRead + Send + Unpin + 'static,
        screen: impl AsyncWrite + Send + Unpin + 'static,
        size: watch::Receiver<(u16, u16)>,
        signals: watch::Sender<Signal>,
    ) -> Self {
        let (output, shown) = pipe();
        let output = Shared::new(output);
        tokio::spawn(show(shown, screen));
        let (lines, typed) = mpsc::channel(LINES_AHEAD);
        let discipline = Discipline { echo: output.clone(), lines, signals, line: Vec::new(), escape: Escape::No };
        let stdin = Typed { lines: typed, rest: Bytes::new(), _task: AbortOnDropHandle::new(tokio::spawn(discipline.run(keys))) };
        Self { stdin: Box::new(stdin), stdout: Box::new(output.clone()), stderr: Box::new(output), terminal: Some(size) }
    }
}

/// Copies output to the screen with `\n` made `\r\n`.
async fn show(mut output: impl AsyncRead + Unpin, mut screen: impl AsyncWrite + Unpin) {
    let mut buffer = vec![0; 8 << 10];
    while let Ok(count @ 1..) = output.read(&mut buffer).await {
        let mut shown = Vec::with_capacity(count + 64);
        for byte in &buffer[..count] {
            if *byte == b'\n' {
                shown.push(b'\r');
            }
            shown.push(*byte);
        }
        if screen.write_all(&shown).await.is_err() || screen.flush().await.is_err() {
            return;
        }
    }
    let _ = screen.shutdown().await;
}

/// The lines typed, as the program reads them. An empty chunk is one end of file: reading can go on after it.
struct Typed {
    lines: mpsc::Receiver<Bytes>,
    rest: Bytes,
    _task: AbortOnDropHandle<()>,
}

impl AsyncRead for Typed {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.rest.is_empty() {
            self.rest = ready!(self.lines.poll_recv(context)).unwrap_or_default();
        }
        let count = self.rest.len().min(buffer.remaining());
        buffer.put_slice(&self.rest[..count]);
        self.rest.advance(count);
        Poll::Ready(Ok(()))
    }
}

/// Where we are in an escape sequence, such as an arrow key's `ESC [ A`. They are swallowed.
enum Escape {
    No,
    Started,
    Sequence,
}

/// Canonical mode: keys in, whole lines out.
struct Discipline<W> {
    echo: W,
    lines: mpsc::Sender<Bytes>,
    signals: watch::Sender<Signal>,
    line: Vec<u8>,
    escape: Escape,
}

impl<W: AsyncWrite + Unpin> Discipline<W> {
    async fn run(mut self, mut keys: impl AsyncRead + Unpin) {
        let mut buffer = [0; 1024];
        while let Ok(count @ 1..) = keys.read(&mut buffer).await {
            for key in &buffer[..count] {
                if self.key(*key).await.is_err() {
                    return;
                }
            }
        }
    }

    async fn key(&mut self, key: u8) -> io::Result<()> {
        match (&self.escape, key) {
            (Escape::Started, b'[' | b'O') => self.escape = Escape::Sequence,
            (Escape::Started, _) | (Escape::Sequence, 0x40..=0x7e) => self.escape = Escape::No,
            (Escape::Sequence, _) => {}
            (Escape::No, _) => return self.plain_key(key).await,
        }
        Ok(())
    }

    async fn plain_key(&mut self, key: u8) -> io::Result<()> {
        const CTRL_C: u8 = 3;
        const CTRL_D: u8 = 4;
        const BACKSPACE: u8 = 8;
        const CTRL_U: u8 = 21;
        const CTRL_W: u8 = 23;
        const ESCAPE: u8 = 27;
        const DELETE: u8 = 127;
        match key {
            b'\r' | b'\n' => {
                self.echo.write_all(b"\n").await?;
                self.line.push(b'\n');
                self.send_line().await
            }
            CTRL_C => {
                self.line.clear();
                self.echo.write_all(b"^C\n").await?;
                self.signals.send(Signal::Interrupt).map_err(io::Error::other)
            }
            CTRL_D => self.send_line().await,
            BACKSPACE | DELETE => self.erase(1).await,
            CTRL_U => self.erase(usize::MAX).await,
            CTRL_W => {
                let text = String::from_utf8_lossy(&self.line);
                let kept = text.trim_end().rfind(char::is_whitespace).map_or(0, |at| text[..=at].chars().count());
                let count = text.chars().count() - kept;
                self.erase(count).await
            }
            ESCAPE => {
                self.escape = Escape::Started;
                Ok(())
            }
            0..=31 => Ok(()),
            _ if self.line.len() >= MAX_LINE => Ok(()),
            _ => {
                self.line.push(key);
                self.echo.write_all(&[key]).await
            }
        }
    }

    async fn send_line(&mut self) -> io::Result<()> {
        let line = std::mem::take(&mut self.line);
        self.lines.send(line.into()).await.map_err(io::Error::other)
    }

    /// Takes characters, not bytes, off the end of the line and off the screen.
    async fn erase(&mut self, count: usize) -> io::Result<()> {
        for _ in 0..count {
            let Some(last) = self.line.iter().rposition(|byte| byte & 0xc0 != 0x80) else { break };
            self.line.truncate(last);
            self.echo.write_all(b"\x08 \x08").await?;
        }
        Ok(())
    }
}
