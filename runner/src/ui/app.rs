//! What the terminal UI knows, and how keys change it. No terminal here: it is all testable.

use std::collections::BTreeMap;

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use meshlab_checks::{CheckResult, Lab, Language, Step, Verdict};

use super::markdown::{CodeBlock, Page, lay_out};
use crate::progress::Progress;

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
    /// What a command printed.
    Output(String),
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
    /// Run a command of the text in a shell.
    Run(String),
    /// Put text on the clipboard.
    Copy(String),
    /// Apply the learner's files of the step.
    Apply,
    /// Write the solution and apply it.
    Solve,
    /// Bring the step back to its start.
    Reset,
}

/// The state of one check on the screen.
#[derive(Debug, Clone)]
pub(crate) enum State {
    /// Being looked at.
    Running,
    /// How it ended last.
    Done(Box<CheckResult>),
}

/// Everything on the screen.
pub(crate) struct App {
    pub(crate) lab: Lab,
    pub(crate) progress: Progress,
    pub(crate) overlay: Option<Overlay>,
    pub(crate) states: BTreeMap<String, State>,
    pub(crate) scroll: usize,
    pub(crate) overlay_scroll: usize,
    pub(crate) block: Option<usize>,
    pub(crate) cursor: usize,
    pub(crate) colour: bool,
    pub(crate) confirm: Option<Action>,
    pub(crate) message: String,
    page: (usize, Page),
}

impl App {
    pub(crate) fn new(lab: Lab, progress: Progress, colour: bool) -> Self {
        Self {
            lab,
            progress,
            overlay: None,
            states: BTreeMap::new(),
            scroll: 0,
            overlay_scroll: 0,
            block: None,
            cursor: 0,
            colour,
            confirm: None,
            message: String::new(),
            page: (0, Page::default()),
        }
    }

    pub(crate) fn step(&self) -> &Step {
        self.progress.current(&self.lab)
    }

    pub(crate) fn language(&self) -> Language {
        self.progress.language
    }

    /// The step's text for this width, laid out once.
    pub(crate) fn page(&mut self, width: usize) -> &Page {
        if self.page.0 != width {
            self.page = (width, lay_out(&self.step().text[self.language().tag()], width));
        }
        &self.page.1
    }

    fn blocks(&self) -> Vec<&CodeBlock> {
        self.page.1.blocks.iter().filter(|block| block.language != "text").collect()
    }

    /// The code block under the cursor.
    pub(crate) fn selected_block(&self) -> Option<&CodeBlock> {
        self.blocks().get(self.block?).copied()
    }

    /// Passed and all checks of the step.
    pub(crate) fn tally(&self) -> (usize, usize) {
        let checks = &self.step().checks;
        let passed = |id: &String| matches!(self.states.get(id), Some(State::Done(result)) if result.verdict == Verdict::Pass);
        (checks.iter().filter(|check| passed(&check.id)).count(), checks.len())
    }

    /// A check begins.
    pub(crate) fn started(&mut self) {
        let ids: Vec<String> = self.step().checks.iter().map(|check| check.id.clone()).collect();
        self.states.extend(ids.into_iter().map(|id| (id, State::Running)));
    }

    /// A check ended. The first time that all pass, the debrief is shown; nothing advances by itself.
    pub(crate) fn ended(&mut self, result: CheckResult) -> Option<Action> {
        self.states.insert(result.id.clone(), State::Done(Box::new(result)));
        let (passed, all) = self.tally();
        let id = self.step().file.id.clone();
        if passed == all && self.progress.passed.insert(id) {
            self.open(Overlay::Debrief);
            return Some(Action::Save);
        }
        None
    }

    fn open(&mut self, overlay: Overlay) {
        self.overlay = Some(overlay);
        self.overlay_scroll = 0;
    }

    /// A key was pressed.
    pub(crate) fn key(&mut self, key: KeyEvent) -> Option<Action> {
        self.message.clear();
        if key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c') {
            return Some(Action::Quit);
        }
        if let Some(action) = self.confirm.take() {
            return matches!(key.code, KeyCode::Char('y')).then_some(action);
        }
        if self.overlay.is_some() && !self.key_in_overlay(key.code) {
            return match (self.overlay.take(), key.code) {
                (Some(Overlay::List(index)), KeyCode::Enter) => self.go_to(index),
                (Some(Overlay::Solution), KeyCode::Char('a')) => self.ask(Action::Solve),
                (Some(Overlay::Hint(_)), KeyCode::Char('h')) => self.next_hint(),
                _ => None,
            };
        }
        if self.overlay.is_some() { None } else { self.key_in_step(key.code) }
    }

    /// Keys that move within the overlay; false for those that leave it.
    fn key_in_overlay(&mut self, code: KeyCode) -> bool {
        let last_step = self.lab.steps.len().saturating_sub(1);
        match (&mut self.overlay, code) {
            (Some(Overlay::List(index)), KeyCode::Down | KeyCode::Char('j')) => *index = (*index + 1).min(last_step),
            (Some(Overlay::List(index)), KeyCode::Up | KeyCode::Char('k')) => *index = index.saturating_sub(1),
            (_, KeyCode::Down | KeyCode::Char('j')) => self.overlay_scroll += 1,
            (_, KeyCode::Up | KeyCode::Char('k')) => self.overlay_scroll = self.overlay_scroll.saturating_sub(1),
            (_, KeyCode::PageDown | KeyCode::Char(' ')) => self.overlay_scroll += 10,
            (_, KeyCode::PageUp) => self.overlay_scroll = self.overlay_scroll.saturating_sub(10),
            _ => return false,
        }
        true
    }

    fn key_in_step(&mut self, code: KeyCode) -> Option<Action> {
        match code {
            KeyCode::Char('q') => return Some(Action::Quit),
            KeyCode::Char('c') => return Some(Action::Check),
            KeyCode::Char('a') => return Some(Action::Apply),
            KeyCode::Char('h') => return self.next_hint(),
            KeyCode::Char('s') => self.open(Overlay::Solution),
            KeyCode::Char('?') => self.open(Overlay::Help),
            KeyCode::Char('l') => {
                let here = self.lab.steps.iter().position(|step| step.file.id == self.step().file.id).unwrap_or(0);
                self.open(Overlay::List(here));
            }
            KeyCode::Char('n') => return self.go(1),
            KeyCode::Char('p') => return self.go(-1),
            KeyCode::Char('x') => return self.ask(Action::Reset),
            KeyCode::Char('L') => return self.switch_language(),
            KeyCode::Char('t') => self.colour = !self.colour,
            KeyCode::Tab => self.select_block(1),
            KeyCode::BackTab => self.select_block(-1),
            KeyCode::Char('r') => {
                return self.with_block(|block| (block.language == "sh").then(|| Action::Run(block.code.clone())));
            }
            KeyCode::Char('y') => return self.with_block(|block| Some(Action::Copy(block.code.clone()))),
            KeyCode::Char('J') => self.cursor = (self.cursor + 1).min(self.step().checks.len().saturating_sub(1)),
            KeyCode::Char('K') => self.cursor = self.cursor.saturating_sub(1),
            KeyCode::Enter => self.open(Overlay::Detail(self.cursor)),
            KeyCode::Down | KeyCode::Char('j') => self.scroll += 1,
            KeyCode::Up | KeyCode::Char('k') => self.scroll = self.scroll.saturating_sub(1),
            KeyCode::PageDown | KeyCode::Char(' ') => self.scroll += 15,
            KeyCode::PageUp | KeyCode::Char('b') => self.scroll = self.scroll.saturating_sub(15),
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
        let here = self.lab.steps.iter().position(|step| step.file.id == self.step().file.id)?;
        self.go_to(here.checked_add_signed(by)?)
    }

    fn go_to(&mut self, index: usize) -> Option<Action> {
        self.progress.step = self.lab.steps.get(index)?.file.id.clone();
        self.turn_page();
        Some(Action::Save)
    }

    fn switch_language(&mut self) -> Option<Action> {
        self.progress.language = match self.language() {
            Language::Ja => Language::En,
            Language::En => Language::Ja,
        };
        let scroll = self.scroll;
        self.turn_page();
        self.scroll = scroll;
        Some(Action::Save)
    }

    fn turn_page(&mut self) {
        self.page = (0, Page::default());
        self.scroll = 0;
        self.block = None;
        self.cursor = 0;
        self.overlay = None;
    }

    fn select_block(&mut self, by: isize) {
        let count = self.blocks().len();
        if count > 0 {
            let here = self.block.map_or(if by > 0 { count - 1 } else { 0 }, |block| block);
            let next = (here + count).saturating_add_signed(by) % count;
            self.block = Some(next);
            self.scroll = self.blocks()[next].line.saturating_sub(3);
        }
    }

    fn with_block(&mut self, action: impl Fn(&CodeBlock) -> Option<Action>) -> Option<Action> {
        if self.block.is_none() {
            self.select_block(1);
            return None;
        }
        self.selected_block().and_then(action)
    }
}
