//! One Cedar policy, for one subject and one type of resource, as a formula.
//!
//! An abstract interpreter: what is known (principal, action) is computed, what only the kernel or
//! only the future knows (the resource, the context) becomes atoms. Whatever has no exact counterpart in the kernel is an error at the
//! expression, with a rewrite.

use std::collections::{BTreeMap, BTreeSet};

use cedar_policy_core::ast::{
    BinaryOp, EntityReference, EntityUID, Expr, ExprKind, Literal, Pattern, PatternElem,
    PrincipalOrResourceConstraint as Scope, UnaryOp, Var,
};
use guard_common::action;
use guard_common::tables::{Attribute, OWN, PRESENT};

use super::condition::Test;
use super::diagnostics::Diagnostic;
use super::formula::{Atom, Atoms, Formula};
use super::kind::Kind;
use super::literals;
use super::places;
use super::policies::{Policy, eid};
use super::world::{FactValue, Peer, World};

type Result<T> = std::result::Result<T, Box<Diagnostic>>;

/// What names in conditions may refer to.
pub(super) struct Names<'a> {
    /// Groups of each subject.
    pub(super) groups: &'a BTreeMap<String, Vec<String>>,
    /// Declared approvals, windows.
    pub(super) approvals: &'a [String],
    pub(super) windows: &'a [String],
    /// Declared facts, each with some value of its type.
    pub(super) facts: &'a BTreeMap<String, FactValue>,
}

impl Names<'_> {
    /// Whether a scope leaves room for this subject.
    pub(super) fn fits(&self, subject: &str, scope: &Scope) -> bool {
        let named = |reference: &EntityReference, within: bool| match reference {
            // A template is only translated for a subject that it is linked for.
            EntityReference::Slot(_) => true,
            EntityReference::EUID(uid) => is_subject(subject, uid) || within && self.is_in(subject, uid),
        };
        let of_type = |kind: &cedar_policy_core::ast::EntityType| kind.to_string() == "Guard::Subject";
        match scope {
            Scope::Any => true,
            Scope::Eq(reference) => named(reference, false),
            Scope::In(reference) => named(reference, true),
            Scope::Is(kind) => of_type(kind),
            Scope::IsIn(kind, reference) => of_type(kind) && named(reference, true),
        }
    }

    /// Whether a subject is this entity or belongs to it.
    fn is_in(&self, subject: &str, uid: &EntityUID) -> bool {
        is_subject(subject, uid)
            || uid.entity_type().to_string() == "Guard::Group"
                && self.groups.get(subject).is_some_and(|groups| groups.iter().any(|group| group == eid(uid)))
    }
}

fn is_subject(subject: &str, uid: &EntityUID) -> bool {
    eid(uid) == subject && uid.entity_type().to_string() == "Guard::Subject"
}

/// The request a policy is translated for.
pub(super) struct Translator<'a> {
    pub(super) names: &'a Names<'a>,
    pub(super) policy: &'a Policy,
    pub(super) subject: &'a str,
    /// Paths count from the subject's own root.
    pub(super) own_root: bool,
    pub(super) kind: Kind,
    pub(super) action: &'static str,
    /// Values of session variables.
    pub(super) session: &'a BTreeMap<String, String>,
    pub(super) world: &'a World,
    pub(super) atoms: &'a mut Atoms,
}

/// An attribute of the resource that only the kernel knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Raw {
    Name,
    Port,
    Owner,
    Kind,
    Protocol,
}

/// Value of an expression.
#[derive(Clone, Debug)]
enum Term {
    Bool(Formula),
    Long(i64),
    Text(String),
    Entity(EntityUID),
    /// A subject that need not be in the bundle.
    Subject(String),
    Set(Vec<Term>),
    Resource,
    Raw(Raw),
    /// An attribute of the resource that is a subject, which only the kernel knows.
    Peer(Attribute),
    Context,
    Posture,
    /// A posture fact, whatever its value will be.
    Fact(String),
    /// `context.leases`, `context.windows`.
    Names(Named),
    /// `resource.signed_by`; nothing where only the kernel knows it.
    Signers(Option<BTreeSet<String>>),
    /// One or the other.
    Choice(Formula, Box<Term>, Box<Term>),
}

/// Why a set of names cannot be compared as a whole.
const ONE_NAME: &str = "the kernel can look for one name in this set only";

/// A set of names in the context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Named {
    Leases,
    Windows,
}

impl Translator<'_> {
    /// The condition of the whole policy, scope included.
    pub(super) fn policy(&mut self) -> Result<Formula> {
        let template = self.policy.template.clone();
        if !self.names.fits(self.subject, template.principal_constraint().as_inner()) {
            return Ok(Formula::FALSE);
        }
        let scope = match template.resource_constraint().as_inner() {
            Scope::Any => Formula::TRUE,
            Scope::Eq(EntityReference::EUID(uid)) => self.resource_is(uid)?,
            Scope::In(EntityReference::EUID(uid)) => self.resource_in(uid)?,
            Scope::Is(kind) => Formula::Const(kind.to_string() == self.kind.entity_type()),
            Scope::IsIn(kind, EntityReference::EUID(uid)) if kind.to_string() == self.kind.entity_type() => {
                self.resource_in(uid)?
            }
            Scope::IsIn(_, EntityReference::EUID(_)) => Formula::FALSE,
            Scope::Eq(_) | Scope::In(_) | Scope::IsIn(..) => {
                return Err(self
                    .error(None, "only ?principal can be filled in".into())
                    .help("name the resource itself")
                    .into());
            }
        };
        match template.non_scope_constraints() {
            Some(condition) if scope != Formula::FALSE => Ok(scope.and(self.formula(condition)?)),
            _ => Ok(scope),
        }
    }

    fn subject_is(&self, subject: &str, uid: &EntityUID) -> bool {
        is_subject(subject, uid)
    }

    fn subject_in(&self, subject: &str, uid: &EntityUID) -> bool {
        self.names.is_in(subject, uid)
    }

    fn error(&self, expr: Option<&Expr>, message: String) -> Diagnostic {
        self.policy.error("not-exact", expr.and_then(Expr::source_loc), message)
    }

    fn fail<T>(&self, expr: &Expr, message: impl Into<String>, help: impl Into<String>) -> Result<T> {
        Err(self.error(Some(expr), message.into()).help(help).into())
    }

    fn atom(&mut self, atom: Atom, expr: Option<&cedar_policy_core::parser::Loc>) -> Formula {
        let policy = self.policy;
        Formula::Atom(self.atoms.intern(atom, || policy.error("not-exact", expr, String::new())))
    }

    fn formula(&mut self, expr: &Expr) -> Result<Formula> {
        match self.term(expr)? {
            Term::Bool(formula) => Ok(formula),
            _ => self.fail(expr, "this is not a condition", "compare it with a constant"),
        }
    }

    fn term(&mut self, expr: &Expr) -> Result<Term> {
        Ok(match expr.expr_kind() {
            ExprKind::Lit(Literal::Bool(value)) => Term::Bool(Formula::Const(*value)),
            ExprKind::Lit(Literal::Long(number)) => Term::Long(*number),
            ExprKind::Lit(Literal::String(text)) => Term::Text(text.to_string()),
            ExprKind::Lit(Literal::EntityUID(uid)) => Term::Entity((**uid).clone()),
            ExprKind::Var(Var::Principal) => Term::Subject(self.subject.to_owned()),
            ExprKind::Var(Var::Action) => match format!("Guard::Action::\"{}\"", self.action).parse() {
                Ok(uid) => Term::Entity(uid),
                Err(_) => return self.fail(expr, "this action has no name", "name actions in the scope"),
            },
            ExprKind::Var(Var::Resource) => Term::Resource,
            ExprKind::Var(Var::Context) => Term::Context,
            ExprKind::If { test_expr, then_expr, else_expr } => match self.formula(test_expr)? {
                Formula::Const(true) => return self.term(then_expr),
                Formula::Const(false) => return self.term(else_expr),
                test => match (self.term(then_expr)?, self.term(else_expr)?) {
                    (Term::Bool(yes), Term::Bool(no)) => {
                        Term::Bool(test.clone().and(yes).or(test.not().and(no)))
                    }
                    (yes, no) => Term::Choice(test, Box::new(yes), Box::new(no)),
                },
            },
            // Like Cedar, the right side is not looked at when the left side decides.
            ExprKind::And { left, right } => Term::Bool(match self.formula(left)? {
                Formula::Const(false) => Formula::FALSE,
                left => left.and(self.formula(right)?),
            }),
            ExprKind::Or { left, right } => Term::Bool(match self.formula(left)? {
                Formula::Const(true) => Formula::TRUE,
                left => left.or(self.formula(right)?),
            }),
            ExprKind::UnaryApp { op: UnaryOp::Not, arg } => Term::Bool(self.formula(arg)?.not()),
            ExprKind::UnaryApp { op: UnaryOp::Neg, arg } => match self.term(arg)? {
                Term::Long(number) if number != i64::MIN => Term::Long(-number),
                _ => return self.fail(expr, "only constants can be negated", "write the number itself"),
            },
            ExprKind::UnaryApp { op: UnaryOp::IsEmpty, arg } => match self.term(arg)? {
                Term::Set(items) => Term::Bool(Formula::Const(items.is_empty())),
                Term::Names(Named::Leases) => Term::Bool(self.condition(Test::NoLease, expr)),
                Term::Names(Named::Windows) => Term::Bool(self.condition(Test::NoWindow, expr)),
                Term::Signers(Some(keys)) => Term::Bool(Formula::Const(keys.is_empty())),
                Term::Signers(None) => Term::Bool(self.atom(Atom::SignedBy(None), expr.source_loc()).not()),
                _ => return self.fail(expr, "isEmpty() works on sets", "name the set"),
            },
            ExprKind::BinaryApp { op, arg1, arg2 } => return self.binary(expr, *op, arg1, arg2),
            ExprKind::GetAttr { expr: of, attr } => return self.attribute(expr, of, attr),
            ExprKind::HasAttr { expr: of, attr } => Term::Bool(self.has(expr, of, attr)?),
            ExprKind::ExtHasAttr { expr: of, attrs } => {
                let path: Vec<&str> = attrs.iter().map(|attr| attr.as_str()).collect();
                Term::Bool(self.has_nested(expr, of, &path)?)
            }
            ExprKind::Like { expr: of, pattern } => return self.like(expr, of, pattern),
            ExprKind::Is { expr: of, entity_type } => {
                let wanted = entity_type.to_string();
                Term::Bool(Formula::Const(match self.term(of)? {
                    Term::Resource => wanted == self.kind.entity_type(),
                    Term::Subject(_) | Term::Peer(_) => wanted == "Guard::Subject",
                    Term::Entity(uid) => uid.entity_type().to_string() == wanted,
                    _ => return self.fail(expr, "`is` works on entities", "write `resource is …`"),
                }))
            }
            ExprKind::Set(items) => {
                Term::Set(items.iter().map(|item| self.term(item)).collect::<Result<_>>()?)
            }
            ExprKind::ExtensionFunctionApp { fn_name, .. } => {
                let help = match fn_name.to_string().as_str() {
                    "ip" | "isIpv4" | "isIpv6" | "isLoopback" | "isMulticast" | "isInRange" => {
                        "write `resource in Guard::Net::\"10.0.0.0/8\"`"
                    }
                    "datetime" | "duration" | "offset" | "durationSince" | "toDate" | "toTime" => {
                        "declare a change window in guard.toml and write `context.windows.contains(\"NAME\")`"
                    }
                    _ => "compare with integers and strings",
                };
                return self.fail(
                    expr,
                    format!("the function {fn_name} has no counterpart in the kernel"),
                    help,
                );
            }
            ExprKind::Slot(_) | ExprKind::Unknown(_) | ExprKind::Record(_) => {
                return self.fail(expr, "this has no counterpart in the kernel", "compare single values");
            }
        })
    }

    fn binary(&mut self, expr: &Expr, op: BinaryOp, left: &Expr, right: &Expr) -> Result<Term> {
        let (a, b) = (self.term(left)?, self.term(right)?);
        self.operation(expr, op, a, (right, b)).map(Term::Bool)
    }

    /// An operation on two terms. With an alternative on one side, the result is an alternative.
    fn operation(
        &mut self,
        expr: &Expr,
        op: BinaryOp,
        a: Term,
        (right, b): (&Expr, Term),
    ) -> Result<Formula> {
        match (a, b) {
            (Term::Choice(test, yes, no), b) => {
                let yes = self.operation(expr, op, *yes, (right, b.clone()))?;
                let no = self.operation(expr, op, *no, (right, b))?;
                Ok(test.clone().and(yes).or(test.not().and(no)))
            }
            (a, Term::Choice(test, yes, no)) => {
                let yes = self.operation(expr, op, a.clone(), (right, *yes))?;
                let no = self.operation(expr, op, a, (right, *no))?;
                Ok(test.clone().and(yes).or(test.not().and(no)))
            }
            (a, b) => self.simple(expr, op, a, (right, b)),
        }
    }

    fn simple(&mut self, expr: &Expr, op: BinaryOp, a: Term, (right, b): (&Expr, Term)) -> Result<Formula> {
        Ok(match op {
            BinaryOp::Eq => self.equal(expr, a, b)?,
            BinaryOp::Less => self.less(expr, a, b)?,
            BinaryOp::LessEq => self.less(expr, b, a)?.not(),
            BinaryOp::In => match b {
                Term::Set(items) => {
                    let one = |item| self.within(expr, &a, item);
                    Formula::any(items.into_iter().map(one).collect::<Result<_>>()?)
                }
                b => self.within(expr, &a, b)?,
            },
            BinaryOp::Contains => self.contains(expr, right, &a, b)?,
            BinaryOp::ContainsAll | BinaryOp::ContainsAny => {
                let Term::Set(items) = b else {
                    return self.fail(
                        right,
                        "the right side must be a set of constants",
                        "write them out: [\"a\", \"b\"]",
                    );
                };
                let all = op == BinaryOp::ContainsAll;
                let one = |item| self.contains(expr, right, &a, item);
                let found = items.into_iter().map(one).collect::<Result<_>>()?;
                if all { Formula::all(found) } else { Formula::any(found) }
            }
            BinaryOp::Add | BinaryOp::Sub | BinaryOp::Mul => {
                return self.fail(
                    expr,
                    "arithmetic can overflow, which would be an error at every decision",
                    "compute the constant and write it",
                );
            }
            BinaryOp::GetTag | BinaryOp::HasTag => {
                return self.fail(
                    expr,
                    "tags have no counterpart in the kernel",
                    "use an attribute of the schema",
                );
            }
        })
    }

    fn equal(&mut self, expr: &Expr, a: Term, b: Term) -> Result<Formula> {
        Ok(match (a, b) {
            (Term::Bool(a), Term::Bool(b)) => a.clone().and(b.clone()).or(a.not().and(b.not())),
            (Term::Long(a), Term::Long(b)) => Formula::Const(a == b),
            (Term::Text(a), Term::Text(b)) => Formula::Const(a == b),
            (Term::Entity(a), Term::Entity(b)) => Formula::Const(a == b),
            (Term::Subject(a), Term::Subject(b)) => Formula::Const(a == b),
            (Term::Subject(a), Term::Entity(b)) | (Term::Entity(b), Term::Subject(a)) => {
                Formula::Const(self.subject_is(&a, &b))
            }
            (Term::Resource, Term::Resource) => Formula::TRUE,
            (Term::Resource, Term::Entity(uid)) | (Term::Entity(uid), Term::Resource) => {
                self.resource_is(&uid)?
            }
            (Term::Resource, Term::Subject(_) | Term::Peer(_))
            | (Term::Subject(_) | Term::Peer(_), Term::Resource) => Formula::FALSE,
            (Term::Peer(a), Term::Peer(b)) if a == b => Formula::TRUE,
            (Term::Peer(peer), Term::Subject(name)) | (Term::Subject(name), Term::Peer(peer)) => {
                self.peer_is(expr, peer, &name)
            }
            (Term::Peer(peer), Term::Entity(uid)) | (Term::Entity(uid), Term::Peer(peer)) => {
                self.peer_in(expr, peer, &uid, false)
            }
            (Term::Fact(fact), Term::Long(n)) | (Term::Long(n), Term::Fact(fact)) => {
                self.condition(Test::Is(fact, FactValue::Long(n)), expr)
            }
            (Term::Fact(fact), Term::Text(text)) | (Term::Text(text), Term::Fact(fact)) => {
                self.condition(Test::Is(fact, FactValue::String(text)), expr)
            }
            (Term::Fact(a), Term::Fact(b)) => self.condition(Test::Same(a, b), expr),
            (Term::Raw(_), Term::Fact(_)) | (Term::Fact(_), Term::Raw(_)) => {
                return self.fail(
                    expr,
                    "the kernel cannot compare an attribute with a fact",
                    "compare each of them with constants: `resource.owner == 1000 && context.posture.uid == 1000`",
                );
            }
            (Term::Raw(raw), Term::Long(n)) | (Term::Long(n), Term::Raw(raw)) => match raw {
                Raw::Port => {
                    u16::try_from(n).map_or(Formula::FALSE, |n| self.atom(Atom::PortIs(n), expr.source_loc()))
                }
                Raw::Owner => u32::try_from(n).map_or(Formula::FALSE, |n| {
                    self.atom(Atom::attribute(Attribute::Owner, n.into()), expr.source_loc())
                }),
                _ => return self.fail(expr, "these cannot be equal", "compare with a string"),
            },
            (Term::Raw(raw), Term::Text(text)) | (Term::Text(text), Term::Raw(raw)) => {
                self.raw_is(expr, raw, &text)?
            }
            (Term::Names(named), _) | (_, Term::Names(named)) => {
                let help = match named {
                    Named::Leases => "write `context.leases.contains(\"NAME\")`",
                    Named::Windows => "write `context.windows.contains(\"NAME\")`",
                };
                return self.fail(expr, ONE_NAME, help);
            }
            (Term::Signers(_), _) | (_, Term::Signers(_)) => {
                return self.fail(expr, ONE_NAME, "write `resource.signed_by.contains(\"NAME\")`");
            }
            _ => {
                return self.fail(
                    expr,
                    "the kernel cannot compare these two",
                    "compare one attribute of the resource with a constant",
                );
            }
        })
    }

    /// The peer is this subject. `principal` is one test for all subjects, so that a bundle may have more
    /// subjects than the kernel has tests.
    fn peer_is(&mut self, expr: &Expr, peer: Attribute, name: &str) -> Formula {
        let atom = if name == self.subject { Atom::attribute(peer, OWN) } else { Atom::subject(peer, name) };
        self.atom(atom, expr.source_loc())
    }

    /// The peer is this entity, or belongs to it if `within`.
    fn peer_in(&mut self, expr: &Expr, peer: Attribute, uid: &EntityUID, within: bool) -> Formula {
        match uid.entity_type().to_string().as_str() {
            "Guard::Subject" => self.atom(Atom::subject(peer, eid(uid)), expr.source_loc()),
            "Guard::Group" if within => {
                let names = self.names;
                let members =
                    names.groups.iter().filter(|(_, groups)| groups.iter().any(|it| it == eid(uid)));
                let one = |(name, _): (&String, _)| self.atom(Atom::subject(peer, name), expr.source_loc());
                Formula::any(members.map(one).collect())
            }
            _ => Formula::FALSE,
        }
    }

    fn raw_is(&mut self, expr: &Expr, raw: Raw, text: &str) -> Result<Formula> {
        let atom = match raw {
            Raw::Name => match literals::exact_name(text) {
                Ok(atom) => atom,
                Err((message, help)) => return self.fail(expr, message, help),
            },
            Raw::Protocol => match literals::protocol(text) {
                Some(number) => Atom::attribute(Attribute::Protocol, number),
                None => {
                    return self.fail(
                        expr,
                        format!("there is no protocol \"{text}\""),
                        literals::PROTOCOLS_HELP,
                    );
                }
            },
            Raw::Kind if self.kind == Kind::Unix => {
                return self.fail(
                    expr,
                    "the kind of a unix socket is not in this version",
                    "remove the comparison; unix.connect is for stream sockets, unix.send for datagrams",
                );
            }
            Raw::Kind => match literals::file_kind(text) {
                Some(format) => Atom::attribute(Attribute::Kind, format),
                None => {
                    return self.fail(
                        expr,
                        format!("there is no kind of file \"{text}\""),
                        literals::KINDS_HELP,
                    );
                }
            },
            Raw::Port | Raw::Owner => {
                return self.fail(expr, "these cannot be equal", "compare with a number");
            }
        };
        Ok(self.atom(atom, expr.source_loc()))
    }

    /// `a < b`
    fn less(&mut self, expr: &Expr, a: Term, b: Term) -> Result<Formula> {
        match (a, b) {
            (Term::Long(a), Term::Long(b)) => Ok(Formula::Const(a < b)),
            (Term::Fact(fact), Term::Long(bound)) => Ok(self.condition(Test::Below(fact, bound), expr)),
            (Term::Long(bound), Term::Fact(fact)) => Ok(match bound.checked_add(1) {
                Some(next) => self.condition(Test::Below(fact, next), expr).not(),
                None => Formula::FALSE,
            }),
            (Term::Fact(a), Term::Fact(b)) => Ok(self.condition(Test::Less(a, b), expr)),
            (Term::Raw(Raw::Port), Term::Long(bound)) => Ok(self.port_from(expr, bound).not()),
            (Term::Long(bound), Term::Raw(Raw::Port)) => Ok(self.port_from(expr, bound.saturating_add(1))),
            (Term::Raw(Raw::Owner), _) | (_, Term::Raw(Raw::Owner)) => self.fail(
                expr,
                "owners can only be compared with ==",
                "write `resource.owner == 1000 || resource.owner == 1001`",
            ),
            _ => self.fail(
                expr,
                "the kernel cannot compare these two",
                "only resource.port and numbers of the context have an order",
            ),
        }
    }

    fn port_from(&mut self, expr: &Expr, bound: i64) -> Formula {
        match u16::try_from(bound) {
            _ if bound <= 0 => Formula::TRUE,
            Ok(port) => self.atom(Atom::PortFrom(port), expr.source_loc()),
            Err(_) => Formula::FALSE,
        }
    }

    fn within(&mut self, expr: &Expr, a: &Term, b: Term) -> Result<Formula> {
        match (a, b) {
            (Term::Resource, Term::Entity(uid)) => self.resource_in(&uid),
            (Term::Resource, Term::Subject(_) | Term::Peer(_)) => Ok(Formula::FALSE),
            (Term::Peer(peer), Term::Entity(uid)) => Ok(self.peer_in(expr, *peer, &uid, true)),
            (Term::Peer(peer), Term::Subject(name)) => Ok(self.peer_is(expr, *peer, &name)),
            (Term::Subject(name), Term::Peer(peer)) => Ok(self.peer_is(expr, peer, name)),
            (Term::Entity(uid), Term::Peer(peer)) => Ok(self.peer_in(expr, peer, uid, false)),
            (Term::Peer(a), Term::Peer(b)) if *a == b => Ok(Formula::TRUE),
            (Term::Subject(subject), Term::Entity(uid)) => Ok(Formula::Const(self.subject_in(subject, &uid))),
            (Term::Subject(a), Term::Subject(b)) => Ok(Formula::Const(*a == b)),
            (Term::Entity(a), Term::Subject(b)) => Ok(Formula::Const(self.subject_is(&b, a))),
            (Term::Entity(a), Term::Entity(b)) => Ok(Formula::Const(match (a.is_action(), b.is_action()) {
                (true, true) => {
                    let group = action::expand(eid(&b)).unwrap_or(0);
                    a == &b || action::expand(eid(a)).is_some_and(|bits| bits & group == bits)
                }
                _ if a.entity_type().to_string() == "Guard::Subject" => self.subject_in(eid(a), &b),
                _ => a == &b,
            })),
            _ => self.fail(
                expr,
                "the kernel cannot tell this membership",
                "write `resource in Guard::Dir::\"/path\"`",
            ),
        }
    }

    fn contains(&mut self, expr: &Expr, right: &Expr, set: &Term, item: Term) -> Result<Formula> {
        match (set, item) {
            (Term::Set(items), item) => {
                let one = |candidate: &Term| self.equal(expr, candidate.clone(), item.clone());
                Ok(Formula::any(items.iter().map(one).collect::<Result<_>>()?))
            }
            (Term::Names(named), Term::Text(name)) => {
                let (what, section, declared) = match named {
                    Named::Leases => ("approval", "approvals", self.names.approvals),
                    Named::Windows => ("window", "windows", self.names.windows),
                };
                if !declared.contains(&name) {
                    return self.fail(
                        right,
                        format!("guard.toml declares no {what} \"{name}\""),
                        format!("add it to [{section}]"),
                    );
                }
                Ok(self.named(*named, name, expr))
            }
            (Term::Names(named), Term::Fact(fact)) => {
                let declared = match named {
                    Named::Leases => self.names.approvals,
                    Named::Windows => self.names.windows,
                };
                let one = |name: &String| {
                    let is = self.condition(Test::Is(fact.clone(), FactValue::String(name.clone())), expr);
                    is.and(self.named(*named, name.clone(), expr))
                };
                Ok(Formula::any(declared.iter().map(one).collect()))
            }
            (Term::Signers(Some(keys)), Term::Text(name)) => Ok(Formula::Const(keys.contains(&name))),
            (Term::Signers(None), Term::Text(name)) => {
                Ok(self.atom(Atom::SignedBy(Some(name)), expr.source_loc()))
            }
            _ => self.fail(
                expr,
                "the kernel cannot look into this set",
                "write a set of constants, or context.leases.contains(\"name\")",
            ),
        }
    }

    fn attribute(&mut self, expr: &Expr, of: &Expr, attribute: &str) -> Result<Term> {
        let flag = |this: &mut Self, attribute| {
            Term::Bool(this.atom(Atom::attribute(attribute, 1), expr.source_loc()))
        };
        Ok(match (self.term(of)?, attribute) {
            (Term::Resource, "name") => Term::Raw(Raw::Name),
            (Term::Resource, "port") => Term::Raw(Raw::Port),
            (Term::Resource, "owner") => Term::Raw(Raw::Owner),
            (Term::Resource, "kind") => Term::Raw(Raw::Kind),
            (Term::Resource, "protocol") => Term::Raw(Raw::Protocol),
            (Term::Resource, "set_id") => flag(self, Attribute::SetId),
            (Term::Resource, "fileless") => flag(self, Attribute::Fileless),
            (Term::Resource, "abstract") => flag(self, Attribute::Abstract),
            (Term::Resource, "signed_by") => Term::Signers(self.world.signed_by.clone()),
            (Term::Resource, "subject") => Term::Peer(Attribute::Subject),
            (Term::Resource, "listener") => match self.world.listener(self.kind) {
                None => Term::Peer(Attribute::Listener),
                Some(Peer::Subject(name)) => Term::Subject(name.clone()),
                Some(Peer::Unlabelled) => {
                    return self.fail(
                        expr,
                        "this attribute may be absent",
                        "test `resource has listener` first",
                    );
                }
            },
            (Term::Context, "posture") => Term::Posture,
            (Term::Context, "leases") => Term::Names(Named::Leases),
            (Term::Context, "windows") => Term::Names(Named::Windows),
            (Term::Context, "session") => {
                return self.fail(
                    expr,
                    "sessions are not in this version",
                    "remove the condition on context.session",
                );
            }
            (Term::Posture, fact) => match self.world.assumed.get(fact).or(self.names.facts.get(fact)) {
                Some(FactValue::Bool(_)) if !self.world.assumed.contains_key(fact) => {
                    Term::Bool(self.condition(Test::Is(fact.to_owned(), FactValue::Bool(true)), expr))
                }
                Some(_) if !self.world.assumed.contains_key(fact) => Term::Fact(fact.to_owned()),
                Some(FactValue::Long(number)) => Term::Long(*number),
                Some(FactValue::String(text)) => Term::Text(text.clone()),
                Some(FactValue::Bool(value)) => Term::Bool(Formula::Const(*value)),
                None => {
                    return self.fail(
                        expr,
                        format!("there is no fact {fact}"),
                        "add it to [facts] of guard.toml",
                    );
                }
            },
            (_, other) => {
                return self.fail(
                    expr,
                    format!("the kernel does not know the attribute {other}"),
                    "docs/schema.md lists what it knows",
                );
            }
        })
    }

    fn has(&mut self, expr: &Expr, of: &Expr, attribute: &str) -> Result<Formula> {
        let of = self.term(of)?;
        self.term_has(expr, &of, attribute)
    }

    fn term_has(&mut self, expr: &Expr, of: &Term, attribute: &str) -> Result<Formula> {
        Ok(Formula::Const(match of {
            Term::Posture if self.world.assumed.contains_key(attribute) => true,
            Term::Posture => return Ok(self.condition(Test::Present(attribute.to_owned()), expr)),
            Term::Context => matches!(attribute, "posture" | "leases" | "windows" | "session"),
            Term::Resource => match (attribute, self.kind) {
                ("listener", Kind::Endpoint | Kind::Unix) => match self.world.listener(self.kind) {
                    None => return Ok(self.present(Attribute::Listener, expr)),
                    Some(Peer::Subject(_)) => true,
                    Some(Peer::Unlabelled) => false,
                },
                ("subject", Kind::Process) => return Ok(self.present(Attribute::Subject, expr)),
                ("name" | "kind", kind) => kind.has_path(),
                ("owner", kind) => matches!(kind, Kind::File | Kind::Dir),
                ("set_id" | "fileless" | "signed_by", kind) => kind == Kind::File,
                ("port" | "protocol", kind) => kind == Kind::Endpoint,
                ("abstract", kind) => kind == Kind::Unix,
                _ => false,
            },
            Term::Subject(_) | Term::Peer(_) | Term::Entity(_) => false,
            _ => return self.fail(expr, "`has` works on resource and context", "remove the test"),
        }))
    }

    /// `of has a.b.c`
    fn has_nested(&mut self, expr: &Expr, of: &Expr, path: &[&str]) -> Result<Formula> {
        match (self.term(of)?, path) {
            (of, [attribute]) => self.term_has(expr, &of, attribute),
            (Term::Context, ["posture", fact]) => self.term_has(expr, &Term::Posture, fact),
            _ => self.fail(expr, "this test is nested too deeply", "test one attribute at a time"),
        }
    }

    fn present(&mut self, attribute: Attribute, expr: &Expr) -> Formula {
        self.atom(Atom::attribute(attribute, PRESENT), expr.source_loc())
    }

    fn condition(&mut self, test: Test, expr: &Expr) -> Formula {
        self.atom(Atom::Condition(test), expr.source_loc())
    }

    fn named(&mut self, named: Named, name: String, expr: &Expr) -> Formula {
        let test = match named {
            Named::Leases => Test::Lease(name),
            Named::Windows => Test::Window(name),
        };
        self.condition(test, expr)
    }

    fn like(&mut self, expr: &Expr, of: &Expr, pattern: &Pattern) -> Result<Term> {
        let of = self.term(of)?;
        self.term_like(expr, of, pattern).map(Term::Bool)
    }

    fn term_like(&mut self, expr: &Expr, of: Term, pattern: &Pattern) -> Result<Formula> {
        let elements = || -> Vec<Option<char>> {
            let element = |element: &PatternElem| match element {
                PatternElem::Char(c) => Some(*c),
                PatternElem::Wildcard => None,
            };
            pattern.iter().map(element).collect()
        };
        match of {
            Term::Text(text) => Ok(Formula::Const(pattern.wildcard_match(&text))),
            Term::Fact(fact) => Ok(self.condition(Test::Like(fact, elements()), expr)),
            Term::Choice(test, yes, no) => {
                let (yes, no) = (self.term_like(expr, *yes, pattern)?, self.term_like(expr, *no, pattern)?);
                Ok(test.clone().and(yes).or(test.not().and(no)))
            }
            Term::Raw(Raw::Name) => match literals::name_pattern(&elements()) {
                Ok(None) => Ok(Formula::TRUE),
                Ok(Some(atom)) => Ok(self.atom(atom, expr.source_loc())),
                Err((message, help)) => self.fail(expr, message, help),
            },
            _ => self.fail(
                expr,
                "the kernel can match patterns only on resource.name",
                "write `resource.name like \"prefix*\"`",
            ),
        }
    }

    /// `resource == uid`
    fn resource_is(&mut self, uid: &EntityUID) -> Result<Formula> {
        if uid.entity_type().to_string() != self.kind.entity_type() {
            return Ok(Formula::FALSE);
        }
        self.literal(uid, false)
    }

    /// `resource in uid`
    fn resource_in(&mut self, uid: &EntityUID) -> Result<Formula> {
        let kind = uid.entity_type().to_string();
        match kind.as_str() {
            "Guard::Dir" | "Guard::Name" if self.kind.has_path() => self.literal(uid, true),
            "Guard::Net" | "Guard::DnsName" if self.kind == Kind::Endpoint => self.literal(uid, true),
            _ => self.resource_is(uid),
        }
    }

    fn literal(&mut self, uid: &EntityUID, within: bool) -> Result<Formula> {
        match literals::atom(uid, within, self.session) {
            Ok(atom) => {
                let atom = if self.own_root { places::in_own_root(atom) } else { atom };
                Ok(self.atom(atom, uid.loc()))
            }
            Err((message, help)) => {
                let message = format!("{}: {message}", uid.entity_type());
                Err(self.policy.error("literal", uid.loc(), message).help(help).into())
            }
        }
    }
}
