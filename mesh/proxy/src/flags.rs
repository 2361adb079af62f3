//! Envoy's response flags.

use std::fmt;

/// A set of response flags. Displayed as Envoy does: `UF,URX`, or `-` when there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, PartialOrd, Ord)]
pub struct Flags(u32);

macro_rules! flags {
    ($($bit:literal $name:ident $short:literal $doc:literal),* $(,)?) => {
        impl Flags {
            $(#[doc = $doc] pub const $name: Self = Self(1 << $bit);)*
            const NAMES: &'static [(Self, &'static str)] = &[$((Self::$name, $short)),*];
        }
    };
}

// In the order in which Envoy prints them.
flags! {
    0 FAILED_LOCAL_HEALTHCHECK "LH" "Local health check failed.",
    1 NO_HEALTHY_UPSTREAM "UH" "No healthy endpoint.",
    2 UPSTREAM_REQUEST_TIMEOUT "UT" "The upstream took too long.",
    3 LOCAL_RESET "LR" "Reset by this proxy.",
    4 UPSTREAM_REMOTE_RESET "UR" "Reset by the upstream.",
    5 UPSTREAM_CONNECTION_FAILURE "UF" "No connection to the upstream.",
    6 UPSTREAM_CONNECTION_TERMINATION "UC" "The upstream closed the connection.",
    7 UPSTREAM_OVERFLOW "UO" "A circuit breaker is open.",
    8 NO_ROUTE "NR" "No route, or no filter chain.",
    9 DELAY_INJECTED "DI" "A delay was injected.",
    10 FAULT_INJECTED "FI" "An abort was injected.",
    11 RATE_LIMITED "RL" "Rate limited.",
    12 UNAUTHORIZED_EXTERNAL_SERVICE "UAEX" "Denied by the external authorizer.",
    13 DOWNSTREAM_CONNECTION_TERMINATION "DC" "The client went away.",
    14 UPSTREAM_RETRY_LIMIT_EXCEEDED "URX" "Retries, or TCP connection attempts, are used up.",
    15 STREAM_IDLE_TIMEOUT "SI" "The stream was idle for too long.",
    16 DOWNSTREAM_PROTOCOL_ERROR "DPE" "The client broke the protocol.",
    17 UPSTREAM_PROTOCOL_ERROR "UPE" "The upstream broke the protocol.",
    18 NO_CLUSTER "NC" "The route's cluster does not exist.",
}

impl Flags {
    /// No flag.
    pub const NONE: Self = Self(0);

    /// Adds the flags of `other`.
    pub fn insert(&mut self, other: Self) {
        self.0 |= other.0;
    }

    /// Whether every flag of `other` is set.
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether no flag is set.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The set as a number, for keys.
    pub(crate) fn bits(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for (flag, name) in Self::NAMES {
            if self.contains(*flag) {
                write!(f, "{separator}{name}")?;
                separator = ",";
            }
        }
        if self.is_empty() { f.write_str("-") } else { Ok(()) }
    }
}
