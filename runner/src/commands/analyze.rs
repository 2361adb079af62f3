//! `analyze`: findings as `istioctl analyze` prints them.

use meshlab_analyze::{Message, Severity};
use meshlab_checks::Language;
use serde_json::{Value, json};

use super::Session;
use crate::analyze::Analysis;
use crate::cli::{AnalyzeArgs, Plain, Threshold};
use crate::error::{CommandError, Exit, Hint};
use crate::output::print;

pub(super) async fn run(session: &Session, args: &AnalyzeArgs) -> Result<Exit, CommandError> {
    let mut analysis = Analysis::default();
    if args.use_kube {
        let client = session.client().await.map_err(|error| match args.files.is_empty() {
            true => error,
            false => error.with_hint(Hint::new("`--use-kube=false` looks at the files alone")),
        })?;
        analysis.cluster(&client).await?;
    } else if args.files.is_empty() {
        return Err(CommandError::usage("without the cluster, files must be named"));
    }
    let own = session.lab.file.namespaces.first().map_or("default", String::as_str);
    analysis.files(&args.files, args.namespace.as_deref().unwrap_or(own))?;
    let findings = analysis.findings(args.namespace.as_deref());
    match args.output {
        Plain::Text => text(session, args, &findings),
        Plain::Json => print(&format!("{:#}\n", Value::from(findings.iter().map(json).collect::<Vec<_>>()))),
    }
    let failed = findings.iter().any(|finding| level(finding.severity()) <= args.failure_threshold);
    Ok(if failed { Exit::Failed } else { Exit::Ok })
}

fn text(session: &Session, args: &AnalyzeArgs, findings: &[Message]) {
    if !findings.is_empty() {
        findings.iter().for_each(|finding| print(&format!("{finding}\n")));
        return;
    }
    let place = match (&args.namespace, session.language) {
        (Some(namespace), Language::En) => format!("namespace: {namespace}"),
        (Some(namespace), Language::Ja) => format!("名前空間 {namespace}"),
        (None, Language::En) => "all namespaces".to_owned(),
        (None, Language::Ja) => "すべての名前空間".to_owned(),
    };
    print(&match session.language {
        Language::En => format!("✔ No validation issues found when analyzing {place}.\n"),
        Language::Ja => format!("✔ {place}に問題は見つかりませんでした。\n"),
    });
}

fn json(finding: &Message) -> Value {
    let origin = &finding.origin;
    json!({
        "code": finding.code.id(), "level": finding.severity().to_string(), "name": finding.name(),
        "origin": format!("{} {}/{}", origin.kind, origin.namespace, origin.name), "path": origin.path, "message": finding.text,
    })
}

fn level(severity: Severity) -> Threshold {
    match severity {
        Severity::Error => Threshold::Error,
        Severity::Warning => Threshold::Warning,
        Severity::Info => Threshold::Info,
    }
}
