//! Drawing: the step on the left, its checks on the right, keys below; overlays on top.

use meshlab_checks::report::{Style as ReportStyle, result_text};
use meshlab_checks::{Language, Verdict};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span, Text};
use ratatui::widgets::{Block, Clear, Paragraph, Wrap};

use super::app::{Action, App, Overlay, State};
use super::markdown::lay_out;

/// Narrower than this, the checks go below the text instead of beside it.
const SIDE_BY_SIDE: u16 = 100;

pub(crate) fn draw(frame: &mut Frame<'_>, app: &mut App) {
    let [body, status] = Layout::vertical([Constraint::Min(3), Constraint::Length(1)]).areas(frame.area());
    let [text, checks] = if body.width >= SIDE_BY_SIDE {
        Layout::horizontal([Constraint::Percentage(62), Constraint::Percentage(38)]).areas(body)
    } else {
        let lines = u16::try_from(app.step().checks.len()).unwrap_or(u16::MAX).saturating_add(2).min(body.height * 2 / 5);
        Layout::vertical([Constraint::Min(5), Constraint::Length(lines)]).areas(body)
    };
    draw_text(frame, app, text);
    draw_checks(frame, app, checks);
    draw_status(frame, app, status);
    if let Some(overlay) = app.overlay.clone() {
        draw_overlay(frame, app, &overlay, body);
    }
    if !app.colour {
        let area = frame.area();
        let buffer = frame.buffer_mut();
        for position in area.positions() {
            let cell = &mut buffer[position];
            (cell.fg, cell.bg) = (Color::Reset, Color::Reset);
        }
    }
}

fn draw_text(frame: &mut Frame<'_>, app: &mut App, area: Rect) {
    let block = Block::bordered().title(format!(" {} ", app.step().file.title.get(app.language())));
    let inner = block.inner(area);
    let selected = {
        app.page(usize::from(inner.width));
        app.selected_block().map(|block| (block.line, block.code.lines().count()))
    };
    let page = app.page(usize::from(inner.width));
    let bottom = page.lines.len().saturating_sub(usize::from(inner.height));
    let mut lines = page.lines.clone();
    if let Some((first, count)) = selected {
        for line in lines.iter_mut().skip(first).take(count) {
            *line = std::mem::take(line).style(Style::new().add_modifier(Modifier::REVERSED));
        }
    }
    app.scroll = app.scroll.min(bottom);
    let visible: Vec<Line<'_>> = lines.into_iter().skip(app.scroll).take(usize::from(inner.height)).collect();
    frame.render_widget(Paragraph::new(visible).block(block), area);
}

fn draw_checks(frame: &mut Frame<'_>, app: &App, area: Rect) {
    let (passed, all) = app.tally();
    let block = Block::bordered().title(format!(" {passed}/{all} "));
    let height = usize::from(block.inner(area).height);
    let lines: Vec<Line<'_>> = app
        .step()
        .checks
        .iter()
        .enumerate()
        .map(|(index, check)| {
            let (mark, colour) = match app.states.get(&check.id) {
                None => ("·", Color::DarkGray),
                Some(State::Running) => ("…", Color::Blue),
                Some(State::Done(result)) => match result.verdict {
                    Verdict::Pass => ("✓", Color::Green),
                    Verdict::Fail { .. } => ("✗", Color::Red),
                    Verdict::Skipped { .. } => ("-", Color::DarkGray),
                    Verdict::Error { .. } => ("!", Color::Yellow),
                },
            };
            let title = Style::new().add_modifier(if index == app.cursor { Modifier::UNDERLINED } else { Modifier::empty() });
            Line::from(vec![
                Span::styled(format!("{mark} "), Style::new().fg(colour)),
                Span::styled(check.title.get(app.language()).to_owned(), title),
            ])
        })
        .collect();
    let first = (app.cursor + 1).saturating_sub(height);
    frame.render_widget(Paragraph::new(lines.into_iter().skip(first).collect::<Vec<_>>()).block(block), area);
}

fn draw_status(frame: &mut Frame<'_>, app: &App, area: Rect) {
    let text = match (&app.confirm, app.message.is_empty()) {
        (Some(action), _) => question(action, app.language()),
        (None, false) => app.message.clone(),
        (None, true) => match app.language() {
            Language::En => {
                "c check  a apply  h hint  s solution  l list  n/p next/prev  Tab code  r run  y copy  L 日本語  ? help  q quit"
                    .to_owned()
            }
            Language::Ja => {
                "c 検証  a 適用  h ヒント  s 解答  l 一覧  n/p 次/前  Tab コード  r 実行  y コピー  L English  ? ヘルプ  q 終了"
                    .to_owned()
            }
        },
    };
    frame.render_widget(Paragraph::new(text).style(Style::new().fg(Color::Gray)), area);
}

fn question(action: &Action, language: Language) -> String {
    match (action, language) {
        (Action::Solve, Language::En) => "Write the solution and apply it? Your files are kept as *.bak. y/n".to_owned(),
        (Action::Solve, Language::Ja) => "解答を書き込んで適用しますか? 自分のファイルは *.bak として残ります。 y/n".to_owned(),
        (_, Language::En) => "Bring this step back to its start? Your files are kept as *.bak. y/n".to_owned(),
        (_, Language::Ja) => "このステップを最初の状態に戻しますか? ファイルは *.bak として残ります。 y/n".to_owned(),
    }
}

fn draw_overlay(frame: &mut Frame<'_>, app: &mut App, overlay: &Overlay, area: Rect) {
    let [_, middle, _] =
        Layout::vertical([Constraint::Percentage(6), Constraint::Percentage(88), Constraint::Percentage(6)]).areas(area);
    let [_, area, _] =
        Layout::horizontal([Constraint::Percentage(6), Constraint::Percentage(88), Constraint::Percentage(6)]).areas(middle);
    let (title, text) = overlay_text(app, overlay, usize::from(area.width.saturating_sub(2)));
    let bottom = text.lines.len().saturating_sub(usize::from(area.height.saturating_sub(2)));
    app.overlay_scroll = app.overlay_scroll.min(bottom);
    let scroll = u16::try_from(app.overlay_scroll).unwrap_or(u16::MAX);
    frame.render_widget(Clear, area);
    let paragraph =
        Paragraph::new(text).block(Block::bordered().title(format!(" {title} "))).wrap(Wrap { trim: false }).scroll((scroll, 0));
    frame.render_widget(paragraph, area);
}

fn overlay_text(app: &App, overlay: &Overlay, width: usize) -> (String, Text<'static>) {
    let language = app.language();
    let step = app.step();
    let markdown = |text: &str| Text::from(lay_out(text, width).lines);
    match overlay {
        Overlay::Hint(index) => {
            let hints = &step.hints[language.tag()];
            let hint = hints.get(*index).map_or("", String::as_str);
            (format!("{} {}/{}", word(language, "hint", "ヒント"), index + 1, hints.len()), markdown(hint))
        }
        Overlay::Solution => {
            let files: String = step.solution.iter().map(|file| format!("# {}\n{}\n", file.name, file.content)).collect();
            (word(language, "solution (a: apply)", "解答 (a: 適用)").to_owned(), Text::from(files))
        }
        Overlay::Debrief => (word(language, "passed", "合格").to_owned(), markdown(&step.debrief[language.tag()])),
        Overlay::Detail(index) => {
            let check = step.checks.get(*index);
            let text = check.map_or_else(String::new, |check| match app.states.get(&check.id) {
                Some(State::Done(result)) => result_text(result, language, ReportStyle::Plain),
                _ => format!("{}\n\n{}", check.title.get(language), check.why.get(language)),
            });
            (check.map_or_else(String::new, |check| check.id.clone()), Text::from(text))
        }
        Overlay::List(cursor) => {
            let lines: Vec<Line<'static>> = app
                .lab
                .steps
                .iter()
                .enumerate()
                .map(|(index, step)| {
                    let passed = if app.progress.passed.contains(&step.file.id) { "✓" } else { " " };
                    let pointer = if index == *cursor { "▶" } else { " " };
                    Line::from(format!("{pointer} {passed} {}", step.file.title.get(language)))
                })
                .collect();
            (word(language, "steps (Enter: go)", "ステップ一覧 (Enter: 移動)").to_owned(), Text::from(lines))
        }
        Overlay::Help => (word(language, "keys", "キー").to_owned(), Text::from(help(language))),
        Overlay::Output(output) => (word(language, "output", "出力").to_owned(), Text::from(output.clone())),
    }
}

fn word(language: Language, en: &'static str, ja: &'static str) -> &'static str {
    match language {
        Language::En => en,
        Language::Ja => ja,
    }
}

fn help(language: Language) -> &'static str {
    word(
        language,
        "j k ↑ ↓ Space b g G   scroll the text\nJ K                   choose a check\nEnter                 the check in full\nTab Shift-Tab         choose a code block\nr                     run it in a shell\ny                     copy it\n\nc                     check this step (a saved file does, too)\na                     apply your files of this step\nh                     next hint\ns                     solution\nx                     back to the start of this step\n\nl n p                 list, next, previous step\nL                     日本語\nt                     colours on and off\nq                     leave; the lab goes on",
        "j k ↑ ↓ Space b g G   本文のスクロール\nJ K                   チェックを選ぶ\nEnter                 チェックの詳細\nTab Shift-Tab         コードを選ぶ\nr                     シェルで実行\ny                     コピー\n\nc                     このステップを検証（ファイルの保存でも実行）\na                     このステップのファイルを適用\nh                     次のヒント\ns                     解答\nx                     このステップを最初の状態に戻す\n\nl n p                 一覧、次、前のステップ\nL                     English\nt                     色の切り替え\nq                     終了（ラボは動き続けます）",
    )
}
