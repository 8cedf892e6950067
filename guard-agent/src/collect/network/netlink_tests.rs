//! Messages as a kernel sent them: a host with the addresses 10.1.2.3/16 and 2001:db8::3/64 on interface 3, and
//! default routes through 10.1.0.1 (metric 100) and fe80::1 (metric 1024) there.

use super::*;
use crate::collect::network::signature::{Located, Mac, Signature, locate};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

/// `default via 10.1.0.1 dev eth7 metric 100`
const DEFAULT: &str = "3c0000001800020001000000bb37000002000000fe0300010000000008000f00fe0000000800060064000000080005000a0100010800040003000000";
/// `10.1.0.0/16 dev eth7`
const CONNECTED: &str = "3c0000001800020001000000bb37000002100000fe02fd010000000008000f00fe000000080001000a010000080007000a0102030800040003000000";
/// `local 127.0.0.1 dev lo`, of the table `local`.
const LOCAL: &str = "3c0000001800020001000000bb37000002200000ff02fe020000000008000f00ff000000080001007f000001080007007f0000010800040001000000";
/// `default via fe80::1 dev eth7 metric 1024`
const DEFAULT_6: &str = "740000001800020001000000bb3700000a000000fe0300010000000008000f00fe000000080006000004000014000500fe800000000000000000000000000001080004000300000024000c0000000000000000000000000000000000000000000000000000000000000000000500140000000000";
/// `10.1.0.1 dev eth7 lladdr 00:11:22:33:44:55 PERMANENT`
const NEIGHBOUR: &str = "4c0000001c00020001000000bb370000020000000300000080000001080001000a0100010a000200001122334455000008000400000000001400030003000000030000000300000000000000";
/// `fe80::1 dev eth7 lladdr 00:11:22:33:44:66 PERMANENT`
const NEIGHBOUR_6: &str = "580000001c00020001000000bb3700000a000000030000008000000114000100fe8000000000000000000000000000010a000200001122334466000008000400000000001400030002000000020000000200000000000000";
/// `10.1.2.3/16 dev eth7`
const ADDRESS: &str = "500000001400020001000000bb3700000210800003000000080001000a010203080002000a010203090003006574683700000000080008008000000014000600ffffffffffffffff7349010073490100";
/// `2001:db8::3/64 dev eth7`
const ADDRESS_6: &str = "480000001400020001000000bb3700000a408200030000001400010020010db800000000000000000000000314000600ffffffffffffffff74490100744901000800080082000000";
/// The end of a dump.
const DONE: &str = "1400000003000200010000000000000000000000";

fn bytes(messages: &[&str]) -> Vec<u8> {
    let all = messages.concat();
    (0..all.len()).step_by(2).map(|at| u8::from_str_radix(&all[at..at + 2], 16).unwrap()).collect()
}

/// The message with another byte, counted from its beginning.
fn with(message: &str, at: usize, byte: u8) -> String {
    let mut changed = message.to_owned();
    changed.replace_range(2 * at..2 * at + 2, &format!("{byte:02x}"));
    changed
}

fn around(messages: &[&str]) -> Surroundings {
    let mut around = Surroundings::default();
    assert_eq!(take(&bytes(messages), &mut around), Ok(Taken::More { is_consistent: true }));
    around
}

fn is_at(around: &Surroundings, signature: &Signature) -> bool {
    let networks = BTreeMap::from([("office".to_owned(), signature.clone())]);
    locate(&networks, around) == Located::In("office".to_owned())
}

const V4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 1, 0, 1));
const V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1));
const MAC: Mac = Mac([0, 0x11, 0x22, 0x33, 0x44, 0x55]);

fn office() -> Signature {
    Signature { gateway: Some(V4), gateway_mac: Some(MAC), ..Signature::default() }
}

const WHOLE: [&str; 8] = [DEFAULT, CONNECTED, LOCAL, DEFAULT_6, NEIGHBOUR, NEIGHBOUR_6, ADDRESS, ADDRESS_6];

#[test]
fn what_a_kernel_sent_is_understood() {
    let around = around(&WHOLE);
    assert_eq!(around.gateways(), [V4, V6]);
    assert!(is_at(&around, &office()));
    let prefix =
        |text: &str| Signature { prefix: Some(text.to_owned().try_into().unwrap()), ..Signature::default() };
    assert!(is_at(&around, &prefix("10.1.0.0/16")) && is_at(&around, &prefix("2001:db8::/32")));
    assert!(!is_at(&around, &prefix("10.2.0.0/16")) && !is_at(&around, &prefix("127.0.0.0/8")));
    let six = Mac([0, 0x11, 0x22, 0x33, 0x44, 0x66]);
    assert!(is_at(&around, &Signature { gateway: Some(V6), gateway_mac: Some(six), ..Signature::default() }));
    // It is the neighbour of that gateway, not of the other one.
    assert!(!is_at(
        &around,
        &Signature { gateway: Some(V4), gateway_mac: Some(six), ..Signature::default() }
    ));
    assert!(is_at(&around, &Signature { gateway_mac: Some(six), ..Signature::default() }));
}

#[test]
fn a_neighbour_that_failed_and_a_way_that_is_down_are_not_there() {
    // `ndm_state`: NUD_FAILED, NUD_INCOMPLETE, NUD_STALE (include/uapi/linux/neighbour.h).
    for (state, is) in [(0x20, false), (0x01, false), (0x04, true)] {
        let neighbour = with(NEIGHBOUR, 24, state);
        assert_eq!(is_at(&around(&[DEFAULT, &neighbour]), &office()), is, "{state:#x}");
    }
    // `rtm_flags`: RTNH_F_DEAD, RTNH_F_LINKDOWN, RTNH_F_ONLINK.
    for (flags, is) in [(1, false), (16, false), (4, true)] {
        let route = with(DEFAULT, 24, flags);
        assert_eq!(is_at(&around(&[&route, NEIGHBOUR]), &office()), is, "{flags}");
    }
    assert!(!is_at(&around(&[DEFAULT]), &office()), "no neighbour");
    assert!(!is_at(&around(&[NEIGHBOUR]), &office()), "no route");
}

#[test]
fn the_way_of_the_lowest_metric_counts_and_two_of_them_are_none() {
    let other = with(&with(DEFAULT, 51, 9), 40, 50);
    assert!(!is_at(&around(&[DEFAULT, &other, NEIGHBOUR]), &office()), "another gateway comes first");
    let later = with(&other, 40, 101);
    assert!(is_at(&around(&[DEFAULT, &later, NEIGHBOUR]), &office()));
    let same = with(&other, 40, 100);
    assert!(!is_at(&around(&[DEFAULT, &same, NEIGHBOUR]), &office()), "both share the traffic");
    // `rtm_type`: RTN_UNREACHABLE refuses what would go to the next one.
    let refuses = with(&with(DEFAULT, 40, 50), 23, 7);
    assert!(!is_at(&around(&[DEFAULT, &refuses, NEIGHBOUR]), &office()));
    // `RTA_TABLE`: another table is for some packets only.
    let elsewhere = with(&with(&other, 20, 100), 32, 100);
    assert!(is_at(&around(&[DEFAULT, &elsewhere, NEIGHBOUR]), &office()));
}

#[test]
fn a_dump_ends_is_cut_short_is_refused_or_was_interrupted() {
    let mut around = Surroundings::default();
    assert_eq!(take(&bytes(&[DEFAULT, DONE]), &mut around), Ok(Taken::Last { is_consistent: true }));
    // NLM_F_DUMP_INTR
    let interrupted = with(DEFAULT, 6, 0x12);
    assert_eq!(take(&bytes(&[&interrupted, DONE]), &mut around), Ok(Taken::Last { is_consistent: false }));
    let error = "24000000020000000100000000000000eaffffff".to_owned() + &"0".repeat(32);
    assert_eq!(take(&bytes(&[&error]), &mut around), Ok(Taken::Refused(Errno::EINVAL)));
    assert!(take(&bytes(&[DEFAULT])[..40], &mut around).is_err());
    assert!(take(&[0; 16], &mut around).is_err(), "a length of nothing");
    // An attribute that is longer than what holds it, in a default route: nothing else may be taken for it.
    assert!(take(&bytes(&[&with(DEFAULT, 28, 0xff)]), &mut around).is_err());
    // In another one it does not matter.
    assert!(take(&bytes(&[&with(CONNECTED, 28, 0xff)]), &mut around).is_ok());
}

#[test]
fn only_what_can_move_the_host_is_a_change() {
    let says = |message: &str| concerns(&bytes(&[message]), &[V4]);
    assert!(says(DEFAULT) && says(DEFAULT_6) && says(ADDRESS));
    assert!(says(NEIGHBOUR), "of the gateway");
    assert!(!says(NEIGHBOUR_6), "of another neighbour");
    assert!(!says(CONNECTED) && !says(LOCAL));
    assert!(concerns(&bytes(&[CONNECTED, DEFAULT]), &[]));
    assert!(concerns(&bytes(&[DEFAULT])[..20], &[]), "what is not understood");
    assert!(!concerns(&[], &[]));
    // RTM_NEWLINK, RTM_DELROUTE, RTM_DELADDR
    assert!(says(&with(ADDRESS, 4, 16)) && says(&with(DEFAULT, 4, 25)) && says(&with(ADDRESS, 4, 21)));
}

#[test]
fn requests_are_whole_messages() {
    for ask in [Ask::Routes, Ask::Neighbours, Ask::Addresses] {
        let request = request(ask, AddressFamily::Inet);
        let found: Vec<_> = messages(&request).map(|message| message.unwrap().bytes.len()).collect();
        assert_eq!(found, [request.len()]);
        assert_eq!(request[HEADER], libc::AF_INET as u8);
    }
}

#[test]
fn the_kernel_of_this_machine_answers() {
    read().unwrap();
    let changes = Changes::subscribe().unwrap();
    changes.wait(&[], Some(Duration::ZERO)).unwrap();
}
