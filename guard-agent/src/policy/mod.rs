//! From a bundle of Cedar policies to the tables of one generation.
//!
//! [`load`] reads and validates a directory; [`compile`] turns the result into a
//! [`Generation`](crate::tables::Generation) for one host. Both are pure apart from reading the
//! files: they need no privilege, no clock and no kernel.

mod bundle;
mod compile;
mod diagnostics;
mod ids;
mod manifest;

pub use bundle::{Bundle, Mode, SubjectDefinition, load};
pub use compile::{Compiled, ExecSelector, Facts, Names, TableSizes, compile, compile_with};
pub use diagnostics::{Diagnostic, Diagnostics, Place, Severity, Source};
pub use ids::SubjectIds;
pub use manifest::{FailMode, SelectorDefinition};
