//! The resource of one decision, on the stack of the hook.

use crate::generation::Generation;
use crate::maps::ATTRIBUTES;
use aya_ebpf::helpers::generated::bpf_loop;
use core::ffi::c_void;
use guard_common::class::{Class, UNKNOWN};
use guard_common::tables::{Attributes, Header, MAX_ATTRIBUTE_TESTS};

/// What a hook found out about the thing that is acted on.
pub struct Resource {
    /// Its class.
    pub class: Class,
    /// Its features.
    pub features: u64,
    /// Its raw attributes.
    pub attributes: Attributes,
    /// The walk buffer holds its path.
    pub has_path: bool,
    /// It is judged by nothing but its place and attributes; its kind and mode are in what is described.
    pub is_kept: bool,
    /// Address of an abstract socket name, or 0.
    pub abstract_name: u64,
    /// Length of that name.
    pub abstract_len: u32,
    /// Address family of `address`, or 0.
    pub family: u16,
    /// Port, host byte order.
    pub port: u16,
    /// IP protocol.
    pub protocol: u16,
    /// Address, network byte order.
    pub address: [u8; 16],
    /// Subject of the process that is acted on or at the other end, or 0: for the event.
    pub peer: u32,
    /// Thread-group id of the process that is acted on, or 0.
    pub peer_tgid: u32,
}

impl Resource {
    /// A resource of `class` with nothing else known.
    #[inline(always)]
    pub fn of_class(class: Class) -> Self {
        Self {
            class,
            features: 0,
            attributes: Attributes::default(),
            has_path: false,
            is_kept: false,
            abstract_name: 0,
            abstract_len: 0,
            family: 0,
            port: 0,
            protocol: 0,
            address: [0; 16],
            peer: 0,
            peer_tgid: 0,
        }
    }

    /// A resource about which nothing is known.
    #[inline(always)]
    pub fn unknown() -> Self {
        Self::of_class(UNKNOWN)
    }

    /// Adds the features that the attribute tests of the generation give.
    #[inline(always)]
    pub fn add_attribute_features(&mut self, generation: &Generation, header: &Header) {
        self.features |= attribute_features(&self.attributes, generation, header);
    }
}

/// The features that the attribute tests of the generation give.
#[inline(always)]
pub fn attribute_features(attributes: &Attributes, generation: &Generation, header: &Header) -> u64 {
    if header.attributes == 0 {
        return 0;
    }
    let mut state = State { attributes, slot: generation.slot, features: 0 };
    let count = header.attributes.min(MAX_ATTRIBUTE_TESTS);
    // SAFETY: the callback's context is `state`, which outlives the call.
    unsafe { bpf_loop(count, test as *mut c_void, (&raw mut state).cast(), 0) };
    state.features
}

struct State {
    attributes: *const Attributes,
    slot: u32,
    features: u64,
}

extern "C" fn test(index: u32, state: *mut State) -> i64 {
    // SAFETY: the only caller passes a valid, exclusive pointer, and one to attributes that outlive the call.
    let (state, attributes) = unsafe { (&mut *state, &*(*state).attributes) };
    let Some(test) = ATTRIBUTES.get(state.slot).and_then(|tests| tests.get(index)) else {
        return 1;
    };
    state.features |= test.feature(attributes);
    0
}
