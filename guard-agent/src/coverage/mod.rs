//! What is decided on this kernel, action by action: the action table says what this version decides and
//! by which hooks, and kernels differ in the hooks that they have.
#![forbid(unsafe_code)]

mod hooks;
mod since;

pub use hooks::Hooks;
pub(crate) use hooks::is_left_out;

use guard_common::action::{self, Coverage, Row, TABLE};
use serde::{Deserialize, Serialize};

/// How far an action is decided on a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Extent {
    /// At every operation that is this action.
    Enforced,
    /// At some of them.
    Partly,
    /// This version decides it, and this kernel lacks what that takes.
    NotOnThisKernel,
    /// This version decides it nowhere.
    NotInThisVersion,
}

/// One action on a kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ActionCoverage {
    /// Its dotted name.
    pub action: String,
    /// How far it is decided.
    pub coverage: Extent,
    /// Why not at every operation; empty if it is.
    pub why: Vec<String>,
    /// The hooks that decide it here.
    pub hooks: Vec<String>,
}

/// Every action, on a kernel on which `has` says which hooks there are, or which are attached.
pub fn of(has: &dyn Fn(&str) -> bool) -> Vec<ActionCoverage> {
    action::named().map(|row| one(row, has)).collect()
}

/// Bits of the actions that this version decides and this kernel has no hook for.
pub fn undecided(has: &dyn Fn(&str) -> bool) -> u64 {
    let missing = TABLE.iter().filter(|row| one(row, has).coverage == Extent::NotOnThisKernel);
    missing.map(|row| row.action.bit()).sum()
}

/// Names of the actions with these bits.
pub fn names(actions: u64) -> Vec<&'static str> {
    action::names(actions).collect()
}

fn one(row: &Row, has: &dyn Fn(&str) -> bool) -> ActionCoverage {
    let found = |coverage, why, hooks| ActionCoverage { action: row.name.to_owned(), coverage, why, hooks };
    let mut why = match row.coverage {
        Coverage::NotYet => return found(Extent::NotInThisVersion, Vec::new(), Vec::new()),
        Coverage::Partly(why) => vec![why.to_owned()],
        Coverage::Enforced => Vec::new(),
    };
    let wanted = || row.hook.split(',').map(str::trim).filter(|hook| !hook.is_empty());
    let here: Vec<String> = wanted().filter(|hook| has(hook)).map(str::to_owned).collect();
    for hook in wanted().filter(|hook| !has(hook)) {
        match since::without(hook) {
            // Another hook of the action sees the same operations where this one does not exist.
            Some(None) => {}
            Some(Some(missing)) => why.push(format!("this kernel has no hook {hook}: {missing}")),
            None => why.push(format!("this kernel has no hook {hook}")),
        }
    }
    let extent = match () {
        () if here.is_empty() => Extent::NotOnThisKernel,
        () if why.is_empty() => Extent::Enforced,
        () => Extent::Partly,
    };
    found(extent, why, here)
}

#[cfg(test)]
mod tests {
    use super::*;
    use guard_common::action::Action;

    fn row(hook: &'static str, coverage: Coverage) -> Row {
        Row { hook, coverage, ..*Action::UnixSend.row() }
    }

    #[test]
    fn a_kernel_with_every_hook_decides_what_the_version_does() {
        for found in of(&|_| true) {
            let row = Action::from_name(&found.action).unwrap().row();
            let expected = match row.coverage {
                Coverage::Enforced => Extent::Enforced,
                Coverage::Partly(_) => Extent::Partly,
                Coverage::NotYet => Extent::NotInThisVersion,
            };
            assert_eq!(found.coverage, expected, "{}", found.action);
        }
        assert_eq!(undecided(&|_| true), 0);
    }

    #[test]
    fn without_its_hooks_an_action_is_not_decided() {
        let found = one(&row("a, b", Coverage::Enforced), &|_| false);
        assert_eq!(found.coverage, Extent::NotOnThisKernel);
        assert_eq!(found.why, ["this kernel has no hook a", "this kernel has no hook b"]);
        let found = one(&row("a, b", Coverage::Enforced), &|hook| hook == "b");
        assert_eq!((found.coverage, found.hooks), (Extent::Partly, vec!["b".to_owned()]));
        assert!(undecided(&|hook| hook != "unix_may_send") == Action::UnixSend.bit());
    }

    #[test]
    fn a_hook_that_another_one_stands_for_is_not_missed() {
        let found =
            one(&row("path_truncate, file_truncate", Coverage::Enforced), &|hook| hook == "path_truncate");
        assert_eq!((found.coverage, found.why), (Extent::Enforced, Vec::new()));
        let found = one(&row("uring_allowed, inode_init_security_anon", Coverage::Enforced), &|hook| {
            hook == "uring_allowed"
        });
        assert_eq!((found.coverage, found.why), (Extent::Enforced, Vec::new()));
        let found = one(&row("bpf, mptcp_add_subflow", Coverage::Enforced), &|hook| hook == "bpf");
        assert_eq!(found.coverage, Extent::Partly);
    }
}
