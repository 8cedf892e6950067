//! The first hour: from a service to a policy for it.
//!
//! - `init` writes a bundle from what can be read about a service: [`Unit`], [`Program`], [`plan()`].
//! - `learn` proposes what a subject lacks from what monitor mode recorded of it: [`propose`].
//! - `policy suggest` proposes what would permit one denied operation: [`suggest()`].
//!
//! Includes come before literals ([`judge()`], [`choose`]), chance is taken out of names (`shape`), and
//! what is on the shipped list of secrets is never proposed. A proposal is text and a diff ([`Edited`]); nothing
//! is applied. All of it is pure but [`find`] and [`life`], which read the host.
#![forbid(unsafe_code)]

mod edit;
pub mod find;
mod judge;
mod learn;
pub mod life;
mod peers;
mod permits;
pub mod phases;
mod places;
mod plan;
mod program;
mod proposal_text;
mod secrets;
mod seen;
mod shape;
mod suggest;
mod unit;
mod unit_file;
mod write;

pub use edit::{Edited, policy};
pub use judge::{Cover, Judged, choose, covers, judge};
pub use learn::{LeftOut, Proposal, Used, propose};
pub use permits::{Permit, permits};
pub use phases::{Life, Phases};
pub use places::Width;
pub use plan::{Chosen, Plan, Right, Service, plan};
pub use program::{Program, Runtime};
pub use proposal_text::{Basis, left_out, proposal_file};
pub use secrets::{SECRETS, SHIPPED, Secrets};
pub use seen::{Seen, Thing};
pub use suggest::{Advice, Suggestion, suggest};
pub use unit::{Directory, Unit};
pub use unit_file::UnitFile;
pub use write::{policy_file, toml_file};
