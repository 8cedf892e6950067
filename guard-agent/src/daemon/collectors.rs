//! Facts that the agent finds out by itself. A bundle that declares a fact with such a source gets it; nobody else
//! can set it.
//!
//! What costs a look at a file is looked at when posture is computed. Networks and units are followed by threads of
//! their own (`location`, `units`), which leave what they find in [`Found`].

use super::found::Found;
use crate::collect::disk;
use crate::kernel::clock_is_synchronised;
use crate::policy::{Bundle, COLLECTOR, Collector, FactValue};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;

/// The kernel's lockdown, with the mode in brackets (kernel_lockdown(7)).
const LOCKDOWN: &str = "/sys/kernel/security/lockdown";
/// The firmware's variable: four bytes of attributes, then 1 (UEFI specification, 3.3).
const SECURE_BOOT: &str = "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c";

/// Facts that the agent is to find out, by name; nothing where it could not, whatever anybody else says.
pub(super) type Collected = BTreeMap<String, Option<FactValue>>;

/// What is found out for a bundle. What cannot be found out, or is of another type than declared, is absent.
pub(super) fn collect(bundle: &Bundle, found: &Found) -> Collected {
    let wanted = bundle.facts().iter().filter_map(|(name, example)| {
        let source = bundle.source(name).filter(|source| source.starts_with(COLLECTOR))?;
        let value = Collector::of(source).and_then(|collector| value(&collector, found));
        Some((name.clone(), value.filter(|value| value.is_like(example))))
    });
    wanted.collect()
}

/// Whether something is to be found out for a bundle.
pub(super) fn are_wanted(bundle: &Bundle) -> bool {
    collectors(bundle).next().is_some()
}

/// Whether something of that is announced by nobody.
pub(super) fn are_polled(bundle: &Bundle) -> bool {
    collectors(bundle).any(|collector| !matches!(collector, Collector::Network | Collector::Unit(_)))
}

/// The systemd units whose state a bundle asks for.
pub(super) fn units(bundle: &Bundle) -> BTreeSet<String> {
    let units = collectors(bundle).filter_map(|collector| match collector {
        Collector::Unit(unit) => Some(unit),
        _ => None,
    });
    units.collect()
}

/// Whether a bundle asks in which network the host is.
pub(super) fn wants_network(bundle: &Bundle) -> bool {
    collectors(bundle).any(|collector| collector == Collector::Network)
}

fn collectors(bundle: &Bundle) -> impl Iterator<Item = Collector> {
    bundle.facts().keys().filter_map(|name| Collector::of(bundle.source(name)?))
}

fn value(collector: &Collector, found: &Found) -> Option<FactValue> {
    match collector {
        Collector::Clock => clock_is_synchronised().map(FactValue::Bool),
        Collector::Lockdown => lockdown(&fs::read_to_string(LOCKDOWN).ok()?).map(FactValue::String),
        Collector::SecureBoot => {
            Some(FactValue::Bool(fs::read(SECURE_BOOT).is_ok_and(|bytes| bytes.get(4) == Some(&1))))
        }
        Collector::Network => found.network().map(FactValue::String),
        Collector::Unit(unit) => found.unit(unit).map(FactValue::String),
        Collector::DiskEncryption(path) => disk::is_encrypted(path).map(FactValue::Bool),
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

    fn bundle(facts: &str) -> Result<Bundle, crate::policy::Diagnostics> {
        let toml = format!("[bundle]\nname = \"x\"\nversion = 1\nprofile = 1\n[facts]\n{facts}");
        static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let directory =
            std::env::temp_dir().join(format!("guard-collectors-{}-{number}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("guard.toml"), toml).unwrap();
        let bundle = crate::policy::load(&directory);
        fs::remove_dir_all(&directory).unwrap();
        bundle
    }

    #[test]
    fn the_mode_of_lockdown_is_the_one_in_brackets() {
        assert_eq!(lockdown("none [integrity] confidentiality\n").as_deref(), Some("integrity"));
        assert_eq!(lockdown("[none] integrity confidentiality\n").as_deref(), Some("none"));
        assert_eq!(lockdown("none\n"), None);
    }

    #[test]
    fn what_is_not_known_or_of_no_collector_is_absent() {
        let bundle = bundle(
            "right = { type = \"bool\", source = \"collector:clock\" }\n\
             place = { type = \"string\", source = \"collector:network\" }\n\
             edr = { type = \"string\", source = \"collector:unit:edr.service\" }\n\
             sshd = { type = \"string\", source = \"collector:unit:sshd.service\" }\n\
             other = { type = \"bool\", source = \"collector:moon\" }\n\
             told = { type = \"bool\", source = \"edr\" }\n",
        )
        .unwrap();
        assert!(are_wanted(&bundle) && are_polled(&bundle) && wants_network(&bundle));
        assert!(units(&bundle).iter().eq(["edr.service", "sshd.service"]));
        let found = Found::default();
        let nothing = collect(&bundle, &found);
        assert!(nothing.keys().eq(["edr", "other", "place", "right", "sshd"]), "{nothing:?}");
        assert!(nothing.iter().all(|(name, value)| value.is_none() || name == "right"), "{nothing:?}");
        assert!(found.set_network(Some("office".into())) && !found.set_network(Some("office".into())));
        assert!(found.set_units(BTreeMap::from([("edr.service".into(), "active".into())])));
        let some = collect(&bundle, &found);
        let text = |text: &str| Some(FactValue::String(text.to_owned()));
        assert_eq!((&some["place"], &some["edr"], &some["sshd"]), (&text("office"), &text("active"), &None));
        assert!(found.set_network(None));
        assert_eq!(collect(&bundle, &found)["place"], None);
    }

    #[test]
    fn a_fact_of_another_type_than_is_found_out_is_refused() {
        for (wrong, says) in [
            ("right = { type = \"long\", source = \"collector:clock\" }\n", "finds out a Bool, not a Long"),
            ("place = { type = \"bool\", source = \"collector:network\" }\n", "finds out a String"),
            ("edr = { type = \"string\", source = \"collector:unit:edr\" }\n", "sshd.service"),
            ("told = { type = \"bool\", source = \"edr\", ttl = \"400d\" }\n", "at most 366 days"),
            ("told = { type = \"bool\", source = \"provider:\" }\n", "names no provider"),
        ] {
            let error = bundle(wrong).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn what_keeps_a_source_from_saying_something_is_told_until_it_is_over() {
        let found = Found::default();
        found.trouble("provider:edr", Some("it did not end".into()));
        assert_eq!(found.troubles()["provider:edr"], "it did not end");
        found.trouble("provider:edr", None);
        assert!(found.troubles().is_empty());
    }
}
