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
    let mut text = format!("{} {}  {id}\n", style.paint(colour, mark), result.title.get(language));
    let mut line = |label: &str, content: &str| {
        let indented = content.trim_end().replace('\n', "\n      ");
        text.push_str(&format!("    {} {indented}\n", style.paint("1", &format!("{label}:"))));
    };
    match &result.verdict {
        Verdict::Pass => {}
        Verdict::Fail { mismatches, hints, .. } => {
            mismatches.iter().for_each(|mismatch| line(words.seen, mismatch));
            line(words.why, result.why.get(language));
            hints.iter().for_each(|(_, hint)| line(words.hint, hint.get(language)));
            line(words.fix, result.fix.get(language));
        }
        Verdict::Skipped { because } => line(words.skipped, because),
        Verdict::Error { message, hint } => {
            line(words.error, message);
            if let Some(hint) = hint {
                line(words.hint, hint);
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
    let line = format!("{} — {} {reached}/{possible}", parts.join(", "), words.points);
    format!("\n{}\n", style.paint(colour, &line))
}

struct Words {
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
                seen: "観測結果",
                why: "なぜ重要か",
                fix: "直し方",
                hint: "ヒント",
                skipped: "先に必要なチェック",
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
