//! Operations through io_uring, by hand (io_uring(7)).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use nix::errno::Errno;
use nix::libc;

use crate::raw::c_path;

const OP_NOP: u8 = 0;
const OP_CONNECT: u8 = 16;
const OP_OPENAT: u8 = 18;
const OP_OPENAT2: u8 = 28;
const IOSQE_IO_LINK: u8 = 4;
const IOSQE_ASYNC: u8 = 16;
const ENTER_GETEVENTS: u32 = 1;
const ENTER_SQ_WAKEUP: u32 = 2;
const SETUP_SQPOLL: u32 = 2;
const SQ_NEED_WAKEUP: u32 = 1;
const REGISTER_FILES: u32 = 2;
const REGISTER_PERSONALITY: u32 = 9;
const OFFSET_SUBMISSIONS: libc::off_t = 0;
const OFFSET_ENTRIES: libc::off_t = 0x1000_0000;
const RING_BYTES: usize = 4096;
/// Room for a chain.
const ENTRIES: u32 = 4;
/// How long a poller may take that has to share its processor.
const PATIENCE: Duration = Duration::from_secs(60);

/// `struct io_uring_params`, as words.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Parameters {
    sq_entries: u32,
    cq_entries: u32,
    /// Flags, processor and idle time in milliseconds of the poller.
    flags: [u32; 3],
    features: u32,
    more: [u32; 4],
    submissions: SubmissionOffsets,
    completions: CompletionOffsets,
}

/// `struct io_sqring_offsets`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
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
#[derive(Clone, Copy, Default)]
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
#[derive(Clone, Copy, Default)]
struct Submission {
    opcode: u8,
    flags: u8,
    priority: u16,
    fd: i32,
    offset: u64,
    address: u64,
    length: u32,
    operation_flags: u32,
    /// `user_data`; `buf_index`, `personality` and `file_index`; the rest.
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
    Ring::new()?.connect(fd, address)
}

/// Opens a file for reading, in a worker thread of the kernel if `force_async`.
pub(crate) fn open(path: &Path, force_async: bool) -> io::Result<()> {
    Ring::new()?.open(path, if force_async { How::Worker } else { How::Plain })
}

/// How an operation is submitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    /// By itself.
    Plain,
    /// For a worker thread of the kernel.
    Worker,
    /// After another one in a chain.
    Chained,
    /// By a call with a structure of its own (openat2).
    Structured,
    /// Into a slot of the ring instead of a descriptor.
    Slot,
    /// With credentials that were registered before.
    Registered(u16),
}

/// A ring. It lives until the process ends: attempts end right after.
pub(crate) struct Ring {
    fd: OwnedFd,
    parameters: Parameters,
    ring: *mut u8,
    entries: *mut Submission,
    submitted: u32,
}

impl Ring {
    /// One whose operations are submitted by calls.
    pub(crate) fn new() -> io::Result<Self> {
        Self::with(Parameters::default())
    }

    /// One from which a thread of the kernel takes operations without a call.
    pub(crate) fn polled() -> io::Result<Self> {
        const IDLE_MS: u32 = 10_000;
        Self::with(Parameters { flags: [SETUP_SQPOLL, 0, IDLE_MS], ..Parameters::default() })
    }

    fn with(mut parameters: Parameters) -> io::Result<Self> {
        let fd = setup(&mut parameters)?;
        // Since 5.4 (IORING_FEAT_SINGLE_MMAP) both rings are in one mapping.
        let ring = map(&fd, OFFSET_SUBMISSIONS)?;
        let entries = map(&fd, OFFSET_ENTRIES)?.cast();
        Ok(Self { fd, parameters, ring, entries, submitted: 0 })
    }

    /// Keeps this process's credentials for later operations.
    pub(crate) fn register_credentials(&self) -> io::Result<How> {
        let number = self.register(REGISTER_PERSONALITY, std::ptr::null(), 0)?;
        u16::try_from(number).map(How::Registered).map_err(io::Error::other)
    }

    fn register(&self, what: u32, argument: *const i32, count: u32) -> io::Result<i64> {
        // SAFETY: the argument is null or an array of as many words, which the kernel copies.
        let result =
            unsafe { libc::syscall(libc::SYS_io_uring_register, self.fd.as_raw_fd(), what, argument, count) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
    }

    /// Connects a socket.
    pub(crate) fn connect(&mut self, fd: BorrowedFd<'_>, address: &[u8]) -> io::Result<()> {
        self.submit(&[Submission {
            opcode: OP_CONNECT,
            fd: fd.as_raw_fd(),
            address: address.as_ptr() as u64,
            offset: address.len() as u64,
            ..Submission::default()
        }])
        .map(drop)
    }

    /// Opens a file for reading.
    pub(crate) fn open(&mut self, path: &Path, how: How) -> io::Result<()> {
        let path = c_path(path);
        // `struct open_how`: flags, mode, resolve.
        let structure = [libc::O_RDONLY as u64, 0, 0];
        let mut open = Submission {
            opcode: OP_OPENAT,
            fd: libc::AT_FDCWD,
            address: path.as_ptr() as u64,
            operation_flags: libc::O_RDONLY as u32,
            ..Submission::default()
        };
        let nothing = Submission { opcode: OP_NOP, flags: IOSQE_IO_LINK, ..Submission::default() };
        match how {
            How::Plain | How::Chained => {}
            How::Worker => open.flags = IOSQE_ASYNC,
            How::Structured => {
                open.opcode = OP_OPENAT2;
                open.length = size_of_val(&structure) as u32;
                open.offset = structure.as_ptr() as u64;
                open.operation_flags = 0;
            }
            How::Slot => {
                self.register(REGISTER_FILES, [-1].as_ptr(), 1)?;
                // `file_index`, counted from one.
                open.more[1] = 1 << 32;
            }
            How::Registered(number) => open.more[1] = u64::from(number) << 16,
        }
        let fd = match how {
            How::Chained => self.submit(&[nothing, open])?,
            _ => self.submit(&[open])?,
        };
        if how != How::Slot {
            // SAFETY: a new descriptor that nobody else owns.
            drop(unsafe { OwnedFd::from_raw_fd(fd) });
        }
        Ok(())
    }

    /// Submits entries, waits for all of them, and returns the result of the last one. What they point to
    /// outlives them.
    fn submit(&mut self, entries: &[Submission]) -> io::Result<i32> {
        let before = self.submitted;
        self.submitted += entries.len() as u32;
        // SAFETY: a ring of so few entries fits the mapped page, at the offsets that the kernel gave; the
        // indices are shared with the kernel, hence atomic.
        unsafe {
            for (index, entry) in entries.iter().enumerate() {
                let place = (before + index as u32) % self.parameters.sq_entries;
                self.entries.add(place as usize).write(*entry);
                let array = self.ring.add(self.parameters.submissions.array as usize).cast::<u32>();
                array.add(place as usize).write(place);
            }
            self.word(self.parameters.submissions.tail).store(self.submitted, Ordering::Release);
        }
        let tail = self.parameters.completions.tail;
        if self.parameters.flags[0] & SETUP_SQPOLL == 0 {
            self.enter(entries.len() as u32, entries.len() as u32, ENTER_GETEVENTS)?;
        }
        let begin = Instant::now();
        // SAFETY: an index of the ring, as above.
        while unsafe { self.word(tail) }.load(Ordering::Acquire) != self.submitted {
            if begin.elapsed() > PATIENCE {
                return Err(io::Error::other("no completion"));
            }
            // SAFETY: an index of the ring, as above.
            let flags = unsafe { self.word(self.parameters.submissions.flags) }.load(Ordering::Acquire);
            if flags & SQ_NEED_WAKEUP != 0 {
                self.enter(0, 0, ENTER_SQ_WAKEUP)?;
            }
            std::thread::yield_now();
        }
        let last = (self.submitted - 1) % self.parameters.cq_entries;
        // SAFETY: a completion that the kernel has written, before it moved the tail.
        let result = unsafe {
            let completions = self.ring.add(self.parameters.completions.cqes as usize).cast::<Completion>();
            (*completions.add(last as usize)).result
        };
        // SAFETY: an index of the ring, as above.
        unsafe { self.word(self.parameters.completions.head) }.store(self.submitted, Ordering::Release);
        if result < 0 { Err(io::Error::from_raw_os_error(-result)) } else { Ok(result) }
    }

    /// A shared word of the ring.
    ///
    /// # Safety
    /// `offset` must be one that the kernel gave for a word of this ring.
    unsafe fn word(&self, offset: u32) -> &AtomicU32 {
        // SAFETY: the caller's promise; the mapping lives as long as the process.
        unsafe { &*self.ring.add(offset as usize).cast::<AtomicU32>() }
    }

    fn enter(&self, submit: u32, wait: u32, flags: u32) -> io::Result<()> {
        // SAFETY: takes numbers, and no signal mask.
        let entered = unsafe {
            libc::syscall(
                libc::SYS_io_uring_enter,
                self.fd.as_raw_fd(),
                submit,
                wait,
                flags,
                std::ptr::null::<libc::c_void>(),
                0,
            )
        };
        if entered < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

fn setup(parameters: &mut Parameters) -> io::Result<OwnedFd> {
    // SAFETY: the structure has the layout and size that the kernel fills.
    let fd = unsafe { libc::syscall(libc::SYS_io_uring_setup, ENTRIES, std::ptr::from_mut(parameters)) };
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
