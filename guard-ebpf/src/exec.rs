//! Execution: `bprm_creds_for_exec` decides the program and finds the successor that begins with it,
//! `bprm_check_security` decides each script interpreter after it.

use crate::file::named;
use crate::memory::read;
use crate::offsets::*;
use crate::select;
use crate::signature;
use crate::successor;
use crate::task::{Lookup, bounded, label};
use crate::verdict::fail;
use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;
use guard_common::action::{Action, EACCES};
use guard_common::decide::Reason;
use guard_common::label::Label;

#[lsm(hook = "bprm_creds_for_exec")]
pub fn bprm_creds_for_exec(ctx: LsmContext) -> i32 {
    let bprm: u64 = ctx.arg(0);
    match label() {
        Lookup::Unlabelled => select::at_exec(bprm),
        Lookup::Labelled(label) => {
            successor::forget(label);
            signature::begin(label);
            bounded(match first(&ctx, bprm, label) {
                Ok(answer) => answer,
                Err(reason) => fail(label, Action::Exec.bit(), reason),
            })
        }
        Lookup::Busy => -EACCES,
    }
}

#[lsm(hook = "bprm_check_security")]
pub fn bprm_check_security(ctx: LsmContext) -> i32 {
    let bprm: u64 = ctx.arg(0);
    let label = match label() {
        Lookup::Unlabelled => return 0,
        Lookup::Labelled(label) => label,
        Lookup::Busy => return -EACCES,
    };
    match is_first_stage(bprm) {
        Ok(true) => 0,
        Ok(false) => interpreter(bprm, label),
        Err(reason) => bounded(fail(label, Action::Exec.bit(), reason)),
    }
}

/// Whether no interpreter has been put in the program's place yet (`bprm_change_interp`).
#[inline(always)]
pub fn is_first_stage(bprm: u64) -> Result<bool, Reason> {
    Ok(read::<u64>(bprm, &BPRM_INTERP)? == read::<u64>(bprm, &BPRM_FILENAME)?)
}

/// Decides the program itself.
#[inline(always)]
fn first(ctx: &LsmContext, bprm: u64, label: *mut Label) -> Result<i32, Reason> {
    let file: u64 = read(bprm, &BPRM_FILE)?;
    let Some((dentry, inode)) = named(file)? else { return Ok(0) };
    let answer = signature::ask(label, file, dentry, inode)?;
    if answer != 0 { Ok(answer) } else { successor::prepare(ctx, inode, label) }
}

/// Decides what takes the program's place. It reads the program by its name, later, so it may stand for
/// nothing that gives rights, and nobody can say who signed what it will read.
#[inline(always)]
fn interpreter(bprm: u64, label: *mut Label) -> i32 {
    let rests = signature::rests(label);
    bounded(match decide(bprm, label) {
        Ok(0) if successor::widens(label) => successor::refuse(label, Reason::UnsafeExec),
        Ok(0) if rests => successor::refuse(label, Reason::SignersUnknown),
        Ok(answer) => answer,
        Err(reason) => fail(label, Action::Exec.bit(), reason),
    })
}

#[inline(always)]
fn decide(bprm: u64, label: *mut Label) -> Result<i32, Reason> {
    let file: u64 = read(bprm, &BPRM_FILE)?;
    let Some((dentry, inode)) = named(file)? else { return Ok(0) };
    signature::ask(label, file, dentry, inode)
}
