//! The terminal driver: what Linux' tty layer does between `kubectl exec -it`, which sends every key as it is pressed, and a
//! program, which reads lines. Lines are edited as shells let them be edited, with arrow keys and a history.

mod editor;
mod screen;

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::sync::{mpsc, watch};
use tokio_util::task::AbortOnDropHandle;

use crate::{Shared, Signal, Stdio, pipe};
use editor::{Edit, Editor};
use screen::Column;

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
        let column = Column::default();
        tokio::spawn(screen::show(shown, screen, column.clone()));
        let (lines, typed) = mpsc::channel(LINES_AHEAD);
        let discipline = Discipline {
            echo: output.clone(),
            lines,
            signals,
            size: size.clone(),
            column,
            editor: Editor::default(),
            escape: Escape::No,
            character: Vec::new(),
        };
        let stdin = Typed { lines: typed, rest: Bytes::new(), _task: AbortOnDropHandle::new(tokio::spawn(discipline.run(keys))) };
        Self { stdin: Box::new(stdin), stdout: Box::new(output.clone()), stderr: Box::new(output), terminal: Some(size) }
    }
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

/// Where we are in an escape sequence, such as an arrow key's `ESC [ A` or `ESC [ 3 ~`.
enum Escape {
    No,
    Started,
    /// With its last number.
    Sequence(u8),
}

/// Keys in, whole lines out.
struct Discipline<W> {
    echo: W,
    lines: mpsc::Sender<Bytes>,
    signals: watch::Sender<Signal>,
    size: watch::Receiver<(u16, u16)>,
    column: Column,
    editor: Editor,
    escape: Escape,
    /// The bytes of a character that is not complete.
    character: Vec<u8>,
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
        let edit = match (&self.escape, key) {
            (Escape::Started, b'[' | b'O') => {
                self.escape = Escape::Sequence(0);
                None
            }
            (Escape::Sequence(number), b'0'..=b'9') => {
                self.escape = Escape::Sequence(number.wrapping_mul(10).wrapping_add(key - b'0'));
                None
            }
            (Escape::Sequence(number), 0x40..=0x7e) => {
                let edit = sequence(*number, key);
                self.escape = Escape::No;
                edit
            }
            (Escape::Sequence(_), _) => {
                self.escape = Escape::Sequence(0);
                None
            }
            (Escape::Started, _) => {
                self.escape = Escape::No;
                None
            }
            (Escape::No, _) => return self.plain_key(key).await,
        };
        match edit {
            Some(edit) => self.edit(edit).await,
            None => Ok(()),
        }
    }

    async fn plain_key(&mut self, key: u8) -> io::Result<()> {
        const CTRL_A: u8 = 1;
        const CTRL_B: u8 = 2;
        const CTRL_C: u8 = 3;
        const CTRL_D: u8 = 4;
        const CTRL_E: u8 = 5;
        const CTRL_F: u8 = 6;
        const BACKSPACE: u8 = 8;
        const CTRL_K: u8 = 11;
        const CTRL_N: u8 = 14;
        const CTRL_P: u8 = 16;
        const CTRL_U: u8 = 21;
        const CTRL_W: u8 = 23;
        const ESCAPE: u8 = 27;
        const DELETE: u8 = 127;
        let edit = match key {
            b'\r' | b'\n' => {
                self.edit(Edit::End).await?;
                self.echo.write_all(b"\n").await?;
                let line = self.editor.enter() + "\n";
                return self.send(line).await;
            }
            CTRL_C => {
                self.editor.clear();
                self.echo.write_all(b"^C\n").await?;
                return self.signals.send(Signal::Interrupt).map_err(io::Error::other);
            }
            CTRL_D if self.editor.is_at_end() => {
                let line = self.editor.take();
                return self.send(line).await;
            }
            ESCAPE => {
                self.escape = Escape::Started;
                return Ok(());
            }
            CTRL_A => Edit::Home,
            CTRL_B => Edit::Left,
            CTRL_D => Edit::Delete,
            CTRL_E => Edit::End,
            CTRL_F => Edit::Right,
            CTRL_K => Edit::KillToEnd,
            CTRL_N => Edit::Next,
            CTRL_P => Edit::Previous,
            CTRL_U => Edit::KillToStart,
            CTRL_W => Edit::KillWord,
            BACKSPACE | DELETE => Edit::Backspace,
            0..=31 => return Ok(()),
            _ => match self.complete(key) {
                Some(character) => Edit::Insert(character),
                None => return Ok(()),
            },
        };
        self.edit(edit).await
    }

    /// The character that this byte ends.
    fn complete(&mut self, byte: u8) -> Option<char> {
        /// The longest character in UTF-8.
        const LONGEST: usize = 4;
        self.character.push(byte);
        match std::str::from_utf8(&self.character) {
            Ok(text) => {
                let character = text.chars().next();
                self.character.clear();
                character
            }
            Err(error) if error.error_len().is_none() && self.character.len() < LONGEST => None,
            Err(_) => {
                self.character.clear();
                Some(char::REPLACEMENT_CHARACTER)
            }
        }
    }

    async fn edit(&mut self, edit: Edit) -> io::Result<()> {
        if self.editor.is_empty() {
            self.editor.begin_at(self.column.get());
        }
        let columns = usize::from(self.size.borrow().0);
        let shown = self.editor.edit(edit, columns);
        self.echo.write_all(shown.as_bytes()).await
    }

    async fn send(&mut self, line: String) -> io::Result<()> {
        self.lines.send(line.into()).await.map_err(io::Error::other)
    }
}

/// What the key of an escape sequence does: `ESC [ number final`.
fn sequence(number: u8, last: u8) -> Option<Edit> {
    Some(match (last, number) {
        (b'A', _) => Edit::Previous,
        (b'B', _) => Edit::Next,
        (b'C', _) => Edit::Right,
        (b'D', _) => Edit::Left,
        (b'H', _) | (b'~', 1 | 7) => Edit::Home,
        (b'F', _) | (b'~', 4 | 8) => Edit::End,
        (b'~', 3) => Edit::Delete,
        _ => return None,
    })
}
