//! Entity ids, names and patterns as policies write them.

use std::collections::BTreeMap;

use cedar_policy_core::ast::EntityUID;
use guard_common::class::BUILTINS;
use guard_common::path::{MAX_COMPONENTS, PATTERN_MAX};

use super::formula::Atom;
use super::network;
use super::policies::eid;

/// What is wrong and what to write instead.
pub(super) type Wrong = (String, String);

fn wrong<T>(message: impl Into<String>, help: impl Into<String>) -> Result<T, Wrong> {
    Err((message.into(), help.into()))
}

/// Network that stands for this host's resolvers.
pub(super) const RESOLVERS: &str = "guard:resolvers";
/// How a session variable begins.
const SESSION: &str = "${session.";

/// The session variables in an entity id.
pub(super) fn session_variables(id: &str) -> impl Iterator<Item = &str> {
    id.split(SESSION).skip(1).filter_map(|rest| rest.split_once('}')).map(|(name, _)| name)
}

/// An entity id with the values of its session variables; those without a value stay.
pub(super) fn with_session(id: &str, session: &BTreeMap<String, String>) -> String {
    session_variables(id).fold(id.to_owned(), |text, name| match session.get(name) {
        Some(value) => text.replace(&format!("{SESSION}{name}}}"), value),
        None => text,
    })
}

/// The atom `resource == uid`, or `resource in uid` if `within`.
pub(super) fn atom(uid: &EntityUID, within: bool, session: &BTreeMap<String, String>) -> Result<Atom, Wrong> {
    let kind = uid.entity_type().to_string();
    let mut id = eid(uid).to_owned();
    for name in session_variables(eid(uid)) {
        match session.get(name) {
            Some(value) => id = id.replace(&format!("{SESSION}{name}}}"), value),
            None => {
                return wrong(format!("the session variable {name} has no value"), "name the path itself");
            }
        }
    }
    match kind.as_str() {
        "Guard::Net" if id == RESOLVERS => Ok(Atom::Net(id)),
        "Guard::Net" => network::parse(&id).map(|_| Atom::Net(id)),
        "Guard::DnsName" => Ok(Atom::Dns(id)),
        "Guard::Name" => name(&id).map(|()| Atom::Name(id)),
        "Guard::Endpoint" => wrong(
            "an endpoint is an address and a port",
            "write `resource in Guard::Net::\"ADDRESS/32\" && resource.port == PORT`",
        ),
        "Guard::Dir" | "Guard::File" | "Guard::Memory" | "Guard::Protocol" | "Guard::Unix" => {
            let short = &kind["Guard::".len()..];
            if let Some(builtin) = BUILTINS.iter().find(|builtin| builtin.id == id) {
                if builtin.entity_type != short {
                    return wrong(
                        format!("\"{id}\" is not a {short}"),
                        format!("write Guard::{}::\"{id}\"", builtin.entity_type),
                    );
                }
                if short == "Dir" && !within {
                    return wrong(
                        format!("nothing is equal to \"{id}\""),
                        format!("write `resource in Guard::Dir::\"{id}\"`"),
                    );
                }
                return Ok(Atom::Builtin(builtin.class));
            }
            match (short, id.strip_prefix('@')) {
                ("Memory", _) => {
                    wrong(format!("there is no memory \"{id}\""), "write Guard::Memory::\"anonymous\"")
                }
                ("Protocol", _) => wrong(
                    format!("this version does not tell \"{id}\" from other protocols"),
                    "write Guard::Protocol::\"netlink/route\", or leave the resource open to mean all of them",
                ),
                ("Unix", Some(name)) if !name.is_empty() => Ok(Atom::Abstract(name.to_owned())),
                _ => {
                    path(&id).map(|()| if within && short == "Dir" { Atom::Below(id) } else { Atom::At(id) })
                }
            }
        }
        other => wrong(
            format!("the kernel cannot tell membership in {other}"),
            "name a Dir, File, Name, Net, DnsName or Unix",
        ),
    }
}

/// Checks a path literal.
fn path(path: &str) -> Result<(), Wrong> {
    if let Some(rest) = path.strip_prefix("guard:") {
        let known: Vec<_> =
            BUILTINS.iter().map(|builtin| builtin.id).filter(|id| id.starts_with("guard:")).collect();
        return wrong(
            format!("there is no built-in class guard:{rest}"),
            format!("known: {}", known.join(" ")),
        );
    }
    if path.starts_with('~') {
        return wrong("policy does not know whose home ~ is", "write the absolute path");
    }
    let Some(rest) = path.strip_prefix('/') else {
        return wrong(format!("\"{path}\" is not an absolute path"), "begin it with /");
    };
    if rest.is_empty() {
        return Ok(());
    }
    if path.ends_with('/') {
        return wrong("a path does not end in /", format!("write \"{}\"", path.trim_end_matches('/')));
    }
    if path.contains('*') {
        return wrong(
            "a path has no wildcards",
            "name the directory with `resource in Guard::Dir::\"…\"`, and add `resource.name like \"prefix*\"` for the last component",
        );
    }
    let components: Vec<_> = rest.split('/').collect();
    if components.iter().any(|component| matches!(*component, "" | "." | "..")) {
        return wrong("a path has no empty, . or .. components", "write the path they lead to");
    }
    if components.len() > MAX_COMPONENTS {
        return wrong(format!("a path has at most {MAX_COMPONENTS} components"), "name a directory above it");
    }
    match components.iter().find_map(|component| name(component).err()) {
        Some(problem) => Err(problem),
        None => Ok(()),
    }
}

/// Checks one component.
fn name(name: &str) -> Result<(), Wrong> {
    if name.is_empty() || name.contains(['/', '\0']) || name.len() > 255 || name == "." || name == ".." {
        return wrong(
            format!("\"{}\" is not the name of a file", name.escape_default()),
            "write one component of at most 255 bytes, without a slash",
        );
    }
    Ok(())
}

/// `resource.name == text`
pub(super) fn exact_name(text: &str) -> Result<Atom, Wrong> {
    if text.is_empty() {
        return wrong("no file has an empty name", "remove the comparison");
    }
    if text.len() > 2 * PATTERN_MAX {
        return wrong(
            format!("names longer than {} bytes cannot be compared", 2 * PATTERN_MAX),
            "write `resource in Guard::Name::\"…\"`",
        );
    }
    // A pattern compares bytes, so it may be cut anywhere; a string may not.
    let cut =
        (0..=text.len()).rev().find(|cut| *cut <= PATTERN_MAX && text.is_char_boundary(*cut)).unwrap_or(0);
    if text.len() - cut > PATTERN_MAX {
        return wrong("this name is too long to be compared", "write `resource in Guard::Name::\"…\"`");
    }
    Ok(Atom::Pattern { prefix: text[..cut].to_owned(), suffix: text[cut..].to_owned(), exact: true })
}

/// A pattern over the last component, `None` standing for a wildcard. `Ok(None)` matches always.
pub(super) fn name_pattern(elements: &[Option<char>]) -> Result<Option<Atom>, Wrong> {
    let first = elements.iter().position(Option::is_none);
    let last = elements.iter().rposition(Option::is_none);
    let text = |part: &[Option<char>]| part.iter().flatten().collect::<String>();
    let (Some(first), Some(last)) = (first, last) else {
        return exact_name(&text(elements)).map(Some);
    };
    if elements[first..last].iter().any(Option::is_some) {
        return wrong(
            "the kernel matches a pattern with one * only",
            "write `prefix*`, `*suffix` or `prefix*suffix`, or name a component with `resource in Guard::Name::\"…\"`",
        );
    }
    let (prefix, suffix) = (text(&elements[..first]), text(&elements[last..]));
    if prefix.len() > PATTERN_MAX || suffix.len() > PATTERN_MAX {
        return wrong(format!("each side of the * has at most {PATTERN_MAX} bytes"), "shorten the pattern");
    }
    if prefix.is_empty() && suffix.is_empty() {
        return Ok(None);
    }
    Ok(Some(Atom::Pattern { prefix, suffix, exact: false }))
}

/// Help for [`protocol`].
pub(super) const PROTOCOLS_HELP: &str = "known: tcp udp sctp dccp udplite icmp icmpv6 mptcp";

/// Number of an IP protocol, by name; `None` if it is not one that policy can name.
pub fn protocol(name: &str) -> Option<u64> {
    Some(match name {
        "icmp" => 1,
        "tcp" => 6,
        "udp" => 17,
        "dccp" => 33,
        "icmpv6" => 58,
        "sctp" => 132,
        "udplite" => 136,
        "mptcp" => 262,
        _ => return None,
    })
}

/// Help for [`file_kind`].
pub(super) const KINDS_HELP: &str = "known: regular directory fifo socket chr blk symlink";

/// File type bits (`S_IFMT`) of a kind of file; `None` if there is no such kind.
pub fn file_kind(name: &str) -> Option<u64> {
    Some(match name {
        "fifo" => 0o010000,
        "chr" => 0o020000,
        "directory" => 0o040000,
        "blk" => 0o060000,
        "regular" => 0o100000,
        "symlink" => 0o120000,
        "socket" => 0o140000,
        _ => return None,
    })
}

/// The kind of file with these type bits; empty if there is none.
pub(super) fn file_kind_name(format: u64) -> &'static str {
    ["fifo", "chr", "directory", "blk", "regular", "symlink", "socket"]
        .into_iter()
        .find(|name| file_kind(name) == Some(format))
        .unwrap_or_default()
}

/// The name of an IP protocol, else its number.
pub(super) fn protocol_name(number: u64) -> String {
    ["icmp", "tcp", "udp", "dccp", "icmpv6", "sctp", "udplite", "mptcp"]
        .into_iter()
        .find(|name| protocol(name) == Some(number))
        .map_or_else(|| number.to_string(), str::to_owned)
}
