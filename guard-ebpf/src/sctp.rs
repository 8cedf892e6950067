//! Addresses of SCTP that come other than by connect(2) and bind(2): `sctp_bind_connect`.

use crate::address::{AF_INET, AF_INET6, SocketAddress};
use crate::network::{decide_at, decide_far};
use crate::sockets;
use crate::task::guarded;
use aya_ebpf::helpers::generated::bpf_loop;
use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;
use core::ffi::c_void;
use guard_common::action::{Action, EACCES};
use guard_common::decide::Reason;
use guard_common::label::Label;

// include/uapi/linux/sctp.h, include/linux/sctp.h.
const SCTP_SOCKOPT_BINDX_ADD: u32 = 100;
/// Smaller values are options of setsockopt(2) and of sendmsg(2); from here on, a peer's own wishes.
const SCTP_PARAM_ADD_IP: u32 = 0xc001;
const SCTP_PARAM_SET_PRIMARY: u32 = 0xc004;
/// Addresses that are looked at; with more, the call is denied.
const MAX_ADDRESSES: u32 = 64;
/// Bytes of `struct sockaddr_in` and `struct sockaddr_in6`.
const ADDRESS4_BYTES: u32 = 16;
const ADDRESS6_BYTES: u32 = 28;

/// Decides every address that an association or its socket gets besides the first.
#[lsm(hook = "sctp_bind_connect")]
pub fn sctp_bind_connect(ctx: LsmContext) -> i32 {
    let sock: *const c_void = ctx.arg(0);
    let option: u64 = ctx.arg(1);
    let (list, length): (u64, u64) = (ctx.arg(2), ctx.arg(3));
    let option = option as u32;
    let list = List { sock: sock as u64, address: list, left: length as u32, option };
    if option == SCTP_PARAM_ADD_IP || option == SCTP_PARAM_SET_PRIMARY {
        return sockets::guarded(sock, Action::NetConnect.bit(), |label| decide(list, label));
    }
    guarded(Action::NetConnect.bit(), |label| decide(list, label))
}

/// Addresses, one behind the other.
struct List {
    sock: u64,
    address: u64,
    left: u32,
    option: u32,
}

/// Context of the callback.
struct State {
    list: List,
    label: *mut Label,
    answer: i32,
    is_done: u32,
}

#[inline(always)]
fn decide(list: List, label: *mut Label) -> Result<i32, Reason> {
    let mut state = State { list, label, answer: 0, is_done: 0 };
    // SAFETY: the callback's context outlives the call.
    unsafe { bpf_loop(MAX_ADDRESSES, one as *mut c_void, (&raw mut state).cast(), 0) };
    if state.is_done == 0 {
        return Err(Reason::Unreadable);
    }
    Ok(if state.answer != 0 { -EACCES } else { 0 })
}

extern "C" fn one(_: u32, state: *mut State) -> i64 {
    // SAFETY: the only caller passes a valid, exclusive pointer.
    let state = unsafe { &mut *state };
    if state.list.left < ADDRESS4_BYTES {
        state.is_done = 1;
        return 1;
    }
    let Ok(given) = SocketAddress::read(state.list.address, state.list.left) else { return 1 };
    if given.family != AF_INET && given.family != AF_INET6 {
        return 1;
    }
    let is_v6 = given.family == AF_INET6;
    let address = given.address(is_v6);
    let answer = if state.list.option == SCTP_SOCKOPT_BINDX_ADD {
        decide_at(state.list.sock, address, Action::NetBind, state.label)
    } else {
        decide_far(state.list.sock, address, Action::NetConnect, state.label)
    };
    match answer {
        Ok(0) => {}
        Ok(_) => {
            state.answer = 1;
            state.is_done = 1;
            return 1;
        }
        Err(_) => return 1,
    }
    let used = if is_v6 { ADDRESS6_BYTES } else { ADDRESS4_BYTES };
    state.list.address += used as u64;
    state.list.left = state.list.left.saturating_sub(used);
    0
}
