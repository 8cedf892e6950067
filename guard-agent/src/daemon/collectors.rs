//! Facts that the agent finds out by itself: whether the clock is right, whether the kernel is locked down, whether
//! the host was booted securely. A bundle that declares a fact with such a source gets it; nobody else can set it.

use crate::kernel::clock_is_synchronised;
use crate::policy::{Bundle, FactValue};
use std::collections::BTreeMap;
use std::fs;
use std::mem::discriminant;

/// What the source of such a fact begins with.
pub(super) const PREFIX: &str = "collector:";
/// The kernel's lockdown, with the mode in brackets (kernel_lockdown(7)).
const LOCKDOWN: &str = "/sys/kernel/security/lockdown";
/// The firmware's variable: four bytes of attributes, then 1 (UEFI specification, 3.3).
const SECURE_BOOT: &str = "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c";

/// Facts that the agent is to find out, by name; nothing where it could not, whatever anybody else says.
pub(super) type Collected = BTreeMap<String, Option<FactValue>>;

/// What is found out for a bundle. What cannot be found out, or is of another type than declared, is absent.
pub(super) fn collect(bundle: &Bundle) -> Collected {
    let wanted = bundle.facts().iter().filter_map(|(name, example)| {
        let collector = bundle.source(name)?.strip_prefix(PREFIX)?;
        let found = value(collector).filter(|value| discriminant(value) == discriminant(example));
        Some((name.clone(), found))
    });
    wanted.collect()
}

/// Whether something is to be found out for a bundle.
pub(super) fn are_wanted(bundle: &Bundle) -> bool {
    let is_one = |name: &String| bundle.source(name).is_some_and(|source| source.starts_with(PREFIX));
    bundle.facts().keys().any(is_one)
}

fn value(collector: &str) -> Option<FactValue> {
    match collector {
        "clock" => clock_is_synchronised().map(FactValue::Bool),
        "lockdown" => lockdown(&fs::read_to_string(LOCKDOWN).ok()?).map(FactValue::String),
        "secure-boot" => {
            Some(FactValue::Bool(fs::read(SECURE_BOOT).is_ok_and(|bytes| bytes.get(4) == Some(&1))))
        }
        _ => None,
    }
}

/// The mode that is in brackets.
fn lockdown(text: &str) -> Option<String> {
    let (_, rest) = text.split_once('[')?;
    rest.split_once(']').map(|(mode, _)| mode.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mode_of_lockdown_is_the_one_in_brackets() {
        assert_eq!(lockdown("none [integrity] confidentiality\n").as_deref(), Some("integrity"));
        assert_eq!(lockdown("[none] integrity confidentiality\n").as_deref(), Some("none"));
        assert_eq!(lockdown("none\n"), None);
    }

    #[test]
    fn a_fact_of_another_type_or_of_no_collector_is_absent() {
        let toml = "[bundle]\nname = \"x\"\nversion = 1\nprofile = 1\n[facts]\n\
                    right = { type = \"bool\", source = \"collector:clock\" }\n\
                    wrong = { type = \"long\", source = \"collector:clock\" }\n\
                    other = { type = \"bool\", source = \"collector:moon\" }\n\
                    told = { type = \"bool\", source = \"edr\" }\n";
        let directory = std::env::temp_dir().join(format!("guard-collectors-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("guard.toml"), toml).unwrap();
        let bundle = crate::policy::load(&directory).unwrap();
        fs::remove_dir_all(&directory).unwrap();
        assert!(are_wanted(&bundle));
        let collected = collect(&bundle);
        assert!(collected.keys().eq(["other", "right", "wrong"]), "{collected:?}");
        assert!(collected.iter().all(|(name, value)| value.is_none() || name == "right"), "{collected:?}");
    }
}
