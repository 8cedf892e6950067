//! One round: a tree three times over, a rule set, and operations that three processes make in step.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use fastrand::Rng;
use guard_tests::raw;
use guard_tests::users::Identity;
use nix::libc::{EACCES, S_IFREG};

use crate::choose;
use crate::differences::{Case, explain};
use crate::look::Look;
use crate::model::landlock;
use crate::operation::{Answer, EXCHANGE, Operation, words};
use crate::rights::Rights;
use crate::rules::{self, Rules};
use crate::tally::Tally;
use crate::tree;
use crate::worker::Worker;

/// Operations of one round.
pub(crate) const OPERATIONS: usize = 100;
/// Differences that are shown in full.
const SHOWN: u64 = 20;

/// `CAP_MKNOD` (include/uapi/linux/capability.h): device nodes can be made.
const MKNOD: u64 = 1 << 27;
/// Who is not restricted.
pub(crate) const FREE: Identity = Identity::new("oracle-free", 71_100).with(MKNOD);
/// Who is under Landlock.
pub(crate) const LANDLOCKED: Identity = Identity::new("oracle-landlock", 71_101).with(MKNOD);
/// Who has a label.
pub(crate) const SUBJECTS: [Identity; 4] = [
    Identity::new("oracle-0", 71_000).with(MKNOD),
    Identity::new("oracle-1", 71_001).with(MKNOD),
    Identity::new("oracle-2", 71_002).with(MKNOD),
    Identity::new("oracle-3", 71_003).with(MKNOD),
];

/// Everything of a round but the processes.
pub(crate) struct Round {
    number: u64,
    directory: PathBuf,
    pub(crate) rules: Rules,
    operations: Vec<Operation>,
    subject: Identity,
}

/// Where the trees of a round are.
const TREES: [&str; 3] = ["free", "landlock", "guard"];

impl Round {
    /// Plans round `number` and makes its trees in a directory of `place`.
    pub(crate) fn prepare(
        number: u64,
        rng: &mut Rng,
        place: &Path,
        subject: Identity,
        handled: Rights,
        ports: &[(u16, Rights)],
    ) -> Result<Self> {
        let directory = place.join(number.to_string());
        let things = tree::plan(rng);
        for tree in TREES {
            tree::build(&directory.join(tree), &things)?;
        }
        let rules = rules::paths(rng, handled, &things);
        let mut rules = Rules { handled, rules, ports: ports.to_vec() };
        rules.find(&directory.join("landlock")).context("look at what rules are for")?;
        let operations = choose::operations(rng, &things, OPERATIONS);
        Ok(Self { number, directory, rules, operations, subject })
    }

    /// The root of the tree that Guard judges.
    pub(crate) fn guarded(&self) -> PathBuf {
        self.directory.join("guard")
    }

    /// Makes at most `count` operations and compares.
    pub(crate) fn run(&self, count: usize, probe: &Path, seed: u64, tally: &mut Tally) -> Result<()> {
        tally.rounds += 1;
        let [free, landlocked, guarded] = TREES.map(|tree| self.directory.join(tree));
        let start = |who, root: &Path| Worker::start(who, root, &self.operations, probe, || Ok(()));
        let control = start(FREE, &free)?;
        let guard = start(self.subject, &guarded)?;
        let landlock = Worker::start(LANDLOCKED, &landlocked, &self.operations, probe, || {
            self.rules.restrict(&landlocked)
        })?;
        // READ_FILE is always handled, and no rule is about where the probe is.
        let probes = [control.probe()?, landlock.probe()?, guard.probe()?];
        ensure!(
            probes == [0, EACCES, EACCES],
            "round {}: reading {} gives {probes:?} without anything, under Landlock and under Guard",
            self.number,
            probe.display()
        );
        for (index, operation) in self.operations.iter().enumerate().take(count) {
            let look = Look::at(&landlocked, operation);
            let answers = [landlock.make(index)?, guard.make(index)?, control.make(index)?];
            let [by_landlock, by_guard, by_nobody] = answers;
            if by_landlock != by_guard {
                let case = Case {
                    operation,
                    look: &look,
                    rules: &self.rules,
                    landlock: by_landlock,
                    guard: by_guard,
                    control: by_nobody,
                };
                let explanation = explain(&case);
                tally.different(operation, explanation);
                if explanation.is_none() && tally.unexplained <= SHOWN {
                    self.show(seed, index, &case);
                }
                if operation.changes() {
                    tree::copy(&landlocked, &guarded, self.subject.uid)?;
                    tree::copy(&landlocked, &free, FREE.uid)?;
                }
            } else {
                self.agreed(operation, &look, by_guard, by_nobody, tally);
                let changed = by_nobody[0] == 0 && by_guard != by_nobody && operation.changes();
                if changed && !undo(operation, &look, &landlocked, &free)? {
                    tree::copy(&landlocked, &free, FREE.uid)?;
                }
            }
        }
        self.compare_trees(seed, tally)
    }

    fn agreed(&self, operation: &Operation, look: &Look, answer: Answer, control: Answer, tally: &mut Tally) {
        let verdict = landlock(operation, look, &self.rules, false);
        if verdict.on(control) != answer && answer != control {
            tally.unforeseen += 1;
        }
        tally.same(operation, answer, control, verdict.asked, verdict.missing);
    }

    /// After the last operation the three trees must be one.
    fn compare_trees(&self, seed: u64, tally: &mut Tally) -> Result<()> {
        let [free, landlocked, guarded] = TREES.map(|tree| tree::describe(&self.directory.join(tree)));
        let landlocked = landlocked?;
        for (name, tree) in [("Guard", guarded?), ("nothing", free?)] {
            if tree == landlocked {
                continue;
            }
            tally.unexplained += 1;
            if tally.unexplained <= SHOWN {
                println!("DIFFERENCE seed {seed} round {} after its last operation: trees", self.number);
                let only = |one: &[String], other: &[String], side: &str| {
                    for line in one.iter().filter(|line| !other.contains(line)) {
                        println!("  under {side}: {line}");
                    }
                };
                only(&landlocked, &tree, "Landlock");
                only(&tree, &landlocked, name);
            }
        }
        Ok(())
    }

    fn show(&self, seed: u64, index: usize, case: &Case<'_>) {
        println!(
            "DIFFERENCE seed {seed} round {} operation {index}: {} by {} in {}",
            self.number,
            case.operation,
            self.subject.name,
            self.directory.display()
        );
        println!("  without anything: {}", words(case.control));
        println!("  under Landlock:   {}", words(case.landlock));
        println!("  under Guard:      {}", words(case.guard));
        let place = |name: &str, place: &crate::look::Place| {
            let what = place
                .object
                .as_ref()
                .map_or("nothing".to_owned(), |it| format!("{:o} #{}", it.kind, it.inode));
            println!("  {name}: {:?}, {what} there", place.path);
        };
        if let Some(first) = &case.look.first {
            place("it", first);
        }
        if let Some(second) = &case.look.second {
            place("to", second);
        }
        case.look.interpreters.iter().for_each(|one| place("by", one));
        print!("{}", self.rules.lines());
        println!("  again: guard-oracle --seed {seed} --round {}", self.number);
    }

    /// Removes its trees.
    pub(crate) fn clear(&self) -> Result<()> {
        fs::remove_dir_all(&self.directory).with_context(|| format!("remove {}", self.directory.display()))
    }
}

/// Undoes in one tree what the other processes were not allowed to do in theirs, where that is simple:
/// whether it was.
fn undo(operation: &Operation, look: &Look, reference: &Path, tree: &Path) -> Result<bool> {
    let Some(first) = &look.first else { return Ok(false) };
    let (here, like) = (tree.join(&first.path), reference.join(&first.path));
    let there = look.second.as_ref().map(|second| tree.join(&second.path));
    let replaces = look.second.as_ref().is_some_and(|second| second.object.is_some());
    let done = match (operation, first.kind(), there) {
        (Operation::Open { .. } | Operation::Truncate { .. }, ..) if like.is_file() => {
            fs::read(&like).and_then(|content| fs::write(&here, content))
        }
        // What is written to a pipe or a device is in no tree.
        (Operation::Open { .. }, Some(kind), _) if kind != S_IFREG => Ok(()),
        (Operation::MakeDirectory { .. }, None, _) => fs::remove_dir(&here),
        (
            Operation::Open { .. }
            | Operation::Symlink { .. }
            | Operation::MakeNode { .. }
            | Operation::BindUnix { .. },
            None,
            _,
        ) => fs::remove_file(&here),
        (Operation::RemoveDirectory { .. }, Some(_), _) => fs::create_dir(&here)
            .and_then(|()| fs::metadata(&like))
            .and_then(|data| fs::set_permissions(&here, data.permissions())),
        (Operation::Link { .. }, Some(_), Some(there)) if !replaces => fs::remove_file(there),
        (Operation::Rename { flags: EXCHANGE, .. }, Some(_), Some(there)) => {
            raw::rename(&there, &here, EXCHANGE)
        }
        (Operation::Rename { .. }, Some(_), Some(there)) if !replaces => raw::rename(&there, &here, 0),
        _ => return Ok(false),
    };
    done.with_context(|| format!("undo {operation} in {}", tree.display()))?;
    Ok(true)
}
