//! Whether Guard decides as Landlock does: for a guest (`cargo xtask oracle`).
//!
//! Random operations on files and TCP ports are made three times in step: by a process without
//! restrictions, by one under a random rule set of the kernel's own Landlock, and by one with a label whose
//! policy is the translation of that rule set. Error numbers and the trees that are left must be the same.
//! Where both are meant to differ, `differences` says exactly when.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use fastrand::Rng;
use guard_tests::bundle::Bundle;
use guard_tests::daemon::Daemon;
use guard_tests::{landlock, layout, users};
use nix::mount::{MsFlags, mount};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

mod choose;
mod differences;
mod look;
mod model;
mod operation;
mod page;
mod rights;
mod round;
mod rules;
mod tally;
mod translate;
mod tree;
mod worker;

use rights::Rights;
use round::{FREE, LANDLOCKED, OPERATIONS, Round, SUBJECTS};
use rules::PORTS;
use tally::Tally;
use translate::{Grounded, Translation};

/// Compare what Guard decides with what Landlock decides.
#[derive(Parser)]
struct Args {
    /// Operations to compare.
    #[arg(long, value_name = "N", default_value_t = 2000)]
    ops: u64,
    /// Where the random numbers begin; the same seed gives the same operations.
    #[arg(long, value_name = "X")]
    seed: Option<u64>,
    /// Only this round of that seed.
    #[arg(long, value_name = "N", requires = "seed")]
    round: Option<u64>,
    /// Translate some rules wrongly: there must be differences.
    #[arg(long)]
    plant: bool,
    /// Print docs/oracle.md instead.
    #[arg(long, conflicts_with_all = ["ops", "seed", "plant"])]
    page: bool,
}

/// Rounds of one subject under one bundle.
const ROUNDS: u64 = 6;
/// Rounds under one bundle.
const BATCH: u64 = ROUNDS * SUBJECTS.len() as u64;
/// Where the trees are: a directory on each kind of file system.
const PLACES: [&str; 3] = ["/scratch/tmpfs/oracle", "/scratch/ext4/oracle", "/scratch/oracle-overlay/oracle"];
/// The ports that somebody listens on; to others no connection can be made.
const LISTENED: usize = 3;

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("guard-oracle: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<bool> {
    if args.page {
        print!("{}", page::text());
        return Ok(true);
    }
    ensure!(
        Path::new("/run/guard-vm").is_dir(),
        "this changes accounts and file systems and starts an agent, so it runs in guests only: cargo xtask oracle"
    );
    let seed = args.seed.unwrap_or_else(|| fastrand::u64(..1 << 32));
    let version =
        landlock::version().context("Landlock is not active: is it in /sys/kernel/security/lsm?")?;
    eprintln!("oracle: Landlock's interface {version}, seed {seed}");
    let mut stage = Stage::start(seed, version, args.plant)?;
    stay_on_one_processor()?;
    let (begin, mut tally) = (Instant::now(), Tally::new());
    match args.round {
        Some(round) => stage.batch(round / BATCH, Some(round), OPERATIONS as u64, &mut tally)?,
        None => {
            let mut batch = 0;
            while tally.operations < args.ops {
                stage.batch(batch, None, args.ops, &mut tally)?;
                batch += 1;
                let seconds = begin.elapsed().as_secs();
                eprintln!("oracle: {} of {} operations in {seconds} s", tally.operations, args.ops);
            }
        }
    }
    stage.daemon.stop()?;
    println!("{}", tally.tables());
    println!(
        "{} rounds in {:.0} s, seed {seed}; {} equal answers that Landlock's model does not foresee",
        tally.rounds,
        begin.elapsed().as_secs_f64(),
        tally.unforeseen
    );
    let idle = tally.not_exercised(rights::known(version));
    if !idle.is_empty() {
        println!("NOT EXERCISED: given or missing never occurred of {}", idle.join(", "));
    }
    println!("{} operations, {} unexplained differences", tally.operations, tally.unexplained);
    Ok(tally.unexplained == 0 && idle.is_empty())
}

/// The daemon, and what all rounds share.
struct Stage {
    daemon: Daemon,
    seed: u64,
    version: u32,
    plant: bool,
    applied: u64,
    probe: PathBuf,
    listeners: Vec<std::net::TcpListener>,
}

impl Stage {
    fn start(seed: u64, version: u32, plant: bool) -> Result<Self> {
        users::create(SUBJECTS.into_iter().chain([FREE, LANDLOCKED]))?;
        overlay()?;
        for place in PLACES {
            layout::directory(Path::new(place))?;
        }
        let probe = Path::new(PLACES[0]).join("probe");
        layout::file(&probe, b"no rule is about this\n")?;
        let mut listeners = Vec::new();
        for port in PORTS.into_iter().filter(|port| *port != 0).take(LISTENED) {
            let listener = std::net::TcpListener::bind(("127.0.0.1", port)).context("listen")?;
            listener.set_nonblocking(true).context("listen")?;
            listeners.push(listener);
        }
        let bundle = SUBJECTS.iter().fold(Bundle::new("oracle"), |bundle, who| {
            bundle.toml(&format!(
                "[subjects.{0}]\nselector = {{ user = \"{0}\" }}\ngoverns = [\"file.*\"]\n",
                who.name
            ))
        });
        let daemon = Daemon::start("oracle", &bundle)?;
        Ok(Self { daemon, seed, version, plant, applied: 1, probe, listeners })
    }

    /// Makes the rounds of one bundle, or one of them.
    fn batch(&mut self, batch: u64, only: Option<u64>, operations: u64, tally: &mut Tally) -> Result<()> {
        let mut rounds = Vec::new();
        let mut bundle = Bundle::new("oracle");
        for (index, subject) in (0..).zip(SUBJECTS) {
            let mut rng = self.random(batch, 1 + index);
            let handled: Rights = rules::handled(&mut rng, self.version);
            let ports = rules::ports(&mut rng, handled);
            let mut trees = Vec::new();
            for nth in 0..ROUNDS {
                let number = batch * BATCH + nth * SUBJECTS.len() as u64 + index;
                let place = PLACES[number as usize % PLACES.len()];
                let mut rng = self.random(number, 0);
                let round = Round::prepare(number, &mut rng, Path::new(place), subject, handled, &ports)?;
                let root = round.guarded().display().to_string();
                let mut rules = round.rules.clone();
                if self.plant {
                    plant(&mut rng, &mut rules);
                }
                trees.push(Grounded { root, rules });
                rounds.push((number, round));
            }
            let translation = Translation { subject: subject.name, handled, ports: &ports, trees: &trees };
            bundle = bundle.toml(&translation.toml()).policy(subject.name, translation.cedar());
        }
        self.applied += 1;
        let directory = self.daemon.directory().join(format!("bundle-{}", self.applied % 2));
        self.daemon.apply(&bundle.version(self.applied).write(&directory)?)?;
        rounds.sort_by_key(|(number, _)| *number);
        for (number, round) in &rounds {
            let left = usize::try_from(operations.saturating_sub(tally.operations)).unwrap_or(OPERATIONS);
            if left > 0 && only.is_none_or(|only| only == *number) {
                round.run(left, &self.probe, self.seed, tally)?;
                self.drain();
            }
            round.clear()?;
        }
        Ok(())
    }

    /// Random numbers of their own for each use, so that a round can be repeated without those before it.
    fn random(&self, number: u64, what: u64) -> Rng {
        Rng::with_seed(self.seed ^ (number << 8 | what).wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    /// Takes the connections that were made, so that there is room for more.
    fn drain(&self) {
        for listener in &self.listeners {
            while listener.accept().is_ok() {}
        }
    }
}

/// Keeps this process and its children on one processor. They take turns, and in an emulated guest waking
/// another processor takes longer than an operation.
fn stay_on_one_processor() -> Result<()> {
    let mut set = CpuSet::new();
    set.set(0).context("name a processor")?;
    sched_setaffinity(Pid::from_raw(0), &set).context("stay on one processor")
}

/// Takes a right away from a rule, for the translation only.
fn plant(rng: &mut Rng, rules: &mut rules::Rules) {
    let count = rules.rules.len();
    if count == 0 {
        return;
    }
    let rule = &mut rules.rules[rng.usize(..count)];
    let bits: Vec<Rights> = (0..64).map(|bit| 1 << bit).filter(|bit| rule.rights & bit != 0).collect();
    rule.rights &= !bits[rng.usize(..bits.len())];
}

/// An overlay whose layers are on ext4.
fn overlay() -> Result<()> {
    let (layers, point) = (Path::new("/scratch/ext4/oracle-layers"), Path::new("/scratch/oracle-overlay"));
    if point.exists() {
        return Ok(());
    }
    for layer in ["lower", "upper", "work"] {
        layout::directory(&layers.join(layer))?;
    }
    layout::directory(point)?;
    let layers = layers.display();
    let options = format!("lowerdir={layers}/lower,upperdir={layers}/upper,workdir={layers}/work");
    mount(Some("overlay"), point, Some("overlay"), MsFlags::empty(), Some(options.as_str()))
        .context("mount an overlay on ext4")
}
