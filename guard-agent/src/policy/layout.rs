//! Where literals lie on this host: trie nodes, address ranges and their classes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use cedar_policy_core::ast::{
    EntityReference, EntityUID, Expr, ExprKind, Literal, PrincipalOrResourceConstraint as Scope,
};
use guard_common::class::{self, Class};
use guard_common::path::{NODE_GUARDS_OWN, OWN_ROOT};
use guard_common::tables::{DEVICE_PATHS, Net4, Net6};

use super::bundle::Bundle;
use super::classes::{Classes, Sort};
use super::diagnostics::{Diagnostic, Severity};
use super::formula::{Atom, AtomId, Atoms};
use super::includes::is_guards_own;
use super::literals::RESOLVERS;
use super::network::{self, Range, pieces};
use super::places::{Mounts, Place, own_path, resolve};
use super::policies::eid;
use super::trie::{Trie, names};
use crate::host::Host;

/// Directories whose literals hold for a built-in class as well: the things in it usually lie there.
pub(super) const USUAL_PLACES: [(Class, &str); 3] =
    [(class::OWN_PROC, "/proc"), (class::OWN_CGROUP, "/sys/fs/cgroup"), (class::TERMINAL, "/dev")];

/// Adds every path literal to `trie` and returns the built-in classes.
pub(super) fn paths(
    host: &Host,
    mounts: &Mounts<'_>,
    atoms: &Atoms,
    groups: &[AtomId],
    trie: &mut Trie,
    found: &mut Vec<Diagnostic>,
) -> Classes {
    for device in mounts.devices() {
        trie.root(device);
    }
    let visible: Vec<_> = mounts.visible().collect();
    let mut builtin: Vec<(Class, AtomId)> = Vec::new();
    for (id, atom, mention) in atoms.iter() {
        match atom {
            Atom::Builtin(number) => builtin.push((*number, id)),
            Atom::Abstract(name) => trie.cover_abstract(name, id),
            Atom::At(text) | Atom::Below(text) if own_path(text).is_some() => {
                own(mounts, atom, id, trie, &mut builtin, mention, found);
            }
            Atom::At(text) => {
                if let Some((_, place)) = locate(host, mounts, text, mention, found) {
                    trie.cover_at(&place, id);
                }
            }
            Atom::Below(text) => {
                let Some((path, place)) = locate(host, mounts, text, mention, found) else { continue };
                trie.cover_below(&place, id);
                for mount in visible.iter().filter(|mount| mount.point.starts_with(&path)) {
                    trie.cover_below(&Place { device: mount.device, path: mount.root.clone() }, id);
                }
                builtin.extend(
                    USUAL_PLACES
                        .iter()
                        .filter(|(_, usual)| Path::new(usual).starts_with(&path))
                        .map(|(number, _)| (*number, id)),
                );
            }
            Atom::Name(name) => {
                for mount in
                    visible.iter().filter(|mount| names(&mount.point).any(|part| part == name.as_bytes()))
                {
                    trie.cover_below(
                        &Place { device: mount.device, path: mount.root.clone() },
                        groups[id as usize],
                    );
                }
            }
            _ => {}
        }
    }
    Classes::new(|number| builtin.iter().filter(|(of, _)| *of == number).map(|(_, id)| *id).collect())
}

/// Adds a literal of subjects with a root of their own. What is judged by what it is, and not by its place,
/// has one class for everybody: it holds the literals that mean its usual place.
fn own(
    mounts: &Mounts<'_>,
    atom: &Atom,
    id: AtomId,
    trie: &mut Trie,
    builtin: &mut Vec<(Class, AtomId)>,
    mention: &Diagnostic,
    found: &mut Vec<Diagnostic>,
) {
    let (text, below) = match atom {
        Atom::At(text) => (text, false),
        Atom::Below(text) => (text, true),
        _ => return,
    };
    let Some(path) = own_path(text) else { return };
    if names(&path).count() > guard_common::path::MAX_COMPONENTS {
        let message =
            format!("{} has more than {} components", path.display(), guard_common::path::MAX_COMPONENTS);
        let at = Diagnostic { code: "literal", severity: Severity::Error, message, ..mention.clone() };
        found.push(at.help("name a directory above it"));
        return;
    }
    let holds = |usual: &str| {
        let usual = Path::new(usual);
        if below { usual.starts_with(&path) } else { usual == path }
    };
    for usual in DEVICE_PATHS.into_iter().filter(|usual| holds(usual)) {
        if let Some(place) = mounts.locate(Path::new(usual)) {
            trie.cover_at(&place, id);
        }
    }
    if below {
        let usual = USUAL_PLACES.iter().filter(|(_, usual)| holds(usual));
        builtin.extend(usual.map(|(number, _)| (*number, id)));
    }
    let place = Place { device: OWN_ROOT, path };
    if below { trie.cover_below(&place, id) } else { trie.cover_at(&place, id) }
}

/// Marks what Guard protects on every host, for subjects that may have another name for it.
pub(super) fn protect(bundle: &Bundle, host: &Host, mounts: &Mounts<'_>, trie: &mut Trie) {
    let literal = |uid: &EntityUID, trie: &mut Trie| {
        let kind = uid.entity_type().to_string();
        if !matches!(kind.as_str(), "Guard::Dir" | "Guard::File" | "Guard::Unix") {
            return;
        }
        let Ok(resolved) = resolve(host, Path::new(eid(uid))) else { return };
        if let Some(place) = mounts.locate(&resolved.path) {
            trie.flag_below(&place, NODE_GUARDS_OWN);
        }
    };
    for policy in bundle.policies.iter().filter(|policy| is_guards_own(&policy.source.name)) {
        match policy.template.resource_constraint().as_inner() {
            Scope::Eq(EntityReference::EUID(uid))
            | Scope::In(EntityReference::EUID(uid))
            | Scope::IsIn(_, EntityReference::EUID(uid)) => literal(uid, trie),
            _ => {}
        }
        let condition = policy.template.non_scope_constraints();
        for part in condition.into_iter().flat_map(Expr::subexpressions) {
            if let ExprKind::Lit(Literal::EntityUID(uid)) = part.expr_kind() {
                literal(uid, trie);
            }
        }
    }
}

/// Path without links, and place, of a literal.
fn locate(
    host: &Host,
    mounts: &Mounts<'_>,
    text: &str,
    mention: &Diagnostic,
    found: &mut Vec<Diagnostic>,
) -> Option<(PathBuf, Place)> {
    let at = |code, severity, message: String| Diagnostic { code, severity, message, ..mention.clone() };
    let resolved = match resolve(host, Path::new(text)) {
        Ok(resolved) => resolved,
        Err((message, help)) => {
            found.push(at("symbolic-link", Severity::Error, message).help(help));
            return None;
        }
    };
    // A shipped include is written for many hosts: what it names need not be there, and may lie elsewhere.
    let shipped = mention.place.as_ref().is_some_and(|place| is_guards_own(&place.file));
    if !shipped && !resolved.links.is_empty() {
        let message = format!("{text} leads to {}, which is what is meant", resolved.path.display());
        found.push(at("resolved", Severity::Note, message));
    }
    if !shipped && host.lookup.entry(&resolved.path).is_none() {
        let message = format!("{text} does not exist on this host; it is judged by its name once it does");
        found.push(at("unknown-path", Severity::Note, message));
    }
    if names(&resolved.path).count() > guard_common::path::MAX_COMPONENTS {
        let message = format!(
            "{} has more than {} components",
            resolved.path.display(),
            guard_common::path::MAX_COMPONENTS
        );
        found.push(at("literal", Severity::Error, message).help("name a directory above it"));
        return None;
    }
    match mounts.locate(&resolved.path) {
        Some(place) => Some((resolved.path, place)),
        None => {
            let message = format!("{text} lies on no file system that this host has mounted");
            found.push(at("unknown-path", Severity::Error, message).help("name a path that can be reached"));
            None
        }
    }
}

/// The address tables.
pub(super) fn addresses(
    names: &BTreeMap<String, Vec<Range>>,
    host: &Host,
    atoms: &Atoms,
    classes: &mut Classes,
    found: &mut Vec<Diagnostic>,
) -> (Vec<Net4>, Vec<Net6>) {
    let (mut v4, mut v6) = (Vec::new(), Vec::new());
    for (id, atom, mention) in atoms.iter() {
        let note =
            |code, message: String| Diagnostic { code, message, severity: Severity::Note, ..mention.clone() };
        let ranges: Vec<Range> = match atom {
            Atom::Net(text) if text == RESOLVERS => {
                if host.resolvers.is_empty() {
                    found.push(note(
                        "unknown-address",
                        format!(
                            "this host has no resolvers in /etc/resolv.conf, so nothing is in {RESOLVERS}"
                        ),
                    ));
                }
                host.resolvers.iter().map(|address| network::single(*address)).collect()
            }
            Atom::Net(text) => network::parse(text).into_iter().collect(),
            Atom::Dns(name) => match names.get(name) {
                Some(ranges) => ranges.clone(),
                None => {
                    found.push(note(
                        "unknown-address",
                        format!("[names] does not say what {name} is, so nothing is in it"),
                    ));
                    Vec::new()
                }
            },
            _ => continue,
        };
        for range in ranges {
            match range {
                Range::V4(first, last) => v4.push((first.into(), last.into(), id)),
                Range::V6(first, last) => v6.push((first, last, id)),
            }
        }
    }
    tables(&v4, &v6, classes)
}

/// The tables of networks: first and last address of each, and the literal that it belongs to.
pub(super) fn tables(
    v4: &[(u128, u128, AtomId)],
    v6: &[(u128, u128, AtomId)],
    classes: &mut Classes,
) -> (Vec<Net4>, Vec<Net6>) {
    let net4 = pieces(v4, u32::MAX.into())
        .into_iter()
        .map(|(start, cover)| Net4 { start: start as u32, class: classes.intern(Sort::Net, cover) })
        .collect();
    let net6 = pieces(v6, u128::MAX)
        .into_iter()
        .map(|(start, cover)| Net6 {
            high: (start >> 64) as u64,
            low: start as u64,
            class: classes.intern(Sort::Net, cover),
            reserved: 0,
        })
        .collect();
    (net4, net6)
}
