//! From a resource to the number a hook returns.

use crate::generation::Generation;
use crate::record::{Report, count, send};
use crate::resource::Resource;
use aya_ebpf::helpers::generated::bpf_ktime_get_boot_ns;
use guard_common::decide::{Decision, NO_OUTCOME, Query, Reason, decide};
use guard_common::event::{Counter, Verdict};
use guard_common::label::Label;
use guard_common::tables::Header;

/// The live generation and its head, or why there is none.
#[inline(always)]
pub fn live() -> Result<(Generation, &'static Header), Reason> {
    let generation = Generation::live().ok_or(Reason::NoGeneration)?;
    let header = generation.header().ok_or(Reason::TableMiss)?;
    Ok((generation, header))
}

/// Decides everything in `required` on `resource` and records what is to be recorded. Returns 0 or
/// a negative error number.
#[inline(always)]
pub fn judge(generation: &Generation, label: *mut Label, resource: &Resource, required: u64) -> i32 {
    // SAFETY: the label of the running task.
    let subject = unsafe { (*label).subject };
    let query = Query { subject, class: resource.class, features: resource.features, required };
    // SAFETY: the helper has no requirements.
    let decision = decide(generation, &query, || unsafe { bpf_ktime_get_boot_ns() });
    answer(generation, label, resource, required, decision)
}

/// Denies everything in `required` because Guard cannot decide.
#[inline(always)]
pub fn fail(label: *mut Label, required: u64, reason: Reason) -> i32 {
    let generation = Generation::live().unwrap_or(Generation { slot: 0, number: 0 });
    let decision = Decision::deny_all(required, reason);
    answer(&generation, label, &Resource::unknown(), required, decision)
}

#[inline(always)]
fn answer(
    generation: &Generation,
    label: *mut Label,
    resource: &Resource,
    required: u64,
    decision: Decision,
) -> i32 {
    count(Counter::Decided);
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
        if !matches!(decision.reason, Reason::Policy) {
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
    let report = Report { verdict, reason: decision.reason, actions, errno: errno.abs(), loosened, shadow };
    send(generation, label, resource, &report);
    errno
}

/// Decides that at least one of two actions is allowed; a denial is reported as the first.
#[inline(always)]
pub fn judge_either(
    generation: &Generation,
    label: *mut Label,
    resource: &Resource,
    first: u64,
    second: u64,
) -> i32 {
    // SAFETY: the label of the running task.
    let subject = unsafe { (*label).subject };
    let query =
        Query { subject, class: resource.class, features: resource.features, required: first | second };
    // SAFETY: the helper has no requirements.
    let mut decision = decide(generation, &query, || unsafe { bpf_ktime_get_boot_ns() });
    // What the candidate set would deny or allow of both, as if both were one action.
    let both = first | second;
    let candidate = both & !(decision.denied & !decision.would_allow) & !decision.would_deny;
    let allowed = both & !decision.denied;
    let allowed_by_shadow = both & !(decision.denied ^ decision.differs);
    decision.denied = if allowed == 0 { first } else { 0 };
    decision.would_deny = if allowed != 0 && candidate == 0 { first } else { 0 };
    decision.would_allow = if allowed == 0 && candidate != 0 { first } else { 0 };
    decision.quiet &= first;
    decision.audit = 0;
    decision.differs = if (allowed == 0) == (allowed_by_shadow == 0) { 0 } else { first };
    answer(generation, label, resource, if allowed == 0 { first } else { allowed }, decision)
}
