//! The sessions of this host: a file in the state directory.
//!
//! A session is on the disk before anybody is told of it, and its number is never given again. It ends
//! when no process carries its label any more; what is known of it is kept for a while.

use crate::bundle::{replace, set_aside};
use crate::events::time::rfc3339;
use crate::policy::{Seat, SubjectIds};
use guard_common::label::LabelRequest;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};

/// The one format of the file.
const FORMAT: u32 = 1;
/// Ended sessions that are kept.
const MAX_ENDED: usize = 1000;
/// Open sessions, at most.
pub(super) const MAX_OPEN: usize = 4096;
/// Open sessions with variables, at most: each has a row in the tables.
pub(super) const MAX_SEATS: usize = 256;
/// The same for one user.
pub(super) const MAX_SEATS_OF_USER: usize = 32;

/// One running instance of a subject.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Session {
    /// Its number.
    pub id: u64,
    /// The subject.
    pub subject: String,
    /// Effective user id of whoever opened it.
    pub uid: u32,
    /// The name of that user, if it has one.
    pub user: Option<String>,
    /// The user who logged in (`loginuid`, see pam_loginuid(8)); null if nobody did.
    pub human: Option<u32>,
    /// The terminal it was opened on.
    pub tty: Option<String>,
    /// The process that it began with.
    pub pid: i32,
    /// When that process began, in clock ticks since boot.
    pub start_ticks: u64,
    /// Why, in the words of whoever opened it.
    pub reason: Option<String>,
    /// The subject, and its session, of the process that opened it, if that carried a label.
    #[serde(default)]
    pub parent: Option<String>,
    /// Values of its variables.
    #[serde(default)]
    pub variables: BTreeMap<String, String>,
    /// When it was opened, RFC 3339 UTC.
    pub started: String,
    /// When it was found to have ended, RFC 3339 UTC; null while it lasts.
    pub ended: Option<String>,
    /// Processes that carry its label, as they were when they were looked for last: number and start.
    #[serde(default)]
    pub processes: Vec<(i32, u64)>,
    /// Its row in the tables, if it has one of its own: processes may carry its number for as long as it lasts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    row: Option<u32>,
}

/// What a session is opened with.
pub(super) struct Opening {
    pub(super) subject: String,
    pub(super) uid: u32,
    pub(super) user: Option<String>,
    pub(super) human: Option<u32>,
    pub(super) tty: Option<String>,
    pub(super) pid: i32,
    pub(super) start_ticks: u64,
    pub(super) reason: Option<String>,
    pub(super) parent: Option<String>,
    pub(super) variables: BTreeMap<String, String>,
}

/// A process that has become a successor by what it executed: nothing else says so when an agent starts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entered {
    /// Its number.
    pub(super) pid: i32,
    /// When it began, in clock ticks since boot.
    pub(super) start_ticks: u64,
    /// What it is.
    pub(super) subject: String,
    /// The session that it is in; 0 = none.
    pub(super) session: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Contents {
    format: u32,
    /// The boot in which the numbers of processes count.
    boot_id: String,
    next: u64,
    sessions: Vec<Session>,
    /// Successors, whatever session they are in, as they were when they were looked for last.
    #[serde(default)]
    entered: Vec<Entered>,
}

/// What is known of sessions.
#[derive(Debug)]
pub(super) struct Sessions {
    file: PathBuf,
    contents: Contents,
    /// Why the file could not be used.
    pub(super) lost: Option<String>,
}

impl Sessions {
    /// Reads what is known. A file that cannot be used is renamed and said; numbers then go on from one
    /// that was never reached.
    pub(super) fn read(state_dir: &Path, boot_id: &str, now: i64) -> Self {
        let file = state_dir.join("sessions.json");
        let empty = |next| Contents {
            format: FORMAT,
            boot_id: boot_id.to_owned(),
            next,
            sessions: Vec::new(),
            entered: Vec::new(),
        };
        let (mut contents, lost) = match parse(&file) {
            Ok(Some(contents)) => (contents, None),
            Ok(None) => (empty(1), None),
            Err(why) => {
                let lost = set_aside(&file, &why, "earlier sessions are not known any more");
                // Microseconds since 1970: more sessions than that were never opened.
                (empty((now.unsigned_abs() / 1000).max(1)), Some(lost))
            }
        };
        if contents.boot_id != boot_id || boot_id.is_empty() {
            // Every process of then is gone.
            for session in contents.sessions.iter_mut().filter(|session| session.ended.is_none()) {
                session.ended = Some(rfc3339(now));
                session.processes.clear();
            }
            contents.entered.clear();
            contents.boot_id = boot_id.to_owned();
        }
        Self { file, contents, lost }
    }

    /// All of them, oldest first.
    pub(super) fn all(&self) -> &[Session] {
        &self.contents.sessions
    }

    /// Those that last.
    pub(super) fn open(&self) -> impl Iterator<Item = &Session> {
        self.contents.sessions.iter().filter(|session| session.ended.is_none())
    }

    /// The session with this number.
    pub(super) fn get(&self, id: u64) -> Option<&Session> {
        self.contents.sessions.iter().find(|session| session.id == id)
    }

    /// Opens a session. Once this returns it is on the disk. A session with variables has a row then.
    ///
    /// # Errors
    /// If the file cannot be written; nothing was opened then, and the number is not used.
    pub(super) fn begin(&mut self, opening: Opening, ids: &mut SubjectIds, now: i64) -> io::Result<u64> {
        let mut contents = self.contents.clone();
        let id = contents.next;
        contents.next += 1;
        let row = (!opening.variables.is_empty()).then(|| ids.row(&self.rows()));
        contents.sessions.push(Session {
            id,
            subject: opening.subject,
            uid: opening.uid,
            user: opening.user,
            human: opening.human,
            tty: opening.tty,
            pid: opening.pid,
            start_ticks: opening.start_ticks,
            reason: opening.reason,
            parent: opening.parent,
            variables: opening.variables,
            started: rfc3339(now),
            ended: None,
            processes: vec![(opening.pid, opening.start_ticks)],
            row,
        });
        self.write(contents)?;
        Ok(id)
    }

    /// Whether nobody has to be looked for: no session lasts, and nobody was a successor.
    pub(super) fn is_idle(&self) -> bool {
        self.open().next().is_none() && self.contents.entered.is_empty()
    }

    /// Says which processes carry which session's label, and which of them, or of others, are successors; a
    /// session without any has ended. Returns the sessions that ended with that.
    ///
    /// # Errors
    /// If the file cannot be written; what is known stays as it was then.
    pub(super) fn seen(
        &mut self,
        mut processes: HashMap<u64, Vec<(i32, u64)>>,
        entered: Vec<Entered>,
        now: i64,
    ) -> io::Result<Vec<u64>> {
        let mut contents = self.contents.clone();
        let mut ended = Vec::new();
        for session in contents.sessions.iter_mut().filter(|session| session.ended.is_none()) {
            session.processes = processes.remove(&session.id).unwrap_or_default();
            let lasts = |one: &Entered| one.session == session.id;
            if session.processes.is_empty() && !entered.iter().any(lasts) {
                session.ended = Some(rfc3339(now));
                ended.push(session.id);
            }
        }
        contents.entered = entered;
        if contents.sessions != self.contents.sessions || contents.entered != self.contents.entered {
            self.write(contents)?;
        }
        Ok(ended)
    }

    /// Gives a session a row of its own. Once this returns that is on the disk.
    ///
    /// # Errors
    /// If the file cannot be written; it has none then.
    pub(super) fn seat(&mut self, id: u64, ids: &mut SubjectIds) -> io::Result<()> {
        let row = ids.row(&self.rows());
        let mut contents = self.contents.clone();
        if let Some(session) = contents.sessions.iter_mut().find(|session| session.id == id) {
            session.row = Some(row);
        }
        self.write(contents)
    }

    /// Ends a session that could not be opened after all.
    pub(super) fn abandon(&mut self, id: u64, now: i64) {
        let mut contents = self.contents.clone();
        if let Some(session) = contents.sessions.iter_mut().find(|session| session.id == id) {
            session.ended = Some(rfc3339(now));
            session.processes.clear();
        }
        if let Err(error) = self.write(contents) {
            tracing::error!("the end of session {id} is not recorded: {error}");
        }
    }

    /// The sessions that need rows of their own in the tables.
    pub(super) fn seats(&self) -> Vec<Seat> {
        let seat = |session: &Session| {
            Some(Seat {
                row: session.row?,
                session: session.id,
                subject: session.subject.clone(),
                variables: session.variables.clone(),
            })
        };
        self.open().filter_map(seat).collect()
    }

    /// The row that decides for a label, if it is not its subject's.
    pub(super) fn row(&self, session: u64) -> Option<u32> {
        self.open().find(|open| open.id == session)?.row
    }

    fn rows(&self) -> BTreeSet<u32> {
        self.open().filter_map(|session| session.row).collect()
    }

    /// Gives rows to the sessions that the agent found when it started, and says which processes were
    /// theirs, and which were successors.
    pub(super) fn resume(&mut self, ids: &mut SubjectIds) -> Vec<(i32, LabelRequest)> {
        let mut requests = Vec::new();
        for at in 0..self.contents.sessions.len() {
            let taken = self.rows();
            let session = &mut self.contents.sessions[at];
            if session.ended.is_some() {
                continue;
            }
            // A subject that has no number was never carried by anybody.
            let Some(subject) = ids.get(&session.subject) else { continue };
            if !session.variables.is_empty() && session.row.is_none() {
                session.row = Some(ids.row(&taken));
            }
            let row = session.row.unwrap_or(subject);
            requests.extend(session.processes.iter().map(|(pid, start_ticks)| {
                let request = LabelRequest::attach(*start_ticks, subject).with_session(session.id);
                (*pid, LabelRequest { row, ..request })
            }));
        }
        requests.extend(self.contents.entered.iter().filter_map(|one| {
            let subject = ids.get(&one.subject)?;
            Some((one.pid, LabelRequest::attach(one.start_ticks, subject).with_session(one.session)))
        }));
        requests
    }

    fn write(&mut self, mut contents: Contents) -> io::Result<()> {
        let ended = contents.sessions.iter().filter(|session| session.ended.is_some()).count();
        let mut excess = ended.saturating_sub(MAX_ENDED);
        contents.sessions.retain(|session| {
            let drop = excess > 0 && session.ended.is_some();
            excess -= usize::from(drop);
            !drop
        });
        replace(&self.file, &serde_json::to_vec(&contents)?, 0o600)?;
        self.contents = contents;
        Ok(())
    }
}

fn parse(file: &Path) -> Result<Option<Contents>, String> {
    let bytes = match std::fs::read(file) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    let contents: Contents = serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
    let highest = contents.sessions.iter().map(|session| session.id).max().unwrap_or(0);
    if contents.format != FORMAT {
        Err(format!("it has format {}, and this agent reads format {FORMAT}", contents.format))
    } else if contents.next == 0 || contents.next <= highest {
        Err("it would give a number again".to_owned())
    } else {
        Ok(Some(contents))
    }
}

#[cfg(test)]
#[path = "sessions_tests.rs"]
mod tests;
