//! Consistent hashing as Envoy does it: xxHash64, a ketama-like ring, Maglev.

const P1: u64 = 0x9E37_79B1_85EB_CA87;
const P2: u64 = 0xC2B2_AE3D_27D4_EB4F;
const P3: u64 = 0x1656_67B1_9E37_79F9;
const P4: u64 = 0x85EB_CA77_C2B2_AE63;
const P5: u64 = 0x27D4_EB2F_1656_67C5;

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes[at..at + 8].iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

fn u32_at(bytes: &[u8], at: usize) -> u64 {
    bytes[at..at + 4].iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

fn round(accumulator: u64, lane: u64) -> u64 {
    accumulator.wrapping_add(lane.wrapping_mul(P2)).rotate_left(31).wrapping_mul(P1)
}

/// xxHash64 (<https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md>).
pub(crate) fn xxh64(bytes: &[u8], seed: u64) -> u64 {
    let mut at = 0;
    let mut hash = if bytes.len() >= 32 {
        let mut lanes = [seed.wrapping_add(P1).wrapping_add(P2), seed.wrapping_add(P2), seed, seed.wrapping_sub(P1)];
        while at + 32 <= bytes.len() {
            for (index, lane) in lanes.iter_mut().enumerate() {
                *lane = round(*lane, u64_at(bytes, at + index * 8));
            }
            at += 32;
        }
        let rotations = [1, 7, 12, 18];
        let mixed = lanes.iter().zip(rotations).fold(0_u64, |sum, (lane, by)| sum.wrapping_add(lane.rotate_left(by)));
        lanes.iter().fold(mixed, |hash, lane| (hash ^ round(0, *lane)).wrapping_mul(P1).wrapping_add(P4))
    } else {
        seed.wrapping_add(P5)
    };
    hash = hash.wrapping_add(bytes.len() as u64);
    while at + 8 <= bytes.len() {
        hash = (hash ^ round(0, u64_at(bytes, at))).rotate_left(27).wrapping_mul(P1).wrapping_add(P4);
        at += 8;
    }
    if at + 4 <= bytes.len() {
        hash = (hash ^ u32_at(bytes, at).wrapping_mul(P1)).rotate_left(23).wrapping_mul(P2).wrapping_add(P3);
        at += 4;
    }
    for byte in &bytes[at..] {
        hash = (hash ^ u64::from(*byte).wrapping_mul(P5)).rotate_left(11).wrapping_mul(P1);
    }
    hash = (hash ^ (hash >> 33)).wrapping_mul(P2);
    hash = (hash ^ (hash >> 29)).wrapping_mul(P3);
    hash ^ (hash >> 32)
}

/// A table from hash to the index of a host.
#[derive(Debug)]
pub(crate) enum HashTable {
    /// Sorted by hash.
    Ring(Vec<(u64, u32)>),
    Maglev(Vec<u32>),
}

/// Envoy's bound on a ring's entries.
const MAXIMUM_RING_SIZE: u64 = 8 * 1024 * 1024;

impl HashTable {
    /// A ring over hosts, given as their key (address) and weight.
    pub(crate) fn ring(hosts: &[(String, u32)], minimum_size: u64) -> Self {
        let total: u64 = hosts.iter().map(|(_, weight)| u64::from(*weight)).sum();
        if total == 0 {
            return Self::Ring(Vec::new());
        }
        let least = hosts.iter().map(|(_, weight)| *weight).min().unwrap_or(1).max(1);
        let least_share = f64::from(least) / total as f64;
        // As many entries as make the lightest host's share a whole number, at least the minimum.
        let minimum = minimum_size.clamp(1, MAXIMUM_RING_SIZE) as f64;
        let scale = ((least_share * minimum).ceil() / least_share).min(MAXIMUM_RING_SIZE as f64);
        let mut ring = Vec::with_capacity(scale.ceil() as usize);
        let (mut current, mut target) = (0.0_f64, 0.0_f64);
        for (index, (key, weight)) in hosts.iter().enumerate() {
            target += scale * f64::from(*weight) / total as f64;
            let mut copy = 0_u64;
            while current < target {
                ring.push((xxh64(format!("{key}_{copy}").as_bytes(), 0), index as u32));
                copy += 1;
                current += 1.0;
            }
        }
        ring.sort_unstable();
        Self::Ring(ring)
    }

    /// A Maglev table (Eisenbud et al., NSDI 2016) over hosts, given as their key and weight.
    pub(crate) fn maglev(hosts: &[(String, u32)], size: u64) -> Self {
        let size = size.clamp(1, 5_000_011);
        let heaviest = hosts.iter().map(|(_, weight)| *weight).max().unwrap_or(0);
        if heaviest == 0 {
            return Self::Maglev(Vec::new());
        }
        struct Builder {
            offset: u64,
            skip: u64,
            next: u64,
            weight: f64,
            target: f64,
        }
        let mut builders: Vec<Builder> = hosts
            .iter()
            .map(|(key, weight)| Builder {
                offset: xxh64(key.as_bytes(), 0) % size,
                skip: if size > 1 { xxh64(key.as_bytes(), 1) % (size - 1) + 1 } else { 1 },
                next: 0,
                weight: f64::from(*weight) / f64::from(heaviest),
                target: 0.0,
            })
            .collect();
        let mut table = vec![u32::MAX; size as usize];
        let mut filled = 0;
        let mut iteration = 1.0;
        while filled < size {
            for (index, builder) in builders.iter_mut().enumerate() {
                if filled == size {
                    break;
                }
                // A host with half of the greatest weight takes its turn every second time.
                if iteration * builder.weight < builder.target {
                    continue;
                }
                builder.target += 1.0;
                let mut slot = (builder.offset + builder.skip * builder.next) % size;
                while table[slot as usize] != u32::MAX {
                    builder.next += 1;
                    slot = (builder.offset + builder.skip * builder.next) % size;
                }
                table[slot as usize] = index as u32;
                builder.next += 1;
                filled += 1;
            }
            iteration += 1.0;
        }
        Self::Maglev(table)
    }

    /// The host for `hash`; with `attempt` above 0 another one, deterministic too.
    pub(crate) fn pick(&self, hash: u64, attempt: u32) -> Option<usize> {
        match self {
            Self::Ring(ring) if ring.is_empty() => None,
            Self::Ring(ring) => {
                let found = ring.partition_point(|(entry, _)| *entry < hash);
                Some(ring[(found + attempt as usize) % ring.len()].1 as usize)
            }
            Self::Maglev(table) if table.is_empty() => None,
            Self::Maglev(table) => {
                let hash = if attempt == 0 { hash } else { hash ^ (u64::MAX - u64::from(attempt) + 1) };
                Some(table[(hash % table.len() as u64) as usize] as usize)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(count: u32) -> Vec<(String, u32)> {
        (1..=count).map(|n| (format!("10.0.0.{n}:80"), 1)).collect()
    }

    #[test]
    fn xxh64_agrees_with_the_published_test_vectors() {
        assert_eq!(xxh64(b"", 0), 0xEF46_DB37_51D8_E999);
        assert_eq!(xxh64(b"a", 0), 0xD24E_C4F1_A98C_6E5B);
        assert_eq!(xxh64(b"abc", 0), 0x44BC_2CF5_AD77_0999);
        assert_eq!(xxh64(b"Nobody inspects the spammish repetition", 0), 0xFBCE_A83C_8A37_8BF1);
    }

    #[test]
    fn fact_27_a_ring_has_at_least_the_minimum_of_entries_and_shares_them_out() {
        let HashTable::Ring(ring) = HashTable::ring(&hosts(3), 1024) else { unreachable!() };
        assert!(ring.len() >= 1024);
        for index in 0..3 {
            let share = ring.iter().filter(|(_, host)| *host == index).count();
            assert!((300..400).contains(&share), "{share}");
        }
    }

    #[test]
    fn fact_27_a_ring_chooses_as_envoys_does() {
        // Where Envoy 1.40 sent requests with the header values 0 to 9.
        let hosts: Vec<(String, u32)> = [19911, 19915, 19916].iter().map(|port| (format!("127.0.0.1:{port}"), 1)).collect();
        let ring = HashTable::ring(&hosts, 1024);
        let chosen: Vec<usize> = (0..10).map(|user| ring.pick(xxh64(user.to_string().as_bytes(), 0), 0).unwrap()).collect();
        assert_eq!(chosen, [0, 1, 0, 1, 0, 0, 1, 2, 1, 1]);
    }

    #[test]
    fn consistent_hashing_moves_few_keys_when_a_host_leaves() {
        for build in [|h: &[_]| HashTable::ring(h, 1024), |h: &[_]| HashTable::maglev(h, 65537)] {
            let (before, after) = (build(&hosts(5)), build(&hosts(4)));
            let moved = (0..1000_u64)
                .map(|key| xxh64(&key.to_le_bytes(), 0))
                .filter(|hash| before.pick(*hash, 0).unwrap() != 4 && before.pick(*hash, 0) != after.pick(*hash, 0))
                .count();
            assert!(moved < 100, "{moved} of some 800 keys moved");
        }
    }
}
