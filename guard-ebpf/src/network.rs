//! Connections: `socket_connect`.

use crate::generation::{Generation, PortRanges, Ranges4, Ranges6};
use crate::maps::{NETS4, NETS6, PORTS};
use crate::memory::{copy, read};
use crate::offsets::*;
use crate::resource::Resource;
use crate::task::{Lookup, label};
use crate::verdict::{fail, judge, live};
use aya_ebpf::helpers::generated::bpf_loop;
use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;
use core::ffi::c_void;
use guard_common::action::{Action, EACCES};
use guard_common::class::{NETLINK_ROUTE, OTHER_PROTOCOL};
use guard_common::decide::{Reason, SEARCH_STEPS, Search};
use guard_common::label::Label;
use guard_common::path::Walk;
use guard_common::tables::Header;

// include/linux/socket.h.
const AF_UNSPEC: u16 = 0;
const AF_UNIX: u16 = 1;
const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
const AF_NETLINK: u16 = 16;
/// Bytes of `struct sockaddr_in6` up to the end of the address.
const SOCKADDR_BYTES: u32 = 24;

#[lsm(hook = "socket_connect")]
pub fn socket_connect(ctx: LsmContext) -> i32 {
    let label = match label() {
        Lookup::Unlabelled => return 0,
        Lookup::Labelled(label) => label,
        Lookup::Busy => return -EACCES,
    };
    let length: u64 = ctx.arg(2);
    match connect(ctx.arg(0), ctx.arg(1), length as u32, label) {
        Ok(answer) => answer,
        Err(reason) => fail(label, Action::NetConnect.bit(), reason),
    }
}

/// `struct sockaddr_in6` as far as it is read; `struct sockaddr_in` has its address in `flow`.
#[repr(C)]
struct SocketAddress {
    family: u16,
    port: u16,
    flow: u32,
    high: u64,
    low: u64,
    /// Room for the verifier's bound on the length.
    slack: u64,
}

#[inline(always)]
fn connect(socket: u64, address: u64, length: u32, label: *mut Label) -> Result<i32, Reason> {
    if (length as i32) < 2 {
        // The kernel refuses this itself.
        return Ok(0);
    }
    let (generation, header) = live()?;
    // SAFETY: the buffer of the running task's own label.
    let walk = unsafe { &raw mut (*label).walk };
    let mut given = SocketAddress { family: 0, port: 0, flow: 0, high: 0, low: 0, slack: 0 };
    let used = if length > SOCKADDR_BYTES { SOCKADDR_BYTES } else { length };
    // SAFETY: `used` is at most the size of the structure. The kernel has copied the address, so
    // nobody changes it any more.
    unsafe { copy::<31>((&raw mut given).cast(), used, address)? };
    let sock: u64 = read(socket, &SOCKET_SK)?;
    let protocol: u16 = read(sock, &SOCK_PROTOCOL)?;
    let mut resource = Resource::unknown();
    resource.protocol = protocol;
    resource.attributes.protocol = protocol as u64;
    match given.family {
        // Dissolves an association; unix sockets have hooks of their own.
        AF_UNSPEC | AF_UNIX => return Ok(0),
        AF_INET => {
            resource.family = AF_INET;
            resource.port = u16::from_be(given.port);
            let bytes = given.flow.to_ne_bytes();
            resource.address[0] = bytes[0];
            resource.address[1] = bytes[1];
            resource.address[2] = bytes[2];
            resource.address[3] = bytes[3];
            let address = routed4(sock, u32::from_be(given.flow))?;
            resource.class = class4(&generation, header, walk, address)?;
        }
        AF_INET6 => {
            resource.port = u16::from_be(given.port);
            let (high, low) = (u64::from_be(given.high), u64::from_be(given.low));
            if high == 0 && low >> 32 == 0xffff {
                // An IPv4 address in IPv6 clothes (RFC 4291, 2.5.5.2) is that IPv4 address.
                resource.family = AF_INET;
                let bytes = (low as u32).to_be_bytes();
                resource.address[0] = bytes[0];
                resource.address[1] = bytes[1];
                resource.address[2] = bytes[2];
                resource.address[3] = bytes[3];
                let address = routed4(sock, low as u32)?;
                resource.class = class4(&generation, header, walk, address)?;
            } else {
                resource.family = AF_INET6;
                let (high_bytes, low_bytes) = (given.high.to_ne_bytes(), given.low.to_ne_bytes());
                let mut index = 0;
                while index < 8 {
                    resource.address[index] = high_bytes[index];
                    resource.address[index + 8] = low_bytes[index];
                    index += 1;
                }
                resource.class = if high | low != 0 {
                    class6(&generation, header, walk, high, low)?
                } else if is_bound_to_mapped(sock)? {
                    class4(&generation, header, walk, LOOPBACK4)?
                } else {
                    class6(&generation, header, walk, 0, LOOPBACK6_LOW)?
                };
            }
        }
        family => {
            resource.class =
                if family == AF_NETLINK && protocol == 0 { NETLINK_ROUTE } else { OTHER_PROTOCOL };
            return Ok(judge(&generation, label, &resource, Action::NetRaw.bit()));
        }
    }
    resource.features |= port_features(&generation, header, walk, resource.port)?;
    resource.add_attribute_features(&generation, header);
    Ok(judge(&generation, label, &resource, Action::NetConnect.bit()))
}

/// 127.0.0.1.
const LOOPBACK4: u32 = 0x7f00_0001;
/// Lower half of ::1.
const LOOPBACK6_LOW: u64 = 1;

/// The address that the kernel connects to: the unspecified one means the address the socket is bound
/// to, or loopback (`ip_route_output_key_hash_rcu` in net/ipv4/route.c).
#[inline(always)]
fn routed4(sock: u64, address: u32) -> Result<u32, Reason> {
    if address != 0 {
        return Ok(address);
    }
    let source = u32::from_be(read(sock, &INET_SOURCE)?);
    Ok(if source != 0 { source } else { LOOPBACK4 })
}

/// Whether an IPv6 socket is bound to an IPv4 address. The unspecified address then means 127.0.0.1,
/// and ::1 otherwise (`tcp_v6_connect`, `__ip6_datagram_connect`).
#[inline(always)]
fn is_bound_to_mapped(sock: u64) -> Result<bool, Reason> {
    let bound: [u64; 2] = read(sock, &SOCK_V6_BOUND)?;
    Ok(bound[0] == 0 && u64::from_be(bound[1]) >> 32 == 0xffff)
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
        // SAFETY: the buffer belongs to this task; the callback's context outlives the call.
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
