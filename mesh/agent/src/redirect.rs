//! `istio-iptables`: redirecting a pod's traffic to its proxy. What the flags say becomes a [`Redirect`]; a [`Redirector`] puts it
//! in force, on the virtual network at once and on Linux with iptables.

use std::process::Stdio;

use meshlab_net::{PodNet, Redirect, RedirectParseError, Selection};
use thiserror::Error;
use tokio::io::AsyncWriteExt;

/// Puts a pod's redirection in force.
pub trait Redirector: Send + Sync + 'static {
    /// Replaces the rules of this pod.
    ///
    /// # Errors
    /// See [`RedirectError`].
    fn redirect(&self, rules: Redirect) -> impl Future<Output = Result<(), RedirectError>> + Send;
}

impl Redirector for PodNet {
    async fn redirect(&self, rules: Redirect) -> Result<(), RedirectError> {
        self.set_redirect(rules);
        Ok(())
    }
}

/// Linux: rules of the `nat` table, handed to the `iptables-restore` binary.
#[derive(Debug, Clone, Copy, Default)]
pub struct Iptables;

/// The redirection is not in force.
#[derive(Debug, Error)]
pub enum RedirectError {
    /// A flag there is not.
    #[error("unknown flag: {0}")]
    Flag(String),
    /// A flag without its value.
    #[error("flag needs an argument: {0}")]
    NoValue(String),
    /// A number that is none.
    #[error("invalid argument {value:?} for {flag}: want a number")]
    Number {
        /// Which flag.
        flag: String,
        /// What it said.
        value: String,
    },
    /// A list that cannot be read.
    #[error("invalid argument for {flag}: {error}")]
    List {
        /// Which flag.
        flag: String,
        /// Why.
        error: RedirectParseError,
    },
    /// An interception mode that is not done here.
    #[error("interception mode {0} is not supported; use REDIRECT, or NONE to do without")]
    Mode(String),
    /// The tool is missing.
    #[error(
        "cannot run iptables-restore ({0}); the image needs the iptables package, or the cluster a CNI plugin that redirects"
    )]
    Tool(std::io::Error),
    /// The tool failed.
    #[error("iptables-restore failed: {0}; the container needs the capabilities NET_ADMIN and NET_RAW")]
    Failed(String),
}

impl Redirector for Iptables {
    async fn redirect(&self, rules: Redirect) -> Result<(), RedirectError> {
        let mut command = tokio::process::Command::new("iptables-restore");
        command.arg("--noflush").stdin(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(RedirectError::Tool)?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(iptables_rules(&rules).as_bytes()).await.map_err(RedirectError::Tool)?;
        }
        let done = child.wait_with_output().await.map_err(RedirectError::Tool)?;
        if done.status.success() {
            return Ok(());
        }
        Err(RedirectError::Failed(String::from_utf8_lossy(&done.stderr).trim().to_owned()))
    }
}

/// Reads the flags of `istio-iptables`; `None` when nothing is to be redirected (`-m NONE`, or `--skip-rule-apply`).
///
/// # Errors
/// See [`RedirectError`].
pub fn parse(args: &[String]) -> Result<Option<Redirect>, RedirectError> {
    let mut redirect = Redirect::default();
    let mut wanted = true;
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        if matches!(arg.as_str(), "--log_as_json" | "--run-validation" | "--force-apply" | "--native-nftables") {
            continue;
        }
        if arg == "--skip-rule-apply" {
            wanted = false;
            continue;
        }
        let (flag, value) = match arg.split_once('=') {
            Some((flag, value)) => (flag, value.to_owned()),
            None => (arg.as_str(), args.next().ok_or_else(|| RedirectError::NoValue(arg.clone()))?.clone()),
        };
        wanted &= set(&mut redirect, flag, &value)?;
    }
    Ok(wanted.then_some(redirect))
}

/// Takes one flag; false when it says that nothing is to be redirected.
fn set(redirect: &mut Redirect, flag: &str, value: &str) -> Result<bool, RedirectError> {
    let list = |error| RedirectError::List { flag: flag.to_owned(), error };
    match flag {
        "-p" | "--envoy-port" => redirect.outbound_port = number(flag, value)?,
        "-z" | "--inbound-capture-port" => redirect.inbound_port = number(flag, value)?,
        "-e" | "--inbound-tunnel-port" => redirect.tunnel_port = number(flag, value)?,
        "-u" | "--proxy-uid" => {
            let ids = value.split(',').filter(|id| !id.is_empty());
            redirect.exempt_uids = ids.map(|id| number(flag, id)).collect::<Result<_, _>>()?;
        }
        "-m" | "--istio-inbound-interception-mode" => match value {
            "REDIRECT" => {}
            "NONE" => return Ok(false),
            other => return Err(RedirectError::Mode(other.to_owned())),
        },
        "-i" | "--istio-service-cidr" => redirect.include_outbound_ip_ranges = Selection::ip_ranges(value).map_err(list)?,
        "-x" | "--istio-service-exclude-cidr" => {
            redirect.exclude_outbound_ip_ranges = Redirect::ip_ranges(value).map_err(list)?
        }
        "-b" | "--istio-inbound-ports" => redirect.include_inbound_ports = Selection::ports(value).map_err(list)?,
        "-d" | "--istio-local-exclude-ports" => redirect.exclude_inbound_ports = Redirect::ports(value).map_err(list)?,
        "-q" | "--istio-outbound-ports" => redirect.include_outbound_ports = Redirect::ports(value).map_err(list)?,
        "-o" | "--istio-local-outbound-ports-exclude" => {
            redirect.exclude_outbound_ports = Redirect::ports(value).map_err(list)?
        }
        // The proxy's group is told by its user; there is one interface; log scopes are not configurable.
        "-g" | "--proxy-gid" | "-k" | "--kube-virt-interfaces" | "-c" | "--istio-exclude-interfaces" | "--log_output_level" => {}
        other => return Err(RedirectError::Flag(other.to_owned())),
    }
    Ok(true)
}

fn number<T: std::str::FromStr>(flag: &str, value: &str) -> Result<T, RedirectError> {
    value.parse().map_err(|_| RedirectError::Number { flag: flag.to_owned(), value: value.to_owned() })
}

/// The rules for `iptables-restore`, in Istio's chains.
fn iptables_rules(redirect: &Redirect) -> String {
    let mut rules = String::from("*nat\n");
    let mut rule = |text: String| {
        rules.push_str(&text);
        rules.push('\n');
    };
    for chain in ["ISTIO_INBOUND", "ISTIO_REDIRECT", "ISTIO_IN_REDIRECT", "ISTIO_OUTPUT"] {
        rule(format!(":{chain} - [0:0]"));
    }
    rule(format!("-A ISTIO_REDIRECT -p tcp -j REDIRECT --to-ports {}", redirect.outbound_port));
    rule(format!("-A ISTIO_IN_REDIRECT -p tcp -j REDIRECT --to-ports {}", redirect.inbound_port));

    rule("-A PREROUTING -p tcp -j ISTIO_INBOUND".into());
    rule(format!("-A ISTIO_INBOUND -p tcp --dport {} -j RETURN", redirect.tunnel_port));
    match &redirect.include_inbound_ports {
        Selection::All => {
            for port in [15090, 15021, 15020].iter().chain(&redirect.exclude_inbound_ports) {
                rule(format!("-A ISTIO_INBOUND -p tcp --dport {port} -j RETURN"));
            }
            rule("-A ISTIO_INBOUND -p tcp -j ISTIO_IN_REDIRECT".into());
        }
        Selection::Only(ports) => {
            for port in ports {
                rule(format!("-A ISTIO_INBOUND -p tcp --dport {port} -j ISTIO_IN_REDIRECT"));
            }
        }
    }

    rule("-A OUTPUT -p tcp -j ISTIO_OUTPUT".into());
    for port in &redirect.exclude_outbound_ports {
        rule(format!("-A ISTIO_OUTPUT -p tcp --dport {port} -j RETURN"));
    }
    // The proxy reaches its own app from this address.
    rule("-A ISTIO_OUTPUT -s 127.0.0.6/32 -o lo -j RETURN".into());
    for uid in &redirect.exempt_uids {
        let tunnel = redirect.tunnel_port;
        rule(format!(
            "-A ISTIO_OUTPUT ! -d 127.0.0.1/32 -o lo -p tcp ! --dport {tunnel} -m owner --uid-owner {uid} -j ISTIO_IN_REDIRECT"
        ));
        rule(format!("-A ISTIO_OUTPUT -o lo -m owner ! --uid-owner {uid} -j RETURN"));
        rule(format!("-A ISTIO_OUTPUT -m owner --uid-owner {uid} -j RETURN"));
    }
    rule("-A ISTIO_OUTPUT -d 127.0.0.1/32 -j RETURN".into());
    for range in &redirect.exclude_outbound_ip_ranges {
        rule(format!("-A ISTIO_OUTPUT -d {range} -j RETURN"));
    }
    for port in &redirect.include_outbound_ports {
        rule(format!("-A ISTIO_OUTPUT -p tcp --dport {port} -j ISTIO_REDIRECT"));
    }
    match &redirect.include_outbound_ip_ranges {
        Selection::All => rule("-A ISTIO_OUTPUT -j ISTIO_REDIRECT".into()),
        Selection::Only(ranges) => {
            for range in ranges {
                rule(format!("-A ISTIO_OUTPUT -d {range} -j ISTIO_REDIRECT"));
            }
        }
    }
    rules.push_str("COMMIT\n");
    rules
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Option<Redirect>, String> {
        let args: Vec<_> = line.split(' ').map(|arg| arg.replace("''", "")).collect();
        parse(&args).map_err(|error| error.to_string())
    }

    #[test]
    fn the_injectors_flags_are_understood() {
        let line = "-p 15001 -z 15006 -u 1337 -m REDIRECT -i * -x '' -b * -d 15090,15021,15020 --log_output_level=default:info";
        let redirect = read(line).unwrap().unwrap();
        assert_eq!(redirect, Redirect { exclude_inbound_ports: vec![15090, 15021, 15020], ..Redirect::default() });
        assert_eq!(read("-m NONE"), Ok(None));
    }

    #[test]
    fn what_is_not_understood_is_named() {
        insta::assert_snapshot!(read("-p x").unwrap_err(), @r#"invalid argument "x" for -p: want a number"#);
        insta::assert_snapshot!(read("-i 10.0.0.0/99").unwrap_err(), @r#"invalid argument for -i: "10.0.0.0/99" is not an IP range; write a comma-separated list, or "*" for all"#);
        insta::assert_snapshot!(read("-m TPROXY").unwrap_err(), @"interception mode TPROXY is not supported; use REDIRECT, or NONE to do without");
        insta::assert_snapshot!(read("--magic 1").unwrap_err(), @"unknown flag: --magic");
        insta::assert_snapshot!(read("-p").unwrap_err(), @"flag needs an argument: -p");
    }

    #[test]
    fn linux_gets_istios_chains() {
        let redirect = read("-u 1337 -x 10.96.7.0/24 -o 3306 -d 9000").unwrap().unwrap();
        insta::assert_snapshot!(iptables_rules(&redirect), @r#"
    *nat
    :ISTIO_INBOUND - [0:0]
    :ISTIO_REDIRECT - [0:0]
    :ISTIO_IN_REDIRECT - [0:0]
    :ISTIO_OUTPUT - [0:0]
    -A ISTIO_REDIRECT -p tcp -j REDIRECT --to-ports 15001
    -A ISTIO_IN_REDIRECT -p tcp -j REDIRECT --to-ports 15006
    -A PREROUTING -p tcp -j ISTIO_INBOUND
    -A ISTIO_INBOUND -p tcp --dport 15008 -j RETURN
    -A ISTIO_INBOUND -p tcp --dport 15090 -j RETURN
    -A ISTIO_INBOUND -p tcp --dport 15021 -j RETURN
    -A ISTIO_INBOUND -p tcp --dport 15020 -j RETURN
    -A ISTIO_INBOUND -p tcp --dport 9000 -j RETURN
    -A ISTIO_INBOUND -p tcp -j ISTIO_IN_REDIRECT
    -A OUTPUT -p tcp -j ISTIO_OUTPUT
    -A ISTIO_OUTPUT -p tcp --dport 3306 -j RETURN
    -A ISTIO_OUTPUT -s 127.0.0.6/32 -o lo -j RETURN
    -A ISTIO_OUTPUT ! -d 127.0.0.1/32 -o lo -p tcp ! --dport 15008 -m owner --uid-owner 1337 -j ISTIO_IN_REDIRECT
    -A ISTIO_OUTPUT -o lo -m owner ! --uid-owner 1337 -j RETURN
    -A ISTIO_OUTPUT -m owner --uid-owner 1337 -j RETURN
    -A ISTIO_OUTPUT -d 127.0.0.1/32 -j RETURN
    -A ISTIO_OUTPUT -d 10.96.7.0/24 -j RETURN
    -A ISTIO_OUTPUT -j ISTIO_REDIRECT
    COMMIT
    "#);
    }
}
