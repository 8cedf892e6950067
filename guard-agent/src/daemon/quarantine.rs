//! Quarantine: a subject, or one of its sessions, is denied what a level says, before every policy, at once, and
//! until somebody releases it.
//!
//! Written down first, then told to the kernel, where it is part of the masks of each row that it covers; then
//! whoever waits inside a call is woken, so that the call is decided again.

use super::access::AccessError;
use super::apart::ApartError;
use super::engine::Engine;
use super::evidence;
use super::interrupt;
use super::leases::{LeaseError, Person, at};
use super::modes::Now;
use super::serve::Shared;
use super::windows;
use crate::api::types::{CoveredProcess, Covers, QuarantineAnswer, QuarantineRequest, ReleaseRequest};
use crate::kernel::KernelError;
use crate::ledger::{LedgerError, NewQuarantine, Quarantine};
use guard_common::quarantine::Level;
use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};

/// So many are listed.
const LISTED: u32 = 1000;

/// Why nothing is in quarantine, or released.
#[derive(Debug, thiserror::Error)]
pub enum QuarantineError {
    /// The live bundle has no such subject.
    #[error("the live bundle has no subject {0}: `guardctl status` lists them")]
    NoSubject(String),
    /// There is no such session, or it cannot be told from its subject.
    #[error("{0}")]
    Session(#[from] ApartError),
    /// The process is not subject to policy.
    #[error("process {0} carries no label: only subjects and their sessions can be put in quarantine")]
    NoLabel(i32),
    /// It is not said who is meant.
    #[error("name a subject, one of its sessions, or a process")]
    Target,
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
    /// A subject means itself.
    #[error("{0} may not put itself in quarantine")]
    Oneself(String),
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
pub struct Target {
    /// The subject.
    pub subject: String,
    session: Option<u64>,
}

impl Target {
    fn name(&self) -> String {
        match self.session {
            Some(session) => format!("{}/{session}", self.subject),
            None => self.subject.clone(),
        }
    }
}

impl Engine {
    fn is_known(&self, target: &Target) -> Result<(), QuarantineError> {
        let subjects = self.live.iter().flat_map(|live| live.bundle.subjects());
        if !subjects.into_iter().any(|known| known.name == target.subject) {
            return Err(QuarantineError::NoSubject(target.subject.clone()));
        }
        match target.session {
            Some(id) => Ok(self.is_session(&target.subject, id)?),
            None => Ok(()),
        }
    }

    /// Tells the kernel what counts of everybody whom a quarantine covers or covered.
    fn tell_covered(&mut self, quarantine: &Quarantine) -> Result<(), KernelError> {
        let now = Now::read();
        let Some(live) = &self.live else { return Ok(()) };
        let windows = windows::from_now_on(&live.bundle, &now);
        let mut rows = self.rows(&live.compiled);
        rows.retain(|holder| {
            holder.subject == quarantine.subject
                && quarantine.session.is_none_or(|session| session == holder.session)
        });
        self.tell_rows(rows, &windows, &now)
    }

    fn confine(&mut self, target: &Target, order: &Order<'_>) -> Result<Quarantine, QuarantineError> {
        self.is_known(target)?;
        if let Some(id) = target.session {
            self.tell_apart(&target.subject, id)?;
        }
        let now = Now::read();
        let new = NewQuarantine {
            subject: &target.subject,
            session: target.session,
            level: order.level,
            lasts: order.lasts,
            by: order.by,
            reason: order.reason,
        };
        let quarantine = self.ledger.confine(&new, at(&now))?;
        if let Err(error) = self.tell_covered(&quarantine) {
            // What cannot be enforced must not look as if it were.
            let by = "the agent, which could not make it so";
            if let Err(error) = self.ledger.release(quarantine.id, by, &error.to_string(), at(&now)) {
                tracing::error!("quarantine {} is recorded and not in force: {error}", quarantine.id);
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
    lasts: Option<Duration>,
    by: &'a str,
    reason: &'a str,
}

impl Shared {
    /// Puts a subject, or a session, in quarantine, or says whom that would cover.
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
        self.is_no_descendant(person.pid).map_err(QuarantineError::Caller)?;
        self.put_in_quarantine(target, request, person)
    }

    /// The same for somebody who is known to be allowed to.
    pub(super) fn put_in_quarantine(
        &self,
        target: &Target,
        request: &QuarantineRequest,
        person: &Person,
    ) -> Result<QuarantineAnswer, QuarantineError> {
        let begun = Instant::now();
        let level = level(&request.level)?;
        let covers = self.covers(target)?;
        let mut answer = QuarantineAnswer {
            schema: QuarantineAnswer::SCHEMA.to_owned(),
            target: target.name(),
            quarantine: None,
            covers,
            in_force_us: None,
            unfinished: Vec::new(),
        };
        if request.dry_run {
            self.engine().is_known(target)?;
            return Ok(answer);
        }
        let found = request.evidence.then(|| {
            let pids: Vec<i32> = answer.covers.processes.iter().map(|process| process.pid).collect();
            evidence::collect(&pids, &target.subject, self.store())
        });
        let order = Order {
            level,
            lasts: request.seconds.map(Duration::from_secs),
            by: &person.text,
            reason: &request.reason,
        };
        let mut quarantine = {
            let mut engine = self.engine();
            let quarantine = engine.confine(target, &order)?;
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
        let covered = self.covered(target)?;
        let wait = level == Level::Write || level >= Level::Full;
        let stopped = interrupt::stop(self.label_reader(), &covered, wait)?;
        answer.in_force_us = Some(u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX));
        answer.unfinished.clone_from(&stopped.unfinished);
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
        let (quarantine, before) = {
            let mut engine = self.engine();
            let result = engine.loosen(id, to, &person.text, &request.reason)?;
            self.ledger_changed(&engine);
            result
        };
        let target = Target { subject: quarantine.subject.clone(), session: quarantine.session };
        tracing::warn!(
            quarantine.id,
            target = target.name(),
            to = to.map_or("none", Level::name),
            by = person.text,
            reason = request.reason,
            "a quarantine was loosened"
        );
        if before == Level::Freeze && !self.is_frozen(&target) {
            interrupt::resume(self.label_reader(), &self.covered(&target)?)?;
        }
        Ok(QuarantineAnswer {
            schema: QuarantineAnswer::SCHEMA.to_owned(),
            target: target.name(),
            covers: self.covers(&target)?,
            quarantine: Some(quarantine),
            in_force_us: None,
            unfinished: Vec::new(),
        })
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

    /// Whether another quarantine keeps its processes stopped.
    fn is_frozen(&self, target: &Target) -> bool {
        let engine = self.engine();
        engine
            .quarantines_in_force(&Now::read())
            .iter()
            .any(|one| one.level == Level::Freeze && one.covers(&target.subject, target.session.unwrap_or(0)))
    }

    /// Who is meant.
    ///
    /// # Errors
    /// If nobody is.
    pub fn quarantine_target(&self, request: &QuarantineRequest) -> Result<Target, QuarantineError> {
        match (&request.subject, request.session, request.pid) {
            (Some(subject), session, None) => Ok(Target { subject: subject.clone(), session }),
            (None, None, Some(pid)) => {
                let label = self.label(pid).ok().flatten().ok_or(QuarantineError::NoLabel(pid))?;
                let subject = self.subject_name(label.0).ok_or(QuarantineError::NoLabel(pid))?;
                let session = Some(label.1).filter(|session| *session != 0);
                let engine = self.engine();
                // A successor is in a session that was opened as another subject.
                let own =
                    session.and_then(|id| engine.sessions.get(id)).is_some_and(|one| one.subject == subject);
                Ok(Target { subject, session: session.filter(|_| own) })
            }
            _ => Err(QuarantineError::Target),
        }
    }

    /// Whether a label is one that a quarantine covers.
    fn covered(&self, target: &Target) -> Result<impl Fn(u32, u64) -> bool + use<>, QuarantineError> {
        let id = self.engine().ids.get(&target.subject);
        let id = id.ok_or_else(|| QuarantineError::NoSubject(target.subject.clone()))?;
        let session = target.session;
        Ok(move |subject, of| subject == id && session.is_none_or(|session| session == of))
    }

    /// The processes that a quarantine covers now.
    fn covers(&self, target: &Target) -> Result<Covers, QuarantineError> {
        let is = self.covered(target)?;
        let all = self.label_reader().all()?;
        let pids: BTreeSet<i32> =
            all.iter().filter(|(_, subject, session)| is(*subject, *session)).map(|(pid, ..)| *pid).collect();
        let process = |pid: &i32| {
            let parent = interrupt::parent(*pid);
            CoveredProcess {
                pid: *pid,
                comm: fs::read_to_string(format!("/proc/{pid}/comm"))
                    .unwrap_or_default()
                    .trim_end()
                    .to_owned(),
                orphan: parent == Some(1),
                sockets: sockets(*pid),
            }
        };
        let beyond = all
            .iter()
            .filter(|(_, subject, session)| target.session == Some(*session) && !is(*subject, *session));
        let name = |subject: u32| self.subject_name(subject).unwrap_or_else(|| subject.to_string());
        Ok(Covers {
            processes: pids.iter().map(process).collect(),
            beyond: beyond.map(|(pid, subject, _)| (*pid, name(*subject))).collect(),
        })
    }
}

fn level(name: &str) -> Result<Level, QuarantineError> {
    Level::from_name(name).ok_or_else(|| QuarantineError::NoLevel(name.to_owned()))
}

/// How many sockets a process has open.
fn sockets(pid: i32) -> usize {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let is_socket = |path: std::path::PathBuf| {
        fs::read_link(path).is_ok_and(|target| target.to_string_lossy().starts_with("socket:"))
    };
    descriptors.filter(|entry| is_socket(entry.path())).count()
}
