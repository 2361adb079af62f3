//! Reports: for people, for machines, for CI.

mod github;
mod junit;
mod text;

pub use text::{Style, result_markdown, result_text, summary_text};

use crate::{Language, Report};

/// How a report is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text,
    /// JSON.
    Json,
    /// JUnit XML.
    Junit,
    /// GitHub Actions annotations.
    Github,
}

/// The whole report.
pub fn render(report: &Report, format: Format, language: Language, style: Style) -> String {
    match format {
        Format::Text => {
            let results: String = report.results.iter().map(|result| result_text(result, language, style)).collect();
            results + &summary_text(report, language, style)
        }
        Format::Json => {
            let tally = report.tally();
            let (reached, possible) = report.score();
            let score = serde_json::json!({"reached": reached, "possible": possible});
            let value = serde_json::json!({"lab": report.lab, "tally": tally, "score": score, "results": report.results});
            format!("{value:#}\n")
        }
        Format::Junit => junit::render(report, language),
        Format::Github => github::render(report, language),
    }
}
