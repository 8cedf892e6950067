//! A shadow beside a bundle: nothing of what the bundle decides changes, and what is said to differ does.

use std::net::IpAddr;

use guard_common::class;
use proptest::prelude::*;

use super::oracle::{ADDRESSES, ORACLE_TOML, PATHS, policy};
use super::*;

const ACTIONS: [&str; 6] = ["file.read", "file.write", "dir.list", "exec", "net.connect", "unix.connect"];
/// A file system that no table knows.
const ELSEWHERE: u32 = 99 << 20 | 1;

/// Before, between and after what ends in the tests.
const INSTANTS: [Instant; 3] = [0, 100, 200];

fn at(now: Instant, compiled: &Compiled, subject: &str, action: &str, found: Found) -> Decision {
    let (id, _) = compiled.names.subjects.iter().find(|(_, name)| *name == subject).unwrap();
    let required = Action::from_name(action).unwrap().bit();
    let query = Query { subject: *id, class: found.class, features: found.features, required };
    decide(&compiled.generation, &query, || now)
}

/// A live bundle, a shadow, and each compiled alone and the first beside the second.
struct Pair {
    live: Bundle,
    shadow: Bundle,
    alone: [Compiled; 2],
    beside: Compiled,
    _directories: [Directory; 2],
}

fn bundle(toml: &str, policies: &[String]) -> (Bundle, Directory) {
    let cedar: String =
        policies.iter().enumerate().map(|(number, text)| format!("@id(\"p{number}\") {text}\n")).collect();
    let directory = Directory::new(&[("guard.toml", &format!("{TOML}{toml}")), ("p.cedar", &cedar)]);
    (load(&directory.0).unwrap_or_else(|errors| panic!("{errors}")), directory)
}

impl Pair {
    /// Nothing if one of them, or both together, are too large.
    fn new((live, one): (Bundle, Directory), (shadow, two): (Bundle, Directory)) -> Option<Self> {
        let facts = Facts::default();
        let compile = |bundle: &Bundle, shadow: Option<&Bundle>| {
            // The same numbers, whichever subjects there are.
            let mut ids = SubjectIds::default();
            for name in ["web", "other"] {
                ids.assign(name);
            }
            match compile_beside(bundle, shadow, &host(), &facts, &mut ids) {
                Ok(compiled) => Some(compiled),
                Err(errors) if errors.iter().all(|error| error.code == "too-many-features") => None,
                Err(errors) => panic!("{errors}"),
            }
        };
        let alone = [compile(&live, None)?, compile(&shadow, None)?];
        let beside = compile(&live, Some(&shadow))?;
        Some(Self { live, shadow, alone, beside, _directories: [one, two] })
    }

    /// The decision is the live bundle's, and differs where that of the shadow does.
    fn check(&self, subject: &str, action: &str, found: impl Fn(&Compiled) -> Found) {
        for now in INSTANTS {
            self.check_at(now, subject, action, &found);
        }
    }

    fn check_at(&self, now: Instant, subject: &str, action: &str, found: &impl Fn(&Compiled) -> Found) {
        let ask = |compiled: &Compiled| at(now, compiled, subject, action, found(compiled));
        let (alone, beside) = (ask(&self.alone[0]), ask(&self.beside));
        assert_eq!(Decision { differs: 0, outcome: alone.outcome, ..beside }, alone, "{subject} {action}");
        let known = self.shadow.subjects().any(|known| known.name == subject);
        let wanted = if known { beside.denied ^ ask(&self.alone[1]).denied } else { 0 };
        assert_eq!(beside.differs, wanted, "{subject} {action}");
        assert_eq!(beside.shadow(), wanted, "one action is the whole operation");
    }

    /// Everything that the tests know, in the posture that the tables have.
    fn check_all(&self) {
        let subjects: Vec<&str> = self.live.subjects().map(|subject| subject.name.as_str()).collect();
        for subject in subjects {
            for action in ACTIONS {
                for path in PATHS {
                    for attributes in [file(1000, false), file(0, true)] {
                        self.check(subject, action, |compiled| walk(compiled, path, &attributes));
                    }
                }
                for attributes in [file(1000, false), file(0, true)] {
                    for path in ["/srv/www/a.pem", "/x/.git/key.pem"] {
                        self.check(subject, action, |compiled| {
                            Walker::new(&compiled.generation).path(ELSEWHERE, Path::new(path), &attributes)
                        });
                    }
                }
                for class in [class::STDIO, class::OWN_ANONYMOUS, class::ANONYMOUS_MEMORY, class::OWN_PROC] {
                    self.check(subject, action, |_| Found { class, features: 0 });
                }
                for address in ADDRESSES.map(|address| address.parse::<IpAddr>().unwrap()) {
                    for (port, protocol) in [(22, 6), (79, 17), (80, 6), (443, 17), (65535, 6)] {
                        let attributes = Attributes { protocol, ..Attributes::default() };
                        self.check(subject, action, |compiled| {
                            Walker::new(&compiled.generation).endpoint(address, port, &attributes)
                        });
                    }
                }
            }
        }
    }

    /// Gives every subject this posture, in all three compilations.
    fn set(&mut self, posture: &Posture) {
        let [one, two] = &mut self.alone;
        for compiled in [one, two, &mut self.beside] {
            for id in compiled.names.subjects.clone().into_keys() {
                let outcomes = compiled.outcomes(id, posture, 0).unwrap();
                assert!(compiled.generation.set_outcomes(id, &outcomes));
            }
        }
    }

    /// What differs is what Cedar says of both bundles.
    fn check_with_cedar(&self) {
        let host = host();
        let facts = Facts::default();
        let oracle = |bundle| Oracle::new(bundle, &host, &facts).unwrap_or_else(|errors| panic!("{errors}"));
        let (live, shadow) = (oracle(&self.live), oracle(&self.shadow));
        for path in PATHS {
            for attributes in [file(1000, false), file(0, true)] {
                for action in ["file.read", "file.write"] {
                    let request = Request {
                        subject: "web".into(),
                        action: action.into(),
                        resource: Resource::File(Spot::Path(path.into())),
                        attributes,
                        within: Vec::new(),
                    };
                    let allowed = |oracle: &Oracle<'_>| oracle.decide(&request).unwrap().allowed();
                    let decision = ask(&self.beside, "web", action, walk(&self.beside, path, &attributes));
                    assert_eq!(decision.denied == 0, allowed(&live), "{request:?}");
                    assert_eq!(decision.shadow() != 0, allowed(&live) != allowed(&shadow), "{request:?}");
                }
            }
        }
    }
}

fn policies(most: usize) -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec(policy(), 0..most)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_shadow_changes_no_verdict_and_differs_where_its_own_is_another_one(
        common in policies(4),
        removed in policies(3),
        added in policies(3),
        modes in any::<(bool, bool)>(),
        posture in any::<(bool, Option<bool>)>(),
    ) {
        let toml = |monitor: bool| {
            let mode = if monitor { "monitor" } else { "enforce" };
            format!("{ORACLE_TOML}[modes]\nweb = \"{mode}\"\n")
        };
        let of = |own: &[String]| [common.as_slice(), own].concat();
        let pair = Pair::new(bundle(&toml(modes.0), &of(&removed)), bundle(&toml(modes.1), &of(&added)));
        let Some(mut pair) = pair else { return Ok(()) };
        pair.check_all();
        pair.check_with_cedar();
        // A lease that ends, and a mode that is set for a while; both by the clock.
        let leases = posture.0.then(|| ("l".to_owned(), Until { value: (), end: Some(100) }));
        let mode = posture.1.map(|monitor| Until {
            value: if monitor { Mode::Monitor } else { Mode::Enforce },
            end: Some(200),
        });
        pair.set(&Posture { leases: leases.into_iter().collect(), mode, ..Posture::default() });
        pair.check_all();
    }
}

const OTHER: &str = "[subjects.web]\nselector = { user = \"web\" }\ngroups = [\"g\"]\ngoverns = [\"*\"]\n\
    [names]\n\"api.example\" = { addresses = [\"10.0.0.1\"] }\n";

#[test]
fn a_bundle_beside_itself_differs_nowhere() {
    let policies = ["permit (principal, action, resource in Guard::Dir::\"/srv\");".to_owned()];
    let pair = Pair::new(bundle(OTHER, &policies), bundle(OTHER, &policies)).unwrap();
    assert!(pair.beside.generation.masks.iter().all(|masks| masks.differs == 0));
    pair.check_all();
}

#[test]
fn a_name_has_the_addresses_that_its_own_bundle_gives_it() {
    let policies = ["permit (principal, action, resource in Guard::DnsName::\"api.example\");".to_owned()];
    let other = OTHER.replace("10.0.0.1", "10.1.2.3");
    let pair = Pair::new(bundle(OTHER, &policies), bundle(&other, &policies)).unwrap();
    pair.check_all();
    let differs = |address: &str| {
        let attributes = Attributes { protocol: 6, ..Attributes::default() };
        let found = Walker::new(&pair.beside.generation).endpoint(address.parse().unwrap(), 443, &attributes);
        ask(&pair.beside, "web", "net.connect", found).differs != 0
    };
    assert!(differs("10.0.0.1") && differs("10.1.2.3") && !differs("10.0.0.2"));
}

/// A bundle that permits `file.read` below `/srv` under each of these leases.
fn leased(leases: &[&str]) -> (Bundle, Directory) {
    let declared: String = ["a", "b", "c", "d", "e"]
        .map(|name| format!("{name} = {{ approvers = [\"group:x\"], max = \"1h\" }}\n"))
        .concat();
    let toml = format!(
        "[approvals]\n{declared}[subjects.web]\nselector = {{ user = \"web\" }}\ngoverns = [\"*\"]\n"
    );
    let policies: Vec<String> = leases
        .iter()
        .map(|lease| {
            format!(
                "permit (principal, action == Guard::Action::\"file.read\", resource in Guard::Dir::\"/srv\") \
                 when {{ context.leases.contains(\"{lease}\") }};"
            )
        })
        .collect();
    bundle(&toml, &policies)
}

#[test]
fn what_only_a_shadow_waits_for_ends_nothing_of_the_live_bundle_sooner() {
    let mut pair = Pair::new(leased(&["a"]), leased(&["b", "c", "d", "e"])).unwrap();
    let leases = [("a", 500), ("b", 100), ("c", 200), ("d", 300), ("e", 400)]
        .map(|(name, end)| (name.to_owned(), Until { value: (), end: Some(end) }));
    let posture = Posture { leases: leases.into(), ..Posture::default() };
    pair.set(&posture);
    let ask = |compiled: &Compiled, now| {
        at(now, compiled, "web", "file.read", walk(compiled, "/srv/x", &file(1000, false)))
    };
    for now in (0..600).step_by(50) {
        let (alone, beside) = (ask(&pair.alone[0], now), ask(&pair.beside, now));
        assert_eq!((beside.denied == 0, beside.denied), (now < 500, alone.denied), "at {now}");
    }
    let web = pair.beside.names.subjects.iter().find(|(_, name)| *name == "web").unwrap().0;
    assert_eq!(
        pair.beside.outcomes(*web, &posture, 0).unwrap().replan,
        Some(100),
        "the shadow's next instant"
    );
    assert_eq!(pair.beside.outcomes(*web, &posture, 300).unwrap().replan, None);
}

#[test]
fn a_subject_that_only_one_bundle_has_is_not_compared() {
    let policies = ["permit (principal, action, resource in Guard::Dir::\"/srv\");".to_owned()];
    let two = format!("{OTHER}[subjects.other]\nselector = {{ user = \"ci\" }}\ngoverns = [\"*\"]\n");
    let gone = Pair::new(bundle(&two, &policies), bundle(OTHER, &[])).unwrap();
    gone.check_all();
    let new = Pair::new(bundle(OTHER, &policies), bundle(&two, &[])).unwrap();
    new.check_all();
    let known: Vec<&str> = new.beside.names.subjects.values().map(String::as_str).collect();
    assert!(!known.contains(&"other"), "nothing is labelled with what only a shadow has: {known:?}");
    assert!(new.beside.generation.selectors.len() == 1);
}

#[test]
fn both_together_can_be_too_large_and_each_alone_not() {
    let ports = |from: u16| -> Vec<String> {
        (from..from + 6)
            .map(|port| {
                format!(
                    "permit (principal, action == Guard::Action::\"net.{}\", resource) when {{ resource.port == {port} }};",
                    if port % 2 == 0 { "connect" } else { "send" }
                )
            })
            .collect()
    };
    let (one, two) = (bundle(OTHER, &ports(100)), bundle(OTHER, &ports(200)));
    let (alone, both) = (
        [&one.0, &two.0].map(|bundle| compile(bundle, &host(), &mut SubjectIds::default()).is_ok()),
        compile_beside(&one.0, Some(&two.0), &host(), &Facts::default(), &mut SubjectIds::default()),
    );
    assert_eq!(alone, [true, true]);
    let errors = both.err().map(|errors| errors.to_string()).unwrap_or_default();
    assert!(errors.contains("at most 10 can be decided"), "{errors}");
}

#[test]
fn classes_are_called_by_what_the_bundle_itself_names() {
    let policy =
        |path: &str| vec![format!("permit (principal, action, resource in Guard::Dir::\"{path}\");")];
    let pair = Pair::new(bundle(OTHER, &policy("/srv")), bundle(OTHER, &policy("/srv/www"))).unwrap();
    let name = |compiled: &Compiled, path: &str| {
        compiled.names.classes[walk(compiled, path, &file(0, false)).class as usize].clone()
    };
    for path in ["/srv/www/x", "/srv/x", "/x"] {
        assert_eq!(name(&pair.beside, path), name(&pair.alone[0], path));
    }
}
