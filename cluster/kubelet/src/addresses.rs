//! Which pod has which address.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr};

use parking_lot::Mutex;

/// The pods' addresses: 10.244.0.0/16, of which the node has .0.1.
pub(crate) struct Addresses {
    taken: Mutex<(HashSet<u16>, u16)>,
}

/// The first address that a pod may have: 10.244.0.2.
const FIRST: u16 = 2;
/// The last one: 10.244.255.254.
const LAST: u16 = u16::MAX - 1;

impl Addresses {
    pub(crate) fn new() -> Self {
        Self { taken: Mutex::new((HashSet::new(), FIRST)) }
    }

    /// Takes an address. They are given out in turn, so that one that was just given back is not soon another pod's.
    pub(crate) fn take(&self) -> Option<IpAddr> {
        let (taken, next) = &mut *self.taken.lock();
        for _ in FIRST..=LAST {
            let candidate = *next;
            *next = if candidate >= LAST { FIRST } else { candidate + 1 };
            if taken.insert(candidate) {
                let [high, low] = candidate.to_be_bytes();
                return Some(IpAddr::V4(Ipv4Addr::new(10, 244, high, low)));
            }
        }
        None
    }

    /// Gives an address back.
    pub(crate) fn give_back(&self, address: IpAddr) {
        if let IpAddr::V4(address) = address {
            let [.., high, low] = address.octets();
            self.taken.lock().0.remove(&u16::from_be_bytes([high, low]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_given_out_in_turn_and_run_out() {
        let addresses = Addresses::new();
        let first = addresses.take().unwrap();
        assert_eq!(first.to_string(), "10.244.0.2");
        addresses.give_back(first);
        assert_eq!(addresses.take().unwrap().to_string(), "10.244.0.3");
        let rest = std::iter::from_fn(|| addresses.take()).count();
        assert_eq!(rest, usize::from(LAST - FIRST));
        assert!(addresses.take().is_none());
    }
}
