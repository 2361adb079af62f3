//! What the terminal UI knows, and how keys change it. No terminal here: it is all testable.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Instant;

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use meshlab_checks::{CheckResult, Lab, Language, Step, Verdict};

use super::markdown::{CodeBlock, Page, lay_out};
use super::theme::Theme;
use super::words::word;
use crate::progress::Progress;

/// Lines kept of what a command prints.
const OUTPUT_LINES: usize = 2_000;

/// What is laid over the step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Overlay {
    /// A hint.
    Hint(usize),
    /// The solution.
    Solution,
    /// All steps, with the one under the cursor.
    List(usize),
    /// What passing taught.
    Debrief,
    /// One check in full.
    Detail(usize),
    /// Keys.
    Help,
    /// What a command prints, or why something failed.
    Output,
}

/// What the loop around has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// Leave; the lab goes on.
    Quit,
    /// Prove the step.
    Check,
    /// Keep the progress.
    Save,
    /// Keep the progress, and prove the step that the learner went to.
    Turn,
    /// Run a command of the text in a shell.
    Run(String),
    /// End the command that runs.
    Interrupt,
    /// Put text on the clipboard.
    Copy(String),
    /// Write a block into the learner's folder under this name.
    Write(String, String),
    /// Apply the learner's files of the step.
    Apply,
    /// Write the solution and apply it.
    Solve,
    /// Bring the step back to its start.
    Reset,
}

/// Something that takes longer than a moment.
#[derive(Debug, Clone)]
pub(crate) struct Busy {
    /// What it is.
    pub(crate) what: String,
    /// Since when.
    pub(crate) since: Instant,
}

/// Everything on the screen.
pub(crate) struct App {
    pub(crate) lab: Lab,
    pub(crate) progress: Progress,
    pub(crate) overlay: Option<Overlay>,
    /// How each check ended last.
    pub(crate) results: BTreeMap<String, CheckResult>,
    /// Checks of this step that are being looked at.
    pub(crate) pending: BTreeSet<String>,
    pub(crate) scroll: usize,
    pub(crate) overlay_scroll: usize,
    pub(crate) cursor: usize,
    pub(crate) theme: Theme,
    pub(crate) confirm: Option<Action>,
    pub(crate) message: String,
    pub(crate) busy: Option<Busy>,
    pub(crate) output: VecDeque<String>,
    /// What is being typed after `/`.
    pub(crate) prompt: Option<String>,
    /// What was searched for last.
    pub(crate) needle: String,
    /// Lines of the text that are on the screen.
    pub(crate) viewport: usize,
    selected: Option<usize>,
    page: (usize, Theme, Page),
}

impl App {
    pub(crate) fn new(lab: Lab, progress: Progress, theme: Theme) -> Self {
        Self {
            lab,
            progress,
            overlay: None,
            results: BTreeMap::new(),
            pending: BTreeSet::new(),
            scroll: 0,
            overlay_scroll: 0,
            cursor: 0,
            theme,
            confirm: None,
            message: String::new(),
            busy: None,
            output: VecDeque::new(),
            prompt: None,
            needle: String::new(),
            viewport: 0,
            selected: None,
            page: (0, theme, Page::default()),
        }
    }

    pub(crate) fn step(&self) -> &Step {
        self.progress.current(&self.lab)
    }

    /// The place of the step in the lab, from 0.
    pub(crate) fn index(&self) -> usize {
        self.lab.steps.iter().position(|step| step.file.id == self.step().file.id).unwrap_or(0)
    }

    pub(crate) fn language(&self) -> Language {
        self.progress.language
    }

    /// The step's text for this width, laid out once.
    pub(crate) fn page(&mut self, width: usize) -> &Page {
        if (self.page.0, self.page.1) != (width, self.theme) {
            // The title stands on the frame.
            let text = &self.step().text[self.language().tag()];
            let text =
                text.split_once("\n\n").filter(|(title, _)| title.starts_with("# ")).map_or(text.as_str(), |(_, rest)| rest);
            let page = lay_out(text, width, self.theme);
            self.page = (width, self.theme, page);
        }
        &self.page.2
    }

    fn blocks(&self) -> Vec<&CodeBlock> {
        self.page.2.blocks.iter().filter(|block| block.is_for_use()).collect()
    }

    /// The block that `r`, `y` and `w` mean: the one chosen, or else the first one on the screen.
    pub(crate) fn current_block(&self) -> Option<&CodeBlock> {
        let blocks = self.blocks();
        let shown = self.scroll..self.scroll.saturating_add(self.viewport);
        let is_shown = |block: &&&CodeBlock| shown.contains(&block.line);
        self.selected.and_then(|index| blocks.get(index)).filter(is_shown).or_else(|| blocks.iter().find(is_shown)).copied()
    }

    /// Passed and all checks of the step.
    pub(crate) fn tally(&self) -> (usize, usize) {
        let checks = &self.step().checks;
        let passed = |id: &String| self.results.get(id).is_some_and(|result| result.verdict == Verdict::Pass);
        (checks.iter().filter(|check| passed(&check.id)).count(), checks.len())
    }

    /// The command of the smallest edit that would make a check pass, where it is known.
    pub(crate) fn edit_of(&self, id: &str) -> Option<String> {
        match &self.results.get(id)?.verdict {
            Verdict::Fail { edit, .. } => edit.as_ref().map(|edit| format!("{edit}\n")),
            _ => None,
        }
    }

    /// A run of the step's checks begins. What was seen last stays until it is known better.
    pub(crate) fn started(&mut self) {
        self.pending = self.step().checks.iter().map(|check| check.id.clone()).collect();
    }

    /// A check ended. The first time that all pass, the debrief is shown; nothing advances by itself.
    pub(crate) fn ended(&mut self, result: CheckResult) -> Option<Action> {
        self.pending.remove(&result.id);
        self.results.insert(result.id.clone(), result);
        let (passed, all) = self.tally();
        let id = self.step().file.id.clone();
        if passed == all && self.pending.is_empty() && self.progress.passed.insert(id) {
            self.open(Overlay::Debrief);
            return Some(Action::Save);
        }
        None
    }

    /// Something longer begins.
    pub(crate) fn begin(&mut self, what: &str) {
        self.busy = Some(Busy { what: what.trim().lines().next().unwrap_or_default().to_owned(), since: Instant::now() });
    }

    /// A command begins to print.
    pub(crate) fn show_output(&mut self, first: &str) {
        self.output = first.lines().map(str::to_owned).collect();
        self.open(Overlay::Output);
    }

    /// A command prints a line; the overlay follows it.
    pub(crate) fn print(&mut self, line: String) {
        if self.output.len() >= OUTPUT_LINES {
            self.output.pop_front();
        }
        self.output.push_back(line);
        self.overlay_scroll = usize::MAX;
    }

    fn open(&mut self, overlay: Overlay) {
        self.overlay = Some(overlay);
        self.overlay_scroll = 0;
    }

    /// A key was pressed.
    pub(crate) fn key(&mut self, key: KeyEvent) -> Option<Action> {
        self.message.clear();
        if key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c') {
            return Some(if self.busy.is_some() { Action::Interrupt } else { Action::Quit });
        }
        if let Some(action) = self.confirm.take() {
            return matches!(key.code, KeyCode::Char('y')).then_some(action);
        }
        if self.prompt.is_some() {
            self.key_in_prompt(key.code);
            return None;
        }
        match self.overlay {
            Some(_) => self.key_in_overlay(key.code),
            None => self.key_in_step(key.code),
        }
    }

    fn key_in_prompt(&mut self, code: KeyCode) {
        let Some(typed) = &mut self.prompt else { return };
        match code {
            KeyCode::Char(character) => typed.push(character),
            KeyCode::Backspace => {
                typed.pop();
            }
            KeyCode::Enter => {
                let typed = self.prompt.take().unwrap_or_default();
                self.search(typed);
            }
            KeyCode::Esc => self.prompt = None,
            _ => {}
        }
    }

    /// Scrolls to the next line with `typed` in it, or with what was typed before.
    fn search(&mut self, typed: String) {
        if !typed.is_empty() {
            self.needle = typed.to_lowercase();
        }
        let lines = &self.page.2.lines;
        let is_found = |line: &usize| !self.needle.is_empty() && lines[*line].to_string().to_lowercase().contains(&self.needle);
        let found = (self.scroll + 1..lines.len()).chain(0..lines.len().min(self.scroll + 1)).find(is_found);
        match found {
            Some(line) => self.scroll = line,
            None => self.message = format!("{}: {}", word(self.language(), "not found", "見つかりません"), self.needle),
        }
    }

    /// Keys while something lies over the step: some act, some scroll, all others close it.
    fn key_in_overlay(&mut self, code: KeyCode) -> Option<Action> {
        let last_step = self.lab.steps.len().saturating_sub(1);
        match (&mut self.overlay, code) {
            (Some(Overlay::List(index)), KeyCode::Down | KeyCode::Char('j')) => *index = (*index + 1).min(last_step),
            (Some(Overlay::List(index)), KeyCode::Up | KeyCode::Char('k')) => *index = index.saturating_sub(1),
            (_, KeyCode::Down | KeyCode::Char('j')) => self.overlay_scroll = self.overlay_scroll.saturating_add(1),
            (_, KeyCode::Up | KeyCode::Char('k')) => self.overlay_scroll = self.overlay_scroll.saturating_sub(1),
            (_, KeyCode::PageDown | KeyCode::Char(' ')) => self.overlay_scroll = self.overlay_scroll.saturating_add(10),
            (_, KeyCode::PageUp | KeyCode::Char('b')) => self.overlay_scroll = self.overlay_scroll.saturating_sub(10),
            (_, KeyCode::Home | KeyCode::Char('g')) => self.overlay_scroll = 0,
            (_, KeyCode::End | KeyCode::Char('G')) => self.overlay_scroll = usize::MAX,
            (&mut Some(Overlay::Hint(index)), KeyCode::Char('y')) => {
                let hint = self.step().hints[self.language().tag()].get(index)?;
                let block = lay_out(hint, usize::MAX, self.theme).blocks.into_iter().next()?;
                return Some(Action::Copy(block.code));
            }
            (&mut Some(Overlay::Detail(index)), KeyCode::Char('y')) => {
                return self.step().checks.get(index).and_then(|check| self.edit_of(&check.id)).map(Action::Copy);
            }
            (Some(Overlay::Solution), KeyCode::Char('y')) => {
                return Some(Action::Copy(self.step().solution.iter().map(|file| file.content.as_str()).collect()));
            }
            (_, _) => return self.close_overlay(code),
        }
        None
    }

    fn close_overlay(&mut self, code: KeyCode) -> Option<Action> {
        match (self.overlay.take(), code) {
            (Some(Overlay::List(index)), KeyCode::Enter) => self.go_to(index),
            (Some(Overlay::Solution), KeyCode::Char('a')) => self.ask(Action::Solve),
            (Some(Overlay::Hint(_)), KeyCode::Char('h')) => self.next_hint(),
            (Some(Overlay::Debrief), KeyCode::Char('n')) => self.go(1),
            (Some(Overlay::Output), _) if self.busy.is_some() => Some(Action::Interrupt),
            _ => None,
        }
    }

    fn key_in_step(&mut self, code: KeyCode) -> Option<Action> {
        match code {
            KeyCode::Char('q') => return Some(Action::Quit),
            KeyCode::Char('c') => return Some(Action::Check),
            KeyCode::Char('a') => return Some(Action::Apply),
            KeyCode::Char('h') => return self.next_hint(),
            KeyCode::Char('s') => self.open(Overlay::Solution),
            KeyCode::Char('?') => self.open(Overlay::Help),
            KeyCode::Char('l') => self.open(Overlay::List(self.index())),
            KeyCode::Char('n') => return self.go(1),
            KeyCode::Char('p') => return self.go(-1),
            KeyCode::Char('x') => return self.ask(Action::Reset),
            KeyCode::Char('L') => return self.switch_language(),
            KeyCode::Char('t') => self.theme = self.theme.next(),
            KeyCode::Char('/') => self.prompt = Some(String::new()),
            KeyCode::Char('r') => return self.run_block(),
            KeyCode::Char('y') => return self.current_block().map(|block| Action::Copy(block.code.clone())),
            KeyCode::Char('w') => return self.write_block(),
            KeyCode::Tab => self.select_block(1),
            KeyCode::BackTab => self.select_block(-1),
            KeyCode::Char('J') => self.cursor = (self.cursor + 1).min(self.step().checks.len().saturating_sub(1)),
            KeyCode::Char('K') => self.cursor = self.cursor.saturating_sub(1),
            KeyCode::Enter => self.open(Overlay::Detail(self.cursor)),
            KeyCode::Down | KeyCode::Char('j') => self.scroll = self.scroll.saturating_add(1),
            KeyCode::Up | KeyCode::Char('k') => self.scroll = self.scroll.saturating_sub(1),
            KeyCode::PageDown | KeyCode::Char(' ') => self.scroll = self.scroll.saturating_add(self.viewport.max(2) - 1),
            KeyCode::PageUp | KeyCode::Char('b') => self.scroll = self.scroll.saturating_sub(self.viewport.max(2) - 1),
            KeyCode::Home | KeyCode::Char('g') => self.scroll = 0,
            KeyCode::End | KeyCode::Char('G') => self.scroll = usize::MAX,
            _ => {}
        }
        None
    }

    /// What cannot be taken back is asked about first.
    fn ask(&mut self, action: Action) -> Option<Action> {
        self.confirm = Some(action);
        None
    }

    fn next_hint(&mut self) -> Option<Action> {
        let (id, count) = (self.step().file.id.clone(), self.step().hints[self.language().tag()].len());
        let shown = self.progress.hints.entry(id).or_default();
        let hint = (*shown).min(count.saturating_sub(1));
        *shown = hint + 1;
        self.open(Overlay::Hint(hint));
        Some(Action::Save)
    }

    fn go(&mut self, by: isize) -> Option<Action> {
        self.go_to(self.index().checked_add_signed(by)?)
    }

    fn go_to(&mut self, index: usize) -> Option<Action> {
        self.progress.step = self.lab.steps.get(index)?.file.id.clone();
        self.turn_page();
        Some(Action::Turn)
    }

    fn switch_language(&mut self) -> Option<Action> {
        self.progress.language = match self.language() {
            Language::Ja => Language::En,
            Language::En => Language::Ja,
        };
        let (scroll, cursor) = (self.scroll, self.cursor);
        self.turn_page();
        (self.scroll, self.cursor) = (scroll, cursor);
        Some(Action::Save)
    }

    fn turn_page(&mut self) {
        self.page = (0, self.theme, Page::default());
        self.scroll = 0;
        self.selected = None;
        self.cursor = 0;
        self.overlay = None;
    }

    fn select_block(&mut self, by: isize) {
        let blocks = self.blocks();
        let current = self.current_block().and_then(|current| blocks.iter().position(|block| block.line == current.line));
        let next = match (current, self.selected) {
            _ if blocks.is_empty() => return,
            (Some(current), _) => (current + blocks.len()).saturating_add_signed(by) % blocks.len(),
            // None is on the screen: the next one below, or the last one above.
            (None, _) if by > 0 => blocks.iter().position(|block| block.line >= self.scroll).unwrap_or(0),
            (None, _) => blocks.iter().rposition(|block| block.line < self.scroll).unwrap_or(blocks.len() - 1),
        };
        let line = blocks[next].line;
        self.selected = Some(next);
        if !(self.scroll..self.scroll.saturating_add(self.viewport.saturating_sub(2))).contains(&line) {
            self.scroll = line.saturating_sub(3);
        }
    }

    fn run_block(&mut self) -> Option<Action> {
        let block = self.current_block()?;
        if block.language == "sh" {
            return Some(Action::Run(block.code.clone()));
        }
        self.message = word(
            self.language(),
            "this is no command: y copies it, w saves it",
            "コマンドではありません。y でコピー、w で保存できます",
        )
        .to_owned();
        None
    }

    fn write_block(&mut self) -> Option<Action> {
        let block = self.current_block()?.clone();
        let number = self.blocks().iter().position(|other| other.line == block.line)? + 1;
        let name = format!("{}-{number}.{}", self.step().file.id, block.language);
        Some(Action::Write(name, block.code))
    }
}
