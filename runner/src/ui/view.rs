//! Drawing: where the learner is on top, the step's text and its checks, keys below; and what lies over them.

use std::time::Duration;

use meshlab_checks::report::result_markdown;
use meshlab_checks::{Check, Verdict};
use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span, Text};
use ratatui::widgets::{Block, BorderType, Clear, Paragraph, Wrap};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::app::{App, Overlay};
use super::markdown::{GUTTER, lay_out};
use super::theme::{Role, Theme};
use super::words::{help, keys, question, word};

/// From this width on, the checks stand beside the text instead of below it.
const SIDE_BY_SIDE: u16 = 116;

/// The text's share of a wide screen: code of 76 columns fits, and no line is too long to be read.
const TEXT_WIDTH: (u16, u16) = (80, 112);

/// Stands before the block of code that `r` runs.
const CURRENT: &str = "▶ ";

/// Cells of a progress bar.
const BAR: usize = 12;

/// A bar whose end is not known moves one cell in this time.
const MOVE: u128 = 120;

pub(crate) fn draw(frame: &mut Frame<'_>, app: &mut App) {
    let [header, body, footer] =
        Layout::vertical([Constraint::Length(1), Constraint::Min(3), Constraint::Length(1)]).areas(frame.area());
    draw_header(frame, app, header);
    if body.width >= SIDE_BY_SIDE {
        let text_width = (body.width * 3 / 5).clamp(TEXT_WIDTH.0, TEXT_WIDTH.1);
        let [text, side] = Layout::horizontal([Constraint::Length(text_width), Constraint::Min(30)]).areas(body);
        let list = u16::try_from(app.step().checks.len() + 2).unwrap_or(u16::MAX);
        let [checks, detail] = Layout::vertical([Constraint::Length(list.min(side.height)), Constraint::Min(0)]).areas(side);
        draw_text(frame, app, text);
        draw_checks(frame, app, checks);
        draw_chosen(frame, app, detail);
    } else {
        let lines = u16::try_from(app.step().checks.len() + 2).unwrap_or(u16::MAX).min(body.height * 2 / 5);
        let [text, checks] = Layout::vertical([Constraint::Min(5), Constraint::Length(lines)]).areas(body);
        draw_text(frame, app, text);
        draw_checks(frame, app, checks);
    }
    draw_footer(frame, app, footer);
    if let Some(overlay) = app.overlay.clone() {
        draw_overlay(frame, app, &overlay, body);
    }
}

fn framed(theme: Theme) -> Block<'static> {
    Block::bordered().border_type(BorderType::Rounded).border_style(theme.style(Role::Faint))
}

/// All steps in a row: passed, current, to come.
fn draw_header(frame: &mut Frame<'_>, app: &App, area: Rect) {
    let mut spans = vec![Span::styled(" meshlab ", app.theme.style(Role::Title))];
    for (index, step) in app.lab.steps.iter().enumerate() {
        let passed = app.progress.passed.contains(&step.file.id);
        let mark = if passed { "✓" } else { " " };
        let style = match (index == app.index(), passed) {
            (true, _) => Style::new().add_modifier(Modifier::REVERSED | Modifier::BOLD),
            (false, true) => app.theme.style(Role::Pass),
            (false, false) => app.theme.style(Role::Faint),
        };
        spans.push(Span::raw(" "));
        spans.push(Span::styled(format!("{mark}{} {} ", index + 1, step.file.id), style));
    }
    frame.render_widget(Line::from(spans), area);
}

fn draw_text(frame: &mut Frame<'_>, app: &mut App, area: Rect) {
    let theme = app.theme;
    let block = framed(theme);
    let inner = block.inner(area);
    let (width, height) = (usize::from(inner.width), usize::from(inner.height));
    app.viewport = height;
    let bottom = app.page(width).lines.len().saturating_sub(height);
    app.scroll = app.scroll.min(bottom);
    let current = app.current_block().map(|block| block.line..block.line + block.code.lines().count());
    let (scroll, needle) = (app.scroll, app.needle.clone());
    let lines = app.page(width).lines.iter().enumerate().skip(scroll).take(height).map(|(number, line)| {
        let mut line = line.clone();
        if current.as_ref().is_some_and(|current| current.contains(&number))
            && let Some(gutter) = line.spans.first_mut()
        {
            let first = current.as_ref().is_some_and(|current| current.start == number);
            *gutter = Span::styled(if first { CURRENT } else { GUTTER }, theme.style(Role::Accent));
        }
        if !needle.is_empty() && line.to_string().to_lowercase().contains(&needle) {
            line = line.style(Style::new().add_modifier(Modifier::UNDERLINED));
        }
        line
    });
    let lines: Vec<Line<'_>> = lines.collect();
    let place = (scroll * 100).checked_div(bottom).map_or_else(String::new, |percent| format!(" {percent} % "));
    let title = Span::styled(format!(" {} ", app.step().file.title.get(app.language())), theme.style(Role::Title));
    let place = Line::from(Span::styled(place, theme.style(Role::Faint))).alignment(Alignment::Right);
    frame.render_widget(Paragraph::new(lines).block(block.title(title).title(place)), area);
}

fn draw_checks(frame: &mut Frame<'_>, app: &App, area: Rect) {
    let block = framed(app.theme).title(checks_title(app));
    let inner = block.inner(area);
    let (width, height) = (usize::from(inner.width), usize::from(inner.height));
    let first = (app.cursor + 1).saturating_sub(height);
    let checks = app.step().checks.iter().enumerate().skip(first).take(height);
    let lines: Vec<Line<'_>> = checks.map(|(index, check)| check_line(app, index, check, width)).collect();
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

/// ` 6/13 passed ▕█████▏ `, and how far a run is while it goes on.
fn checks_title(app: &App) -> Line<'static> {
    let (passed, all) = app.tally();
    let (count, what, role) = match app.pending.len() {
        0 => (passed, word(app.language(), "passed", "合格"), if passed == all { Role::Pass } else { Role::Accent }),
        pending => (all - pending.min(all), word(app.language(), "checking", "検証中"), Role::Running),
    };
    let full = (count * BAR).checked_div(all).unwrap_or_default();
    Line::from(vec![
        Span::raw(format!(" {count}/{all} {what} ")),
        Span::styled("█".repeat(full), app.theme.style(role)),
        Span::styled("░".repeat(BAR - full), app.theme.style(Role::Faint)),
        Span::raw(" "),
    ])
}

fn check_line<'a>(app: &App, index: usize, check: &'a Check, width: usize) -> Line<'a> {
    let (mark, role) = match app.results.get(&check.id).map(|result| &result.verdict) {
        None if app.pending.contains(&check.id) => ("…", Role::Running),
        None => ("·", Role::Faint),
        Some(Verdict::Pass) => ("✓", Role::Pass),
        Some(Verdict::Fail { .. }) => ("✗", Role::Fail),
        Some(Verdict::Skipped { .. }) => ("-", Role::Faint),
        Some(Verdict::Error { .. }) => ("!", Role::Warn),
    };
    let pointer = if index == app.cursor { Span::styled("› ", app.theme.style(Role::Accent)) } else { Span::raw("  ") };
    let title = match app.results.get(&check.id).map(|result| &result.verdict) {
        Some(Verdict::Skipped { .. }) => app.theme.style(Role::Faint),
        _ => Style::new(),
    };
    let text = shorten(check.title.get(app.language()), width.saturating_sub(4));
    Line::from(vec![pointer, Span::styled(format!("{mark} "), app.theme.style(role)), Span::styled(text, title)])
}

/// The check under the cursor in full, where there is room for it.
fn draw_chosen(frame: &mut Frame<'_>, app: &App, area: Rect) {
    if area.height < 5 {
        return;
    }
    let id = app.step().checks.get(app.cursor).map_or("", |check| check.id.as_str());
    let block = framed(app.theme).title(Span::styled(format!(" {id} "), app.theme.style(Role::Faint)));
    let text = detail(app, app.cursor, usize::from(block.inner(area).width));
    frame.render_widget(Paragraph::new(text).block(block), area);
}

fn detail(app: &App, index: usize, width: usize) -> Text<'static> {
    let Some(check) = app.step().checks.get(index) else { return Text::default() };
    let text = match app.results.get(&check.id) {
        Some(result) => result_markdown(result, app.language()),
        None => format!("{}\n\n{}", check.title.get(app.language()), check.why.get(app.language())),
    };
    Text::from(lay_out(&text, width, app.theme).lines)
}

fn draw_footer(frame: &mut Frame<'_>, app: &App, area: Rect) {
    let theme = app.theme;
    let line = if let Some(action) = &app.confirm {
        Line::styled(format!(" {}", question(action, app.language())), theme.style(Role::Warn))
    } else if let Some(typed) = &app.prompt {
        Line::from(vec![Span::styled(" /", theme.style(Role::Accent)), Span::raw(format!("{typed}█"))])
    } else if let Some(busy) = &app.busy {
        let elapsed = busy.since.elapsed();
        let bar = Span::styled(moving_bar(elapsed), theme.style(Role::Running));
        let end = word(app.language(), "(Ctrl-C ends it)", "(Ctrl-C で中止)");
        let what = shorten(&busy.what, usize::from(area.width).saturating_sub(BAR + end.width() + 10));
        Line::from(vec![Span::raw(" "), bar, Span::raw(format!(" {what}  {} s {end}", elapsed.as_secs()))])
    } else if !app.message.is_empty() {
        Line::raw(format!(" {}", app.message))
    } else {
        key_line(app, usize::from(area.width))
    };
    frame.render_widget(line, area);
}

/// As many keys as fit.
fn key_line(app: &App, width: usize) -> Line<'static> {
    let mut spans = Vec::new();
    let mut used = 0;
    for (key, what) in keys(app.language()) {
        used += key.width() + what.width() + 3;
        if used > width {
            break;
        }
        spans.push(Span::styled(format!(" {key}"), app.theme.style(Role::Accent)));
        spans.push(Span::styled(format!(" {what} "), app.theme.style(Role::Faint)));
    }
    Line::from(spans)
}

/// A bar for what nobody knows the end of: a piece that goes to and fro.
fn moving_bar(elapsed: Duration) -> String {
    let piece = 3;
    let way = BAR - piece;
    let moved = usize::try_from(elapsed.as_millis() / MOVE).unwrap_or_default() % (2 * way);
    let at = if moved < way { moved } else { 2 * way - moved };
    format!("{}{}{}", "░".repeat(at), "█".repeat(piece), "░".repeat(way - at))
}

fn draw_overlay(frame: &mut Frame<'_>, app: &mut App, overlay: &Overlay, body: Rect) {
    let margin = |length: u16| if length > 60 { length / 16 } else { 0 };
    let area = body.inner(ratatui::layout::Margin { horizontal: margin(body.width), vertical: u16::from(body.height > 16) });
    let block = framed(app.theme).border_style(app.theme.style(Role::Accent));
    let inner = block.inner(area);
    let (title, text) = overlay_text(app, overlay, usize::from(inner.width.saturating_sub(2)));
    let width = usize::from(inner.width.saturating_sub(2)).max(1);
    let height: usize = text.lines.iter().map(|line| line.width().div_ceil(width).max(1)).sum();
    let bottom = height.saturating_sub(usize::from(inner.height));
    let paragraph = Paragraph::new(text).wrap(Wrap { trim: false });
    app.overlay_scroll = app.overlay_scroll.min(bottom);
    let scroll = u16::try_from(app.overlay_scroll).unwrap_or(u16::MAX);
    let block = block
        .title(Span::styled(format!(" {title} "), app.theme.style(Role::Title)))
        .title_bottom(Span::styled(
            if bottom > 0 {
                word(app.language(), " j k: scroll   Esc: close ", " j k: スクロール   Esc: 閉じる ")
            } else {
                word(app.language(), " Esc: close ", " Esc: 閉じる ")
            },
            app.theme.style(Role::Faint),
        ))
        .padding(ratatui::widgets::Padding::horizontal(1));
    frame.render_widget(Clear, area);
    frame.render_widget(paragraph.block(block).scroll((scroll, 0)), area);
}

fn overlay_text(app: &App, overlay: &Overlay, width: usize) -> (String, Text<'static>) {
    let language = app.language();
    let step = app.step();
    let markdown = |text: &str| Text::from(lay_out(text, width, app.theme).lines);
    match overlay {
        Overlay::Hint(index) => {
            let hints = &step.hints[language.tag()];
            let hint = hints.get(*index).map_or("", String::as_str);
            let more = if index + 1 < hints.len() { word(language, "   h: the next one", "   h: 次のヒント") } else { "" };
            (format!("{} {}/{}{more}", word(language, "hint", "ヒント"), index + 1, hints.len()), markdown(hint))
        }
        Overlay::Solution => {
            let files: String =
                step.solution.iter().map(|file| format!("## {}\n\n```yaml\n{}```\n\n", file.name, file.content)).collect();
            (
                word(language, "solution   a: write and apply   y: copy", "解答   a: 書き込んで適用   y: コピー").to_owned(),
                markdown(&files),
            )
        }
        Overlay::Debrief => {
            let title = word(language, "✓ passed   n: the next step", "✓ 合格   n: 次のステップ");
            (title.to_owned(), markdown(&step.debrief[language.tag()]))
        }
        Overlay::Detail(index) => {
            let check = step.checks.get(*index);
            let edit = check.and_then(|check| app.edit_of(&check.id));
            let copy = if edit.is_some() { word(language, "   y: copy the edit", "   y: 変更をコピー") } else { "" };
            (format!("{}{copy}", check.map_or("", |check| check.id.as_str())), detail(app, *index, width))
        }
        Overlay::List(cursor) => {
            (word(language, "steps   Enter: go there", "ステップ一覧   Enter: 移動").to_owned(), list(app, *cursor))
        }
        Overlay::Help => (word(language, "keys", "キー").to_owned(), Text::from(help(language))),
        Overlay::Output => {
            let lines = app.output.iter().map(|line| Line::from(line.clone()));
            (word(language, "output", "出力").to_owned(), Text::from(lines.collect::<Vec<_>>()))
        }
    }
}

fn list(app: &App, cursor: usize) -> Text<'static> {
    let lines = app.lab.steps.iter().enumerate().map(|(index, step)| {
        let passed = app.progress.passed.contains(&step.file.id);
        let mark = if passed { Span::styled("✓ ", app.theme.style(Role::Pass)) } else { Span::raw("  ") };
        let pointer = if index == cursor { Span::styled("▶ ", app.theme.style(Role::Accent)) } else { Span::raw("  ") };
        let title = Style::new().add_modifier(if index == cursor { Modifier::BOLD } else { Modifier::empty() });
        Line::from(vec![pointer, mark, Span::styled(step.file.title.get(app.language()).to_owned(), title)])
    });
    Text::from(lines.collect::<Vec<_>>())
}

/// The beginning of a text that fits into `width` columns.
fn shorten(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut short = String::new();
    let mut used = 1;
    for character in text.chars() {
        used += character.width().unwrap_or(0);
        if used > width {
            break;
        }
        short.push(character);
    }
    short + "…"
}
