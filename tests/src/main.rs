//! Tests that run inside guests, against the real kernel.
fn main() {}
