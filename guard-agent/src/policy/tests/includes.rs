//! The includes that Guard ships: they compile, they are narrow, and `docs/includes.md` says what each
//! of them gives.

use std::fmt::Write;

use cedar_policy_core::ast::{
    ActionConstraint, BinaryOp, EntityReference, EntityUID, Expr, ExprKind, Literal,
    PrincipalOrResourceConstraint as Scope, Var,
};

use super::super::includes::{SHIPPED, name};
use super::super::policies::{self, Policy, eid};
use super::*;

/// A shipped file: its name, the comment it begins with, and its includes.
struct Shipped {
    file: &'static str,
    tested: String,
    includes: Vec<Include>,
}

/// One include: its name, what it is for, and its templates.
struct Include {
    name: String,
    purpose: String,
    templates: Vec<Policy>,
}

/// The comment lines directly above byte `end`, as one paragraph.
fn comment_above(text: &str, end: usize) -> String {
    let mut lines: Vec<&str> = text[..end].lines().rev().take_while(|line| line.starts_with("//")).collect();
    lines.reverse();
    paragraph(&lines)
}

fn paragraph(lines: &[&str]) -> String {
    let words: Vec<&str> = lines.iter().map(|line| line.trim_start_matches('/').trim()).collect();
    words.join(" ").trim().to_owned()
}

fn shipped() -> Vec<Shipped> {
    SHIPPED
        .iter()
        .map(|(file, text)| {
            let source = super::super::diagnostics::Source::new(*file, *text);
            let mut found = Vec::new();
            let templates = policies::parse(&source, "include", &mut found).templates;
            assert!(found.is_empty(), "{found:?}");
            let mut includes: Vec<Include> = Vec::new();
            for template in templates {
                let of = name(&template.id).to_owned();
                match includes.last_mut().filter(|last| last.name == of) {
                    Some(last) => last.templates.push(template),
                    None => {
                        assert!(includes.iter().all(|other| other.name != of), "{of} is in two places");
                        let purpose = comment_above(text, template.span().start);
                        includes.push(Include { name: of, purpose, templates: vec![template] });
                    }
                }
            }
            let head: Vec<&str> = text.lines().take_while(|line| line.starts_with("//")).collect();
            let begin = head.iter().position(|line| line.starts_with("// Tested")).unwrap_or_else(|| {
                panic!("{file} does not say what its tests ran: begin with a paragraph `// Tested with …`")
            });
            Shipped { file, tested: paragraph(&head[begin..]), includes }
        })
        .collect()
}

/// `docs/includes.md`, up to the words that come before it.
fn reference() -> String {
    let mut out = String::from(include_str!("includes.md"));
    for shipped in shipped() {
        let _ = writeln!(out, "\n## {}\n\n{}", shipped.file, shipped.tested);
        for include in shipped.includes {
            let _ = writeln!(out, "\n### `{}`\n{}\n", include.name, include.purpose);
            out.push_str("| policy | permits | on |\n|---|---|---|\n");
            for template in include.templates {
                let short = template.id.split_once(':').map_or("", |(_, rest)| rest);
                let _ = writeln!(out, "| {short} | {} | {} |", actions(&template), resources(&template));
            }
        }
    }
    out
}

fn code(items: impl IntoIterator<Item = String>) -> String {
    items.into_iter().map(|item| format!("`{item}`")).collect::<Vec<_>>().join(" ")
}

fn actions(template: &Policy) -> String {
    match template.template.action_constraint() {
        ActionConstraint::Any => "everything".to_owned(),
        ActionConstraint::Eq(uid) => code([eid(uid).to_owned()]),
        ActionConstraint::In(uids) => code(uids.iter().map(|uid| eid(uid).to_owned())),
    }
}

fn resources(template: &Policy) -> String {
    let scope = match template.template.resource_constraint().as_inner() {
        Scope::Eq(EntityReference::EUID(uid)) => Some(code([named(uid, false)])),
        Scope::In(EntityReference::EUID(uid)) => Some(code([named(uid, true)])),
        _ => None,
    };
    let condition = template.template.non_scope_constraints().map(|condition| {
        let mut parts = Vec::new();
        alternatives(condition, &mut parts);
        match parts.iter().map(|part| literal(part)).collect::<Option<Vec<String>>>() {
            Some(literals) => code(literals),
            None => code([written(template, condition)]),
        }
    });
    match (scope, condition) {
        (None, None) => "anything".to_owned(),
        (Some(one), None) | (None, Some(one)) => one,
        (Some(scope), Some(condition)) => format!("{scope} if {condition}"),
    }
}

fn alternatives<'a>(expr: &'a Expr, parts: &mut Vec<&'a Expr>) {
    match expr.expr_kind() {
        ExprKind::Or { left, right } => {
            alternatives(left, parts);
            alternatives(right, parts);
        }
        _ => parts.push(expr),
    }
}

/// A condition as the file has it, without the name of the namespace.
fn written(template: &Policy, condition: &Expr) -> String {
    let loc = condition.source_loc().unwrap();
    let text = &template.source.text[loc.start()..loc.end()];
    let words: Vec<&str> = text.split_whitespace().collect();
    words.join(" ").replace("Guard::", "").replace("||", "or")
}

/// `resource == X` and `resource in X`.
fn literal(expr: &Expr) -> Option<String> {
    let ExprKind::BinaryApp { op, arg1, arg2 } = expr.expr_kind() else { return None };
    let ExprKind::Var(Var::Resource) = arg1.expr_kind() else { return None };
    let ExprKind::Lit(Literal::EntityUID(uid)) = arg2.expr_kind() else { return None };
    Some(named(uid, *op == BinaryOp::In))
}

fn named(uid: &EntityUID, within: bool) -> String {
    let (kind, id) = (uid.entity_type().to_string(), eid(uid));
    match kind.as_str() {
        "Guard::Dir" if within && id.starts_with('/') => format!("{id}/**"),
        "Guard::Unix" => format!("unix:{id}"),
        "Guard::Name" => format!("**/{id}"),
        "Guard::Memory" => format!("{id} memory"),
        _ => id.to_owned(),
    }
}

#[test]
fn the_reference_of_includes_agrees_with_the_files() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/includes.md");
    let wanted = reference();
    if std::env::var_os("GUARD_BLESS").is_some() {
        std::fs::write(&path, &wanted).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(found == wanted, "docs/includes.md is out of date: run the test with GUARD_BLESS=1");
}

/// A bundle whose subject `web` has these includes and nothing else.
fn with(includes: &[String]) -> Directory {
    let names: Vec<String> = includes.iter().map(|name| format!("{name:?}")).collect();
    let toml = format!(
        "{TOML}[subjects.web]\nselector = {{ user = \"web\" }}\ngoverns = [\"*\"]\ninclude = [{}]\n",
        names.join(", ")
    );
    Directory::new(&[("guard.toml", &toml)])
}

fn all() -> Vec<String> {
    shipped().into_iter().flat_map(|file| file.includes).map(|include| include.name).collect()
}

#[test]
fn every_include_says_what_it_is_for() {
    for include in shipped().into_iter().flat_map(|file| file.includes) {
        assert!(include.purpose.len() > 20, "{} has no comment above its first policy", include.name);
    }
}

#[test]
fn every_include_compiles_alone_and_all_of_them_together() {
    let all = all();
    let sets = all.iter().map(|name| vec![name.clone()]).chain([all.clone()]);
    for includes in sets {
        let directory = with(&includes);
        let bundle = load(&directory.0).unwrap_or_else(|errors| panic!("{includes:?}: {errors}"));
        let set = EffectiveSet::new(&bundle, &host(), &Facts::default()).unwrap();
        valid(&bundle, &set);
        let compiled = compiled(&directory);
        assert!(compiled.sizes.features <= 4, "{includes:?} leaves no room: {:?}", compiled.sizes);
    }
}

/// Nobody gets at these through an include.
const SECRETS: [&str; 16] = [
    "/etc/shadow",
    "/etc/gshadow",
    "/etc/ssl/private/host.key",
    "/etc/pki/tls/private/host.key",
    "/etc/ssh/ssh_host_ed25519_key",
    "/etc/sudoers",
    "/etc/krb5.keytab",
    "/root/.ssh/id_ed25519",
    "/root/.bash_history",
    "/home/ann/.ssh/id_ed25519",
    "/home/ann/.gitconfig",
    "/home/ann/.npmrc",
    "/home/ann/.config/gh/hosts.yml",
    "/var/lib/systemd/random-seed",
    "/proc/1/environ",
    "/run/credentials/web.service/token",
];

#[test]
fn no_include_gives_code_that_the_subject_writes() {
    let compiled = compiled(&with(&all()));
    for class in [guard_common::class::OWN_TMPFS, guard_common::class::OWN_ANONYMOUS] {
        for action in ["exec", "exec.map"] {
            let found = Found { class, features: 0 };
            assert_ne!(ask(&compiled, "web", action, found).denied, 0, "{action} on class {class}");
        }
    }
}

#[test]
fn no_include_gives_a_secret_or_a_place_to_write_to() {
    let compiled = compiled(&with(&all()));
    for secret in SECRETS {
        for action in ["file.read", "file.write", "exec", "exec.map"] {
            assert!(!allowed(&compiled, "web", action, secret), "{action} {secret}");
        }
    }
    for place in [
        "/usr/lib/x.so",
        "/usr/bin/ls",
        "/etc/passwd",
        "/etc/ld.so.preload",
        "/etc/profile.d/x.sh",
        "/tmp/x",
        "/dev/shm/x",
    ] {
        for action in
            ["file.write", "file.append", "file.create", "file.remove", "file.rename", "file.setattr"]
        {
            assert!(!allowed(&compiled, "web", action, place), "{action} {place}");
        }
    }
    for program in [
        "/usr/bin/sudo",
        "/usr/bin/su",
        "/usr/bin/curl",
        "/usr/bin/ssh",
        "/usr/sbin/chroot",
        "/usr/bin/perl",
        "/tmp/x",
    ] {
        assert!(!allowed(&compiled, "web", "exec", program), "{program}");
    }
}
