//! What the agent learns from its arguments, its environment and the files mounted into its container.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use meshlab_proxy::TrailAccess;
use meshlab_proxy_config::discovery::{Node, NodeKind};
use meshlab_proxy_config::{Files, LogLevel};
use serde_json::Value;
use thiserror::Error;

/// Where the mesh's root certificate is mounted.
pub(crate) const ROOT_CERTIFICATE: &str = "/var/run/secrets/istio/root-cert.pem";
/// Where the service-account token is mounted.
pub(crate) const TOKEN: &str = "/var/run/secrets/tokens/istio-token";
const POD_INFO: &str = "/etc/istio/pod";

/// An argument or variable that the agent cannot obey.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum EnvironmentError {
    /// A flag there is not.
    #[error("unknown flag: {0}")]
    Flag(String),
    /// Neither sidecar nor router.
    #[error("invalid proxy type {0:?}: want sidecar or router")]
    Role(String),
    /// A variable that every proxy needs.
    #[error("{0} is not set; it says who the proxy is")]
    Missing(&'static str),
    /// A value that does not fit.
    #[error("invalid value {value:?} of {name}: want {wanted}")]
    Value {
        /// Flag or variable.
        name: &'static str,
        /// What it said.
        value: String,
        /// What it could say.
        wanted: &'static str,
    },
}

/// How the agent runs.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Environment {
    /// All variables of the container.
    pub(crate) variables: Arc<BTreeMap<String, String>>,
    /// Who the proxy is.
    pub(crate) node: Node,
    /// `host:port` of istiod.
    pub(crate) control_plane: String,
    /// The certificate authority, usually istiod too.
    pub(crate) ca: String,
    /// `cluster.local`.
    pub(crate) trust_domain: String,
    /// Lifetime asked of the CA.
    pub(crate) certificate_ttl: Duration,
    /// A certificate is renewed when this share of its life is left.
    pub(crate) grace_ratio: f64,
    /// Probes and merged metrics.
    pub(crate) status_port: u16,
    /// Time for the proxy to finish what it serves.
    pub(crate) drain: Drain,
    /// `ISTIO_KUBE_APP_PROBERS`.
    pub(crate) app_probers: BTreeMap<String, Value>,
    /// `ISTIO_PROMETHEUS_ANNOTATIONS`.
    pub(crate) prometheus: Option<Value>,
    /// Who may ask the proxy why it decided as it did: `MESHLAB_TRAIL_IDENTITIES`, `MESHLAB_TRAIL_TOKENS` (lists with commas) and
    /// `MESHLAB_TRAIL_ANYONE`.
    pub(crate) trail: TrailAccess,
    /// What is logged.
    pub(crate) log_level: LogLevel,
}

/// How long the proxy goes on after it was told to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Drain {
    /// For this long, whatever is going on (`terminationDrainDuration`).
    For(Duration),
    /// At least for this long, then until no connection is left (`EXIT_ON_ZERO_ACTIVE_CONNECTIONS`).
    UntilIdle(Duration),
}

impl Environment {
    /// Reads the arguments after `proxy`.
    pub(crate) fn read<F: Files>(args: &[String], env: &BTreeMap<String, String>, files: &F) -> Result<Self, EnvironmentError> {
        let text = |name: &str| env.get(name).filter(|value| !value.is_empty()).cloned();
        let kind = match args.first().map(String::as_str) {
            Some("sidecar") | None => NodeKind::Sidecar,
            Some("router") => NodeKind::Router,
            Some(other) => return Err(EnvironmentError::Role(other.to_owned())),
        };
        let flags = Flags::parse(args.get(1..).unwrap_or_default())?;
        let proxy_config = match text("PROXY_CONFIG") {
            None => Value::Null,
            Some(config) => serde_json::from_str(&config).map_err(|_| EnvironmentError::Value {
                name: "PROXY_CONFIG",
                value: config,
                wanted: "JSON",
            })?,
        };
        let pod = text("POD_NAME").ok_or(EnvironmentError::Missing("POD_NAME"))?;
        let namespace = text("POD_NAMESPACE").ok_or(EnvironmentError::Missing("POD_NAMESPACE"))?;
        let info =
            |file: &str| files.read(&format!("{POD_INFO}/{file}")).map(|content| parse_pod_info(&content)).unwrap_or_default();
        let meta = |name: &str| text(&format!("ISTIO_META_{name}")).unwrap_or_default();
        let domain =
            flags.domain.unwrap_or_else(|| format!("{namespace}.svc.cluster.local")).replace("$(POD_NAMESPACE)", &namespace);
        let node = Node {
            kind,
            ip: text("INSTANCE_IP").unwrap_or_default(),
            service_account: text("SERVICE_ACCOUNT").unwrap_or_else(|| "default".into()),
            labels: info("labels"),
            annotations: info("annotations"),
            workload: text("ISTIO_META_WORKLOAD_NAME").unwrap_or_else(|| pod.clone()),
            cluster_id: text("ISTIO_META_CLUSTER_ID").unwrap_or_else(|| "Kubernetes".into()),
            dns_domain: domain,
            node_name: meta("NODE_NAME"),
            interception_mode: text("ISTIO_META_INTERCEPTION_MODE").unwrap_or_else(|| "REDIRECT".into()),
            version: env!("CARGO_PKG_VERSION").into(),
            pod,
            namespace,
        };
        let set = |field: &str| proxy_config[field].as_str().map(str::to_owned);
        let control_plane = set("discoveryAddress").unwrap_or_else(|| "istiod.istio-system.svc:15012".into());
        let parse_port = |port: &Value| port.as_u64().and_then(|port| u16::try_from(port).ok());
        Ok(Self {
            variables: Arc::new(env.clone()),
            node,
            ca: text("CA_ADDR").unwrap_or_else(|| control_plane.clone()),
            control_plane,
            trust_domain: text("TRUST_DOMAIN").unwrap_or_else(|| "cluster.local".into()),
            certificate_ttl: duration("SECRET_TTL", text("SECRET_TTL").as_deref().unwrap_or("24h"))?,
            grace_ratio: ratio(text("SECRET_GRACE_PERIOD_RATIO"))?,
            status_port: parse_port(&proxy_config["statusPort"]).unwrap_or(15020),
            drain: drain(&text, set("terminationDrainDuration"))?,
            app_probers: json_variable("ISTIO_KUBE_APP_PROBERS", &text)?.unwrap_or_default(),
            prometheus: json_variable("ISTIO_PROMETHEUS_ANNOTATIONS", &text)?,
            trail: TrailAccess {
                identities: list(text("MESHLAB_TRAIL_IDENTITIES")),
                tokens: list(text("MESHLAB_TRAIL_TOKENS")),
                anyone: text("MESHLAB_TRAIL_ANYONE").as_deref() == Some("true"),
            },
            log_level: flags.log_level,
        })
    }

    /// `spiffe://cluster.local/ns/default/sa/reviews`
    pub(crate) fn spiffe_id(&self) -> String {
        format!("spiffe://{}/ns/{}/sa/{}", self.trust_domain, self.node.namespace, self.node.service_account)
    }

    /// `sidecar~10.244.0.7~reviews-v1-abc.default~default.svc.cluster.local`
    pub(crate) fn node_id(&self) -> String {
        let kind = match self.node.kind {
            NodeKind::Sidecar => "sidecar",
            NodeKind::Router => "router",
        };
        format!("{kind}~{}~{}~{}", self.node.ip, self.node.name(), self.node.dns_domain)
    }
}

struct Flags {
    domain: Option<String>,
    log_level: LogLevel,
}

impl Flags {
    fn parse(args: &[String]) -> Result<Self, EnvironmentError> {
        let mut flags = Self { domain: None, log_level: LogLevel::Info };
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let (name, value) = match arg.split_once('=') {
                Some((name, value)) => (name, value.to_owned()),
                None if arg == "--log_as_json" => continue,
                None => (arg.as_str(), args.next().cloned().unwrap_or_default()),
            };
            match name {
                "--domain" => flags.domain = Some(value),
                "--log_output_level" => flags.log_level = log_level(&value),
                // Levels of Envoy's own log, and settings of what this agent has no part in.
                "--proxyLogLevel"
                | "--proxyComponentLogLevel"
                | "--serviceCluster"
                | "--concurrency"
                | "--stsPort"
                | "--trust-domain"
                | "--outlierLogPath" => {}
                other => return Err(EnvironmentError::Flag(other.to_owned())),
            }
        }
        Ok(flags)
    }
}

fn log_level(text: &str) -> LogLevel {
    let level = text.split(',').find_map(|part| match part.split_once(':') {
        Some(("default" | "all", level)) => Some(level),
        Some(_) => None,
        None => Some(part),
    });
    match level {
        Some("debug") => LogLevel::Debug,
        Some("warn" | "warning") => LogLevel::Warn,
        Some("error" | "fatal" | "none") => LogLevel::Error,
        _ => LogLevel::Info,
    }
}

fn drain(text: &impl Fn(&str) -> Option<String>, configured: Option<String>) -> Result<Drain, EnvironmentError> {
    if text("EXIT_ON_ZERO_ACTIVE_CONNECTIONS").as_deref() == Some("true") {
        let least = text("MINIMUM_DRAIN_DURATION");
        return Ok(Drain::UntilIdle(duration("MINIMUM_DRAIN_DURATION", least.as_deref().unwrap_or("5s"))?));
    }
    let set = text("TERMINATION_DRAIN_DURATION_SECONDS").map(|seconds| format!("{seconds}s")).or(configured);
    Ok(Drain::For(duration("terminationDrainDuration", set.as_deref().unwrap_or("5s"))?))
}

fn list(text: Option<String>) -> Vec<String> {
    let text = text.unwrap_or_default();
    text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect()
}

fn json_variable<T: serde::de::DeserializeOwned>(
    name: &'static str,
    text: &impl Fn(&str) -> Option<String>,
) -> Result<Option<T>, EnvironmentError> {
    let Some(value) = text(name) else { return Ok(None) };
    serde_json::from_str(&value).map(Some).map_err(|_| EnvironmentError::Value {
        name,
        value,
        wanted: "JSON as the injector writes it",
    })
}

fn ratio(text: Option<String>) -> Result<f64, EnvironmentError> {
    let value = text.unwrap_or_else(|| "0.5".into());
    let parsed = value.parse().ok().filter(|ratio| (0.0..1.0).contains(ratio));
    parsed.ok_or(EnvironmentError::Value { name: "SECRET_GRACE_PERIOD_RATIO", value, wanted: "a number from 0 to 1" })
}

/// Go's notation, as far as settings use it: `24h`, `1h30m`, `5s`, `250ms`.
fn duration(name: &'static str, text: &str) -> Result<Duration, EnvironmentError> {
    parse_duration(text).ok_or_else(|| EnvironmentError::Value {
        name,
        value: text.to_owned(),
        wanted: "a duration such as 24h or 5s",
    })
}

pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let number_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..number_end].parse().ok()?;
        rest = &rest[number_end..];
        let unit_end = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let seconds = match &rest[..unit_end] {
            "ms" => 0.001,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        total = total.checked_add(Duration::try_from_secs_f64(number * seconds).ok()?)?;
        rest = &rest[unit_end..];
    }
    (!text.is_empty()).then_some(total)
}

/// The downward API writes `name="value"`, a line each, the value quoted as Go quotes it.
fn parse_pod_info(content: &[u8]) -> BTreeMap<String, String> {
    let text = String::from_utf8_lossy(content);
    let entries = text.lines().filter_map(|line| {
        let (name, value) = line.split_once('=')?;
        // JSON's escapes are those of Go that occur in annotations.
        let value = serde_json::from_str::<String>(value).unwrap_or_else(|_| value.trim_matches('"').to_owned());
        Some((name.to_owned(), value))
    });
    entries.collect()
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[derive(Clone)]
    struct PodInfo;

    impl Files for PodInfo {
        fn read(&self, path: &str) -> io::Result<Vec<u8>> {
            match path {
                "/etc/istio/pod/labels" => Ok(b"app=\"reviews\"\nversion=\"v1\"\n".to_vec()),
                _ => Err(io::ErrorKind::NotFound.into()),
            }
        }

        fn write(&self, _: &str, _: &[u8]) -> io::Result<()> {
            Err(io::ErrorKind::PermissionDenied.into())
        }
    }

    fn read(args: &[&str], env: &[(&str, &str)]) -> Result<Environment, String> {
        let args: Vec<_> = args.iter().map(|arg| (*arg).to_owned()).collect();
        let own = [("POD_NAME", "reviews-1"), ("POD_NAMESPACE", "default"), ("INSTANCE_IP", "10.244.0.7")];
        let env = own.iter().chain(env).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Environment::read(&args, &env, &PodInfo).map_err(|error| error.to_string())
    }

    #[test]
    fn a_sidecar_knows_who_it_is() {
        let args = ["sidecar", "--domain", "$(POD_NAMESPACE).svc.cluster.local", "--proxyLogLevel=warning"];
        let environment = read(&args, &[("SERVICE_ACCOUNT", "reviews"), ("PROXY_CONFIG", "{\"statusPort\":16020}\n")]).unwrap();
        assert_eq!(environment.node_id(), "sidecar~10.244.0.7~reviews-1.default~default.svc.cluster.local");
        assert_eq!(environment.spiffe_id(), "spiffe://cluster.local/ns/default/sa/reviews");
        assert_eq!(environment.node.labels["version"], "v1");
        assert_eq!(environment.status_port, 16020);
        assert_eq!(environment.drain, Drain::For(Duration::from_secs(5)));
    }

    #[test]
    fn what_cannot_be_obeyed_is_named() {
        insta::assert_snapshot!(read(&["waypoint"], &[]).unwrap_err(), @r#"invalid proxy type "waypoint": want sidecar or router"#);
        insta::assert_snapshot!(read(&["sidecar", "--magic"], &[]).unwrap_err(), @"unknown flag: --magic");
        insta::assert_snapshot!(read(&["sidecar"], &[("SECRET_GRACE_PERIOD_RATIO", "2")]).unwrap_err(), @r#"invalid value "2" of SECRET_GRACE_PERIOD_RATIO: want a number from 0 to 1"#);
        insta::assert_snapshot!(read(&["sidecar"], &[("PROXY_CONFIG", "x")]).unwrap_err(), @r#"invalid value "x" of PROXY_CONFIG: want JSON"#);
        insta::assert_snapshot!(Environment::read(&[], &BTreeMap::new(), &PodInfo).unwrap_err(), @"POD_NAME is not set; it says who the proxy is");
    }

    #[test]
    fn durations_are_gos() {
        assert_eq!(parse_duration("1h30m"), Some(Duration::from_secs(5400)));
        assert_eq!(parse_duration("250ms"), Some(Duration::from_millis(250)));
        assert_eq!(parse_duration("1.5s"), Some(Duration::from_millis(1500)));
        for bad in ["", "5", "s", "5x", "1e400h"] {
            assert_eq!(parse_duration(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_proxy_may_stay_until_it_is_idle() {
        let environment =
            read(&["sidecar"], &[("EXIT_ON_ZERO_ACTIVE_CONNECTIONS", "true"), ("MINIMUM_DRAIN_DURATION", "1s")]).unwrap();
        assert_eq!(environment.drain, Drain::UntilIdle(Duration::from_secs(1)));
    }
}
