//! Map values that are bytes through and through.

use zerocopy::{Immutable, IntoBytes};

/// A wire type as a map key or value.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct Wire<T>(pub(super) T);

// SAFETY: `IntoBytes` is only implemented for types without padding and `Immutable` for types
// without interior mutability, so every byte may be copied to the kernel. Bytes from the kernel are
// only ever read into types of this module's choice whose every bit pattern is valid: the maps
// behind them hold integers and arrays of integers.
unsafe impl<T: IntoBytes + Immutable + Copy + 'static> aya::Pod for Wire<T> {}
