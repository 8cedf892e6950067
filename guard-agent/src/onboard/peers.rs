//! From the addresses that were seen to the networks and ports that a permit names.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::places::Tally;

/// So many addresses of one network stand for it, and so many ports of one address for all.
const MANY: usize = 5;
/// Prefix of the network that neighbours share.
const PREFIX: (u8, u8) = (24, 64);

/// One address with one action.
#[derive(Clone, Debug)]
pub(super) struct Contact<'a> {
    pub(super) address: IpAddr,
    pub(super) port: u16,
    pub(super) protocol: &'a str,
    pub(super) action: &'a str,
    pub(super) count: u64,
}

/// Networks, ports and a protocol that a permit names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Peers {
    /// Networks as `ADDRESS/LENGTH`; empty: all.
    pub(super) networks: Vec<String>,
    /// Ports; empty: all.
    pub(super) ports: Vec<u16>,
    pub(super) protocol: String,
    pub(super) actions: BTreeSet<String>,
    pub(super) tally: Tally,
    /// Networks are wider than the addresses that were seen.
    pub(super) widened: bool,
}

/// Actions that were seen, and how often.
type Taken = (BTreeSet<String>, Tally);
/// A protocol, actions, and a port that was not left to chance.
type Way<'a> = (&'a str, BTreeSet<String>, Option<u16>);

/// Everything that is needed for `seen`. Only with `widen` neighbours stand for their network.
pub(super) fn peers(seen: &[Contact<'_>], widen: bool) -> Vec<Peers> {
    // What far ends choose for themselves says nothing about the next one.
    let passive = |action: &str| matches!(action, "net.accept" | "net.receive");
    let mut ports: BTreeMap<(&str, IpAddr), BTreeSet<u16>> = BTreeMap::new();
    for one in seen {
        ports.entry((one.protocol, one.address)).or_default().insert(one.port);
    }
    let any_port = |one: &Contact<'_>| {
        passive(one.action)
            || widen && ports.get(&(one.protocol, one.address)).is_some_and(|ports| ports.len() >= MANY)
    };
    // Actions on the same far end belong together, and so do far ends with the same port and actions.
    let mut ends: BTreeMap<(&str, Option<u16>, IpAddr), Taken> = BTreeMap::new();
    for one in seen {
        let port = (!any_port(one)).then_some(one.port);
        let (actions, tally) = ends.entry((one.protocol, port, one.address)).or_default();
        actions.insert(one.action.to_owned());
        tally.add(Tally { kinds: 1, count: one.count });
    }
    let mut groups: BTreeMap<Way<'_>, (BTreeSet<IpAddr>, Tally)> = BTreeMap::new();
    for ((protocol, port, address), (actions, tally)) in ends {
        let (addresses, sum) = groups.entry((protocol, actions, port)).or_default();
        addresses.insert(address);
        sum.add(tally);
    }
    // The same far ends on several ports are one permit.
    let mut found: Vec<Peers> = Vec::new();
    for ((protocol, actions, port), (addresses, tally)) in groups {
        let (networks, widened) = networks(&addresses, widen);
        let own = port.is_some()
            && actions.iter().all(|action| matches!(action.as_str(), "net.bind" | "net.listen"));
        let networks =
            if own && addresses.iter().all(IpAddr::is_unspecified) { Vec::new() } else { networks };
        let same = found.iter_mut().find(|known| {
            known.protocol == protocol
                && known.actions == actions
                && known.networks == networks
                && known.ports.is_empty() == port.is_none()
        });
        match same {
            Some(known) => {
                known.ports.extend(port);
                known.tally.add(tally);
            }
            None => found.push(Peers {
                networks,
                ports: port.into_iter().collect(),
                protocol: protocol.to_owned(),
                actions,
                tally,
                widened,
            }),
        }
    }
    found
}

/// The networks for some addresses, and whether they hold more than these.
fn networks(addresses: &BTreeSet<IpAddr>, widen: bool) -> (Vec<String>, bool) {
    let mut groups: BTreeMap<(IpAddr, u8), Vec<IpAddr>> = BTreeMap::new();
    for address in addresses {
        groups.entry(network(*address)).or_default().push(*address);
    }
    let mut widened = false;
    let mut found = Vec::new();
    for ((base, prefix), members) in groups {
        if widen && members.len() >= MANY && !base.is_loopback() {
            widened = true;
            found.push(format!("{base}/{prefix}"));
        } else {
            found.extend(members.into_iter().map(single));
        }
    }
    (found, widened)
}

/// One address as a network.
pub(super) fn single(address: IpAddr) -> String {
    format!("{address}/{}", if address.is_ipv4() { 32 } else { 128 })
}

/// The network of an address that its neighbours share.
pub(super) fn network(address: IpAddr) -> (IpAddr, u8) {
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX << (32 - u32::from(PREFIX.0));
            (Ipv4Addr::from(u32::from(address) & mask).into(), PREFIX.0)
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX << (128 - u32::from(PREFIX.1));
            (Ipv6Addr::from(u128::from(address) & mask).into(), PREFIX.1)
        }
    }
}

impl Peers {
    /// The Cedar condition.
    pub(super) fn condition(&self) -> String {
        let any = |terms: Vec<String>| match terms.as_slice() {
            [one] => one.clone(),
            many => format!("({})", many.join(" || ")),
        };
        let mut terms = Vec::new();
        if !self.networks.is_empty() {
            terms.push(any(self
                .networks
                .iter()
                .map(|net| format!("resource in Guard::Net::\"{net}\""))
                .collect()));
        }
        if !self.ports.is_empty() {
            terms.push(any(self.ports.iter().map(|port| format!("resource.port == {port}")).collect()));
        }
        terms.push(format!("resource.protocol == \"{}\"", self.protocol));
        terms.join(" && ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conditions(seen: &[(&str, &str)]) -> Vec<String> {
        let seen: Vec<_> = seen
            .iter()
            .map(|(action, end)| {
                let end: std::net::SocketAddr = end.parse().unwrap();
                Contact { address: end.ip(), port: end.port(), protocol: "tcp", action, count: 1 }
            })
            .collect();
        peers(&seen, true).iter().map(Peers::condition).collect()
    }

    #[test]
    fn one_far_end_is_one_address_and_port() {
        assert_eq!(
            conditions(&[("net.connect", "127.0.0.1:8000")]),
            [
                "resource in Guard::Net::\"127.0.0.1/32\" && resource.port == 8000 && resource.protocol == \"tcp\""
            ]
        );
        let v6 = conditions(&[("net.connect", "[2001:db8::1]:443")]);
        assert!(v6[0].starts_with("resource in Guard::Net::\"2001:db8::1/128\""), "{v6:?}");
    }

    #[test]
    fn neighbours_become_their_network_and_loopback_never_does() {
        let neighbours: Vec<String> = (1..=5).map(|host| format!("10.1.2.{host}:5432")).collect();
        let seen: Vec<_> = neighbours.iter().map(|end| ("net.connect", end.as_str())).collect();
        assert_eq!(
            conditions(&seen),
            [
                "resource in Guard::Net::\"10.1.2.0/24\" && resource.port == 5432 && resource.protocol == \"tcp\""
            ]
        );
        let local: Vec<String> = (1..=6).map(|host| format!("127.0.0.{host}:80")).collect();
        let seen: Vec<_> = local.iter().map(|end| ("net.connect", end.as_str())).collect();
        assert!(conditions(&seen)[0].contains("127.0.0.6/32"));
    }

    #[test]
    fn what_listens_is_known_by_its_port_and_what_calls_by_its_address() {
        let seen =
            [("net.bind", "0.0.0.0:80"), ("net.listen", "0.0.0.0:80"), ("net.accept", "10.0.0.9:51234")];
        assert_eq!(
            conditions(&seen),
            [
                "resource in Guard::Net::\"10.0.0.9/32\" && resource.protocol == \"tcp\"",
                "resource.port == 80 && resource.protocol == \"tcp\"",
            ]
        );
    }

    #[test]
    fn several_ports_of_one_end_are_one_permit() {
        let seen = [("net.connect", "10.0.0.9:80"), ("net.connect", "10.0.0.9:443")];
        assert_eq!(
            conditions(&seen),
            [
                "resource in Guard::Net::\"10.0.0.9/32\" && (resource.port == 80 || resource.port == 443) && resource.protocol == \"tcp\""
            ]
        );
    }
}
