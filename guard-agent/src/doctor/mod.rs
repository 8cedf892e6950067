//! Can this host enforce, and if not, what has to be done?
//!
//! Facts are read once ([`Facts`]), judged without side effects ([`examine`]) and, where everything
//! that can be read looks right, tried for real. [`preflight`] is the part that a daemon cannot
//! start without.
#![forbid(unsafe_code)]

mod checks;
mod distribution;
mod facts;
mod lsm;
mod report;

pub use checks::{Check, Problem, State, examine};
pub use distribution::Distribution;
pub use facts::Facts;
pub use lsm::boot_parameter;
pub use report::Report;

use crate::coverage::{self, Hooks};
use std::path::Path;

/// Whether the programs can be loaded at all on this host, as far as that can be read.
///
/// # Errors
/// Everything that is in the way; each says what to do about it.
pub fn preflight() -> Result<(), Vec<Problem>> {
    let problems = problems(&examine(&Facts::read(Path::new("/"))));
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}

/// The hard requirements that are known not to hold. What could not be read is left to the attempt.
fn problems(checks: &[Check]) -> Vec<Problem> {
    checks.iter().filter(|check| check.hard && check.state == State::Missing).map(Problem::from).collect()
}

/// Examines this host; `attempt` loads the programs and is called if nothing known speaks against it.
pub fn run(root: &Path, attempt: Option<&dyn Fn() -> Result<(), String>>) -> Report {
    let facts = Facts::read(root);
    let mut checks = examine(&facts);
    checks.push(checks::attempt(&facts, &problems(&checks), attempt));
    // A kernel whose types cannot be read is judged by the checks; it is not said to lack what nobody looked for.
    let hooks = Hooks::read(root);
    let coverage = coverage::of(&|hook| hooks.as_ref().is_none_or(|hooks| hooks.has(hook)));
    Report { checks, coverage }
}

#[cfg(test)]
mod tests;
