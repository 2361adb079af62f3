//! What the screen shows, held as snapshots.

use std::path::PathBuf;

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use meshlab_checks::{CheckResult, Language, Text, Verdict};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use unicode_width::UnicodeWidthStr;

use super::app::{Action, App, Overlay};
use super::theme::Theme;
use super::view::draw;
use crate::labs;
use crate::progress::Progress;

fn app(language: Language) -> App {
    let lab = labs::load("phase3", None).expect("the embedded lab loads");
    let progress = Progress::new(&lab, PathBuf::from("/lab"), language);
    App::new(lab, progress, Theme::Dark)
}

fn screen(app: &mut App, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a screen in memory");
    terminal.draw(|frame| draw(frame, app)).expect("drawing in memory");
    let buffer = terminal.backend().buffer();
    let rows = buffer.content().chunks(usize::from(width)).map(|row| {
        let mut line = String::new();
        let mut hidden = 0;
        for cell in row {
            // The cell after a character that is two columns wide is not shown.
            if hidden == 0 {
                line.push_str(cell.symbol());
                hidden = cell.symbol().width().saturating_sub(1);
            } else {
                hidden -= 1;
            }
        }
        line.trim_end().to_owned() + "\n"
    });
    rows.collect()
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
    assert_eq!(press(&mut app, KeyCode::Char('n')), Some(Action::Turn));
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
fn a_command_of_the_text_is_run_copied_and_saved_with_one_key() {
    let mut app = app(Language::En);
    while app.current_block().is_none() {
        press(&mut app, KeyCode::PageDown);
        screen(&mut app, 80, 24);
    }
    let code = "eval \"$(meshlab env)\"\n".to_owned();
    assert_eq!(press(&mut app, KeyCode::Char('r')), Some(Action::Run(code.clone())));
    assert_eq!(press(&mut app, KeyCode::Char('y')), Some(Action::Copy(code.clone())));
    assert_eq!(press(&mut app, KeyCode::Char('w')), Some(Action::Write("setup-1.sh".to_owned(), code)));
    press(&mut app, KeyCode::Tab);
    screen(&mut app, 80, 24);
    let second = "kubectl get pods -n istio-system\n".to_owned();
    assert_eq!(press(&mut app, KeyCode::Char('r')), Some(Action::Run(second)));
}

#[test]
fn a_search_finds_the_next_place() {
    let mut app = app(Language::En);
    screen(&mut app, 80, 24);
    let type_in = |app: &mut App, text: &str| {
        press(app, KeyCode::Char('/'));
        text.chars().for_each(|character| {
            press(app, KeyCode::Char(character));
        });
        press(app, KeyCode::Enter);
    };
    type_in(&mut app, "PITFALLS");
    assert!(screen(&mut app, 80, 24).contains("among the pitfalls below"));
    type_in(&mut app, "");
    assert!(screen(&mut app, 80, 24).contains("│Pitfalls"));
    type_in(&mut app, "no such word");
    assert_eq!(app.message, "not found: no such word");
}

#[test]
fn what_a_command_prints_is_followed_and_ended_by_closing_it() {
    let mut app = app(Language::En);
    app.show_output("$ kubectl get pods");
    app.begin("kubectl get pods");
    (0..100).for_each(|line| app.print(format!("line {line}")));
    let shown = screen(&mut app, 80, 24);
    assert!(shown.contains("line 99") && shown.contains("0 s (Ctrl-C ends it)"), "{shown}");
    assert_eq!(press(&mut app, KeyCode::Esc), Some(Action::Interrupt));
}

#[test]
fn what_was_seen_last_stays_on_the_screen_while_it_is_looked_at_again() {
    let mut app = app(Language::En);
    let seen = result(&app, 0, Verdict::Pass);
    app.ended(seen);
    app.started();
    let shown = screen(&mut app, 80, 24);
    assert!(shown.contains("✓ The control plane") && shown.contains("0/13 checking"), "{shown}");
}

#[test]
fn a_failure_in_full() {
    let mut app = app(Language::En);
    let verdict = Verdict::fail(vec![Text::same("metadata.labels.istio-injection: expected \"enabled\", but it is not there")]);
    let failed = result(&app, 4, verdict);
    app.ended(failed);
    (0..4).for_each(|_| {
        press(&mut app, KeyCode::Char('J'));
    });
    press(&mut app, KeyCode::Enter);
    insta::assert_snapshot!(screen(&mut app, 80, 24));
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

#[test]
fn code_fits_the_narrowest_screen() {
    let lab = labs::load("phase3", None).expect("the embedded lab loads");
    for step in &lab.steps {
        for text in step.text.values() {
            for block in super::markdown::lay_out(text, 78, Theme::Mono).blocks {
                // What is printed may be long: its beginning tells enough.
                if block.language != "output" {
                    block.code.lines().for_each(|line| assert!(line.width() <= 76, "{}: {line}", step.file.id));
                }
            }
        }
    }
}
