//! Leases, requests for them, and facts: written down, then told to the kernel, then answered.
//!
//! What is refused or ended is written down first too, so that no crash gives it back.

use super::access::AccessError;
use super::apart::ApartError;
use super::engine::Engine;
use super::facts::Known;
use super::modes::{Modes, Now};
use super::serve::Shared;
use super::windows::{self, Openings};
use crate::api::types::{AskRequest, LeaseRequest};
use crate::kernel::{KernelError, Uses};
use crate::ledger::{At, Created, Lease, LedgerError, NewLease, NewRequest, Request, RequestState};
use crate::policy::verbs::Verb;
use crate::policy::{ApprovalRule, Approver, Counted, Gate, MAX_USES, On, Posture, Until};
use nix::unistd::{Gid, Group, Uid, User, getgrouplist};
use std::collections::BTreeSet;
use std::ffi::CString;
use std::time::Duration;

/// Who decides.
#[derive(Clone, Debug)]
pub struct Person {
    /// Effective user of the process that asks.
    pub uid: u32,
    /// The user who logged in (pam_loginuid(8)); nothing if nobody did.
    pub login: Option<u32>,
    /// The process.
    pub pid: i32,
    /// Both, and the terminal, as they are written down.
    pub text: String,
}

impl Person {
    /// The one who answers for it.
    fn uid(&self) -> u32 {
        self.login.unwrap_or(self.uid)
    }
}

/// Why there is no such lease, request or fact.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// The live bundle has no such subject.
    #[error("the live bundle has no subject {0}: `guardctl status` lists them")]
    NoSubject(String),
    /// The live bundle declares no such lease.
    #[error("the live bundle declares no approval {0:?}; it has: {1}")]
    NoLease(String, String),
    /// Nothing that the subject may do depends on it.
    #[error("no policy about {subject} asks for the lease {lease:?}: it would change nothing")]
    Useless {
        /// The subject.
        subject: String,
        /// The lease.
        lease: String,
    },
    /// It is to last longer than it may.
    #[error("{lease} lasts at most {max} s")]
    TooLong {
        /// The lease.
        lease: String,
        /// Seconds.
        max: u64,
    },
    /// It is to be used more often than it may.
    #[error("{lease} can be used at most {max} times, and at least once")]
    Uses {
        /// The lease.
        lease: String,
        /// How often.
        max: u32,
    },
    /// There is one already, and one of them is counted.
    #[error(
        "lease {id} is {lease} for {subject} already: a lease of which uses are counted cannot be beside another one by the same name; revoke that one or wait for its end"
    )]
    Beside {
        /// The lease that there is.
        id: i64,
        /// Its name.
        lease: String,
        /// Its subject.
        subject: String,
    },
    /// The kernel has no place for another count.
    #[error("there are too many leases of which uses are counted: wait until some have ended")]
    NoPlace,
    /// There is no such session, or it cannot be told from its subject.
    #[error("{0}")]
    Session(#[from] ApartError),
    /// What is asked for is for a session, and there is none.
    #[error("you are in no session, so nothing can be granted to your session alone")]
    NoSession,
    /// The caller is no approver.
    #[error("you ({who}) may not approve {lease}: {allowed}")]
    NotApprover {
        /// Who asks.
        who: String,
        /// The lease.
        lease: String,
        /// Who may.
        allowed: String,
    },
    /// The caller asked for it, or it runs for them.
    #[error("you asked for this yourself, or it runs for you: somebody else must approve {0}")]
    Requester(String),
    /// The caller descends from a labelled process.
    #[error("a process above yours is subject to policy (pid {0}): approve from another terminal")]
    Labelled(i32),
    /// Who calls cannot be found out.
    #[error("the caller cannot be identified: {0}")]
    Unknown(String),
    /// Several people must approve.
    #[error("{lease} needs {needed} approvers, so it is granted by requests only: `guardctl request list`")]
    ByRequest {
        /// The lease.
        lease: String,
        /// How many.
        needed: usize,
    },
    /// There is no such thing.
    #[error("there is no {0} that counts")]
    Nothing(String),
    /// It was decided already.
    #[error("request {id} is {state} already")]
    Decided {
        /// The request.
        id: i64,
        /// What became of it.
        state: &'static str,
    },
    /// The same was denied.
    #[error("this was denied a moment ago: ask again in ten minutes, or do without")]
    HeldBack,
    /// There are too many.
    #[error("too many requests of this subject wait for an answer")]
    TooMany,
    /// Only a subject asks.
    #[error("only a labelled process asks for a lease: yours is not subject to policy")]
    NoLabel,
    /// The bundle declares no such fact.
    #[error("the live bundle declares no fact {0:?}; it has: {1}")]
    NoFact(String, String),
    /// It has another type.
    #[error("the fact {name} is a {wanted}, and this is not: {value}")]
    Type {
        /// The fact.
        name: String,
        /// Its type.
        wanted: &'static str,
        /// What was given.
        value: String,
    },
    /// It comes from elsewhere.
    #[error("the fact {name} is to come from {wanted:?}, and this comes from {given:?}")]
    Source {
        /// The fact.
        name: String,
        /// What the bundle says.
        wanted: String,
        /// What was given.
        given: String,
    },
    /// The agent finds it out.
    #[error("the agent finds out {0} by itself: nobody sets it")]
    Collected(String),
    /// A provider says it.
    #[error("what comes from {0} is said by the agent's provider of that name, and by nobody else")]
    Provided(String),
    /// It is over.
    #[error("the fact {0} is older than it lasts")]
    TooOld(String),
    /// Policy does not let whoever asks.
    #[error("{0}")]
    Access(#[from] AccessError),
    /// Nobody means that.
    #[error(
        "a fact that ends lasts at most 366 days: say {0} without an end if it holds until it is taken back"
    )]
    Absurd(String),
    /// It is too long.
    #[error("the text of {name} has more than {max} bytes")]
    LongText {
        /// The fact.
        name: String,
        /// Bytes.
        max: usize,
    },
    /// Too many say it.
    #[error("{name} is said by {max} sources already: take back what is not meant any more")]
    Sources {
        /// The fact.
        name: String,
        /// How many.
        max: usize,
    },
    /// It is said too often.
    #[error("{0} is said too often to be believed: it is absent until nobody has said it for a minute")]
    Flood(String),
    /// It could not be recorded.
    #[error("{0}")]
    Ledger(#[from] LedgerError),
    /// The kernel side failed.
    #[error("{0}")]
    Kernel(#[from] KernelError),
}

/// What is true of a subject, or of one of its sessions, besides the bundle: its mode if one was set, the open
/// windows, what was granted to it, what is known of it, and whether it is in quarantine.
pub(super) fn posture(
    modes: &Modes,
    known: Known<'_>,
    (subject, session): (&str, u64),
    windows: &Openings,
    now: &Now,
) -> Posture {
    let mut posture = windows::posture(modes, subject, windows, now);
    for lease in known.ledger.leases().iter().filter(|lease| lease.is_of(subject, session)) {
        let Some(end) = lease.end(now.boot, &now.boot_id) else { continue };
        // Of two by one name the later end counts.
        let kept = posture.leases.entry(lease.name.clone()).or_insert(Until { value: (), end: Some(end) });
        kept.end = kept.end.max(Some(end));
        if let Some(place) = lease.place {
            let actions = known.bundle.approval_rules().get(&lease.name).map_or(0, |rule| rule.counts);
            posture.counted.insert(lease.name.clone(), Counted { actions, place });
        }
    }
    posture.facts = known.facts(subject, now);
    posture.stale = known.stale(subject, now);
    let covering = known.ledger.quarantines().iter().filter(|one| one.covers(subject, session));
    posture.quarantines = covering
        .filter_map(|one| Some(Until { value: one.level, end: one.end(now.wall, now.boot, &now.boot_id)? }))
        .collect();
    posture
}

/// The clocks, as the ledger wants them.
pub(super) fn at(now: &Now) -> At<'_> {
    At { wall: now.wall, boot: now.boot, boot_id: &now.boot_id }
}

impl Engine {
    /// The rules of a lease, if granting it to a subject means anything.
    fn rule(&self, subject: &str, lease: &str) -> Result<ApprovalRule, LeaseError> {
        let live = self.live.as_ref().ok_or_else(|| LeaseError::NoSubject(subject.to_owned()))?;
        if live.bundle.subjects().all(|known| known.name != subject) {
            return Err(LeaseError::NoSubject(subject.to_owned()));
        }
        let rules = live.bundle.approval_rules();
        let rule = rules.get(lease).ok_or_else(|| {
            LeaseError::NoLease(lease.to_owned(), rules.keys().cloned().collect::<Vec<_>>().join(", "))
        })?;
        let by_kernel = self.rows_of(subject).iter().any(|row| live.compiled.asks_for_lease(*row, lease));
        // What subjects ask of Guard itself may need it as well.
        let asks = by_kernel || Gate::new(&live.bundle).is_ok_and(|gate| gate.asks_for_lease(lease));
        if !asks {
            return Err(LeaseError::Useless { subject: subject.to_owned(), lease: lease.to_owned() });
        }
        Ok(rule.clone())
    }

    /// How often a lease is to be usable, and where that is counted; nothing if it is not. A lease whose uses are spent
    /// makes room.
    fn count_of(
        &mut self,
        rule: &ApprovalRule,
        (lease, asked): (&str, Option<u32>),
        (subject, session): (&str, Option<u64>),
        now: &Now,
    ) -> Result<Option<(u32, u32)>, LeaseError> {
        let max = rule.uses.unwrap_or(MAX_USES);
        if asked.is_some_and(|asked| !(1..=max).contains(&asked)) {
            return Err(LeaseError::Uses { lease: lease.to_owned(), max });
        }
        let uses = asked.or(rule.uses);
        let lives = |one: &&Lease| one.end(now.boot, &now.boot_id).is_some();
        let same = |one: &&Lease| one.name == lease && one.meets(subject, session);
        let beside: Vec<Lease> = self.ledger.leases().iter().filter(lives).filter(same).cloned().collect();
        for one in beside.iter().filter(|one| uses.is_some() || one.uses.is_some()) {
            if self.left(one) != Some(0) {
                let (lease, subject) = (one.name.clone(), one.subject.clone());
                return Err(LeaseError::Beside { id: one.id, lease, subject });
            }
            self.ledger.revoke(one.id, "the agent: its uses were spent, and there is a new one", at(now))?;
        }
        let Some(uses) = uses else { return Ok(None) };
        // Masks name the places of those that made room until others take their place.
        let live = self.ledger.leases().iter().filter(lives);
        let taken: BTreeSet<u32> = live.chain(&beside).filter_map(|one| one.place).collect();
        let place = Uses::places().find(|place| !taken.contains(place)).ok_or(LeaseError::NoPlace)?;
        Ok(Some((uses, place)))
    }

    /// How many uses of a lease are left; nothing if they are not counted.
    fn left(&self, lease: &Lease) -> Option<u32> {
        // A count that is not there is one that other programs kept: nobody knows what was left.
        lease.place.map(|place| self.uses.left(place, lease.id.cast_unsigned()).unwrap_or(0))
    }

    /// Puts the counts right that programs before these kept.
    pub(super) fn settle_uses(&self) {
        let now = Now::read();
        // A place may have been another one's before.
        let lives = |lease: &&Lease| lease.end(now.boot, &now.boot_id).is_some();
        for lease in self.ledger.leases().iter().filter(lives) {
            if let Some(place) = lease.place
                && self.uses.left(place, lease.id.cast_unsigned()).is_none()
            {
                self.uses.put(place, lease.id.cast_unsigned(), 0);
            }
        }
    }

    /// A lease with the uses that are left.
    fn shown(&self, mut lease: Lease) -> Lease {
        lease.left = self.left(&lease);
        lease
    }

    /// The rows of a subject: its own, and those of its sessions.
    fn rows_of(&self, subject: &str) -> Vec<u32> {
        let Some(live) = &self.live else { return Vec::new() };
        let rows = self.rows(&live.compiled).into_iter().filter(|holder| holder.subject == subject);
        rows.map(|holder| holder.row).collect()
    }

    /// Tells the kernel what holds of one subject, or of all, now.
    pub(super) fn tell_subjects(&mut self, only: Option<&str>) -> Result<(), KernelError> {
        let now = Now::read();
        let Some(live) = &self.live else { return Ok(()) };
        let windows = windows::from_now_on(&live.bundle, &now);
        let mut rows = self.rows(&live.compiled);
        rows.retain(|holder| {
            only.is_none_or(|only| holder.subject == only) && live.compiled.asks_for_posture(holder.row)
        });
        self.tell_rows(rows, &windows, &now)
    }

    /// Grants a lease.
    ///
    /// # Errors
    /// If the caller may not, it would mean nothing, or it cannot be recorded or told to the kernel; nothing
    /// is granted then.
    fn grant(&mut self, request: &LeaseRequest, person: &Person) -> Result<Lease, LeaseError> {
        let rule = self.rule(&request.subject, &request.name)?;
        may_approve(&rule, &request.name, person, None)?;
        if rule.needed > 1 {
            return Err(LeaseError::ByRequest { lease: request.name.clone(), needed: rule.needed });
        }
        let lasts = length(&rule, &request.name, request.seconds)?;
        let now = Now::read();
        if let Some(session) = request.session {
            self.tell_apart(&request.subject, session)?;
        }
        let holder = (request.subject.as_str(), request.session);
        let uses = self.count_of(&rule, (&request.name, request.uses), holder, &now)?;
        let new = NewLease {
            name: &request.name,
            subject: &request.subject,
            session: request.session,
            lasts,
            uses,
            by: &person.text,
            reason: request.reason.as_deref(),
            request: None,
        };
        let lease = self.ledger.grant(&new, at(&now))?;
        self.made_so(lease)
    }

    /// Tells the kernel of a lease that was recorded, or takes it back.
    fn made_so(&mut self, lease: Lease) -> Result<Lease, LeaseError> {
        // Before any masks name the place.
        if let Some((place, uses)) = lease.place.zip(lease.uses) {
            self.uses.put(place, lease.id.cast_unsigned(), uses);
        }
        if let Err(error) = self.tell_subjects(Some(&lease.subject)) {
            let now = Now::read();
            if let Err(error) =
                self.ledger.revoke(lease.id, "the agent, which could not make it so", at(&now))
            {
                tracing::error!("a lease of {} is recorded and does not count: {error}", lease.subject);
            }
            return Err(error.into());
        }
        Ok(self.shown(lease))
    }

    fn renew(&mut self, id: i64, seconds: Option<u64>, person: &Person) -> Result<Lease, LeaseError> {
        let now = Now::read();
        let lease = self.live_lease(id, &now)?;
        let rule = self.rule(&lease.subject, &lease.name)?;
        may_approve(&rule, &lease.name, person, None)?;
        if rule.needed > 1 {
            return Err(LeaseError::ByRequest { lease: lease.name, needed: rule.needed });
        }
        let lasts = length(&rule, &lease.name, seconds)?;
        let renewed = self.ledger.renew(id, lasts, at(&now))?;
        let renewed = renewed.ok_or_else(|| LeaseError::Nothing(format!("lease {id}")))?;
        self.tell_subjects(Some(&renewed.subject))?;
        Ok(self.shown(renewed))
    }

    fn live_lease(&self, id: i64, now: &Now) -> Result<Lease, LeaseError> {
        let found = self.ledger.leases().iter().find(|lease| lease.id == id);
        let live = found.filter(|lease| lease.end(now.boot, &now.boot_id).is_some());
        live.cloned().ok_or_else(|| LeaseError::Nothing(format!("lease {id}")))
    }

    /// Ends a lease now. Whoever administers may, approver or not.
    fn revoke(&mut self, id: i64, person: &Person) -> Result<Lease, LeaseError> {
        let now = Now::read();
        self.live_lease(id, &now)?;
        let revoked = self.ledger.revoke(id, &person.text, at(&now))?;
        let revoked = revoked.ok_or_else(|| LeaseError::Nothing(format!("lease {id}")))?;
        self.tell_subjects(Some(&revoked.subject))?;
        Ok(revoked)
    }

    fn approve(&mut self, id: i64, person: &Person, shown: &str) -> Result<Request, LeaseError> {
        let now = Now::read();
        let request = self.open_request(id, &now)?;
        let rule = self.rule(&request.subject, &request.lease)?;
        may_approve(&rule, &request.lease, person, Some(&request))?;
        self.ledger.approve(id, person.uid(), &person.text, shown, at(&now))?;
        let request = self.open_request(id, &now)?;
        if request.approvals.len() < rule.needed {
            return Ok(request);
        }
        let lasts = length(&rule, &request.lease, Some(request.seconds))?;
        let session = Some(request.session).filter(|_| request.only_session);
        if let Some(session) = session {
            self.tell_apart(&request.subject, session)?;
        }
        let uses = self.count_of(&rule, (&request.lease, request.uses), (&request.subject, session), &now)?;
        let everybody: Vec<&str> = request.approvals.iter().map(|one| one.by.as_str()).collect();
        let by = everybody.join(" and ");
        let new = NewLease {
            name: &request.lease,
            subject: &request.subject,
            session,
            lasts,
            uses,
            by: &by,
            reason: Some(&request.reason),
            request: Some(id),
        };
        let lease = self.ledger.fulfil(id, &new, at(&now))?;
        self.made_so(lease)?;
        self.found_request(id)
    }

    fn deny(&mut self, id: i64, person: &Person, note: Option<&str>) -> Result<Request, LeaseError> {
        let now = Now::read();
        self.open_request(id, &now)?;
        self.ledger.deny(id, &person.text, note, at(&now))?;
        self.found_request(id)
    }

    fn found_request(&self, id: i64) -> Result<Request, LeaseError> {
        self.ledger.request(id)?.ok_or_else(|| LeaseError::Nothing(format!("request {id}")))
    }

    fn open_request(&mut self, id: i64, now: &Now) -> Result<Request, LeaseError> {
        // Those that nobody answered end here.
        self.ledger.requests(false, 1, at(now))?;
        let request = self.found_request(id)?;
        match request.state {
            RequestState::Open => Ok(request),
            RequestState::Approved => Err(LeaseError::Decided { id, state: "approved" }),
            RequestState::Denied => Err(LeaseError::Decided { id, state: "denied" }),
            RequestState::Expired => Err(LeaseError::Decided { id, state: "expired" }),
        }
    }

    fn ask(&mut self, asked: &Asking) -> Result<Request, LeaseError> {
        let rule = self.rule(&asked.subject, &asked.lease)?;
        let lasts = length(&rule, &asked.lease, asked.seconds)?;
        if asked.only_session && asked.session == 0 {
            return Err(LeaseError::NoSession);
        }
        let max = rule.uses.unwrap_or(MAX_USES);
        if asked.uses.is_some_and(|uses| !(1..=max).contains(&uses)) {
            return Err(LeaseError::Uses { lease: asked.lease.clone(), max });
        }
        let human = self.sessions.get(asked.session).and_then(|session| session.human).or(asked.human);
        let new = NewRequest {
            lease: &asked.lease,
            subject: &asked.subject,
            session: asked.session,
            lasts,
            uses: asked.uses,
            only_session: asked.only_session,
            reason: &asked.reason,
            uid: asked.uid,
            human,
            pid: asked.pid,
            exe: asked.exe.as_deref(),
        };
        match self.ledger.ask(&new, at(&Now::read()))? {
            Created::Waits(request) => Ok(*request),
            Created::HeldBack => Err(LeaseError::HeldBack),
            Created::TooMany => Err(LeaseError::TooMany),
        }
    }
}

/// What a subject asks for, with what is known of it without believing anything.
#[derive(Debug)]
pub(super) struct Asking {
    pub(super) subject: String,
    pub(super) session: u64,
    lease: String,
    seconds: Option<u64>,
    uses: Option<u32>,
    only_session: bool,
    reason: String,
    uid: u32,
    pub(super) human: Option<u32>,
    pid: i32,
    exe: Option<String>,
}

/// For how long, if that is allowed.
fn length(rule: &ApprovalRule, lease: &str, seconds: Option<u64>) -> Result<Duration, LeaseError> {
    let lasts = seconds.map_or(rule.max, Duration::from_secs);
    if lasts > rule.max || lasts.is_zero() {
        return Err(LeaseError::TooLong { lease: lease.to_owned(), max: rule.max.as_secs() });
    }
    Ok(lasts)
}

/// Whether a person may approve a lease, for a request if there is one.
fn may_approve(
    rule: &ApprovalRule,
    lease: &str,
    person: &Person,
    request: Option<&Request>,
) -> Result<(), LeaseError> {
    let human = request.and_then(|request| request.human);
    let asked = |request: &Request| human == Some(person.uid()) || request.uid == person.uid();
    if rule.not_requester && request.is_some_and(asked) {
        return Err(LeaseError::Requester(lease.to_owned()));
    }
    let user = User::from_uid(Uid::from_raw(person.uid())).ok().flatten();
    let is = |approver: &Approver| match approver {
        Approver::User(name) => {
            user.as_ref().is_some_and(|user| user.name == *name) || name.parse() == Ok(person.uid())
        }
        Approver::Group(name) => user.as_ref().is_some_and(|user| is_in(user, name)),
        Approver::SessionHuman => human == Some(person.uid()),
    };
    if rule.approvers.iter().any(is) {
        return Ok(());
    }
    let name = |approver: &Approver| match approver {
        Approver::User(name) => format!("user {name}"),
        Approver::Group(name) => format!("group {name}"),
        Approver::SessionHuman => "the person for whom the session runs".to_owned(),
    };
    let allowed: Vec<String> = rule.approvers.iter().map(name).collect();
    Err(LeaseError::NotApprover {
        who: person.text.clone(),
        lease: lease.to_owned(),
        allowed: format!(
            "approvers are {}",
            if allowed.is_empty() { "nobody".to_owned() } else { allowed.join(", ") }
        ),
    })
}

/// Whether a user is in a group, by the account database as it is now.
fn is_in(user: &User, group: &str) -> bool {
    let Some(group) = Group::from_name(group).ok().flatten() else { return false };
    let Ok(name) = CString::new(user.name.as_str()) else { return false };
    let groups: Vec<Gid> = getgrouplist(&name, user.gid).unwrap_or_default();
    groups.contains(&group.gid)
}

/// Ancestors of a process that are looked at.
const MAX_ANCESTORS: usize = 1000;

impl Shared {
    /// Whether nobody above a process is labelled: who runs under a subject, approves nothing.
    pub(super) fn is_no_descendant(&self, pid: i32) -> Result<(), LeaseError> {
        let mut pid = pid;
        for _ in 0..MAX_ANCESTORS {
            if pid <= 1 {
                return Ok(());
            }
            match self.label(pid) {
                Ok(None) => {}
                Ok(Some(_)) => return Err(LeaseError::Labelled(pid)),
                Err(error) => return Err(LeaseError::Unknown(error.to_string())),
            }
            let (parent, _) = super::labelling::stat(pid)
                .ok_or_else(|| LeaseError::Unknown(format!("process {pid} is gone")))?;
            pid = parent;
        }
        Err(LeaseError::Unknown("it has too many ancestors".to_owned()))
    }

    /// Does something to what is recorded, and lets others know that it may have changed.
    pub(super) fn change_ledger<T>(
        &self,
        person: Option<&Person>,
        action: impl FnOnce(&mut Engine) -> Result<T, LeaseError>,
    ) -> Result<T, LeaseError> {
        if let Some(person) = person {
            self.is_no_descendant(person.pid)?;
        }
        let mut engine = self.engine();
        let result = action(&mut engine);
        self.ledger_changed(&engine);
        result
    }

    /// Grants a lease.
    ///
    /// # Errors
    /// If the caller may not, or it would mean nothing, or it cannot be made so.
    pub fn grant(&self, request: &LeaseRequest, person: &Person) -> Result<Lease, LeaseError> {
        let lease = self.change_ledger(Some(person), |engine| engine.grant(request, person))?;
        tracing::warn!(
            lease.id,
            lease.name,
            lease.subject,
            lease.until,
            lease.by,
            lease.reason,
            "a lease was granted"
        );
        Ok(lease)
    }

    /// Gives a lease another end, counted from now.
    ///
    /// # Errors
    /// As [`Shared::grant`].
    pub fn renew(&self, id: i64, seconds: Option<u64>, person: &Person) -> Result<Lease, LeaseError> {
        let lease = self.change_ledger(Some(person), |engine| engine.renew(id, seconds, person))?;
        tracing::warn!(
            lease.id,
            lease.name,
            lease.subject,
            lease.until,
            by = person.text,
            "a lease was renewed"
        );
        Ok(lease)
    }

    /// Ends a lease.
    ///
    /// # Errors
    /// If there is none, or it cannot be recorded or made so.
    pub fn revoke(&self, id: i64, person: &Person) -> Result<Lease, LeaseError> {
        let lease = self.change_ledger(None, |engine| engine.revoke(id, person))?;
        tracing::warn!(lease.id, lease.name, lease.subject, by = person.text, "a lease was revoked");
        Ok(lease)
    }

    /// One lease that counts.
    ///
    /// # Errors
    /// If there is none of this number.
    pub fn lease(&self, id: i64) -> Result<Lease, LeaseError> {
        self.engine().live_lease(id, &Now::read())
    }

    /// The leases that count, or the last ones that there were.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn leases(&self, all: bool) -> Result<Vec<Lease>, LeaseError> {
        let engine = self.engine();
        if all {
            let all = engine.ledger.all_leases(LISTED)?.into_iter();
            return Ok(all.map(|lease| engine.shown(lease)).collect());
        }
        let now = Now::read();
        let live = engine.ledger.leases().iter().filter(|lease| lease.end(now.boot, &now.boot_id).is_some());
        Ok(live.map(|lease| engine.shown(lease.clone())).collect())
    }

    /// The requests that wait, or the last ones that there were.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn requests(&self, all: bool) -> Result<Vec<Request>, LeaseError> {
        Ok(self.engine().ledger.requests(all, LISTED, at(&Now::read()))?)
    }

    /// One request.
    ///
    /// # Errors
    /// If there is none, or it cannot be read.
    pub fn request(&self, id: i64) -> Result<Request, LeaseError> {
        let mut engine = self.engine();
        engine.ledger.requests(false, 1, at(&Now::read()))?;
        engine.found_request(id)
    }

    /// Records a yes to a request, and grants what it asks for if that is enough.
    ///
    /// # Errors
    /// As [`Shared::grant`].
    pub fn approve(&self, id: i64, person: &Person, shown: &str) -> Result<Request, LeaseError> {
        let request = self.change_ledger(Some(person), |engine| engine.approve(id, person, shown))?;
        tracing::warn!(
            request.id,
            request.lease,
            request.subject,
            by = person.text,
            "a request was approved"
        );
        Ok(request)
    }

    /// Says no to a request.
    ///
    /// # Errors
    /// If there is none that waits, or it cannot be recorded.
    pub fn deny(&self, id: i64, person: &Person, note: Option<&str>) -> Result<Request, LeaseError> {
        let request = self.change_ledger(Some(person), |engine| engine.deny(id, person, note))?;
        tracing::warn!(request.id, request.lease, request.subject, by = person.text, "a request was denied");
        Ok(request)
    }

    /// Asks for a lease, as the subject whose label a process carries.
    ///
    /// # Errors
    /// If it carries none, the lease would change nothing for it, or it asks too often.
    pub fn ask(&self, caller: &super::Caller, asked: &AskRequest) -> Result<Request, LeaseError> {
        let asking = self.asking(caller)?;
        let on = On::Approval(asked.lease.clone());
        self.subject_may(&asking.subject, asking.session, Verb::Request, &on)?;
        let asking = Asking {
            lease: asked.lease.clone(),
            seconds: asked.seconds,
            uses: asked.uses,
            only_session: asked.only_session,
            reason: asked.reason.clone(),
            ..asking
        };
        let request = self.change_ledger(None, |engine| engine.ask(&asking))?;
        tracing::info!(request.id, request.lease, request.subject, request.session, "a lease is asked for");
        Ok(request)
    }

    /// One request of the subject, and session, whose label a process carries.
    ///
    /// # Errors
    /// If it carries none, or has no such request.
    pub fn own_request(&self, caller: &super::Caller, id: i64) -> Result<Request, LeaseError> {
        let asking = self.asking(caller)?;
        self.may_look(&asking)?;
        let request = self.request(id)?;
        if request.subject == asking.subject && request.session == asking.session {
            Ok(request)
        } else {
            Err(LeaseError::Nothing(format!("request {id} of yours")))
        }
    }

    /// Whether a subject may see what Guard knows of it.
    pub(super) fn may_look(&self, asking: &Asking) -> Result<(), LeaseError> {
        let on = On::Subject(asking.subject.clone());
        Ok(self.subject_may(&asking.subject, asking.session, Verb::View, &on)?)
    }

    /// Who a process is.
    pub(super) fn asking(&self, caller: &super::Caller) -> Result<Asking, LeaseError> {
        use std::os::fd::AsFd;
        let label = self.label_reader().of(caller.process.as_fd()).map_err(|error| match error {
            KernelError::System { .. } => LeaseError::Unknown("the process has ended".to_owned()),
            other => other.into(),
        })?;
        let (subject, session) = label.ok_or(LeaseError::NoLabel)?;
        let subject = self.subject_name(subject).ok_or(LeaseError::NoLabel)?;
        let pid = caller.pid;
        let exe = std::fs::read_link(format!("/proc/{pid}/exe")).ok();
        Ok(Asking {
            subject,
            session,
            lease: String::new(),
            seconds: None,
            uses: None,
            only_session: false,
            reason: String::new(),
            uid: caller.uid,
            human: super::adopt::human(pid),
            pid,
            exe: exe.map(|exe| exe.to_string_lossy().into_owned()),
        })
    }
}

/// So many are listed.
const LISTED: u32 = 1000;
