//! The report for people.

use crate::{CheckResult, Language, Report, Verdict};

/// How much a terminal can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// No escape sequences (`NO_COLOR`, a pipe, a screen reader).
    Plain,
    /// ANSI colours.
    Colour,
}

impl Style {
    fn paint(self, code: &str, text: &str) -> String {
        match self {
            Self::Plain => text.to_owned(),
            Self::Colour => format!("\x1b[{code}m{text}\x1b[0m"),
        }
    }
}

/// One result, with what helps when it is not a pass. Ends in a newline.
pub fn result_text(result: &CheckResult, language: Language, style: Style) -> String {
    let (mark, colour) = match result.verdict {
        Verdict::Pass => ("✓", "32"),
        Verdict::Fail { .. } => ("✗", "31"),
        Verdict::Skipped { .. } => ("-", "90"),
        Verdict::Error { .. } => ("!", "33"),
    };
    let words = Words::of(language);
    let id = style.paint("90", &result.id);
    let waits = match &result.verdict {
        Verdict::Skipped { because } => style.paint("90", &format!("  ({} {because})", words.skipped)),
        _ => String::new(),
    };
    let mut text = format!("{} {}  {id}{waits}\n", style.paint(colour, mark), result.title.get(language));
    let mut line = |label: &str, content: &str| {
        let indented = content.trim_end().replace('\n', "\n      ");
        text.push_str(&format!("    {} {indented}\n", style.paint("1", &format!("{label}:"))));
    };
    match &result.verdict {
        Verdict::Pass => {}
        Verdict::Fail { mismatches, about, edit, hints, .. } => {
            if !about.get(language).is_empty() {
                line(words.about, about.get(language));
            }
            mismatches.iter().for_each(|mismatch| line(words.seen, mismatch.get(language)));
            line(words.why, result.why.get(language));
            hints.iter().for_each(|(_, hint)| line(words.hint, hint.get(language)));
            line(words.fix, result.fix.get(language));
            if let Some(edit) = edit {
                line(words.edit, &edit.to_string());
            }
        }
        Verdict::Skipped { .. } => {}
        Verdict::Error { message, hint } => {
            line(words.error, message.get(language));
            if let Some(hint) = hint {
                line(words.hint, hint.get(language));
            }
        }
    }
    text
}

/// The same as Markdown, for a screen that lays it out.
pub fn result_markdown(result: &CheckResult, language: Language) -> String {
    let words = Words::of(language);
    let mut text = format!("{}\n\n", result.title.get(language));
    let mut line = |label: &str, content: &str| text.push_str(&format!("**{label}:** {}\n\n", content.trim_end()));
    // What comes from the cluster is shown as it is.
    let code = |content: &str| format!("``` {} ```", content.replace("```", "").replace('\n', " "));
    match &result.verdict {
        Verdict::Pass => line(words.why, result.why.get(language)),
        Verdict::Fail { mismatches, about, edit, hints, .. } => {
            if !about.get(language).is_empty() {
                line(words.about, &code(about.get(language)));
            }
            mismatches.iter().for_each(|mismatch| line(words.seen, &code(mismatch.get(language))));
            hints.iter().for_each(|(_, hint)| line(words.hint, hint.get(language)));
            line(words.why, result.why.get(language));
            line(words.fix, result.fix.get(language));
            if let Some(edit) = edit {
                line(words.edit, &code(&edit.to_string()));
            }
        }
        Verdict::Skipped { because } => {
            line(words.skipped.trim_end_matches(':'), because);
            line(words.why, result.why.get(language));
        }
        Verdict::Error { message, hint } => {
            line(words.error, &code(message.get(language)));
            if let Some(hint) = hint {
                line(words.hint, hint.get(language));
            }
        }
    }
    text
}

/// The last lines: how many ended how, and the score. Ends in a newline.
pub fn summary_text(report: &Report, language: Language, style: Style) -> String {
    let tally = report.tally();
    let (reached, possible) = report.score();
    let words = Words::of(language);
    let mut parts = vec![format!("{} {}", tally.passed, words.passed)];
    for (count, word) in [(tally.failed, words.failed), (tally.skipped, words.skipped_count), (tally.errors, words.errors)] {
        if count > 0 {
            parts.push(format!("{count} {word}"));
        }
    }
    let colour = if report.all_passed() { "32" } else { "31" };
    let points = if possible == 0 { String::new() } else { format!(" — {} {reached}/{possible}", words.points) };
    let line = format!("{}{points}", parts.join(", "));
    format!("\n{}\n{}", style.paint(colour, &line), begin_with(report, language))
}

/// Where to begin, if several checks did not pass: with the one that most of the others wait for.
fn begin_with(report: &Report, language: Language) -> String {
    let waiting = |id: &str| {
        let waits = |result: &&CheckResult| matches!(&result.verdict, Verdict::Skipped { because } if because == id);
        report.results.iter().filter(waits).count()
    };
    let failed = report.results.iter().filter(|result| matches!(result.verdict, Verdict::Fail { .. }));
    let first = failed.rev().max_by_key(|result| waiting(&result.id));
    match first.map(|result| (&result.id, chain(report, &result.id))) {
        Some((id, count)) if count > 0 => match language {
            Language::En => format!("Begin with {id}: {count} more wait for it.\n"),
            Language::Ja => format!("まず {id} を直してください。ほかの {count} 件がこれを待っています。\n"),
        },
        _ => String::new(),
    }
}

/// How many checks wait for one, or for one that waits for it.
fn chain(report: &Report, id: &str) -> usize {
    let waiting = report.results.iter().filter(|result| matches!(&result.verdict, Verdict::Skipped { because } if because == id));
    waiting.map(|result| 1 + chain(report, &result.id)).sum()
}

struct Words {
    about: &'static str,
    edit: &'static str,
    seen: &'static str,
    why: &'static str,
    fix: &'static str,
    hint: &'static str,
    skipped: &'static str,
    error: &'static str,
    passed: &'static str,
    failed: &'static str,
    skipped_count: &'static str,
    errors: &'static str,
    points: &'static str,
}

impl Words {
    fn of(language: Language) -> Self {
        match language {
            Language::En => Self {
                about: "looked at",
                edit: "the smallest edit that would pass",
                seen: "seen",
                why: "why it matters",
                fix: "to mend it",
                hint: "hint",
                skipped: "waits for",
                error: "could not be measured",
                passed: "passed",
                failed: "failed",
                skipped_count: "skipped",
                errors: "could not be measured",
                points: "points",
            },
            Language::Ja => Self {
                about: "調べたもの",
                edit: "合格するための最小の変更",
                seen: "観測結果",
                why: "なぜ重要か",
                fix: "直し方",
                hint: "ヒント",
                skipped: "先に必要:",
                error: "測定できませんでした",
                passed: "件合格",
                failed: "件不合格",
                skipped_count: "件スキップ",
                errors: "件測定不能",
                points: "得点",
            },
        }
    }
}
