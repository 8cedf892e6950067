//! Random bundles: everything that docs/policy.md says compiles.

use fastrand::Rng;
use guard_agent::policy::{FactValue, Facts, Listener, Peer, Signers};
use guard_common::action::{QUIET_FILE, QUIET_PEER, expand};
use guard_common::class::{CAPABILITIES, PROTOCOLS};
use guard_common::path::PATTERN_MAX;
use guard_common::tables::ALL_ACTIONS;

use crate::kinds::{self, Kind};
use crate::model::{Clause, Expr, Model, Policy, SHIPPED, Subject};
use crate::requests::STRANGER;
use crate::words::Words;
use crate::world::pick;

/// Subjects of random bundles. Requests are made as each of them.
pub(crate) const SUBJECTS: [(&str, u32); 3] = [("web", 2001), ("other", 2002), ("third", 2003)];
const GROUPS: [&str; 2] = ["g", "h"];
/// Scopes of actions, as lists of groups and actions.
const SCOPES: [&[&str]; 34] = [
    &["read"],
    &["file.read"],
    &["file.read"],
    &["file.read", "file.write"],
    &["mutate"],
    &["file.*"],
    &["file.*"],
    &["dir.list"],
    &["dir.create", "dir.remove", "file.rename"],
    &["file.write", "file.append", "file.truncate"],
    &["exec"],
    &["exec.*"],
    &["exec.map"],
    &["file.read", "exec.map"],
    &["net.out"],
    &["net.connect"],
    &["net.connect"],
    &["net.*"],
    &["net.raw"],
    &["net.in", "net.send"],
    &["unix.*"],
    &["unix.connect"],
    &["unix.connect", "unix.send"],
    &["file.*", "unix.*"],
    &["proc.*"],
    &["proc.signal"],
    &["proc.signal", "proc.trace"],
    &["sys.cap"],
    &["sys.cap"],
    &["sys.*"],
    &["sys.mount", "sys.userns"],
    &["proc.*", "sys.*", "net.*"],
    &["*"],
    &[],
];
const GOVERNS: [&[&str]; 6] = [
    &["*"],
    &["*"],
    &["read", "net.*", "unix.*"],
    &["file.*", "exec.*"],
    &["exec", "net.connect"],
    &["mutate", "proc.*", "sys.*"],
];

/// A random bundle.
pub(crate) fn bundle(rng: &mut Rng, words: &Words) -> Model {
    let mut policies = Vec::new();
    for number in 0..rng.usize(1..10) {
        policies.push(policy(rng, words, number));
    }
    let subjects = SUBJECTS
        .iter()
        .map(|(name, user)| Subject {
            name,
            user: *user,
            groups: GROUPS.into_iter().filter(|_| rng.bool()).collect(),
            governs: pick(rng, &GOVERNS).to_vec(),
            include: ["inc", "more"]
                .into_iter()
                .chain(SHIPPED)
                .filter(|_| rng.u8(0..4) == 0)
                .map(str::to_owned)
                .collect(),
            monitor: rng.u8(0..12) == 0,
        })
        .collect();
    let names = words.hosts.iter().map(|host| {
        let count = rng.usize(0..3);
        (*host, (0..count).map(|_| pick(rng, &words.nets).clone()).collect())
    });
    Model { version: 1, names: names.collect(), subjects, policies }
}

/// What conditions depend on besides the resource.
pub(crate) fn facts(rng: &mut Rng, words: &Words) -> Facts {
    let mut facts = Facts::default();
    facts.leases.extend(["change", "deploy"].into_iter().filter(|_| rng.u8(0..3) == 0).map(str::to_owned));
    if rng.u8(0..3) == 0 {
        facts.windows.insert("open".to_owned());
    }
    let values = [
        ("trust", FactValue::Long(rng.i64(1..6))),
        ("tier", FactValue::String((*pick(rng, &["gold", "silver", ""])).to_owned())),
        ("synced", FactValue::Bool(rng.bool())),
    ];
    facts.posture.extend(values.into_iter().filter(|_| rng.bool()).map(|(name, value)| (name.into(), value)));
    if rng.bool() {
        facts.session.insert("tree".to_owned(), words.tree.clone());
    }
    facts.listener = match rng.u8(0..5) {
        0 => Listener::Is(Peer::Unlabelled),
        1 => Listener::Is(Peer::Subject("web".to_owned())),
        2 => Listener::Told,
        3 => Listener::OfUnix,
        _ => Listener::Unknown,
    };
    facts.signed_by = match rng.u8(0..4) {
        0 => Signers::Are([].into()),
        1 => Signers::Are(["release".to_owned()].into()),
        // What is asked then has no signer.
        2 => Signers::OfExec,
        _ => Signers::Unknown,
    };
    facts
}

fn policy(rng: &mut Rng, words: &Words, number: usize) -> Policy {
    let permit = rng.u8(0..100) < 65;
    let scope = *pick(rng, &SCOPES);
    let kinds = if scope.is_empty() { kinds::of_scope(&["*"]) } else { kinds::of_scope(scope) };
    let template = rng.u8(0..10) == 0;
    let mut annotations = Vec::new();
    if rng.u8(0..6) == 0 {
        annotations.push("@mode(\"monitor\")".to_owned());
    }
    if rng.u8(0..8) == 0 {
        annotations.push("@audit".to_owned());
    }
    if rng.u8(0..8) == 0 {
        annotations.push("@reason(\"because\")".to_owned());
    }
    if !permit && rng.u8(0..3) == 0 {
        annotations.push("@absent(\"ignore\")".to_owned());
    }
    if !permit && rng.u8(0..3) == 0 {
        // Only what its scope can answer is valid.
        let actions = scope.iter().fold(0, |all, name| all | expand(name).unwrap_or(0));
        let actions = if scope.is_empty() { ALL_ACTIONS } else { actions };
        let possible: Vec<&str> = [("ENOENT", QUIET_FILE), ("ECONNREFUSED", QUIET_PEER)]
            .into_iter()
            .filter_map(|(name, quiet)| (quiet & actions != 0).then_some(name))
            .collect();
        if !possible.is_empty() {
            annotations.push(format!("@errno(\"{}\")", pick(rng, &possible)));
        }
    }
    let resource = resource(rng, words, &kinds, permit);
    let clauses = (0..*pick(rng, &[0, 1, 1, 1, 2]))
        .map(|_| Clause {
            unless: rng.u8(0..5) == 0,
            condition: condition(rng, &Sort { words, kinds: &kinds, permit }, 3),
        })
        .collect();
    Policy {
        id: match template {
            true => format!("{}:{number}", pick(rng, &["inc", "more"])),
            false => format!("p{number}"),
        },
        template,
        annotations,
        permit,
        principal: principal(rng),
        action: match scope {
            [] => "action".to_owned(),
            [one] if rng.bool() && is_action(one) => format!("action == Guard::Action::\"{one}\""),
            [one] => format!("action in Guard::Action::\"{one}\""),
            many => {
                let many: Vec<String> = many.iter().map(|one| format!("Guard::Action::\"{one}\"")).collect();
                format!("action in [{}]", many.join(", "))
            }
        },
        resource,
        clauses,
    }
}

fn is_action(name: &str) -> bool {
    guard_common::action::Action::from_name(name).is_some()
}

fn principal(rng: &mut Rng) -> String {
    let forms = [
        "principal",
        "principal",
        "principal == Guard::Subject::\"web\"",
        "principal == Guard::Subject::\"web\"",
        "principal == Guard::Subject::\"other\"",
        "principal in Guard::Group::\"g\"",
        "principal in Guard::Group::\"h\"",
        "principal in Guard::Subject::\"third\"",
        "principal is Guard::Subject",
        "principal is Guard::Subject in Guard::Group::\"g\"",
    ];
    (*pick(rng, &forms)).to_owned()
}

/// A scope of the resource that leaves some type of `kinds`.
fn resource(rng: &mut Rng, words: &Words, kinds: &[Kind], permit: bool) -> String {
    let Some(kind) = (!kinds.is_empty()).then(|| *pick(rng, kinds)) else { return "resource".into() };
    let path = path(rng, words, permit);
    let kind_name = kind.entity_type();
    match (rng.u8(0..5), kind) {
        (0, Kind::File | Kind::Dir | Kind::Unix) => format!("resource in Guard::Dir::\"{path}\""),
        (1, Kind::File | Kind::Dir) => format!("resource == {kind_name}::\"{path}\""),
        (1, Kind::Unix) if path != "/" => format!("resource == {kind_name}::\"{path}\""),
        (2, Kind::File | Kind::Dir | Kind::Unix) => {
            format!("resource is {kind_name} in Guard::Dir::\"{path}\"")
        }
        (0 | 1, Kind::Endpoint) => format!("resource in Guard::Net::\"{}\"", pick(rng, &words.nets)),
        (2, Kind::Endpoint) => format!("resource in Guard::DnsName::\"{}\"", pick(rng, &words.hosts)),
        (0, Kind::Capability) => format!("resource == Guard::Capability::\"{}\"", pick(rng, &CAPABILITIES)),
        (3, _) => format!("resource is {kind_name}"),
        _ => "resource".to_owned(),
    }
}

/// What a condition may speak of.
#[derive(Clone, Copy)]
struct Sort<'a> {
    words: &'a Words,
    kinds: &'a [Kind],
    permit: bool,
}

fn condition(rng: &mut Rng, sort: &Sort<'_>, depth: usize) -> Expr {
    let form = if depth == 0 { 0 } else { rng.u8(0..10) };
    let part = |rng: &mut Rng| Box::new(condition(rng, sort, depth - 1));
    match form {
        0..=4 => leaf(rng, sort),
        5 | 6 => Expr::And(part(rng), part(rng)),
        7 => Expr::Or(part(rng), part(rng)),
        8 => Expr::Not(part(rng)),
        _ => Expr::If(part(rng), part(rng), part(rng)),
    }
}

/// One comparison. What not every type has is asked for behind a test of the type.
fn leaf(rng: &mut Rng, sort: &Sort<'_>) -> Expr {
    if sort.kinds.is_empty() || rng.u8(0..4) == 0 {
        return Expr::Leaf(on_context(rng));
    }
    let kind = *pick(rng, sort.kinds);
    let text = match kind {
        Kind::File | Kind::Dir => on_path(rng, sort, kind),
        Kind::Endpoint => on_endpoint(rng, sort),
        Kind::Unix => on_unix(rng, sort),
        Kind::Memory => "resource == Guard::Memory::\"anonymous\"".to_owned(),
        Kind::Protocol => {
            let names = PROTOCOLS.map(|(_, name)| name);
            format!("resource == Guard::Protocol::\"{}\"", pick(rng, &names))
        }
        Kind::Process => subject(rng, "subject"),
        Kind::Capability => on_capability(rng),
        Kind::Machine => format!("resource == Guard::Machine::\"{}\"", pick(rng, &["this", "kernel"])),
    };
    let attributes = ["resource.", "resource has", "contains(resource"];
    let of_all = !attributes.iter().any(|part| text.contains(part));
    // Files and directories have these alike.
    let on_both = sort.kinds == [Kind::File, Kind::Dir];
    let of_both = ["resource.name", "resource.owner", "resource.kind"].iter().any(|part| text.contains(part));
    if of_all || on_both && of_both || sort.kinds.len() == 1 {
        return Expr::Leaf(text);
    }
    Expr::Leaf(format!("(resource is {} && {text})", kind.entity_type()))
}

/// A comparison that has nothing to do with the resource.
fn on_context(rng: &mut Rng) -> String {
    let number = rng.i64(1..6);
    let forms = [
        "context.leases.contains(\"change\")".to_owned(),
        "context.leases.contains(\"deploy\")".to_owned(),
        "context.leases.containsAll([\"change\", \"deploy\"])".to_owned(),
        "context.windows.contains(\"open\")".to_owned(),
        "context.posture has trust".to_owned(),
        format!("(context.posture has trust && context.posture.trust >= {number})"),
        format!("(context.posture has trust && context.posture.trust < {number})"),
        format!("(context has posture.trust && context.posture.trust == {number})"),
        "(context.posture has tier && context.posture.tier == \"gold\")".to_owned(),
        "(context.posture has tier && context.posture.tier like \"*l*\")".to_owned(),
        "(context.posture has synced && context.posture.synced)".to_owned(),
        "principal in Guard::Group::\"g\"".to_owned(),
        "principal == Guard::Subject::\"web\"".to_owned(),
        "action in Guard::Action::\"read\"".to_owned(),
        "action == Guard::Action::\"file.read\"".to_owned(),
    ];
    pick(rng, &forms).clone()
}

/// A path, or one behind a session variable. A `forbid` with a variable that has no value is refused,
/// so only a `permit` has any.
fn path(rng: &mut Rng, words: &Words, permit: bool) -> String {
    if permit && !words.tree.is_empty() && rng.u8(0..12) == 0 {
        return if rng.bool() { "${session.tree}".into() } else { "${session.tree}/x".into() };
    }
    pick(rng, &words.paths).clone()
}

fn on_path(rng: &mut Rng, sort: &Sort<'_>, kind: Kind) -> String {
    let words = sort.words;
    let (a, b) = (path(rng, words, sort.permit), path(rng, words, sort.permit));
    let kind_name = kind.entity_type();
    let builtin =
        *pick(rng, &["guard:own-anonymous", "guard:own-proc", "guard:own-cgroup", "guard:own-tmpfs"]);
    let file = *pick(rng, &["guard:terminal", "guard:stdio"]);
    match rng.u8(0..20) {
        0..=5 => format!("resource in Guard::Dir::\"{a}\""),
        6 | 7 => format!("resource == {kind_name}::\"{a}\""),
        8 => format!("resource in [Guard::Dir::\"{a}\", Guard::Dir::\"{b}\"]"),
        9 => format!("[{kind_name}::\"{a}\", {kind_name}::\"{b}\"].contains(resource)"),
        10 | 11 => format!("resource in Guard::Name::\"{}\"", pick(rng, &words.names)),
        12 | 13 => format!("resource.name like \"{}\"", pick(rng, &words.patterns)),
        14 => format!("resource.name == \"{}\"", short(pick(rng, &words.names).as_str())),
        15 => format!("resource.owner == {}", pick(rng, &words.owners)),
        16 => {
            format!("resource.kind == \"{}\"", pick(rng, &["regular", "directory", "socket", "fifo", "chr"]))
        }
        17 if kind == Kind::File => (*pick(rng, &["resource.set_id", "resource.fileless"])).to_owned(),
        18 if kind == Kind::File && words.signers && rng.bool() => {
            "resource.signed_by.contains(\"release\")".to_owned()
        }
        18 if kind == Kind::File => format!("resource == Guard::File::\"{file}\""),
        _ => format!("resource in Guard::Dir::\"{builtin}\""),
    }
}

/// A name that can be compared: longer ones are refused.
fn short(name: &str) -> &str {
    if name.len() <= 2 * PATTERN_MAX { name } else { "x" }
}

fn on_endpoint(rng: &mut Rng, sort: &Sort<'_>) -> String {
    let words = sort.words;
    let port = *pick(rng, &words.ports);
    match rng.u8(0..16) {
        0..=4 => format!("resource in Guard::Net::\"{}\"", pick(rng, &words.nets)),
        5 => format!("resource in Guard::DnsName::\"{}\"", pick(rng, &words.hosts)),
        6 => "resource in Guard::Net::\"guard:resolvers\"".to_owned(),
        7 => format!("resource.port == {port}"),
        8 => format!("resource.port < {port}"),
        9 => format!("{port} <= resource.port"),
        10 => format!("{port} < resource.port"),
        11 => format!("resource.port <= {port}"),
        12 => format!("[{port}, {}].contains(resource.port)", pick(rng, &words.ports)),
        13 => format!("resource.protocol == \"{}\"", pick(rng, &["tcp", "udp", "mptcp", "icmp"])),
        _ => subject(rng, "listener"),
    }
}

fn on_unix(rng: &mut Rng, sort: &Sort<'_>) -> String {
    let words = sort.words;
    let a = path(rng, words, sort.permit);
    match rng.u8(0..12) {
        0..=2 => format!("resource in Guard::Dir::\"{a}\""),
        3 | 4 => format!("resource == Guard::Unix::\"{a}\""),
        5 | 6 => format!("resource == Guard::Unix::\"@{}\"", pick(rng, &words.abstracts)),
        7 => format!("resource in Guard::Name::\"{}\"", pick(rng, &words.names)),
        8 => format!("resource.name like \"{}\"", pick(rng, &words.patterns)),
        9 => "resource.abstract".to_owned(),
        10 => {
            let builtin = *pick(rng, &["guard:own-anonymous", "guard:own-tmpfs"]);
            format!("resource in Guard::Dir::\"{builtin}\"")
        }
        _ => subject(rng, "listener"),
    }
}

fn on_capability(rng: &mut Rng) -> String {
    let (a, b) = (*pick(rng, &CAPABILITIES), *pick(rng, &CAPABILITIES));
    match rng.bool() {
        true => format!("resource == Guard::Capability::\"{a}\""),
        false => format!("[Guard::Capability::\"{a}\", Guard::Capability::\"{b}\"].contains(resource)"),
    }
}

/// A test of an attribute that is a subject.
fn subject(rng: &mut Rng, attribute: &str) -> String {
    let whom = [
        format!("resource.{attribute} == principal"),
        format!("principal == resource.{attribute}"),
        format!("resource.{attribute} == Guard::Subject::\"other\""),
        format!("resource.{attribute} == Guard::Subject::\"web\""),
        format!("resource.{attribute} == Guard::Subject::\"{STRANGER}\""),
        format!("resource.{attribute} in Guard::Group::\"g\""),
        format!("resource.{attribute} in [Guard::Group::\"g\", Guard::Group::\"h\"]"),
    ];
    match rng.u8(0..4) {
        0 => format!("resource has {attribute}"),
        _ => format!("(resource has {attribute} && {})", pick(rng, &whom)),
    }
}
