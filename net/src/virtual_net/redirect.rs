//! The redirection of a pod's traffic to its sidecar.
//!
//! The order of the rules is that of Istio's `tools/istio-iptables/pkg/capture/run.go` (REDIRECT mode).

use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use thiserror::Error;

/// Ports of the sidecar itself that are never redirected inwards, as Istio's injection template excludes them: Prometheus metrics
/// of the proxy, readiness and merged metrics.
const SIDECAR_PORTS: [u16; 3] = [15090, 15021, 15020];

/// The source address of a sidecar's connections to its own application.
const INBOUND_PASSTHROUGH: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 6));

/// Everything, or the listed things only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection<T> {
    /// `*`
    All,
    /// A list, possibly empty.
    Only(Vec<T>),
}

/// An annotation's value is neither `*` nor a list.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{value:?} is not {expected}; write a comma-separated list, or \"*\" for all")]
pub struct RedirectParseError {
    /// The item at fault.
    pub value: String,
    /// What it should have been: `a port number`, `an IP range`.
    pub expected: &'static str,
}

/// What `istio-init` sets up in a pod; [`Redirect::default`] is Istio's default. Fields are named after the annotations
/// `traffic.sidecar.istio.io/*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redirect {
    /// Users whose outbound traffic is left alone: the sidecar's own, 1337.
    pub exempt_uids: Vec<u32>,
    /// Where outbound traffic goes: 15001.
    pub outbound_port: u16,
    /// Where inbound traffic goes: 15006.
    pub inbound_port: u16,
    /// The HBONE port, never redirected: 15008.
    pub tunnel_port: u16,
    /// Outbound destinations to redirect.
    pub include_outbound_ip_ranges: Selection<IpNet>,
    /// Outbound destinations not to redirect; stronger than the inclusions.
    pub exclude_outbound_ip_ranges: Vec<IpNet>,
    /// Outbound ports to redirect whatever the destination.
    pub include_outbound_ports: Vec<u16>,
    /// Outbound ports not to redirect; stronger than everything else.
    pub exclude_outbound_ports: Vec<u16>,
    /// Inbound ports to redirect.
    pub include_inbound_ports: Selection<u16>,
    /// Inbound ports not to redirect when all are included. 15020, 15021 and 15090 always are in this list.
    pub exclude_inbound_ports: Vec<u16>,
}

impl Default for Redirect {
    fn default() -> Self {
        Self {
            exempt_uids: vec![1337],
            outbound_port: 15001,
            inbound_port: 15006,
            tunnel_port: 15008,
            include_outbound_ip_ranges: Selection::All,
            exclude_outbound_ip_ranges: Vec::new(),
            include_outbound_ports: Vec::new(),
            exclude_outbound_ports: Vec::new(),
            include_inbound_ports: Selection::All,
            exclude_inbound_ports: Vec::new(),
        }
    }
}

/// Where the rules send a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// On, untouched.
    Pass,
    /// To this port of the pod.
    To(u16),
}

/// A connection that a process of the pod opens.
pub(super) struct Outbound {
    pub(super) uid: u32,
    /// The source address, where the process chose one.
    pub(super) source: Option<IpAddr>,
    pub(super) address: IpAddr,
    pub(super) port: u16,
    /// The destination is the pod itself, so the packet leaves on the loopback interface.
    pub(super) loopback: bool,
}

impl Redirect {
    /// The `OUTPUT` rules.
    pub(super) fn outbound(&self, connection: &Outbound) -> Verdict {
        let localhost =
            connection.address == IpAddr::from([127, 0, 0, 1]) || connection.address == IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]);
        if self.exclude_outbound_ports.contains(&connection.port) {
            return Verdict::Pass;
        }
        if connection.loopback && connection.source == Some(INBOUND_PASSTHROUGH) {
            return Verdict::Pass;
        }
        if self.exempt_uids.contains(&connection.uid) {
            // The sidecar calls its own application through a service: that call goes through the inbound listener as well.
            let back_to_self = connection.loopback && !localhost && connection.port != self.tunnel_port;
            return if back_to_self { Verdict::To(self.inbound_port) } else { Verdict::Pass };
        }
        if connection.loopback && !self.includes_loopback() {
            return Verdict::Pass;
        }
        if localhost || self.exclude_outbound_ip_ranges.iter().any(|range| range.contains(&connection.address)) {
            return Verdict::Pass;
        }
        let included = self.include_outbound_ports.contains(&connection.port)
            || match &self.include_outbound_ip_ranges {
                Selection::All => true,
                Selection::Only(ranges) => ranges.iter().any(|range| range.contains(&connection.address)),
            };
        if included { Verdict::To(self.outbound_port) } else { Verdict::Pass }
    }

    /// The `PREROUTING` rules.
    pub(super) fn inbound(&self, port: u16) -> Verdict {
        if port == self.tunnel_port {
            return Verdict::Pass;
        }
        let redirected = match &self.include_inbound_ports {
            Selection::All => !self.exclude_inbound_ports.contains(&port) && !SIDECAR_PORTS.contains(&port),
            Selection::Only(ports) => ports.contains(&port),
        };
        if redirected { Verdict::To(self.inbound_port) } else { Verdict::Pass }
    }

    fn includes_loopback(&self) -> bool {
        match &self.include_outbound_ip_ranges {
            Selection::All => false,
            Selection::Only(ranges) => ranges.iter().any(|range| range.addr().is_loopback()),
        }
    }

    /// Reads a list of ports (`8080,8443`); empty text is an empty list.
    ///
    /// # Errors
    /// [`RedirectParseError`] names the item that is no port.
    pub fn ports(list: &str) -> Result<Vec<u16>, RedirectParseError> {
        parse_list(list, "a port number")
    }

    /// Reads a list of IP ranges (`10.0.0.0/8,192.168.0.1/32`); empty text is an empty list.
    ///
    /// # Errors
    /// [`RedirectParseError`] names the item that is no range.
    pub fn ip_ranges(list: &str) -> Result<Vec<IpNet>, RedirectParseError> {
        parse_list(list, "an IP range")
    }
}

impl Selection<u16> {
    /// Reads `*` or a list of ports.
    ///
    /// # Errors
    /// [`RedirectParseError`] names the item that is no port.
    pub fn ports(text: &str) -> Result<Self, RedirectParseError> {
        if text.trim() == "*" { Ok(Self::All) } else { Redirect::ports(text).map(Self::Only) }
    }
}

impl Selection<IpNet> {
    /// Reads `*` or a list of IP ranges.
    ///
    /// # Errors
    /// [`RedirectParseError`] names the item that is no range.
    pub fn ip_ranges(text: &str) -> Result<Self, RedirectParseError> {
        if text.trim() == "*" { Ok(Self::All) } else { Redirect::ip_ranges(text).map(Self::Only) }
    }
}

fn parse_list<T: FromStr>(list: &str, expected: &'static str) -> Result<Vec<T>, RedirectParseError> {
    let items = list.split(',').map(str::trim).filter(|item| !item.is_empty());
    items.map(|item| item.parse().map_err(|_| RedirectParseError { value: item.to_owned(), expected })).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const POD: [u8; 4] = [10, 244, 0, 5];
    const APP: u32 = 1000;
    const SIDECAR: u32 = 1337;

    fn outbound(redirect: &Redirect, uid: u32, source: Option<[u8; 4]>, address: [u8; 4], port: u16) -> Verdict {
        let loopback = address == POD || address[0] == 127;
        let connection = Outbound { uid, source: source.map(IpAddr::from), address: address.into(), port, loopback };
        redirect.outbound(&connection)
    }

    #[test]
    fn applications_go_through_the_sidecar_and_the_sidecar_does_not() {
        let rules = Redirect::default();
        assert_eq!(outbound(&rules, APP, None, [10, 96, 0, 9], 80), Verdict::To(15001));
        assert_eq!(outbound(&rules, SIDECAR, None, [10, 96, 0, 9], 80), Verdict::Pass);
    }

    #[test]
    fn calls_within_the_pod_are_the_applications_own_business() {
        let rules = Redirect::default();
        assert_eq!(outbound(&rules, APP, None, POD, 8080), Verdict::Pass);
        assert_eq!(outbound(&rules, APP, None, [127, 0, 0, 1], 8080), Verdict::Pass);
        assert_eq!(outbound(&rules, APP, None, [127, 0, 0, 9], 8080), Verdict::Pass);
    }

    #[test]
    fn a_sidecar_that_calls_its_own_pod_enters_it_by_the_front_door() {
        let rules = Redirect::default();
        assert_eq!(outbound(&rules, SIDECAR, None, POD, 8080), Verdict::To(15006));
        assert_eq!(outbound(&rules, SIDECAR, None, POD, 15008), Verdict::Pass);
        assert_eq!(outbound(&rules, SIDECAR, None, [127, 0, 0, 1], 8080), Verdict::Pass);
        assert_eq!(outbound(&rules, SIDECAR, Some([127, 0, 0, 6]), POD, 8080), Verdict::Pass);
    }

    #[test]
    fn outbound_annotations_include_and_exclude() {
        let rules = Redirect {
            include_outbound_ip_ranges: Selection::ip_ranges("10.96.0.0/12").unwrap(),
            exclude_outbound_ip_ranges: Redirect::ip_ranges("10.96.7.0/24").unwrap(),
            include_outbound_ports: Redirect::ports("5432").unwrap(),
            exclude_outbound_ports: Redirect::ports("3306").unwrap(),
            ..Redirect::default()
        };
        assert_eq!(outbound(&rules, APP, None, [10, 96, 0, 9], 80), Verdict::To(15001));
        assert_eq!(outbound(&rules, APP, None, [10, 96, 7, 9], 80), Verdict::Pass);
        assert_eq!(outbound(&rules, APP, None, [10, 96, 7, 9], 5432), Verdict::Pass);
        assert_eq!(outbound(&rules, APP, None, [198, 51, 100, 1], 80), Verdict::Pass);
        assert_eq!(outbound(&rules, APP, None, [198, 51, 100, 1], 5432), Verdict::To(15001));
        assert_eq!(outbound(&rules, APP, None, [10, 96, 0, 9], 3306), Verdict::Pass);
        // An excluded port is stronger even than the sidecar's call to its own pod.
        assert_eq!(outbound(&rules, SIDECAR, None, POD, 3306), Verdict::Pass);
    }

    #[test]
    fn loopback_is_redirected_only_where_it_is_included() {
        let rules = Redirect { include_outbound_ip_ranges: Selection::ip_ranges("127.0.0.0/8").unwrap(), ..Redirect::default() };
        assert_eq!(outbound(&rules, APP, None, [127, 0, 0, 9], 80), Verdict::To(15001));
        assert_eq!(outbound(&rules, APP, None, [127, 0, 0, 1], 80), Verdict::Pass);
    }

    #[test]
    fn inbound_annotations_include_and_exclude() {
        let rules = Redirect { exclude_inbound_ports: vec![9000], ..Redirect::default() };
        assert_eq!(rules.inbound(8080), Verdict::To(15006));
        for open in [9000, 15008, 15020, 15021, 15090] {
            assert_eq!(rules.inbound(open), Verdict::Pass, "port {open}");
        }
        let some = Redirect { include_inbound_ports: Selection::ports("8080, 8443").unwrap(), ..Redirect::default() };
        assert_eq!(some.inbound(8443), Verdict::To(15006));
        assert_eq!(some.inbound(80), Verdict::Pass);
        let none = Redirect { include_inbound_ports: Selection::ports("").unwrap(), ..Redirect::default() };
        assert_eq!(none.inbound(8080), Verdict::Pass);
    }

    #[test]
    fn an_annotation_that_cannot_be_read_is_named() {
        let error = Selection::ports("80,http").unwrap_err();
        insta::assert_snapshot!(error, @r#""http" is not a port number; write a comma-separated list, or "*" for all"#);
        assert!(Selection::ip_ranges("10.0.0.0/33").is_err());
    }
}
