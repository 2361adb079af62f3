//! What the screen shows, held as snapshots.

use std::path::PathBuf;

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use meshlab_checks::{CheckResult, Language, Verdict};
use ratatui::Terminal;
use ratatui::backend::TestBackend;

use super::app::{Action, App, Overlay};
use super::view::draw;
use crate::labs;
use crate::progress::Progress;

fn app(language: Language) -> App {
    let lab = labs::load("phase3", None).expect("the embedded lab loads");
    let progress = Progress::new(&lab, PathBuf::from("/lab"), language);
    App::new(lab, progress, true)
}

fn screen(app: &mut App, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a screen in memory");
    terminal.draw(|frame| draw(frame, app)).expect("drawing in memory");
    terminal.backend().to_string()
}

fn press(app: &mut App, code: KeyCode) -> Option<Action> {
    app.key(KeyEvent::new(code, KeyModifiers::NONE))
}

fn result(app: &App, index: usize, verdict: Verdict) -> CheckResult {
    let check = &app.step().checks[index];
    CheckResult {
        id: check.id.clone(),
        step: app.step().file.id.clone(),
        title: check.title.clone(),
        why: check.why.clone(),
        fix: check.fix.clone(),
        weight: 1,
        verdict,
        duration: std::time::Duration::ZERO,
    }
}

#[test]
fn the_first_step_at_80_by_24() {
    let mut app = app(Language::En);
    app.started();
    let passed = result(&app, 0, Verdict::Pass);
    app.ended(passed);
    insta::assert_snapshot!(screen(&mut app, 80, 24));
}

#[test]
fn the_first_step_in_japanese_on_a_wide_screen() {
    let mut app = app(Language::Ja);
    insta::assert_snapshot!(screen(&mut app, 120, 30));
}

#[test]
fn nothing_advances_by_itself_and_passing_shows_the_debrief() {
    let mut app = app(Language::En);
    let count = app.step().checks.len();
    for index in 0..count {
        let result = result(&app, index, Verdict::Pass);
        let action = app.ended(result);
        assert_eq!(action, (index + 1 == count).then_some(Action::Save), "only the last pass is kept");
    }
    assert_eq!(app.overlay, Some(Overlay::Debrief));
    assert_eq!(app.step().file.id, "setup");
    press(&mut app, KeyCode::Esc);
    assert_eq!(press(&mut app, KeyCode::Char('n')), Some(Action::Save));
    assert_eq!(app.step().file.id, "routing");
}

#[test]
fn what_cannot_be_taken_back_is_asked_about() {
    let mut app = app(Language::En);
    assert_eq!(press(&mut app, KeyCode::Char('x')), None);
    assert_eq!(press(&mut app, KeyCode::Char('n')), None, "any other key is a no");
    press(&mut app, KeyCode::Char('x'));
    assert_eq!(press(&mut app, KeyCode::Char('y')), Some(Action::Reset));
}

#[test]
fn a_command_of_the_text_is_chosen_and_run_with_two_keys() {
    let mut app = app(Language::En);
    screen(&mut app, 80, 24);
    press(&mut app, KeyCode::Tab);
    let Some(Action::Run(command)) = press(&mut app, KeyCode::Char('r')) else { panic!("no command") };
    assert!(command.starts_with("eval"), "{command}");
}

#[test]
fn hints_come_one_by_one() {
    let mut app = app(Language::En);
    for hint in [0, 1, 2] {
        assert_eq!(press(&mut app, KeyCode::Char('h')), Some(Action::Save));
        assert_eq!(app.overlay, Some(Overlay::Hint(hint)));
    }
}

#[test]
fn every_text_fits_every_width() {
    for language in Language::ALL {
        let mut app = app(language);
        for width in [40, 80, 200] {
            screen(&mut app, width, 24);
            press(&mut app, KeyCode::Char('G'));
            screen(&mut app, width, 24);
        }
    }
}
