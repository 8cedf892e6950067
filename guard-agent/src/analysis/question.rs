//! From the words of a command line or a test to a request.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use guard_common::class::{BUILTINS, Class, UNNAMED_UNIX, WITH_NAMES};
use guard_common::tables::Attributes;

use crate::artifact::digest_of;
use crate::host::{Entry, Host};
use crate::policy::{
    Bundle, Diagnostic, FactValue, Facts, Listener, Peer, Request, Resource, Signers, Spot, file_kind,
    known_actions, protocol,
};

/// A question in the user's words.
#[derive(Clone, Debug, Default)]
pub struct Words {
    /// The subject.
    pub subject: String,
    /// The action.
    pub action: String,
    /// The resource; may be left out for actions on the machine.
    pub resource: Option<String>,
    /// Attributes of the resource, by name.
    pub with: Vec<(String, String)>,
    /// Entities that hold the resource besides those that are known to: `DnsName NAME` or `Net NETWORK`.
    pub within: Vec<(String, String)>,
    /// Live leases.
    pub leases: Vec<String>,
    /// Open change windows.
    pub windows: Vec<String>,
    /// Posture facts.
    pub facts: Vec<(String, String)>,
    /// Session variables.
    pub session: Vec<(String, String)>,
}

/// A question that can be answered.
#[derive(Clone, Debug)]
pub struct Question {
    /// The request.
    pub request: Request,
    /// What is known besides.
    pub facts: Facts,
    /// Where the resource's path leads, if symbolic links were followed.
    pub resolved: Option<PathBuf>,
}

/// Where attributes that are not given come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Files {
    /// From the file, if it exists.
    Read,
    /// An ordinary file of root: the answer depends on nothing but the words.
    Assume,
}

fn wrong(message: impl Into<String>, help: impl Into<String>) -> Diagnostic {
    Diagnostic::error("request", message).help(help)
}

impl Words {
    /// The request that the words mean.
    ///
    /// # Errors
    /// If a name is not known to the bundle, or a value is not of its type.
    pub fn question(&self, bundle: &Bundle, host: &Host, files: Files) -> Result<Question, Diagnostic> {
        if !bundle.subjects().any(|subject| subject.name == self.subject) {
            let known: Vec<_> = bundle.subjects().map(|subject| subject.name.as_str()).collect();
            return Err(wrong(
                format!("the bundle has no subject {}", self.subject),
                format!("it has: {}", known.join(" ")),
            ));
        }
        let actions = known_actions(bundle);
        let Some((_, types)) = actions.iter().find(|(name, _)| *name == self.action) else {
            let known: Vec<_> = actions.iter().map(|(name, _)| name.as_str()).collect();
            return Err(wrong(
                format!("there is no action {}", self.action),
                format!("known: {}", known.join(" ")),
            ));
        };
        let mut facts = self.facts(bundle)?;
        let mut resource = self.parse_resource(types)?;
        // Symbolic links in a root of its own are not known here, nor what else is there.
        let own_root = bundle.subjects().any(|known| known.name == self.subject && known.has_own_root());
        let resolved = if own_root { None } else { self.follow(host, &mut resource) };
        let files = if own_root { Files::Assume } else { files };
        let attributes = self.attributes(&resource, files)?;
        // What the kernel would find out, if the file is there.
        if let (Signers::OfExec, EXEC, Files::Read, Resource::File(Spot::Path(path))) =
            (&facts.signed_by, self.action.as_str(), files, &resource)
            && bundle.signers().next().is_some()
            && let Ok(digest) = digest_of(path)
        {
            facts.signed_by = Signers::Are(bundle.signers_of(host, &digest));
        }
        let request = Request {
            subject: self.subject.clone(),
            action: self.action.clone(),
            resource,
            attributes,
            listener: None,
            within: self.within.clone(),
        };
        Ok(Question { request, facts, resolved })
    }

    /// Leases, windows, facts and variables, each declared by the bundle.
    ///
    /// # Errors
    /// If one is not declared, or a value is not of its type.
    pub fn facts(&self, bundle: &Bundle) -> Result<Facts, Diagnostic> {
        let mut facts = Facts::default();
        for (given, declared, into, section) in [
            (&self.leases, bundle.approvals(), &mut facts.leases, "[approvals]"),
            (&self.windows, bundle.windows(), &mut facts.windows, "[windows]"),
        ] {
            for name in given {
                if !declared.contains(name) {
                    let known = if declared.is_empty() { "nothing".to_owned() } else { declared.join(" ") };
                    let message = format!("guard.toml has no {name} in {section}");
                    return Err(wrong(message, format!("it declares: {known}")));
                }
                into.insert(name.clone());
            }
        }
        for (name, text) in &self.facts {
            let Some(like) = bundle.facts().get(name) else {
                let known: Vec<_> = bundle.facts().keys().map(String::as_str).collect();
                let known = if known.is_empty() { "no facts".to_owned() } else { known.join(" ") };
                return Err(wrong(format!("guard.toml has no fact {name}"), format!("it declares: {known}")));
            };
            let value = match like {
                FactValue::Long(_) => text.parse().ok().map(FactValue::Long),
                FactValue::Bool(_) => text.parse().ok().map(FactValue::Bool),
                FactValue::String(_) => Some(FactValue::String(text.clone())),
            };
            let value = value.ok_or_else(|| {
                let kind = if matches!(like, FactValue::Long(_)) { "a number" } else { "true or false" };
                wrong(format!("the fact {name} is {kind}, not \"{text}\""), format!("write {name}=VALUE"))
            })?;
            facts.posture.insert(name.clone(), value);
        }
        facts.session = self.session.iter().cloned().collect();
        if let Some((_, name)) = self.with.iter().find(|(key, _)| key == "listener") {
            let peer = if name == "none" { Peer::Unlabelled } else { Peer::Subject(name.clone()) };
            facts.listener = Listener::Is(peer);
        }
        // Of what is not executed nobody tells them.
        let signers = self.with.iter().find(|(key, _)| key == "signed_by" && self.action == EXEC);
        if let Some((_, keys)) = signers {
            facts.signed_by = Signers::Are(list(keys));
        }
        Ok(facts)
    }

    /// The resource: `TYPE ID`, or the id alone where the action leaves one type.
    fn parse_resource(&self, types: &[String]) -> Result<Resource, Diagnostic> {
        let short: Vec<&str> = types.iter().map(|name| name.trim_start_matches("Guard::")).collect();
        let Some(text) = self.resource.as_deref() else {
            return match short.as_slice() {
                ["Machine"] => Ok(Resource::Machine),
                _ => Err(wrong(
                    format!("{} needs a resource", self.action),
                    format!("name a {}", short.join(" or a ")),
                )),
            };
        };
        let typed = text.split_once(' ').filter(|(kind, _)| short.contains(kind));
        let (kind, id) = typed.unwrap_or_else(|| (self.guess(&short, text), text));
        let subject = || self.with.iter().find(|(key, _)| key == "subject").map(|(_, name)| name.clone());
        Ok(match kind {
            "File" => Resource::File(spot(kind, id)?),
            "Dir" => Resource::Dir(spot(kind, id)?),
            "Unix" => Resource::Unix(spot(kind, id)?),
            "Endpoint" => endpoint(id)?,
            "Memory" => Resource::Memory,
            "Protocol" => Resource::Protocol(id.to_owned()),
            "Process" => Resource::Process { id: id.to_owned(), subject: subject() },
            "Capability" => {
                let name = id.to_ascii_lowercase();
                Resource::Capability(name.strip_prefix("cap_").unwrap_or(&name).to_owned())
            }
            "Machine" if id == "kernel" => Resource::Kernel,
            "Machine" => Resource::Machine,
            "Approval" => Resource::Approval(id.to_owned()),
            _ => Resource::Subject(id.to_owned()),
        })
    }

    fn guess<'a>(&self, short: &[&'a str], text: &str) -> &'a str {
        let has = |name: &str| short.iter().find(|known| **known == name).copied();
        let wanted = match text {
            "anonymous" => has("Memory"),
            "machine" => has("Machine"),
            // A rename is asked of the old name, whatever it names.
            _ => has("File").or(has("Subject")),
        };
        wanted.or(short.first().copied()).unwrap_or("File")
    }

    /// Follows symbolic links of a path, as the kernel does before it asks.
    fn follow(&self, host: &Host, resource: &mut Resource) -> Option<PathBuf> {
        let (Resource::File(Spot::Path(path))
        | Resource::Dir(Spot::Path(path))
        | Resource::Unix(Spot::Path(path))) = resource
        else {
            return None;
        };
        let of_the_name = matches!(
            self.action.as_str(),
            "file.create"
                | "file.remove"
                | "file.rename"
                | "file.symlink"
                | "file.link"
                | "file.mknod"
                | "dir.create"
                | "dir.remove"
                | "unix.bind"
        );
        let followed = follow(host, path, !of_the_name);
        if followed == *path {
            return None;
        }
        path.clone_from(&followed);
        Some(followed)
    }

    fn attributes(&self, resource: &Resource, files: Files) -> Result<Attributes, Diagnostic> {
        let mut attributes = Attributes::default();
        match resource {
            Resource::File(spot) | Resource::Dir(spot) => {
                let kind = if matches!(resource, Resource::Dir(_)) { "directory" } else { "regular" };
                attributes.kind = file_kind(kind).unwrap_or(attributes.kind);
                (attributes.owner, attributes.set_id, attributes.fileless) = (0, 0, 0);
                if let (Files::Read, Spot::Path(path)) = (files, spot)
                    && let Ok(metadata) = std::fs::symlink_metadata(path)
                {
                    attributes.owner = metadata.uid().into();
                    attributes.kind = u64::from(metadata.mode() & 0o170_000);
                    attributes.set_id = u64::from(metadata.mode() & 0o6000 != 0);
                }
            }
            Resource::Unix(_) => attributes.kind = file_kind("socket").unwrap_or(attributes.kind),
            Resource::Endpoint(..) => attributes.protocol = protocol("tcp").unwrap_or(attributes.protocol),
            _ => {}
        }
        for (key, value) in &self.with {
            set(&mut attributes, key, value)?;
        }
        Ok(attributes)
    }
}

/// The action of which signers are known.
const EXEC: &str = "exec";

const ATTRIBUTES: &str = "known: owner kind set_id fileless protocol signed_by listener subject";

fn set(attributes: &mut Attributes, key: &str, value: &str) -> Result<(), Diagnostic> {
    let bad = |kind: &str| wrong(format!("{key} is {kind}, not \"{value}\""), format!("write {key}=VALUE"));
    let flag = || value.parse::<bool>().map(u64::from).map_err(|_| bad("true or false"));
    match key {
        "owner" => attributes.owner = value.parse::<u32>().map_err(|_| bad("a user id"))?.into(),
        "kind" => attributes.kind = file_kind(value).ok_or_else(|| bad("a kind of file"))?,
        "set_id" => attributes.set_id = flag()?,
        "fileless" => attributes.fileless = flag()?,
        "protocol" => attributes.protocol = protocol(value).ok_or_else(|| bad("a protocol"))?,
        // These are no attributes that the kernel reads from the resource itself.
        "signed_by" | "listener" | "subject" => {}
        _ => return Err(wrong(format!("there is no attribute {key}"), ATTRIBUTES)),
    }
    Ok(())
}

fn list(text: &str) -> BTreeSet<String> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

/// A path, a built-in class, or the name of an abstract socket.
fn spot(kind: &str, id: &str) -> Result<Spot, Diagnostic> {
    if let Some(builtin) = BUILTINS.iter().find(|builtin| builtin.id == id) {
        return Ok(Spot::Builtin(builtin.class));
    }
    // `guard:own-tmpfs/NAMES`: what has a name in its file system, and is of the class by another rule.
    let inside = |class: &Class| {
        let builtin = BUILTINS.iter().find(|builtin| builtin.class == *class)?;
        let path = id.strip_prefix(builtin.id).filter(|path| path.starts_with('/'))?;
        Some(Spot::Inside { class: *class, path: clean(Path::new(path)) })
    };
    if let Some(spot) = WITH_NAMES.iter().find_map(inside) {
        return Ok(spot);
    }
    match (kind, id.strip_prefix('@')) {
        ("Unix", Some(name)) if !name.is_empty() => return Ok(Spot::Abstract(name.to_owned())),
        ("Unix", _) if id == "guard:unnamed" => return Ok(Spot::Builtin(UNNAMED_UNIX)),
        _ => {}
    }
    if !id.starts_with('/') {
        let message = format!("\"{id}\" is not an absolute path");
        return Err(wrong(message, "begin it with /, or name a built-in class such as guard:terminal"));
    }
    Ok(Spot::Path(clean(Path::new(id))))
}

/// Without `.`, `..` and doubled slashes; `..` above the root is the root.
fn clean(path: &Path) -> PathBuf {
    let mut out = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(name) => out.push(name),
            Component::ParentDir => {
                out.pop();
            }
            _ => {}
        }
    }
    out
}

fn endpoint(text: &str) -> Result<Resource, Diagnostic> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok(Resource::Endpoint(address.ip(), address.port()));
    }
    let help = "write 192.0.2.1:443 or [2001:db8::1]:443";
    Err(match text.parse::<IpAddr>() {
        Ok(_) => wrong(format!("{text} has no port"), help),
        Err(_) => wrong(format!("\"{text}\" is not an address and a port"), help),
    })
}

/// Symbolic links that are followed, as in the kernel (`MAXSYMLINKS`).
const MAX_LINKS: usize = 40;

/// `path` without symbolic links, the last component included if `last`.
fn follow(host: &Host, path: &Path, last: bool) -> PathBuf {
    let parts = |path: &Path| -> Vec<OsString> {
        let named = path.components().filter_map(|component| match component {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some("..".into()),
            _ => None,
        });
        named.collect::<Vec<_>>().into_iter().rev().collect()
    };
    let (mut done, mut rest, mut links) = (PathBuf::from("/"), parts(path), 0);
    while let Some(component) = rest.pop() {
        if component == ".." {
            done.pop();
            continue;
        }
        let next = done.join(&component);
        let follows = last || !rest.is_empty();
        match host.lookup.entry(&next) {
            Some(Entry::Link { target, .. }) if follows && links < MAX_LINKS => {
                links += 1;
                if target.is_absolute() {
                    done = PathBuf::from("/");
                }
                rest.extend(parts(&target));
            }
            _ => done = next,
        }
    }
    done
}

#[cfg(test)]
mod tests {
    use guard_common::class::{OWN_ANONYMOUS, OWN_TMPFS};

    use super::*;

    #[test]
    fn a_built_in_class_can_have_a_name_behind_it() {
        let of = |id: &str| spot("File", id).map_err(|error| error.message);
        assert_eq!(of("guard:own-tmpfs"), Ok(Spot::Builtin(OWN_TMPFS)));
        let path = PathBuf::from("/.ssh/id");
        assert_eq!(of("guard:own-tmpfs/a/../.ssh/id"), Ok(Spot::Inside { class: OWN_TMPFS, path }));
        assert_eq!(of("guard:own-anonymous"), Ok(Spot::Builtin(OWN_ANONYMOUS)));
        // What has no name cannot be given one.
        assert!(of("guard:own-anonymous/x").is_err() && of("guard:own-tmpfs-x").is_err());
    }
}
