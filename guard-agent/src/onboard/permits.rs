//! Permits for what was seen, as narrow as what was seen allows.

use std::collections::{BTreeMap, BTreeSet};

use guard_common::action::expand;

use super::peers::{Contact, peers};
use super::places::{Entry, Last, Path1, Place, Tally, Width, generalise, split};
use super::plan::quoted;
use super::secrets::Secrets;
use super::seen::{Seen, Thing, kinds_of};
use crate::policy::action_names;

/// One permit that is proposed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permit {
    /// Its id, unique among those that are proposed together.
    pub id: String,
    /// Actions and groups.
    pub actions: Vec<String>,
    /// What a condition says of the resource; any of them.
    pub resources: Vec<String>,
    /// It names more than literals, so what is secret by its name is taken out.
    pub except_secrets: bool,
    /// Kinds of operations it is for.
    pub kinds: usize,
    /// Operations it is for.
    pub count: u64,
    /// What it covers, in a few words.
    pub covers: String,
}

/// Permits for `seen`.
pub fn permits(seen: &[&Seen], secrets: &Secrets, width: Width) -> Vec<Permit> {
    let mut found = Vec::new();
    for family in ["file", "exec", "exec.map", "unix"] {
        let paths: Vec<Path1<'_>> = seen
            .iter()
            .filter(|one| family_of(&one.action) == family)
            .filter_map(|one| Some(Path1 { path: one.thing.path()?, action: &one.action, count: one.count }))
            .collect();
        // What is executed is always named one by one.
        let width = if family == "exec" { width.min(Width::Chance) } else { width };
        found.extend(of_entries(generalise(&paths, secrets, width)));
    }
    found.extend(of_peers(seen, width == Width::Siblings));
    found.extend(of_the_rest(seen));
    for index in 0..found.len() {
        let (before, rest) = found.split_at_mut(index);
        if let Some(permit) = rest.first_mut() {
            permit.id = unique(&permit.id, |id| before.iter().any(|other| other.id == id));
        }
    }
    found
}

/// `id`, or with a number behind it.
pub(super) fn unique(id: &str, taken: impl Fn(&str) -> bool) -> String {
    if !taken(id) {
        return id.to_owned();
    }
    (2..).map(|number| format!("{id}-{number}")).find(|id| !taken(id)).unwrap_or_default()
}

fn family_of(action: &str) -> &str {
    match action.split('.').next() {
        Some("dir") => "file",
        Some("exec") => action,
        Some(family) => family,
        None => "",
    }
}

/// The shortest list of actions and groups that means exactly these actions.
fn shortest(actions: &BTreeSet<String>) -> Vec<String> {
    let bits = actions.iter().filter_map(|action| expand(action)).fold(0, |bits, bit| bits | bit);
    action_names(bits).into_iter().map(str::to_owned).collect()
}

/// Files of one directory with the same actions are one permit, everything else is one each.
fn of_entries(entries: Vec<Entry>) -> Vec<Permit> {
    let mut found = Vec::new();
    let mut files: BTreeMap<(String, BTreeSet<String>), Vec<Entry>> = BTreeMap::new();
    for entry in entries {
        match &entry.place {
            Place::At(path) => {
                files.entry((split(path).0.to_owned(), entry.actions.clone())).or_default().push(entry);
            }
            _ => found.push(permit(std::slice::from_ref(&entry))),
        }
    }
    found.extend(files.values().map(|entries| permit(entries)));
    found
}

fn permit(entries: &[Entry]) -> Permit {
    let mut tally = Tally::default();
    entries.iter().for_each(|entry| tally.add(entry.tally));
    let actions = entries.first().map(|entry| entry.actions.clone()).unwrap_or_default();
    let resources = entries.iter().flat_map(|entry| conditions(&entry.place, &entry.actions)).collect();
    let (id, covers) = match entries.first().map(|entry| &entry.place) {
        Some(Place::At(path)) if entries.len() > 1 => {
            (slug(split(path).0), format!("{} files in {}", entries.len(), split(path).0))
        }
        Some(Place::At(path)) => (slug(path), path.clone()),
        Some(Place::Below(path)) => (slug(path), format!("{path} and below")),
        Some(Place::Named { directory, through, last }) => {
            let name = match last {
                Last::Is(name) => name.clone(),
                Last::Like(front, back) => format!("{front}*{back}"),
            };
            let through: String = through.iter().map(|name| format!("{name}/")).collect();
            (slug(&format!("{directory}/{name}")), format!("{through}{name} below {directory}"))
        }
        None => Default::default(),
    };
    Permit {
        id,
        actions: shortest(&actions),
        resources,
        except_secrets: entries.iter().any(|entry| !matches!(entry.place, Place::At(_))),
        kinds: tally.kinds,
        count: tally.count,
        covers,
    }
}

/// What a condition says of a place. One path can be two entities: a file, and a directory that is
/// listed or renamed.
fn conditions(place: &Place, actions: &BTreeSet<String>) -> Vec<String> {
    match place {
        Place::At(path) => {
            let kinds: BTreeSet<&str> = actions.iter().flat_map(|action| kinds_of(action)).collect();
            kinds.iter().map(|kind| format!("resource == Guard::{kind}::{}", quoted(path))).collect()
        }
        Place::Below(path) => vec![format!("resource in Guard::Dir::{}", quoted(path))],
        Place::Named { directory, through, last } => {
            let mut terms = vec![format!("resource in Guard::Dir::{}", quoted(directory))];
            terms.extend(through.iter().map(|name| format!("resource in Guard::Name::{}", quoted(name))));
            match last {
                Last::Is(name) => terms.push(format!("resource.name == {}", quoted(name))),
                Last::Like(front, back) if front.is_empty() && back.is_empty() => {}
                Last::Like(front, back) => {
                    terms.push(format!("resource.name like {}", pattern(front, back)));
                }
            }
            vec![terms.join(" && ")]
        }
    }
}

/// A Cedar pattern with one wildcard. A `*` of a name would be a wildcard itself.
fn pattern(front: &str, back: &str) -> String {
    let part = |text: &str| quoted(text).trim_matches('"').replace('*', "\\*");
    format!("\"{}*{}\"", part(front), part(back))
}

/// A path as an id.
pub(super) fn slug(path: &str) -> String {
    const LONGEST: usize = 48;
    let mut id = String::new();
    for c in path.chars() {
        let c = if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
        if c != '-' || !(id.is_empty() || id.ends_with('-')) {
            id.push(c);
        }
    }
    id.truncate(LONGEST);
    let id = id.trim_matches('-');
    if id.is_empty() { "root".to_owned() } else { id.to_owned() }
}

fn of_peers(seen: &[&Seen], widen: bool) -> Vec<Permit> {
    let contacts: Vec<Contact<'_>> = seen
        .iter()
        .filter_map(|one| match &one.thing {
            Thing::Endpoint { address, port, protocol } => Some(Contact {
                address: *address,
                port: *port,
                protocol,
                action: &one.action,
                count: one.count,
            }),
            _ => None,
        })
        .collect();
    let found = peers(&contacts, widen);
    found
        .iter()
        .map(|peers| {
            let verb =
                peers.actions.first().map_or("net", |action| action.trim_start_matches("net.")).to_owned();
            let ports: Vec<String> = peers.ports.iter().map(u16::to_string).collect();
            let networks =
                if peers.networks.is_empty() { "any address".to_owned() } else { peers.networks.join(" ") };
            let on =
                if ports.is_empty() { "any port".to_owned() } else { format!("port {}", ports.join(" ")) };
            Permit {
                id: slug(&format!("{verb}-{}", ports.join("-"))),
                actions: shortest(&peers.actions),
                resources: vec![peers.condition()],
                except_secrets: false,
                kinds: peers.tally.kinds,
                count: peers.tally.count,
                covers: format!("{networks}, {on}, {}", peers.protocol),
            }
        })
        .collect()
}

/// Built-in classes, abstract sockets and what has no resource but itself.
fn of_the_rest(seen: &[&Seen]) -> Vec<Permit> {
    let mut found: BTreeMap<Thing, (BTreeSet<String>, Tally)> = BTreeMap::new();
    for one in seen {
        if matches!(one.thing, Thing::Builtin(..) | Thing::Abstract(_) | Thing::Process(_) | Thing::Named(..))
        {
            let (actions, tally) = found.entry(one.thing.clone()).or_default();
            actions.insert(one.action.clone());
            tally.add(Tally { kinds: 1, count: one.count });
        }
    }
    found
        .into_iter()
        .map(|(thing, (actions, tally))| {
            let resources = match &thing {
                Thing::Builtin(kind, id) if kind == "Dir" => {
                    vec![format!("resource in Guard::Dir::{}", quoted(id))]
                }
                Thing::Builtin(kind, id) => vec![format!("resource == Guard::{kind}::{}", quoted(id))],
                Thing::Abstract(name) => {
                    vec![format!("resource == Guard::Unix::{}", quoted(&format!("@{name}")))]
                }
                Thing::Process(Some(name)) => {
                    vec![format!(
                        "(resource has subject && resource.subject == Guard::Subject::{})",
                        quoted(name)
                    )]
                }
                Thing::Process(None) => vec!["!(resource has subject)".to_owned()],
                Thing::Named(kind, id) if !id.is_empty() => {
                    vec![format!("resource == Guard::{kind}::{}", quoted(id))]
                }
                _ => Vec::new(),
            };
            let name = match &thing {
                Thing::Builtin(_, id) => id.trim_start_matches("guard:").to_owned(),
                Thing::Abstract(name) => name.clone(),
                _ => actions.iter().cloned().collect::<Vec<_>>().join("-"),
            };
            Permit {
                id: slug(&name),
                actions: shortest(&actions),
                resources,
                except_secrets: false,
                kinds: tally.kinds,
                count: tally.count,
                covers: thing.text(),
            }
        })
        .collect()
}
