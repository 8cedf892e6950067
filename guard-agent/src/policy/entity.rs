//! The Cedar entity of a resource: its attributes, and every literal of the policy that covers it.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::path::Path;

use cedar_policy_core::ast::{
    Eid, Entity, EntityReference, EntityType, EntityUID, Expr, ExprKind, Literal,
    PrincipalOrResourceConstraint as Scope, RestrictedExpr,
};
use cedar_policy_core::extensions::Extensions;
use guard_common::class::{self, BUILTINS, Class};

use super::bundle::Bundle;
use super::effective::EffectiveSet;
use super::kind::Kind;
use super::layout::USUAL_PLACES;
use super::literals::{self, RESOLVERS};
use super::naming::Naming;
use super::network::{self, Range};
use super::places::Place;
use super::policies::eid;
use super::request::{Request, Resource, Spot};
use super::world::{Facts, Listener, Peer, Signers};
use crate::host::Host;

/// What covers what on one host, by the literals of one policy set.
pub(super) struct Covers<'a> {
    naming: Naming<'a>,
    types: HashMap<&'static str, EntityType>,
    /// Directories, by the places that they hold with everything below.
    below: HashMap<Place, Vec<EntityUID>>,
    /// Directories that hold a built-in class.
    builtin: Vec<(Class, EntityUID)>,
    /// Names at any depth.
    names: HashMap<String, EntityUID>,
    networks: Vec<(Range, EntityUID)>,
}

/// The types of entities that requests are made of.
const TYPES: [&str; 15] = [
    "Guard::Subject",
    "Guard::Group",
    "Guard::Action",
    "Guard::File",
    "Guard::Dir",
    "Guard::Unix",
    "Guard::Endpoint",
    "Guard::Net",
    "Guard::DnsName",
    "Guard::Memory",
    "Guard::Protocol",
    "Guard::Process",
    "Guard::Capability",
    "Guard::Machine",
    "Guard::Approval",
];

impl<'a> Covers<'a> {
    pub(super) fn new(bundle: &Bundle, host: &'a Host, set: &EffectiveSet) -> Self {
        let mut this = Self {
            naming: Naming::new(host),
            types: TYPES.into_iter().filter_map(|name| Some((name, name.parse().ok()?))).collect(),
            below: HashMap::new(),
            builtin: Vec::new(),
            names: HashMap::new(),
            networks: Vec::new(),
        };
        let mut literals = HashSet::new();
        for policy in &set.policies {
            match policy.policy.resource_constraint().as_inner() {
                Scope::Eq(EntityReference::EUID(uid))
                | Scope::In(EntityReference::EUID(uid))
                | Scope::IsIn(_, EntityReference::EUID(uid)) => {
                    literals.insert((**uid).clone());
                }
                _ => {}
            }
            let condition = policy.policy.non_scope_constraints();
            for part in condition.into_iter().flat_map(Expr::subexpressions) {
                if let ExprKind::Lit(Literal::EntityUID(uid)) = part.expr_kind() {
                    literals.insert((**uid).clone());
                }
            }
        }
        for uid in literals {
            this.add(bundle, host, uid);
        }
        this
    }

    fn add(&mut self, bundle: &Bundle, host: &Host, uid: EntityUID) {
        let id = eid(&uid).to_owned();
        match uid.entity_type().to_string().as_str() {
            "Guard::Dir" => match BUILTINS.iter().find(|builtin| builtin.id == id) {
                Some(builtin) => self.builtin.push((builtin.class, uid)),
                None => self.add_directory(&id, uid),
            },
            "Guard::Name" => {
                self.names.insert(id, uid);
            }
            "Guard::Net" if id == RESOLVERS => {
                self.networks.extend(host.resolvers.iter().map(|one| (network::single(*one), uid.clone())));
            }
            "Guard::Net" => self.networks.extend(network::parse(&id).map(|range| (range, uid))),
            "Guard::DnsName" => {
                let ranges = bundle.names.get(&id).into_iter().flatten();
                self.networks.extend(ranges.map(|range| (*range, uid.clone())));
            }
            _ => {}
        }
    }

    /// A directory holds the place it leads to and everything that is mounted below it.
    fn add_directory(&mut self, path: &str, uid: EntityUID) {
        let path = Path::new(path);
        let mounted = self.naming.mounts.visible().filter(|mount| mount.point.starts_with(path));
        let mut places: Vec<Place> = mounted
            .map(|mount| Place { device: mount.device, path: mount.root.clone() })
            .chain(self.naming.mounts.locate(path))
            .collect();
        places.sort();
        places.dedup();
        for place in places {
            self.below.entry(place).or_default().push(uid.clone());
        }
        let usual = USUAL_PLACES.iter().filter(|(_, usual)| Path::new(usual).starts_with(path));
        self.builtin.extend(usual.map(|(number, _)| (*number, uid.clone())));
    }

    /// An entity id; nothing if there is no such type.
    pub(super) fn uid(&self, kind: &str, id: &str) -> Option<EntityUID> {
        Some(EntityUID::from_components(self.types.get(kind)?.clone(), Eid::new(id), None))
    }

    /// The entity of the resource of `request`.
    pub(super) fn entity(
        &self,
        request: &Request,
        facts: &Facts,
        groups: &dyn Fn(&str) -> Vec<String>,
    ) -> Option<Entity> {
        let (resource, attributes) = (&request.resource, &request.attributes);
        let kind = resource.entity_type();
        let mut parents = HashSet::new();
        let mut values: Vec<(&str, RestrictedExpr)> = Vec::new();
        let listener = match (&facts.listener, request.listener()) {
            (Listener::Is(Peer::Subject(name)), _) | (Listener::Told | Listener::OfUnix, Some(name)) => {
                Some(RestrictedExpr::val(self.uid("Guard::Subject", name)?))
            }
            _ => None,
        };
        let id = match resource {
            Resource::File(spot) | Resource::Dir(spot) | Resource::Unix(spot) => {
                let found = self.spot(spot);
                parents.extend(found.parents);
                values.push(("name", text(&found.name)));
                values.push(("kind", text(literals::file_kind_name(attributes.kind))));
                if kind == "Guard::Unix" {
                    values.push(("abstract", RestrictedExpr::val(matches!(spot, Spot::Abstract(_)))));
                    values.extend(listener.map(|peer| ("listener", peer)));
                } else {
                    let owner = i64::try_from(attributes.owner).unwrap_or(-1);
                    values.push(("owner", RestrictedExpr::val(owner)));
                }
                if kind == "Guard::File" {
                    // Of what the kernel tells only with the operation, this is a request without signers.
                    let signers = match &facts.signed_by {
                        Signers::Are(keys) => Some(keys),
                        Signers::Unknown | Signers::OfExec => None,
                    };
                    let signers = signers.into_iter().flatten();
                    values.push(("set_id", RestrictedExpr::val(attributes.set_id == 1)));
                    values.push(("fileless", RestrictedExpr::val(attributes.fileless == 1)));
                    values.push(("signed_by", RestrictedExpr::set(signers.map(|key| text(key)))));
                }
                found.id
            }
            Resource::Endpoint(address, port) => {
                parents.extend(self.covering(*address));
                let more = request.within.iter();
                parents.extend(more.filter_map(|(kind, id)| self.uid(&format!("Guard::{kind}"), id)));
                values.push(("port", RestrictedExpr::val(i64::from(*port))));
                values.push(("protocol", text(&literals::protocol_name(attributes.protocol))));
                let known = facts.listener.is_known(Kind::Endpoint);
                values.extend(listener.filter(|_| known).map(|peer| ("listener", peer)));
                std::net::SocketAddr::new(*address, *port).to_string()
            }
            Resource::Process { id, subject } => {
                if let Some(name) = subject {
                    values.push(("subject", RestrictedExpr::val(self.uid("Guard::Subject", name)?)));
                }
                id.clone()
            }
            Resource::Subject(name) => {
                parents.extend(groups(name).iter().filter_map(|group| self.uid("Guard::Group", group)));
                name.clone()
            }
            Resource::Memory => "anonymous".to_owned(),
            Resource::Machine => literals::THIS_MACHINE.to_owned(),
            Resource::Kernel => literals::THIS_KERNEL.to_owned(),
            Resource::Protocol(name) | Resource::Capability(name) | Resource::Approval(name) => name.clone(),
        };
        let uid = self.uid(kind, &id)?;
        parents.remove(&uid);
        let values = values.into_iter().map(|(name, value)| (name.into(), value));
        let none = std::iter::empty();
        Entity::new(uid, values, HashSet::new(), parents, none, Extensions::all_available()).ok()
    }

    /// Networks and names that hold an address.
    fn covering(&self, address: IpAddr) -> impl Iterator<Item = EntityUID> {
        let holds = |range: &Range| match (*range, network::single(address)) {
            (Range::V4(first, last), Range::V4(it, _)) => (first..=last).contains(&it),
            (Range::V6(first, last), Range::V6(it, _)) => (first..=last).contains(&it),
            _ => false,
        };
        let found: Vec<_> =
            self.networks.iter().filter(|(range, _)| holds(range)).map(|(_, uid)| uid.clone()).collect();
        found.into_iter()
    }

    fn spot(&self, spot: &Spot) -> Named {
        match spot {
            Spot::Path(path) => match self.naming.mounts.locate(path) {
                Some(place) => self.place(&place),
                None => Named { id: "guard:nowhere".into(), name: String::new(), parents: Vec::new() },
            },
            Spot::Place { device, path } => self.place(&Place { device: *device, path: path.clone() }),
            Spot::Abstract(name) => {
                Named { id: format!("@{name}"), name: String::new(), parents: Vec::new() }
            }
            Spot::Builtin(number) => self.builtin(*number),
            Spot::Inside { class, path } => self.inside(*class, path),
        }
    }

    /// What has no path has the empty name, which no pattern of the profile matches.
    fn builtin(&self, number: Class) -> Named {
        let id = match BUILTINS.iter().find(|builtin| builtin.class == number) {
            Some(builtin) if builtin.entity_type == "File" => builtin.id.to_owned(),
            Some(builtin) => format!("{}/*", builtin.id),
            None if number == class::UNNAMED_UNIX => "guard:unnamed".to_owned(),
            None => format!("guard:class-{number}"),
        };
        let parents = self.builtin.iter().filter(|(of, _)| *of == number).map(|(_, uid)| uid.clone());
        Named { id, name: String::new(), parents: parents.collect() }
    }

    /// Names in the file system count; those above the points where it is mounted do not, because the
    /// class is the same wherever that is.
    fn inside(&self, number: Class, path: &Path) -> Named {
        let mut found = self.builtin(number);
        if let Some(directory) = found.id.strip_suffix("/*") {
            found.id = format!("{directory}{}", path.display());
        }
        found.name = last_name(path);
        found.parents.extend(self.named(super::trie::names(path)));
        found
    }

    fn named<'p>(&self, names: impl Iterator<Item = &'p [u8]>) -> Vec<EntityUID> {
        names.filter_map(|name| self.names.get(std::str::from_utf8(name).ok()?).cloned()).collect()
    }

    fn place(&self, place: &Place) -> Named {
        let mut parents: Vec<EntityUID> = Vec::new();
        for above in place.path.ancestors() {
            let place = Place { device: place.device, path: above.to_owned() };
            parents.extend(self.below.get(&place).into_iter().flatten().cloned());
        }
        if !self.names.is_empty() {
            parents.extend(self.names_above(place));
        }
        Named { id: self.naming.name(place), name: last_name(&place.path), parents }
    }

    /// The names on the path from the file system's root, and on the way to each mount point that
    /// shows the place.
    fn names_above(&self, place: &Place) -> Vec<EntityUID> {
        let mut paths: BTreeSet<&Path> = BTreeSet::from([place.path.as_path()]);
        let shows = self
            .naming
            .mounts
            .visible()
            .filter(|mount| mount.device == place.device && place.path.starts_with(&mount.root));
        paths.extend(shows.map(|mount| mount.point.as_path()));
        self.named(paths.into_iter().flat_map(super::trie::names))
    }
}

/// What a path resource is called, and what covers it.
struct Named {
    id: String,
    name: String,
    parents: Vec<EntityUID>,
}

/// The kernel calls the root of a file system "/".
fn last_name(path: &Path) -> String {
    path.file_name().map_or("/".into(), |name| name.to_string_lossy().into_owned())
}

fn text(value: &str) -> RestrictedExpr {
    RestrictedExpr::val(value)
}
