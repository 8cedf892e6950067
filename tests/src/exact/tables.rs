//! The user-space comparison: many requests for each of many bundles, on several threads.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use fastrand::Rng;
use guard_agent::policy::{Diagnostics, Severity};

use crate::compare::{self, Ready, Setting};
use crate::minimise::minimise;
use crate::words::Words;
use crate::world::World;
use crate::{generate, report, requests};

/// Requests for one bundle.
const REQUESTS: u64 = 400;
/// Of so many bundles, the effective policy set of one is written out and parsed again.
const TEXTS: u64 = 16;
/// What may be wrong with a bundle that is made of what compiles: it uses more of it than one decision
/// may depend on.
const LIMITS: [&str; 2] = ["too-many-features", "too-large"];

/// How a run ended.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// Decisions that were compared.
    pub(crate) decisions: u64,
    /// Bundles that they were made under.
    pub(crate) bundles: u64,
    /// How often each answer was given: denied, allowed, allowed but would be denied.
    pub(crate) answers: [u64; 3],
    /// Bundles that were refused because they pass a limit, by the error's code.
    pub(crate) refused: BTreeMap<String, u64>,
    /// The first counter-example, on a screen.
    pub(crate) counter_example: Option<String>,
}

/// Compares `cases` decisions. A bundle with its requests depends on the seed and its number only.
pub(crate) fn run(cases: u64, seed: u64, threads: usize) -> Outcome {
    let (next, left) = (AtomicU64::new(0), AtomicU64::new(cases));
    let stop = AtomicBool::new(false);
    let sum = Mutex::new(Outcome::default());
    thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let mine = |left: u64| left.checked_sub(REQUESTS.min(left)).filter(|_| left > 0);
                    let Ok(before) = left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, mine) else {
                        return;
                    };
                    let number = next.fetch_add(1, Ordering::SeqCst);
                    let found = one(seed, number, REQUESTS.min(before));
                    // What a refused bundle did not use is left for another one.
                    left.fetch_add(REQUESTS.min(before) - found.decisions, Ordering::SeqCst);
                    if found.counter_example.is_some() {
                        stop.store(true, Ordering::Relaxed);
                    }
                    sum.lock().unwrap_or_else(std::sync::PoisonError::into_inner).add(found);
                }
            });
        }
    });
    sum.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Outcome {
    fn add(&mut self, other: Self) {
        self.decisions += other.decisions;
        self.bundles += other.bundles;
        for (sum, more) in self.answers.iter_mut().zip(other.answers) {
            *sum += more;
        }
        for (code, count) in other.refused {
            *self.refused.entry(code).or_default() += count;
        }
        self.counter_example = self.counter_example.take().or(other.counter_example);
    }
}

/// The generator of one bundle of a run.
pub(crate) fn generator(seed: u64, number: u64) -> Rng {
    Rng::with_seed(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(number))
}

/// Compares under the bundle with this number.
fn one(seed: u64, number: u64, count: u64) -> Outcome {
    let mut rng = generator(seed, number);
    let mut outcome = Outcome::default();
    let world = World::random(&mut rng);
    let words = Words::random(&mut rng);
    let facts = generate::facts(&mut rng, &words);
    let model = generate::bundle(&mut rng, &words);
    let setting = Setting { world, model, facts };
    let at = format!("seed {seed}, bundle {number}");
    let ready = match Ready::new(&setting) {
        Ok(ready) => ready,
        Err(errors) => {
            match limit(&errors) {
                Some(code) => *outcome.refused.entry(code.to_owned()).or_default() += 1,
                None => outcome.counter_example = Some(refused(&at, &setting, &errors)),
            }
            return outcome;
        }
    };
    outcome.bundles = 1;
    let judge = match ready.judge(&setting) {
        Ok(judge) => judge,
        Err(errors) => {
            outcome.counter_example = Some(refused(&at, &setting, &errors));
            return outcome;
        }
    };
    if number.is_multiple_of(TEXTS)
        && let Err(error) = judge.text()
    {
        outcome.counter_example = Some(refused(&at, &setting, &error));
        return outcome;
    }
    for _ in 0..count {
        let request = requests::request(&mut rng, &setting.world, &words);
        match judge.answers(&request) {
            Ok(answers) if answers.agree() => {
                let answer = answers.tables;
                outcome.answers[usize::from(answer.allowed) + usize::from(answer.would_deny)] += 1;
                outcome.decisions += 1;
            }
            Ok(_) => {
                let differs =
                    |setting: &Setting, request: &_| compare::difference(setting, request).is_some();
                let (setting, request) = minimise(&setting, &request, &differs);
                let text = compare::difference(&setting, &request)
                    .map_or_else(String::new, |found| report::difference(&setting, &request, &found));
                outcome.counter_example = Some(format!("the tables differ from Cedar ({at})\n{text}"));
                return outcome;
            }
            Err(error) => {
                outcome.counter_example = Some(refused(&at, &setting, &error));
                return outcome;
            }
        }
    }
    outcome
}

/// The code of the limit that a refused bundle passes; nothing if something else is wrong with it.
fn limit(errors: &Diagnostics) -> Option<&'static str> {
    let mut codes = errors.iter().filter(|one| one.severity == Severity::Error).map(|one| one.code);
    let first = codes.next().filter(|code| LIMITS.contains(code))?;
    codes.all(|code| LIMITS.contains(&code)).then_some(first)
}

fn refused(at: &str, setting: &Setting, errors: &Diagnostics) -> String {
    format!("a bundle of what compiles is refused ({at})\n{errors}\n{}", report::bundle(&setting.model))
}
