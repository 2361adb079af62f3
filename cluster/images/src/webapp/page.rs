//! The answer as a small page, for a browser.

use serde_json::Value;

use super::answer::Answer;

/// Renders an answer.
pub(super) fn render(answer: &Answer, color: &str) -> String {
    let mut rows = String::new();
    let mut row = |name: &str, value: &str| {
        rows.push_str(&format!("<tr><th>{}</th><td>{}</td></tr>\n", escape(name), escape(value)));
    };
    row("pod", &answer.hostname);
    row("pod IP", &answer.pod_ip);
    row("client", &answer.client);
    row("request", &format!("{} {} {}", answer.method, answer.path, answer.protocol));
    for (name, value) in &answer.headers {
        row(name, value);
    }
    let upstreams: String = answer
        .upstreams
        .iter()
        .map(|called| {
            let outcome = match (&called.status, &called.error) {
                (Some(status), _) => status.to_string(),
                (None, error) => error.clone().unwrap_or_default(),
            };
            let body = called.body.as_ref().map_or(String::new(), pretty);
            format!(
                "<details open><summary>{} &rarr; <b>{}</b> ({} ms)</summary><pre>{}</pre></details>\n",
                escape(&called.url),
                escape(&outcome),
                called.duration_ms,
                escape(&body)
            )
        })
        .collect();
    let message = answer.message.as_deref().map_or(String::new(), |message| format!("<p>{}</p>\n", escape(message)));
    let title = format!("{} {}", escape(&answer.service), escape(&answer.version));
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title>\n\
         <style>body{{font:16px/1.5 system-ui,sans-serif;margin:2rem;background:{color}}}\
         main{{max-width:60rem;margin:auto;background:#fff;color:#111;border-radius:8px;padding:1.5rem 2rem}}\
         th{{text-align:left;padding-right:1.5rem;white-space:nowrap;vertical-align:top}}\
         td{{overflow-wrap:anywhere;font-family:monospace}}pre{{overflow:auto}}</style></head>\n\
         <body><main><h1>{title}</h1>\n{message}{upstreams}<table>\n{rows}</table></main></body></html>\n"
    )
}

fn pretty(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => serde_json::to_string_pretty(other).unwrap_or_default(),
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
