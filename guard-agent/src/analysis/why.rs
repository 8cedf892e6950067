//! Why an event came about: the policies that decided, by Cedar over the bundle of that time.
//!
//! The kernel's features of the resource say which attribute tests held at the moment of the operation,
//! so the request is put together from the event alone: the file may have changed since. While the
//! tables that decided are live, their index names the policies from class and features alone: also
//! where the event does not say enough to ask Cedar, and however the host has changed.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use guard_common::action::{Action, Resource as Kind};
use guard_common::class::{ANONYMOUS_MEMORY, FIRST_COMPILED, KERNEL, UNKNOWN, protocol_name};
use guard_common::decide::Reason;
use guard_common::tables::{Attribute, AttributeTest, Attributes};
use serde::Serialize;

use super::can::{Finding, Named, can, signers};
use super::question::Question;
use crate::events::Record;
use crate::host::Host;
use crate::policy::{
    Bundle, Deciding, Diagnostic, Facts, Oracle, Request, Resource, Spot, file_kind, protocol,
};

/// Why an event came about.
#[derive(Clone, Debug, Serialize)]
pub struct Why {
    /// One answer for each action of the event.
    pub decisions: Vec<Finding>,
    /// Cedar over the bundle as this host compiles it now gives the verdict that the kernel gave, for the
    /// policies that the index names.
    pub agrees: bool,
}

/// What the tables that decided say of an action, as long as they are live.
pub type Index<'a> = &'a dyn Fn(Action) -> Option<Deciding>;

/// What a reason other than policy means, in a sentence; nothing for policy.
pub fn internal_reason(reason: &str) -> Option<&'static str> {
    let known = Reason::ALL.into_iter().find(|known| known.name() == reason)?;
    Some(match known {
        Reason::Policy => return None,
        Reason::NoGeneration => {
            "no policy was live at that instant, and a labelled process is denied everything then"
        }
        Reason::SubjectRemoved => {
            "the policy did not define the subject of this process any more; everything is denied to it \
             until the process ends or a policy defines the subject again"
        }
        Reason::TableMiss => "a table had no entry where one must be: a fault of Guard, please report it",
        Reason::PathTooDeep => "the path has more than 4096 directories above it, more than Guard follows",
        Reason::PathUnstable => {
            "the path was being renamed while it was read, three times in a row; trying again helps"
        }
        Reason::Unreadable => "the kernel memory that describes the resource could not be read",
        Reason::StorageBusy => "the kernel did not hand out the label at that instant; trying again helps",
        Reason::NoMemory => "the kernel had no memory for the label of a new process",
        Reason::MoreRights => {
            "under its new name the file would have rights that it does not have under the old one; mv copies instead, which is decided as what it is"
        }
        Reason::UnsafeExec => {
            "this program makes its caller a subject with more rights, which is refused to a process that is traced, that \
             shares its directories with another one, that gave up gaining rights (no_new_privs) or that lies in a user \
             namespace of its own, and to scripts"
        }
        Reason::UntrustedFile => {
            "this program makes its caller a subject with more rights, which takes a regular file of root with one name that \
             nobody else may write, on a file system that no subject made"
        }
        Reason::Quarantine => {
            "the subject, or the session, is in quarantine, which counts before every policy: `guardctl quarantine list` \
             says since when and why, and a responder lifts it with `guardctl release`"
        }
        Reason::LeaseSpent => {
            "only a lease of which every use is counted would allow it, and its uses are spent; ask for another one"
        }
        Reason::SignersUnknown => {
            "it depends on who signed the file, and that cannot be told: it is a script, or larger than 256 MiB, or lies on \
             a file system whose files can change while they run, or this kernel takes no SHA-256 digests (CONFIG_IMA)"
        }
        Reason::LeaseUsed => "only a lease allowed it, and this was one of the uses that it has",
        Reason::OutcomesChanging => {
            "what the subject may do was replaced again and again while it was looked up"
        }
    })
}

/// Says why events came about under one bundle.
pub struct Explainer<'a> {
    bundle: &'a Bundle,
    oracle: Oracle<'a>,
    tests: &'a [AttributeTest],
    /// Values of session variables, and who signed what was executed.
    facts: &'a Facts,
}

impl<'a> Explainer<'a> {
    /// For `bundle` on `host`, with the session variables of `facts`. `tests` are the attribute tests of the tables that decided.
    ///
    /// # Errors
    /// If the bundle no longer compiles here.
    pub fn new(
        bundle: &'a Bundle,
        tests: &'a [AttributeTest],
        host: &'a Host,
        facts: &'a Facts,
    ) -> Result<Self, Diagnostic> {
        let oracle = Oracle::new(bundle, host, facts).map_err(|errors| {
            Diagnostic::error(
                "bundle",
                format!("the bundle does not compile on this host any more:\n{errors}"),
            )
        })?;
        Ok(Self { bundle, oracle, tests, facts })
    }

    /// Why `record` came about under the bundle.
    ///
    /// # Errors
    /// If neither the event nor `index` says enough.
    pub fn why(&self, record: &Record, index: Index<'_>) -> Result<Why, Diagnostic> {
        let subject = subject(record)?;
        let mut decisions = Vec::new();
        let mut agrees = true;
        // The kernel reports the actions that were denied. A denial by the enforced set is one by the
        // candidate set as well, so either way Cedar must deny; and what is audited, or there for the sake
        // of a shadow, it must allow.
        let wanted = !matches!(record.verdict.as_str(), "audited" | "shadow_deny");
        for name in &record.actions {
            let action = record.resource.action(name).ok_or_else(|| incomplete("its action is not known"))?;
            let indexed = index(action).map(|deciding| self.by_index(record, subject, name, &deciding));
            let finding = match (self.asked(record, name), indexed) {
                (Ok(asked), None) => asked,
                (Ok(mut asked), Some(indexed)) => {
                    let ids = |finding: &Finding| -> Vec<String> {
                        finding.policies.iter().map(|policy| policy.id.clone()).collect()
                    };
                    agrees &= ids(&asked) == ids(&indexed);
                    asked.policies = indexed.policies;
                    asked
                }
                (Err(_), Some(indexed)) => indexed,
                (Err(error), None) => return Err(error),
            };
            agrees &= denies(&finding) == wanted;
            decisions.push(self.placed(finding));
        }
        Ok(Why { decisions, agrees })
    }

    /// What the bundle says of `record` if it is the shadow that stood beside then, and whether that is what
    /// the event says.
    ///
    /// # Errors
    /// If the event does not say enough to ask.
    pub fn by_shadow(&self, record: &Record) -> Result<(Vec<Finding>, bool), Diagnostic> {
        let shadow = record.shadow.as_ref().ok_or_else(|| incomplete("no shadow differs in it"))?;
        let decisions = shadow.actions.iter().map(|name| self.asked(record, name).map(|it| self.placed(it)));
        let decisions = decisions.collect::<Result<Vec<Finding>, Diagnostic>>()?;
        let as_said = |finding: &Finding| if shadow.allows() { finding.allowed } else { denies(finding) };
        let agrees = decisions.iter().all(as_said);
        Ok((decisions, agrees))
    }

    /// Whether the bundle allows every one of `actions` on what `record` is about, and the policies that
    /// decide: none for a denial by default, and where a subject is only monitored.
    ///
    /// # Errors
    /// If the event does not say enough to ask.
    pub fn deciding(&self, record: &Record, actions: &[String]) -> Result<(bool, Vec<Named>), Diagnostic> {
        let (mut allowed, mut policies) = (true, Vec::<Named>::new());
        for name in actions {
            let verdict = self.oracle.decide(&self.request(record, name)?)?;
            allowed &= verdict.allowed();
            if verdict.monitor && !verdict.enforced.allow {
                continue;
            }
            for policy in verdict.enforced.policies.iter().filter_map(|id| self.oracle.set.get(id)) {
                if policies.iter().all(|known| known.id != policy.id) {
                    policies.push(Named::of(policy));
                }
            }
        }
        policies.iter_mut().for_each(|policy| self.place(policy));
        Ok((allowed, policies))
    }

    /// What Cedar says of one action on what `record` is about.
    fn asked(&self, record: &Record, action: &str) -> Result<Finding, Diagnostic> {
        let request = self.request(record, action)?;
        can(self.bundle, &self.oracle, &Question { request, facts: self.facts.clone(), resolved: None })
    }

    fn request(&self, record: &Record, name: &str) -> Result<Request, Diagnostic> {
        let subject = subject(record)?.to_owned();
        let action = record.resource.action(name).ok_or_else(|| incomplete("its action is not known"))?;
        let (resource, mut attributes) = resource(record, action)?;
        restore(&mut attributes, record.features, self.tests);
        let listener = record.resource.listener.clone();
        Ok(Request { subject, action: name.to_owned(), resource, attributes, listener, within: Vec::new() })
    }

    /// What the index says, without what only Cedar can be asked: what would lift a denial.
    fn by_index(&self, record: &Record, subject: &str, action: &str, deciding: &Deciding) -> Finding {
        let Deciding { enforced, candidate } = deciding;
        let answer = if enforced.allow && !candidate.allow { candidate } else { enforced };
        Finding {
            subject: subject.to_owned(),
            action: action.to_owned(),
            resource: record.what(),
            resolved: None,
            allowed: record.verdict != "denied",
            errno: record.errno.clone(),
            would_deny: record.verdict == "would_deny",
            policies: answer
                .policies
                .iter()
                .filter_map(|id| self.oracle.set.get(id))
                .map(Named::of)
                .collect(),
            lifts: Vec::new(),
            nearest: None,
            signed_by: signers(self.facts),
            not_enforced: None,
        }
    }

    fn placed(&self, mut finding: Finding) -> Finding {
        let near = finding.nearest.iter_mut().map(|nearest| &mut nearest.policy);
        finding.policies.iter_mut().chain(near).for_each(|policy| self.place(policy));
        finding
    }

    /// Where the copy of the bundle lies tells nobody anything.
    fn place(&self, policy: &mut Named) {
        if let Some(file) = &mut policy.file
            && let Some(name) = file.strip_prefix(self.bundle.origin())
        {
            *file = name.to_owned();
        }
    }
}

fn subject(record: &Record) -> Result<&str, Diagnostic> {
    record.subject.as_deref().ok_or_else(|| incomplete("the name of its subject is not known"))
}

fn denies(finding: &Finding) -> bool {
    !finding.allowed || finding.would_deny
}

fn incomplete(why: &str) -> Diagnostic {
    Diagnostic::error("event", format!("the event does not say enough to ask the policy again: {why}"))
}

/// What the event is about, as a request names it, with what it says of the attributes.
fn resource(record: &Record, action: Action) -> Result<(Resource, Attributes), Diagnostic> {
    let seen = &record.resource;
    let mut attributes = Attributes::default();
    let kind = action.row().resource;
    let is_dir = kind == Kind::Dir;
    let resource = match kind {
        Kind::FileOrMemory if record.class == ANONYMOUS_MEMORY => Resource::Memory,
        Kind::File | Kind::Dir | Kind::FileOrMemory => {
            (attributes.owner, attributes.set_id, attributes.fileless) = (0, 0, 0);
            attributes.kind =
                file_kind(if is_dir { "directory" } else { "regular" }).unwrap_or(attributes.kind);
            let spot = spot(record)?;
            if is_dir { Resource::Dir(spot) } else { Resource::File(spot) }
        }
        Kind::Unix => {
            attributes.kind = file_kind("socket").unwrap_or(attributes.kind);
            Resource::Unix(spot(record)?)
        }
        Kind::Endpoint => {
            let address = seen.address.as_deref().and_then(|text| text.parse().ok());
            let address = address.ok_or_else(|| incomplete("it has no address"))?;
            let name = seen.protocol.as_deref().unwrap_or_default();
            let number = protocol(name).or_else(|| name.parse().ok());
            attributes.protocol = number.unwrap_or(attributes.protocol);
            Resource::Endpoint(address, seen.port.unwrap_or(0))
        }
        // What no policy can name has any name.
        Kind::Protocol => Resource::Protocol(protocol_name(record.class).unwrap_or("other").to_owned()),
        Kind::Machine if record.class == KERNEL => Resource::Kernel,
        Kind::Machine => Resource::Machine,
        Kind::Process => {
            let pid = seen.pid.ok_or_else(|| incomplete("it has no process"))?;
            Resource::Process { id: pid.to_string(), subject: seen.subject.clone() }
        }
        Kind::Capability => {
            let name = seen.capability.clone();
            Resource::Capability(name.ok_or_else(|| incomplete("it has no capability"))?)
        }
    };
    Ok((resource, attributes))
}

/// Where something with a path was.
fn spot(record: &Record) -> Result<Spot, Diagnostic> {
    let path = |bytes: Vec<u8>| PathBuf::from(OsString::from_vec(bytes));
    let cut = || incomplete("its path was too long to be reported whole");
    if record.class != UNKNOWN && record.class < FIRST_COMPILED {
        let class = record.class;
        return match record.fs_path_bytes() {
            Some(_) if record.resource.path_truncated => Err(cut()),
            Some(bytes) => Ok(Spot::Inside { class, path: path(bytes) }),
            None => Ok(Spot::Builtin(class)),
        };
    }
    if let Some(name) = record.abstract_name_bytes() {
        let name = String::from_utf8(name).map_err(|_| incomplete("the name of its socket is not UTF-8"))?;
        return Ok(Spot::Abstract(name));
    }
    if record.resource.path_truncated {
        return Err(cut());
    }
    if let Some(bytes) = record.path_bytes() {
        return Ok(Spot::Path(path(bytes)));
    }
    match (record.device(), record.fs_path_bytes()) {
        (Some(device), Some(bytes)) => Ok(Spot::Place { device, path: path(bytes) }),
        _ => Err(incomplete("it has no path")),
    }
}

/// Gives the attributes values for which exactly those tests hold that held in the kernel. What no
/// test asks for stays as it is.
fn restore(attributes: &mut Attributes, features: u64, tests: &[AttributeTest]) {
    for (number, candidates) in [
        (Attribute::Owner, &[0, 1, 65_534, 4_294_967_294][..]),
        (Attribute::Kind, &[0o100_000, 0o040_000, 0o140_000, 0o020_000, 0o060_000, 0o010_000, 0o120_000]),
        (Attribute::SetId, &[0, 1]),
        (Attribute::Fileless, &[0, 1]),
    ] {
        let asked = || tests.iter().filter(move |test| test.attribute == number as u32);
        let value = match number {
            Attribute::Owner => &mut attributes.owner,
            Attribute::Kind => &mut attributes.kind,
            Attribute::SetId => &mut attributes.set_id,
            _ => &mut attributes.fileless,
        };
        let held = |test: &&AttributeTest| features >> (test.bit & 63) & 1 == 1;
        if let Some(test) = asked().find(held) {
            *value = test.value;
            continue;
        }
        // None held: any value that none of them names.
        let free = |candidate: &u64| asked().all(|test| test.value != *candidate);
        let start = *value;
        let others = candidates.iter().copied().chain(2..);
        if let Some(other) = std::iter::once(start).chain(others.take(200)).find(free) {
            *value = other;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_but_policy_is_explained() {
        for reason in Reason::ALL {
            assert_eq!(internal_reason(reason.name()).is_none(), reason == Reason::Policy, "{reason:?}");
        }
        assert_eq!(internal_reason("unknown"), None);
    }

    #[test]
    fn attributes_are_what_the_kernel_saw() {
        let test =
            |attribute: Attribute, bit, value| AttributeTest { attribute: attribute as u32, bit, value };
        let tests = [
            test(Attribute::Owner, 0, 0),
            test(Attribute::Owner, 0, 33),
            test(Attribute::Owner, 1, 65_534),
            test(Attribute::Kind, 2, 0o100_000),
            test(Attribute::Fileless, 3, 1),
        ];
        let of = |features: u64| {
            let mut attributes =
                Attributes { owner: 0, kind: 0o100_000, set_id: 0, fileless: 0, ..Attributes::default() };
            restore(&mut attributes, features, &tests);
            let bits = tests.iter().fold(0, |bits, test| bits | test.feature(&attributes));
            assert_eq!(bits, features, "{attributes:?}");
            attributes
        };
        assert_eq!(of(0b0101).owner, 0);
        assert_eq!(of(0b0010).owner, 65_534);
        assert_eq!(of(0b1000).fileless, 1);
        let none = of(0);
        assert!(![0, 33, 65_534].contains(&none.owner) && none.kind != 0o100_000);
    }
}
