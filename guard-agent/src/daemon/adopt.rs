//! Opening a session: who asks, with which variables, and the label that proves it.
//!
//! The order is: know the caller, check what it asks for, record the session, give its variables a row,
//! label exactly this process, read the label back, answer. Whatever fails, nobody is told of a session
//! that does not exist; a process that was labelled meanwhile keeps the label, which allows it less.

use super::engine::{ApplyError, Engine};
use super::labelling;
use super::modes::Now;
use super::serve::Shared;
use super::sessions::{MAX_OPEN, MAX_SEATS, MAX_SEATS_OF_USER, Opening};
use crate::api::types::{AdoptRequest, Adopted};
use crate::host::{Host, Lookup};
use crate::kernel::{KernelError, LabelReader, has_ended};
use crate::policy::{
    Account, Adopter, SubjectDefinition, Variable, VariableError, VariableKind, session_values,
};
use guard_common::label::LabelRequest;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{SFlag, fstat};
use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

/// Who asks for a session.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The process itself, held.
    pub process: Arc<OwnedFd>,
    /// Its number.
    pub pid: i32,
    /// Effective user id when it connected.
    pub uid: u32,
    /// Effective group id when it connected.
    pub gid: u32,
    /// Supplementary groups when it connected.
    pub groups: Vec<u32>,
}

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
pub enum AdoptError {
    /// The policy does not let this caller. Whether there is such a subject is not told.
    #[error(
        "you may not open a session as {0}: no subject of that name names you or a group of yours in its `adopt`"
    )]
    NotPermitted(String),
    /// A subject opens no sessions.
    #[error("this process is itself subject to policy, as {0}, and may not open a session as {1}")]
    Labelled(String, String),
    /// The caller cannot be told apart.
    #[error("the caller cannot be identified: {0}")]
    Unknown(String),
    /// A variable has no value that is allowed.
    #[error("{0}")]
    Variable(#[from] VariableError),
    /// What a variable names is not what it must be.
    #[error("{name}: {path}: {why}")]
    Named {
        /// The variable.
        name: String,
        /// Its value.
        path: String,
        /// Why it is refused.
        why: String,
    },
    /// There are too many.
    #[error("{0}")]
    TooMany(String),
    /// The policy changed meanwhile.
    #[error("the policy changed meanwhile: try again")]
    Changed,
    /// The variables have no place in the tables.
    #[error("what the variables name cannot be a literal of a policy on this host: {0}")]
    NoPlace(String),
    /// It could not be recorded.
    #[error("the session cannot be recorded: {0}")]
    Store(#[from] io::Error),
    /// The tables could not be made or switched.
    #[error("{0}")]
    Apply(#[from] ApplyError),
    /// The kernel side failed.
    #[error("{0}")]
    Kernel(#[from] KernelError),
    /// The label did not come out as it was asked for.
    #[error("the process could not be labelled; it may carry a label already, or has ended")]
    NotLabelled,
}

/// What was found out about a caller and what it asks for, without holding anything up.
struct Checked {
    /// Digest of the bundle that it was checked by.
    bundle: String,
    opening: Opening,
}

impl Shared {
    /// Opens a session for the calling process and labels it. Blocks for as long as a compile takes, if
    /// the session has variables.
    ///
    /// # Errors
    /// Why there is no session.
    pub fn adopt(&self, caller: &Caller, request: &AdoptRequest) -> Result<Adopted, AdoptError> {
        let checked = self.check(caller, request)?;
        let opened = self.engine().open_session(caller, checked, self.label_reader());
        match &opened {
            Ok(adopted) => tracing::info!(
                subject = adopted.subject,
                session = adopted.session,
                pid = caller.pid,
                uid = caller.uid,
                reason = request.reason,
                "a session was opened"
            ),
            Err(error) => tracing::warn!(
                subject = request.subject,
                pid = caller.pid,
                uid = caller.uid,
                "no session was opened: {error}"
            ),
        }
        opened
    }

    fn check(&self, caller: &Caller, request: &AdoptRequest) -> Result<Checked, AdoptError> {
        let not_permitted = || AdoptError::NotPermitted(request.subject.clone());
        let identify = |error: KernelError| AdoptError::Unknown(error.to_string());
        if let Some((subject, _)) = self.label_reader().of(caller.process.as_fd()).map_err(identify)? {
            let subject = self.subject_name(subject).unwrap_or_else(|| format!("#{subject}"));
            return Err(AdoptError::Labelled(subject, request.subject.clone()));
        }
        let (bundle, definition) = {
            let engine = self.engine();
            let live = engine.live.as_ref().ok_or_else(not_permitted)?;
            let found = live.bundle.subjects().find(|subject| subject.name == request.subject);
            (live.bundle.digest.clone(), found.cloned().ok_or_else(not_permitted)?)
        };
        let host = Host::read().map_err(ApplyError::Host)?;
        if !may_open(&definition, caller, &*host.lookup) {
            return Err(not_permitted());
        }
        let account = account(caller.uid);
        let variables = session_values(&definition.variables, &request.variables, account.as_ref())?;
        for (name, path) in &variables {
            if let Some(variable) = definition.variables.get(name) {
                look(variable, path, caller.uid, &host).map_err(|why| AdoptError::Named {
                    name: name.clone(),
                    path: path.clone(),
                    why,
                })?;
            }
        }
        let (terminal, start_ticks) = labelling::terminal(caller.pid).unwrap_or_default();
        let human = human(caller.pid);
        // What was read by its number is about the process if that has not ended.
        match has_ended(caller.process.as_fd()) {
            Ok(false) if start_ticks != 0 => {}
            _ => return Err(AdoptError::Unknown("it has ended".to_owned())),
        }
        let opening = Opening {
            subject: request.subject.clone(),
            uid: caller.uid,
            user: account.map(|account| account.user),
            human,
            tty: terminal_name(terminal),
            pid: caller.pid,
            start_ticks,
            reason: request.reason.clone(),
            variables,
        };
        Ok(Checked { bundle, opening })
    }
}

impl Engine {
    fn open_session(
        &mut self,
        caller: &Caller,
        checked: Checked,
        labels: &LabelReader,
    ) -> Result<Adopted, AdoptError> {
        let Checked { bundle, opening } = checked;
        if self.live.as_ref().is_none_or(|live| live.bundle.digest != bundle) {
            return Err(AdoptError::Changed);
        }
        self.room(&opening, labels)?;
        let subject = opening.subject.clone();
        let number = self.ids.get(&subject).ok_or(AdoptError::Changed)?;
        let request = LabelRequest::attach(opening.start_ticks, number);
        let mut ids = self.ids.clone();
        let session = self.sessions.begin(opening, &mut ids, Now::read().wall)?;
        let labelled =
            self.number(ids).map_err(AdoptError::from).and_then(|()| self.seat(session)).and_then(|row| {
                let request = LabelRequest { row: row.unwrap_or(number), ..request.with_session(session) };
                self.kernel.label_requested(&[(caller.pid, request)])?;
                match labels.with_row(caller.process.as_fd()) {
                    Ok(Some(label)) if label == (number, session, request.row) => Ok(()),
                    _ => Err(AdoptError::NotLabelled),
                }
            });
        if let Err(error) = labelled {
            self.sessions.abandon(session, Now::read().wall);
            return Err(error);
        }
        Ok(Adopted { schema: Adopted::SCHEMA.to_owned(), subject, session })
    }

    /// Whether there is room for one more session. Those that have ended are noticed first.
    fn room(&mut self, opening: &Opening, labels: &LabelReader) -> Result<(), AdoptError> {
        let full = |engine: &Self| {
            let seated = |uid: Option<u32>| {
                let of_user = engine.sessions.open().filter(|open| uid.is_none_or(|uid| open.uid == uid));
                of_user.filter(|open| !open.variables.is_empty()).count()
            };
            if engine.sessions.open().count() >= MAX_OPEN {
                Some(format!("there are {MAX_OPEN} open sessions on this host, which is the limit"))
            } else if opening.variables.is_empty() {
                None
            } else if seated(Some(opening.uid)) >= MAX_SEATS_OF_USER {
                Some(format!("you have {MAX_SEATS_OF_USER} open sessions with variables, which is the limit"))
            } else if seated(None) >= MAX_SEATS {
                Some(format!("there are {MAX_SEATS} open sessions with variables, which is the limit"))
            } else {
                None
            }
        };
        if full(self).is_some() {
            self.look_for_sessions(labels)?;
        }
        full(self).map_or(Ok(()), |why| Err(AdoptError::TooMany(why)))
    }

    /// Gives a session with variables its row in the tables, and says which.
    fn seat(&mut self, session: u64) -> Result<Option<u32>, AdoptError> {
        let Some(row) = self.sessions.row(session) else { return Ok(None) };
        self.recompile()?;
        match &self.live {
            Some(live) if live.compiled.has_row(row) && !live.unseated.contains(&session) => Ok(Some(row)),
            _ => Err(AdoptError::NoPlace(
                "it lies on no file system that the agent sees, leads through a symbolic link, or is one \
                 too many"
                    .to_owned(),
            )),
        }
    }

    /// Finds out which sessions have ended, and which processes the others have.
    ///
    /// # Errors
    /// If processes cannot be looked at.
    pub(super) fn look_for_sessions(&mut self, labels: &LabelReader) -> Result<(), KernelError> {
        if self.sessions.open().next().is_none() {
            return Ok(());
        }
        let mut found = labels.sessions()?;
        if self.sessions.open().any(|open| !found.contains_key(&open.id)) {
            // A process that started while the others were listed may have been passed over.
            for (session, processes) in labels.sessions()? {
                found.entry(session).or_insert(processes);
            }
        }
        let known = |pids: Vec<i32>| {
            pids.into_iter().map(|pid| (pid, labelling::stat(pid).map_or(0, |(_, start)| start))).collect()
        };
        let found: HashMap<u64, Vec<(i32, u64)>> =
            found.into_iter().map(|(session, pids)| (session, known(pids))).collect();
        match self.sessions.seen(found, Now::read().wall) {
            Ok(ended) => {
                for session in ended {
                    tracing::info!(session, "a session has ended");
                }
            }
            Err(error) => tracing::error!("what became of sessions is not recorded: {error}"),
        }
        Ok(())
    }
}

/// Whether a subject's definition lets this caller open a session.
fn may_open(definition: &SubjectDefinition, caller: &Caller, lookup: &dyn Lookup) -> bool {
    definition.adopt.iter().any(|adopter| match adopter {
        Adopter::User(name) => number(name, |name| lookup.user(name)) == Some(caller.uid),
        Adopter::Group(name) => number(name, |name| lookup.group(name))
            .is_some_and(|gid| gid == caller.gid || caller.groups.contains(&gid)),
    })
}

/// The number that a policy means by a name or a number.
fn number(name: &str, look_up: impl Fn(&str) -> Option<u32>) -> Option<u32> {
    name.parse().ok().or_else(|| look_up(name))
}

fn account(uid: u32) -> Option<Account> {
    let user = nix::unistd::User::from_uid(uid.into()).ok().flatten()?;
    Some(Account { user: user.name, home: user.dir.to_str()?.to_owned() })
}

/// Whether what a variable names is what it must be, as the agent sees it: nothing on the way is a
/// symbolic link, and it belongs to the caller if it has to.
fn look(variable: &Variable, path: &str, uid: u32, host: &Host) -> Result<(), String> {
    // A file system that a user serves could keep the agent waiting for ever.
    let served = |kind: &str| kind == "fuse" || kind.starts_with("fuse.") || kind == "fuseblk";
    let on_the_way = |point: &Path| Path::new(path).starts_with(point);
    if let Some(mount) = host.mounts.iter().find(|mount| served(&mount.kind) && on_the_way(&mount.point)) {
        return Err(format!("{} is a file system in user space", mount.point.display()));
    }
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let file = openat2(AT_FDCWD, path, how).map_err(|errno| match errno {
        nix::errno::Errno::ELOOP => "a symbolic link is on the way".to_owned(),
        errno => errno.desc().to_owned(),
    })?;
    let status = fstat(&file).map_err(|errno| errno.desc().to_owned())?;
    let is_directory = SFlag::from_bits_truncate(status.st_mode & SFlag::S_IFMT.bits()) == SFlag::S_IFDIR;
    match variable.kind {
        VariableKind::Dir if !is_directory => Err("this is not a directory".to_owned()),
        VariableKind::File if is_directory => Err("this is a directory".to_owned()),
        _ if variable.owned && status.st_uid != uid => Err("it does not belong to you".to_owned()),
        _ => Ok(()),
    }
}

/// The user who logged in; nothing if nobody did.
fn human(pid: i32) -> Option<u32> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/loginuid")).ok()?;
    text.trim().parse().ok().filter(|uid| *uid != u32::MAX)
}

/// The name of a terminal by its device number (Documentation/admin-guide/devices.txt).
fn terminal_name(device: u32) -> Option<String> {
    let (major, minor) = (device >> 8 & 0xfff, device & 0xff | device >> 12 & 0xfff00);
    match major {
        0 => None,
        136..=143 => Some(format!("pts/{}", (major - 136) * (1 << 20) + minor)),
        4 if minor < 64 => Some(format!("tty{minor}")),
        4 => Some(format!("ttyS{}", minor - 64)),
        _ => Some(format!("{major}:{minor}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Fixed;

    fn definition(adopt: &str) -> SubjectDefinition {
        let toml = format!(
            "[bundle]\nname = \"x\"\nversion = 1\nprofile = 1\n[subjects.coder]\ngoverns = [\"*\"]\nselector = {{ adopt = {adopt} }}\n"
        );
        let directory =
            std::env::temp_dir().join(format!("guard-adopt-{}-{}", std::process::id(), adopt.len()));
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join("guard.toml"), toml).unwrap();
        let bundle = crate::policy::load(&directory).unwrap();
        std::fs::remove_dir_all(&directory).unwrap();
        bundle.subjects().next().unwrap().clone()
    }

    fn caller(uid: u32, gid: u32, groups: &[u32]) -> Caller {
        let process = Arc::new(std::fs::File::open("/dev/null").unwrap().into());
        Caller { process, pid: 1, uid, gid, groups: groups.to_vec() }
    }

    #[test]
    fn the_policy_says_who_may_open_a_session() {
        let host = Fixed {
            users: [("ann".to_owned(), 1000)].into(),
            groups: [("developers".to_owned(), 50)].into(),
            ..Fixed::default()
        };
        let definition = definition("[\"user:ann\", \"group:developers\", \"user:7\"]");
        let may = |uid, gid, groups: &[u32]| may_open(&definition, &caller(uid, gid, groups), &host);
        assert!(may(1000, 1, &[]) && may(7, 1, &[]) && may(2, 50, &[]) && may(2, 1, &[3, 50]));
        assert!(!may(0, 0, &[0]) && !may(2, 1, &[3]) && !may(50, 1000, &[7]));
    }

    #[test]
    fn terminals_have_names() {
        let device = |major: u32, minor: u32| major << 8 | minor & 0xff | (minor & 0xfff00) << 12;
        assert_eq!(terminal_name(device(136, 3)).as_deref(), Some("pts/3"));
        assert_eq!(terminal_name(device(136, 300)).as_deref(), Some("pts/300"));
        assert_eq!(terminal_name(device(4, 1)).as_deref(), Some("tty1"));
        assert_eq!(terminal_name(device(4, 64)).as_deref(), Some("ttyS0"));
        assert_eq!(terminal_name(0), None);
    }

    #[test]
    fn what_a_variable_names_is_looked_at_without_following_anything() {
        let base =
            std::env::temp_dir().canonicalize().unwrap().join(format!("guard-look-{}", std::process::id()));
        std::fs::create_dir_all(base.join("tree/sub")).unwrap();
        std::fs::write(base.join("tree/file"), b"").unwrap();
        std::os::unix::fs::symlink(base.join("tree"), base.join("link")).unwrap();
        let host = Host {
            mounts: Vec::new(),
            resolvers: Vec::new(),
            protected: Vec::new(),
            lookup: Arc::new(Fixed::default()),
        };
        let own = nix::unistd::geteuid().as_raw();
        let variable = |kind, owned| Variable { kind, under: None, owned, value: None };
        let look = |variable: &Variable, path: &str, uid| {
            super::look(variable, &base.join(path).display().to_string(), uid, &host)
        };
        let dir = variable(VariableKind::Dir, true);
        assert_eq!(look(&dir, "tree/sub", own), Ok(()));
        assert!(look(&dir, "tree/file", own).is_err() && look(&dir, "tree/none", own).is_err());
        for link in ["link", "link/sub"] {
            assert_eq!(look(&dir, link, own), Err("a symbolic link is on the way".to_owned()));
        }
        assert_eq!(look(&dir, "tree", own + 1), Err("it does not belong to you".to_owned()));
        assert_eq!(look(&variable(VariableKind::Dir, false), "tree", own + 1), Ok(()));
        let file = variable(VariableKind::File, true);
        assert!(look(&file, "tree/file", own).is_ok() && look(&file, "tree", own).is_err());
        std::fs::remove_dir_all(&base).unwrap();
    }
}
