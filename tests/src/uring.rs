//! One operation through io_uring, by hand (io_uring(7)).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::Result;
use nix::errno::Errno;
use nix::libc;

use crate::raw::c_path;

const OP_CONNECT: u8 = 16;
const OP_OPENAT: u8 = 18;
const OP_RENAMEAT: u8 = 35;
const OP_UNLINKAT: u8 = 36;
const OP_MKDIRAT: u8 = 37;
const OP_SYMLINKAT: u8 = 38;
const OP_LINKAT: u8 = 39;
const IOSQE_ASYNC: u8 = 16;
const ENTER_GETEVENTS: u32 = 1;
const OFFSET_SUBMISSIONS: libc::off_t = 0;
const OFFSET_ENTRIES: libc::off_t = 0x1000_0000;
const RING_BYTES: usize = 4096;

/// `struct io_uring_params`, as words.
#[repr(C)]
#[derive(Default)]
struct Parameters {
    sq_entries: u32,
    cq_entries: u32,
    flags: [u32; 3],
    features: u32,
    more: [u32; 4],
    submissions: SubmissionOffsets,
    completions: CompletionOffsets,
}

/// `struct io_sqring_offsets`.
#[repr(C)]
#[derive(Default)]
struct SubmissionOffsets {
    head: u32,
    tail: u32,
    mask: u32,
    entries: u32,
    flags: u32,
    dropped: u32,
    array: u32,
    more: [u32; 3],
}

/// `struct io_cqring_offsets`.
#[repr(C)]
#[derive(Default)]
struct CompletionOffsets {
    head: u32,
    tail: u32,
    mask: u32,
    entries: u32,
    overflow: u32,
    cqes: u32,
    more: [u32; 4],
}

/// `struct io_uring_sqe`.
#[repr(C)]
#[derive(Default)]
struct Submission {
    opcode: u8,
    flags: u8,
    priority: u16,
    fd: i32,
    offset: u64,
    address: u64,
    length: u32,
    operation_flags: u32,
    more: [u64; 4],
}

/// `struct io_uring_cqe`.
#[repr(C)]
struct Completion {
    user_data: u64,
    result: i32,
    flags: u32,
}

/// Whether this kernel lets processes use io_uring.
pub(crate) fn is_there() -> Result<bool> {
    match setup(&mut Parameters::default()) {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(Errno::ENOSYS as i32) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Connects a socket.
pub(crate) fn connect(fd: BorrowedFd<'_>, address: &[u8]) -> io::Result<()> {
    submit(Submission {
        opcode: OP_CONNECT,
        fd: fd.as_raw_fd(),
        address: address.as_ptr() as u64,
        offset: address.len() as u64,
        ..Submission::default()
    })
    .map(drop)
}

/// Opens a file for reading, in a worker thread of the kernel if `force_async`.
pub(crate) fn open(path: &Path, force_async: bool) -> io::Result<()> {
    let path = c_path(path);
    let fd = submit(Submission {
        opcode: OP_OPENAT,
        flags: if force_async { IOSQE_ASYNC } else { 0 },
        fd: libc::AT_FDCWD,
        address: path.as_ptr() as u64,
        operation_flags: libc::O_RDONLY as u32,
        ..Submission::default()
    })?;
    // SAFETY: a new descriptor that nobody else owns.
    drop(unsafe { OwnedFd::from_raw_fd(fd) });
    Ok(())
}

/// Removes a file.
pub(crate) fn unlink(path: &Path) -> io::Result<()> {
    let path = c_path(path);
    submit(Submission {
        opcode: OP_UNLINKAT,
        fd: libc::AT_FDCWD,
        address: path.as_ptr() as u64,
        ..Submission::default()
    })
    .map(drop)
}

/// Makes a directory.
pub(crate) fn mkdir(path: &Path) -> io::Result<()> {
    let path = c_path(path);
    submit(Submission {
        opcode: OP_MKDIRAT,
        fd: libc::AT_FDCWD,
        address: path.as_ptr() as u64,
        length: 0o777,
        ..Submission::default()
    })
    .map(drop)
}

/// Makes a symbolic link.
pub(crate) fn symlink(target: &Path, path: &Path) -> io::Result<()> {
    let (target, path) = (c_path(target), c_path(path));
    submit(Submission {
        opcode: OP_SYMLINKAT,
        fd: libc::AT_FDCWD,
        address: target.as_ptr() as u64,
        offset: path.as_ptr() as u64,
        ..Submission::default()
    })
    .map(drop)
}

/// Links a file to another name.
pub(crate) fn link(old: &Path, new: &Path) -> io::Result<()> {
    two_names(OP_LINKAT, old, new)
}

/// Renames a file.
pub(crate) fn rename(old: &Path, new: &Path) -> io::Result<()> {
    two_names(OP_RENAMEAT, old, new)
}

fn two_names(opcode: u8, old: &Path, new: &Path) -> io::Result<()> {
    let (old, new) = (c_path(old), c_path(new));
    submit(Submission {
        opcode,
        fd: libc::AT_FDCWD,
        address: old.as_ptr() as u64,
        offset: new.as_ptr() as u64,
        length: libc::AT_FDCWD as u32,
        ..Submission::default()
    })
    .map(drop)
}

fn setup(parameters: &mut Parameters) -> io::Result<OwnedFd> {
    // SAFETY: the structure has the layout and size that the kernel fills.
    let fd = unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, std::ptr::from_mut(parameters)) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as libc::c_int) })
}

fn map(fd: &OwnedFd, offset: libc::off_t) -> io::Result<*mut u8> {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_SHARED | libc::MAP_POPULATE;
    // SAFETY: a new mapping at an address of the kernel's choice, which lives as long as the process:
    // attempts end right after.
    let address =
        unsafe { libc::mmap(std::ptr::null_mut(), RING_BYTES, protection, flags, fd.as_raw_fd(), offset) };
    if address == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(address.cast()) }
}

/// Submits one entry, waits for it, and returns its result. What the entry points to outlives it.
fn submit(entry: Submission) -> io::Result<i32> {
    let mut parameters = Parameters::default();
    let ring_fd = setup(&mut parameters)?;
    // Since 5.4 (IORING_FEAT_SINGLE_MMAP) both rings are in one mapping.
    let ring = map(&ring_fd, OFFSET_SUBMISSIONS)?;
    let entries: *mut Submission = map(&ring_fd, OFFSET_ENTRIES)?.cast();
    // SAFETY: a ring of one entry fits the mapped page, at the offsets that the kernel gave; the
    // indices are shared with the kernel, hence atomic.
    let result = unsafe {
        entries.write(entry);
        ring.add(parameters.submissions.array as usize).cast::<u32>().write(0);
        let tail = &*ring.add(parameters.submissions.tail as usize).cast::<AtomicU32>();
        tail.fetch_add(1, Ordering::Release);
        let entered = libc::syscall(
            libc::SYS_io_uring_enter,
            ring_fd.as_raw_fd(),
            1,
            1,
            ENTER_GETEVENTS,
            std::ptr::null::<libc::c_void>(),
            0,
        );
        if entered < 0 {
            return Err(io::Error::last_os_error());
        }
        let tail = &*ring.add(parameters.completions.tail as usize).cast::<AtomicU32>();
        if tail.load(Ordering::Acquire) == 0 {
            return Err(io::Error::other("no completion"));
        }
        (*ring.add(parameters.completions.cqes as usize).cast::<Completion>()).result
    };
    if result < 0 { Err(io::Error::from_raw_os_error(-result)) } else { Ok(result) }
}
