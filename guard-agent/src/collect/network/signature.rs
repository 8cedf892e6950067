//! How a network looks from inside.

use super::Networks;
use super::surroundings::Surroundings;
use serde::Deserialize;
use std::fmt;
use std::net::IpAddr;

/// `[networks.NAME]` of the agent's configuration. All that it says must be so.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Signature {
    /// The next hop of the default route.
    pub gateway: Option<IpAddr>,
    /// The hardware address that the neighbour table has for it.
    pub gateway_mac: Option<Mac>,
    /// The host has an address of this network on the interface through which the default route leads.
    pub prefix: Option<Prefix>,
    /// All name servers that the host uses are among these, and it uses one.
    #[serde(default)]
    pub dns: Vec<IpAddr>,
}

/// A hardware address of six bytes, written `00:11:22:33:44:55`.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(try_from = "String")]
pub struct Mac(pub [u8; 6]);

impl TryFrom<String> for Mac {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no hardware address: write six bytes as 00:11:22:33:44:55");
        let parts: Vec<&str> = text.split([':', '-']).collect();
        let byte = |part: &&str| {
            let is_byte = part.len() == 2 && part.bytes().all(|digit| digit.is_ascii_hexdigit());
            is_byte.then(|| u8::from_str_radix(part, 16).ok()).flatten()
        };
        let bytes: Vec<u8> = parts.iter().map(byte).collect::<Option<_>>().ok_or_else(wrong)?;
        bytes.try_into().map(Self).map_err(|_| wrong())
    }
}

/// A network, written `10.1.0.0/16`.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(try_from = "String")]
pub struct Prefix {
    address: IpAddr,
    length: u8,
}

impl TryFrom<String> for Prefix {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no network: write an address and a length as 10.1.0.0/16");
        let (address, length) = text.split_once('/').ok_or_else(wrong)?;
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let length: u8 = length.parse().map_err(|_| wrong())?;
        if length > if address.is_ipv4() { 32 } else { 128 } {
            return Err(wrong());
        }
        Ok(Self { address, length })
    }
}

impl Prefix {
    /// Whether an address is in it.
    fn holds(&self, address: IpAddr) -> bool {
        // What is behind the prefix is shifted out; of a prefix of length 0 nothing is left.
        match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let shift = 32 - u32::from(self.length);
                u32::from(own).checked_shr(shift).unwrap_or(0)
                    == u32::from(other).checked_shr(shift).unwrap_or(0)
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let shift = 128 - u32::from(self.length);
                u128::from(own).checked_shr(shift).unwrap_or(0)
                    == u128::from(other).checked_shr(shift).unwrap_or(0)
            }
            _ => false,
        }
    }
}

impl Signature {
    /// Whether it says anything that tells one network from another. Name servers alone do not.
    pub fn says_something(&self) -> bool {
        self.gateway.is_some() || self.gateway_mac.is_some() || self.prefix.is_some()
    }

    /// Whether it can change by what netlink does not announce.
    pub(crate) fn needs_resolvers(&self) -> bool {
        !self.dns.is_empty()
    }

    /// Whether the host's surroundings look so.
    fn fits(&self, around: &Surroundings) -> bool {
        let ways: Vec<_> = around.ways_out().collect();
        let is_gateway = |wanted: IpAddr| ways.iter().any(|way| way.gateway == Some(wanted));
        let is_mac = |wanted: Mac| {
            // If the gateway is given as well, it is that one's.
            let mut meant = ways.iter().filter(|way| self.gateway.is_none() || way.gateway == self.gateway);
            meant.any(|way| around.mac_of(way) == Some(wanted))
        };
        let is_prefix = |wanted: Prefix| {
            ways.iter().any(|way| around.addresses_on(way).any(|address| wanted.holds(address)))
        };
        let are_resolvers = || {
            let used = around.resolvers();
            !used.is_empty() && used.iter().all(|address| self.dns.contains(address))
        };
        self.says_something()
            && self.gateway.is_none_or(is_gateway)
            && self.gateway_mac.is_none_or(is_mac)
            && self.prefix.is_none_or(is_prefix)
            && (self.dns.is_empty() || are_resolvers())
    }
}

/// Where the host is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Located {
    /// In this network.
    In(String),
    /// In none that the configuration describes.
    Nowhere,
    /// In several, so nobody knows in which.
    Several(Vec<String>),
}

impl Located {
    /// The name of the one network; nothing if there is not exactly one.
    pub(crate) fn name(self) -> Option<String> {
        match self {
            Self::In(name) => Some(name),
            Self::Nowhere | Self::Several(_) => None,
        }
    }
}

impl fmt::Display for Located {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::In(name) => formatter.write_str(name),
            Self::Nowhere => formatter.write_str("none that the configuration describes"),
            Self::Several(names) => write!(formatter, "not known, because several fit: {}", names.join(", ")),
        }
    }
}

/// The network that the surroundings look like.
pub(crate) fn locate(networks: &Networks, around: &Surroundings) -> Located {
    let mut fitting: Vec<String> = networks
        .iter()
        .filter(|(_, signature)| signature.fits(around))
        .map(|(name, _)| name.clone())
        .collect();
    match fitting.len() {
        0 => Located::Nowhere,
        1 => Located::In(fitting.remove(0)),
        _ => Located::Several(fitting),
    }
}

#[cfg(test)]
#[path = "signature_tests.rs"]
mod tests;
