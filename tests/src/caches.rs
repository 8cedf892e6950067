//! What the programs remember of directories, against everything that moves files and directories
//! while labelled processes open them on every processor.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, ensure};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, RenameFlags, openat, renameat2};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::stat::Mode;
use nix::unistd::Pid;

use crate::attempt::{self, Outcome, Running};
use crate::bundle::{Bundle, permit, within};
use crate::case::Case;
use crate::daemon::Daemon;
use crate::family::{Part, tests};
use crate::layout::{self, TREES};
use crate::puppet::Puppet;
use crate::raw::{self, SharedCounters};
use crate::users::AGENT;

pub(crate) const PART: Part = Part {
    name: "caches",
    bundle: Ok,
    prepare: layout::create,
    tests: tests!(
        others: [
            what_is_remembered_is_where_it_was,
            a_new_directory_is_not_taken_for_one_whose_memory_it_has,
            no_verdict_is_older_than_the_place_of_the_file,
            an_answer_is_not_given_again_for_what_has_changed,
        ],
    ),
};

/// What is opened again and again, as the same process, so that it has been answered.
fn an_answer_is_not_given_again_for_what_has_changed(case: &Case<'_>) -> Result<()> {
    let tree = layout::path("answers");
    layout::empty_directory(&tree)?;
    let open = tree.join("open");
    layout::directory(&open)?;
    layout::directory(&tree.join("shut"))?;
    let own = format!("({}) && resource.owner == {}", within(std::slice::from_ref(&open)), AGENT.uid);
    let bundle = Bundle::new("answers")
        .subject("agent", "user = \"agent\"")
        .policy("agent", permit("own", "agent", &["file.read"], &own));
    let short = open.join("file");
    // Beyond what lies in a directory entry itself.
    let long = open.join("a-file-whose-name-is-longer-than-thirty-one-bytes");
    let made = |file: &Path, owner: u32| -> Result<()> {
        layout::file(file, b"x\n")?;
        std::os::unix::fs::chown(file, Some(owner), None).context("chown")
    };
    for file in [&short, &long] {
        made(file, AGENT.uid)?;
    }
    made(&open.join("fil"), 0)?;
    made(&open.join("filf"), 0)?;
    let daemon = Daemon::start("answers", &bundle)?;
    let mut puppet = Puppet::start(AGENT)?;
    let rounds = if case.full { 500 } else { 20 };
    for _ in 0..rounds {
        for file in [&short, &long] {
            for _ in 0..3 {
                puppet.is_allowed(file)?;
            }
            // Attributes.
            std::os::unix::fs::chown(file, Some(0), None).context("chown")?;
            puppet.is_refused(file).context("another owner")?;
            std::os::unix::fs::chown(file, Some(AGENT.uid), None).context("chown")?;
            puppet.is_allowed(file).context("the first owner again")?;
            // Another file by the same name.
            let other = open.join("other");
            made(&other, 0)?;
            fs::rename(&other, file).context("rename")?;
            puppet.is_refused(file).context("another file by this name")?;
            made(file, AGENT.uid)?;
            fs::remove_file(file).context("remove")?;
            made(file, AGENT.uid)?;
            puppet.is_allowed(file).context("made anew")?;
            // The same file by another name, and its directory by another.
            let shut = tree.join("shut/file");
            fs::rename(file, &shut).context("rename")?;
            puppet.is_refused(&shut).context("elsewhere")?;
            fs::rename(&shut, file).context("rename back")?;
            puppet.is_allowed(file).context("back")?;
            let name = file.file_name().context("a name")?;
            fs::rename(&open, tree.join("away")).context("rename the directory")?;
            puppet.is_refused(&tree.join("away").join(name)).context("in a directory that has moved")?;
            fs::rename(tree.join("away"), &open).context("rename the directory back")?;
            puppet.is_allowed(file).context("in a directory that is back")?;
        }
        // Names that begin or hash alike.
        puppet.is_refused(&open.join("fil"))?;
        puppet.is_refused(&open.join("filf"))?;
    }
    case.tried(rounds * 20);
    puppet.end()?;
    daemon.stop().map(drop)
}

/// Grace periods after which callbacks that were waiting for one have run.
const GRACE_PERIODS: usize = 3;
/// Directories that are removed and made elsewhere together, so that memory is used again.
const REMADE: u64 = 32;

// What the workers and the mover share.
const STOP: usize = 0;
/// Odd while something is moved; grows with every move.
const MOVES: usize = 1;
/// A [`State`], valid while `MOVES` is even and the same before and after.
const STATE: usize = 2;
/// Operations tried.
const OPERATIONS: usize = 3;
/// Those during which nothing moved, so that there is one right answer.
const STEADY: usize = 4;
/// Wrong answers.
const WRONG: usize = 5;
/// Workers that have opened their directories.
const READY: usize = 6;
/// The first wrong answer: number of the operation + 1, its state, its error number.
const FIRST: usize = 7;
/// Right refusals and right successes, so that both were seen.
const REFUSED: usize = 8;
const ALLOWED: usize = 9;
/// Steady operations of the worker on each processor begin here.
const BY_WORKER: usize = 10;
const MOST_WORKERS: usize = 4;

/// Where everything is.
#[derive(Clone, Copy)]
struct State(u64);

impl State {
    const PACK: u64 = 1;
    const SWAPPED: u64 = 2;
    /// Two bits: where the remade directories are, see [`Place`].
    const REMADE: u64 = 4;
    /// Two bits: what is mounted.
    const MOUNTED: u64 = 16;

    fn has(self, bit: u64) -> bool {
        self.0 & bit != 0
    }

    fn place(self, field: u64) -> Place {
        match self.0 / field % 4 {
            0 => Place::Nowhere,
            1 => Place::Open,
            _ => Place::Shut,
        }
    }

    fn with_place(self, field: u64, place: Place) -> Self {
        Self((self.0 & !(3 * field)) | (place as u64 * field))
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Nowhere = 0,
    /// Below the directory that policy permits.
    Open = 1,
    /// Below the one that it does not.
    Shut = 2,
}

/// What an open gives.
fn expected(place: Place) -> i32 {
    match place {
        Place::Nowhere => Errno::ENOENT as i32,
        Place::Open => 0,
        Place::Shut => Errno::EACCES as i32,
    }
}

/// The directories of one file system.
struct Tree(PathBuf);

impl Tree {
    fn at(&self, relative: &str) -> PathBuf {
        self.0.join(relative)
    }

    fn prepare(&self) -> Result<()> {
        for directory in ["open", "shut", "mounted"] {
            layout::empty_directory(&self.at(directory))?;
        }
        for file in [
            "open/pack/deep/down/file",
            "open/a/file",
            "shut/b/file",
            "open/linked",
            "open/m/file",
            "shut/m/file",
        ] {
            layout::file(&self.at(file), b"content\n")?;
        }
        fs::hard_link(self.at("open/linked"), self.at("shut/linked")).context("link")
    }

    fn rename(&self, from: &str, to: &str) -> Result<()> {
        fs::rename(self.at(from), self.at(to)).with_context(|| format!("rename {from} to {to}"))
    }
}

fn bundle() -> Bundle {
    let open: Vec<PathBuf> = trees().map(|(_, tree)| tree.at("open")).collect();
    let policy = permit("open", "agent", &["file.*"], &within(&open))
        .replace("action in [Guard::Action::\"file.*\"]", "action in Guard::Action::\"file.*\"");
    Bundle::new("caches").subject("agent", "user = \"agent\"").policy("caches", policy)
}

fn trees() -> impl Iterator<Item = (&'static str, Tree)> {
    TREES.iter().map(|(kind, root)| (*kind, Tree(Path::new(root).join("caches"))))
}

/// One operation after the other, each of which must find what the one before left.
fn what_is_remembered_is_where_it_was(case: &Case<'_>) -> Result<()> {
    for (_, tree) in trees() {
        tree.prepare()?;
    }
    let daemon = Daemon::start("remembered", &bundle())?;
    for (kind, tree) in trees() {
        let mut puppet = Puppet::start(AGENT)?;
        let mut steps = || -> Result<()> {
            let (file, open, shut) = ("pack/deep/down/file", tree.at("open"), tree.at("shut"));
            for _ in 0..3 {
                puppet.is_allowed(&open.join(file))?;
                tree.rename("open/pack", "shut/pack")?;
                puppet.is_refused(&shut.join(file))?;
                puppet.is_allowed(&open.join("linked"))?;
                puppet.is_refused(&shut.join("linked"))?;
                tree.rename("shut/pack", "open/pack")?;
                case.tried(4);
            }
            Ok(())
        };
        steps().with_context(|| format!("on {kind}"))?;
        puppet.end()?;
    }
    daemon.stop().map(drop)
}

/// Directories come to lie where others lay in the kernel's memory, names and all, without any rename.
fn a_new_directory_is_not_taken_for_one_whose_memory_it_has(case: &Case<'_>) -> Result<()> {
    let rounds = if case.full { 100 } else { 10 };
    for (_, tree) in trees() {
        tree.prepare()?;
    }
    let daemon = Daemon::start("reused", &bundle())?;
    // Memory is given out again by the processor that it was given back on.
    let everywhere = sched_getaffinity(Pid::from_raw(0)).context("processors of this process")?;
    let mut first = CpuSet::new();
    first.set(0).context("the first processor")?;
    sched_setaffinity(Pid::from_raw(0), &first).context("stay on one processor")?;
    let again = |tree: &Tree| -> Result<()> {
        let mut puppet = Puppet::start(AGENT)?;
        for round in 0..rounds {
            for place in [Place::Open, Place::Shut] {
                make(tree, place)?;
                for number in 0..REMADE {
                    let file = remade(tree, place, number).join("file");
                    let tried = match place {
                        Place::Shut => puppet.is_refused(&file),
                        _ => puppet.is_allowed(&file),
                    };
                    tried.with_context(|| format!("in round {round}"))?;
                    case.tried(1);
                }
                remove(tree, place)?;
                // What was removed is given back when no processor can be looking at it.
                for _ in 0..GRACE_PERIODS {
                    raw::wait_for_every_processor().context("membarrier")?;
                }
            }
        }
        puppet.end()
    };
    let result = trees().try_for_each(|(kind, tree)| again(&tree).with_context(|| format!("on {kind}")));
    sched_setaffinity(Pid::from_raw(0), &everywhere).context("use all processors again")?;
    result?;
    daemon.stop().map(drop)
}

fn no_verdict_is_older_than_the_place_of_the_file(case: &Case<'_>) -> Result<()> {
    for (_, tree) in trees() {
        tree.prepare()?;
    }
    let daemon = Daemon::start("caches", &bundle())?;
    let wanted = if case.full { 20_000 } else { 4_000 };
    for (kind, tree) in trees() {
        churn(case, &tree, wanted).with_context(|| format!("on {kind}"))?;
    }
    daemon.stop().map(drop)
}

/// Moves things about until so many operations had one right answer.
fn churn(case: &Case<'_>, tree: &Tree, wanted: u64) -> Result<()> {
    let counters = SharedCounters::new().context("share memory")?;
    let workers =
        std::thread::available_parallelism().context("count the processors")?.get().min(MOST_WORKERS);
    let running = (0..workers)
        .map(|number| attempt::start(AGENT, || work(tree, &counters, number)))
        .collect::<Result<Vec<_>>>()?;
    let moved = move_about(tree, &counters, workers, wanted, &running);
    counters.at(STOP).store(1, Ordering::SeqCst);
    for worker in running {
        let outcome = worker.outcome()?;
        ensure!(outcome == Outcome::Worked, "a worker: {outcome:?}");
    }
    moved?;
    let count = |index| counters.at(index).load(Ordering::SeqCst);
    case.tried(count(OPERATIONS));
    ensure!(
        count(WRONG) == 0,
        "{} of {} steady operations had a wrong answer; the first: {}",
        count(WRONG),
        count(STEADY),
        describe(count(FIRST))
    );
    ensure!(count(REFUSED) > 0 && count(ALLOWED) > 0, "not both answers were seen");
    Ok(())
}

fn describe(first: u64) -> String {
    let (operation, state, errno) = (first >> 40, first >> 16 & 0xff, first & 0xffff);
    format!("operation {}, state {state:#b}, error number {errno}", operation.wrapping_sub(1))
}

/// Random numbers that need no quality.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

fn move_about(
    tree: &Tree,
    counters: &SharedCounters,
    workers: usize,
    wanted: u64,
    running: &[Running],
) -> Result<()> {
    let load = |index: usize| counters.at(index).load(Ordering::SeqCst);
    let alive = || -> Result<()> {
        for worker in running {
            ensure!(Path::new(&format!("/proc/{}/fd", worker.pid())).exists(), "a worker is gone");
        }
        Ok(())
    };
    attempt::eventually("every worker is ready", || Ok(load(READY) == workers as u64))?;
    let mut random = Random(0x5eed_1234_5678_9abc);
    let mut state = State(0);
    let mut round: u64 = 0;
    while load(STEADY) < wanted && load(WRONG) == 0 {
        round += 1;
        // Some moves close together, during which opens begin and end, then a rest.
        for _ in 0..=random.below(4) {
            counters.at(MOVES).fetch_add(1, Ordering::SeqCst);
            state = one_move(tree, state, &mut random, round)?;
            counters.at(STATE).store(state.0, Ordering::SeqCst);
            counters.at(MOVES).fetch_add(1, Ordering::SeqCst);
        }
        let before: Vec<u64> = (0..workers).map(|number| load(BY_WORKER + number)).collect();
        attempt::eventually("every worker has opened something since the last move", || {
            alive()?;
            Ok((0..workers).all(|number| load(BY_WORKER + number) >= before[number] + 2 * REMADE))
        })?;
    }
    // Leaves nothing mounted; from here on, nothing is compared any more.
    counters.at(MOVES).fetch_add(1, Ordering::SeqCst);
    if state.place(State::MOUNTED) != Place::Nowhere {
        umount2(&tree.at("mounted"), MntFlags::MNT_DETACH).context("unmount")?;
    }
    Ok(())
}

/// Changes one thing.
fn one_move(tree: &Tree, state: State, random: &mut Random, round: u64) -> Result<State> {
    Ok(match random.below(12) {
        0..4 => {
            let (from, to) =
                if state.has(State::PACK) { ("shut/pack", "open/pack") } else { ("open/pack", "shut/pack") };
            tree.rename(from, to)?;
            State(state.0 ^ State::PACK)
        }
        4..7 => {
            let (a, b) = (tree.at("open/a"), tree.at("shut/b"));
            renameat2(AT_FDCWD, &a, AT_FDCWD, &b, RenameFlags::RENAME_EXCHANGE).context("exchange")?;
            State(state.0 ^ State::SWAPPED)
        }
        7..11 => {
            let place = state.place(State::REMADE);
            remove(tree, place)?;
            let next = if place == Place::Open { Place::Shut } else { Place::Open };
            if round.is_multiple_of(16) {
                fs::write("/proc/sys/vm/drop_caches", "2").context("drop caches")?;
            }
            make(tree, next)?;
            state.with_place(State::REMADE, next)
        }
        // A mount also makes the daemon look at the host anew.
        _ => {
            let at = tree.at("mounted");
            if state.place(State::MOUNTED) == Place::Nowhere {
                let next = if random.below(2) == 0 { Place::Open } else { Place::Shut };
                let source = tree.at(if next == Place::Open { "open/m" } else { "shut/m" });
                mount(Some(&source), &at, None::<&str>, MsFlags::MS_BIND, None::<&str>).context("bind")?;
                state.with_place(State::MOUNTED, next)
            } else {
                umount2(&at, MntFlags::MNT_DETACH).context("unmount")?;
                state.with_place(State::MOUNTED, Place::Nowhere)
            }
        }
    })
}

fn remade(tree: &Tree, place: Place, number: u64) -> PathBuf {
    tree.at(&format!("{}/new-{number}", if place == Place::Open { "open" } else { "shut" }))
}

fn make(tree: &Tree, place: Place) -> Result<()> {
    for number in 0..REMADE {
        layout::file(&remade(tree, place, number).join("file"), b"content\n")?;
    }
    Ok(())
}

fn remove(tree: &Tree, place: Place) -> Result<()> {
    if place == Place::Nowhere {
        return Ok(());
    }
    for number in 0..REMADE {
        let directory = remade(tree, place, number);
        fs::remove_dir_all(&directory).with_context(|| format!("remove {}", directory.display()))?;
    }
    Ok(())
}

/// The directories that a worker holds, whose place changes under it.
struct Held {
    down: OwnedFd,
    first: OwnedFd,
    second: OwnedFd,
}

fn hold(path: &Path) -> io::Result<OwnedFd> {
    Ok(nix::fcntl::open(path, OFlag::O_PATH | OFlag::O_DIRECTORY, Mode::empty())?)
}

/// Opens without a pause, and compares each answer with where the file is.
fn work(tree: &Tree, counters: &SharedCounters, number: usize) -> io::Result<()> {
    let mut own = CpuSet::new();
    own.set(number)?;
    sched_setaffinity(Pid::from_raw(0), &own)?;
    let held = Held {
        down: hold(&tree.at("open/pack/deep/down"))?,
        first: hold(&tree.at("open/a"))?,
        second: hold(&tree.at("shut/b"))?,
    };
    counters.at(READY).fetch_add(1, Ordering::SeqCst);
    let mut operation = number as u64;
    while counters.at(STOP).load(Ordering::SeqCst) == 0 {
        operation += 1;
        one_operation(tree, &held, counters, number, operation % (2 * REMADE))?;
    }
    Ok(())
}

fn one_operation(
    tree: &Tree,
    held: &Held,
    counters: &SharedCounters,
    worker: usize,
    operation: u64,
) -> io::Result<()> {
    let at = |index: usize| -> &AtomicU64 { counters.at(index) };
    let before = at(MOVES).load(Ordering::SeqCst);
    let state = State(at(STATE).load(Ordering::SeqCst));
    let within = |directory: &OwnedFd| openat(directory, "file", OFlag::O_RDONLY, Mode::empty());
    let named = |path: &Path| nix::fcntl::open(path, OFlag::O_RDONLY, Mode::empty());
    let place = |is_shut: bool| if is_shut { Place::Shut } else { Place::Open };
    let (result, right) = if operation < REMADE {
        let place = state.place(State::REMADE);
        let somewhere = if place == Place::Nowhere { Place::Open } else { place };
        (named(&remade(tree, somewhere, operation).join("file")), place)
    } else {
        match operation % 6 {
            0 | 1 => (within(&held.down), place(state.has(State::PACK))),
            2 => (within(&held.first), place(state.has(State::SWAPPED))),
            3 => (within(&held.second), place(!state.has(State::SWAPPED))),
            4 => {
                let is_shut = operation & 2 != 0;
                (named(&tree.at(if is_shut { "shut/linked" } else { "open/linked" })), place(is_shut))
            }
            _ => (named(&tree.at("mounted/file")), state.place(State::MOUNTED)),
        }
    };
    let answer = result.map_or_else(|errno| errno as i32, |_| 0);
    let steady = before % 2 == 0 && at(MOVES).load(Ordering::SeqCst) == before;
    at(OPERATIONS).fetch_add(1, Ordering::SeqCst);
    let is_known = [0, Errno::EACCES as i32, Errno::ENOENT as i32].contains(&answer);
    if steady {
        at(STEADY).fetch_add(1, Ordering::SeqCst);
        at(BY_WORKER + worker).fetch_add(1, Ordering::SeqCst);
    }
    if !is_known || steady && answer != expected(right) {
        at(WRONG).fetch_add(1, Ordering::SeqCst);
        let first = (operation + 1) << 40 | state.0 << 16 | answer as u64 & 0xffff;
        let _ = at(FIRST).compare_exchange(0, first, Ordering::SeqCst, Ordering::SeqCst);
    } else if steady {
        at(if answer == 0 { ALLOWED } else { REFUSED }).fetch_add(1, Ordering::SeqCst);
    }
    Ok(())
}
