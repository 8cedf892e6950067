//! Opening a session: who asks, with which variables, and the label that proves it.
//!
//! A process that is a subject itself may ask for a successor that its definition enters by adoption, and
//! only for one that may do no more: its label is exchanged then.
//!
//! The order is: know the caller, check what it asks for, record the session, give its variables a row,
//! label exactly this process, read the label back, answer. Whatever fails, nobody is told of a session
//! that does not exist; a process that was labelled meanwhile keeps the label, which allows it less.

use super::access::AccessError;
use super::engine::{ApplyError, Engine};
use super::labelling;
use super::modes::Now;
use super::serve::Shared;
use super::sessions::{Entered, MAX_OPEN, MAX_SEATS, MAX_SEATS_OF_USER, Opening};
use crate::api::types::{AdoptRequest, Adopted};
use crate::host::{Host, Lookup};
use crate::kernel::{KernelError, LabelReader, has_ended};
use crate::policy::verbs::Verb;
use crate::policy::{
    Account, Adopter, On, SubjectDefinition, Variable, VariableError, VariableKind, session_values,
};
use guard_common::label::{LabelRequest, NO_SUBJECT};
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{SFlag, fstat};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
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
    /// A subject opens sessions as its successors only.
    #[error("this process is itself subject to policy, as {0}, and may not open a session as {1}")]
    Labelled(String, String),
    /// Policy does not let whoever asks.
    #[error("{0}")]
    Access(#[from] AccessError),
    /// The threads of a process have one label.
    #[error(
        "this process has several threads, which cannot be exchanged at one moment: only one may ask for a successor"
    )]
    Threads,
    /// The session would have more rights than the subject that asks for it.
    #[error("with these variables {1} would be more than {0}: it may {2} and {0} may not")]
    Wider(String, String, String),
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
    /// The session could choose what begins a subject with more rights.
    #[error("with these variables the session could change {path}, with which a subject with more rights begins", path = .0.display())]
    Begins(PathBuf),
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
    parent: Option<Parent>,
}

/// The label of a caller that is a subject.
struct Parent {
    /// Number of the subject.
    subject: u32,
    /// The row that decides for it.
    row: u32,
    /// Name of the subject, and number of the session.
    kind: String,
    session: u64,
    /// Both, for people.
    name: String,
}

impl Shared {
    /// Opens a session for the calling process and labels it. Blocks for as long as a compile takes, if
    /// the session has variables.
    ///
    /// # Errors
    /// Why there is no session.
    pub fn adopt(&self, caller: &Caller, request: &AdoptRequest) -> Result<Adopted, AdoptError> {
        let checked = self.check(caller, request)?;
        let opened = {
            let mut engine = self.engine();
            let opened = engine.open_session(caller, checked, self.label_reader());
            self.lifting().learn(&engine);
            opened
        };
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
        let carried = self.label_reader().with_row(caller.process.as_fd()).map_err(identify)?;
        let host = Host::read().map_err(ApplyError::Host)?;
        let (bundle, definition, parent) = {
            let engine = self.engine();
            let live = engine.live.as_ref();
            let found = |name: &str| live?.bundle.subjects().find(|subject| subject.name == name);
            let definition = found(&request.subject);
            let parent = match carried {
                None => {
                    let may =
                        definition.is_some_and(|definition| may_open(definition, caller, &*host.lookup));
                    if !may {
                        return Err(not_permitted());
                    }
                    None
                }
                Some((subject, session, row)) => {
                    let named = engine.ids.name(subject).map_or_else(|| format!("#{subject}"), str::to_owned);
                    if !found(&named).is_some_and(|asks| asks.may_adopt(&request.subject)) {
                        return Err(AdoptError::Labelled(named, request.subject.clone()));
                    }
                    let name = if session == 0 { named.clone() } else { format!("{named}/{session}") };
                    Some(Parent { subject, row, kind: named, session, name })
                }
            };
            let (live, definition) = live.zip(definition).ok_or_else(not_permitted)?;
            (live.bundle.digest.clone(), definition.clone(), parent)
        };
        let on = On::Subject(request.subject.clone());
        match &parent {
            None => self.account_may(caller, Verb::Adopt, &on)?,
            Some(parent) => self.subject_may(&parent.kind, parent.session, Verb::Adopt, &on)?,
        }
        if parent.is_some() && threads(caller.pid) != Some(1) {
            return Err(AdoptError::Threads);
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
            parent: parent.as_ref().map(|parent| parent.name.clone()),
            variables,
        };
        Ok(Checked { bundle, opening, parent })
    }
}

impl Engine {
    fn open_session(
        &mut self,
        caller: &Caller,
        checked: Checked,
        labels: &LabelReader,
    ) -> Result<Adopted, AdoptError> {
        let Checked { bundle, opening, parent } = checked;
        if self.live.as_ref().is_none_or(|live| live.bundle.digest != bundle) {
            return Err(AdoptError::Changed);
        }
        self.room(&opening, labels)?;
        let subject = opening.subject.clone();
        let number = self.ids.get(&subject).ok_or(AdoptError::Changed)?;
        let replaces = parent.as_ref().map_or(NO_SUBJECT, |parent| parent.subject);
        let request = LabelRequest { replaces, ..LabelRequest::attach(opening.start_ticks, number) };
        let mut ids = self.ids.clone();
        let session = self.sessions.begin(opening, &mut ids, Now::read().wall)?;
        let labelled =
            self.number(ids).map_err(AdoptError::from).and_then(|()| self.seat(session)).and_then(|row| {
                let request = LabelRequest { row: row.unwrap_or(number), ..request.with_session(session) };
                if let Some(row) = row {
                    self.changes_no_beginning(row)?;
                }
                if let Some(parent) = &parent {
                    self.is_narrower(parent, &subject, request.row)?;
                }
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

    /// That a session may do no more than the subject that asks for it. Without variables the compiler has
    /// proven it.
    fn is_narrower(&self, parent: &Parent, subject: &str, row: u32) -> Result<(), AdoptError> {
        let Some(live) = &self.live else { return Err(AdoptError::Changed) };
        if self.ids.get(subject) == Some(row) {
            return Ok(());
        }
        let host = Host::read().map_err(ApplyError::Host)?;
        match live.compiled.wider(&live.bundle, &host, parent.row, row) {
            None => Ok(()),
            Some(more) => Err(AdoptError::Wider(parent.name.clone(), subject.to_owned(), more)),
        }
    }

    /// That what a session's variables name is not what a successor with more rights begins with.
    fn changes_no_beginning(&self, row: u32) -> Result<(), AdoptError> {
        let Some(live) = &self.live else { return Err(AdoptError::Changed) };
        let host = Host::read().map_err(ApplyError::Host)?;
        match live.compiled.changes_beginning(&live.bundle, &host, row) {
            None => Ok(()),
            Some(path) => Err(AdoptError::Begins(path)),
        }
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

    /// Finds out which sessions have ended, and which processes the others have and successors are.
    ///
    /// # Errors
    /// If processes cannot be looked at.
    pub(super) fn look_for_sessions(&mut self, labels: &LabelReader) -> Result<(), KernelError> {
        let successors: BTreeSet<u32> = self
            .live
            .iter()
            .flat_map(|live| live.compiled.exec_successors.iter().map(|begins| begins.successor))
            .collect();
        if self.sessions.is_idle() && successors.is_empty() {
            return Ok(());
        }
        let mut found: BTreeMap<i32, (u32, u64)> = BTreeMap::new();
        // A process that started while the others were listed may have been passed over.
        for _ in 0..2 {
            found.extend(labels.all()?.into_iter().map(|(pid, subject, session)| (pid, (subject, session))));
            let lasts = |id: u64| found.values().any(|(_, session)| *session == id);
            if self.sessions.open().all(|open| lasts(open.id)) {
                break;
            }
        }
        let mut processes: HashMap<u64, Vec<(i32, u64)>> = HashMap::new();
        let mut entered = Vec::new();
        for (pid, (number, session)) in found {
            let opened = self.sessions.get(session).map(|open| open.subject.as_str());
            let subject = self.ids.name(number);
            let start_ticks = || labelling::stat(pid).map_or(0, |(_, start)| start);
            match (opened, subject) {
                (Some(opened), Some(subject)) if opened != subject => {
                    let subject = subject.to_owned();
                    entered.push(Entered { pid, start_ticks: start_ticks(), subject, session });
                }
                (Some(_), _) => processes.entry(session).or_default().push((pid, start_ticks())),
                (None, Some(subject)) if successors.contains(&number) => {
                    let subject = subject.to_owned();
                    entered.push(Entered { pid, start_ticks: start_ticks(), subject, session });
                }
                (None, _) => {}
            }
        }
        match self.sessions.seen(processes, entered, Now::read().wall) {
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

/// How many threads a process has, as it says itself at this moment.
fn threads(pid: i32) -> Option<usize> {
    Some(std::fs::read_dir(format!("/proc/{pid}/task")).ok()?.count())
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
pub(crate) fn human(pid: i32) -> Option<u32> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/loginuid")).ok()?;
    text.trim().parse().ok().filter(|uid| *uid != u32::MAX)
}

/// The terminal of a process, if it has one.
pub(crate) fn terminal_of(pid: i32) -> Option<String> {
    terminal_name(labelling::terminal(pid)?.0)
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
            undecided: 0,
            artifacts: Arc::default(),
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
