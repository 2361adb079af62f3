//! The line that is being typed, and those typed before.

use std::collections::VecDeque;

use super::screen::width;

/// The longest line, as Linux has it; further keys are ignored until the line is sent.
const MAX_LINE: usize = 4095;

/// Lines that are remembered.
const MAX_HISTORY: usize = 200;

/// What a key does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Edit {
    Insert(char),
    Backspace,
    Delete,
    Left,
    Right,
    Home,
    End,
    KillToStart,
    KillToEnd,
    KillWord,
    /// The line typed before this one.
    Previous,
    /// The line typed after it.
    Next,
}

/// Edits a line. It does no input or output: an edit answers what to write to the screen.
#[derive(Debug, Default)]
pub(super) struct Editor {
    line: Vec<char>,
    /// Where the cursor is in `line`.
    cursor: usize,
    /// The columns before the line begins: the prompt's.
    start: usize,
    history: VecDeque<Vec<char>>,
    /// How far back in `history` the line shown is; 0 is the line being typed.
    back: usize,
    /// The line being typed, while an older one is shown.
    draft: Vec<char>,
}

impl Editor {
    pub(super) fn is_empty(&self) -> bool {
        self.line.is_empty()
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.cursor == self.line.len()
    }

    /// Says in which column an empty line begins.
    pub(super) fn begin_at(&mut self, column: usize) {
        self.start = column;
    }

    /// Forgets the line.
    pub(super) fn clear(&mut self) {
        self.take();
    }

    /// Takes the line, which is not remembered.
    pub(super) fn take(&mut self) -> String {
        (self.cursor, self.back) = (0, 0);
        self.draft.clear();
        std::mem::take(&mut self.line).into_iter().collect()
    }

    /// Takes the line and remembers it.
    pub(super) fn enter(&mut self) -> String {
        let blank = self.line.iter().all(|character| character.is_whitespace());
        if !blank && self.history.front() != Some(&self.line) {
            self.history.push_front(self.line.clone());
            self.history.truncate(MAX_HISTORY);
        }
        self.take()
    }

    /// Edits the line. `columns` is the screen's width; 0 is one without end.
    pub(super) fn edit(&mut self, edit: Edit, columns: usize) -> String {
        let screen = Screen { columns: if columns == 0 { usize::MAX } else { columns } };
        let before = self.place(self.cursor);
        match edit {
            Edit::Insert(character) => {
                if self.line.iter().map(|c| c.len_utf8()).sum::<usize>() + character.len_utf8() > MAX_LINE {
                    return String::new();
                }
                let at_end = self.is_at_end();
                self.line.insert(self.cursor, character);
                self.cursor += 1;
                if at_end {
                    return screen.wrapped(character.to_string(), self.place(self.cursor));
                }
            }
            Edit::Backspace if self.cursor == 0 => return String::new(),
            Edit::Backspace => {
                let at_end = self.is_at_end();
                self.cursor -= 1;
                let erased = width([self.line.remove(self.cursor)]);
                if at_end && screen.row(self.place(self.cursor)) == screen.row(before) {
                    return ["\x08", " ", "\x08"].map(|text| text.repeat(erased)).concat();
                }
            }
            Edit::Delete if self.is_at_end() => return String::new(),
            Edit::Delete => drop(self.line.remove(self.cursor)),
            Edit::Left => return self.move_to(self.cursor.saturating_sub(1), screen),
            Edit::Right => return self.move_to(self.line.len().min(self.cursor + 1), screen),
            Edit::Home => return self.move_to(0, screen),
            Edit::End => return self.move_to(self.line.len(), screen),
            Edit::KillToStart => self.kill(0),
            Edit::KillToEnd => self.line.truncate(self.cursor),
            Edit::KillWord => {
                let text = &self.line[..self.cursor];
                let end = text.iter().rposition(|c| !c.is_whitespace()).map_or(0, |at| at + 1);
                self.kill(text[..end].iter().rposition(|c| c.is_whitespace()).map_or(0, |at| at + 1));
            }
            Edit::Previous if self.back == self.history.len() => return String::new(),
            Edit::Previous => self.show(self.back + 1),
            Edit::Next if self.back == 0 => return String::new(),
            Edit::Next => self.show(self.back - 1),
        }
        self.redraw(before, screen)
    }

    /// Takes what is between `from` and the cursor out of the line.
    fn kill(&mut self, from: usize) {
        self.line.drain(from..self.cursor);
        self.cursor = from;
    }

    /// Shows another line of the history.
    fn show(&mut self, back: usize) {
        if self.back == 0 {
            self.draft = std::mem::take(&mut self.line);
        }
        self.line = if back == 0 { std::mem::take(&mut self.draft) } else { self.history[back - 1].clone() };
        self.back = back;
        self.cursor = self.line.len();
    }

    /// The columns from the left edge of the prompt's row to a place in the line.
    fn place(&self, at: usize) -> usize {
        self.start + width(self.line[..at].iter().copied())
    }

    fn move_to(&mut self, cursor: usize, screen: Screen) -> String {
        let from = self.place(self.cursor);
        self.cursor = cursor;
        screen.moved(from, self.place(cursor))
    }

    /// Draws the line anew. The screen's cursor stands at `from`.
    fn redraw(&self, from: usize, screen: Screen) -> String {
        let end = self.place(self.line.len());
        let mut shown = screen.moved(from, self.start) + "\x1b[J";
        shown.push_str(&screen.wrapped(self.line.iter().collect(), end));
        shown + &screen.moved(end, self.place(self.cursor))
    }
}

/// A screen of so many columns, on which a long line takes several rows.
#[derive(Clone, Copy)]
struct Screen {
    columns: usize,
}

impl Screen {
    fn row(self, place: usize) -> usize {
        place / self.columns
    }

    /// Moves the cursor.
    fn moved(self, from: usize, to: usize) -> String {
        if from == to {
            return String::new();
        }
        let mut keys = String::new();
        let (row, goal) = (self.row(from), self.row(to));
        match row.abs_diff(goal) {
            0 => {}
            rows => keys.push_str(&format!("\x1b[{rows}{}", if goal < row { 'A' } else { 'B' })),
        }
        keys.push('\r');
        match to % self.columns {
            0 => keys,
            column => keys + &format!("\x1b[{column}C"),
        }
    }

    /// A terminal stays at the right edge until one more character comes; a blank brings it to the next row, where the editor
    /// takes it to be.
    fn wrapped(self, text: String, end: usize) -> String {
        let at_edge = !text.is_empty() && end.is_multiple_of(self.columns);
        if at_edge { text + " \r" } else { text }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The line that the keys lead to, and what the last of them wrote.
    fn typed(editor: &mut Editor, text: &str, edits: &[Edit]) -> (String, String) {
        text.chars().for_each(|character| drop(editor.edit(Edit::Insert(character), 80)));
        let shown = edits.iter().map(|edit| editor.edit(*edit, 80)).last().unwrap_or_default();
        (editor.line.iter().collect(), shown)
    }

    #[test]
    fn keys_edit_the_line() {
        use Edit::{Backspace, Delete, End, Home, Insert, KillToEnd, KillToStart, KillWord, Left, Right};
        let line = |text, edits: &[Edit]| typed(&mut Editor::default(), text, edits).0;
        assert_eq!(line("cat", &[Left, Insert('r')]), "cart");
        assert_eq!(line("cat", &[Home, Delete, Right, Backspace]), "t");
        assert_eq!(line("curl web  ", &[KillWord]), "curl ");
        assert_eq!(line("curl web", &[Left, KillToEnd, Home, End, Left, KillToStart]), "e");
        assert_eq!(line("", &[Backspace, Delete, Left, Right, KillWord]), "");
        assert_eq!(line(&"x".repeat(MAX_LINE + 1), &[]).len(), MAX_LINE);
    }

    #[test]
    fn earlier_lines_come_back() {
        use Edit::{Next, Previous};
        let mut editor = Editor::default();
        for command in ["ls", "curl web", "curl web", "  "] {
            typed(&mut editor, command, &[]);
            editor.enter();
        }
        assert_eq!(typed(&mut editor, "half", &[Previous]).0, "curl web");
        assert_eq!(typed(&mut editor, "", &[Previous, Previous]).0, "ls");
        assert_eq!(typed(&mut editor, "", &[Next, Next, Next]).0, "half");
        assert_eq!(editor.enter(), "half");
        assert_eq!(typed(&mut editor, "", &[Previous]).0, "half");
    }

    #[test]
    fn the_screen_follows_over_several_rows() {
        let mut editor = Editor::default();
        editor.begin_at(4);
        let shown = |editor: &mut Editor, edit| editor.edit(edit, 10);
        let text: String = "abcdefgh".chars().map(|character| shown(&mut editor, Edit::Insert(character))).collect();
        assert_eq!(text, "abcdef \rgh");
        assert_eq!(shown(&mut editor, Edit::Backspace), "\x08 \x08");
        assert_eq!(shown(&mut editor, Edit::Home), "\x1b[1A\r\x1b[4C");
        assert_eq!(shown(&mut editor, Edit::Insert('日')), "\x1b[J日abcdefg\r\x1b[6C".replace("\r", "\x1b[1A\r"));
        assert_eq!(shown(&mut editor, Edit::End), "\x1b[1B\r\x1b[3C");
    }
}
