//! From a bundle of Cedar policies to the tables of one generation.
//!
//! [`load`] reads and validates a directory; [`compile`] turns the result into a
//! [`Generation`](crate::tables::Generation) for one host. Both are pure apart from reading the
//! files and looking up paths and accounts: they need no privilege, no clock and no kernel.
//!
//! The way of a policy: `policies` parses it, `translate` makes it a `formula` over atoms, `layout`
//! finds out which literals cover which places and addresses (`classes`), `features` numbers what
//! remains, and `outcome` writes the truth table of every (subject, class) into `cells`. What decided an
//! answer of theirs is looked up in `explanations`. A `shadow`'s policies go the same way beside them.

mod actions;
mod approvals;
mod assumptions;
mod bundle;
mod cells;
mod classes;
mod collectors;
mod compile;
mod condition;
mod described;
mod diagnostics;
mod effective;
mod entity;
mod explanations;
mod facts;
mod features;
mod formula;
mod gate;
mod grants;
mod ids;
mod includes;
mod kind;
mod layout;
mod lifts;
mod literals;
mod manifest;
mod merge;
mod naming;
mod nesting;
mod network;
mod oracle;
mod outcome;
mod places;
mod policies;
mod posture;
mod report;
mod request;
mod rewrite;
mod rules;
mod schema;
mod seats;
mod selectors;
mod sessions;
mod shadow;
mod signers;
mod style;
mod subjects;
mod successors;
pub mod survey;
mod translate;
mod trie;
mod unknown;
mod validation;
pub mod verbs;
pub mod walk;
mod windows;
mod world;
mod written;

#[cfg(test)]
mod tests;

pub use actions::actions_reference;
pub use approvals::{ApprovalRule, ApprovalRules, Approver, MAX_USES};
pub use bundle::{Bundle, load, parse};
pub use collectors::{COLLECTOR, Collector, PROVIDER};
pub use compile::{
    Compiled, ExecSelector, Names, TableSizes, compile, compile_beside, compile_seated, compile_with,
};
pub use described::known_actions;
pub use diagnostics::{Diagnostic, Diagnostics, Place, Severity, Source};
pub use effective::{EffectivePolicy, EffectiveSet, Origin, WithoutValue};
pub use explanations::Deciding;
pub use facts::LONGEST_FACT;
pub use gate::{Gate, On, Principal, Ruling, Session};
pub use grants::{Grant, grants};
pub use ids::SubjectIds;
pub use includes::{is_guards_own, shipped_includes};
pub use lifts::Lifts;
pub use literals::{file_kind, protocol};
pub(crate) use manifest::toml;
pub use manifest::{Container, Engine, FailMode, Root, SelectorDefinition, Unenforceable, duration};
pub use naming::resolved;
pub use oracle::{Answer, Lift, Oracle, Verdict};
pub use posture::{Counted, Instant, Opening, Posture, Stale, Until};
pub use report::{
    action_names, action_names_among, actions_text, check_report, selectors_text, successors_text,
};
pub use request::{Request, Resource, Spot};
pub use schema::PRODUCT_SCHEMA;
pub use seats::Seat;
pub use sessions::{Account, Adopter, Variable, VariableError, VariableKind, resolve as session_values};
pub use style::format;
pub(crate) use subjects::AGENT;
pub use subjects::{Mode, SubjectDefinition};
pub use successors::{Entrance, ExecSuccessor, SuccessorDefinition};
pub use windows::{Schedule, Schedules};
pub use world::{FactValue, Facts, Listener, Peer, Signers};
pub use written::{Replaced, Written};
