//! Reading the label of another process.

use super::{Kernel, KernelError, elements};
use guard_common::label::{CANARY_SUBJECT, Label, NO_SUBJECT};
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// The process that connected a unix socket, held so that its number cannot come to mean another
/// one. `pid` is that number, for kernels before 6.5, which hand out nothing better.
///
/// # Errors
/// If there is no such process any more.
pub fn peer_process(socket: BorrowedFd<'_>, pid: i32) -> io::Result<OwnedFd> {
    let mut descriptor: libc::c_int = -1;
    let mut length = size_of_val(&descriptor) as libc::socklen_t;
    // SAFETY: the option is one number, whose address and size are given.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERPIDFD,
            (&raw mut descriptor).cast(),
            &raw mut length,
        )
    };
    if result == 0 {
        // SAFETY: the kernel just made this descriptor for us.
        return Ok(unsafe { OwnedFd::from_raw_fd(descriptor) });
    }
    match io::Error::last_os_error() {
        error if error.raw_os_error() == Some(libc::ENOPROTOOPT) => pidfd(pid),
        error => Err(error),
    }
}

/// The supplementary groups of the process that connected a unix socket, as they were then.
///
/// # Errors
/// If the kernel does not tell.
pub fn peer_groups(socket: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    // More groups than `NGROUPS_MAX` (include/uapi/linux/limits.h) nobody has.
    let mut groups = vec![0u32; 65536];
    let mut length = size_of_val(groups.as_slice()) as libc::socklen_t;
    // SAFETY: address and size are those of the vector.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERGROUPS,
            groups.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    groups.truncate(length as usize / size_of::<u32>());
    Ok(groups)
}

/// Sends a signal to a process.
///
/// # Errors
/// If it has ended, or may not be signalled.
pub fn send_signal(process: BorrowedFd<'_>, signal: Signal) -> io::Result<()> {
    let (descriptor, number) = (process.as_raw_fd(), signal as libc::c_int);
    let info = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: pidfd_send_signal(2) takes a descriptor, a number, no information and no flags.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, descriptor, number, info, 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Whether a process has ended: its descriptor is readable then (pidfd_open(2)).
pub fn has_ended(process: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(poll(&mut [PollFd::new(process, PollFlags::POLLIN)], PollTimeout::ZERO)? != 0)
}

/// What a process carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Carried {
    /// The subject, or 0.
    pub subject: u32,
    /// The session, or 0.
    pub session: u64,
    /// The quarantines that cover it and are bound to no subject.
    pub barred: u32,
}

/// Reads labels, beside whatever else the kernel side is busy with.
pub struct LabelReader {
    map: OwnedFd,
}

impl Kernel {
    /// A reader of labels that does not borrow the kernel side.
    ///
    /// # Errors
    /// If the map's descriptor cannot be duplicated.
    pub fn label_reader(&self) -> Result<LabelReader, KernelError> {
        Ok(LabelReader { map: self.maps.duplicate("LABELS")? })
    }
}

impl LabelReader {
    /// Subject and session of the main thread of the process that has this number now.
    ///
    /// # Errors
    /// If there is no such process, or the kernel refuses to tell.
    pub fn of_number(&self, pid: i32) -> Result<Option<(u32, u64)>, KernelError> {
        let process = pidfd(pid).map_err(KernelError::system("pidfd_open"))?;
        self.of(process.as_fd())
    }

    /// The processes that carry a label, with its subject and session.
    ///
    /// # Errors
    /// If the processes cannot be listed, or the kernel refuses to tell.
    pub fn all(&self) -> Result<Vec<(i32, u32, u64)>, KernelError> {
        let mut found = Vec::new();
        let entries = std::fs::read_dir("/proc").map_err(KernelError::system("reading of /proc"))?;
        let numbers = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
        for pid in numbers {
            match self.of_number(pid) {
                Ok(Some((subject, session))) if subject != CANARY_SUBJECT => {
                    found.push((pid, subject, session));
                }
                Ok(_) => {}
                Err(KernelError::System { source, .. })
                    if matches!(source.raw_os_error(), Some(libc::ESRCH | libc::ENOENT | libc::EINVAL)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }

    /// What the processes carry that carry anything, quarantines alone included.
    ///
    /// # Errors
    /// As [`LabelReader::all`].
    pub fn everybody(&self) -> Result<Vec<(i32, Carried)>, KernelError> {
        let mut found = Vec::new();
        let entries = std::fs::read_dir("/proc").map_err(KernelError::system("reading of /proc"))?;
        let numbers = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
        for pid in numbers {
            let carried = pidfd(pid)
                .map_err(KernelError::system("pidfd_open"))
                .and_then(|process| self.carried(process.as_fd()));
            match carried {
                Ok(Some(carried)) if carried.subject != CANARY_SUBJECT => found.push((pid, carried)),
                Ok(_) => {}
                Err(KernelError::System { source, .. })
                    if matches!(source.raw_os_error(), Some(libc::ESRCH | libc::ENOENT | libc::EINVAL)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }

    /// What a process carries, by its descriptor; nothing if it carries nothing.
    ///
    /// # Errors
    /// As [`LabelReader::of`].
    pub fn carried(&self, process: BorrowedFd<'_>) -> Result<Option<Carried>, KernelError> {
        let label = self.storage(process)?.filter(|label| label.subject != NO_SUBJECT || label.barred != 0);
        Ok(label.map(|label| Carried {
            subject: label.subject,
            session: label.session,
            barred: label.barred,
        }))
    }

    /// Subject and session of the main thread of a process, by its descriptor; `None` if it carries no
    /// label.
    ///
    /// # Errors
    /// If the process has ended, or the kernel refuses to tell.
    pub fn of(&self, process: BorrowedFd<'_>) -> Result<Option<(u32, u64)>, KernelError> {
        Ok(self.whole(process)?.map(|label| (label.subject, label.session)))
    }

    /// Subject, session and the row that decides, of the main thread of a process; `None` if it carries
    /// no label.
    ///
    /// # Errors
    /// As [`LabelReader::of`].
    pub fn with_row(&self, process: BorrowedFd<'_>) -> Result<Option<(u32, u64, u32)>, KernelError> {
        Ok(self.whole(process)?.map(|label| (label.subject, label.session, label.row)))
    }

    fn whole(&self, process: BorrowedFd<'_>) -> Result<Option<Label>, KernelError> {
        Ok(self.storage(process)?.filter(|label| label.subject != NO_SUBJECT))
    }

    fn storage(&self, process: BorrowedFd<'_>) -> Result<Option<Label>, KernelError> {
        // Task storage is looked up by the descriptor of a process (`bpf_pid_task_storage_lookup_elem`).
        let key = process.as_raw_fd();
        let mut label = MaybeUninit::<Label>::zeroed();
        // SAFETY: key and value point to memory of the sizes the map was made with.
        let result =
            unsafe { elements::lookup(self.map.as_fd(), (&raw const key).cast(), label.as_mut_ptr().cast()) };
        match result {
            Ok(()) => {
                // SAFETY: it was zeroed, and the kernel wrote a whole value; any bytes are valid.
                let label = unsafe { label.assume_init() };
                Ok(Some(label))
            }
            // The answer for no label, and for no process.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {
                if has_ended(process).map_err(KernelError::system("poll of a process"))? {
                    let source = io::Error::from_raw_os_error(libc::ESRCH);
                    return Err(KernelError::System { call: "bpf(BPF_MAP_LOOKUP_ELEM) on a label", source });
                }
                Ok(None)
            }
            Err(error) => {
                Err(KernelError::System { call: "bpf(BPF_MAP_LOOKUP_ELEM) on a label", source: error })
            }
        }
    }
}

/// A descriptor of a process, which means that one even when its number is given to another (pidfd_open(2)).
pub(crate) fn pidfd(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: the call takes two numbers.
    let descriptor = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor as i32) })
}
