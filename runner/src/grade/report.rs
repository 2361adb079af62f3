//! Grades: a report for each submission, and a table of all.

use std::fmt::Write;

use meshlab_checks::report::{self, Style};
use meshlab_checks::{CheckResult, Language, Report, Text, Verdict};
use serde::{Serialize, Serializer};
use serde_json::json;
use unicode_width::UnicodeWidthStr;

use super::Graded;

/// How grades are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text,
    /// JSON.
    Json,
    /// JUnit XML.
    Junit,
    /// One line for each submission.
    Csv,
}

/// Tally, score and results of a report.
pub(super) fn serialize<S: Serializer>(report: &Report, serializer: S) -> Result<S::Ok, S::Error> {
    let (reached, possible) = report.score();
    json!({
        "tally": report.tally(),
        "score": {"reached": reached, "possible": possible, "total": total(report)},
        "results": report.results,
    })
    .serialize(serializer)
}

/// All weights, those that could not be measured as well.
fn total(report: &Report) -> u32 {
    report.results.iter().map(|result| result.weight).sum()
}

/// All grades.
pub fn render(all: &[Graded], format: Format, language: Language, style: Style) -> String {
    match format {
        Format::Text => {
            let mut text: String = all.iter().map(|graded| render_text(graded, language, style) + "\n").collect();
            text.push_str(&table(all, language));
            text
        }
        Format::Json => format!("{:#}\n", json!({"submissions": all})),
        Format::Junit => junit(all, language),
        Format::Csv => csv(all),
    }
}

/// One submission's report.
pub fn render_one(graded: &Graded, format: Format, language: Language) -> String {
    match format {
        Format::Text => render_text(graded, language, Style::Plain),
        other => render(std::slice::from_ref(graded), other, language, Style::Plain),
    }
}

/// What did not pass, and the sum.
fn render_text(graded: &Graded, language: Language, style: Style) -> String {
    let mut text = format!("== {}\n", graded.name);
    for problem in &graded.problems {
        let file = if problem.file.is_empty() { &problem.step } else { &problem.file };
        let _ = writeln!(text, "✗ {file}: {}", problem.message.replace('\n', "\n    "));
    }
    if let Some(why) = &graded.broken {
        let label = match language {
            Language::En => "could not be graded",
            Language::Ja => "採点できませんでした",
        };
        let _ = writeln!(text, "! {label}: {why}");
        return text;
    }
    let missed = graded.report.results.iter().filter(|result| result.verdict != Verdict::Pass);
    text.extend(missed.map(|result| report::result_text(result, language, style)));
    text.push_str(report::summary_text(&graded.report, language, style).trim_start_matches('\n'));
    text
}

fn table(all: &[Graded], language: Language) -> String {
    let header = match language {
        Language::En => ["SUBMISSION", "POINTS", "SCORE", "PASSED", "FAILED", "SKIPPED", "UNMEASURED", "PROBLEMS"],
        Language::Ja => ["提出物", "得点", "得点率", "合格", "不合格", "スキップ", "測定不能", "問題"],
    };
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    rows.extend(all.iter().map(|graded| {
        let mut row = vec![graded.name.clone()];
        if graded.broken.is_some() {
            row.extend(["-"; 6].map(str::to_owned));
            row.push(match language {
                Language::En => "not graded".to_owned(),
                Language::Ja => "採点不能".to_owned(),
            });
            return row;
        }
        let ((reached, possible), tally) = (graded.report.score(), graded.report.tally());
        row.push(format!("{reached}/{possible}"));
        row.push(percent(reached, possible));
        row.extend(
            [tally.passed, tally.failed, tally.skipped, tally.errors, graded.problems.len()].map(|count| count.to_string()),
        );
        row
    }));
    let width = |column: usize| rows.iter().map(|row| row[column].width()).max().unwrap_or(0) + 2;
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        let line: String =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell}{}", " ".repeat(width - cell.width()))).collect();
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

fn percent(reached: u32, possible: u32) -> String {
    if possible == 0 { "-".to_owned() } else { format!("{:.0} %", 100.0 * f64::from(reached) / f64::from(possible)) }
}

/// A test suite for each step of each submission: `alice/routing`.
fn junit(all: &[Graded], language: Language) -> String {
    let mut results = Vec::new();
    let lab = all.iter().map(|graded| graded.report.lab.as_str()).find(|lab| !lab.is_empty()).unwrap_or("meshlab");
    for graded in all {
        if let Some(why) = &graded.broken {
            let verdict = Verdict::Error { message: Text::same(why), hint: None };
            results.push(made_up(&format!("{}/submission", graded.name), "graded", "The submission can be graded", verdict));
        }
        for problem in &graded.problems {
            let verdict = Verdict::fail(vec![Text::same(&problem.message)]);
            let id = if problem.file.is_empty() { "restart" } else { &problem.file };
            results.push(made_up(
                &format!("{}/{} files", graded.name, problem.step),
                id,
                &format!("{id} can be applied"),
                verdict,
            ));
        }
        results.extend(graded.report.results.iter().map(|result| {
            let step = format!("{}/{}", graded.name, result.step);
            CheckResult { step, ..result.clone() }
        }));
    }
    // One suite must stand in one piece.
    results.sort_by(|a, b| a.step.cmp(&b.step));
    report::render(&Report { lab: lab.to_owned(), results }, report::Format::Junit, language, Style::Plain)
}

/// What is wrong with a submission, in the form of a check.
fn made_up(step: &str, id: &str, title: &str, verdict: Verdict) -> CheckResult {
    let text = |text: &str| Text { ja: text.to_owned(), en: text.to_owned() };
    CheckResult {
        id: id.to_owned(),
        step: step.to_owned(),
        title: text(title),
        why: text(""),
        fix: text(""),
        weight: 0,
        verdict,
        duration: std::time::Duration::ZERO,
    }
}

fn csv(all: &[Graded]) -> String {
    let mut steps: Vec<&str> = Vec::new();
    for result in all.iter().flat_map(|graded| &graded.report.results) {
        if !steps.contains(&result.step.as_str()) {
            steps.push(&result.step);
        }
    }
    let mut header =
        vec!["submission", "reached", "possible", "total", "passed", "failed", "skipped", "unmeasured", "problems", "broken"];
    header.extend(&steps);
    let mut text = header.join(",") + "\r\n";
    for graded in all {
        let ((reached, possible), tally) = (graded.report.score(), graded.report.tally());
        let problems: Vec<String> =
            graded.problems.iter().map(|problem| format!("{}: {}", problem.file, problem.message)).collect();
        let mut row = vec![cell(&graded.name)];
        row.extend([reached, possible, total(&graded.report)].map(|points| points.to_string()));
        row.extend([tally.passed, tally.failed, tally.skipped, tally.errors].map(|count| count.to_string()));
        row.push(cell(&problems.join("; ")));
        row.push(cell(graded.broken.as_deref().unwrap_or_default()));
        row.extend(steps.iter().map(|step| {
            let results = graded.report.results.iter().filter(|result| result.step == *step).cloned().collect();
            Report { lab: String::new(), results }.score().0.to_string()
        }));
        text.push_str(&(row.join(",") + "\r\n"));
    }
    text
}

/// A cell of RFC 4180. Text from a submission that a spreadsheet would take for a formula gets an apostrophe in front.
fn cell(text: &str) -> String {
    let formula = text.starts_with(['=', '+', '-', '@', '\t', '\r']);
    let text = if formula { format!("'{text}") } else { text.to_owned() };
    if text.contains([',', '"', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::Value;

    use super::super::Problem;
    use super::*;

    fn check(id: &str, verdict: Verdict) -> CheckResult {
        let text = |text: &str| Text { ja: format!("{text} (ja)"), en: text.to_owned() };
        let step = id.split('-').next().unwrap().to_owned();
        let (title, why, fix) = (text("It works"), text("It matters"), text("Mend it"));
        CheckResult { id: id.to_owned(), step, title, why, fix, weight: 2, verdict, duration: Duration::from_millis(5) }
    }

    fn grades() -> Vec<Graded> {
        let fail = Verdict::fail(vec![Text::same("status: expected 200, got 503")]);
        let report = |results| Report { lab: "phase3".to_owned(), results };
        let problem = Problem { step: "routing".to_owned(), file: "02.yaml".to_owned(), message: "line 3, \"a\"".to_owned() };
        let graded = |name: &str, problems, results| Graded {
            name: name.to_owned(),
            problems,
            broken: None,
            report: report(results),
            duration_ms: 1,
        };
        vec![
            graded("alice", Vec::new(), vec![check("setup-a", Verdict::Pass), check("routing-b", Verdict::Pass)]),
            graded("=bob", vec![problem], vec![check("setup-a", Verdict::Pass), check("routing-b", fail)]),
            Graded::broken("carol".to_owned(), "not done after 600 s".to_owned()),
        ]
    }

    #[test]
    fn grades_for_people() {
        insta::assert_snapshot!(render(&grades(), Format::Text, Language::En, Style::Plain), @r#"
        == alice
        2 passed — points 4/4

        == =bob
        ✗ 02.yaml: line 3, "a"
        ✗ It works  routing-b
            seen: status: expected 200, got 503
            why it matters: It matters
            to mend it: Mend it
        1 passed, 1 failed — points 2/4

        == carol
        ! could not be graded: not done after 600 s

        SUBMISSION  POINTS  SCORE  PASSED  FAILED  SKIPPED  UNMEASURED  PROBLEMS
        alice       4/4     100 %  2       0       0        0           0
        =bob        2/4     50 %   1       1       0        0           1
        carol       -       -      -       -       -        -           not graded
        "#);
    }

    #[test]
    fn grades_for_spreadsheets() {
        insta::assert_snapshot!(render(&grades(), Format::Csv, Language::En, Style::Plain).replace('\r', ""), @r#"
        submission,reached,possible,total,passed,failed,skipped,unmeasured,problems,broken,setup,routing
        alice,4,4,4,2,0,0,0,,,2,2
        '=bob,2,4,4,1,1,0,0,"02.yaml: line 3, ""a""",,2,0
        carol,0,0,0,0,0,0,0,,not done after 600 s,0,0
        "#);
    }

    #[test]
    fn grades_for_ci() {
        insta::assert_snapshot!(render(&grades(), Format::Junit, Language::En, Style::Plain), @r#"
        <?xml version="1.0" encoding="UTF-8"?>
        <testsuites name="phase3">
          <testsuite name="=bob/routing" tests="1" failures="1" errors="0" skipped="0">
            <testcase classname="routing-b" name="It works" time="0.005"><failure message="status: expected 200, got 503">Mend it</failure></testcase>
          </testsuite>
          <testsuite name="=bob/routing files" tests="1" failures="1" errors="0" skipped="0">
            <testcase classname="02.yaml" name="02.yaml can be applied" time="0.000"><failure message="line 3, &quot;a&quot;"></failure></testcase>
          </testsuite>
          <testsuite name="=bob/setup" tests="1" failures="0" errors="0" skipped="0">
            <testcase classname="setup-a" name="It works" time="0.005"/>
          </testsuite>
          <testsuite name="alice/routing" tests="1" failures="0" errors="0" skipped="0">
            <testcase classname="routing-b" name="It works" time="0.005"/>
          </testsuite>
          <testsuite name="alice/setup" tests="1" failures="0" errors="0" skipped="0">
            <testcase classname="setup-a" name="It works" time="0.005"/>
          </testsuite>
          <testsuite name="carol/submission" tests="1" failures="0" errors="1" skipped="0">
            <testcase classname="graded" name="The submission can be graded" time="0.000"><error message="not done after 600 s"/></testcase>
          </testsuite>
        </testsuites>
        "#);
    }

    #[test]
    fn grades_for_programs() {
        let value: Value = serde_json::from_str(&render(&grades(), Format::Json, Language::En, Style::Plain)).unwrap();
        assert_eq!(value["submissions"][0]["report"]["score"], json!({"reached": 4, "possible": 4, "total": 4}));
        assert_eq!(value["submissions"][1]["problems"][0]["file"], "02.yaml");
        assert_eq!(value["submissions"][2]["broken"], "not done after 600 s");
    }
}
