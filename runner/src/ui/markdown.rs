//! A step's text for the terminal: lines with styles, and the code blocks that can be run or copied.

use pulldown_cmark::{CodeBlockKind, Event, HeadingLevel, Options, Parser, Tag, TagEnd};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use unicode_width::UnicodeWidthStr;

/// A text laid out for one width.
#[derive(Debug, Clone, Default)]
pub(crate) struct Page {
    /// Lines, top to bottom.
    pub(crate) lines: Vec<Line<'static>>,
    /// Code blocks in order.
    pub(crate) blocks: Vec<CodeBlock>,
}

/// A code block of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CodeBlock {
    /// `sh`, `yaml`, `text`.
    pub(crate) language: String,
    /// Its content, without the indentation of a list it stands in.
    pub(crate) code: String,
    /// The line of the page it begins at.
    pub(crate) line: usize,
}

/// The code blocks of a text that are commands for a shell.
pub(crate) fn commands(text: &str) -> Vec<String> {
    lay_out(text, usize::MAX).blocks.into_iter().filter(|block| block.language == "sh").map(|block| block.code).collect()
}

/// Lays a text out in lines of at most `width` columns. Code is never broken.
pub(crate) fn lay_out(text: &str, width: usize) -> Page {
    let mut writer = Writer { page: Page::default(), width: width.max(20), ..Writer::default() };
    for event in Parser::new_ext(text, Options::ENABLE_TABLES) {
        writer.event(event);
    }
    writer.flush();
    writer.page
}

#[derive(Default)]
struct Writer {
    page: Page,
    width: usize,
    pending: Vec<Span<'static>>,
    style: Style,
    lists: Vec<Option<u64>>,
    marker: Option<String>,
    code: Option<CodeBlock>,
    row: Option<Vec<String>>,
}

impl Writer {
    fn event(&mut self, event: Event<'_>) {
        match event {
            Event::Start(tag) => self.start(tag),
            Event::End(tag) => self.end(tag),
            Event::Text(text) => self.text(&text),
            Event::Code(code) => self.inline(&code, Style::new().fg(Color::Cyan)),
            Event::SoftBreak => self.text(" "),
            Event::HardBreak => self.flush(),
            Event::Rule => self.page.lines.push(Line::from("─".repeat(self.width.min(40)))),
            _ => {}
        }
    }

    fn start(&mut self, tag: Tag<'_>) {
        match tag {
            Tag::Heading { level, .. } => {
                self.blank();
                let colour = if level == HeadingLevel::H1 { Color::Magenta } else { Color::Blue };
                self.style = Style::new().fg(colour).add_modifier(Modifier::BOLD);
            }
            Tag::Paragraph if self.marker.is_none() => self.blank(),
            Tag::Strong => self.style = self.style.add_modifier(Modifier::BOLD),
            Tag::Emphasis => self.style = self.style.add_modifier(Modifier::ITALIC),
            Tag::List(first) => {
                self.flush();
                if self.lists.is_empty() {
                    self.blank();
                }
                self.lists.push(first);
            }
            Tag::Item => {
                let depth = self.lists.len().saturating_sub(1);
                let marker = match self.lists.last_mut() {
                    Some(Some(number)) => {
                        *number += 1;
                        format!("{}. ", *number - 1)
                    }
                    _ => "• ".to_owned(),
                };
                self.marker = Some(format!("{}{marker}", "  ".repeat(depth)));
            }
            Tag::CodeBlock(kind) => {
                self.flush();
                self.blank();
                let language = match kind {
                    CodeBlockKind::Fenced(language) => language.into_string(),
                    CodeBlockKind::Indented => String::new(),
                };
                self.code = Some(CodeBlock { language, code: String::new(), line: self.page.lines.len() });
            }
            Tag::Table(_) => self.blank(),
            Tag::TableHead | Tag::TableRow => self.row = Some(Vec::new()),
            _ => {}
        }
    }

    fn end(&mut self, tag: TagEnd) {
        match tag {
            TagEnd::Heading(_) => {
                self.flush();
                self.style = Style::new();
            }
            TagEnd::Paragraph | TagEnd::Item => self.flush(),
            TagEnd::Strong => self.style = self.style.remove_modifier(Modifier::BOLD),
            TagEnd::Emphasis => self.style = self.style.remove_modifier(Modifier::ITALIC),
            TagEnd::List(_) => {
                self.lists.pop();
            }
            TagEnd::CodeBlock => self.code_block(),
            TagEnd::TableCell => {
                let cell: String = self.pending.drain(..).map(|span| span.content.into_owned()).collect();
                if let Some(row) = &mut self.row {
                    row.push(cell);
                }
            }
            TagEnd::TableHead | TagEnd::TableRow => {
                let row = self.row.take().unwrap_or_default();
                self.pending.push(Span::raw(format!("  {}", row.join("  │  "))));
                self.flush();
            }
            _ => {}
        }
    }

    fn text(&mut self, text: &str) {
        match &mut self.code {
            Some(block) => block.code.push_str(text),
            None => self.inline(text, self.style),
        }
    }

    fn inline(&mut self, text: &str, style: Style) {
        self.pending.push(Span::styled(text.to_owned(), style));
    }

    fn code_block(&mut self) {
        let Some(block) = self.code.take() else { return };
        let colour = if block.language == "text" { Color::Reset } else { Color::Green };
        for line in block.code.lines() {
            self.page.lines.push(Line::from(Span::styled(format!("  {line}"), Style::new().fg(colour))));
        }
        self.page.blocks.push(block);
    }

    fn blank(&mut self) {
        if self.page.lines.last().is_some_and(|line| line.width() > 0) {
            self.page.lines.push(Line::default());
        }
    }

    /// Breaks what is pending into lines: at spaces in Latin text, anywhere between Japanese characters.
    fn flush(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        let marker = self.marker.take().unwrap_or_else(|| "  ".repeat(self.lists.len()));
        let indent = " ".repeat(marker.width());
        let mut line = vec![Span::raw(marker)];
        let mut used = indent.len();
        for span in std::mem::take(&mut self.pending) {
            for word in words(&span.content) {
                let fits = used + word.trim_end().width() <= self.width;
                if !fits && used > indent.len() {
                    self.page.lines.push(Line::from(std::mem::replace(&mut line, vec![Span::raw(indent.clone())])));
                    used = indent.len();
                }
                let word = if used == indent.len() { word.trim_start() } else { word };
                used += word.width();
                line.push(Span::styled(word.to_owned(), span.style));
            }
        }
        self.page.lines.push(Line::from(line));
    }
}

/// Pieces between which a line may be broken; a piece keeps the space after it.
fn words(text: &str) -> Vec<&str> {
    let mut pieces = Vec::new();
    let mut start = 0;
    let mut previous: Option<char> = None;
    for (at, character) in text.char_indices() {
        let after_space = previous == Some(' ') && character != ' ';
        // Japanese may be broken anywhere, but a closing mark must not begin a line (kinsoku).
        let japanese =
            previous.is_some_and(is_wide) && !is_closing(character) || is_wide(character) && previous.is_some_and(|p| p != ' ');
        if at > start && (after_space || japanese && !is_closing(character)) {
            pieces.push(&text[start..at]);
            start = at;
        }
        previous = Some(character);
    }
    if start < text.len() {
        pieces.push(&text[start..]);
    }
    pieces
}

fn is_wide(character: char) -> bool {
    matches!(character, '\u{3000}'..='\u{30ff}' | '\u{3400}'..='\u{9fff}' | '\u{ff00}'..='\u{ffef}')
}

fn is_closing(character: char) -> bool {
    matches!(character, '。' | '、' | '」' | '』' | '）' | '！' | '？' | 'ー' | '.' | ',' | ')' | ':' | ';')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(page: &Page) -> String {
        page.lines.iter().map(|line| line.to_string().trim_end().to_owned() + "\n").collect()
    }

    #[test]
    fn text_is_broken_at_spaces_and_code_is_not() {
        let text = "# Title\n\nA paragraph of several words.\n\n1. first\n\n   ```sh\n   kubectl get pods --all-namespaces --watch\n   ```\n\n- x\n";
        let page = lay_out(text, 24);
        insta::assert_snapshot!(plain(&page), @r"
        Title

        A paragraph of several
        words.

        1. first

          kubectl get pods --all-namespaces --watch

        • x
        ");
        assert_eq!(page.blocks[0].code, "kubectl get pods --all-namespaces --watch\n");
    }

    #[test]
    fn japanese_is_broken_anywhere_but_no_line_begins_with_a_full_stop() {
        let page = lay_out("サービスメッシュはプロキシを置きます。そして通信を引き受けます。", 36);
        assert!(page.lines.len() > 1);
        for line in &page.lines {
            assert!(line.width() <= 38, "{line}");
            assert!(!line.to_string().starts_with('。'), "{line}");
        }
    }

    #[test]
    fn commands_are_the_shell_blocks() {
        assert_eq!(commands("```sh\na\n```\n```yaml\nb: 1\n```\n```sh\nc\n```\n"), ["a\n", "c\n"]);
    }
}
