//! The Guard agent as a library: small binaries stand on it.
//!
//! Data flows one way: a bundle is read and verified (`bundle`), compiled (`policy`) into tables,
//! the tables are loaded (`kernel`), labels are attached (`subject`), and what the programs report
//! is read (`events`).

pub mod analysis;
pub mod api;
pub mod artifact;
pub mod bundle;
pub mod cli;
pub mod collect;
pub mod config;
pub mod coverage;
pub mod daemon;
pub mod doctor;
pub mod events;
mod fault;
pub mod host;
pub mod kernel;
pub mod ledger;
pub mod onboard;
pub mod policy;
pub mod roles;
pub mod store;
pub mod tables;
