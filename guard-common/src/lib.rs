//! What kernel programs and user space share: the action table, the wire types of the maps and of
//! the event ring, and the pure decision function.
//!
//! The same source is compiled into the LSM programs and into user-space tests, so what a test
//! proves about a decision holds for the decision that the kernel takes.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

pub mod action;
pub mod class;
pub mod decide;
pub mod event;
pub mod fault;
pub mod handover;
pub mod label;
pub mod offsets;
pub mod path;
pub mod quarantine;
pub mod tables;
