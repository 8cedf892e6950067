//! Quarantine: a subject, one of its sessions, or whatever has something else in common is denied what a level says,
//! before every policy, at once, and until somebody releases it.
//!
//! Written down first, then told to the kernel, where it is part of the masks of each row that it covers, or a bit in
//! the labels of those whom it covers (`bars.rs`); then connections are ended, and whoever waits inside a call is
//! woken, so that the call is decided again.

use super::access::AccessError;
use super::apart::ApartError;
use super::connections;
use super::containers;
use super::engine::Engine;
use super::evidence;
use super::interrupt;
use super::leases::{LeaseError, Person, at};
use super::modes::Now;
use super::reach::{self, Process};
use super::serve::Shared;
use super::spared::spared;
use super::windows;
use crate::api::types::{
    CoveredProcess, Covers, Inspection, QuarantineAnswer, QuarantineRequest, ReleaseRequest,
};
use crate::kernel::{Carried, KernelError};
use crate::ledger::{Key, LedgerError, NewQuarantine, Quarantine};
use crate::policy::On;
use guard_common::label::{LabelRequest, QUARANTINE_SUBJECT, UNIT_NAME_MAX};
use guard_common::quarantine::{BARS, Level, RESCUED};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// So many are listed.
const LISTED: u32 = 1000;
/// After so long a quarantine of a user or of the host ends unless somebody confirms it.
const REVERT: Duration = Duration::from_secs(5 * 60);
/// Units without which nobody could release anything, and the one that holds nearly everything.
const NEVER_UNITS: [&str; 4] = ["guard-agent.service", "init.scope", "-.slice", "system.slice"];

/// Why nothing is in quarantine, or released.
#[derive(Debug, thiserror::Error)]
pub enum QuarantineError {
    /// The live bundle has no such subject.
    #[error("the live bundle has no subject {0}: `guardctl status` lists them")]
    NoSubject(String),
    /// There is no such session, or it cannot be told from its subject.
    #[error("{0}")]
    Session(#[from] ApartError),
    /// It is not said who is meant.
    #[error(
        "name one: a subject, one of its sessions, a process, unit, cgroup, container, user, program, or the host"
    )]
    Target,
    /// There is nothing like that.
    #[error("{0}")]
    Unknown(String),
    /// It must not be covered.
    #[error("{0}")]
    Refused(String),
    /// All bits are taken.
    #[error("there are {BARS} quarantines of what is no subject, which is the limit: release one")]
    TooMany,
    /// It would go on when it has ended by itself.
    #[error(
        "what is stopped is not continued by the kernel when nobody confirms it: order level full, and freeze what has \
         to be stopped by its unit, cgroup or process"
    )]
    Frozen,
    /// There is no such level.
    #[error("there is no level {0}: network, write, exec, full, freeze")]
    NoLevel(String),
    /// A release goes down.
    #[error("it is at level {at}, which denies no more than {to}")]
    NotLower {
        /// What it is at.
        at: &'static str,
        /// What was asked for.
        to: &'static str,
    },
    /// There is no such quarantine.
    #[error("no quarantine {0} is in force: `guardctl quarantine list`")]
    Nothing(i64),
    /// The caller may not.
    #[error("{0}")]
    Caller(LeaseError),
    /// Policy does not permit it.
    #[error("{0}")]
    Access(#[from] AccessError),
    /// It could not be recorded.
    #[error("{0}")]
    Ledger(#[from] LedgerError),
    /// The kernel side failed.
    #[error("{0}")]
    Kernel(#[from] KernelError),
}

/// Whom a quarantine is to cover.
#[derive(Clone, Debug)]
pub enum Target {
    /// A subject, or one of its sessions.
    Subject {
        /// The subject.
        subject: String,
        /// The session.
        session: Option<u64>,
    },
    /// Whatever has this.
    Key(Key),
}

impl Target {
    fn of(quarantine: &Quarantine) -> Self {
        match &quarantine.target {
            Some(key) => Self::Key(key.clone()),
            None => Self::Subject { subject: quarantine.subject.clone(), session: quarantine.session },
        }
    }

    fn name(&self) -> String {
        match self {
            Self::Subject { subject, session: Some(session) } => format!("{subject}/{session}"),
            Self::Subject { subject, session: None } => subject.clone(),
            Self::Key(key) => key.to_string(),
        }
    }

    /// What permission to do something to it is asked on.
    pub fn on(&self) -> On {
        match self {
            Self::Subject { subject, .. } => On::Subject(subject.clone()),
            Self::Key(Key::Host) => On::Machine,
            Self::Key(key) => On::Processes(match key {
                Key::Process { pid, .. } => format!("pid:{pid}"),
                Key::Cgroup(path) => format!("cgroup:{path}"),
                Key::Unit(name) => format!("unit:{name}"),
                Key::Container(id) => format!("container:{id}"),
                Key::User(uid) => format!("uid:{uid}"),
                Key::Program(path) => format!("exe:{}", path.display()),
                Key::Host => "host".to_owned(),
            }),
        }
    }
}

impl Quarantine {
    /// What permission to do something about it is asked on.
    pub fn on(&self) -> On {
        Target::of(self).on()
    }
}

/// Whom it would cover now, as the process table has it.
struct Reach {
    all: BTreeMap<i32, Process>,
    covered: BTreeSet<i32>,
    spared: BTreeSet<i32>,
}

impl Engine {
    fn is_known(&self, subject: &str, session: Option<u64>) -> Result<(), QuarantineError> {
        let subjects = self.live.iter().flat_map(|live| live.bundle.subjects());
        if !subjects.into_iter().any(|known| known.name == subject) {
            return Err(QuarantineError::NoSubject(subject.to_owned()));
        }
        match session {
            Some(id) => Ok(self.is_session(subject, id)?),
            None => Ok(()),
        }
    }

    /// Tells the kernel what counts of everybody whom a quarantine covers or covered.
    fn tell_covered(&mut self, quarantine: &Quarantine) -> Result<(), KernelError> {
        let now = Now::read();
        if quarantine.target.is_some() {
            self.tell_bars(&[])?;
            return self.await_ends(&now);
        }
        let Some(live) = &self.live else { return Ok(()) };
        let windows = windows::from_now_on(&live.bundle, &now);
        let mut rows = self.rows(&live.compiled);
        rows.retain(|holder| {
            holder.subject == quarantine.subject
                && quarantine.session.is_none_or(|session| session == holder.session)
        });
        self.tell_rows(rows, &windows, &now)
    }

    fn confine(
        &mut self,
        target: &Target,
        order: &Order<'_>,
        spare: &[(i32, LabelRequest)],
    ) -> Result<Quarantine, QuarantineError> {
        let (mut subject, mut of_session, mut bound) = ("", None, None);
        match target {
            Target::Subject { subject: name, session } => {
                self.is_known(name, *session)?;
                if let Some(id) = session {
                    self.tell_apart(name, *id)?;
                }
                (subject, of_session) = (name.as_str(), *session);
            }
            Target::Key(key) => bound = Some((key, self.free_place().ok_or(QuarantineError::TooMany)?)),
        }
        let now = Now::read();
        let new = NewQuarantine {
            subject,
            session: of_session,
            target: bound,
            confirm: bound.filter(|(key, _)| key.is_wide()).map(|_| order.revert),
            level: order.level,
            lasts: order.lasts,
            by: order.by,
            reason: order.reason,
        };
        let quarantine = self.ledger.confine(&new, at(&now))?;
        let told = match bound {
            Some(_) => self.tell_bars(spare).and_then(|()| self.await_ends(&now)),
            None => self.tell_covered(&quarantine),
        };
        if let Err(error) = told {
            // What cannot be enforced must not look as if it were.
            let by = "the agent, which could not make it so";
            if let Err(error) = self.ledger.release(quarantine.id, by, &error.to_string(), at(&now)) {
                tracing::error!("quarantine {} is recorded and not in force: {error}", quarantine.id);
            }
            if let Err(error) = self.tell_covered(&quarantine) {
                tracing::error!(
                    "quarantine {} may cover some although it was refused: {error}",
                    quarantine.id
                );
            }
            return Err(error.into());
        }
        Ok(quarantine)
    }

    /// Ends a quarantine, or takes it down to a level.
    fn loosen(
        &mut self,
        id: i64,
        to: Option<Level>,
        by: &str,
        reason: &str,
    ) -> Result<(Quarantine, Level), QuarantineError> {
        let now = Now::read();
        let found = self.quarantine_in_force(id, &now)?;
        let changed = match to {
            Some(to) if to >= found.level => {
                return Err(QuarantineError::NotLower { at: found.level.name(), to: to.name() });
            }
            Some(to) => self.ledger.set_level(id, to)?,
            None => self.ledger.release(id, by, reason, at(&now))?,
        };
        let changed = changed.ok_or(QuarantineError::Nothing(id))?;
        self.tell_covered(&changed)?;
        Ok((changed, found.level))
    }

    fn quarantine_in_force(&self, id: i64, now: &Now) -> Result<Quarantine, QuarantineError> {
        let found = self.ledger.quarantines().iter().find(|one| one.id == id);
        let holds = found.filter(|one| one.end(now.wall, now.boot, &now.boot_id).is_some());
        holds.cloned().ok_or(QuarantineError::Nothing(id))
    }

    /// What is to be said of quarantines in the status.
    pub(super) fn quarantines_in_force(&self, now: &Now) -> Vec<Quarantine> {
        let all = self.ledger.quarantines().iter();
        all.filter(|one| one.end(now.wall, now.boot, &now.boot_id).is_some()).cloned().collect()
    }
}

/// What a quarantine is to be.
struct Order<'a> {
    level: Level,
    /// After how long it ends if it has to be confirmed and is not.
    revert: Duration,
    lasts: Option<Duration>,
    by: &'a str,
    reason: &'a str,
}

impl Shared {
    /// Puts somebody in quarantine, or says whom that would cover.
    ///
    /// # Errors
    /// If there is nobody of that name, the caller may not, or it cannot be recorded or made so; nothing has
    /// changed then.
    pub fn quarantine(
        &self,
        target: &Target,
        request: &QuarantineRequest,
        person: &Person,
    ) -> Result<QuarantineAnswer, QuarantineError> {
        let begun = Instant::now();
        let level = level(&request.level)?;
        self.is_no_descendant(person.pid).map_err(QuarantineError::Caller)?;
        let reach = self.reach(target, Some(person.pid))?;
        if let Target::Key(key) = target {
            if key.is_wide() && level == Level::Freeze {
                return Err(QuarantineError::Frozen);
            }
            if matches!(key, Key::Process { pid, .. } if reach.spared.contains(pid)) {
                let why =
                    format!("{key} is above your own, or one by which people log in: it is never covered");
                return Err(QuarantineError::Refused(why));
            }
        }
        let mut answer = QuarantineAnswer {
            schema: QuarantineAnswer::SCHEMA.to_owned(),
            target: target.name(),
            quarantine: None,
            covers: self.covers(target, &reach)?,
            in_force_us: None,
            ended_connections: 0,
            not_ended: None,
            unfinished: Vec::new(),
        };
        if request.dry_run {
            if let Target::Subject { subject, session } = target {
                self.engine().is_known(subject, *session)?;
            }
            return Ok(answer);
        }
        let found = request.evidence.then(|| {
            let pids: Vec<i32> = reach.covered.iter().copied().collect();
            let subject = match target {
                Target::Subject { subject, .. } => Some(subject.as_str()),
                Target::Key(_) => None,
            };
            evidence::collect(&pids, subject, self.store())
        });
        let order = Order {
            level,
            revert: request.revert_seconds.map_or(REVERT, Duration::from_secs),
            lasts: request.seconds.map(Duration::from_secs),
            by: &person.text,
            reason: &request.reason,
        };
        let spare: Vec<(i32, LabelRequest)> = reach
            .spared
            .iter()
            .filter_map(|pid| Some((*pid, LabelRequest::cover(reach.all.get(pid)?.start_ticks, RESCUED))))
            .collect();
        let mut quarantine = {
            let mut engine = self.engine();
            let quarantine = engine.confine(target, &order, &spare)?;
            self.ledger_changed(&engine);
            quarantine
        };
        tracing::warn!(
            quarantine.id,
            target = target.name(),
            level = level.name(),
            by = person.text,
            reason = request.reason,
            "a quarantine is in force"
        );
        let covered = self.covered(&quarantine)?;
        let wait = level == Level::Write || level >= Level::Full;
        let stopped = interrupt::stop(self.label_reader(), &covered, wait)?;
        answer.in_force_us = Some(u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX));
        answer.unfinished.clone_from(&stopped.unfinished);
        // The processes are stopped: nobody opens a new one meanwhile.
        (answer.ended_connections, answer.not_ended) = match self.pids(&covered) {
            Ok(pids) => connections::end(&pids),
            Err(error) => (0, Some(error.to_string())),
        };
        if level != Level::Freeze {
            stopped.go_on();
        }
        if let Some(found) = found {
            let mut engine = self.engine();
            match evidence::write(engine.state_dir(), &quarantine, &found) {
                Ok((file, sha256)) => {
                    engine.ledger.note_evidence(quarantine.id, &file, &sha256)?;
                    (quarantine.evidence, quarantine.evidence_sha256) = (Some(file), Some(sha256));
                }
                Err(error) => {
                    tracing::error!("the evidence of quarantine {} is lost: {error}", quarantine.id)
                }
            }
        }
        answer.quarantine = Some(quarantine);
        Ok(answer)
    }

    /// Releases a quarantine, or takes it down to a lower level.
    ///
    /// # Errors
    /// If none is in force, the caller may not, or it cannot be recorded or made so.
    pub fn release_quarantine(
        &self,
        id: i64,
        request: &ReleaseRequest,
        person: &Person,
    ) -> Result<QuarantineAnswer, QuarantineError> {
        self.is_no_descendant(person.pid).map_err(QuarantineError::Caller)?;
        let to = request.to.as_deref().map(level).transpose()?;
        let covered = self.pids(&self.covered(&self.found_quarantine(id)?)?)?;
        let (quarantine, before) = {
            let mut engine = self.engine();
            let result = engine.loosen(id, to, &person.text, &request.reason)?;
            self.ledger_changed(&engine);
            result
        };
        let target = Target::of(&quarantine);
        tracing::warn!(
            quarantine.id,
            target = target.name(),
            to = to.map_or("none", Level::name),
            by = person.text,
            reason = request.reason,
            "a quarantine was loosened"
        );
        if before == Level::Freeze {
            interrupt::resume(self.label_reader(), &covered, &self.frozen())?;
        }
        let reach = self.reach(&target, Some(person.pid))?;
        Ok(QuarantineAnswer {
            schema: QuarantineAnswer::SCHEMA.to_owned(),
            target: target.name(),
            covers: self.covers(&target, &reach)?,
            quarantine: Some(quarantine),
            in_force_us: None,
            ended_connections: 0,
            not_ended: None,
            unfinished: Vec::new(),
        })
    }

    /// Lets a quarantine go on that would end unless it is confirmed.
    ///
    /// # Errors
    /// If none of that number is in force, or it cannot be recorded or made so.
    pub fn confirm_quarantine(&self, id: i64, person: &Person) -> Result<Quarantine, QuarantineError> {
        self.is_no_descendant(person.pid).map_err(QuarantineError::Caller)?;
        let mut engine = self.engine();
        engine.quarantine_in_force(id, &Now::read())?;
        let quarantine = engine.ledger.confirm(id)?.ok_or(QuarantineError::Nothing(id))?;
        engine.tell_covered(&quarantine)?;
        self.ledger_changed(&engine);
        tracing::warn!(
            quarantine.id,
            target = quarantine.name(),
            by = person.text,
            "a quarantine was confirmed"
        );
        Ok(quarantine)
    }

    /// Exempts the calling process, and what it starts, from quarantines, and says whom this one covers: it is about
    /// to look at them from inside of their namespaces.
    ///
    /// # Errors
    /// If none of that number is in force, or nobody is covered.
    pub fn inspect_quarantine(&self, id: i64, person: &Person) -> Result<Inspection, QuarantineError> {
        self.is_no_descendant(person.pid).map_err(QuarantineError::Caller)?;
        let quarantine = self.found_quarantine(id)?;
        let covered = self.pids(&self.covered(&quarantine)?)?;
        let none = || QuarantineError::Unknown(format!("quarantine {id} covers no process now"));
        let pid = *covered.first().ok_or_else(none)?;
        let (_, start_ticks) = super::labelling::stat(person.pid)
            .ok_or_else(|| QuarantineError::Unknown(format!("there is no process {}", person.pid)))?;
        self.engine().kernel.cover_running(&[(person.pid, LabelRequest::cover(start_ticks, RESCUED))])?;
        tracing::warn!(id, target = quarantine.name(), by = person.text, "somebody looks into a quarantine");
        Ok(Inspection {
            schema: Inspection::SCHEMA.to_owned(),
            target: quarantine.name(),
            pid,
            processes: covered,
        })
    }

    /// Records which quarantines are over, and continues what they had stopped.
    pub(super) fn end_quarantines(&self) {
        let mut engine = self.engine();
        let now = Now::read();
        let over = engine.end_over(&now);
        if over.is_empty() {
            return;
        }
        drop(engine);
        // Still by their labels, which the next step takes away.
        let mut stopped = Vec::new();
        for one in over.iter().filter(|one| one.level == Level::Freeze) {
            match self.covered(one).and_then(|covered| self.pids(&covered)) {
                Ok(pids) => stopped.extend(pids),
                Err(error) => {
                    tracing::error!("what quarantine {} had stopped stays stopped: {error}", one.id)
                }
            }
        }
        let mut engine = self.engine();
        if let Err(error) = engine.tell_bars(&[]).and_then(|()| engine.await_ends(&now)) {
            tracing::error!("labels of quarantines that are over stay: {error}");
        }
        self.ledger_changed(&engine);
        drop(engine);
        if let Err(error) = interrupt::resume(self.label_reader(), &stopped, &self.frozen()) {
            tracing::error!("what quarantines had stopped stays stopped: {error}");
        }
    }

    /// Tells the kernel again what quarantines are bound to: a file may have been replaced.
    pub(super) fn look_at_quarantines(&self) {
        self.end_quarantines();
        let mut engine = self.engine();
        if engine.ledger.quarantines().iter().any(|one| one.target.is_some())
            && let Err(error) = engine.tell_bars(&[])
        {
            tracing::error!("what quarantines cover may be out of date: {error}");
        }
    }

    /// A quarantine that is in force.
    ///
    /// # Errors
    /// If it is not.
    pub fn found_quarantine(&self, id: i64) -> Result<Quarantine, QuarantineError> {
        self.engine().quarantine_in_force(id, &Now::read())
    }

    /// The quarantines that are in force, or the last ones that there were.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn quarantines(&self, all: bool) -> Result<Vec<Quarantine>, QuarantineError> {
        let engine = self.engine();
        if all {
            Ok(engine.ledger.all_quarantines(LISTED)?)
        } else {
            Ok(engine.quarantines_in_force(&Now::read()))
        }
    }

    /// Whether a quarantine keeps whoever carries this stopped.
    fn frozen(&self) -> impl Fn(&Carried) -> bool + use<> {
        let all = self.engine().quarantines_in_force(&Now::read());
        let frozen = all.iter().filter(|one| one.level == Level::Freeze);
        let covered: Vec<_> = frozen.filter_map(|one| self.covered(one).ok()).collect();
        move |carried: &Carried| covered.iter().any(|covers| covers(carried))
    }

    /// Who is meant.
    ///
    /// # Errors
    /// If nobody is, or it is one whom a quarantine never covers.
    pub fn quarantine_target(&self, request: &QuarantineRequest) -> Result<Target, QuarantineError> {
        let QuarantineRequest { subject, session, pid, unit, cgroup, container, uid, exe, host, .. } =
            request;
        let said = [
            subject.is_some(),
            pid.is_some(),
            unit.is_some(),
            cgroup.is_some(),
            container.is_some(),
            uid.is_some(),
            exe.is_some(),
            *host,
        ];
        if said.iter().filter(|said| **said).count() != 1 || session.is_some() && subject.is_none() {
            return Err(QuarantineError::Target);
        }
        if let Some(subject) = subject {
            return Ok(Target::Subject { subject: subject.clone(), session: *session });
        }
        if let Some(pid) = pid {
            return self.process(*pid);
        }
        Ok(Target::Key(if let Some(name) = unit {
            unit_key(name)?
        } else if let Some(path) = cgroup {
            cgroup_key(path)?
        } else if let Some(wanted) = container {
            let none =
                || QuarantineError::Unknown(format!("there is no container {wanted}, or more than one"));
            Key::Container(containers::meant(wanted).ok_or_else(none)?)
        } else if let Some(uid) = uid {
            user_key(*uid)?
        } else if let Some(path) = exe {
            program_key(Path::new(path))?
        } else {
            Key::Host
        }))
    }

    /// The session or the subject that a process is in; without a label the process.
    fn process(&self, pid: i32) -> Result<Target, QuarantineError> {
        let label = self.label(pid).ok().flatten();
        if let Some((number, session)) = label.filter(|(number, _)| *number != QUARANTINE_SUBJECT) {
            let unknown =
                || QuarantineError::Unknown(format!("process {pid} is of a subject that no longer is"));
            let subject = self.subject_name(number).ok_or_else(unknown)?;
            let session = Some(session).filter(|session| *session != 0);
            let engine = self.engine();
            // A successor is in a session that was opened as another subject.
            let own =
                session.and_then(|id| engine.sessions.get(id)).is_some_and(|one| one.subject == subject);
            return Ok(Target::Subject { subject, session: session.filter(|_| own) });
        }
        let all = reach::everybody();
        let one = all.get(&pid).ok_or_else(|| {
            QuarantineError::Unknown(format!(
                "there is no process {pid}, or it is the first, the agent or the kernel's"
            ))
        })?;
        let boot_id = Now::read().boot_id;
        Ok(Target::Key(Key::Process { pid, start_ticks: one.start_ticks, boot_id }))
    }

    /// Whether what a process carries says that a quarantine covers it.
    fn covered(&self, quarantine: &Quarantine) -> Result<impl Fn(&Carried) -> bool + use<>, QuarantineError> {
        let session = quarantine.session;
        let by_bit = quarantine.place.map(|place| 1u32 << (place % BARS));
        let number = match by_bit {
            Some(_) => 0,
            None => {
                let known = self.engine().ids.get(&quarantine.subject);
                known.ok_or_else(|| QuarantineError::NoSubject(quarantine.subject.clone()))?
            }
        };
        Ok(move |carried: &Carried| match by_bit {
            Some(bit) => carried.barred & RESCUED == 0 && carried.barred & bit != 0,
            None => carried.subject == number && session.is_none_or(|session| session == carried.session),
        })
    }

    /// The processes that are covered by what they carry.
    fn pids(&self, covered: &dyn Fn(&Carried) -> bool) -> Result<Vec<i32>, QuarantineError> {
        let all = self.label_reader().everybody()?;
        Ok(all.into_iter().filter(|(_, carried)| covered(carried)).map(|(pid, _)| pid).collect())
    }

    /// Whom a quarantine would cover now that process `caller` orders.
    fn reach(&self, target: &Target, caller: Option<i32>) -> Result<Reach, QuarantineError> {
        match target {
            Target::Subject { subject, session } => {
                let number = self.engine().ids.get(subject);
                let number = number.ok_or_else(|| QuarantineError::NoSubject(subject.clone()))?;
                let is =
                    |of: u32, in_session: u64| of == number && session.is_none_or(|one| one == in_session);
                let all = self.label_reader().all()?.into_iter();
                let covered = all.filter(|(_, of, in_session)| is(*of, *in_session)).map(|(pid, ..)| pid);
                Ok(Reach { all: BTreeMap::new(), covered: covered.collect(), spared: BTreeSet::new() })
            }
            Target::Key(key) => {
                let all = reach::everybody();
                let rescue = self.engine().rescue.clone();
                let spared = spared(key, &all, caller, &rescue);
                let mut covered = reach::of(key, &all);
                covered.retain(|pid| !spared.contains(pid));
                Ok(Reach { all, covered, spared })
            }
        }
    }

    /// What is to be said of whom it covers.
    fn covers(&self, target: &Target, reach: &Reach) -> Result<Covers, QuarantineError> {
        let process = |pid: &i32| CoveredProcess {
            pid: *pid,
            comm: comm(*pid),
            orphan: interrupt::parent(*pid) == Some(1),
            sockets: connections::sockets(*pid).len(),
        };
        let name = |subject: u32| self.subject_name(subject).unwrap_or_else(|| subject.to_string());
        let mut beyond = Vec::new();
        let (bound_to, not_covered) = match target {
            Target::Subject { session, .. } => {
                if session.is_some() {
                    let all = self.label_reader().all()?.into_iter();
                    let others =
                        all.filter(|(pid, _, of)| Some(*of) == *session && !reach.covered.contains(pid));
                    beyond = others.map(|(pid, subject, _)| (pid, name(subject))).collect();
                }
                let bound = "the label: whatever gets it from now on is covered as well, through restarts and reboots";
                let not = if session.is_some() { "a new session" } else { "what has become another subject" };
                (bound.to_owned(), not.to_owned())
            }
            Target::Key(key) => key.bound_to(),
        };
        let pids: Vec<i32> = reach.covered.iter().copied().collect();
        Ok(Covers {
            processes: reach.covered.iter().map(process).collect(),
            beyond,
            spared: reach.spared.iter().map(|pid| (*pid, comm(*pid))).collect(),
            connections: connections::of(&pids),
            bound_to,
            not_covered,
        })
    }
}

fn comm(pid: i32) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim_end().to_owned()
}

/// A unit that may be covered. Without its kind it is a service, as for systemctl(1).
fn unit_key(name: &str) -> Result<Key, QuarantineError> {
    let name = if name.contains('.') { name.to_owned() } else { format!("{name}.service") };
    if name.contains('/') || name.len() >= UNIT_NAME_MAX {
        return Err(QuarantineError::Unknown(format!("{name:?} is not the name of a unit")));
    }
    if NEVER_UNITS.contains(&name.as_str()) {
        let why = format!("{name} holds the first process, the agent, or everything: it is never covered");
        return Err(QuarantineError::Refused(why));
    }
    Ok(Key::Unit(name))
}

/// A cgroup that may be covered.
fn cgroup_key(path: &str) -> Result<Key, QuarantineError> {
    let path = format!("/{}", path.strip_prefix("/sys/fs/cgroup").unwrap_or(path).trim_matches('/'));
    let is_plain = !path.split('/').any(|part| part == "." || part == "..");
    if !is_plain || path.len() >= UNIT_NAME_MAX || !Path::new("/sys/fs/cgroup").join(&path[1..]).is_dir() {
        return Err(QuarantineError::Unknown(format!("there is no cgroup {path}, or its path is too long")));
    }
    if path == "/" {
        return Err(QuarantineError::Refused("this is the whole host: name the host".to_owned()));
    }
    Ok(Key::Cgroup(path))
}

/// A user who may be covered.
fn user_key(uid: u32) -> Result<Key, QuarantineError> {
    if uid == 0 {
        let why = "whatever the host needs runs as root: name the host, or a unit".to_owned();
        return Err(QuarantineError::Refused(why));
    }
    Ok(Key::User(uid))
}

/// A program that may be covered.
fn program_key(path: &Path) -> Result<Key, QuarantineError> {
    let unknown =
        |why: &dyn std::fmt::Display| QuarantineError::Unknown(format!("{}: {why}", path.display()));
    let whole: PathBuf = path.canonicalize().map_err(|error| unknown(&error))?;
    if !path.is_absolute() || !whole.is_file() {
        return Err(unknown(&"it is not the absolute path of a program"));
    }
    let is = |other: &str| fs::canonicalize(other).is_ok_and(|other| other == whole);
    if is("/proc/1/exe") || is("/proc/self/exe") {
        let why = format!("{} is the first process, or the agent: it is never covered", whole.display());
        return Err(QuarantineError::Refused(why));
    }
    Ok(Key::Program(whole))
}

fn level(name: &str) -> Result<Level, QuarantineError> {
    Level::from_name(name).ok_or_else(|| QuarantineError::NoLevel(name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_must_go_on_is_never_a_target() {
        for unit in NEVER_UNITS {
            assert!(matches!(unit_key(unit), Err(QuarantineError::Refused(_))), "{unit}");
        }
        assert_eq!(unit_key("web").unwrap(), Key::Unit("web.service".into()));
        assert!(matches!(user_key(0), Err(QuarantineError::Refused(_))) && user_key(1).is_ok());
        assert!(matches!(program_key(Path::new("/proc/self/exe")), Err(QuarantineError::Refused(_))));
        assert!(matches!(program_key(Path::new("/nonexistent")), Err(QuarantineError::Unknown(_))));
        assert!(unit_key("a/b.service").is_err() && cgroup_key("/../x").is_err());
    }

    #[test]
    fn permission_is_asked_on_what_is_named() {
        let on = |key| Target::Key(key).on();
        assert_eq!(on(Key::Host), On::Machine);
        assert_eq!(on(Key::Unit("web.service".into())), On::Processes("unit:web.service".into()));
        assert_eq!(on(Key::User(7)), On::Processes("uid:7".into()));
    }
}
