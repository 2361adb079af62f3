//! A step's text for the terminal: lines with styles, and the code blocks that can be run or copied.

use pulldown_cmark::{CodeBlockKind, Event, HeadingLevel, Options, Parser, Tag, TagEnd};
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};
use unicode_width::UnicodeWidthStr;

use super::table;
use super::theme::{Role, Theme};

/// Stands before each line of code that can be used.
pub(crate) const GUTTER: &str = "▎ ";

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

impl CodeBlock {
    /// Whether it is something to do, and no picture and no output.
    pub(crate) fn is_for_use(&self) -> bool {
        matches!(self.language.as_str(), "sh" | "yaml")
    }
}

/// Lays a text out in lines of at most `width` columns. Code is never broken.
pub(crate) fn lay_out(text: &str, width: usize, theme: Theme) -> Page {
    let mut writer = Writer::new(width.max(20), theme);
    for event in Parser::new_ext(text, Options::ENABLE_TABLES) {
        writer.event(event);
    }
    writer.flush();
    writer.page
}

struct Writer {
    page: Page,
    width: usize,
    theme: Theme,
    pending: Vec<Span<'static>>,
    style: Style,
    lists: Vec<Option<u64>>,
    marker: Option<String>,
    code: Option<CodeBlock>,
    table: Vec<Vec<String>>,
    in_image: bool,
    soft_break: bool,
}

impl Writer {
    fn new(width: usize, theme: Theme) -> Self {
        Self {
            page: Page::default(),
            width,
            theme,
            pending: Vec::new(),
            style: Style::new(),
            lists: Vec::new(),
            marker: None,
            code: None,
            table: Vec::new(),
            in_image: false,
            soft_break: false,
        }
    }

    fn event(&mut self, event: Event<'_>) {
        match event {
            Event::Start(tag) => self.start(tag),
            Event::End(tag) => self.end(tag),
            Event::Text(text) => self.text(&text),
            Event::Code(code) => self.inline(&code, self.theme.style(Role::Code)),
            Event::SoftBreak => self.soft_break = true,
            Event::HardBreak => self.flush(),
            Event::Rule => self.page.lines.push(Line::from("─".repeat(self.width.min(40)))),
            _ => {}
        }
    }

    fn start(&mut self, tag: Tag<'_>) {
        match tag {
            Tag::Heading { level, .. } => {
                self.blank();
                self.style = self.theme.style(if level == HeadingLevel::H1 { Role::Title } else { Role::Heading });
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
            Tag::Table(_) => {
                self.flush();
                self.blank();
            }
            Tag::TableHead | Tag::TableRow => self.table.push(Vec::new()),
            // The text draws the same with characters.
            Tag::Image { .. } => self.in_image = true,
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
                if let Some(row) = self.table.last_mut() {
                    row.push(cell);
                }
            }
            TagEnd::Table => self.end_table(),
            TagEnd::Image => self.in_image = false,
            _ => {}
        }
    }

    fn text(&mut self, text: &str) {
        match &mut self.code {
            _ if self.in_image => {}
            Some(block) => block.code.push_str(text),
            None => self.inline(text, self.style),
        }
    }

    fn inline(&mut self, text: &str, style: Style) {
        if std::mem::take(&mut self.soft_break) {
            // Where a Japanese sentence goes on in the next line of the source, no space belongs.
            let before = self.pending.last().and_then(|span| span.content.chars().last());
            let both = before.is_some_and(is_wide) && text.starts_with(is_wide);
            if !both && !before.is_some_and(is_closing_wide) && before.is_some() {
                self.pending.push(Span::styled(" ", style));
            }
        }
        self.pending.push(Span::styled(text.to_owned(), style));
    }

    fn code_block(&mut self) {
        let Some(block) = self.code.take() else { return };
        let (gutter, role) = match block.language.as_str() {
            "output" => ("  ", Some(Role::Faint)),
            "text" => ("  ", None),
            _ => (GUTTER, Some(Role::Code)),
        };
        let style = role.map_or_else(Style::new, |role| self.theme.style(role));
        for line in block.code.lines() {
            let gutter = Span::styled(gutter, self.theme.style(Role::Faint));
            self.page.lines.push(Line::from(vec![gutter, Span::styled(line.to_owned(), style)]));
        }
        self.page.blocks.push(block);
    }

    fn end_table(&mut self) {
        let indent = "  ".repeat(self.lists.len().max(1));
        let rows = std::mem::take(&mut self.table);
        let lines = table::lay_out(&rows, self.width.saturating_sub(indent.len()));
        for (number, line) in lines.into_iter().enumerate() {
            let style = if number < 2 { self.theme.style(Role::Faint) } else { Style::new() };
            self.page.lines.push(Line::from(Span::styled(format!("{indent}{line}"), style)));
        }
    }

    fn blank(&mut self) {
        if self.page.lines.last().is_some_and(|line| line.width() > 0) {
            self.page.lines.push(Line::default());
        }
    }

    /// Breaks what is pending into lines: at spaces in Latin text, anywhere between Japanese characters.
    fn flush(&mut self) {
        self.soft_break = false;
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

fn is_closing_wide(character: char) -> bool {
    is_closing(character) && is_wide(character)
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
        let page = lay_out(text, 24, Theme::Mono);
        insta::assert_snapshot!(plain(&page), @r"
        Title

        A paragraph of several
        words.

        1. first

        ▎ kubectl get pods --all-namespaces --watch

        • x
        ");
        assert_eq!(page.blocks[0].code, "kubectl get pods --all-namespaces --watch\n");
    }

    #[test]
    fn japanese_is_broken_anywhere_but_no_line_begins_with_a_full_stop() {
        let page = lay_out("サービスメッシュはプロキシを置きます。そして通信を引き受けます。", 36, Theme::Mono);
        assert!(page.lines.len() > 1);
        for line in &page.lines {
            assert!(line.width() <= 38, "{line}");
            assert!(!line.to_string().starts_with('。'), "{line}");
        }
    }

    #[test]
    fn a_sentence_goes_on_in_the_next_line_of_its_source() {
        let page = lay_out("普通の名前に\n接続します。\n`client` と\nwebapp です。\none\ntwo ![alt](x.svg)\n", 80, Theme::Mono);
        insta::assert_snapshot!(plain(&page), @"普通の名前に接続します。client と webapp です。one two");
    }

    #[test]
    fn commands_can_be_used_and_what_they_print_can_not() {
        let page = lay_out("```sh\na\n```\n\n```output\nb\n```\n\n```yaml\nc: 1\n```\n", 80, Theme::Mono);
        insta::assert_snapshot!(plain(&page), @r"
        ▎ a

          b

        ▎ c: 1
        ");
        assert_eq!(page.blocks.iter().map(CodeBlock::is_for_use).collect::<Vec<_>>(), [true, false, true]);
    }
}
