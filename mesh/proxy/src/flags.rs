//! Envoy's response flags.

use std::fmt;

/// A set of response flags, in the order in which they were set, which is how Envoy prints them: `URX,UF`, or `-` for none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, PartialOrd, Ord)]
pub struct Flags(
    /// Five bits for each flag, the first one lowest: its position in [`Flags::NAMES`], from 1.
    u64,
);

/// Flags that fit into a set. No stream collects more.
const CAPACITY: u32 = 12;

macro_rules! flags {
    ($($number:literal $name:ident $short:literal $doc:literal),* $(,)?) => {
        impl Flags {
            $(#[doc = $doc] pub const $name: Self = Self($number);)*
            const NAMES: &'static [&'static str] = &[$($short),*];
        }
    };
}

flags! {
    1 FAILED_LOCAL_HEALTHCHECK "LH" "Local health check failed.",
    2 NO_HEALTHY_UPSTREAM "UH" "No healthy endpoint.",
    3 UPSTREAM_REQUEST_TIMEOUT "UT" "The upstream took too long.",
    4 LOCAL_RESET "LR" "Reset by this proxy.",
    5 UPSTREAM_REMOTE_RESET "UR" "Reset by the upstream.",
    6 UPSTREAM_CONNECTION_FAILURE "UF" "No connection to the upstream.",
    7 UPSTREAM_CONNECTION_TERMINATION "UC" "The upstream closed the connection.",
    8 UPSTREAM_OVERFLOW "UO" "A circuit breaker is open.",
    9 NO_ROUTE "NR" "No route, or no filter chain.",
    10 DELAY_INJECTED "DI" "A delay was injected.",
    11 FAULT_INJECTED "FI" "An abort was injected.",
    12 RATE_LIMITED "RL" "Rate limited.",
    13 UNAUTHORIZED_EXTERNAL_SERVICE "UAEX" "Denied by the external authorizer.",
    14 DOWNSTREAM_CONNECTION_TERMINATION "DC" "The client went away.",
    15 UPSTREAM_RETRY_LIMIT_EXCEEDED "URX" "Retries, or TCP connection attempts, are used up.",
    16 STREAM_IDLE_TIMEOUT "SI" "The stream was idle for too long.",
    17 DOWNSTREAM_PROTOCOL_ERROR "DPE" "The client broke the protocol.",
    18 UPSTREAM_PROTOCOL_ERROR "UPE" "The upstream broke the protocol.",
    19 NO_CLUSTER "NC" "The route's cluster does not exist.",
}

impl Flags {
    /// No flag.
    pub const NONE: Self = Self(0);

    fn numbers(self) -> impl Iterator<Item = u64> {
        (0..CAPACITY).map(move |place| self.0 >> (place * 5) & 31).take_while(|number| *number != 0)
    }

    /// Adds the flags of `other` that are not set yet.
    pub fn insert(&mut self, other: Self) {
        for number in other.numbers() {
            let place = self.numbers().count() as u32;
            if place < CAPACITY && !self.numbers().any(|set| set == number) {
                self.0 |= number << (place * 5);
            }
        }
    }

    /// Whether every flag of `other` is set.
    pub fn contains(self, other: Self) -> bool {
        other.numbers().all(|number| self.numbers().any(|set| set == number))
    }

    /// Whether no flag is set.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The set as a number, for keys.
    pub(crate) fn bits(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for number in self.numbers() {
            let name = Self::NAMES.get(number as usize - 1).copied().unwrap_or("-");
            write!(f, "{separator}{name}")?;
            separator = ",";
        }
        if self.is_empty() { f.write_str("-") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fact_51_flags_are_printed_in_the_order_they_were_set() {
        let mut flags = Flags::NONE;
        assert_eq!(flags.to_string(), "-");
        for flag in
            [Flags::UPSTREAM_RETRY_LIMIT_EXCEEDED, Flags::UPSTREAM_CONNECTION_FAILURE, Flags::UPSTREAM_RETRY_LIMIT_EXCEEDED]
        {
            flags.insert(flag);
        }
        assert_eq!(flags.to_string(), "URX,UF");
        assert!(flags.contains(Flags::UPSTREAM_CONNECTION_FAILURE) && !flags.contains(Flags::NO_ROUTE));
        let all = ["UO", "UF", "UC", "UH", "NR", "NC", "UT", "URX", "DI", "FI", "DC", "UAEX"];
        assert!(all.iter().all(|name| Flags::NAMES.contains(name)));
    }
}
