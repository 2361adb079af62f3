//! JUnit XML: a test suite for each step.

use std::fmt::Write;

use crate::{CheckResult, Language, Report, Verdict};

pub(super) fn render(report: &Report, language: Language) -> String {
    let mut xml = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    let _ = writeln!(xml, "<testsuites name=\"{}\">", escape(&report.lab));
    let mut steps: Vec<&str> = report.results.iter().map(|result| result.step.as_str()).collect();
    steps.dedup();
    for step in steps {
        let results: Vec<&CheckResult> = report.results.iter().filter(|result| result.step == step).collect();
        let count = |test: fn(&Verdict) -> bool| results.iter().filter(|result| test(&result.verdict)).count();
        let _ = writeln!(
            xml,
            "  <testsuite name=\"{}\" tests=\"{}\" failures=\"{}\" errors=\"{}\" skipped=\"{}\">",
            escape(step),
            results.len(),
            count(|verdict| matches!(verdict, Verdict::Fail { .. })),
            count(|verdict| matches!(verdict, Verdict::Error { .. })),
            count(|verdict| matches!(verdict, Verdict::Skipped { .. })),
        );
        results.iter().for_each(|result| test_case(&mut xml, result, language));
        xml.push_str("  </testsuite>\n");
    }
    xml.push_str("</testsuites>\n");
    xml
}

fn test_case(xml: &mut String, result: &CheckResult, language: Language) {
    let _ = write!(
        xml,
        "    <testcase classname=\"{}\" name=\"{}\" time=\"{:.3}\"",
        escape(&result.id),
        escape(result.title.get(language)),
        result.duration.as_secs_f64()
    );
    let _ = match &result.verdict {
        Verdict::Pass => writeln!(xml, "/>"),
        Verdict::Fail { mismatches, .. } => {
            let message = mismatches.iter().map(|mismatch| escape(mismatch.get(language))).collect::<Vec<_>>().join("; ");
            let fix = escape(result.fix.get(language));
            writeln!(xml, "><failure message=\"{message}\">{fix}</failure></testcase>")
        }
        Verdict::Skipped { because } => writeln!(xml, "><skipped message=\"needs {}\"/></testcase>", escape(because)),
        Verdict::Error { message, .. } => writeln!(xml, "><error message=\"{}\"/></testcase>", escape(message.get(language))),
    };
}

/// Escapes text for XML and drops what XML 1.0 cannot carry.
fn escape(text: &str) -> String {
    text.chars().filter(|c| !c.is_control() || matches!(c, '\n' | '\t')).fold(String::new(), |mut escaped, c| {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\n' => escaped.push_str("&#10;"),
            other => escaped.push(other),
        }
        escaped
    })
}
