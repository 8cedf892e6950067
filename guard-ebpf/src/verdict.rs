//! From a resource to the number a hook returns.

use crate::atomic;
use crate::bars;
use crate::generation::Generation;
use crate::maps::USES;
use crate::record::{Report, count, send};
use crate::resource::Resource;
use aya_ebpf::helpers::generated::bpf_ktime_get_boot_ns;
use core::ptr::read_volatile;
use guard_common::action::{COUNTABLE, EACCES};
use guard_common::class::Class;
use guard_common::decide::{self, Decision, NO_OUTCOME, Query, Reason, SPENT, decide};
use guard_common::event::{Counter, Verdict};
use guard_common::label::Label;
use guard_common::quarantine::{denied_at, denied_by};
use guard_common::tables::{Header, place_of, uses_left};

/// The live generation and its head, or why there is none.
#[inline(always)]
pub fn live() -> Result<(Generation, &'static Header), Reason> {
    let generation = Generation::live().ok_or(Reason::NoGeneration)?;
    let header = generation.header().ok_or(Reason::TableMiss)?;
    Ok((generation, header))
}

/// What is asked of the tables for a label.
#[inline(always)]
pub fn query(label: *mut Label, resource: &Resource, required: u64) -> Query {
    // SAFETY: the label of the running task.
    let (subject, session) = unsafe { ((*label).row, (*label).session) };
    Query { subject, session, class: resource.class, features: resource.features, required }
}

/// What the tables say, and quarantines before them.
#[inline(always)]
pub fn ruled(generation: &Generation, label: *mut Label, query: &Query) -> Decision {
    // SAFETY: the helper has no requirements.
    let decision = decide(generation, query, || unsafe { bpf_ktime_get_boot_ns() });
    decision.at_level(bars::level(label), query.required)
}

/// Decides everything in `required` on `resource` and records what is to be recorded. Returns 0 or
/// a negative error number.
#[inline(always)]
pub fn judge(generation: &Generation, label: *mut Label, resource: &Resource, required: u64) -> i32 {
    let query = query(label, resource, required);
    let decision = ruled(generation, label, &query);
    conclude(generation, label, resource, required, decision)
}

/// Decides everything in `required` on something of which nothing but its class counts.
#[inline(always)]
pub fn judge_class(label: *mut Label, class: Class, required: u64) -> i32 {
    // SAFETY: a label is a whole value.
    unsafe { decide_class(label, class, required) }
}

/// What `judge_class` does, as a global function: see [`deny_undecided`].
///
/// # Safety
/// The label must be a whole one; the verifier checks it.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn decide_class(label: *mut Label, class: u32, required: u64) -> i32 {
    if label.is_null() {
        return -EACCES;
    }
    match Generation::live() {
        Some(generation) => judge(&generation, label, &Resource::of_class(class), required),
        None => fail(label, required, Reason::NoGeneration),
    }
}

/// [`judge`] for a question that the kernel asks by itself, to choose between two ways that are both
/// open to the task: the answer counts, but nobody is refused anything, so nothing is reported.
#[inline(always)]
pub fn probe(generation: &Generation, label: *mut Label, resource: &Resource, required: u64) -> i32 {
    let query = query(label, resource, required);
    let decision = ruled(generation, label, &query);
    count(Counter::Decided);
    if decision.denied == 0 && decision.outcome != NO_OUTCOME {
        generation.used(decision.outcome, required);
    }
    decision.answer()
}

/// What is to be told of a decision about the use of something that was opened before: that it is denied, and
/// once in a row that policy would deny it.
#[inline(always)]
pub fn of_use(label: *mut Label, generation: &Generation, decision: &mut Decision) {
    decision.audit = 0;
    // What is used was begun with a use.
    decision.counted = 0;
    if decision.denied != 0 {
        return;
    }
    decision.differs = 0;
    if decision.would_deny != 0 {
        let told = told(generation, decision);
        // SAFETY: the label of the running task.
        unsafe {
            if (*label).reported == told {
                decision.would_deny = 0;
            }
            (*label).reported = told;
        }
    }
}

/// Notes what is told of an open, so that the use that follows it does not tell the same.
#[inline(always)]
pub fn of_open(label: *mut Label, generation: &Generation, decision: &Decision) {
    if decision.denied == 0 && decision.would_deny != 0 {
        // SAFETY: the label of the running task.
        unsafe { (*label).reported = told(generation, decision) };
    }
}

/// What would be denied, by which outcome of which generation.
#[inline(always)]
fn told(generation: &Generation, decision: &Decision) -> u64 {
    // 2^64 divided by the golden ratio spreads the two numbers over all bits.
    let of = (generation.number << 32 ^ decision.outcome as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    of ^ decision.would_deny
}

/// Decides the use of something of which nothing but its class counts.
#[inline(always)]
pub fn use_class(label: *mut Label, class: Class, required: u64) -> i32 {
    // SAFETY: a label is a whole value.
    unsafe { decide_class_in_use(label, class, required) }
}

/// What `use_class` does, as a global function: see [`deny_undecided`].
///
/// # Safety
/// The label must be a whole one; the verifier checks it.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn decide_class_in_use(label: *mut Label, class: u32, required: u64) -> i32 {
    if label.is_null() {
        return -EACCES;
    }
    let Some(generation) = Generation::live() else { return fail(label, required, Reason::NoGeneration) };
    let resource = Resource::of_class(class);
    let query = query(label, &resource, required);
    let mut decision = ruled(&generation, label, &query);
    of_use(label, &generation, &mut decision);
    conclude(&generation, label, &resource, required, decision)
}

/// Denies `required` if a quarantine does, for what policy has no say in: 0 or a negative error number.
#[inline(always)]
pub fn unless_barred(label: *mut Label, required: u64) -> i32 {
    // SAFETY: a label is a whole value.
    unsafe { deny_barred(label, required) }
}

/// What `unless_barred` does, as a global function: see [`deny_undecided`].
///
/// # Safety
/// The label must be a whole one; the verifier checks it.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn deny_barred(label: *mut Label, required: u64) -> i32 {
    if label.is_null() {
        return -EACCES;
    }
    let Some(generation) = Generation::live() else { return fail(label, required, Reason::NoGeneration) };
    let Some(level) = standing(&generation, label) else {
        return fail(label, required, Reason::SubjectRemoved);
    };
    let denied = required & (denied_at(level) | denied_at(bars::level(label)));
    if denied == 0 {
        return 0;
    }
    let decision = Decision::deny_all(denied, Reason::Quarantine);
    conclude(&generation, label, &Resource::unknown(), required, decision)
}

/// The number of the level of quarantine that the holder of this label is at; 0 = none.
#[inline(always)]
pub fn level(label: *mut Label) -> u32 {
    // SAFETY: a label is a whole value.
    unsafe { level_of(label) }
}

/// What `level` does, as a global function: see [`deny_undecided`].
///
/// # Safety
/// The label must be a whole one; the verifier checks it.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn level_of(label: *mut Label) -> u32 {
    if label.is_null() {
        return 0;
    }
    let Some(generation) = Generation::live() else { return 0 };
    // Of a subject that was removed everything is refused as it is.
    standing(&generation, label).unwrap_or(0).max(bars::level(label)) as u32
}

#[inline(always)]
fn standing(generation: &Generation, label: *mut Label) -> Option<u64> {
    // SAFETY: a label is a whole value. The helper has no requirements.
    unsafe {
        let now = || bpf_ktime_get_boot_ns();
        decide::level(generation, (*label).row, (*label).session, now)
    }
}

/// Denies everything in `required` because Guard cannot decide.
#[inline(always)]
pub fn fail(label: *mut Label, required: u64, reason: Reason) -> i32 {
    // SAFETY: a label is a whole value.
    unsafe { deny_undecided(label, required, reason as u32) }
}

/// What `fail` does. A global function, which the verifier checks once for each program and not once for
/// everything that may go wrong in it.
///
/// # Safety
/// The label must be a whole one; the verifier checks it.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn deny_undecided(label: *mut Label, required: u64, reason: u32) -> i32 {
    let generation = Generation::live().unwrap_or(Generation { slot: 0, number: 0 });
    count(Counter::Decided);
    count(Counter::Denied);
    count(Counter::InternalDenied);
    let errno = Decision::deny_all(required, Reason::TableMiss).answer();
    let report = Report {
        verdict: Verdict::Denied,
        reason: reason as u8,
        actions: required,
        errno: errno.abs(),
        loosened: false,
        shadow: 0,
    };
    send(&generation, label, &Resource::unknown(), &report);
    errno
}

/// Records a decision and returns 0 or its negative error number.
#[inline(always)]
pub fn conclude(
    generation: &Generation,
    label: *mut Label,
    resource: &Resource,
    required: u64,
    mut decision: Decision,
) -> i32 {
    count(Counter::Decided);
    if decision.denied == 0 && decision.counted != 0 {
        // SAFETY: the function has no requirements.
        decision.count(unsafe { take_uses(decision.counted, required) });
    }
    if decision.denied == 0 && decision.outcome != NO_OUTCOME {
        generation.used(decision.outcome, required);
    }
    let shadow = decision.shadow();
    if decision.denied | decision.would_deny | decision.audit | shadow == 0 {
        return 0;
    }
    if shadow != 0 {
        count(if decision.denied == 0 { Counter::ShadowDeny } else { Counter::ShadowAllow });
    }
    let errno = decision.answer();
    let mut loosened = false;
    let (verdict, actions) = if decision.denied != 0 {
        count(Counter::Denied);
        if !decision.reason.is_decided() {
            count(Counter::InternalDenied);
        }
        if decision.is_loosened() {
            loosened = true;
            count(Counter::WouldAllow);
        }
        (Verdict::Denied, decision.denied)
    } else if decision.would_deny != 0 {
        count(Counter::WouldDeny);
        (Verdict::WouldDeny, decision.would_deny)
    } else if decision.audit & required != 0 {
        (Verdict::Audited, decision.audit & required)
    } else {
        (Verdict::ShadowDeny, shadow)
    };
    // SAFETY: the function has no requirements.
    let reason = unsafe { reason_of(decision.reason as u32, decision.denied, decision.quiet) };
    let report = Report { verdict, reason: reason as u8, actions, errno: errno.abs(), loosened, shadow };
    send(generation, label, resource, &report);
    errno
}

/// Takes a use for each of these actions that is counted. Returns those, with [`SPENT`] if there was none left for
/// one. A global function, so that the verifier does not follow each answer through all that comes after.
///
/// # Safety
/// None is needed.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn take_uses(counted: u64, required: u64) -> u64 {
    let mut uses = 0;
    let mut index = 0;
    while index < COUNTABLE.len() {
        let (action, place) = (COUNTABLE[index].bit(), place_of(counted, index));
        if required & action != 0 && place != 0 {
            uses |= action | if take(place) { 0 } else { SPENT };
        }
        index += 1;
    }
    uses
}

/// Takes one of the uses that are left at a place, if there is one.
#[inline(always)]
fn take(place: u32) -> bool {
    let Some(left) = USES.get_ptr_mut(uses_left(place)) else { return false };
    // SAFETY: the pointer comes from a map lookup; while masks name the place, the word is only changed here.
    unsafe {
        // Without this the number would go on falling with every attempt.
        if (read_volatile(left) as i64) < 1 {
            return false;
        }
        atomic::add(left, u64::MAX) as i64 > 0
    }
}

/// The number of the reason for a denial: a quarantine counts before everything else. A global function, because
/// the verifier would follow every reason through all that comes after.
///
/// # Safety
/// None is needed.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn reason_of(reason: u32, denied: u64, quiet: u64) -> u32 {
    if denied & denied_by(quiet) != 0 { Reason::Quarantine as u32 } else { reason }
}
