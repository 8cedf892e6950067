//! What is outside of the profile: each construct is refused at its place, and what the message says
//! to write instead compiles.

use super::*;

/// A subject, a lease, a window and a name, so that rewrites have something to refer to.
fn bundle(policy: &str) -> Directory {
    let toml = format!(
        "{TOML}[subjects.web]\nselector = {{ user = \"web\" }}\ngoverns = [\"*\"]\ninclude = [\"own/include\"]\n\
         [approvals]\nprod-change = {{ approvers = [\"group:oncall\"], max = \"30m\" }}\n\
         [windows]\noffice = {{ days = [\"mon\"], from = \"07:00\", to = \"19:00\", zone = \"Europe/Berlin\" }}\n\
         [facts]\ntrust = {{ type = \"long\", source = \"edr\", ttl = \"5m\" }}\n"
    );
    let own = "@id(\"own/include\") permit (principal == ?principal, action == Guard::Action::\"exec\", resource == Guard::File::\"/bin/true\");";
    Directory::new(&[("guard.toml", &toml), ("web.cedar", policy), ("own.cedar", own)])
}

fn policy(action: &str, condition: &str) -> String {
    format!(
        "@id(\"it\") permit (principal, action == Guard::Action::\"{action}\", resource) when {{ {condition} }};"
    )
}

/// An action, a condition that the profile has no place for, a part of the help, and the condition
/// that follows it.
type Row = (&'static str, &'static str, &'static str, &'static str);

const CONDITIONS: &[Row] = &[
    // Arithmetic, functions, values that are no single constant.
    (
        "net.connect",
        "resource.port == 8000 + 80",
        "compute the constant and write it",
        "resource.port == 8080",
    ),
    ("net.connect", "resource.port * 2 == 160", "compute the constant and write it", "resource.port == 80"),
    ("net.connect", "-resource.port < -1024", "write the number itself", "resource.port > 1024"),
    (
        "net.connect",
        "ip(\"10.0.0.1\").isInRange(ip(\"10.0.0.0/8\"))",
        "write `resource in Guard::Net::\"10.0.0.0/8\"`",
        "resource in Guard::Net::\"10.0.0.0/8\"",
    ),
    (
        "file.read",
        "decimal(\"1.5\").lessThan(decimal(\"2.0\"))",
        "compare with integers and strings",
        "15 < 20",
    ),
    (
        "file.read",
        "datetime(\"2026-01-01\") < datetime(\"2027-01-01\")",
        "declare a change window in guard.toml and write `context.windows.contains(\"NAME\")`",
        "context.windows.contains(\"office\")",
    ),
    (
        "file.read",
        "context.leases == [\"prod-change\"]",
        "write `context.leases.contains(\"NAME\")`",
        "context.leases.contains(\"prod-change\")",
    ),
    (
        "file.read",
        "[\"prod-change\"].containsAll(context.leases)",
        "the right side",
        "context.leases.containsAll([\"prod-change\"])",
    ),
    ("file.read", "{ limit: 1 }.limit == 1", "compare single values", "1 == 1"),
    ("file.read", "context.session.tty", "remove the condition on context.session", "true"),
    // Attributes.
    (
        "file.read",
        "resource.name like \"*secret*x\"",
        "write `prefix*`, `*suffix` or `prefix*suffix`",
        "resource.name like \"secret*x\"",
    ),
    (
        "file.read",
        "resource.name like \"*secret*\"",
        "write `prefix*`, `*suffix` or `prefix*suffix`",
        "resource.name like \"*secret\"",
    ),
    (
        "file.read",
        "resource.kind like \"reg*\"",
        "write `resource.name like \"prefix*\"`",
        "resource.name like \"prefix*\"",
    ),
    (
        "file.read",
        "resource.path like \"/srv/www/*\"",
        "write `resource in Guard::Dir::\"/path\"`",
        "resource in Guard::Dir::\"/srv/www\"",
    ),
    (
        "file.read",
        "resource.name == resource.kind",
        "compare one attribute of the resource with a constant",
        "resource.name == \"x\"",
    ),
    ("file.read", "resource.name == \"\"", "remove the comparison", "true"),
    (
        "file.read",
        "resource.name == \"a-name-that-is-much-longer-than-the-forty-eight-bytes-of-a-pattern\"",
        "write `resource in Guard::Name::\"…\"`",
        "resource in Guard::Name::\"a-name-that-is-much-longer-than-the-forty-eight-bytes-of-a-pattern\"",
    ),
    (
        "file.read",
        "resource.owner > 1000",
        "write `resource.owner == 1000 || resource.owner == 1001`",
        "resource.owner == 1000 || resource.owner == 1001",
    ),
    ("file.read", "resource.kind == \"pipe\"", "fifo", "resource.kind == \"fifo\""),
    ("net.connect", "resource.protocol == \"quic\"", "udp", "resource.protocol == \"udp\""),
    ("unix.connect", "resource.kind == \"socket\"", "remove the comparison", "true"),
    // Facts, leases, windows.
    (
        "file.read",
        "context.posture.trust >= 3",
        "context.posture has trust",
        "context.posture has trust && context.posture.trust >= 3",
    ),
    (
        "net.connect",
        "resource.listener == principal",
        "has listener",
        "resource has listener && resource.listener == principal",
    ),
    (
        "file.read",
        "context.leases.contains(\"nope\")",
        "add it to [approvals]",
        "context.leases.contains(\"prod-change\")",
    ),
    (
        "file.read",
        "context.windows.contains(\"nope\")",
        "add it to [windows]",
        "context.windows.contains(\"office\")",
    ),
    // Literals.
    (
        "file.read",
        "resource in Guard::Dir::\"/srv/*/x\"",
        "name the directory with `resource in Guard::Dir::\"…\"`, and add `resource.name like \"prefix*\"`",
        "resource in Guard::Dir::\"/srv\" && resource.name like \"prefix*\"",
    ),
    (
        "file.read",
        "resource in Guard::Dir::\"~/x\"",
        "write the absolute path",
        "resource in Guard::Dir::\"/home/ann/x\"",
    ),
    (
        "file.read",
        "resource in Guard::Dir::\"srv/x\"",
        "begin it with /",
        "resource in Guard::Dir::\"/srv/x\"",
    ),
    ("file.read", "resource in Guard::Dir::\"/srv/\"", "write \"/srv\"", "resource in Guard::Dir::\"/srv\""),
    (
        "file.read",
        "resource in Guard::Dir::\"/srv//x/..\"",
        "write the path they lead to",
        "resource in Guard::Dir::\"/srv\"",
    ),
    (
        "file.read",
        "resource in Guard::Dir::\"/proc/self\"",
        "write `resource in Guard::Dir::\"guard:own-proc\"`",
        "resource in Guard::Dir::\"guard:own-proc\"",
    ),
    (
        "file.read",
        "resource == Guard::File::\"/home/ann/link/shadow\"",
        "name what it leads to: /etc",
        "resource == Guard::File::\"/etc/shadow\"",
    ),
    (
        "file.read",
        "resource == Guard::File::\"guard:own-proc\"",
        "write Guard::Dir::\"guard:own-proc\"",
        "resource in Guard::Dir::\"guard:own-proc\"",
    ),
    (
        "dir.list",
        "resource == Guard::Dir::\"guard:own-proc\"",
        "write `resource in Guard::Dir::\"guard:own-proc\"`",
        "resource in Guard::Dir::\"guard:own-proc\"",
    ),
    (
        "file.read",
        "resource in Guard::Dir::\"guard:everything\"",
        "guard:own-proc",
        "resource in Guard::Dir::\"guard:own-proc\"",
    ),
    (
        "file.read",
        "resource in Guard::Name::\"a/b\"",
        "write one component",
        "resource in Guard::Name::\"b\"",
    ),
    (
        "exec.map",
        "resource == Guard::Memory::\"jit\"",
        "write Guard::Memory::\"anonymous\"",
        "resource == Guard::Memory::\"anonymous\"",
    ),
    (
        "net.raw",
        "resource == Guard::Protocol::\"packet\"",
        "write Guard::Protocol::\"netlink/route\"",
        "resource == Guard::Protocol::\"netlink/route\"",
    ),
    (
        "net.connect",
        "resource in Guard::Net::\"10.0.0.1\"",
        "write \"10.0.0.1/32\"",
        "resource in Guard::Net::\"10.0.0.1/32\"",
    ),
    (
        "net.connect",
        "resource in Guard::Net::\"10.0.0.1/8\"",
        "10.0.0.0/8",
        "resource in Guard::Net::\"10.0.0.0/8\"",
    ),
    (
        "net.connect",
        "resource == Guard::Endpoint::\"10.0.0.1:80\"",
        "write `resource in Guard::Net::\"ADDRESS/32\" && resource.port == PORT`",
        "resource in Guard::Net::\"10.0.0.1/32\" && resource.port == 80",
    ),
];

/// What is wrong with `text`, which must be shown with its place; empty if it compiles.
fn refused(text: &str) -> String {
    errors(&bundle(text))
}

#[test]
fn every_construct_outside_of_the_profile_has_a_rewrite_that_compiles() {
    let mut wrong = Vec::new();
    for (action, condition, help, rewrite) in CONDITIONS {
        let found = refused(&policy(action, condition));
        if !found.contains(" --> web.cedar:1:") || !found.contains("^") {
            wrong.push(format!("{condition}: no place in {found:?}"));
        } else if !found.contains(help) {
            wrong.push(format!("{condition}: {help:?} is not in {found}"));
        }
        let again = refused(&policy(action, rewrite));
        if !again.is_empty() {
            wrong.push(format!("{condition}: its rewrite {rewrite} does not compile: {again}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Whole policies: what is wrong, a part of the help, what follows it.
const POLICIES: &[(&str, &str, &str)] = &[
    (
        "permit (principal, action, resource);",
        "write @id(\"a-short-name\")",
        "@id(\"a-short-name\") permit (principal, action, resource);",
    ),
    (
        "@id(\"it\") @errno(\"EPERM\") forbid (principal, action == Guard::Action::\"file.read\", resource);",
        "write @errno(\"ENOENT\")",
        "@id(\"it\") @errno(\"ENOENT\") forbid (principal, action == Guard::Action::\"file.read\", resource);",
    ),
    (
        "@id(\"it\") @mode(\"audit\") forbid (principal, action, resource);",
        "write @mode(\"monitor\")",
        "@id(\"it\") @mode(\"monitor\") forbid (principal, action, resource);",
    ),
    (
        "@id(\"it\") @absent(\"ignore\") permit (principal, action, resource);",
        "it belongs on a forbid",
        "@id(\"it\") @absent(\"ignore\") forbid (principal, action, resource);",
    ),
    (
        "@id(\"it\") @owner(\"x\") permit (principal, action, resource);",
        "known: @id @mode @audit @reason",
        "@id(\"it\") @reason(\"x\") permit (principal, action, resource);",
    ),
    (
        "@id(\"own/include:more\") permit (principal == ?principal, action == Guard::Action::\"file.read\", resource in ?resource);",
        "name the resource itself",
        "@id(\"own/other\") permit (principal == ?principal, action == Guard::Action::\"file.read\", resource in Guard::Dir::\"/srv\");",
    ),
    (
        "@id(\"it\") @approval(\"prod-change\") permit (principal, action == Guard::Action::\"exec\", resource);",
        "context.leases.contains(\"prod-change\")",
        "@id(\"it\") @approval(\"prod-change\") permit (principal, action == Guard::Action::\"exec\", resource) when { context.leases.contains(\"prod-change\") };",
    ),
];

#[test]
fn every_policy_outside_of_the_profile_has_a_rewrite_that_compiles() {
    let mut wrong = Vec::new();
    for (text, help, rewrite) in POLICIES {
        let found = refused(text);
        if !found.contains(" --> web.cedar:1:") || !found.contains(help) {
            wrong.push(format!("{text}: {help:?} and a place are not in {found:?}"));
        }
        let again = refused(rewrite);
        if !again.is_empty() {
            wrong.push(format!("{text}: its rewrite {rewrite} does not compile: {again}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
