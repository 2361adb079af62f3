//! GitHub Actions workflow commands: an annotation for each check that did not pass.

use std::fmt::Write;

use crate::{Language, Report, Verdict};

pub(super) fn render(report: &Report, language: Language) -> String {
    let mut text = String::new();
    for result in &report.results {
        let (level, message) = match &result.verdict {
            Verdict::Pass => continue,
            Verdict::Fail { mismatches, .. } => {
                ("error", mismatches.iter().map(|mismatch| mismatch.get(language)).collect::<Vec<_>>().join("\n"))
            }
            Verdict::Skipped { because } => ("notice", format!("needs {because}")),
            Verdict::Error { message, .. } => ("warning", message.get(language).to_owned()),
        };
        let title = escape(&format!("{}: {}", result.id, result.title.get(language))).replace(':', "%3A").replace(',', "%2C");
        let _ = writeln!(text, "::{level} title={title}::{}", escape(&message));
    }
    let tally = report.tally();
    let _ = writeln!(
        text,
        "::notice::{} passed, {} failed, {} skipped, {} could not be measured",
        tally.passed, tally.failed, tally.skipped, tally.errors
    );
    text
}

fn escape(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}
