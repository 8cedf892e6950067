//! What the host sees of the network it is in: default routes, the neighbours behind them, and its own addresses, as
//! rtnetlink(7) tells them.

use super::signature::Mac;
use netlink_packet_core::{DecodeError, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteType,
};
use std::net::IpAddr;

/// Where packets go that no other route wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Way {
    /// The next hop, if there is one.
    pub(super) gateway: Option<IpAddr>,
    /// Number of the interface.
    pub(super) interface: u32,
}

/// A default route.
#[derive(Clone, Debug, PartialEq, Eq)]
struct DefaultRoute {
    is_ipv4: bool,
    /// Lower ones count first.
    metric: u32,
    /// Its next hops; none if it refuses packets.
    ways: Vec<Way>,
}

/// All of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Surroundings {
    defaults: Vec<DefaultRoute>,
    /// Interface, address, and hardware address of those that are known.
    neighbours: Vec<(u32, IpAddr, Mac)>,
    /// Interface and address of the host's own.
    addresses: Vec<(u32, IpAddr)>,
    /// Name servers that it uses.
    resolvers: Vec<IpAddr>,
}

impl Surroundings {
    /// The way out of each family that counts: the default route of the lowest metric, if it is one and has one next
    /// hop. Where several share the traffic there is no *one* network that the host is in.
    pub(super) fn ways_out(&self) -> impl Iterator<Item = &Way> {
        [true, false].into_iter().filter_map(|is_ipv4| {
            let of_family = || self.defaults.iter().filter(move |route| route.is_ipv4 == is_ipv4);
            let lowest = of_family().map(|route| route.metric).min()?;
            let mut first = of_family().filter(|route| route.metric == lowest);
            match (first.next()?.ways.as_slice(), first.next()) {
                ([way], None) => Some(way),
                _ => None,
            }
        })
    }

    /// The hardware address of the next hop on a way.
    pub(super) fn mac_of(&self, way: &Way) -> Option<Mac> {
        let is_it = |(interface, address, _): &&(u32, IpAddr, Mac)| {
            *interface == way.interface && Some(*address) == way.gateway
        };
        self.neighbours.iter().find(is_it).map(|(_, _, mac)| *mac)
    }

    /// The host's addresses on the interface of a way.
    pub(super) fn addresses_on(&self, way: &Way) -> impl Iterator<Item = IpAddr> {
        let interface = way.interface;
        self.addresses.iter().filter(move |(of, _)| *of == interface).map(|(_, address)| *address)
    }

    /// The name servers that the host uses.
    pub(super) fn resolvers(&self) -> &[IpAddr] {
        &self.resolvers
    }

    /// The gateways, whose neighbour entries matter.
    pub(crate) fn gateways(&self) -> Vec<IpAddr> {
        let ways = self.defaults.iter().flat_map(|route| &route.ways);
        ways.filter_map(|way| way.gateway).collect()
    }

    /// With these name servers.
    pub(super) fn with_resolvers(self, resolvers: Vec<IpAddr>) -> Self {
        Self { resolvers, ..self }
    }

    /// Adds what one message of a dump tells.
    ///
    /// # Errors
    /// If it cannot be understood and could matter: without a default route that counts, another one would.
    pub(super) fn add(&mut self, message: &[u8]) -> Result<(), DecodeError> {
        let parsed = NetlinkMessage::<RouteNetlinkMessage>::deserialize(message);
        let NetlinkPayload::InnerMessage(inner) = parsed?.payload else { return Ok(()) };
        match inner {
            RouteNetlinkMessage::NewRoute(route) => self.defaults.extend(default(&route)),
            RouteNetlinkMessage::NewNeighbour(neighbour) => self.neighbours.extend(known(&neighbour)),
            RouteNetlinkMessage::NewAddress(address) => self.addresses.extend(own(&address)),
            _ => {}
        }
        Ok(())
    }
}

/// A route of the main table to everywhere that carries packets now, or refuses them.
fn default(route: &RouteMessage) -> Option<DefaultRoute> {
    let (mut table, mut metric) = (u32::from(route.header.table), 0);
    let (mut gateway, mut interface, mut several) = (None, None, None);
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Table(number) => table = *number,
            RouteAttribute::Priority(number) => metric = *number,
            RouteAttribute::Gateway(address) => gateway = plain(address),
            RouteAttribute::Oif(number) => interface = Some(*number),
            RouteAttribute::MultiPath(hops) => several = Some(hops),
            _ => {}
        }
    }
    let header = &route.header;
    let is_everything =
        header.destination_prefix_length == 0 && header.source_prefix_length == 0 && header.tos == 0;
    // The bits are those of the next hop (`RTNH_F_DEAD`, `RTNH_F_LINKDOWN`, include/uapi/linux/rtnetlink.h).
    let is_down = header.flags.intersects(RouteFlags::Dead | RouteFlags::Linkdown);
    if !is_everything || is_down || table != u32::from(RouteHeader::RT_TABLE_MAIN) {
        return None;
    }
    let ways = match (header.kind == RouteType::Unicast, several) {
        (false, _) => Vec::new(),
        (true, None) => interface.map(|interface| Way { gateway, interface }).into_iter().collect(),
        (true, Some(hops)) => {
            let way = |hop: &netlink_packet_route::route::RouteNextHop| {
                let gateway = hop.attributes.iter().find_map(|attribute| match attribute {
                    RouteAttribute::Gateway(address) => plain(address),
                    _ => None,
                });
                Way { gateway, interface: hop.interface_index }
            };
            hops.iter().map(way).collect()
        }
    };
    let is_ipv4 = header.address_family == netlink_packet_route::AddressFamily::Inet;
    Some(DefaultRoute { is_ipv4, metric, ways })
}

fn plain(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some(IpAddr::V4(*address)),
        RouteAddress::Inet6(address) => Some(IpAddr::V6(*address)),
        _ => None,
    }
}

/// A neighbour whose hardware address is known and was not found wrong since.
fn known(neighbour: &NeighbourMessage) -> Option<(u32, IpAddr, Mac)> {
    let is_known = matches!(
        neighbour.header.state,
        NeighbourState::Reachable
            | NeighbourState::Stale
            | NeighbourState::Delay
            | NeighbourState::Probe
            | NeighbourState::Permanent
    );
    let address = address_of(neighbour).filter(|_| is_known)?;
    let mac = neighbour.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::LinkLayerAddress(bytes) => <[u8; 6]>::try_from(bytes.as_slice()).ok().map(Mac),
        _ => None,
    });
    Some((neighbour.header.ifindex, address, mac?))
}

/// Whom an entry of the neighbour table is about.
pub(super) fn address_of(neighbour: &NeighbourMessage) -> Option<IpAddr> {
    neighbour.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => Some(IpAddr::V4(*address)),
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(address)) => Some(IpAddr::V6(*address)),
        _ => None,
    })
}

/// An address of the host. Where the far end of a link has one as well, the local one is meant.
fn own(message: &AddressMessage) -> Option<(u32, IpAddr)> {
    let find =
        |wanted: &dyn Fn(&AddressAttribute) -> Option<IpAddr>| message.attributes.iter().find_map(wanted);
    let local = find(&|attribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    let address = local.or_else(|| {
        find(&|attribute| match attribute {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        })
    });
    Some((message.header.index, address?))
}
