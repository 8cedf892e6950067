//! What a security engineer asks of a policy: may this subject do that, and why; what may it do at
//! all; do the tests of a bundle pass; what changes between two bundles; what looks wrong in one.
//!
//! Everything here reads bundles and facts of the host and changes nothing. The answers come from
//! the oracle (`policy::Oracle`) or the compiled tables; the command line renders them.

pub mod can;
pub mod cases;
pub mod diff;
mod elsewhere;
pub mod lint;
pub mod list;
pub mod operations;
pub mod question;
pub mod why;

#[cfg(test)]
mod tests;
