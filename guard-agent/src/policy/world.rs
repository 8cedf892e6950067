//! What conditions depend on besides the resource, and which values of what is not known have to
//! be considered.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use cedar_policy_core::ast::{Expr, ExprKind, Literal, PatternElem};

use super::kind::Kind;
use guard_common::action::Action;

/// Value of a posture fact, in JSON the value itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(untagged)]
pub enum FactValue {
    /// `Long`
    Long(i64),
    /// `String`
    String(String),
    /// `Bool`
    Bool(bool),
}

impl FactValue {
    /// Its type, as a schema calls it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Long(_) => "Long",
            Self::String(_) => "String",
            Self::Bool(_) => "Bool",
        }
    }

    /// Whether another value is of the same type.
    pub fn is_like(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }
}

/// Who is at the other end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    /// A process without a label.
    Unlabelled,
    /// A process of this subject.
    Subject(String),
}

/// What is known of `resource.listener`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Listener {
    /// Nothing tells it: where it would decide, it decides for no subject.
    Unknown,
    /// The kernel tells it of unix sockets, with each operation. Of endpoints nothing tells it.
    #[default]
    OfUnix,
    /// The kernel tells it with each operation; it is part of the request.
    Told,
    /// It is this one.
    Is(Peer),
}

impl Listener {
    /// Whether it is known of a resource of this kind, be it that there is none.
    pub(super) fn is_known(&self, kind: Kind) -> bool {
        match self {
            Self::Unknown => false,
            Self::OfUnix => kind != Kind::Endpoint,
            Self::Told | Self::Is(_) => true,
        }
    }

    /// Whether it is part of the requests about resources of this kind.
    pub(super) fn is_told(&self, kind: Kind) -> bool {
        match self {
            Self::OfUnix => kind == Kind::Unix,
            Self::Told => true,
            Self::Unknown | Self::Is(_) => false,
        }
    }
}

/// What is known of `resource.signed_by`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Signers {
    /// Nothing tells them: where they would decide, they decide for no subject.
    Unknown,
    /// The kernel tells them of what is executed, with each operation. Of what is read or written nothing tells
    /// them.
    #[default]
    OfExec,
    /// They are these.
    Are(BTreeSet<String>),
}

impl Signers {
    /// Whether they are known of what this action is done to, be it that there are none.
    pub(super) fn is_known(&self, action: &str) -> bool {
        match self {
            Self::Unknown => false,
            Self::OfExec => action == Action::Exec.row().name,
            Self::Are(_) => true,
        }
    }
}

/// What conditions depend on besides the request. In this version the daemon does not know who listens at an
/// endpoint.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Names of the live leases.
    pub leases: BTreeSet<String>,
    /// Names of the open change windows.
    pub windows: BTreeSet<String>,
    /// Posture facts that are present.
    pub posture: BTreeMap<String, FactValue>,
    /// Values of session variables.
    pub session: BTreeMap<String, String>,
    /// Who tells `resource.listener`.
    pub listener: Listener,
    /// Who tells `resource.signed_by`.
    pub signed_by: Signers,
}

/// One assumption about what is not known while compiling.
#[derive(Clone, Debug)]
pub(super) struct World {
    /// Facts that are absent in this world, and the value that is tried for each. Others are what they
    /// will be.
    pub(super) assumed: BTreeMap<String, FactValue>,
    /// `resource.listener`; nothing if the kernel tells it.
    listener: Option<Peer>,
    /// The kernel tells it of unix sockets in any case.
    told_of_unix: bool,
    /// `resource.signed_by`; nothing if the kernel tells it.
    pub(super) signed_by: Option<BTreeSet<String>>,
}

impl World {
    /// `resource.listener` of a resource of this kind; nothing if the kernel tells it.
    pub(super) fn listener(&self, kind: Kind) -> Option<&Peer> {
        if self.told_of_unix && kind == Kind::Unix { None } else { self.listener.as_ref() }
    }
}

/// Most combinations that are considered for one policy.
pub(super) const MAX_WORLDS: usize = 4096;
/// A subject that no bundle can define, for "some other subject".
pub(super) const SOMEBODY: &str = "guard-somebody";

/// What a condition mentions.
#[derive(Debug, Default)]
pub(super) struct Mentions {
    /// Attribute names, of anything.
    attributes: BTreeSet<String>,
    longs: BTreeSet<i64>,
    /// String literals, and patterns with their wildcards removed.
    strings: BTreeSet<String>,
    subjects: BTreeSet<String>,
}

impl Mentions {
    pub(super) fn of(condition: Option<&Expr>) -> Self {
        let mut found = Self::default();
        for part in condition.into_iter().flat_map(Expr::subexpressions) {
            match part.expr_kind() {
                ExprKind::GetAttr { attr, .. } | ExprKind::HasAttr { attr, .. } => {
                    found.attributes.insert(attr.to_string());
                }
                ExprKind::ExtHasAttr { attrs, .. } => {
                    found.attributes.extend(attrs.iter().map(ToString::to_string));
                }
                ExprKind::Lit(Literal::Long(number)) => {
                    found.longs.insert(*number);
                }
                ExprKind::Lit(Literal::String(text)) => {
                    found.strings.insert(text.to_string());
                }
                ExprKind::Like { pattern, .. } => {
                    let fixed = pattern.iter().filter_map(|element| match element {
                        PatternElem::Char(c) => Some(*c),
                        PatternElem::Wildcard => None,
                    });
                    found.strings.insert(fixed.collect());
                }
                ExprKind::Lit(Literal::EntityUID(uid))
                    if uid.entity_type().to_string() == "Guard::Subject" =>
                {
                    found.subjects.insert(super::policies::eid(uid).to_owned());
                }
                _ => {}
            }
        }
        found
    }

    pub(super) fn attribute(&self, name: &str) -> bool {
        self.attributes.contains(name)
    }

    /// String literals, and patterns with their wildcards removed.
    pub(super) fn strings(&self) -> impl Iterator<Item = &str> {
        self.strings.iter().map(String::as_str)
    }

    /// The subjects that are named.
    pub(super) fn subjects(&self) -> impl Iterator<Item = &str> {
        self.subjects.iter().map(String::as_str)
    }

    /// Whether this string is one of the condition's constants.
    pub(super) fn mentions_text(&self, text: &str) -> bool {
        self.strings.contains(text)
    }

    /// Names of posture facts among `declared` that the condition mentions.
    pub(super) fn facts<'a, T>(
        &'a self,
        declared: &'a BTreeMap<String, T>,
    ) -> impl Iterator<Item = (&'a String, &'a T)> {
        declared.iter().filter(|(name, _)| self.attributes.contains(*name))
    }

    /// Values of a fact of this type that a condition could tell apart.
    pub(super) fn values(&self, like: &FactValue) -> Vec<FactValue> {
        match like {
            FactValue::Bool(_) => vec![FactValue::Bool(false), FactValue::Bool(true)],
            FactValue::Long(_) => {
                let around = |n: &i64| [n.checked_sub(1), Some(*n), n.checked_add(1)].into_iter().flatten();
                let mut values: BTreeSet<i64> = self.longs.iter().flat_map(around).collect();
                values.insert(0);
                values.into_iter().map(FactValue::Long).collect()
            }
            FactValue::String(_) => {
                let mut values = self.strings.clone();
                values.insert("\u{1}none of the above".to_owned());
                values.into_iter().map(FactValue::String).collect()
            }
        }
    }

    /// The worlds to consider: all values of unknown attributes, and, if `vary_facts`, every fact as it
    /// will be, or absent with some value. `None` if there are too many.
    pub(super) fn worlds(
        &self,
        facts: &Facts,
        declared: &BTreeMap<String, FactValue>,
        (subject, action): (&str, &str),
        vary_facts: bool,
    ) -> Option<Vec<World>> {
        let first = World {
            assumed: BTreeMap::new(),
            told_of_unix: facts.listener.is_told(Kind::Unix),
            listener: match &facts.listener {
                Listener::Unknown | Listener::OfUnix => Some(Peer::Unlabelled),
                Listener::Told => None,
                Listener::Is(peer) => Some(peer.clone()),
            },
            signed_by: match &facts.signed_by {
                Signers::OfExec if facts.signed_by.is_known(action) => None,
                Signers::OfExec | Signers::Unknown => Some(BTreeSet::new()),
                Signers::Are(keys) => Some(keys.clone()),
            },
        };
        let mut worlds = vec![first];
        let mut cross = |options: &dyn Fn(&World) -> Vec<World>| -> Option<()> {
            worlds = worlds.iter().flat_map(options).collect();
            (worlds.len() <= MAX_WORLDS).then_some(())
        };
        for (name, like) in self.facts(declared) {
            if !vary_facts {
                continue;
            }
            let values = self.values(like);
            cross(&|world| {
                let with = |value: &FactValue| {
                    let mut world = world.clone();
                    world.assumed.insert(name.clone(), value.clone());
                    world
                };
                std::iter::once(world.clone()).chain(values.iter().map(with)).collect()
            })?;
        }
        if !facts.listener.is_known(Kind::Endpoint) && self.attribute("listener") {
            let mut peers: BTreeSet<&str> = self.subjects.iter().map(String::as_str).collect();
            peers.extend([subject, SOMEBODY]);
            cross(&|world| {
                let with = |name: &&str| World {
                    listener: Some(Peer::Subject((*name).to_owned())),
                    ..world.clone()
                };
                std::iter::once(world.clone()).chain(peers.iter().map(with)).collect()
            })?;
        }
        if !facts.signed_by.is_known(action) && self.attribute("signed_by") {
            for key in &self.strings {
                cross(&|world| {
                    let mut with = world.clone();
                    with.signed_by.get_or_insert_default().insert(key.clone());
                    vec![world.clone(), with]
                })?;
            }
        }
        Some(worlds)
    }
}
