//! Who calls, and whether policy lets them.
//!
//! A caller of the admin socket is an account of this host: its process has no label, and its roles are those that the
//! agent's configuration gives it. A caller of the self-service socket that has a label is its subject. Root without a
//! label is not decided by policy: it could take the agent away.

use super::adopt::{Caller, human};
use super::leases;
use super::modes::Now;
use super::serve::Shared;
use super::windows::{self, Openings};
use super::{LeaseError, Person, labelling};
use crate::kernel::has_ended;
use crate::policy::verbs::{Below, Verb};
use crate::policy::{Facts, Gate, On, Principal, Ruling, Session};
use crate::roles::{ADMIN, Roles};
use nix::unistd::{Uid, User};
use std::os::fd::AsFd;
use std::sync::Arc;

/// Why somebody may not.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// Nobody knows who it is.
    #[error("the caller cannot be identified: {0}")]
    Unidentified(String),
    /// It has a label.
    #[error("the calling process is itself subject to policy and may not administer Guard")]
    Labelled,
    /// Something above it has one.
    #[error("a process above yours is subject to policy (pid {0}): do this from another terminal")]
    Below(i32),
    /// Nothing permits it.
    #[error("{who} may not ask for {action} on {on}: {holders}")]
    Missing {
        /// Who asks.
        who: String,
        /// The action.
        action: &'static str,
        /// On what.
        on: String,
        /// Roles that have the action.
        roles: Vec<String>,
        /// The same in words, and what to do.
        holders: String,
    },
    /// A policy forbids it.
    #[error("{who} may not ask for {action} on {on}: {policy} forbids it{}", .reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default())]
    Forbidden {
        /// Who asks.
        who: String,
        /// The action.
        action: &'static str,
        /// On what.
        on: String,
        /// The policy.
        policy: String,
        /// What its author says.
        reason: Option<String>,
    },
}

impl AccessError {
    /// The action that is missing, and the roles that have it.
    pub fn missing(&self) -> Option<(&'static str, &[String])> {
        match self {
            Self::Missing { action, roles, .. } => Some((action, roles)),
            Self::Forbidden { action, .. } => Some((action, &[])),
            Self::Unidentified(_) | Self::Labelled | Self::Below(_) => None,
        }
    }
}

/// A caller of the admin socket, known.
#[derive(Clone, Debug)]
pub struct Who {
    /// The process and its credentials.
    pub caller: Caller,
    /// As it is written down, still without what permits it.
    person: Person,
    principal: Principal,
    session: Session,
}

impl Who {
    /// Whether the host's administrator gave it a role.
    pub fn has_a_role(&self) -> bool {
        matches!(&self.principal, Principal::User { roles, .. } if !roles.is_empty())
    }
}

/// The permission to do something, with what is written down of it.
#[derive(Clone, Debug)]
#[must_use]
pub struct By {
    /// Who does it.
    pub person: Person,
    /// The process and its credentials.
    pub caller: Caller,
}

impl By {
    /// Who does it and what permits it, as it is written down.
    pub fn text(&self) -> &str {
        &self.person.text
    }
}

/// What is decided by: roles and the live bundle's gate.
#[derive(Clone)]
pub(super) struct Access {
    pub(super) gate: Arc<Gate>,
    roles: Arc<Roles>,
}

impl Access {
    /// What holds under a bundle.
    pub(super) fn new(gate: Gate, roles: Roles) -> Self {
        for role in roles.names().filter(|role| gate.verbs_of(role).is_empty()) {
            tracing::warn!("[roles] names {role}, and no policy permits anything to it");
        }
        Self { gate: Arc::new(gate), roles: Arc::new(roles) }
    }

    /// The principal of an account.
    fn user(&self, caller: &Caller) -> Principal {
        let roles = self.roles.of(caller.uid, caller.gid, &caller.groups);
        Principal::User { name: account(caller.uid), roles }
    }

    /// Who has an action, in words, and what to do about it.
    fn holders(&self, verb: Verb) -> (Vec<String>, String) {
        let roles = self.gate.roles_with(verb);
        let words = match roles.as_slice() {
            [] => "it is for root; no role has it".to_owned(),
            [one] => format!("it is for root and the role {one}"),
            many => format!("it is for root and the roles {}", many.join(", ")),
        };
        (roles, format!("{words} ([roles] in /etc/guard/agent.toml says who has which)"))
    }
}

/// The name of an account, or its number if it has none. A name that could be taken for a number is not used.
fn account(uid: u32) -> String {
    let name = User::from_uid(Uid::from_raw(uid)).ok().flatten().map(|user| user.name);
    name.filter(|name| name.parse::<u32>().is_err()).unwrap_or_else(|| uid.to_string())
}

/// Who a process is in words: the user, the one who had logged in, whom sudo does not change, and the terminal.
fn words(uid: u32, login: Option<u32>, tty: Option<&str>) -> String {
    let login = login.map(|login| format!(", logged in as uid {login}")).unwrap_or_default();
    let tty = tty.map(|tty| format!(" on {tty}")).unwrap_or_default();
    format!("uid {uid}{login}{tty}")
}

/// Who runs this process, in the same words.
pub(crate) fn this_process() -> String {
    let pid = std::process::id().cast_signed();
    words(Uid::current().as_raw(), human(pid), super::terminal_of(pid).as_deref())
}

impl Shared {
    /// Finds out who calls the admin socket. Blocks for as long as the account database takes.
    ///
    /// # Errors
    /// If the process carries a label or has ended.
    pub fn identify(&self, caller: Caller) -> Result<Who, AccessError> {
        let unknown = |error: &dyn std::fmt::Display| AccessError::Unidentified(error.to_string());
        if self.is_labelled(caller.process.as_fd()).map_err(|error| unknown(&error))? {
            tracing::warn!(pid = caller.pid, "a labelled process called the admin API and was refused");
            return Err(AccessError::Labelled);
        }
        let login = human(caller.pid);
        let tty = super::terminal_of(caller.pid);
        let exists = labelling::stat(caller.pid).is_some();
        // What was read by its number is about the process if that has not ended.
        match has_ended(caller.process.as_fd()) {
            Ok(false) if exists => {}
            Ok(_) => return Err(unknown(&"it has ended")),
            Err(error) => return Err(unknown(&error)),
        }
        let text = words(caller.uid, login, tty.as_deref());
        let human = login.map(|login| login.to_string()).unwrap_or_default();
        let session = Session { human, id: String::new(), tty: tty.is_some() };
        let principal = self.access().user(&caller);
        let person = Person { uid: caller.uid, login, pid: caller.pid, text };
        Ok(Who { caller, person, principal, session })
    }

    /// Whether a caller can have an action at all, on whatever: what is refused here need not be read.
    ///
    /// # Errors
    /// Why not.
    pub fn could(&self, who: &Who, verb: Verb) -> Result<(), AccessError> {
        self.not_below_a_label(who, verb)?;
        let access = self.access();
        if who.caller.uid == 0 || access.gate.could(&who.principal, verb) {
            return Ok(());
        }
        Err(missing(&access, &who.person.text, verb, "this host"))
    }

    /// Whether a caller may do something.
    ///
    /// # Errors
    /// Why not.
    pub fn may(&self, who: &Who, verb: Verb, on: &On) -> Result<By, AccessError> {
        self.not_below_a_label(who, verb)?;
        let by = if who.caller.uid == 0 {
            ADMIN.to_owned()
        } else {
            self.ruled(&who.person.text, &who.principal, verb, on, &who.session)?
        };
        let person = Person { text: format!("{}, as {by}", who.person.text), ..who.person.clone() };
        Ok(By { person, caller: who.caller.clone() })
    }

    fn not_below_a_label(&self, who: &Who, verb: Verb) -> Result<(), AccessError> {
        if verb.row().below == Below::Allowed {
            return Ok(());
        }
        self.is_no_descendant(who.caller.pid).map_err(|error| match error {
            LeaseError::Labelled(pid) => {
                tracing::warn!(
                    pid = who.caller.pid,
                    above = pid,
                    "somebody below a labelled process was refused"
                );
                AccessError::Below(pid)
            }
            other => AccessError::Unidentified(other.to_string()),
        })
    }

    /// Whether the subject whose label a process carries may ask for something, in its session.
    ///
    /// # Errors
    /// Why not.
    pub fn subject_may(&self, subject: &str, session: u64, verb: Verb, on: &On) -> Result<(), AccessError> {
        let id = if session == 0 { String::new() } else { session.to_string() };
        let who = if session == 0 { subject.to_owned() } else { format!("{subject}/{session}") };
        let principal = Principal::Subject(subject.to_owned());
        self.ruled(&who, &principal, verb, on, &Session { id, ..Session::default() }).map(drop)
    }

    /// Whether the account that a process without a label runs as may ask for something at the self-service socket.
    ///
    /// # Errors
    /// Why not.
    pub(super) fn account_may(&self, caller: &Caller, verb: Verb, on: &On) -> Result<(), AccessError> {
        if caller.uid == 0 {
            return Ok(());
        }
        let principal = self.access().user(caller);
        self.ruled(&words(caller.uid, None, None), &principal, verb, on, &Session::default()).map(drop)
    }

    /// What permits it, in words.
    fn ruled(
        &self,
        who: &str,
        principal: &Principal,
        verb: Verb,
        on: &On,
        session: &Session,
    ) -> Result<String, AccessError> {
        let access = self.access();
        let facts = if access.gate.asks_for_context() { self.held_now(principal) } else { Facts::default() };
        match access.gate.decide(principal, verb, on, &facts, session) {
            Ruling::Permitted { roles, policies } if roles.is_empty() => {
                Ok(format!("permitted by {}", policies.join(" and ")))
            }
            Ruling::Permitted { roles, .. } => Ok(roles.join(" and ")),
            Ruling::Refused { forbidden: Some(policy), reason } => Err(AccessError::Forbidden {
                who: who.to_owned(),
                action: verb.name(),
                on: on.to_string(),
                policy,
                reason,
            }),
            Ruling::Refused { forbidden: None, .. } => Err(missing(&access, who, verb, &on.to_string())),
        }
    }

    /// What holds of a subject, or of the host, at this moment.
    fn held_now(&self, principal: &Principal) -> Facts {
        let engine = self.engine();
        let now = Now::read();
        // No subject has an empty name, so what is left is what holds of the host.
        let subject = match principal {
            Principal::Subject(name) => name.as_str(),
            Principal::User { .. } => "",
        };
        // Without a live bundle nothing that was said counts.
        let (Some(live), Some(known)) = (engine.live.as_ref(), engine.known()) else {
            return Facts::default();
        };
        let posture = leases::posture(&engine.modes, known, (subject, 0), &Openings::new(), &now);
        let holds = |end: Option<u64>| end.is_none_or(|end| now.boot < end);
        Facts {
            leases: posture
                .leases
                .into_iter()
                .filter(|(_, one)| holds(one.end))
                .map(|(name, _)| name)
                .collect(),
            posture: posture
                .facts
                .into_iter()
                .filter(|(_, one)| holds(one.end))
                .map(|(name, one)| (name, one.value))
                .collect(),
            windows: windows::open_at(live.bundle.schedules(), now.wall),
            ..Facts::default()
        }
    }
}

fn missing(access: &Access, who: &str, verb: Verb, on: &str) -> AccessError {
    let (roles, holders) = access.holders(verb);
    AccessError::Missing { who: who.to_owned(), action: verb.name(), on: on.to_owned(), roles, holders }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_it_is_has_one_form() {
        assert_eq!(words(0, Some(1000), Some("pts/2")), "uid 0, logged in as uid 1000 on pts/2");
        assert_eq!(words(7, None, None), "uid 7");
    }

    #[test]
    fn a_refusal_names_the_action_and_who_has_it() {
        let error =
            missing(&Access::new(Gate::closed(), Roles::default()), "uid 7", Verb::Apply, "this host");
        let text = error.to_string();
        assert!(
            text.starts_with("uid 7 may not ask for guard.apply on this host: it is for root;"),
            "{text}"
        );
        assert_eq!(error.missing(), Some(("guard.apply", &[][..])));
    }
}
