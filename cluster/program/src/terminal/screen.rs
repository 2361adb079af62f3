//! The way to the user's screen.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use unicode_width::UnicodeWidthChar;

/// How many columns were written since the last line began. The line editor has to know where a prompt ended.
#[derive(Clone, Default)]
pub(super) struct Column(Arc<AtomicUsize>);

impl Column {
    pub(super) fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// Copies output to the screen with `\n` made `\r\n`.
pub(super) async fn show(mut output: impl AsyncRead + Unpin, mut screen: impl AsyncWrite + Unpin, column: Column) {
    let mut counter = Counter::default();
    let mut buffer = vec![0; 8 << 10];
    while let Ok(count @ 1..) = output.read(&mut buffer).await {
        let mut shown = Vec::with_capacity(count + 64);
        for byte in &buffer[..count] {
            if *byte == b'\n' {
                shown.push(b'\r');
            }
            shown.push(*byte);
            counter.count(*byte);
        }
        column.0.store(counter.column, Ordering::Relaxed);
        if screen.write_all(&shown).await.is_err() || screen.flush().await.is_err() {
            return;
        }
    }
    let _ = screen.shutdown().await;
}

/// Counts columns byte by byte.
#[derive(Default)]
struct Counter {
    column: usize,
    /// Within `ESC [ …`.
    escape: bool,
    character: Vec<u8>,
}

impl Counter {
    fn count(&mut self, byte: u8) {
        const ESCAPE: u8 = 27;
        const BACKSPACE: u8 = 8;
        match byte {
            _ if self.escape => self.escape = !(byte.is_ascii_alphabetic() || byte == b'~'),
            b'\n' | b'\r' => self.column = 0,
            BACKSPACE => self.column = self.column.saturating_sub(1),
            ESCAPE => self.escape = true,
            0..=31 => {}
            0x20..=0x7e => self.column += 1,
            _ => {
                self.character.push(byte);
                match std::str::from_utf8(&self.character) {
                    Ok(text) => self.column += width(text.chars()),
                    Err(error) if error.error_len().is_none() => return,
                    Err(_) => {}
                }
                self.character.clear();
            }
        }
    }
}

/// The columns that characters take: two for those of East Asia.
pub(super) fn width(text: impl IntoIterator<Item = char>) -> usize {
    text.into_iter().map(|character| character.width().unwrap_or_default()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_counted_as_a_terminal_shows_them() {
        let column = |text: &str| {
            let mut counter = Counter::default();
            text.bytes().for_each(|byte| counter.count(byte));
            counter.column
        };
        assert_eq!(column("one\n/ # "), 4);
        assert_eq!(column("\x1b[31mred\x1b[0m$ "), 5);
        assert_eq!(column("日本\x08\x08"), 2);
        assert_eq!(column("100%\rok"), 2);
    }
}
