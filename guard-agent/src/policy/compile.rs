//! From a bundle to the tables of one generation.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::bundle::Bundle;
use super::diagnostics::{Diagnostic, Diagnostics};
use super::ids::SubjectIds;
use crate::host::Host;
use crate::tables::Generation;

/// A compiled bundle.
#[derive(Debug)]
pub struct Compiled {
    /// The tables. `header.generation` is set when they are loaded.
    pub generation: Generation,
    /// What the numbers in them mean.
    pub names: Names,
    /// Warnings and notes: unknown accounts, resolved symbolic links, actions nothing decides yet.
    pub notes: Vec<Diagnostic>,
    /// Executable selectors, for labelling processes that already run.
    pub exec_selectors: Vec<ExecSelector>,
    /// How large the tables are.
    pub sizes: TableSizes,
}

/// A subject that an executable attaches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecSelector {
    /// The executable, or the directory above it, with every symbolic link resolved.
    pub path: PathBuf,
    /// Whether `path` is a directory whose executables at any depth are meant.
    pub below: bool,
    /// The subject.
    pub subject: u32,
}

/// What numbers in a generation mean.
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// Subject number → name.
    pub subjects: BTreeMap<u32, String>,
    /// Class → what falls into it, for people.
    pub classes: Vec<String>,
}

/// Entries per table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct TableSizes {
    /// Subjects of the bundle.
    pub subjects: usize,
    /// Classes.
    pub classes: usize,
    /// Cells.
    pub cells: usize,
    /// Outcomes.
    pub outcomes: usize,
    /// Mask rows.
    pub masks: usize,
    /// Trie edges.
    pub edges: usize,
    /// Trie nodes.
    pub nodes: usize,
    /// IPv4 ranges.
    pub net4: usize,
    /// IPv6 ranges.
    pub net6: usize,
    /// Port ranges.
    pub ports: usize,
    /// Attribute tests.
    pub attributes: usize,
    /// Name patterns.
    pub patterns: usize,
    /// Feature bits.
    pub features: usize,
}

/// What conditions depend on besides the request. In this version the daemon has none: every
/// fact is absent, no lease lives, no window is open.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Names of the live leases.
    pub leases: BTreeSet<String>,
    /// Names of the open change windows.
    pub windows: BTreeSet<String>,
}

/// Compiles `bundle` for `host` without facts, leases and open windows.
pub fn compile(bundle: &Bundle, host: &Host, ids: &mut SubjectIds) -> Result<Compiled, Diagnostics> {
    compile_with(bundle, host, &Facts::default(), ids)
}

/// Compiles `bundle` for `host` under `facts`.
pub fn compile_with(
    bundle: &Bundle,
    _host: &Host,
    _facts: &Facts,
    _ids: &mut SubjectIds,
) -> Result<Compiled, Diagnostics> {
    Err(Diagnostic::error("not-built", format!("bundle {} cannot be compiled by this build", bundle.name))
        .into())
}
