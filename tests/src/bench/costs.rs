//! What Guard costs besides operations: memory, starts, changes, events, and what it does when nothing happens.
//!
//! One processor is shared by the agent and the task that is decided about, so the times of changes have
//! the scheduler's in them.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use guard_tests::attempt::{Outcome, Running, attempt, start};
use guard_tests::bundle::{Bundle, permit, within};
use guard_tests::daemon::{Daemon, configure, spawn};
use guard_tests::layout;
use guard_tests::raw::{SharedPages, futex_wait, futex_wake};
use guard_tests::system_bpf::Maps;
use guard_tests::users::{AGENT, FREE, Identity};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::ForkResult;
use serde_json::{Value, json};

use crate::places::Places;
use crate::policy;
use crate::record::Cost;

/// Times that each change is made.
const CHANGES: usize = 30;
/// Denials in a row.
const DENIALS: u64 = 20_000;
/// Tasks that are alive together.
const TASKS: usize = 500;
/// How long nothing happens.
const IDLE: Duration = Duration::from_secs(60);
const FEW: usize = 10;
const MANY: usize = 10_000;
const SUBJECTS: usize = 100;

/// Measures everything; what was found before something went wrong stays.
pub(crate) fn measure(places: &Places, costs: &mut Vec<Cost>) -> Result<()> {
    let mut costs = Costs(costs);
    starts(places, &mut costs).context("starts")?;
    let daemon = spawn(&configure("costs", &policy::bundle(places, FEW, 1))?)?.ready()?;
    sizes(places, &daemon, &mut costs).context("sizes")?;
    tasks(&mut costs).context("tasks")?;
    events(&daemon, places, &mut costs).context("events")?;
    changes(places, &daemon, &mut costs).context("changes")?;
    disarm(daemon)
}

struct Costs<'a>(&'a mut Vec<Cost>);

impl Costs<'_> {
    fn add(&mut self, key: &str, title: &str, unit: &str, values: Vec<f64>) {
        eprintln!("guard-bench: {title}: {values:.2?} {unit}");
        let (key, title, unit) = (key.to_owned(), title.to_owned(), unit.to_owned());
        self.0.push(Cost { key, title, unit, values });
    }
}

const MILLION: &str = "10⁶ instructions";

fn millions(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// A first start, and one that takes over what enforces.
fn starts(places: &Places, costs: &mut Costs<'_>) -> Result<()> {
    let directory = configure("costs", &policy::bundle(places, FEW, 1))?;
    let mut times = Vec::new();
    for _ in 0..3 {
        let begin = Instant::now();
        let daemon = spawn(&directory)?.ready()?;
        times.push(millions(begin.elapsed()));
        daemon.stop()?;
    }
    let adoptions = times.split_off(1);
    costs.add("start", "start to enforcing, every hook", MILLION, times);
    costs.add("adoption", "restart with adoption", MILLION, adoptions);
    Ok(())
}

/// Ends what enforces, which outlives the daemon.
fn disarm(daemon: Daemon) -> Result<()> {
    let status = daemon.control(&["disarm", "--yes", "--reason", "the end of a benchmark"]).output();
    ensure!(status.context("start guardctl")?.status.success(), "guardctl disarm failed");
    Ok(())
}

/// A line of a file like /proc/self/status, in KiB.
fn kibibytes(path: &Path, name: &str) -> Result<f64> {
    let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let number = line.and_then(|line| line.split_whitespace().next()).context("no such line")?;
    number.parse().context("a number")
}

fn process(daemon: &Daemon) -> PathBuf {
    PathBuf::from(format!("/proc/{}", daemon.pid()))
}

fn resident(daemon: &Daemon) -> Result<f64> {
    kibibytes(&process(daemon).join("status"), "VmRSS")
}

/// Ticks of a hundredth of a second that a process ran (proc(5)).
fn ticks(daemon: &Daemon) -> Result<f64> {
    let text = fs::read_to_string(process(daemon).join("stat")).context("read stat")?;
    let (_, rest) = text.rsplit_once(')').context("stat has a name")?;
    let words: Vec<&str> = rest.split_whitespace().collect();
    let number = |at: usize| words.get(at).and_then(|word| word.parse::<f64>().ok()).unwrap_or(0.0);
    Ok(number(11) + number(12))
}

/// Idle time, and what more literals and subjects take.
fn sizes(places: &Places, daemon: &Daemon, costs: &mut Costs<'_>) -> Result<()> {
    let before = ticks(daemon)?;
    sleep(IDLE);
    let used = (ticks(daemon)? - before) / (IDLE.as_secs_f64() * 100.0) * 100.0;
    costs.add("idle", "processor of an idle agent", "%", vec![used]);
    let (maps, small) = (Maps::now()?.bytes as f64, resident(daemon)?);
    costs.add("resident", "resident memory of the agent, 10 literals", "MiB", vec![small / 1024.0]);
    costs.add("maps", "kernel memory of all maps, 10 literals", "MiB", vec![maps / f64::from(1 << 20)]);

    let switch = |bundle: &Bundle, name: &str| -> Result<f64> {
        let written = bundle.write(&daemon.directory().join(name))?;
        let begin = Instant::now();
        daemon.apply(&written)?;
        Ok(millions(begin.elapsed()))
    };
    let time = switch(&policy::bundle(places, FEW, 2), "few")?;
    costs.add("apply-few", "apply: parse, compile, switch, 10 literals", MILLION, vec![time]);
    let base = Maps::now()?.bytes as f64;
    let time = switch(&policy::bundle(places, MANY, 3), "many")?;
    costs.add("apply-many", "… 10 000 directories and 10 000 networks", MILLION, vec![time]);
    let literals = (2 * (MANY - FEW)) as f64;
    let per_literal = (Maps::now()?.bytes as f64 - base) / literals;
    costs.add("literal", "kernel memory of a literal", "bytes", vec![per_literal]);
    costs.add(
        "resident-many",
        "resident memory of the agent, 10 000",
        "MiB",
        vec![resident(daemon)? / 1024.0],
    );
    // Twice: the generation before the live one is kept.
    switch(&policy::bundle(places, FEW, 4), "few")?;
    switch(&policy::bundle(places, FEW, 5), "few")?;
    let base = Maps::now()?.bytes as f64;
    let mut bundle = policy::bundle(places, FEW, 6);
    for number in 0..SUBJECTS {
        let name = format!("other-{number}");
        bundle = bundle
            .subject(&name, &format!("user = \"{}\"", 30_000 + number))
            .policy(&name, permit(&name, &name, &["file.*"], &within(&[places.permitted()])));
    }
    switch(&bundle, "subjects")?;
    let per_subject = (Maps::now()?.bytes as f64 - base) / SUBJECTS as f64;
    costs.add("subject", "kernel memory of a subject", "bytes", vec![per_subject]);
    switch(&policy::bundle(places, FEW, 7), "few")?;
    Ok(())
}

/// Kernel memory of tasks that are alive together.
fn slab_of_tasks(who: Identity) -> Result<f64> {
    let steps = SharedPages::new(4096).context("share memory")?;
    let (theirs, ours) = (steps.word(0), steps.word(1));
    let before = kibibytes(Path::new("/proc/meminfo"), "Slab")?;
    let running = start(who, || {
        let mut children = Vec::with_capacity(TASKS);
        for _ in 0..TASKS {
            // SAFETY: this program has one thread.
            match unsafe { nix::unistd::fork() }? {
                ForkResult::Parent { child } => children.push(child),
                ForkResult::Child => loop {
                    nix::unistd::pause();
                },
            }
        }
        set(theirs, 1);
        wait(ours, 1);
        for child in children {
            kill(child, Signal::SIGKILL)?;
            waitpid(child, None)?;
        }
        Ok(())
    })?;
    wait(theirs, 1);
    let after = kibibytes(Path::new("/proc/meminfo"), "Slab");
    set(ours, 1);
    ensure!(running.outcome()? == Outcome::Worked, "tasks could not be made");
    Ok((after? - before) * 1024.0 / TASKS as f64)
}

fn set(word: &AtomicU32, value: u32) {
    word.store(value, Ordering::SeqCst);
    futex_wake(word);
}

fn wait(word: &AtomicU32, value: u32) {
    while word.load(Ordering::SeqCst) < value {
        futex_wait(word, value - 1, true);
    }
}

fn tasks(costs: &mut Costs<'_>) -> Result<()> {
    // Once unmeasured: the first ones fill caches.
    slab_of_tasks(FREE)?;
    let mut differences = Vec::new();
    for _ in 0..3 {
        let without = slab_of_tasks(FREE)?;
        differences.push(slab_of_tasks(AGENT)? - without);
    }
    costs.add("task", "kernel memory of a labelled task, more than of another", "bytes", differences);
    Ok(())
}

/// A labelled process that opens a file without end, and says in shared memory when one was last admitted, in
/// nanoseconds of the monotonic clock, and whether the last one was.
struct Spinner {
    pages: SharedPages,
    running: Running,
}

/// Words of the memory: the time in two halves, whether it is admitted now, the end.
const LOW: usize = 0;
const HIGH: usize = 1;
const ADMITTED: usize = 2;
const END: usize = 3;

fn now() -> u64 {
    use nix::time::{ClockId, clock_gettime};
    clock_gettime(ClockId::CLOCK_MONOTONIC)
        .map_or(0, |time| time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64)
}

impl Spinner {
    fn start(file: PathBuf) -> Result<Self> {
        let pages = SharedPages::new(4096).context("share memory")?;
        let running = start(AGENT, || {
            while pages.word(END).load(Ordering::SeqCst) == 0 {
                let admitted = File::open(&file).is_ok();
                if admitted {
                    let time = now();
                    pages.word(HIGH).store((time >> 32) as u32, Ordering::SeqCst);
                    pages.word(LOW).store(time as u32, Ordering::SeqCst);
                }
                pages.word(ADMITTED).store(admitted.into(), Ordering::SeqCst);
            }
            Ok(())
        })?;
        Ok(Self { pages, running })
    }

    /// Waits until it is admitted, or is not any more.
    fn until(&self, admitted: bool) -> Result<()> {
        let begin = Instant::now();
        while (self.pages.word(ADMITTED).load(Ordering::SeqCst) != 0) != admitted {
            ensure!(begin.elapsed() < Duration::from_secs(60), "a change did not count");
            sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// When one was last admitted. Only for while it is not.
    fn last(&self) -> u64 {
        let half = |index: usize| u64::from(self.pages.word(index).load(Ordering::SeqCst));
        half(HIGH) << 32 | half(LOW)
    }

    fn end(self) -> Result<()> {
        self.pages.word(END).store(1, Ordering::SeqCst);
        ensure!(self.running.outcome()? == Outcome::Worked, "the process broke");
        Ok(())
    }
}

fn ask(daemon: &Daemon, method: &str, path: &str, body: &Value) -> Result<Value> {
    let text = if body.is_null() { String::new() } else { body.to_string() };
    let (status, answer) = daemon.request(method, path, &text)?;
    ensure!((200..300).contains(&status), "{method} {path}: {status}: {answer}");
    Ok(serde_json::from_str(&answer).unwrap_or(Value::Null))
}

/// From the call to the last operation that was admitted: of a fact that goes, a lease that is revoked, and a
/// quarantine.
fn changes(places: &Places, daemon: &Daemon, costs: &mut Costs<'_>) -> Result<()> {
    layout::file(&places.posture(), b"content\n")?;
    let spinner = Spinner::start(places.posture())?;
    let fact = json!({ "name": "trust", "value": 3, "source": "bench" });
    let gone = "/v1/facts?name=trust&source=bench";
    let lease = json!({ "name": "change", "subject": "agent", "seconds": 600 });
    let order = json!({ "subject": "agent", "level": "full", "reason": "benchmark", "evidence": false });
    let mut times: [Vec<f64>; 3] = Default::default();
    for _ in 0..CHANGES {
        ask(daemon, "POST", "/v1/facts", &fact)?;
        spinner.until(true)?;
        times[0].push(spinner.latency(|| ask(daemon, "DELETE", gone, &Value::Null))?);

        let id = ask(daemon, "POST", "/v1/leases", &lease)?["id"].clone();
        spinner.until(true)?;
        let path = format!("/v1/leases/{id}/revoke");
        times[1].push(spinner.latency(|| ask(daemon, "POST", &path, &json!({})))?);
    }
    ask(daemon, "POST", "/v1/facts", &fact)?;
    for _ in 0..CHANGES {
        spinner.until(true)?;
        let mut id = Value::Null;
        times[2].push(spinner.latency(|| {
            id = ask(daemon, "POST", "/v1/quarantines", &order)?["quarantine"]["id"].clone();
            Ok(Value::Null)
        })?);
        ask(daemon, "POST", &format!("/v1/quarantines/{id}/release"), &json!({ "reason": "benchmark" }))?;
    }
    spinner.end()?;
    let [facts, leases, quarantines] = times;
    costs.add("fact", "fact withdrawn: call → last operation admitted", MILLION, facts);
    costs.add("lease", "approval revoked: call → last operation admitted", MILLION, leases);
    costs.add("quarantine", "quarantine: call → last operation admitted", MILLION, quarantines);
    Ok(())
}

impl Spinner {
    fn latency(&self, change: impl FnOnce() -> Result<Value>) -> Result<f64> {
        let begin = now();
        change()?;
        self.until(false)?;
        Ok(self.last().saturating_sub(begin) as f64 / 1e6)
    }
}

/// Denials as fast as one processor makes them, each reported or counted as lost.
fn events(daemon: &Daemon, places: &Places, costs: &mut Costs<'_>) -> Result<()> {
    let denied = places.other(0).join("denied");
    layout::file(&denied, b"content\n")?;
    let refuse = |times: u64| -> Result<f64> {
        let begin = Instant::now();
        let outcome = attempt(AGENT, || {
            for _ in 0..times {
                if File::open(&denied).is_ok() {
                    return Ok(());
                }
            }
            Err(nix::errno::Errno::EACCES.into())
        })?;
        ensure!(outcome == Outcome::Failed(nix::errno::Errno::EACCES), "one was not refused: {outcome:?}");
        Ok(begin.elapsed().as_secs_f64())
    };
    let mut accounted = daemon.events.accounted()?;
    let seconds = refuse(DENIALS)?;
    let mut expected = DENIALS;
    // What was lost at the end shows only when something comes after it.
    for _ in 0..100 {
        refuse(1)?;
        expected += 1;
        if accounted.reaches(expected, Duration::from_secs(5))? {
            break;
        }
    }
    costs.add(
        "denials",
        "denials a second, at 10⁹ instructions a second",
        "1/s",
        vec![DENIALS as f64 / seconds],
    );
    costs.add("denial", "a denial, with its event", "instructions", vec![seconds * 1e9 / DENIALS as f64]);
    costs.add("reported", "… of those reported", "events", vec![accounted.reported as f64]);
    costs.add("lost", "… counted as lost", "events", vec![accounted.lost as f64]);
    let unaccounted = expected as f64 - (accounted.reported + accounted.lost) as f64;
    costs.add("unaccounted", "… neither", "events", vec![unaccounted]);
    Ok(())
}
