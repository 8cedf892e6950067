//! `[approvals]`: who may grant which lease, for how long, and who may not.

use std::collections::BTreeMap;
use std::time::Duration;

use guard_common::action::{Action, COUNTABLE, expand, names};
use toml::{Spanned, Value};

use super::diagnostics::{Diagnostic, Source};
use super::manifest::{Approval, Table, duration};

/// Who may approve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Approver {
    /// A user.
    User(String),
    /// Whoever is in a group.
    Group(String),
    /// The person for whom the session runs that asks.
    SessionHuman,
}

impl Approver {
    fn of(text: &str) -> Option<Self> {
        if text == "session.human" {
            return Some(Self::SessionHuman);
        }
        let (kind, name) = text.split_once(':')?;
        match kind {
            _ if name.is_empty() => None,
            "user" => Some(Self::User(name.to_owned())),
            "group" => Some(Self::Group(name.to_owned())),
            _ => None,
        }
    }
}

/// The rules of one lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApprovalRule {
    /// Who may approve.
    pub approvers: Vec<Approver>,
    /// How long it lasts at most.
    pub max: Duration,
    /// How many of them must.
    pub needed: usize,
    /// Whether whoever asks, or the session runs for, may not.
    pub not_requester: bool,
    /// How often it can be used at most, if that is limited.
    pub uses: Option<u32>,
    /// The actions of which each is a use, where uses are counted.
    pub counts: u64,
}

/// The rules, by name of the lease.
pub type ApprovalRules = BTreeMap<String, ApprovalRule>;

/// More uses than that need no count.
pub const MAX_USES: u32 = 1_000_000;
/// More approvers than that nobody finds.
const MAX_NEEDED: i64 = 10;

/// Reads and checks them.
pub(super) fn read(table: &Table<Approval>, toml: &Source, found: &mut Vec<Diagnostic>) -> ApprovalRules {
    let mut rules = ApprovalRules::new();
    for (name, approval) in table {
        let mut wrong = |at: &Spanned<String>, message: &str, help: &str| {
            found.push(toml.error("guard-toml", at.span(), message).help(help));
        };
        let max = duration(approval.max.get_ref());
        if max.is_none() {
            wrong(&approval.max, "this is not a duration", "write a number and s, m, h or d: \"30m\"");
        }
        let mut approvers = Vec::new();
        for text in &approval.approvers {
            match Approver::of(text.get_ref()) {
                Some(approver) => approvers.push(approver),
                None => wrong(
                    text,
                    "this names nobody",
                    "write \"user:NAME\", \"group:NAME\" or \"session.human\"",
                ),
            }
        }
        for text in &approval.not {
            if !matches!(text.get_ref().as_str(), "requester" | "case-opener") {
                wrong(
                    text,
                    "this names nobody",
                    "write \"requester\", or \"case-opener\", which is the same",
                );
            }
        }
        if let Some(uses) = approval.uses.as_ref().filter(|uses| !(1..=MAX_USES).contains(uses.get_ref())) {
            let message = "this is no number of uses";
            let help = "write how often it can be used, from 1 to 1000000";
            found.push(toml.error("guard-toml", uses.span(), message).help(help));
        }
        let mut needed = 1;
        let mut counts = Action::Exec.bit();
        if let Some(count) = &approval.count {
            let mut wrong = |message: &str, help: &str| {
                found.push(toml.error("guard-toml", count.span(), message).help(help));
            };
            match count.get_ref() {
                Value::Integer(number) if (1..=MAX_NEEDED).contains(number) => {
                    needed = usize::try_from(*number).unwrap_or(1);
                }
                Value::String(name) if Action::from_name(name).is_some() => {
                    counts = expand(name).unwrap_or(0);
                    let countable = COUNTABLE.iter().fold(0, |bits, action| bits | action.bit());
                    if counts & !countable != 0 {
                        let all: Vec<&str> = names(countable).collect();
                        let help = format!("it can be one of {}", all.join(", "));
                        wrong("uses of this action cannot be counted", &help);
                    }
                }
                Value::String(_) => wrong("this is not an action", "docs/actions.md lists them"),
                _ => wrong(
                    "this is neither an action nor a number of approvers",
                    "write what a use is, \"exec\", or how many must approve, from 1 to 10",
                ),
            }
        }
        rules.insert(
            name.get_ref().clone(),
            ApprovalRule {
                approvers,
                max: max.unwrap_or_default(),
                needed,
                not_requester: !approval.not.is_empty(),
                uses: approval.uses.as_ref().map(|uses| *uses.get_ref()),
                counts,
            },
        );
    }
    rules
}
