//! What was open as descriptors 0 to 2 when a label was attached.
//!
//! Whoever starts a subject hands it its standard input and output: a terminal, a pipe, the journal, a file.
//! That is a decision of theirs, so these files are a class of their own (`guard:stdio`), wherever they lie
//! and whatever descriptor leads to them. They are told by the address of the kernel's `struct file`, which may
//! come to be another file's when the first one is closed. So the inode must be the same as well, by address,
//! number and generation, and nothing is allowed for it that the first one was not open for: what is taken
//! for it by mistake is that same file, opened again.

use crate::file::{FMODE_READ, FMODE_WRITE};
use crate::memory::{read, read_at};
use crate::offsets::*;
use core::ptr::addr_of_mut;
use guard_common::decide::Reason;
use guard_common::label::{Held, Label, STDIO_FILES};

/// Notes what `task` has open as descriptors 0 to 2. What cannot be seen is not held.
#[inline(always)]
pub fn keep(task: u64, label: *mut Label) {
    // Read here: a global function takes numbers, and the task may be a pointer to the verifier.
    let files: u64 = read(task, &TASK_FILES).unwrap_or(0);
    // SAFETY: a label is a whole value.
    unsafe { note_stdio(label, files) };
}

/// What `keep` does, as a global function, which the verifier checks once for each program.
///
/// # Safety
/// The label must be a whole one; the verifier checks it.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn note_stdio(label: *mut Label, files: u64) -> u32 {
    if label.is_null() {
        return 1;
    }
    let mut index = 0;
    while index < STDIO_FILES {
        let held = open_file(files, index as u64).unwrap_or_default();
        // SAFETY: the label is whole, and the index below the length.
        unsafe { addr_of_mut!((*label).stdio).cast::<Held>().add(index).write(held) };
        index += 1;
    }
    0
}

/// What a descriptor of a table leads to. Of a task that is not the running one the table may change meanwhile;
/// what is read then is no open file of its, and never equals one.
#[inline(always)]
fn open_file(files: u64, descriptor: u64) -> Result<Held, Reason> {
    let table: u64 = read(files, &FILES_TABLE)?;
    let array: u64 = read(table, &TABLE_FILES)?;
    // A table has room for at least 64 files (`NR_OPEN_DEFAULT`, include/linux/fdtable.h).
    let file: u64 = read_at(array + descriptor * 8)?;
    if file == 0 {
        return Ok(Held::default());
    }
    let inode: u64 = read(file, &FILE_INODE)?;
    Ok(Held {
        file,
        inode,
        number: read(inode, &INODE_NUMBER)?,
        generation: read(inode, &INODE_GENERATION)?,
        mode: read(file, &FILE_MODE)?,
    })
}

/// Whether `file` was handed to the task with its label, open for what is done with it now.
#[inline(always)]
pub fn holds(label: *const Label, file: u64, writes: bool) -> Result<bool, Reason> {
    let mut index = 0;
    while index < STDIO_FILES {
        // SAFETY: the label is whole, and the index below the length.
        let held = unsafe { &*core::ptr::addr_of!((*label).stdio).cast::<Held>().add(index) };
        if held.file == file && file != 0 {
            let inode: u64 = read(file, &FILE_INODE)?;
            let wanted = if writes { FMODE_WRITE } else { FMODE_READ };
            return Ok(held.inode == inode
                && held.mode & wanted != 0
                && held.number == read::<u64>(inode, &INODE_NUMBER)?
                && held.generation == read::<u32>(inode, &INODE_GENERATION)?);
        }
        index += 1;
    }
    Ok(false)
}
