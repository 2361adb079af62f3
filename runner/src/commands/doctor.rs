//! `doctor`: looks at what a lab needs from this machine, and says how to mend what is missing.

use std::net::TcpListener;

use meshlab_checks::Language;

use super::Session;
use crate::control::{self, Request};
use crate::error::{CommandError, Exit};
use crate::files::write_private;
use crate::output::print;

/// One thing looked at.
struct Finding {
    ok: bool,
    what: String,
    remedy: Option<String>,
}

impl Finding {
    fn good(what: impl Into<String>) -> Self {
        Self { ok: true, what: what.into(), remedy: None }
    }

    fn bad(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { ok: false, what: what.into(), remedy: Some(remedy.into()) }
    }
}

pub(super) async fn run(session: &Session) -> Result<Exit, CommandError> {
    let findings = [home(session), loopback(), kubectl().await, lab(session).await];
    for finding in &findings {
        print(&format!("{} {}\n", if finding.ok { "✓" } else { "✗" }, finding.what));
        if let Some(remedy) = &finding.remedy {
            print(&format!("    {remedy}\n"));
        }
    }
    Ok(if findings.iter().all(|finding| finding.ok) { Exit::Ok } else { Exit::Failed })
}

fn say(session: &Session, en: &str, ja: &str) -> String {
    match session.language {
        Language::En => en.to_owned(),
        Language::Ja => ja.to_owned(),
    }
}

fn home(session: &Session) -> Finding {
    let path = session.home.path().join("doctor");
    let result = write_private(&path, b"ok");
    let _ = std::fs::remove_file(&path);
    let place = session.home.path().display();
    match result {
        Ok(()) => Finding::good(format!("{place}: {}", say(session, "can be written", "書き込めます"))),
        Err(error) => Finding::bad(
            format!("{place}: {error}"),
            say(session, "set MESHLAB_HOME to a folder of yours", "MESHLAB_HOME に自分のフォルダを指定してください"),
        ),
    }
}

fn loopback() -> Finding {
    match TcpListener::bind(("127.0.0.1", 0)) {
        Ok(_) => Finding::good("127.0.0.1"),
        Err(error) => {
            Finding::bad(format!("127.0.0.1: {error}"), "a firewall or a sandbox forbids listening on the loopback address")
        }
    }
}

async fn kubectl() -> Finding {
    let output = tokio::process::Command::new("kubectl").args(["version", "--client"]).output().await;
    match output {
        Ok(output) if output.status.success() => {
            let text = String::from_utf8_lossy(&output.stdout);
            Finding::good(format!("kubectl: {}", text.lines().next().unwrap_or_default()))
        }
        _ => Finding::good("kubectl: the built-in one; `meshlab env` puts it into PATH"),
    }
}

async fn lab(session: &Session) -> Finding {
    match control::ask(&session.home, &Request::Status).await {
        Ok(Some(status)) => Finding::good(format!("lab: {} ({})", status.api_server, status.version)),
        Ok(None) => Finding::good(say(session, "lab: not running", "ラボ: 停止中")),
        Err(error) => Finding::bad(format!("lab: {}", error.message), format!("see {}", session.home.log().display())),
    }
}
