use super::*;
use crate::ledger::{At, Ledger};
use crate::policy;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("guard-facts-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

const SECOND: Instant = 1_000_000_000;

/// Facts of a host at an instant, under bundles that come and go.
struct World {
    directory: Directory,
    ledger: Ledger,
    collected: Collected,
    seconds: u64,
}

impl World {
    fn new() -> Self {
        let directory = Directory::new();
        let ledger = Ledger::open(&directory.0).unwrap();
        Self { directory, ledger, collected: Collected::new(), seconds: 100 }
    }

    fn now(&self) -> Now {
        let boot = self.seconds * SECOND;
        Now { wall: boot.cast_signed(), boot, boot_id: "a".to_owned() }
    }

    fn bundle(&self, facts: &str) -> Bundle {
        let toml = format!("[bundle]\nname = \"x\"\nversion = 1\nprofile = 1\n[facts]\n{facts}\n");
        std::fs::write(self.directory.0.join("guard.toml"), toml).unwrap();
        policy::load(&self.directory.0).unwrap()
    }

    fn say(&mut self, source: &str, subject: Option<&str>, value: FactValue, lasts: Option<u64>) {
        let which = Which { subject, name: "trust", source };
        let lasts = lasts.map(Duration::from_secs);
        let new = NewFact { which, value, lasts, age: Duration::ZERO };
        let now = self.now();
        let at = At { wall: now.wall, boot: now.boot, boot_id: &now.boot_id };
        self.ledger.set_fact(&new, at).unwrap();
    }

    /// The fact of `web` under a bundle, and its end in seconds.
    fn trust(&self, bundle: &Bundle) -> Option<(FactValue, Option<u64>)> {
        let known = Known { bundle, ledger: &self.ledger, collected: &self.collected };
        let fact = known.facts("web", &self.now()).remove("trust")?;
        Some((fact.value, fact.end.map(|end| end / SECOND)))
    }

    /// Why facts do not count, by their sources.
    fn ignored(&self, bundle: &Bundle) -> Vec<(String, Option<String>)> {
        let known = Known { bundle, ledger: &self.ledger, collected: &self.collected };
        known.all(&self.now()).into_iter().map(|fact| (fact.source, fact.ignored)).collect()
    }
}

const LONG: &str = "trust = { type = \"long\" }";

fn long(value: i64, end: Option<u64>) -> Option<(FactValue, Option<u64>)> {
    Some((FactValue::Long(value), end))
}

#[test]
fn what_the_live_bundle_does_not_declare_so_does_not_count() {
    let mut world = World::new();
    world.say("edr", None, FactValue::Long(3), None);
    assert_eq!(world.trust(&world.bundle(LONG)), long(3, None));
    for (declared, why) in [
        ("trust = { type = \"string\" }", "wants a text"),
        ("trust = { type = \"bool\" }", "wants a true or false"),
        ("trust = { type = \"long\", source = \"desk\" }", "wants it from desk"),
        ("trust = { type = \"long\", source = \"provider:edr\" }", "wants it from provider:edr"),
        ("other = { type = \"long\" }", "does not declare it"),
    ] {
        let bundle = world.bundle(declared);
        assert_eq!(world.trust(&bundle), None, "{declared}");
        let ignored = world.ignored(&bundle);
        assert!(ignored[0].1.as_ref().is_some_and(|said| said.contains(why)), "{ignored:?}");
    }
    // It is not lost: it counts again under the next bundle that wants it.
    assert_eq!(world.trust(&world.bundle("trust = { type = \"long\", source = \"edr\" }")), long(3, None));
}

#[test]
fn no_fact_outlasts_what_the_live_bundle_allows() {
    let mut world = World::new();
    world.say("edr", None, FactValue::Long(3), None);
    let minute = world.bundle("trust = { type = \"long\", ttl = \"1m\" }");
    world.seconds = 130;
    assert_eq!(world.trust(&minute), long(3, Some(160)));
    let known = Known { bundle: &minute, ledger: &world.ledger, collected: &world.collected };
    assert_eq!(known.next_end(&world.now()), Some(160 * SECOND));
    world.seconds = 160;
    assert_eq!(world.trust(&minute), None);
    assert!(world.ignored(&minute).is_empty(), "what is over is not shown");
    world.say("edr", None, FactValue::Long(3), Some(30));
    assert_eq!(world.trust(&minute), long(3, Some(190)));
}

#[test]
fn where_sources_differ_nobody_knows() {
    let mut world = World::new();
    let bundle = world.bundle(LONG);
    world.say("edr", None, FactValue::Long(3), Some(60));
    world.say("desk", None, FactValue::Long(3), Some(600));
    assert_eq!(world.trust(&bundle), long(3, Some(700)), "they agree, and one of them goes on saying so");
    assert!(world.ignored(&bundle).iter().all(|(_, why)| why.is_none()));
    world.say("edr", None, FactValue::Long(0), Some(60));
    assert_eq!(world.trust(&bundle), None);
    let both = [
        ("desk".to_owned(), Some("edr says otherwise".to_owned())),
        ("edr".to_owned(), Some("desk says otherwise".to_owned())),
    ];
    assert_eq!(world.ignored(&bundle), both);
    // The order in which they speak does not matter, nor how often.
    world.say("desk", None, FactValue::Long(3), Some(600));
    assert_eq!(world.trust(&bundle), None);
    world.seconds = 160;
    assert_eq!(world.trust(&bundle), long(3, Some(700)), "one of them has ended");
    // A bundle that names the source hears no other.
    world.say("edr", None, FactValue::Long(0), Some(60));
    let named = world.bundle("trust = { type = \"long\", source = \"edr\" }");
    assert_eq!(world.trust(&named), long(0, Some(220)));
}

#[test]
fn what_is_said_of_the_subject_counts_before_what_is_said_of_the_host_even_in_doubt() {
    let mut world = World::new();
    let bundle = world.bundle(LONG);
    world.say("edr", None, FactValue::Long(3), None);
    world.say("edr", Some("web"), FactValue::Long(1), Some(60));
    assert_eq!(world.trust(&bundle), long(1, Some(160)));
    world.say("desk", Some("web"), FactValue::Long(2), Some(30));
    assert_eq!(world.trust(&bundle), None, "the host's does not settle it");
    world.say("edr", Some("db"), FactValue::Long(0), None);
    world.seconds = 160;
    assert_eq!(world.trust(&bundle), long(3, None));
}

#[test]
fn what_the_agent_finds_out_counts_before_what_anybody_says() {
    let mut world = World::new();
    let bundle = world.bundle(LONG);
    world.say("edr", Some("web"), FactValue::Long(3), None);
    world.collected = Collected::from([("trust".to_owned(), Some(FactValue::Long(7)))]);
    assert_eq!(world.trust(&bundle), long(7, None));
    world.collected = Collected::from([("trust".to_owned(), None)]);
    assert_eq!(world.trust(&bundle), None, "what cannot be found out is absent, whoever says something");
}

fn request(value: FactValue, source: &str, seconds: Option<u64>) -> FactRequest {
    FactRequest { name: "trust".to_owned(), subject: None, value, source: source.to_owned(), seconds }
}

#[test]
fn what_nobody_can_mean_is_refused() {
    let world = World::new();
    let refused = |declared: &str, request: &FactRequest, writer| {
        let bundle = world.bundle(declared);
        check(&bundle, request, writer).err().map(|error| error.to_string()).unwrap_or_default()
    };
    let text = "trust = { type = \"string\" }";
    let anybody = Writer::Anybody;
    for (declared, request, says) in [
        (LONG, request(FactValue::String("3".into()), "edr", None), "whole number"),
        (text, request(FactValue::Bool(true), "edr", None), "text"),
        (text, request(FactValue::String("x".repeat(1001)), "edr", None), "1000 bytes"),
        (LONG, request(FactValue::Long(3), "edr", Some(u64::MAX)), "366 days"),
        (LONG, request(FactValue::Long(3), "edr", Some(366 * 86_400 + 1)), "366 days"),
        (LONG, request(FactValue::Long(3), "collector:clock", None), "by itself"),
        (LONG, request(FactValue::Long(3), "provider:edr", None), "nobody else"),
        ("other = { type = \"long\" }", request(FactValue::Long(3), "edr", None), "it has: other"),
    ] {
        let said = refused(declared, &request, anybody);
        assert!(said.contains(says), "{request:?}: {said}");
    }
    assert_eq!(refused(LONG, &request(FactValue::Long(3), "edr", Some(366 * 86_400)), anybody), "");
    assert_eq!(refused(LONG, &request(FactValue::Long(3), "provider:edr", Some(60)), Writer::Provider), "");
}

#[test]
fn a_fact_lasts_as_long_as_asked_for_and_the_bundle_allows_from_when_it_was_said() {
    let world = World::new();
    let lasts = |declared: &str, seconds: Option<u64>, age: u64| {
        let bundle = world.bundle(declared);
        let request = request(FactValue::Long(3), "edr", seconds);
        super::lasts(&bundle, &request, Duration::from_secs(age))
            .ok()
            .map(|left| left.map(|left| left.as_secs()))
    };
    let minute = "trust = { type = \"long\", ttl = \"1m\" }";
    assert_eq!(lasts(LONG, None, 1000), Some(None));
    assert_eq!(lasts(LONG, Some(30), 10), Some(Some(20)));
    assert_eq!(lasts(minute, Some(30), 0), Some(Some(30)));
    assert_eq!(lasts(minute, Some(300), 10), Some(Some(50)));
    assert_eq!(lasts(minute, None, 60), None, "it is over already");
    assert_eq!(lasts(LONG, Some(0), 0), None, "it lasts for no time");
}
