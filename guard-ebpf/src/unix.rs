//! Unix sockets: `unix_stream_connect` and `unix_may_send`.
//!
//! `socket_connect` sees only the bytes that the caller typed, which may be relative or lead over
//! symbolic links; here the kernel has found the socket, and with it the name it was bound to.

use crate::memory::read;
use crate::offsets::*;
use crate::own_tmpfs;
use crate::path;
use crate::resource::Resource;
use crate::task::{Lookup, label};
use crate::verdict::{fail, judge, live};
use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;
use guard_common::action::{Action, EACCES};
use guard_common::class::{OWN_ANONYMOUS, UNKNOWN};
use guard_common::decide::Reason;
use guard_common::label::Label;

/// `S_IFSOCK`, the kind of every unix socket.
const S_IFSOCK: u64 = 0o140000;
/// Bytes of `sun_family` before the name in a socket address.
const FAMILY_BYTES: u32 = 2;

#[lsm(hook = "unix_stream_connect")]
pub fn unix_stream_connect(ctx: LsmContext) -> i32 {
    peer(ctx.arg(1), Action::UnixConnect)
}

#[lsm(hook = "unix_may_send")]
pub fn unix_may_send(ctx: LsmContext) -> i32 {
    let label = match label() {
        Lookup::Unlabelled => return 0,
        Lookup::Labelled(label) => label,
        Lookup::Busy => return -EACCES,
    };
    let other: u64 = ctx.arg(1);
    match read::<u64>(other, &SOCKET_SK).and_then(|sock| decide(sock, label, Action::UnixSend)) {
        Ok(answer) => answer,
        Err(reason) => fail(label, Action::UnixSend.bit(), reason),
    }
}

#[inline(always)]
fn peer(sock: u64, action: Action) -> i32 {
    let label = match label() {
        Lookup::Unlabelled => return 0,
        Lookup::Labelled(label) => label,
        Lookup::Busy => return -EACCES,
    };
    match decide(sock, label, action) {
        Ok(answer) => answer,
        Err(reason) => fail(label, action.bit(), reason),
    }
}

#[inline(always)]
fn decide(sock: u64, label: *mut Label, action: Action) -> Result<i32, Reason> {
    let (generation, header) = live()?;
    let mut resource = Resource::of_class(UNKNOWN);
    resource.attributes.kind = S_IFSOCK;
    let dentry: u64 = read(sock, &UNIX_DENTRY)?;
    if dentry != 0 {
        resource.attributes.abstract_name = 0;
        // SAFETY: the walk buffer of the running task's own label.
        let walk = unsafe { &raw mut (*label).walk };
        path::classify(&generation, header, dentry, walk, &mut resource)?;
        own_tmpfs::correct(dentry, label, walk, &mut resource)?;
    } else {
        let address: u64 = read(sock, &UNIX_ADDR)?;
        let length: u32 = if address == 0 { 0 } else { read(address, &UNIX_ADDRESS_LEN)? };
        if length <= FAMILY_BYTES + 1 {
            // Without a name only the two ends of a socket pair know each other.
            resource.class = OWN_ANONYMOUS;
        } else {
            resource.attributes.abstract_name = 1;
            // The name follows the family and the zero byte that makes it abstract.
            resource.abstract_name = address + get(&UNIX_ADDRESS_NAME) + FAMILY_BYTES as u64 + 1;
            resource.abstract_len = length - FAMILY_BYTES - 1;
            resource.class =
                path::abstract_class(&generation, resource.abstract_name, resource.abstract_len)?;
        }
    }
    resource.add_attribute_features(&generation, header);
    Ok(judge(&generation, label, &resource, action.bit()))
}
