//! What each side should answer, by its own documented rules: needed to say that a difference is the one
//! which is known, and not another one that happens to give the same error numbers.
//!
//! Neither model takes part in the comparison: that is between the two kernels' answers. A difference counts
//! as explained only if both answers are exactly those of the models.

use nix::libc::{self, EACCES, EXDEV, c_int};

use crate::choose::{ASKS, OF_THE_DESCRIPTOR};
use crate::look::{Look, Place};
use crate::operation::{Answer, EXCHANGE, NOT_DONE, Node, Operation, Then};
use crate::rights::{
    BIND_TCP, CONNECT_TCP, EXECUTE, FILES, IOCTL_DEV, MAKE_BLOCK, MAKE_CHAR, MAKE_DIR, MAKE_FIFO, MAKE_REG,
    MAKE_SOCK, MAKE_SYM, OF_FILES, READ_DIR, READ_FILE, REFER, REMOVE_DIR, REMOVE_FILE, Rights, TRUNCATE,
    WRITE_FILE, make, remove,
};
use crate::rules::{Rules, is_above};
use crate::tree::full;

/// What one side should say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// The error number of a refusal.
    pub(crate) call: Option<i32>,
    /// That of a refusal of what is done then.
    pub(crate) then: Option<i32>,
    /// It is refused before the file was made.
    pub(crate) unmade: bool,
    /// Rights that were asked for.
    pub(crate) asked: Rights,
    /// Rights among them that no rule gives.
    pub(crate) missing: Rights,
}

impl Verdict {
    /// What comes of an operation that gives `control` where nobody restricts it.
    pub(crate) fn on(&self, control: Answer) -> Answer {
        let [call, then, there] = control;
        match self.call {
            Some(errno) => [errno, NOT_DONE, if self.unmade { 0 } else { there }],
            None => [call, if call == 0 { self.then.unwrap_or(then) } else { then }, there],
        }
    }

    /// Asks for rights where there are `given` ones; whether they are there.
    fn ask(&mut self, rights: Rights, given: Rights) -> bool {
        self.asked |= rights;
        self.missing |= rights & !given;
        rights & !given == 0
    }

    fn need(&mut self, rights: Rights, given: Rights) {
        if !self.ask(rights, given) {
            self.call = self.call.or(Some(EACCES));
        }
    }
}

/// How rules are found: Landlock by the objects that they were made for, Guard by names.
#[derive(Clone, Copy)]
struct View<'a> {
    rules: &'a Rules,
    names: bool,
}

impl View<'_> {
    fn beside(&self, place: &Place) -> Rights {
        if self.names { self.rules.named_beside(&place.path) } else { self.rules.beside(place) }
    }

    fn at(&self, place: &Place) -> Rights {
        if self.names { self.rules.named_at(&place.path) } else { self.rules.at(place) }
    }
}

/// What is asked of a file for these flags of open(2).
fn access(flags: c_int, kind: u32) -> Rights {
    let (read, write) = match flags & libc::O_ACCMODE {
        libc::O_RDONLY => (true, false),
        libc::O_WRONLY => (false, true),
        libc::O_RDWR => (true, true),
        _ => (false, false),
    };
    let read = match (read, kind == libc::S_IFDIR) {
        (true, true) => READ_DIR,
        (true, false) => READ_FILE,
        _ => 0,
    };
    read | if write { WRITE_FILE } else { 0 }
}

fn is_device(kind: u32) -> bool {
    kind == libc::S_IFCHR || kind == libc::S_IFBLK
}

/// What Landlock should say; by the names in the rules instead of their objects if `names`.
pub(crate) fn landlock(operation: &Operation, look: &Look, rules: &Rules, names: bool) -> Verdict {
    decide(operation, look, View { rules, names }, None)
}

/// What Guard should say under the translated rules.
pub(crate) fn guard(operation: &Operation, look: &Look, rules: &Rules) -> Verdict {
    decide(operation, look, View { rules, names: true }, Some(Guarded { rules }))
}

fn decide(operation: &Operation, look: &Look, view: View<'_>, guard: Option<Guarded<'_>>) -> Verdict {
    let mut verdict = Verdict::default();
    match operation {
        Operation::BindTcp { port, .. } => verdict.need(BIND_TCP, view.rules.port(*port)),
        Operation::ConnectTcp { port, .. } => verdict.need(CONNECT_TCP, view.rules.port(*port)),
        _ => {
            let Some(first) = &look.first else { return verdict };
            on_paths(&mut verdict, operation, first, look, view, guard);
        }
    }
    verdict
}

fn on_paths(
    verdict: &mut Verdict,
    operation: &Operation,
    first: &Place,
    look: &Look,
    view: View<'_>,
    guard: Option<Guarded<'_>>,
) {
    let beside = view.beside(first);
    match operation {
        Operation::Open { flags, then, .. } => open(verdict, *flags, *then, first, view, guard),
        Operation::Truncate { .. } => verdict.need(TRUNCATE, view.at(first)),
        Operation::List { .. } => verdict.need(READ_DIR, view.at(first)),
        Operation::MakeDirectory { .. } => verdict.need(MAKE_DIR, beside),
        Operation::RemoveDirectory { .. } => verdict.need(REMOVE_DIR, beside),
        Operation::Unlink { .. } => verdict.need(REMOVE_FILE, beside),
        Operation::Symlink { .. } => verdict.need(MAKE_SYM, beside),
        Operation::BindUnix { .. } => verdict.need(MAKE_SOCK, beside),
        Operation::MakeNode { node, .. } => {
            let right = match node {
                Node::File => MAKE_REG,
                Node::Fifo => MAKE_FIFO,
                Node::Socket => MAKE_SOCK,
                Node::Screen | Node::Full => MAKE_CHAR,
                Node::Block => MAKE_BLOCK,
            };
            verdict.need(right, beside);
        }
        Operation::Execute { .. } => {
            // What is not there is missed by the kernel before it asks anybody.
            let there = look.interpreters.iter().filter(|program| program.object.is_some());
            for program in std::iter::once(first).chain(there) {
                verdict.need(EXECUTE | READ_FILE, view.at(program));
            }
        }
        Operation::Link { .. } | Operation::Rename { .. } => {
            let (Some(second), Some(_)) = (&look.second, first.kind()) else { return };
            let flags = if let Operation::Rename { flags, .. } = operation { Some(*flags) } else { None };
            match guard {
                None => refer(verdict, first, second, flags, view),
                Some(guard) => verdict.call = guard.moves(first, second, flags),
            }
        }
        Operation::BindTcp { .. } | Operation::ConnectTcp { .. } => {}
    }
}

fn open(
    verdict: &mut Verdict,
    flags: c_int,
    then: Then,
    place: &Place,
    view: View<'_>,
    guard: Option<Guarded<'_>>,
) {
    if flags & libc::O_PATH != 0 {
        return;
    }
    let mut given = view.at(place);
    if flags & libc::O_TMPFILE == libc::O_TMPFILE {
        let inside = view.beside(&place.inside());
        verdict.need(access(flags, libc::S_IFREG), inside);
        if guard.is_some() {
            verdict.need(MAKE_REG, inside);
        }
        return;
    }
    let kind = place.kind();
    if kind.is_none() {
        if flags & libc::O_CREAT == 0 {
            return;
        }
        verdict.need(MAKE_REG, view.beside(place));
        if verdict.call.is_some() {
            verdict.unmade = true;
            return;
        }
    }
    let kind = kind.unwrap_or(libc::S_IFREG);
    if guard.is_some() {
        if is_known_device(place) {
            given = !view.rules.handled;
        }
        if flags & libc::O_ACCMODE == libc::O_ACCMODE && is_device(kind) {
            verdict.need(IOCTL_DEV, given);
        }
    }
    verdict.need(access(flags, kind), given);
    if verdict.call.is_some() {
        return;
    }
    if flags & libc::O_TRUNC != 0 && place.kind() == Some(libc::S_IFREG) {
        verdict.need(TRUNCATE, given);
    }
    let right = match then {
        // Without the right to write, the kernel refuses by itself.
        Then::Truncate(_) if kind == libc::S_IFREG && flags & libc::O_ACCMODE != libc::O_RDONLY => TRUNCATE,
        Then::Control(OF_THE_DESCRIPTOR) => 0,
        Then::Control(ASKS) if guard.is_some() => 0,
        Then::Control(_) if is_device(kind) => IOCTL_DEV,
        _ => 0,
    };
    if verdict.call.is_none() && !verdict.ask(right, given) {
        verdict.then = Some(EACCES);
    }
}

/// Whether Guard knows the device at a place by its number.
pub(crate) fn is_known_device(place: &Place) -> bool {
    place.object.as_ref().is_some_and(|object| object.kind == libc::S_IFCHR && object.device == full())
}

/// `current_check_refer_path` (security/landlock/fs.c); `flags` is nothing for a link.
fn refer(verdict: &mut Verdict, old: &Place, new: &Place, flags: Option<u32>, view: View<'_>) {
    let (Some(moved), other) = (old.kind(), new.kind()) else { return };
    let exchange = flags == Some(EXCHANGE);
    let (mut here, mut there) = (0, make(moved));
    if let (true, Some(other)) = (exchange, other) {
        here |= make(other);
    }
    if flags.is_some() {
        here |= remove(moved);
        there |= other.map_or(0, remove);
    }
    let (source, target) = (view.beside(old), view.beside(new));
    if old.directory() == new.directory() {
        verdict.need(here | there, source);
        return;
    }
    let has_all = verdict.ask(here | REFER, source) & verdict.ask(there | REFER, target);
    let gains = |kind: u32, from: Rights, to: Rights| {
        let counted = if kind == libc::S_IFDIR { FILES } else { OF_FILES };
        to & !from & counted & view.rules.handled != 0
    };
    let own = |place: &Place, beside: Rights| {
        if view.names { view.at(place) } else { beside | view.rules.of(place) }
    };
    let more = gains(moved, own(old, source), target)
        || exchange && other.is_some_and(|other| gains(other, own(new, target), source));
    let everything = view.rules.handled & FILES;
    if has_all && !more || everything & !(source & target) == 0 {
        return;
    }
    let refused = (here & !source | there & !target) != 0;
    verdict.call = Some(if refused { EACCES } else { EXDEV });
}

/// What Guard's actions are, in the terms of the rules that they were translated from.
#[derive(Clone, Copy)]
pub(crate) struct Guarded<'a> {
    pub(crate) rules: &'a Rules,
}

/// `file.rename`, `file.link` and `file.mknod` have no right of their own in Landlock.
const RENAME: Rights = 1 << 60;
const LINK: Rights = 1 << 61;
const MKNOD: Rights = 1 << 62;

impl Guarded<'_> {
    /// What is allowed at a place for something of this kind. Rights that nothing handles are there.
    fn allowed(&self, path: &str, kind: u32) -> Rights {
        let (at, beside) = (self.rules.named_at(path), self.rules.named_beside(path));
        let by_name = REMOVE_FILE | MAKE_SYM | MAKE_SOCK;
        let mut allowed = at & OF_FILES | beside & by_name;
        if allowed & READ_FILE == 0 {
            allowed &= !EXECUTE;
        }
        if !is_device(kind) {
            allowed |= IOCTL_DEV;
        }
        let create = if kind == libc::S_IFSOCK { MAKE_SOCK } else { MAKE_REG };
        if beside & create != 0 {
            allowed |= MAKE_REG;
        }
        if (is_device(kind) || kind == libc::S_IFIFO) && beside & make(kind) != 0 {
            allowed |= MKNOD;
        }
        if beside & REFER != 0 {
            allowed |= LINK | if beside & remove(kind) != 0 { RENAME } else { 0 };
        }
        allowed
    }

    /// Whether something of this kind may come into being at a place.
    fn may_make(&self, path: &str, kind: u32) -> bool {
        self.rules.named_beside(path) & make(kind) != 0
    }

    /// Whether policy names a place, or something below it.
    pub(crate) fn is_named(&self, path: &str) -> bool {
        self.rules.rules.iter().any(|rule| rule.path == path || is_above(path, &rule.path))
    }

    /// Whether a thing of this kind has more rights at the second place than at the first.
    pub(crate) fn gains(&self, kind: u32, from: &Place, to: &Place) -> bool {
        if kind == libc::S_IFDIR {
            let handled = self.rules.handled & FILES;
            let rights = |place: &Place| {
                let rights = self.rules.named_at(&place.path) & handled;
                if self.rules.named_at(&place.path) & READ_FILE == 0 { rights & !EXECUTE } else { rights }
            };
            self.is_named(&from.path) || self.is_named(&to.path) || rights(from) != rights(to)
        } else {
            self.allowed(&to.path, kind) & !self.allowed(&from.path, kind) != 0
        }
    }

    /// `path_link` and `path_rename` of guard-ebpf/src/names.rs.
    pub(crate) fn moves(&self, old: &Place, new: &Place, flags: Option<u32>) -> Option<i32> {
        let (moved, other) = (old.kind()?, new.kind());
        let is = |action: Rights, place: &Place, kind: u32| self.allowed(&place.path, kind) & action != 0;
        let Some(flags) = flags else {
            return if !is(LINK, old, moved) { Some(EACCES) } else { self.arrives(moved, old, new) };
        };
        if !is(RENAME, old, moved) {
            return Some(EACCES);
        }
        if let Some(other) = other {
            if flags == EXCHANGE {
                if !self.may_make(&old.path, other) || !is(RENAME, new, other) {
                    return Some(EACCES);
                }
                if self.gains(other, new, old) {
                    return Some(EXDEV);
                }
            } else if self.rules.named_beside(&new.path) & remove(other) == 0 {
                return Some(EACCES);
            }
        }
        self.arrives(moved, old, new)
    }

    fn arrives(&self, kind: u32, old: &Place, new: &Place) -> Option<i32> {
        if !self.may_make(&new.path, kind) {
            Some(EACCES)
        } else if self.gains(kind, old, new) {
            Some(EXDEV)
        } else {
            None
        }
    }
}
