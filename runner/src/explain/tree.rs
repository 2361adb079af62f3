//! An explanation as a tree for people.

use std::fmt::Write;

use meshlab_checks::Language;
use meshlab_proxy_config::Origin;

use super::Explanation;
use super::trail::{ClusterChoice, Hop};
use super::words::{self, Label, pick};

/// Escape codes, empty without colour.
struct Palette {
    good: &'static str,
    bad: &'static str,
    dim: &'static str,
    bold: &'static str,
    end: &'static str,
}

const COLOURS: Palette = Palette { good: "\x1b[32m", bad: "\x1b[31m", dim: "\x1b[2m", bold: "\x1b[1m", end: "\x1b[0m" };
const PLAIN: Palette = Palette { good: "", bad: "", dim: "", bold: "", end: "" };

/// How a line came out.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mark {
    None,
    Good,
    Bad,
    Passed,
}

/// The tree.
pub(crate) fn render(explanation: &Explanation, language: Language, colour: bool) -> String {
    let palette = if colour { &COLOURS } else { &PLAIN };
    let Palette { good, bad, bold, end, .. } = palette;
    let request = &explanation.request;
    let mut text =
        format!("{bold}{} {}{end}  ({} {})\n", request.method, request.url, pick(language, "from", "送信元:"), request.from);
    let outcome = &explanation.outcome;
    let _ = match (&outcome.status, &outcome.error) {
        (Some(status), _) => {
            let hue = if *status < 400 { good } else { bad };
            let reason = http::StatusCode::from_u16(*status).ok().and_then(|code| code.canonical_reason()).unwrap_or_default();
            writeln!(text, "→ {hue}{status} {reason}{end}, {} ms", outcome.duration_ms)
        }
        (None, error) => {
            let message = error.as_ref().map_or("?", |error| error.message.as_str());
            let no_answer = pick(language, "no answer", "応答なし");
            writeln!(text, "→ {bad}{no_answer}: {message}{end}, {} ms", outcome.duration_ms)
        }
    };
    for (number, hop) in explanation.hops.iter().enumerate() {
        let kind = words::direction(&hop.direction, language);
        let _ = writeln!(text, "\n{}. {bold}{}{end}  {kind}", number + 1, hop.workload());
        text.push_str(&branches(&lines(hop, explanation, language), palette, language));
    }
    for note in &explanation.notes {
        let _ = writeln!(text, "\n{}", note.get(language));
    }
    text
}

type Line = (Label, Mark, String);

fn branches(lines: &[Line], palette: &Palette, language: Language) -> String {
    let width = lines.iter().map(|(label, ..)| unicode_width::UnicodeWidthStr::width(label.text(language))).max().unwrap_or(0);
    let mut text = String::new();
    for (place, (label, mark, content)) in lines.iter().enumerate() {
        let last = place + 1 == lines.len();
        let (sign, hue) = match mark {
            Mark::None => (" ", ""),
            Mark::Good => ("✓", palette.good),
            Mark::Bad => ("✗", palette.bad),
            Mark::Passed => ("·", palette.dim),
        };
        let label = label.text(language);
        let fill = " ".repeat(width - unicode_width::UnicodeWidthStr::width(label));
        let branch = if last { "└─" } else { "├─" };
        let end = if hue.is_empty() { "" } else { palette.end };
        let mut parts = content.lines();
        let _ = writeln!(text, "   {branch} {hue}{sign} {label}{fill}  {}{end}", parts.next().unwrap_or_default());
        for more in parts {
            let stem = if last { " " } else { "│" };
            let _ = writeln!(text, "   {stem}    {}  {hue}{more}{end}", " ".repeat(width));
        }
    }
    text
}

fn lines(hop: &Hop, explanation: &Explanation, language: Language) -> Vec<Line> {
    let mut lines = vec![client(hop, explanation, language)];
    let listener = [&hop.listener, &hop.filter_chain, &hop.route_config];
    let mut parts: Vec<&str> = listener.into_iter().map(String::as_str).filter(|part| !part.is_empty()).collect();
    parts.dedup();
    lines.push((Label::Listener, Mark::None, parts.join(" › ")));
    match &hop.virtual_host {
        Some(host) => lines.push((Label::Host, Mark::None, host.clone())),
        None if hop.status > 0 && hop.route.is_none() && !hop.rejected.is_empty() => {
            lines.push((Label::Host, Mark::Bad, pick(language, "none fits", "一致するものがない").to_owned()));
        }
        None => {}
    }
    for candidate in &hop.rejected {
        let from = candidate.origin.as_ref().map(named).unwrap_or_default();
        let reason = candidate.reason.as_deref().unwrap_or_default();
        lines.push((Label::Passed, Mark::Passed, format!("{}{from}\n{reason}", candidate.name)));
    }
    match &hop.route {
        Some(route) => {
            let from = route.origin.as_ref().map(named).unwrap_or_default();
            lines.push((Label::Route, Mark::Good, format!("{}{from}", route.name)));
        }
        None if hop.virtual_host.is_some() => {
            lines.push((Label::Route, Mark::Bad, pick(language, "none fits", "一致するものがない").to_owned()));
        }
        None => {}
    }
    for policy in &hop.policies {
        let matched = policy.verdict.starts_with("matched");
        let mark = match (policy.action.as_str(), matched) {
            ("ALLOW", true) => Mark::Good,
            ("DENY", true) => Mark::Bad,
            _ => Mark::Passed,
        };
        lines.push((Label::Policy, mark, format!("{}: {}{}", policy.action, policy.verdict, named(&policy.origin))));
    }
    lines.extend(hop.faults.iter().map(|fault| (Label::Fault, Mark::Bad, fault.clone())));
    if let Some(choice) = &hop.cluster {
        lines.push(cluster(choice, language));
    }
    for attempt in &hop.attempts {
        let failed = !attempt.outcome.starts_with("status 2") && !attempt.outcome.starts_with("status 3");
        let mark = if failed { Mark::Bad } else { Mark::Good };
        let to = if attempt.endpoint.is_empty() { "-".to_owned() } else { explanation.who(&attempt.endpoint) };
        lines.push((Label::Attempt, mark, format!("{to}  {}", attempt.outcome)));
    }
    lines.push(answer(hop, language));
    lines
}

fn client(hop: &Hop, explanation: &Explanation, language: Language) -> Line {
    let identity = match &hop.identity {
        Some(identity) => format!("{identity} {}", pick(language, "(mutual TLS)", "(相互 TLS)")),
        None if hop.direction == "outbound" => {
            pick(language, "the application in this pod", "この Pod のアプリケーション").to_owned()
        }
        None => pick(language, "no certificate: plaintext, or TLS without one", "クライアント証明書なし（平文または片方向 TLS）")
            .to_owned(),
    };
    (Label::Client, Mark::None, format!("{}\n{identity}", explanation.who(&hop.client)))
}

fn cluster(choice: &ClusterChoice, language: Language) -> Line {
    let mut text = choice.name.clone();
    if let Some((_, subset, _)) = choice.parts().filter(|(_, subset, _)| !subset.is_empty()) {
        let _ = write!(text, "\n{} {subset}", pick(language, "subset", "サブセット"));
    }
    for origin in &choice.origins {
        let _ = write!(text, "\n{}", named(origin).trim_start());
    }
    if !choice.found {
        let _ = write!(text, "\n{}", pick(language, "there is no such cluster", "このクラスターは存在しない"));
    }
    (Label::Cluster, if choice.found { Mark::None } else { Mark::Bad }, text)
}

fn answer(hop: &Hop, language: Language) -> Line {
    let mut text = hop.status.to_string();
    for flag in hop.flags.split(',').filter(|flag| *flag != "-" && !flag.is_empty()) {
        let meaning = words::flag(flag, language).map(|meaning| format!(": {meaning}")).unwrap_or_default();
        let _ = write!(text, "  [{flag}{meaning}]");
    }
    if !hop.details.is_empty() {
        let meaning = words::details(&hop.details, language).map(|meaning| format!(" ({meaning})")).unwrap_or_default();
        let _ = write!(text, "  {}{meaning}", hop.details);
    }
    (Label::Answer, if hop.status < 400 { Mark::Good } else { Mark::Bad }, text)
}

/// `  VirtualService webapp/webapp-virtualservice spec.http[0]`
fn named(origin: &Origin) -> String {
    let place = if origin.path.is_empty() { String::new() } else { format!(" {}", origin.path) };
    format!("  {} {}/{}{place}", origin.kind, origin.namespace, origin.name)
}
