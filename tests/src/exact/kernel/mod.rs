//! The comparison in a guest: the real daemon, random bundles, random system calls by labelled
//! processes, and the same calls by a process without a label to tell Guard's refusals from others.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use fastrand::Rng;
use guard_agent::host::Host;
use guard_agent::policy::{Diagnostics, Facts, Oracle, SubjectIds, compile};
use guard_tests::bundle::{Bundle, permit, within};
use guard_tests::daemon::Daemon;
use guard_tests::layout;
use nix::sched::{CloneFlags, unshare};
use serde_json::Value;

mod call;
mod choose;
mod expect;
mod ground;
mod mailbox;
pub(crate) mod reference;
mod scene;
mod worker;

use call::{BEFORE, Call};
use expect::{Decision, Expected};
use scene::Scene;
use worker::Worker;

use crate::generate::{self, SUBJECTS};
use crate::minimise;
use crate::model::Model;
use crate::report;
use crate::words::Words;
use crate::world::pick;

/// Calls for one bundle.
const CALLS: u64 = 120;
/// Bundles that are tried before the generator is given up.
const TRIES: usize = 100;

/// How a run ended.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// Calls that were compared.
    pub(crate) decisions: u64,
    /// Of these, refused ones.
    pub(crate) refused: u64,
    /// Of these, calls on what is of a built-in class and has a name.
    pub(crate) on_ground: u64,
    /// Decisions that were reported because the candidate policy set denies them.
    pub(crate) reported: u64,
    /// Bundles.
    pub(crate) bundles: u64,
    /// Calls that fail for everybody, or whose resource is gone.
    pub(crate) without_answer: u64,
    /// The first counter-example, on a screen.
    pub(crate) counter_example: Option<String>,
}

/// Compares `cases` calls.
pub(crate) fn run(cases: u64, seed: u64) -> Result<Outcome> {
    let mut rng = Rng::with_seed(seed);
    let scene = Scene::make(&mut rng)?;
    let daemon = start()?;
    // Nothing that is connected to leads anywhere.
    unshare(CloneFlags::CLONE_NEWNET).context("leave the network")?;
    layout::directory(Path::new(ground::TMPFS))?;
    let ground = rng.u64(..);
    let (labelled, unlabelled) = (Worker::labelled(ground)?, Worker::unlabelled_grounded(ground)?);
    let mut stage = Stage { scene, daemon, labelled, unlabelled, applied: 0 };
    let mut outcome = Outcome::default();
    while outcome.decisions < cases && outcome.counter_example.is_none() {
        let left = CALLS.min(cases - outcome.decisions);
        stage.bundle(&mut rng, left, &mut outcome)?;
        if outcome.bundles % 20 == 0 {
            eprintln!("exact: {} of {cases} calls compared", outcome.decisions);
        }
    }
    stage.daemon.stop()?;
    Ok(outcome)
}

fn start() -> Result<Daemon> {
    let bundle = SUBJECTS.iter().fold(Bundle::new("exact"), |bundle, (name, user)| {
        // Until the first random bundle: they make ground of their own.
        let own = within(&["guard:own-proc", "guard:own-tmpfs"]);
        bundle
            .toml(&format!("[subjects.{name}]\nselector = {{ user = \"{user}\" }}\ngoverns = [\"*\"]\n"))
            .policy(
                name,
                permit("ground", name, &["file.*", "unix.*"], &own)
                    + &permit("namespaces", name, &["sys.*"], "true"),
            )
    });
    Daemon::start("exact", &bundle)
}

/// Everything that takes part.
struct Stage {
    scene: Scene,
    daemon: Daemon,
    labelled: Vec<Worker>,
    unlabelled: Worker,
    applied: u64,
}

/// What happened instead of what should.
struct Mismatch {
    expected: Expected,
    /// 0 or an error number.
    got: i32,
    /// What an unlabelled process got.
    control: i32,
    /// Decisions that were reported as ones that would be denied.
    reported: Option<u64>,
    decisions: Vec<Decision>,
}

/// What came of one call.
enum Tried {
    /// It fails for everybody, or what it is made on is gone.
    NoAnswer,
    /// As it should.
    Same(Expected),
    /// Otherwise.
    Different(Box<Mismatch>),
}

impl Stage {
    /// Compares `count` calls under one random bundle.
    fn bundle(&mut self, rng: &mut Rng, count: u64, outcome: &mut Outcome) -> Result<()> {
        for _ in 0..rng.u8(0..4) {
            self.scene.change(rng);
        }
        let mut words = Words::small(rng);
        words.paths = self.scene.words_paths(rng);
        words.names.push((*pick(rng, &ground::NAMES)).to_owned());
        words.patterns.push((*pick(rng, &ground::PATTERNS)).to_owned());
        words.nets = Words::random(rng).nets;
        // Whether the kernel can tell them is a matter of where a program lies; they have tests of their own.
        words.signers = false;
        words.abstracts = Scene::abstract_names(rng.bool()).iter().map(|name| (*name).to_owned()).collect();
        let host = Host::read().context("read the host")?;
        let model = compiling(rng, &words, &host)?;
        let parsed = model.parse().map_err(broken)?;
        let oracle = Oracle::new(&parsed, &host, &Facts::default()).map_err(broken)?;
        if let Err(why) = self.apply(&model)? {
            outcome.counter_example =
                Some(format!("a bundle that compiles is not applied\n{why}\n{}", report::bundle(&model)));
            return Ok(());
        }
        outcome.bundles += 1;
        let before = self.reported()?;
        let (mut expected, mut made) = (0, Vec::new());
        let mut paths = self.scene.paths();
        let ground = ground::things(self.unlabelled.pid());
        while (made.len() as u64) < count {
            if rng.u8(0..12) == 0 {
                self.scene.change(rng);
                paths = self.scene.paths();
            }
            let call = choose::call(rng, &self.scene, &words, &paths, &ground);
            let is_on_ground = call.path().is_some_and(|path| ground.iter().any(|thing| thing.path == path));
            let who = rng.usize(0..SUBJECTS.len());
            match self.attempt(&oracle, who, &call)? {
                Tried::NoAnswer => outcome.without_answer += 1,
                Tried::Same(as_expected) => {
                    outcome.refused += u64::from(as_expected.refused.is_some());
                    outcome.on_ground += u64::from(is_on_ground);
                    expected += as_expected.would_deny;
                    made.push((who, call));
                    outcome.decisions += 1;
                }
                Tried::Different(mismatch) => {
                    outcome.counter_example = Some(self.smallest(&model, who, &call, *mismatch)?);
                    return Ok(());
                }
            }
        }
        let reported = self.reported()? - before;
        outcome.reported += reported;
        if reported != expected {
            outcome.counter_example = Some(self.wrong_report(&model, &oracle, &made, expected, reported)?);
        }
        Ok(())
    }

    /// Makes one call, first by a process without a label.
    fn attempt(&self, oracle: &Oracle<'_>, who: usize, call: &Call) -> Result<Tried> {
        let worker = &self.labelled[who];
        let Some(decisions) = expect::decisions(call, worker) else { return Ok(Tried::NoAnswer) };
        let control = self.unlabelled.make(call)?;
        self.scene.drain();
        // What has an address fails after it was decided, and everything else may fail before.
        let has_address = matches!(call, Call::Connect { .. } | Call::Send { .. } | Call::Bind { .. });
        let decided = control == 0 || control < BEFORE && has_address;
        if !decided || control == nix::libc::EACCES {
            return Ok(Tried::NoAnswer);
        }
        let expected = expect::expected(oracle, SUBJECTS[who].0, &decisions).map_err(broken)?;
        let got = worker.make(call)?;
        self.scene.drain();
        if got == expected.refused.unwrap_or(control) {
            return Ok(Tried::Same(expected));
        }
        Ok(Tried::Different(Box::new(Mismatch { expected, got, control, reported: None, decisions })))
    }

    /// The same, and whether what was reported is what should be.
    fn attempt_counted(&self, oracle: &Oracle<'_>, who: usize, call: &Call) -> Result<Tried> {
        let before = self.reported()?;
        let tried = self.attempt(oracle, who, call)?;
        let reported = self.reported()? - before;
        Ok(match tried {
            Tried::Same(expected) if expected.would_deny != reported => {
                let decisions = expect::decisions(call, &self.labelled[who]).unwrap_or_default();
                let got = expected.refused.unwrap_or_default();
                let reported = Some(reported);
                Tried::Different(Box::new(Mismatch { expected, got, control: got, reported, decisions }))
            }
            other => other,
        })
    }

    /// Applies a bundle; why not, if it is refused.
    fn apply(&mut self, model: &Model) -> Result<std::result::Result<(), String>> {
        self.applied += 1;
        let directory = self.daemon.directory().join(format!("bundle-{}", self.applied % 2));
        let _ = std::fs::remove_dir_all(&directory);
        std::fs::create_dir_all(&directory).context("create a bundle")?;
        std::fs::write(directory.join("guard.toml"), model.toml()).context("write a bundle")?;
        std::fs::write(directory.join("p.cedar"), model.cedar()).context("write a bundle")?;
        Ok(self.daemon.apply(&directory).map_err(|error| format!("{error:#}")))
    }

    /// How many decisions were reported as ones that would be denied.
    fn reported(&self) -> Result<u64> {
        let status = self.daemon.status()?;
        status.pointer("/counters/would_deny").and_then(Value::as_u64).context("no counter in the status")
    }

    /// Which call is reported otherwise than it should be.
    fn wrong_report(
        &mut self,
        model: &Model,
        oracle: &Oracle<'_>,
        made: &[(usize, Call)],
        expected: u64,
        reported: u64,
    ) -> Result<String> {
        for (who, call) in made {
            if let Tried::Different(mismatch) = self.attempt_counted(oracle, *who, call)? {
                return self.smallest(model, *who, call, *mismatch);
            }
        }
        Ok(format!(
            "{reported} decisions were reported as ones that would be denied instead of {expected}, and each \
             by itself is right\n{}",
            report::bundle(model)
        ))
    }

    /// A smaller bundle under which the call is still decided wrongly, on a screen.
    fn smallest(&mut self, model: &Model, who: usize, call: &Call, mismatch: Mismatch) -> Result<String> {
        let (mut model, mut mismatch) = (model.clone(), mismatch);
        eprintln!("exact: a difference; making the bundle small");
        let host = Host::read().context("read the host")?;
        let action = match call {
            Call::Exec { .. } => "exec",
            Call::Map { .. } | Call::MapAnonymous => "exec.map",
            Call::Connect { .. } => "net.connect",
            Call::Netlink { .. } => "net.raw",
            Call::Send { .. } => "net.send",
            Call::Bind { .. } => "net.bind",
            Call::UnixConnect { .. } => "unix.connect",
            Call::UnixSend { .. } => "unix.send",
            Call::Open { .. } | Call::OpenMemfd { .. } | Call::Quit => "file.read",
        };
        'smaller: loop {
            for smaller in minimise::models(&model, SUBJECTS[who].0, action) {
                let Ok(parsed) = smaller.parse() else { continue };
                let Ok(oracle) = Oracle::new(&parsed, &host, &Facts::default()) else { continue };
                if self.apply(&smaller)?.is_err() {
                    continue;
                }
                if let Tried::Different(found) = self.attempt_counted(&oracle, who, call)? {
                    (model, mismatch) = (smaller, *found);
                    continue 'smaller;
                }
            }
            break;
        }
        Ok(explain(&model, who, call, &mismatch))
    }
}

fn explain(model: &Model, who: usize, call: &Call, mismatch: &Mismatch) -> String {
    let result = |number: i32| match number {
        0 => "works".to_owned(),
        number => format!("fails with {}", nix::errno::Errno::from_raw(number)),
    };
    let Mismatch { expected, got, control, reported, decisions } = mismatch;
    let mut text = format!("the kernel differs from Cedar\ncall:     {call:?} by {}\n", SUBJECTS[who].0);
    for decision in decisions {
        text.push_str(&format!("decision: {decision}\n"));
    }
    text.push_str(&format!(
        "it {}, and for a process without a label it {}\nby Cedar it {}, and {} decisions are reported",
        result(*got),
        result(*control),
        result(expected.refused.unwrap_or(*control)),
        expected.would_deny
    ));
    if let Some(reported) = reported {
        text.push_str(&format!("; {reported} are"));
    }
    format!("{text}\n{}", report::bundle(model))
}

/// A bundle that compiles on this host.
fn compiling(rng: &mut Rng, words: &Words, host: &Host) -> Result<Model> {
    for _ in 0..TRIES {
        let model = generate::bundle(rng, words);
        if let Ok(parsed) = model.parse()
            && compile(&parsed, host, &mut SubjectIds::default()).is_ok()
        {
            return Ok(model);
        }
    }
    bail!("none of {TRIES} random bundles compiles")
}

fn broken(error: impl Into<Diagnostics>) -> anyhow::Error {
    anyhow::anyhow!("{}", error.into())
}

/// Refuses to change a machine that is not a guest.
pub(crate) fn check_place() -> Result<()> {
    ensure!(
        PathBuf::from("/run/guard-vm").is_dir(),
        "this changes file systems and starts an agent, so it runs in guests only: cargo xtask exact --kernel"
    );
    Ok(())
}
