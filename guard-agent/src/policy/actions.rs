//! The reference of actions, generated from the action table and the built-in classes.

use std::fmt::Write;

use guard_common::action::{self, Action, Coverage, GROUPS, Resource, Row};
use guard_common::class::BUILTINS;

use super::gate::shipped_roles_with;
use super::verbs::{self, Below};

/// `docs/actions.md`.
pub fn actions_reference() -> String {
    let mut out = String::from(
        "# Actions\n\nGenerated from the action table in `guard-common`; a test compares this file with it. To write it again: \
         `GUARD_BLESS=1 cargo test -p guard-agent --lib actions`.\n\n\
         | action | groups | on | a denied caller gets | decided by | in this version |\n|---|---|---|---|---|---|\n",
    );
    for row in action::named() {
        let mut errno = crate::events::errno_name(row.errno);
        if let Some(quiet) = row.action.quiet_errno() {
            let _ = write!(errno, ", or {} by `@errno`", crate::events::errno_name(quiet));
        }
        let (hook, coverage) = match row.coverage {
            Coverage::Enforced => (row.hook, "enforced"),
            Coverage::Partly(text) => (row.hook, text),
            Coverage::NotYet => ("", "accepted in policy, decided by nothing"),
        };
        let _ = writeln!(
            out,
            "| `{}` | `{}` | {} | {errno} | {hook} | {coverage} |",
            row.name,
            row.groups.join("` `"),
            on(row)
        );
    }
    out.push_str("\n## Groups\n\n| group | belongs to |\n|---|---|\n");
    for (name, parents) in GROUPS {
        let parents: Vec<_> = parents.iter().map(|parent| format!("`{parent}`")).collect();
        let _ = writeln!(out, "| `{name}` | {} |", parents.join(" "));
    }
    own(&mut out);
    out.push_str("\n## Built-in classes\n\nResources that have no path that policy could name.\n\n| entity | holds |\n|---|---|\n");
    for builtin in BUILTINS {
        let _ = writeln!(out, "| `Guard::{}::\"{}\"` | {} |", builtin.entity_type, builtin.id, builtin.holds);
    }
    out
}

/// What is asked of Guard itself.
fn own(out: &mut String) {
    out.push_str(
        "\n## Guard's own API\n\nDecided in the agent, of the group `guard.*`, which is not part of `*`. [api.md](api.md) is about who asks and how; a bundle's policies can give more, \
         and a `forbid` takes away from everybody but root.\n\n\
         | action | is to | on | asked by | from below a labelled process | shipped roles |\n|---|---|---|---|---|---|\n",
    );
    for row in verbs::TABLE {
        let below = match row.below {
            Below::Allowed => "yes",
            Below::Refused => "refused",
        };
        let roles = shipped_roles_with(row.verb).join(", ");
        let (on, by) = (verbs::targets(row), verbs::askers(row));
        let _ = writeln!(out, "| `{}` | {} | {on} | {by} | {below} | {roles} |", row.name, row.says);
    }
}

fn on(row: &Row) -> &'static str {
    match row.resource {
        Resource::File if Action::on(row.name, true) != Some(row.action) => "File, Dir",
        Resource::File => "File",
        Resource::Dir => "Dir",
        Resource::FileOrMemory => "File, Memory",
        Resource::Endpoint => "Endpoint",
        Resource::Protocol => "Protocol",
        Resource::Unix => "Unix",
        Resource::Process => "Process",
        Resource::Capability => "Capability",
        Resource::Machine => "Machine",
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_reference_agrees_with_the_table() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/actions.md");
        let wanted = super::actions_reference();
        if std::env::var_os("GUARD_BLESS").is_some() {
            std::fs::write(&path, &wanted).unwrap();
        }
        let found = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(found == wanted, "docs/actions.md is out of date: run the test with GUARD_BLESS=1");
    }
}
