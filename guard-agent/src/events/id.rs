//! The short id of an event.

/// Crockford's base 32: no I, L, O and U, so that an id can be read out loud.
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// The id of an event, such as `d-7K3F2Q`: the same for the same event wherever it is rendered.
///
/// Thirty bits to type, not a unique key: among the events of one host an id can come back. The
/// unique key is (`boot_ns`, `cpu`, `sequence`).
pub fn event_id(cpu: u32, sequence: u64, boot_ns: u64) -> String {
    let mut hash = mix(mix(mix(u64::from(cpu)) ^ sequence) ^ boot_ns);
    let mut id = String::from("d-");
    for _ in 0..6 {
        id.push(char::from(ALPHABET[(hash >> 59) as usize]));
        hash <<= 5;
    }
    id
}

/// The finaliser of SplitMix64: every bit of the input changes every bit of the result.
fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn an_id_is_stable_and_short() {
        let id = event_id(3, 17, 123_456_789);
        assert_eq!(id, event_id(3, 17, 123_456_789));
        assert_eq!(id.len(), 8);
        assert!(id[2..].bytes().all(|byte| ALPHABET.contains(&byte)), "{id}");
    }

    #[test]
    fn neighbouring_events_have_different_ids() {
        let ids: HashSet<_> =
            (0..8).flat_map(|cpu| (1..64).map(move |sequence| event_id(cpu, sequence, 1_000))).collect();
        assert_eq!(ids.len(), 8 * 63);
    }
}
