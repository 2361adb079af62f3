//! `traffic`: steady load from this machine through the ingress gateway, with live rates by version and status.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use futures::stream::{FuturesUnordered, StreamExt};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};

use super::Session;
use crate::cli::TrafficArgs;
use crate::control::{self, Request};
use crate::error::{CommandError, Exit, Hint};
use crate::output::print;

/// Requests that may be under way at once; beyond that the load falls behind rather than growing without end.
const MAX_PENDING: usize = 256;

/// What was seen: version and status → count.
type Seen = BTreeMap<(String, String), u64>;

pub(super) async fn run(session: &Session, args: &TrafficArgs) -> Result<Exit, CommandError> {
    let status = control::ask(&session.home, &Request::Status).await?.ok_or_else(CommandError::not_running)?;
    let gateway =
        status.gateway.ok_or_else(|| CommandError::unmeasured("the ingress gateway is not published on this machine"))?;
    let url = format!("http://{gateway}{}", args.path);
    let client = reqwest::Client::builder().timeout(Duration::from_secs(15)).no_proxy().build();
    let client = client.map_err(|error| CommandError::failed(error.to_string()))?;
    let headers = headers(args)?;

    let live = std::io::stdout().is_terminal();
    let mut seen = Seen::new();
    let mut pending = FuturesUnordered::new();
    let started = Instant::now();
    let mut ticks = tokio::time::interval(Duration::from_secs_f64(1.0 / f64::from(args.rps.max(1))));
    let mut shown = started;
    while started.elapsed() < Duration::from_secs(args.seconds) {
        tokio::select! {
            _ = ticks.tick(), if pending.len() < MAX_PENDING => pending.push(one(&client, &url, headers.clone())),
            Some(outcome) = pending.next() => *seen.entry(outcome).or_default() += 1,
            _ = tokio::signal::ctrl_c() => break,
        }
        if live && shown.elapsed() > Duration::from_secs(1) {
            shown = Instant::now();
            print(&format!("\x1b[2J\x1b[H{}", table(&seen, started.elapsed())));
        }
    }
    while let Some(outcome) = pending.next().await {
        *seen.entry(outcome).or_default() += 1;
    }
    print(&table(&seen, started.elapsed()));
    Ok(if seen.is_empty() { Exit::Unmeasured } else { Exit::Ok })
}

fn headers(args: &TrafficArgs) -> Result<HeaderMap, CommandError> {
    let mut headers = HeaderMap::new();
    for header in args.header.iter().cloned().chain([format!("host: {}", args.host)]) {
        let malformed = || CommandError::usage(format!("header {header:?}")).with_hint(Hint::new("write it as 'name: value'"));
        let (name, value) = header.split_once(':').ok_or_else(malformed)?;
        let name = HeaderName::try_from(name.trim()).map_err(|_| malformed())?;
        headers.insert(name, HeaderValue::try_from(value.trim()).map_err(|_| malformed())?);
    }
    Ok(headers)
}

/// Sends one request; which version answered, and with what status.
async fn one(client: &reqwest::Client, url: &str, headers: HeaderMap) -> (String, String) {
    let response = match client.get(url).headers(headers).send().await {
        Ok(response) => response,
        Err(error) => return ("-".to_owned(), if error.is_timeout() { "timeout" } else { "no answer" }.to_owned()),
    };
    let status = response.status().as_u16().to_string();
    let body: serde_json::Value = response.json().await.unwrap_or_default();
    let version = match (body["service"].as_str(), body["version"].as_str()) {
        (Some(service), Some(version)) => format!("{service} {version}"),
        _ => "-".to_owned(),
    };
    (version, status)
}

fn table(seen: &Seen, elapsed: Duration) -> String {
    let total: u64 = seen.values().sum();
    let mut text = format!("{:<16} {:<10} {:>8} {:>8} {:>7}\n", "VERSION", "STATUS", "REQUESTS", "RATE", "SHARE");
    for ((version, status), count) in seen {
        let rate = *count as f64 / elapsed.as_secs_f64();
        let share = 100.0 * *count as f64 / total as f64;
        text.push_str(&format!("{version:<16} {status:<10} {count:>8} {rate:>6.1}/s {share:>6.1}%\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_and_shares() {
        let seen = Seen::from([(("webapp v1".into(), "200".into()), 190), (("webapp v2".into(), "503".into()), 10)]);
        insta::assert_snapshot!(table(&seen, Duration::from_secs(10)), @r"
        VERSION          STATUS     REQUESTS     RATE   SHARE
        webapp v1        200             190   19.0/s   95.0%
        webapp v2        503              10    1.0/s    5.0%
        ");
    }
}
