//! The compiled tables against Cedar itself, over random bundles.

use std::net::IpAddr;

use proptest::prelude::*;

use super::*;

pub(super) const PATHS: [&str; 12] = [
    "/",
    "/srv",
    "/srv/www",
    "/srv/www/a.pem",
    "/srv/www/.git/x",
    "/data",
    "/data/deep",
    "/data/deep/mount/.git/key.pem",
    "/home/ann/.ssh/id",
    "/mnt/www/b",
    "/usr/bin/python3.11",
    "/a-name-longer-than-twenty-four-bytes/x",
];
const LITERALS: [&str; 13] = [
    "/",
    "/srv",
    "/srv/www",
    "/srv/www/a.pem",
    "/data",
    "/data/deep",
    "/mnt",
    "/home",
    "/bin",
    "/bin/python",
    "/a-name-longer-than-twenty-four-bytes",
    "guard:own-proc",
    "guard:own-tmpfs",
];
const NAMES: [&str; 4] = [".git", ".ssh", "www", "a-name-longer-than-twenty-four-bytes"];
const PATTERNS: [&str; 5] = ["*.pem", "a*", "a*.pem", "key.pem", "*"];
const NETS: [&str; 5] = ["10.0.0.0/8", "10.1.0.0/16", "0.0.0.0/0", "fd00::/8", "::ffff:10.2.0.0/112"];
pub(super) const ADDRESSES: [&str; 6] =
    ["10.0.0.1", "10.1.2.3", "10.2.0.9", "192.0.2.1", "fd00::1", "2001:db8::1"];
const PORTS: [u16; 4] = [22, 80, 443, 8080];

fn pick(list: &'static [&'static str]) -> impl Strategy<Value = &'static str> {
    prop::sample::select(list)
}

/// A condition over files and directories.
fn on_paths() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        4 => pick(&LITERALS).prop_map(|path| format!("resource in Guard::Dir::\"{path}\"")),
        2 => pick(&LITERALS[..11]).prop_map(|path| format!("resource == Guard::File::\"{path}\"")),
        2 => pick(&NAMES).prop_map(|name| format!("resource in Guard::Name::\"{name}\"")),
        2 => pick(&PATTERNS).prop_map(|pattern| format!("resource.name like \"{pattern}\"")),
        1 => Just("resource.name == \"a.pem\"".to_owned()),
        1 => Just("resource.owner == 1000".to_owned()),
        1 => Just("resource.kind == \"regular\"".to_owned()),
        1 => Just("(resource is Guard::File && resource.set_id)".to_owned()),
        1 => Just("context.leases.contains(\"l\")".to_owned()),
        1 => Just("(context.posture has trust && context.posture.trust >= 3)".to_owned()),
        1 => Just("(resource is Guard::File && resource.signed_by.contains(\"release\"))".to_owned()),
    ];
    combine(leaf.boxed())
}

/// A condition over addresses.
fn on_addresses() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        4 => pick(&NETS).prop_map(|net| format!("resource in Guard::Net::\"{net}\"")),
        2 => prop::sample::select(&PORTS[..]).prop_map(|port| format!("resource.port == {port}")),
        2 => prop::sample::select(&PORTS[..]).prop_map(|port| format!("resource.port < {port}")),
        1 => prop::sample::select(&PORTS[..]).prop_map(|port| format!("{port} <= resource.port")),
        1 => prop::sample::select(&PORTS[..]).prop_map(|port| format!("{port} < resource.port")),
        1 => prop::sample::select(&PORTS[..]).prop_map(|port| format!("resource.port > {port}")),
        1 => prop::sample::select(&PORTS[..]).prop_map(|port| format!("resource.port <= {port}")),
        1 => Just("[80, 443].contains(resource.port)".to_owned()),
        1 => Just("resource.protocol == \"tcp\"".to_owned()),
        1 => Just("(resource has listener && resource.listener == principal)".to_owned()),
        1 => Just("(resource has listener && resource.listener in Guard::Group::\"g\")".to_owned()),
        1 => Just("(context.posture has trust && context.posture.trust < 3)".to_owned()),
    ];
    combine(leaf.boxed())
}

fn combine(leaf: BoxedStrategy<String>) -> impl Strategy<Value = String> {
    leaf.prop_recursive(3, 8, 2, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} && {b})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} || {b})")),
            inner.clone().prop_map(|a| format!("!({a})")),
            (inner.clone(), inner.clone(), inner).prop_map(|(a, b, c)| format!("(if {a} then {b} else {c})")),
        ]
    })
}

/// One policy, without its id.
pub(super) fn policy() -> impl Strategy<Value = String> {
    let principal = prop::sample::select(
        &[
            "principal",
            "principal == Guard::Subject::\"web\"",
            "principal in Guard::Group::\"g\"",
            "principal == Guard::Subject::\"other\"",
        ][..],
    );
    let on_path = (pick(&["read", "file.read", "file.write", "dir.list"]), on_paths());
    let on_address = (pick(&["net.out", "net.connect"]), on_addresses());
    let body = prop_oneof![
        3 => on_path.prop_map(|(action, condition)| format!("action in Guard::Action::\"{action}\", resource) when {{ {condition} }}")),
        1 => on_address.prop_map(|(action, condition)| format!("action in Guard::Action::\"{action}\", resource) when {{ {condition} }}")),
        1 => Just("action, resource)".to_owned()),
    ];
    let annotation = pick(&["", "", "", "@mode(\"monitor\")", "@audit"]);
    let forbid = pick(&["forbid", "@absent(\"ignore\") forbid"]);
    (annotation, prop::bool::weighted(0.65), forbid, principal, body).prop_map(
        |(annotation, permit, forbid, principal, body)| {
            let effect = if permit { "permit" } else { forbid };
            format!("{annotation} {effect} ({principal}, {body};")
        },
    )
}

/// The answer of Cedar, and that the tables give the same.
fn check(
    oracle: &Oracle<'_>,
    compiled: &Compiled,
    action: &str,
    found: Found,
    resource: Resource,
    attributes: Attributes,
) {
    let decision = ask(compiled, "web", action, found);
    let request = Request {
        subject: "web".into(),
        action: action.into(),
        resource,
        attributes,
        listener: None,
        within: Vec::new(),
    };
    let verdict = oracle.decide(&request).unwrap();
    assert_eq!(verdict.candidate.errors, Vec::<String>::new());
    let got = (decision.denied == 0, decision.would_deny != 0, decision.would_allow != 0);
    assert_eq!(
        got,
        (verdict.allowed(), verdict.would_deny(), verdict.would_allow()),
        "{request:?}, class {}",
        compiled.names.classes[found.class as usize]
    );
}

pub(super) const ORACLE_TOML: &str = "[facts]\ntrust = { type = \"long\" }\n[approvals]\nl = { approvers = [\"group:x\"], max = \"1h\" }\n\
    [subjects.web]\nselector = { user = \"web\" }\ngroups = [\"g\"]\ngoverns = [\"read\", \"net.*\"]\n\
    [subjects.other]\nselector = { user = \"ci\" }\ngoverns = [\"*\"]\n";

fn same_answers(policies: &[String], facts: &Facts) {
    let cedar: String =
        policies.iter().enumerate().map(|(number, text)| format!("@id(\"p{number}\") {text}\n")).collect();
    let directory = Directory::new(&[("guard.toml", &format!("{TOML}{ORACLE_TOML}")), ("p.cedar", &cedar)]);
    let bundle = load(&directory.0).unwrap_or_else(|errors| panic!("{errors}"));
    let compiled = match compile_with(&bundle, &host(), facts, &mut SubjectIds::default()) {
        Ok(compiled) => compiled,
        Err(errors) if errors.iter().all(|error| error.code == "too-many-features") => return,
        Err(errors) => panic!("{errors}"),
    };
    let host = host();
    let oracle = Oracle::new(&bundle, &host, facts).unwrap_or_else(|errors| panic!("{errors}"));
    valid(&bundle, &oracle.set);
    for path in PATHS {
        for attributes in [file(1000, false), file(0, true)] {
            let found = walk(&compiled, path, &attributes);
            for action in ["file.read", "file.write"] {
                let file = Resource::File(Spot::Path(path.into()));
                check(&oracle, &compiled, action, found, file, attributes);
            }
        }
        let attributes = Attributes { owner: 0, kind: 0o040000, ..Attributes::default() };
        let found = walk(&compiled, path, &attributes);
        let directory = Resource::Dir(Spot::Path(path.into()));
        check(&oracle, &compiled, "dir.list", found, directory, attributes);
    }
    let walker = Walker::new(&compiled.generation);
    for class in guard_common::class::WITH_NAMES {
        for path in ["/", "/srv", "/12/a.pem", "/www/.git/x", "/.ssh/key.pem"] {
            let attributes = file(1000, false);
            let found = walker.inside(class, Path::new(path), &attributes);
            let file = Resource::File(Spot::Inside { class, path: path.into() });
            check(&oracle, &compiled, "file.read", found, file, attributes);
        }
    }
    for address in ADDRESSES.map(|address| address.parse::<IpAddr>().unwrap()) {
        for (port, protocol) in [(22, 6), (79, 17), (80, 6), (443, 17), (65535, 6)] {
            let attributes = Attributes { protocol, ..Attributes::default() };
            let found = walker.endpoint(address, port, &attributes);
            let endpoint = Resource::Endpoint(address, port);
            check(&oracle, &compiled, "net.connect", found, endpoint, attributes);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_tables_answer_what_cedar_answers(
        policies in prop::collection::vec(policy(), 1..7),
        leased in any::<bool>(),
        trust in prop::option::of(2i64..5),
        listener in prop::option::of(prop::sample::select(vec![None, Some("web"), Some("other")])),
        nothing_tells in any::<bool>(),
        signed in prop::option::of(any::<bool>()),
    ) {
        let facts = Facts {
            leases: leased.then(|| "l".to_owned()).into_iter().collect(),
            posture: trust.map(|trust| ("trust".to_owned(), FactValue::Long(trust))).into_iter().collect(),
            listener: listener.map_or(if nothing_tells { Listener::Unknown } else { Listener::OfUnix }, |name| {
                Listener::Is(name.map_or(Peer::Unlabelled, |name| Peer::Subject(name.to_owned())))
            }),
            signed_by: signed.map_or(Signers::Unknown, |yes| {
                Signers::Are(yes.then(|| "release".to_owned()).into_iter().collect())
            }),
            ..Facts::default()
        };
        same_answers(&policies, &facts);
    }
}
