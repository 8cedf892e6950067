//! Networks: literals as ranges, ranges as sorted tables of classes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::formula::AtomId;
use super::literals::Wrong;

/// A network, by its first and last address. An IPv4 address in IPv6 clothes is IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Range {
    V4(u32, u32),
    V6(u128, u128),
}

/// Parses `ADDRESS/LENGTH`.
pub(super) fn parse(text: &str) -> Result<Range, Wrong> {
    let wrong = |message: String, help: String| Err((message, help));
    let Some((address, length)) = text.split_once('/') else {
        return match text.parse::<IpAddr>() {
            Ok(IpAddr::V4(_)) => {
                wrong(format!("\"{text}\" has no prefix length"), format!("write \"{text}/32\""))
            }
            Ok(IpAddr::V6(_)) => {
                wrong(format!("\"{text}\" has no prefix length"), format!("write \"{text}/128\""))
            }
            Err(_) => wrong(
                format!("\"{text}\" is not a network"),
                "write an address and a prefix length: \"10.0.0.0/8\"".into(),
            ),
        };
    };
    let digits = !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit());
    let (Ok(address), Some(length)) =
        (address.parse::<IpAddr>(), digits.then(|| length.parse::<u32>().ok()).flatten())
    else {
        return wrong(
            format!("\"{text}\" is not a network"),
            "write an address and a prefix length: \"10.0.0.0/8\"".into(),
        );
    };
    let bits = if address.is_ipv4() { 32 } else { 128 };
    if length > bits {
        return wrong(format!("a prefix of {length} bits is too long"), format!("at most {bits}"));
    }
    let (first, host) = match address {
        IpAddr::V4(v4) => (u128::from(u32::from(v4)), low_bits(32 - length)),
        IpAddr::V6(v6) => (u128::from(v6), low_bits(128 - length)),
    };
    if first & host != 0 {
        let base = match address {
            IpAddr::V4(_) => Ipv4Addr::from((first & !host) as u32).to_string(),
            IpAddr::V6(_) => Ipv6Addr::from(first & !host).to_string(),
        };
        return wrong(
            format!("\"{text}\" has address bits behind its prefix"),
            format!("write \"{base}/{length}\""),
        );
    }
    Ok(match address {
        IpAddr::V4(_) => Range::V4(first as u32, (first | host) as u32),
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) if length >= 96 => Range::V4(u32::from(v4), u32::from(v4) | host as u32),
            _ => Range::V6(first, first | host),
        },
    })
}

/// The range of one address.
pub(super) fn single(address: IpAddr) -> Range {
    match address {
        IpAddr::V4(v4) => Range::V4(v4.into(), v4.into()),
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => Range::V4(v4.into(), v4.into()),
            None => Range::V6(v6.into(), v6.into()),
        },
    }
}

fn low_bits(count: u32) -> u128 {
    if count >= 128 { u128::MAX } else { (1 << count) - 1 }
}

/// Cuts the line of addresses where a range begins or ends: first address of each piece and the
/// literals that cover it. The first piece begins at 0; neighbours differ.
pub(super) fn pieces(ranges: &[(u128, u128, AtomId)], last: u128) -> Vec<(u128, Vec<AtomId>)> {
    let mut events: BTreeMap<u128, (Vec<AtomId>, Vec<AtomId>)> = BTreeMap::new();
    events.entry(0).or_default();
    for (first, end, literal) in ranges {
        events.entry(*first).or_default().0.push(*literal);
        if *end < last {
            events.entry(*end + 1).or_default().1.push(*literal);
        }
    }
    // One literal can be several ranges that touch or overlap, so count.
    let mut open: BTreeMap<AtomId, usize> = BTreeMap::new();
    let mut pieces: Vec<(u128, Vec<AtomId>)> = Vec::new();
    for (start, (begin, end)) in events {
        for literal in begin {
            *open.entry(literal).or_default() += 1;
        }
        for literal in end {
            if let Some(count) = open.get_mut(&literal) {
                *count -= 1;
                if *count == 0 {
                    open.remove(&literal);
                }
            }
        }
        let cover: Vec<AtomId> = open.keys().copied().collect::<BTreeSet<_>>().into_iter().collect();
        if pieces.last().is_none_or(|(_, before)| *before != cover) {
            pieces.push((start, cover));
        }
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_ranges_and_mapped_ones_are_ipv4() {
        assert_eq!(parse("10.0.0.0/8"), Ok(Range::V4(10 << 24, (11 << 24) - 1)));
        assert_eq!(parse("0.0.0.0/0"), Ok(Range::V4(0, u32::MAX)));
        assert_eq!(parse("::/0"), Ok(Range::V6(0, u128::MAX)));
        assert_eq!(parse("::ffff:10.0.0.0/104"), Ok(Range::V4(10 << 24, (11 << 24) - 1)));
        assert_eq!(parse("10.0.0.1/8").unwrap_err().1, "write \"10.0.0.0/8\"");
        assert_eq!(parse("10.0.0.1").unwrap_err().1, "write \"10.0.0.1/32\"");
        assert!(parse("10.0.0.0/33").is_err() && parse("10.0.0.0/+8").is_err());
    }

    #[test]
    fn nested_and_touching_networks_make_disjoint_pieces() {
        let pieces = pieces(&[(10, 19, 0), (12, 13, 1), (20, 29, 0)], 255);
        assert_eq!(pieces, [(0, vec![]), (10, vec![0]), (12, vec![0, 1]), (14, vec![0]), (30, vec![])]);
    }
}
