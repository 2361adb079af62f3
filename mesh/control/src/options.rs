//! istiod's arguments and environment, by Istio's names.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use meshlab_proxy_config::LogLevel;
use thiserror::Error;

/// An argument or variable that istiod cannot obey.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum OptionsError {
    /// The first argument is no command of pilot-discovery.
    #[error("unknown command {0:?} for \"pilot-discovery\"; the commands are discovery and version")]
    Command(String),
    /// A flag there is not.
    #[error("unknown flag: {0}")]
    Flag(String),
    /// A value that does not fit.
    #[error("invalid argument {value:?} for {name}: want {wanted}")]
    Value {
        /// Flag or variable.
        name: String,
        /// What it said.
        value: String,
        /// What it could say.
        wanted: &'static str,
    },
}

/// Whether pods get native sidecars, `ENABLE_NATIVE_SIDECARS`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NativeSidecars {
    /// Where every node's kubelet is 1.33 or later.
    Auto,
    /// Always.
    On,
    /// Never.
    Off,
}

/// How istiod runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Its namespace, also the mesh's root namespace unless mesh configuration says otherwise.
    pub namespace: String,
    /// Its pod.
    pub pod: String,
    /// `default`, unless several control planes run side by side.
    pub revision: String,
    /// `cluster.local`.
    pub domain: String,
    /// Debugging, `--httpAddr`.
    pub http: SocketAddr,
    /// Webhooks, `--httpsAddr`.
    pub https: SocketAddr,
    /// Discovery without TLS, `--grpcAddr`; `None` when it is switched off with an empty address.
    pub plaintext_discovery: Option<SocketAddr>,
    /// Discovery and CA, `--secureGRPCAddr`.
    pub secure_discovery: SocketAddr,
    /// Metrics, `--monitoringAddr`.
    pub monitoring: SocketAddr,
    /// Lifetime of workload certificates.
    pub certificate_ttl: Duration,
    /// Longest lifetime that may be asked for.
    pub max_certificate_ttl: Duration,
    /// Native sidecars.
    pub native_sidecars: NativeSidecars,
    /// `PILOT_TRACE_SAMPLING`, percent.
    pub trace_sampling: Option<String>,
    /// What is logged.
    pub log_level: LogLevel,
    /// Quiet time after a change before it is pushed, `PILOT_DEBOUNCE_AFTER`. Istio waits 100 ms; a learner should see an effect
    /// sooner, and compiling a lab takes a few milliseconds.
    pub debounce_after: Duration,
    /// A change is pushed at the latest after this, `PILOT_DEBOUNCE_MAX`.
    pub debounce_max: Duration,
}

impl Options {
    /// Reads the arguments after the executable's name, and the environment.
    ///
    /// # Errors
    /// See [`OptionsError`].
    pub fn parse(args: &[String], env: &BTreeMap<String, String>) -> Result<Self, OptionsError> {
        let text =
            |name: &str, default: &str| env.get(name).filter(|v| !v.is_empty()).cloned().unwrap_or_else(|| default.to_owned());
        let time = |name: &str, default: &str| parse_time(name, &text(name, default));
        let everywhere = |port| SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port);
        let mut options = Self {
            namespace: text("POD_NAMESPACE", "istio-system"),
            pod: text("POD_NAME", "istiod"),
            revision: text("REVISION", "default"),
            domain: "cluster.local".into(),
            http: everywhere(8080),
            https: everywhere(15017),
            plaintext_discovery: Some(everywhere(15010)),
            secure_discovery: everywhere(15012),
            monitoring: everywhere(15014),
            certificate_ttl: time("DEFAULT_WORKLOAD_CERT_TTL", "24h")?,
            max_certificate_ttl: time("MAX_WORKLOAD_CERT_TTL", "2160h")?,
            native_sidecars: match text("ENABLE_NATIVE_SIDECARS", "auto").as_str() {
                "auto" => NativeSidecars::Auto,
                "true" => NativeSidecars::On,
                "false" => NativeSidecars::Off,
                other => return Err(bad("ENABLE_NATIVE_SIDECARS", other, "true, false or auto")),
            },
            trace_sampling: env.get("PILOT_TRACE_SAMPLING").cloned(),
            log_level: LogLevel::Info,
            debounce_after: time("PILOT_DEBOUNCE_AFTER", "10ms")?,
            debounce_max: time("PILOT_DEBOUNCE_MAX", "50ms")?,
        };
        options.read_flags(args)?;
        Ok(options)
    }

    fn read_flags(&mut self, args: &[String]) -> Result<(), OptionsError> {
        let mut args = args.iter();
        match args.next().map(String::as_str) {
            Some("discovery") | None => {}
            Some(other) => return Err(OptionsError::Command(other.to_owned())),
        }
        while let Some(arg) = args.next() {
            let (name, value) = match arg.split_once('=') {
                Some((name, value)) => (name, value.to_owned()),
                None if arg == "--log_as_json" => continue,
                None => (arg.as_str(), args.next().cloned().unwrap_or_default()),
            };
            match name {
                "--domain" => self.domain = value,
                "--httpAddr" => self.http = parse_address(name, &value)?,
                "--httpsAddr" => self.https = parse_address(name, &value)?,
                "--grpcAddr" if value.is_empty() => self.plaintext_discovery = None,
                "--grpcAddr" => self.plaintext_discovery = Some(parse_address(name, &value)?),
                "--secureGRPCAddr" => self.secure_discovery = parse_address(name, &value)?,
                "--monitoringAddr" => self.monitoring = parse_address(name, &value)?,
                "--log_output_level" => self.log_level = parse_level(&value),
                // Taken by Istio's manifests; connections here are kept alive by HTTP/2 pings and have no greatest age.
                "--keepaliveMaxServerConnectionAge" | "--meshConfig" => {}
                other => return Err(OptionsError::Flag(other.to_owned())),
            }
        }
        Ok(())
    }
}

fn bad(name: &str, value: &str, wanted: &'static str) -> OptionsError {
    OptionsError::Value { name: name.to_owned(), value: value.to_owned(), wanted }
}

/// `:15014`, as Go writes every address of the machine, or a full address.
fn parse_address(name: &str, value: &str) -> Result<SocketAddr, OptionsError> {
    let full = if value.starts_with(':') { format!("0.0.0.0{value}") } else { value.to_owned() };
    full.parse().map_err(|_| bad(name, value, "an address such as :15014 or 127.0.0.1:15014"))
}

/// `default:info`, `default:debug,ads:info`, `debug`: the default scope's level counts for all scopes here.
fn parse_level(text: &str) -> LogLevel {
    let of_default = text.split(',').find_map(|part| match part.split_once(':') {
        Some(("default" | "all", level)) => Some(level),
        Some(_) => None,
        None => Some(part),
    });
    match of_default {
        Some("debug") => LogLevel::Debug,
        Some("warn") => LogLevel::Warn,
        Some("error" | "fatal" | "none") => LogLevel::Error,
        _ => LogLevel::Info,
    }
}

fn parse_time(name: &str, value: &str) -> Result<Duration, OptionsError> {
    let duration = value.parse::<meshlab_istio_api::Duration>().ok();
    let duration = duration.map(|duration| Duration::from_millis(duration.millis()));
    duration.ok_or_else(|| bad(name, value, "a duration such as 24h or 100ms"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str], env: &[(&str, &str)]) -> Result<Options, String> {
        let args: Vec<_> = args.iter().map(|arg| (*arg).to_owned()).collect();
        let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Options::parse(&args, &env).map_err(|error| error.to_string())
    }

    #[test]
    fn istios_own_arguments_are_understood() {
        let args = ["discovery", "--monitoringAddr=:15014", "--log_output_level=default:debug", "--domain", "cluster.local"];
        let options = parse(&args, &[("DEFAULT_WORKLOAD_CERT_TTL", "1h30m")]).unwrap();
        assert_eq!(options.monitoring.to_string(), "0.0.0.0:15014");
        assert_eq!(options.certificate_ttl, Duration::from_secs(5400));
        assert_eq!(options.log_level, LogLevel::Debug);
    }

    #[test]
    fn fact_47_istiods_ports() {
        let options = parse(&["discovery"], &[]).unwrap();
        let ports = [options.plaintext_discovery.unwrap(), options.secure_discovery, options.monitoring, options.https];
        assert_eq!(ports.map(|address| address.port()), [15010, 15012, 15014, 15017]);
    }

    #[test]
    fn what_is_not_understood_is_named() {
        insta::assert_snapshot!(parse(&["serve"], &[]).unwrap_err(), @r#"unknown command "serve" for "pilot-discovery"; the commands are discovery and version"#);
        insta::assert_snapshot!(parse(&["discovery", "--magic=1"], &[]).unwrap_err(), @"unknown flag: --magic");
        insta::assert_snapshot!(parse(&["discovery", "--httpAddr=x"], &[]).unwrap_err(), @r#"invalid argument "x" for --httpAddr: want an address such as :15014 or 127.0.0.1:15014"#);
        insta::assert_snapshot!(parse(&[], &[("ENABLE_NATIVE_SIDECARS", "maybe")]).unwrap_err(), @r#"invalid argument "maybe" for ENABLE_NATIVE_SIDECARS: want true, false or auto"#);
    }
}
