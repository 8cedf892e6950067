//! Internet addresses: as callers write them, as the kernel takes them, and the class they are in.

use crate::generation::{Generation, PortRanges, Ranges4, Ranges6};
use crate::maps::{NETS4, NETS6, PORTS};
use crate::memory::{copy, read};
use crate::offsets::*;
use crate::resource::{Resource, attribute_features};
use aya_ebpf::helpers::generated::bpf_loop;
use core::ffi::c_void;
use guard_common::class::Class;
use guard_common::decide::{Reason, SEARCH_STEPS, Search};
use guard_common::path::Walk;
use guard_common::tables::{Attributes, Header};

// include/linux/socket.h.
pub const AF_UNSPEC: u16 = 0;
pub const AF_UNIX: u16 = 1;
pub const AF_INET: u16 = 2;
pub const AF_INET6: u16 = 10;
/// Bytes of `struct sockaddr_in6` up to the end of the address.
const SOCKADDR_BYTES: u32 = 24;
/// Bytes of `sun_family` and its like.
const FAMILY_BYTES: u32 = 2;

/// `struct sockaddr_in6` as far as it is read; `struct sockaddr_in` has its address in `flow`.
#[repr(C)]
pub struct SocketAddress {
    pub family: u16,
    port: u16,
    flow: u32,
    high: u64,
    low: u64,
    /// Room for the verifier's bound on the length.
    slack: u64,
}

impl SocketAddress {
    /// Reads the address that the kernel has copied from a caller, who cannot change it any more. The
    /// family is [`AF_UNSPEC`] if there is not even room for one, which the kernel refuses itself.
    #[inline(always)]
    pub fn read(address: u64, length: u32) -> Result<Self, Reason> {
        let mut given = Self { family: AF_UNSPEC, port: 0, flow: 0, high: 0, low: 0, slack: 0 };
        if (length as i32) < FAMILY_BYTES as i32 {
            return Ok(given);
        }
        let used = if length > SOCKADDR_BYTES { SOCKADDR_BYTES } else { length };
        // SAFETY: `used` is at most the size of the structure.
        unsafe { copy::<31>((&raw mut given).cast(), used, address)? };
        Ok(given)
    }

    /// The address, if it is one of IPv6 or not.
    #[inline(always)]
    pub fn address(&self, is_v6: bool) -> Address {
        let port = u16::from_be(self.port);
        if is_v6 {
            Address::v6(u64::from_be(self.high), u64::from_be(self.low), port)
        } else {
            Address { is_v4: true, high: 0, low: u32::from_be(self.flow) as u64, port }
        }
    }
}

/// An address and a port, in host byte order. An IPv4 address in IPv6 clothes (RFC 4291, 2.5.5.2) is
/// that IPv4 address.
#[derive(Clone, Copy)]
pub struct Address {
    pub is_v4: bool,
    pub high: u64,
    pub low: u64,
    pub port: u16,
}

/// 127.0.0.1.
const LOOPBACK4: u64 = 0x7f00_0001;
/// Lower half of ::1.
const LOOPBACK6_LOW: u64 = 1;

impl Address {
    /// An IPv4 address.
    #[inline(always)]
    pub fn v4(address: u32, port: u16) -> Self {
        Self { is_v4: true, high: 0, low: address as u64, port }
    }

    /// An IPv6 address, by its halves.
    #[inline(always)]
    pub fn v6(high: u64, low: u64, port: u16) -> Self {
        if high == 0 && low >> 32 == 0xffff {
            Self { is_v4: true, high: 0, low: low & 0xffff_ffff, port }
        } else {
            Self { is_v4: false, high, low, port }
        }
    }

    /// An IPv6 address as it lies in kernel memory.
    #[inline(always)]
    pub fn read_v6(base: u64, offset: &'static u32, port: u16) -> Result<Self, Reason> {
        let halves: [u64; 2] = read(base, offset)?;
        Ok(Self::v6(u64::from_be(halves[0]), u64::from_be(halves[1]), port))
    }

    /// Whether it is 0.0.0.0 or ::.
    #[inline(always)]
    pub fn is_unspecified(&self) -> bool {
        self.high | self.low == 0
    }

    /// The address that the kernel sends to: the unspecified one means the address the socket is bound
    /// to, or loopback (`ip_route_output_key_hash_rcu` in net/ipv4/route.c; `tcp_v6_connect`,
    /// `__ip6_datagram_connect` and `udpv6_sendmsg`).
    #[inline(always)]
    pub fn routed(&self, sock: u64) -> Result<Self, Reason> {
        if !self.is_unspecified() {
            return Ok(*self);
        }
        let mut routed = *self;
        if self.is_v4 {
            let source = u32::from_be(read(sock, &INET_SOURCE)?);
            routed.low = if source != 0 { source as u64 } else { LOOPBACK4 };
        } else {
            let bound: [u64; 2] = read(sock, &SOCK_V6_BOUND)?;
            routed.is_v4 = bound[0] == 0 && u64::from_be(bound[1]) >> 32 == 0xffff;
            routed.low = if routed.is_v4 { LOOPBACK4 } else { LOOPBACK6_LOW };
        }
        Ok(routed)
    }

    /// Puts the address as it is written into `resource`.
    #[inline(always)]
    pub fn name(&self, resource: &mut Resource) {
        resource.port = self.port;
        if self.is_v4 {
            resource.family = AF_INET;
            let bytes = (self.low as u32).to_be_bytes();
            resource.address[0] = bytes[0];
            resource.address[1] = bytes[1];
            resource.address[2] = bytes[2];
            resource.address[3] = bytes[3];
            return;
        }
        resource.family = AF_INET6;
        let (high, low) = (self.high.to_be_bytes(), self.low.to_be_bytes());
        let mut index = 0;
        while index < 8 {
            resource.address[index] = high[index];
            resource.address[index + 8] = low[index];
            index += 1;
        }
    }

    /// The class and features of the address, with those of the attributes of the socket.
    #[inline(always)]
    pub fn classify(
        &self,
        generation: &Generation,
        header: &Header,
        walk: *mut Walk,
        attributes: &Attributes,
    ) -> Result<(Class, u64), Reason> {
        let class = if self.is_v4 {
            class4(generation, header, walk, self.low as u32)?
        } else {
            class6(generation, header, walk, self.high, self.low)?
        };
        let features = port_features(generation, header, walk, self.port)?;
        Ok((class, features | attribute_features(attributes, generation, header)))
    }
}

/// Context of the search callbacks; the state of the search is in the walk buffer, see there.
struct RangeLookup<K> {
    walk: *mut Walk,
    count: u32,
    slot: u32,
    key: K,
}

macro_rules! searcher {
    ($callback:ident, $ranges:ident, $key:ty) => {
        extern "C" fn $callback(_: u32, lookup: *mut RangeLookup<$key>) -> i64 {
            // SAFETY: the only caller passes a valid pointer to a valid buffer.
            let (lookup, walk) = unsafe { (&*lookup, &mut *(*lookup).walk) };
            let mut search = Search { found: walk.found, step: walk.step };
            let more = search.advance(&$ranges(lookup.slot), lookup.count, lookup.key);
            walk.found = search.found;
            walk.step = search.step;
            !more as i64
        }
    };
}
searcher!(search4, Ranges4, u32);
searcher!(search6, Ranges6, (u64, u64));
searcher!(search_ports, PortRanges, u32);

/// Finds the range that holds `key`, in a `bpf_loop` that the verifier checks once.
macro_rules! search {
    ($callback:ident, $walk:expr, $slot:expr, $count:expr, $key:expr) => {{
        let walk: *mut Walk = $walk;
        let mut lookup = RangeLookup { walk, count: $count, slot: $slot, key: $key };
        let start = Search::new();
        // SAFETY: the buffer belongs to this program; the callback's context outlives the call.
        unsafe {
            (*walk).found = start.found;
            (*walk).step = start.step;
            bpf_loop(SEARCH_STEPS, $callback as *mut c_void, (&raw mut lookup).cast(), 0);
            (*walk).found
        }
    }};
}

#[inline(always)]
fn class4(generation: &Generation, header: &Header, walk: *mut Walk, address: u32) -> Result<u32, Reason> {
    let found = search!(search4, walk, generation.slot, header.net4, address);
    NETS4.get(generation.slot).and_then(|nets| nets.get(found)).map(|net| net.class).ok_or(Reason::TableMiss)
}

#[inline(always)]
fn class6(
    generation: &Generation,
    header: &Header,
    walk: *mut Walk,
    high: u64,
    low: u64,
) -> Result<u32, Reason> {
    let found = search!(search6, walk, generation.slot, header.net6, (high, low));
    NETS6.get(generation.slot).and_then(|nets| nets.get(found)).map(|net| net.class).ok_or(Reason::TableMiss)
}

#[inline(always)]
fn port_features(
    generation: &Generation,
    header: &Header,
    walk: *mut Walk,
    port: u16,
) -> Result<u64, Reason> {
    let found = search!(search_ports, walk, generation.slot, header.ports, port as u32);
    PORTS
        .get(generation.slot)
        .and_then(|ports| ports.get(found))
        .map(|range| range.features)
        .ok_or(Reason::TableMiss)
}
