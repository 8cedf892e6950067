//! The compiled tables against Cedar itself, over random bundles.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::str::FromStr;

use cedar_policy::{
    Authorizer, Context, Entities, Entity, EntityUid, PolicySet, Request, RestrictedExpression,
};
use proptest::prelude::*;

use super::*;
use crate::policy::places::{Mounts, resolve};

const PATHS: [&str; 12] = [
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
const LITERALS: [&str; 11] = [
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
];
const NAMES: [&str; 4] = [".git", ".ssh", "www", "a-name-longer-than-twenty-four-bytes"];
const PATTERNS: [&str; 5] = ["*.pem", "a*", "a*.pem", "key.pem", "*"];
const NETS: [&str; 5] = ["10.0.0.0/8", "10.1.0.0/16", "0.0.0.0/0", "fd00::/8", "::ffff:10.2.0.0/112"];
const ADDRESSES: [&str; 6] = ["10.0.0.1", "10.1.2.3", "10.2.0.9", "192.0.2.1", "fd00::1", "2001:db8::1"];
const PORTS: [u16; 4] = [22, 80, 443, 8080];

fn pick(list: &'static [&'static str]) -> impl Strategy<Value = &'static str> {
    prop::sample::select(list)
}

/// A condition over files and directories.
fn on_paths() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        4 => pick(&LITERALS).prop_map(|path| format!("resource in Guard::Dir::\"{path}\"")),
        2 => pick(&LITERALS).prop_map(|path| format!("resource == Guard::File::\"{path}\"")),
        2 => pick(&NAMES).prop_map(|name| format!("resource in Guard::Name::\"{name}\"")),
        2 => pick(&PATTERNS).prop_map(|pattern| format!("resource.name like \"{pattern}\"")),
        1 => Just("resource.name == \"a.pem\"".to_owned()),
        1 => Just("resource.owner == 1000".to_owned()),
        1 => Just("resource.kind == \"regular\"".to_owned()),
        1 => Just("(resource is Guard::File && resource.set_id)".to_owned()),
        1 => Just("context.leases.contains(\"l\")".to_owned()),
        1 => Just("(context.posture has trust && context.posture.trust >= 3)".to_owned()),
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
fn policy() -> impl Strategy<Value = String> {
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
    (annotation, prop::bool::weighted(0.65), principal, body).prop_map(
        |(annotation, permit, principal, body)| {
            let effect = if permit { "permit" } else { "@absent(\"ignore\") forbid" };
            format!("{annotation} {effect} ({principal}, {body};")
        },
    )
}

fn uid(kind: &str, id: &str) -> EntityUid {
    EntityUid::from_type_name_and_id(
        format!("Guard::{kind}").parse().unwrap(),
        cedar_policy::EntityId::new(id),
    )
}

fn text(value: &str) -> RestrictedExpression {
    RestrictedExpression::new_string(value.to_owned())
}

/// The Cedar entity of a path: parents are all literals that cover its place.
fn path_entity(kind: &str, path: &str, attributes: &Attributes) -> Entity {
    let host = host();
    let mounts = Mounts::new(&host.mounts);
    let place = mounts.locate(Path::new(path)).unwrap();
    // Every path that leads to the place, and the place itself as its file system sees it.
    let mut seen: Vec<PathBuf> = Vec::new();
    for mount in mounts.visible().filter(|mount| mount.device == place.device) {
        if let Ok(rest) = place.path.strip_prefix(&mount.root) {
            seen.push(if rest.as_os_str().is_empty() { mount.point.clone() } else { mount.point.join(rest) });
        }
    }
    let mut parents = HashSet::new();
    for literal in LITERALS {
        let resolved = resolve(&host, Path::new(literal)).unwrap().path;
        if seen.iter().any(|path| path.starts_with(&resolved)) {
            parents.insert(uid("Dir", literal));
        }
    }
    let names: BTreeSet<String> = seen
        .iter()
        .chain([&place.path])
        .flat_map(|path| path.components())
        .map(|component| component.as_os_str().to_string_lossy().into_owned())
        .collect();
    parents.extend(names.iter().filter(|name| *name != "/").map(|name| uid("Name", name)));
    let name = place.path.file_name().map_or("/".into(), |name| name.to_string_lossy().into_owned());
    let mut values = HashMap::from([
        ("name".to_owned(), text(&name)),
        ("owner".to_owned(), RestrictedExpression::new_long(attributes.owner as i64)),
        ("kind".to_owned(), text(if attributes.kind == 0o100000 { "regular" } else { "directory" })),
    ]);
    if kind == "File" {
        values.insert("set_id".into(), RestrictedExpression::new_bool(attributes.set_id == 1));
        values.insert("fileless".into(), RestrictedExpression::new_bool(false));
        values.insert("signed_by".into(), RestrictedExpression::new_set([]));
    }
    // `==` on a literal means its place, so an exact literal is the entity's own id.
    let exact =
        LITERALS.iter().find(|literal| seen.contains(&resolve(&host, Path::new(literal)).unwrap().path));
    parents.retain(|parent| *parent != uid(kind, exact.unwrap_or(&path)));
    Entity::new(uid(kind, exact.unwrap_or(&path)), values, parents).unwrap()
}

fn address_entity(address: IpAddr, port: u16, protocol: &str) -> Entity {
    let contains = |net: &str| {
        let net = net.replace("::ffff:10.2.0.0/112", "10.2.0.0/16");
        let (base, length) = net.split_once('/').unwrap();
        let (base, length): (IpAddr, u32) = (base.parse().unwrap(), length.parse().unwrap());
        let bits = |address: IpAddr| match address {
            IpAddr::V4(v4) => (u128::from(u32::from(v4)), 32),
            IpAddr::V6(v6) => (u128::from(v6), 128),
        };
        let ((a, width), (b, other)) = (bits(address), bits(base));
        width == other && (length == 0 || a >> (width - length) == b >> (width - length))
    };
    let parents = NETS.iter().filter(|net| contains(net)).map(|net| uid("Net", net)).collect();
    let values = HashMap::from([
        ("port".to_owned(), RestrictedExpression::new_long(port.into())),
        ("protocol".to_owned(), text(protocol)),
    ]);
    Entity::new(uid("Endpoint", "it"), values, parents).unwrap()
}

struct Oracle {
    enforced: PolicySet,
    candidate: PolicySet,
    schema: cedar_policy::Schema,
    context: Context,
}

impl Oracle {
    fn allows(&self, set: &PolicySet, action: &str, resource: &Entity) -> bool {
        let subject =
            Entity::new(uid("Subject", "web"), HashMap::new(), HashSet::from([uid("Group", "g")])).unwrap();
        let request =
            Request::new(subject.uid(), uid("Action", action), resource.uid(), self.context.clone(), None)
                .unwrap();
        // Through the schema, so that the action groups are part of the store.
        let entities = Entities::from_entities([subject, resource.clone()], Some(&self.schema)).unwrap();
        let response = Authorizer::new().is_authorized(&request, set, &entities);
        assert_eq!(
            response.diagnostics().errors().map(ToString::to_string).collect::<Vec<_>>(),
            Vec::<String>::new()
        );
        response.decision() == cedar_policy::Decision::Allow
    }

    fn check(&self, compiled: &Compiled, action: &str, found: Found, resource: &Entity) {
        let decision = ask(compiled, "web", action, found);
        let allow = self.allows(&self.enforced, action, resource);
        let would_deny = allow && !self.allows(&self.candidate, action, resource);
        let got = (decision.denied == 0, decision.would_deny != 0);
        assert_eq!(
            got,
            (allow, would_deny),
            "{action} on {resource:?}, class {}",
            compiled.names.classes[found.class as usize]
        );
    }
}

const ORACLE_TOML: &str = "[facts]\ntrust = { type = \"long\" }\n[approvals]\nl = { approvers = [\"group:x\"], max = \"1h\" }\n\
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
    let posture = facts.posture.get("trust").map(|value| match value {
        FactValue::Long(number) => ("trust".to_owned(), RestrictedExpression::new_long(*number)),
        _ => unreachable!("trust is a number"),
    });
    let strings =
        |names: &BTreeSet<String>| RestrictedExpression::new_set(names.iter().map(|name| text(name)));
    let session = [("human", text("")), ("id", text("")), ("tty", RestrictedExpression::new_bool(false))];
    let record =
        |fields: Vec<(String, RestrictedExpression)>| RestrictedExpression::new_record(fields).unwrap();
    let context = Context::from_pairs([
        ("posture".to_owned(), record(posture.into_iter().collect())),
        ("leases".to_owned(), strings(&facts.leases)),
        ("windows".to_owned(), strings(&facts.windows)),
        ("session".to_owned(), record(session.map(|(name, value)| (name.to_owned(), value)).into())),
    ])
    .unwrap();
    let posture_type = "namespace Guard { type Posture = { trust?: Long }; }";
    let fragments =
        [PRODUCT_SCHEMA, posture_type].map(|text| cedar_policy::SchemaFragment::from_str(text).unwrap());
    let oracle = Oracle {
        enforced: bundle.effective(false).unwrap(),
        candidate: bundle.effective(true).unwrap(),
        schema: cedar_policy::Schema::from_schema_fragments(fragments).unwrap(),
        context,
    };
    for path in PATHS {
        for attributes in [file(1000, false), file(0, true)] {
            let found = walk(&compiled, path, &attributes);
            let entity = path_entity("File", path, &attributes);
            for action in ["file.read", "file.write"] {
                oracle.check(&compiled, action, found, &entity);
            }
        }
        let attributes = Attributes { owner: 0, kind: 0o040000, ..Attributes::default() };
        let found = walk(&compiled, path, &attributes);
        oracle.check(&compiled, "dir.list", found, &path_entity("Dir", path, &attributes));
    }
    let walker = Walker::new(&compiled.generation);
    for address in ADDRESSES.map(|address| address.parse::<IpAddr>().unwrap()) {
        for (port, protocol, number) in
            [(22, "tcp", 6), (79, "udp", 17), (80, "tcp", 6), (443, "udp", 17), (65535, "tcp", 6)]
        {
            let found =
                walker.endpoint(address, port, &Attributes { protocol: number, ..Attributes::default() });
            oracle.check(&compiled, "net.connect", found, &address_entity(address, port, protocol));
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
    ) {
        let facts = Facts {
            leases: leased.then(|| "l".to_owned()).into_iter().collect(),
            posture: trust.map(|trust| ("trust".to_owned(), FactValue::Long(trust))).into_iter().collect(),
            ..Facts::default()
        };
        same_answers(&policies, &facts);
    }
}
