//! Addresses of SCTP that come other than by connect(2) and bind(2): `sctp_bind_connect`.

use crate::address::{AF_INET, AF_INET6, SocketAddress};
use crate::network::{decide_at, decide_far};
use crate::sockets;
use crate::task::guarded;
use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;
use core::ffi::c_void;
use guard_common::action::Action;
use guard_common::decide::Reason;
use guard_common::label::Label;

// include/uapi/linux/sctp.h, include/linux/sctp.h.
const SCTP_SOCKOPT_BINDX_ADD: u32 = 100;
/// What a peer wishes for, which arrives while anybody runs.
const SCTP_PARAM_ADD_IP: u32 = 0xc001;
const SCTP_PARAM_SET_PRIMARY: u32 = 0xc004;
/// Bytes of `struct sockaddr_in` and `struct sockaddr_in6`.
const ADDRESS4_BYTES: u32 = 16;
const ADDRESS6_BYTES: u32 = 28;

/// Decides the address that an association or its socket gets besides the first.
#[lsm(hook = "sctp_bind_connect")]
pub fn sctp_bind_connect(ctx: LsmContext) -> i32 {
    let sock: *const c_void = ctx.arg(0);
    let option: u64 = ctx.arg(1);
    let (address, length): (u64, u64) = (ctx.arg(2), ctx.arg(3));
    let (option, length) = (option as u32, length as u32);
    if option == SCTP_PARAM_ADD_IP || option == SCTP_PARAM_SET_PRIMARY {
        return sockets::guarded(sock, Action::NetConnect.bit(), |label| {
            decide(sock as u64, Action::NetConnect, address, length, label)
        });
    }
    let action = if option == SCTP_SOCKOPT_BINDX_ADD { Action::NetBind } else { Action::NetConnect };
    guarded(action.bit(), |label| decide(sock as u64, action, address, length, label))
}

/// Decides one address. Several in one call (`sctp_connectx`, `sctp_bindx`) are denied: the rights of a
/// subject are looked up one by one.
#[inline(always)]
fn decide(sock: u64, action: Action, address: u64, length: u32, label: *mut Label) -> Result<i32, Reason> {
    let given = SocketAddress::read(address, length)?;
    let bytes = match given.family {
        AF_INET => ADDRESS4_BYTES,
        AF_INET6 => ADDRESS6_BYTES,
        _ => return Err(Reason::Unreadable),
    };
    if length >= bytes + ADDRESS4_BYTES {
        return Err(Reason::Unreadable);
    }
    let one = given.address(given.family == AF_INET6);
    if action == Action::NetBind {
        Ok(decide_at(sock, one, action, label))
    } else {
        Ok(decide_far(sock, one, action, label))
    }
}
