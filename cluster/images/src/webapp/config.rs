//! What the app is told by its environment and its flags.

use std::collections::BTreeMap;
use std::time::Duration;

use meshlab_program::Process;

/// The longest time that the app can be told to wait.
pub(super) const MAX_DELAY: Duration = Duration::from_secs(300);

/// Every setting: the environment variable, whose lower-case form with dashes is the flag, and what it means.
const SETTINGS: &[(&str, &str)] = &[
    ("SERVICE_NAME", "name in answers and metrics (default: the host name without the ReplicaSet's and pod's suffixes)"),
    ("VERSION", "version in answers and metrics (default v1)"),
    ("PORT", "HTTP/1.1, cleartext HTTP/2 and gRPC (default 8080)"),
    ("GRPC_PORT", "a second port for the same, by custom for gRPC"),
    ("TCP_PORT", "TCP echo: every line comes back with TCP_PREFIX in front"),
    ("TCP_PREFIX", "default hello"),
    ("MESSAGE", "a text in every answer"),
    ("COLOR", "background of the page (a CSS colour name or #rrggbb)"),
    (
        "UPSTREAMS",
        "URLs called on each request, separated by commas: http://host/path or grpc://host:port, or /path=URL for one path",
    ),
    ("UPSTREAM_TIMEOUT", "how long to wait for one upstream (default 15s)"),
    ("IGNORE_UPSTREAM_FAILURE", "true: answer 200 although an upstream failed (default false: 502)"),
    ("FAIL_RATE", "share of requests that fail, 0 to 1 or in percent such as 25% (default 0)"),
    ("FAIL_STATUS", "status of those (default 500)"),
    ("DELAY", "wait before every answer, such as 250ms or 2s"),
    ("PROPAGATE", "false: do not pass trace headers on (default true)"),
];

/// The app's settings.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Config {
    pub(super) service: String,
    pub(super) version: String,
    pub(super) hostname: String,
    /// The pod's address by the downward API, else as the pod's network knows it.
    pub(super) pod_ip: String,
    pub(super) port: u16,
    pub(super) grpc_port: Option<u16>,
    pub(super) tcp_port: Option<u16>,
    pub(super) tcp_prefix: String,
    pub(super) message: Option<String>,
    pub(super) color: String,
    pub(super) upstreams: Vec<Upstream>,
    pub(super) upstream_timeout: Duration,
    pub(super) ignore_upstream_failure: bool,
    pub(super) fail_rate: f64,
    pub(super) fail_status: u16,
    pub(super) delay: Duration,
    pub(super) propagate: bool,
}

/// A service that the app calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Upstream {
    /// Only for requests to this path.
    pub(super) path: Option<String>,
    pub(super) url: String,
}

/// A setting that cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(super) enum ConfigError {
    #[error("{name}={value:?} is not {expected}")]
    Value { name: &'static str, value: String, expected: &'static str },
    #[error("unknown flag {flag}; each setting is an environment variable, too (--fail-rate is FAIL_RATE):\n{}", usage())]
    Flag { flag: String },
}

fn flag_name(setting: &str) -> String {
    format!("--{}", setting.to_ascii_lowercase().replace('_', "-"))
}

fn usage() -> String {
    SETTINGS.iter().map(|(name, meaning)| format!("  {:<26} {meaning}", flag_name(name))).collect::<Vec<_>>().join("\n")
}

impl Config {
    pub(super) fn read(process: &Process) -> Result<Self, ConfigError> {
        let mut config = Self::parse(&process.env, &process.argv[1.min(process.argv.len())..], &process.container.hostname)?;
        if config.pod_ip.is_empty() {
            config.pod_ip = process.container.net.address().to_string();
        }
        Ok(config)
    }

    fn parse(env: &BTreeMap<String, String>, flags: &[String], hostname: &str) -> Result<Self, ConfigError> {
        let mut settings = env.clone();
        let mut flags = flags.iter();
        while let Some(flag) = flags.next() {
            let (name, inline) = flag.split_once('=').map_or((flag.as_str(), None), |(name, value)| (name, Some(value)));
            let unknown = || ConfigError::Flag { flag: flag.clone() };
            let setting = SETTINGS.iter().find(|(setting, _)| flag_name(setting) == name).ok_or_else(unknown)?;
            let value = inline.or_else(|| flags.next().map(String::as_str)).ok_or_else(unknown)?;
            settings.insert(setting.0.to_owned(), value.to_owned());
        }
        // An empty variable is the usual way to say "not set" in a manifest.
        let get = |name: &str| settings.get(name).filter(|value| !value.is_empty());
        let text = |name: &str, default: &str| get(name).map_or(default, String::as_str).to_owned();
        let port = |name: &'static str| get(name).map(|value| number(name, value, "a port from 1 to 65535")).transpose();
        let boolean = |name: &'static str, default| get(name).map_or(Ok(default), |value| parse_bool(name, value));
        let duration = |name: &'static str, default| get(name).map_or(Ok(default), |value| setting_duration(name, value));
        Ok(Self {
            service: text("SERVICE_NAME", workload_name(hostname)),
            version: text("VERSION", "v1"),
            hostname: hostname.to_owned(),
            pod_ip: text("POD_IP", ""),
            port: port("PORT")?.unwrap_or(8080),
            grpc_port: port("GRPC_PORT")?,
            tcp_port: port("TCP_PORT")?,
            tcp_prefix: text("TCP_PREFIX", "hello"),
            message: get("MESSAGE").cloned(),
            color: color(&text("COLOR", "#eef4fb"))?,
            upstreams: parse_upstreams(&text("UPSTREAMS", ""))?,
            upstream_timeout: duration("UPSTREAM_TIMEOUT", Duration::from_secs(15))?,
            ignore_upstream_failure: boolean("IGNORE_UPSTREAM_FAILURE", false)?,
            fail_rate: get("FAIL_RATE").map_or(Ok(0.0), |value| parse_rate(value))?,
            fail_status: get("FAIL_STATUS").map_or(Ok(500), |value| parse_status("FAIL_STATUS", value))?,
            delay: duration("DELAY", Duration::ZERO)?,
            propagate: boolean("PROPAGATE", true)?,
        })
    }

    /// The ports that serve HTTP, each once.
    pub(super) fn http_ports(&self) -> impl Iterator<Item = u16> {
        std::iter::once(self.port).chain(self.grpc_port.filter(|port| *port != self.port))
    }

    /// The line that the app logs when it starts.
    pub(super) fn summary(&self) -> String {
        let ports: Vec<String> = self.http_ports().map(|port| format!("http :{port}")).collect();
        let tcp = self.tcp_port.map_or(String::new(), |port| format!(", tcp :{port}"));
        let calls = match self.upstreams.len() {
            0 => String::new(),
            _ => format!(", calls {}", self.upstreams.iter().map(|to| to.url.as_str()).collect::<Vec<_>>().join(" ")),
        };
        format!("{} {} on {} serves {}{tcp}{calls}", self.service, self.version, self.hostname, ports.join(", "))
    }
}

/// `reviews` of `reviews-6b4d8c9f7-x2x5z`: what is before a Deployment's hash and a pod's five characters.
fn workload_name(hostname: &str) -> &str {
    let mut parts = hostname.rsplitn(3, '-');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(pod), Some(hash), Some(name)) if pod.len() == 5 && (6..=10).contains(&hash.len()) => name,
        _ => hostname,
    }
}

fn number<T: std::str::FromStr + PartialOrd + Default>(
    name: &'static str,
    value: &str,
    expected: &'static str,
) -> Result<T, ConfigError> {
    let parsed = value.parse::<T>().ok().filter(|number| *number > T::default());
    parsed.ok_or_else(|| ConfigError::Value { name, value: value.to_owned(), expected })
}

fn parse_bool(name: &'static str, value: &str) -> Result<bool, ConfigError> {
    match value.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Ok(true),
        "false" | "0" | "no" | "off" => Ok(false),
        _ => Err(ConfigError::Value { name, value: value.to_owned(), expected: "true or false" }),
    }
}

fn setting_duration(name: &'static str, value: &str) -> Result<Duration, ConfigError> {
    let expected = "a duration up to 300s, such as 250ms or 2s";
    parse_duration(value).ok_or_else(|| ConfigError::Value { name, value: value.to_owned(), expected })
}

/// `250ms`, `2s`, `1.5s`, `1m`; a bare number is seconds. None beyond [`MAX_DELAY`].
pub(super) fn parse_duration(text: &str) -> Option<Duration> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let seconds = match unit {
        "ms" => number.parse::<f64>().ok()? / 1000.0,
        "s" | "" => number.parse().ok()?,
        "m" => number.parse::<f64>().ok()? * 60.0,
        _ => return None,
    };
    Duration::try_from_secs_f64(seconds).ok().filter(|duration| *duration <= MAX_DELAY)
}

fn parse_rate(value: &str) -> Result<f64, ConfigError> {
    let rate = match value.strip_suffix('%') {
        Some(percent) => percent.parse::<f64>().map(|percent| percent / 100.0),
        None => value.parse(),
    };
    let expected = "a rate from 0 to 1, or a percentage such as 25%";
    rate.ok().filter(|rate| (0.0..=1.0).contains(rate)).ok_or_else(|| ConfigError::Value {
        name: "FAIL_RATE",
        value: value.to_owned(),
        expected,
    })
}

fn parse_status(name: &'static str, value: &str) -> Result<u16, ConfigError> {
    let expected = "an HTTP status from 200 to 599";
    let status = value.parse().ok().filter(|status| (200..600).contains(status));
    status.ok_or_else(|| ConfigError::Value { name, value: value.to_owned(), expected })
}

fn color(value: &str) -> Result<String, ConfigError> {
    let fine = !value.is_empty() && value.chars().all(|c| c.is_ascii_alphanumeric() || c == '#');
    let expected = "a CSS colour name or #rrggbb";
    fine.then(|| value.to_owned()).ok_or_else(|| ConfigError::Value { name: "COLOR", value: value.to_owned(), expected })
}

fn parse_upstreams(list: &str) -> Result<Vec<Upstream>, ConfigError> {
    let entries = list.split([',', ' ', '\n', '\t']).map(str::trim).filter(|entry| !entry.is_empty());
    entries
        .map(|entry| {
            let (path, url) = match entry.split_once('=') {
                Some((path, url)) if path.starts_with('/') => (Some(path.to_owned()), url),
                _ => (None, entry),
            };
            let known = url.starts_with("http://") || url.starts_with("grpc://");
            let expected = "a list of http:// or grpc:// URLs, each alone or as /path=URL";
            match known && url.parse::<hyper::Uri>().is_ok() {
                true => Ok(Upstream { path, url: url.to_owned() }),
                false => Err(ConfigError::Value { name: "UPSTREAMS", value: entry.to_owned(), expected }),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(env: &[(&str, &str)], flags: &[&str]) -> Result<Config, ConfigError> {
        let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Config::parse(&env, &flags.iter().map(|flag| (*flag).to_owned()).collect::<Vec<_>>(), "reviews-6b4d8c9f7-x2x5z")
    }

    #[test]
    fn an_app_that_is_told_nothing_takes_its_name_from_its_pod() {
        let config = parse(&[("MESSAGE", "")], &[]).unwrap();
        insta::assert_snapshot!(config.summary(), @"reviews v1 on reviews-6b4d8c9f7-x2x5z serves http :8080");
        assert_eq!((config.message, config.propagate), (None, true));
    }

    #[test]
    fn flags_win_over_the_environment() {
        let config =
            parse(&[("VERSION", "v2"), ("UPSTREAMS", "http://a/x, /pay=http://b:81")], &["--version=v3", "--port", "80"]);
        let config = config.unwrap();
        insta::assert_snapshot!(config.summary(), @"reviews v3 on reviews-6b4d8c9f7-x2x5z serves http :80, calls http://a/x http://b:81");
        assert_eq!(config.upstreams[1].path.as_deref(), Some("/pay"));
    }

    #[test]
    fn rates_and_durations_have_their_usual_forms() {
        let config = parse(&[("FAIL_RATE", "25%"), ("DELAY", "1.5s")], &[]).unwrap();
        assert_eq!((config.fail_rate, config.delay), (0.25, Duration::from_millis(1500)));
        assert_eq!(parse_duration("2"), Some(Duration::from_secs(2)));
        assert_eq!(parse_duration("301s"), None);
        assert_eq!(parse_duration("fast"), None);
    }

    #[test]
    fn a_setting_that_cannot_be_used_is_named() {
        let message = |env: &[(&str, &str)]| parse(env, &[]).unwrap_err().to_string();
        insta::assert_snapshot!(message(&[("PORT", "http")]), @r#"PORT="http" is not a port from 1 to 65535"#);
        insta::assert_snapshot!(message(&[("FAIL_RATE", "2")]), @r#"FAIL_RATE="2" is not a rate from 0 to 1, or a percentage such as 25%"#);
        insta::assert_snapshot!(message(&[("UPSTREAMS", "https://a")]), @r#"UPSTREAMS="https://a" is not a list of http:// or grpc:// URLs, each alone or as /path=URL"#);
        assert!(matches!(parse(&[], &["--colour", "red"]), Err(ConfigError::Flag { .. })));
    }
}
