//! System calls that have no safe wrapper: the only unsafe code besides fork.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering};

use nix::errno::Errno;
use nix::libc::{self, c_int, c_long, c_uint, c_void};

/// Flag of execveat: only check whether the execution would be allowed (include/uapi/linux/fcntl.h).
pub const AT_EXECVE_CHECK: c_int = 0x10000;

/// Ends this process without running anything else.
pub fn exit_now(status: c_int) -> ! {
    // SAFETY: takes no memory and does not return.
    unsafe { libc::_exit(status) }
}

fn checked(result: c_long) -> io::Result<c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// A path as system calls want it.
pub fn c_path(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).unwrap_or_default()
}

/// Makes `bits` effective, permitted, inheritable and ambient.
pub fn set_capabilities(bits: u64) -> nix::Result<()> {
    const VERSION_3: u32 = 0x2008_0522;
    let header = [VERSION_3, 0];
    let (low, high) = (bits as u32, (bits >> 32) as u32);
    let data = [low, low, low, high, high, high];
    // SAFETY: `struct __user_cap_header_struct` and two `struct __user_cap_data_struct` are plain
    // words of these numbers and orders.
    checked(unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), data.as_ptr()) })
        .map_err(|_| nix::errno::Errno::last())?;
    for capability in (0..64).filter(|bit| bits >> bit & 1 == 1) {
        // SAFETY: takes numbers only.
        let result =
            unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE, capability, 0, 0) };
        nix::errno::Errno::result(result)?;
    }
    Ok(())
}

/// Returns when every processor has left what it was doing in the kernel: a grace period of RCU has
/// passed (membarrier(2)).
pub fn wait_for_every_processor() -> io::Result<()> {
    // SAFETY: takes numbers only.
    checked(unsafe { libc::syscall(libc::SYS_membarrier, libc::MEMBARRIER_CMD_GLOBAL, 0, 0) }).map(drop)
}

/// Changes the user ids of the calling thread and of no other (the C library changes all of them).
pub fn set_thread_uid(uid: u32) -> io::Result<()> {
    // SAFETY: takes numbers only.
    checked(unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) }).map(drop)
}

/// Sets the effective or file-system user id only.
pub fn set_fs_uid(uid: u32) {
    // SAFETY: takes a number only.
    unsafe { libc::setfsuid(uid) };
}

/// openat2(2) with resolve flags.
pub fn openat2(path: &Path, flags: c_int, resolve: u64) -> io::Result<OwnedFd> {
    let path = c_path(path);
    let how = [flags as u64, 0, resolve];
    // SAFETY: the string is terminated; `struct open_how` is three 64-bit words.
    let fd = checked(unsafe {
        libc::syscall(libc::SYS_openat2, libc::AT_FDCWD, path.as_ptr(), how.as_ptr(), size_of_val(&how))
    })?;
    // SAFETY: a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as c_int) })
}

/// The calls for opening that the C library no longer uses, for reading: open(2), and creat(2), which
/// truncates.
pub fn old_open(path: &Path) -> io::Result<OwnedFd> {
    let path = c_path(path);
    // SAFETY: the string is terminated; without O_CREAT no mode is read.
    let fd = checked(unsafe { libc::syscall(libc::SYS_open, path.as_ptr(), libc::O_RDONLY) })?;
    // SAFETY: a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as c_int) })
}

/// creat(2).
pub fn creat(path: &Path) -> io::Result<OwnedFd> {
    let path = c_path(path);
    // SAFETY: the string is terminated.
    let fd = checked(unsafe { libc::syscall(libc::SYS_creat, path.as_ptr(), 0o666) })?;
    // SAFETY: a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as c_int) })
}

/// open(2) with exactly these flags.
pub fn open(path: &Path, flags: c_int) -> io::Result<OwnedFd> {
    let path = c_path(path);
    // SAFETY: the string is terminated; without O_CREAT no mode is read.
    let fd = checked(unsafe { libc::open(path.as_ptr(), flags | libc::O_CLOEXEC) } as c_long)?;
    // SAFETY: a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as c_int) })
}

/// Opens what is at `path`, whatever it is, for reference only.
pub fn open_path(path: &Path) -> io::Result<OwnedFd> {
    use std::os::unix::fs::OpenOptionsExt;
    File::options().read(true).custom_flags(libc::O_PATH).open(path).map(OwnedFd::from)
}

/// A copy of the mount at `path` that is mounted nowhere.
pub fn open_tree_clone(path: &Path) -> io::Result<OwnedFd> {
    const OPEN_TREE_CLONE: c_int = 1;
    let path = c_path(path);
    let flags = OPEN_TREE_CLONE | libc::O_CLOEXEC | libc::AT_RECURSIVE;
    // SAFETY: the string is terminated.
    let fd = checked(unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags) })?;
    // SAFETY: a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as c_int) })
}

/// Makes the mount at `path` writable, whatever it was (mount_setattr(2)).
pub fn make_writable(path: &Path) -> io::Result<()> {
    const MOUNT_ATTR_RDONLY: u64 = 1;
    // `struct mount_attr`: what to set, what to clear, propagation, user namespace.
    let attributes = [0, MOUNT_ATTR_RDONLY, 0, 0];
    let path = c_path(path);
    // SAFETY: the string is terminated; the structure is four 64-bit words.
    checked(unsafe {
        let (attributes, size) = (attributes.as_ptr(), size_of_val(&attributes));
        libc::syscall(libc::SYS_mount_setattr, libc::AT_FDCWD, path.as_ptr(), 0, attributes, size)
    })
    .map(drop)
}

/// A new tmpfs that is mounted nowhere (fsopen(2), fsconfig(2)); it ends with the descriptor.
pub fn new_tmpfs() -> io::Result<OwnedFd> {
    const FSOPEN_CLOEXEC: c_int = 1;
    const FSCONFIG_SET_STRING: c_int = 1;
    const FSCONFIG_CMD_CREATE: c_int = 6;
    const NOTHING: *const libc::c_char = std::ptr::null();
    // SAFETY: the string is terminated.
    let fd = checked(unsafe { libc::syscall(libc::SYS_fsopen, c"tmpfs".as_ptr(), FSOPEN_CLOEXEC) })?;
    // SAFETY: a new descriptor that nobody else owns.
    let context = unsafe { OwnedFd::from_raw_fd(fd as c_int) };
    // SAFETY: both strings are terminated.
    checked(unsafe {
        let (key, value) = (c"mode".as_ptr(), c"777".as_ptr());
        libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), FSCONFIG_SET_STRING, key, value, 0)
    })?;
    // SAFETY: this command takes no more than the descriptor.
    checked(unsafe {
        libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), FSCONFIG_CMD_CREATE, NOTHING, NOTHING, 0)
    })?;
    Ok(context)
}

/// The root of what was made with [`new_tmpfs`], as a mount that hangs nowhere (fsmount(2)).
pub fn fsmount(context: &OwnedFd) -> io::Result<OwnedFd> {
    const FSMOUNT_CLOEXEC: c_int = 1;
    // SAFETY: takes numbers only.
    let fd = checked(unsafe { libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), FSMOUNT_CLOEXEC, 0) })?;
    // SAFETY: a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as c_int) })
}

/// Room for `struct file_handle`.
#[repr(C, align(8))]
struct Handle {
    bytes: u32,
    kind: c_int,
    data: [u8; 128],
}

/// Opens `path` for reading by its file handle instead of its name; `directory` is any on the same mount.
pub fn open_by_handle(directory: &File, path: &Path) -> io::Result<OwnedFd> {
    open_by_handle_with(directory, path, libc::O_RDONLY)
}

/// The same with any flags.
pub fn open_by_handle_with(directory: &File, path: &Path, flags: c_int) -> io::Result<OwnedFd> {
    let path = c_path(path);
    let mut handle = Handle { bytes: 128, kind: 0, data: [0; 128] };
    let mut mount_id: c_int = 0;
    // SAFETY: the buffer has the layout and the size that its first field states.
    checked(unsafe {
        libc::syscall(
            libc::SYS_name_to_handle_at,
            libc::AT_FDCWD,
            path.as_ptr(),
            &raw mut handle,
            &raw mut mount_id,
            0,
        )
    })?;
    // SAFETY: the kernel filled the handle.
    let fd = checked(unsafe {
        libc::syscall(libc::SYS_open_by_handle_at, directory.as_raw_fd(), &raw mut handle, flags)
    })?;
    // SAFETY: a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as c_int) })
}

/// execveat(2) of a descriptor, with an empty environment. Returns only on failure, or if only
/// checked.
pub fn execveat(fd: BorrowedFd<'_>, path: &CStr, flags: c_int) -> io::Result<()> {
    let arguments = [c"program".as_ptr(), std::ptr::null()];
    let environment = [std::ptr::null::<libc::c_char>()];
    // SAFETY: the string and both arrays are terminated.
    checked(unsafe {
        libc::syscall(
            libc::SYS_execveat,
            fd.as_raw_fd(),
            path.as_ptr(),
            arguments.as_ptr(),
            environment.as_ptr(),
            flags,
        )
    })
    .map(drop)
}

/// execve(2) with arguments that are none, very many, or in memory that cannot be read; returns only on
/// failure.
pub fn execve_with(path: &Path, arguments: Arguments) -> io::Error {
    let path = c_path(path);
    let environment = [std::ptr::null::<libc::c_char>()];
    let mut list: Vec<*const libc::c_char> = match arguments {
        Arguments::None => Vec::new(),
        Arguments::Many => vec![c"--".as_ptr(); 5000],
        Arguments::Forgotten => vec![forgotten_page()],
    };
    list.push(std::ptr::null());
    // SAFETY: the string, the array and its strings are terminated: a page of zeros is an empty string.
    unsafe { libc::execve(path.as_ptr(), list.as_ptr(), environment.as_ptr()) };
    io::Error::last_os_error()
}

/// Arguments of a program, of kinds that are hard to read for whoever looks before the kernel does.
#[derive(Clone, Copy, Debug)]
pub enum Arguments {
    /// Not even a name.
    None,
    /// Thousands.
    Many,
    /// On a page that is not in memory.
    Forgotten,
}

/// A page that the kernel will have to bring back, as zeros.
fn forgotten_page() -> *const libc::c_char {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a new mapping at an address of the kernel's choice, to which nothing refers yet; it lives as
    // long as the process.
    unsafe {
        let page = libc::mmap(std::ptr::null_mut(), 4096, protection, flags, -1, 0);
        if page == libc::MAP_FAILED {
            return std::ptr::null();
        }
        page.cast::<u8>().write(b'x');
        libc::madvise(page, 4096, libc::MADV_DONTNEED);
        page.cast()
    }
}

/// What a child that shares our memory executes.
struct Image {
    path: CString,
    /// The errno of a failed execve.
    errno: AtomicI32,
}

extern "C" fn execute(image: *mut c_void) -> c_int {
    let arguments = [c"program".as_ptr(), std::ptr::null()];
    let environment = [std::ptr::null::<libc::c_char>()];
    // SAFETY: the image outlives the child, because its parent waits; string and arrays are
    // terminated. Nothing is allocated and nothing unwinds.
    unsafe {
        let image = &*image.cast::<Image>();
        libc::execve(image.path.as_ptr(), arguments.as_ptr(), environment.as_ptr());
        image.errno.store(*libc::__errno_location(), Ordering::SeqCst);
    }
    127
}

/// Executes a program as vfork(2) and execve(2) do: in a child that uses our memory while we wait.
pub fn vfork_exec(path: &Path) -> io::Result<()> {
    const STACK: usize = 64 << 10;
    let image = Image { path: c_path(path), errno: AtomicI32::new(0) };
    let mut stack = vec![0u128; STACK / 16];
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    // SAFETY: the stack is aligned, large enough for one call and alive until the child no longer uses
    // our memory, which is when clone(2) returns because of CLONE_VFORK; so is the image.
    let pid = checked(unsafe {
        let top = stack.as_mut_ptr().add(stack.len()).cast();
        libc::clone(execute, top, flags, (&raw const image).cast_mut().cast()) as c_long
    })?;
    ended(pid as libc::pid_t, image.errno.load(Ordering::SeqCst))
}

/// Executes a program with posix_spawn(3).
pub fn posix_spawn(path: &Path) -> io::Result<()> {
    let path = c_path(path);
    let arguments = [c"program".as_ptr().cast_mut(), std::ptr::null_mut()];
    let environment = [std::ptr::null_mut::<libc::c_char>()];
    let mut pid = 0;
    // SAFETY: the string and both arrays are terminated; no attributes are given.
    let errno = unsafe {
        libc::posix_spawn(
            &raw mut pid,
            path.as_ptr(),
            std::ptr::null(),
            std::ptr::null(),
            arguments.as_ptr(),
            environment.as_ptr(),
        )
    };
    if errno == 0 { ended(pid, 0) } else { Err(io::Error::from_raw_os_error(errno)) }
}

/// Waits for a child that has executed something, unless `errno` says that it could not.
fn ended(pid: libc::pid_t, errno: c_int) -> io::Result<()> {
    let status = nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(pid), None)?;
    match status {
        _ if errno != 0 => Err(io::Error::from_raw_os_error(errno)),
        nix::sys::wait::WaitStatus::Exited(_, 0) => Ok(()),
        other => Err(io::Error::other(format!("the program ended with {other:?}"))),
    }
}

/// A new process in the cgroup whose directory is open as `cgroup` (clone3(2)).
pub fn fork_into(cgroup: BorrowedFd<'_>) -> io::Result<libc::pid_t> {
    const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
    // `struct clone_args`: flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls,
    // set_tid, set_tid_size, cgroup.
    let mut arguments = [0u64; 11];
    arguments[0] = CLONE_INTO_CGROUP;
    arguments[4] = libc::SIGCHLD as u64;
    arguments[10] = cgroup.as_raw_fd() as u64;
    // SAFETY: without CLONE_VM this is fork; this program has one thread.
    checked(unsafe { libc::syscall(libc::SYS_clone3, arguments.as_ptr(), size_of_val(&arguments)) })
        .map(|pid| pid as libc::pid_t)
}

/// A new process with an id of our choice (clone3(2)), which takes CAP_CHECKPOINT_RESTORE.
pub fn fork_with_id(pid: libc::pid_t) -> io::Result<libc::pid_t> {
    let mut arguments = [0u64; 11];
    arguments[4] = libc::SIGCHLD as u64;
    arguments[8] = (&raw const pid) as u64;
    arguments[9] = 1;
    // SAFETY: without CLONE_VM this is fork; this program has one thread; the id outlives the call.
    checked(unsafe { libc::syscall(libc::SYS_clone3, arguments.as_ptr(), size_of_val(&arguments)) })
        .map(|pid| pid as libc::pid_t)
}

/// A new process that shares nothing but is a child of our parent.
pub fn clone_parent() -> io::Result<libc::pid_t> {
    let flags = libc::CLONE_PARENT as c_long;
    // SAFETY: without CLONE_VM this is fork with another parent; this program has one thread.
    checked(unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) }).map(|pid| pid as libc::pid_t)
}

/// A new process that shares working directory, root and umask with this one.
pub fn clone_sharing_directories() -> io::Result<libc::pid_t> {
    let flags = (libc::CLONE_FS | libc::SIGCHLD) as c_long;
    // SAFETY: without CLONE_VM this is fork; this program has one thread.
    checked(unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) }).map(|pid| pid as libc::pid_t)
}

/// Maps one page, and unmaps it again.
pub fn map_page(fd: Option<BorrowedFd<'_>>, protection: c_int) -> io::Result<()> {
    let (flags, fd) = match fd {
        Some(fd) => (libc::MAP_PRIVATE, fd.as_raw_fd()),
        None => (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1),
    };
    // SAFETY: a new mapping at an address of the kernel's choice; nothing refers to it.
    unsafe {
        let address = libc::mmap(std::ptr::null_mut(), 4096, protection, flags, fd, 0);
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        libc::munmap(address, 4096);
    }
    Ok(())
}

/// Maps one page privately without the right to execute it, writes to it if it is to be changed, and then
/// asks for another protection.
pub fn protect_page(fd: Option<BorrowedFd<'_>>, change: bool, protection: c_int) -> io::Result<()> {
    let (flags, fd) = match fd {
        Some(fd) => (libc::MAP_PRIVATE, fd.as_raw_fd()),
        None => (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1),
    };
    // SAFETY: a new mapping at an address of the kernel's choice; nothing else refers to it.
    unsafe {
        let address =
            libc::mmap(std::ptr::null_mut(), 4096, libc::PROT_READ | libc::PROT_WRITE, flags, fd, 0);
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        if change {
            address.cast::<u8>().write_volatile(0xc3);
        }
        let result = checked(libc::mprotect(address, 4096, protection).into());
        libc::munmap(address, 4096);
        result.map(drop)
    }
}

/// Renames a file (renameat2(2)).
pub fn rename(old: &Path, new: &Path, flags: c_uint) -> io::Result<()> {
    let (old, new) = (c_path(old), c_path(new));
    // SAFETY: both are strings that end in zero and outlive the call.
    checked(unsafe {
        libc::syscall(libc::SYS_renameat2, libc::AT_FDCWD, old.as_ptr(), libc::AT_FDCWD, new.as_ptr(), flags)
    })
    .map(drop)
}

/// Sets an extended attribute.
pub fn set_attribute(path: &Path, name: &CStr, value: &[u8]) -> io::Result<()> {
    let path = c_path(path);
    // SAFETY: the strings end in zero; the kernel copies as many bytes as the slice has.
    checked(unsafe {
        libc::setxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0).into()
    })
    .map(drop)
}

/// Removes an extended attribute.
pub fn remove_attribute(path: &Path, name: &CStr) -> io::Result<()> {
    let path = c_path(path);
    // SAFETY: both strings end in zero.
    checked(unsafe { libc::removexattr(path.as_ptr(), name.as_ptr()).into() }).map(drop)
}

/// An ioctl(2) whose argument is at most eight bytes.
pub fn ioctl(fd: BorrowedFd<'_>, command: u32, argument: u64) -> io::Result<()> {
    ioctl_on(fd, command, argument).map(drop)
}

/// Makes a request that answers with a number of at most eight bytes.
pub fn ioctl_answer(fd: BorrowedFd<'_>, command: u32) -> io::Result<u64> {
    ioctl_on(fd, command, 0)
}

/// What is at the argument's address afterwards.
fn ioctl_on(fd: BorrowedFd<'_>, command: u32, mut argument: u64) -> io::Result<u64> {
    // SAFETY: the commands of the tests read or write at most eight bytes at the address.
    checked(unsafe { libc::ioctl(fd.as_raw_fd(), command.into(), &raw mut argument).into() })?;
    Ok(argument)
}

/// The same as a 32-bit program makes it, through the 32-bit system call gate.
pub fn ioctl_of_32_bits(fd: BorrowedFd<'_>, command: u32, argument: u64) -> io::Result<()> {
    const IOCTL: u32 = 54;
    // SAFETY: a new mapping below 4 GiB, so that a 32-bit pointer reaches it; the gate takes its arguments
    // in the named registers and clobbers those that are listed.
    unsafe {
        let memory = libc::mmap(
            std::ptr::null_mut(),
            4096,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_32BIT,
            -1,
            0,
        );
        if memory == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        memory.cast::<u64>().write(argument);
        let result: i32;
        std::arch::asm!(
            "push rbx",
            "mov ebx, {fd:e}",
            "int 0x80",
            "pop rbx",
            fd = in(reg) fd.as_raw_fd(),
            inlateout("eax") IOCTL => result,
            in("ecx") command,
            in("edx") memory as u32,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _,
        );
        libc::munmap(memory, 4096);
        if result < 0 { Err(io::Error::from_raw_os_error(-result)) } else { Ok(()) }
    }
}

/// Connects a socket to the raw bytes of an address.
pub fn connect(fd: BorrowedFd<'_>, address: &[u8]) -> io::Result<()> {
    // SAFETY: the kernel copies as many bytes as the slice has.
    checked(unsafe {
        libc::connect(fd.as_raw_fd(), address.as_ptr().cast(), address.len() as libc::socklen_t) as c_long
    })
    .map(drop)
}

/// Binds a socket to the raw bytes of an address.
pub fn bind(fd: BorrowedFd<'_>, address: &[u8]) -> io::Result<()> {
    // SAFETY: the kernel copies as many bytes as the slice has.
    checked(unsafe {
        libc::bind(fd.as_raw_fd(), address.as_ptr().cast(), address.len() as libc::socklen_t) as c_long
    })
    .map(drop)
}

/// Lets a socket wait for connections.
pub fn listen(fd: BorrowedFd<'_>) -> io::Result<()> {
    const BACKLOG: c_int = 16;
    // SAFETY: takes numbers only.
    checked(unsafe { libc::listen(fd.as_raw_fd(), BACKLOG) } as c_long).map(drop)
}

/// Accepts a connection.
pub fn accept(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    // SAFETY: no address is asked for.
    let new = checked(unsafe {
        libc::accept4(fd.as_raw_fd(), std::ptr::null_mut(), std::ptr::null_mut(), libc::SOCK_CLOEXEC)
            as c_long
    })?;
    // SAFETY: a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(new as c_int) })
}

/// Sets an option of a socket to raw bytes.
pub fn set_option(fd: BorrowedFd<'_>, level: c_int, name: c_int, value: &[u8]) -> io::Result<()> {
    // SAFETY: the kernel copies as many bytes as the slice has.
    checked(unsafe {
        let length = value.len() as libc::socklen_t;
        libc::setsockopt(fd.as_raw_fd(), level, name, value.as_ptr().cast(), length) as c_long
    })
    .map(drop)
}

/// Sends bytes to the raw bytes of an address (sendto(2)).
pub fn send_to(fd: BorrowedFd<'_>, data: &[u8], flags: c_int, address: &[u8]) -> io::Result<()> {
    // SAFETY: the kernel copies as many bytes as the slices have.
    checked(unsafe {
        let length = address.len() as libc::socklen_t;
        let (fd, data_length) = (fd.as_raw_fd(), data.len());
        libc::sendto(fd, data.as_ptr().cast(), data_length, flags, address.as_ptr().cast(), length) as c_long
    })
    .map(drop)
}

/// One message, as the kernel reads it: the parts that it points to outlive it.
pub struct Message<'a> {
    header: Box<libc::mmsghdr>,
    _data: Box<libc::iovec>,
    parts: std::marker::PhantomData<&'a [u8]>,
}

impl<'a> Message<'a> {
    /// A message with the raw bytes of an address and of control messages.
    pub fn new(data: &'a [u8], address: &'a [u8], control: &'a [u8]) -> Self {
        let mut part =
            Box::new(libc::iovec { iov_base: data.as_ptr().cast_mut().cast(), iov_len: data.len() });
        // SAFETY: all zeros is a valid value of this structure of numbers and pointers.
        let mut header: Box<libc::mmsghdr> = Box::new(unsafe { std::mem::zeroed() });
        header.msg_hdr.msg_name = address.as_ptr().cast_mut().cast();
        header.msg_hdr.msg_namelen = address.len() as libc::socklen_t;
        header.msg_hdr.msg_iov = &raw mut *part;
        header.msg_hdr.msg_iovlen = 1;
        header.msg_hdr.msg_control = control.as_ptr().cast_mut().cast();
        header.msg_hdr.msg_controllen = control.len();
        Self { header, _data: part, parts: std::marker::PhantomData }
    }

    /// The address of its `struct msghdr`.
    pub fn address(&self) -> u64 {
        (&raw const self.header.msg_hdr) as u64
    }

    /// Sends it with sendmsg(2).
    pub fn send(&self, fd: BorrowedFd<'_>, flags: c_int) -> io::Result<()> {
        // SAFETY: the header and what it points to live as long as `self`; the kernel only reads them.
        checked(unsafe { libc::sendmsg(fd.as_raw_fd(), &raw const self.header.msg_hdr, flags) } as c_long)
            .map(drop)
    }

    /// Sends it with sendmmsg(2).
    pub fn send_as_one_of_many(&mut self, fd: BorrowedFd<'_>, flags: c_int) -> io::Result<()> {
        // SAFETY: as in `send`; the kernel writes the length of what it sent into the header.
        checked(unsafe { libc::sendmmsg(fd.as_raw_fd(), &raw mut *self.header, 1, flags) } as c_long)
            .map(drop)
    }
}

/// A socket.
pub fn socket(family: c_int, kind: c_int, protocol: c_int) -> io::Result<OwnedFd> {
    // SAFETY: takes numbers only.
    let fd = checked(unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC, protocol) } as c_long)?;
    // SAFETY: a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as c_int) })
}

/// One system call that takes numbers only.
fn numbers(call: c_long, arguments: [c_long; 6]) -> io::Result<c_long> {
    let [a, b, c, d, e, f] = arguments;
    // SAFETY: the callers pass numbers, or addresses that the call takes as numbers of another process.
    checked(unsafe { libc::syscall(call, a, b, c, d, e, f) })
}

/// kill(2), of a process, or of a group if negative.
pub fn kill(pid: libc::pid_t, signal: c_int) -> io::Result<()> {
    numbers(libc::SYS_kill, [pid.into(), signal.into(), 0, 0, 0, 0]).map(drop)
}

/// tgkill(2) of the first thread of a process.
pub fn tgkill(pid: libc::pid_t, signal: c_int) -> io::Result<()> {
    numbers(libc::SYS_tgkill, [pid.into(), pid.into(), signal.into(), 0, 0, 0]).map(drop)
}

/// sigqueue(3).
pub fn sigqueue(pid: libc::pid_t, signal: c_int) -> io::Result<()> {
    let value = libc::sigval { sival_ptr: std::ptr::null_mut() };
    // SAFETY: takes numbers only.
    checked(unsafe { libc::sigqueue(pid, signal, value) }.into()).map(drop)
}

/// pidfd_open(2).
pub fn pidfd(pid: libc::pid_t) -> io::Result<OwnedFd> {
    let fd = numbers(libc::SYS_pidfd_open, [pid.into(), 0, 0, 0, 0, 0])?;
    // SAFETY: a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as c_int) })
}

/// pidfd_send_signal(2).
pub fn pidfd_signal(pid: libc::pid_t, signal: c_int) -> io::Result<()> {
    let fd = pidfd(pid)?;
    numbers(libc::SYS_pidfd_send_signal, [fd.as_raw_fd().into(), signal.into(), 0, 0, 0, 0]).map(drop)
}

/// pidfd_getfd(2): the descriptor 0 of another process.
pub fn pidfd_getfd(pid: libc::pid_t) -> io::Result<()> {
    let fd = pidfd(pid)?;
    let got = numbers(libc::SYS_pidfd_getfd, [fd.as_raw_fd().into(), 0, 0, 0, 0, 0])?;
    // SAFETY: a new descriptor that nobody else owns.
    drop(unsafe { OwnedFd::from_raw_fd(got as c_int) });
    Ok(())
}

/// setpriority(2), sched_setaffinity(2), ioprio_set(2) or prlimit(2) of one process: what changes how it
/// is run.
#[derive(Clone, Copy, Debug)]
pub enum Tuning {
    /// Its nice value.
    Nice,
    /// The processors it may run on: all.
    Affinity,
    /// Its priority of input and output.
    InputOutput,
    /// How many files it may open.
    Limit,
}

/// Tunes a process.
pub fn tune(pid: libc::pid_t, what: Tuning) -> io::Result<()> {
    let pid = c_long::from(pid);
    match what {
        Tuning::Nice => {
            numbers(libc::SYS_setpriority, [libc::PRIO_PROCESS as c_long, pid, 5, 0, 0, 0]).map(drop)
        }
        Tuning::Affinity => {
            let all = [u64::MAX; 16];
            // SAFETY: the mask is given with its size.
            checked(unsafe {
                libc::syscall(libc::SYS_sched_setaffinity, pid, size_of_val(&all), all.as_ptr())
            })
            .map(drop)
        }
        Tuning::InputOutput => {
            const WHO_PROCESS: c_long = 1;
            const BEST_EFFORT_7: c_long = 2 << 13 | 7;
            numbers(libc::SYS_ioprio_set, [WHO_PROCESS, pid, BEST_EFFORT_7, 0, 0, 0]).map(drop)
        }
        Tuning::Limit => {
            let limit = [64u64, 64];
            // SAFETY: `struct rlimit64` is two words; no old value is asked for.
            checked(unsafe {
                let old = std::ptr::null_mut::<c_void>();
                libc::syscall(libc::SYS_prlimit64, pid, libc::RLIMIT_NOFILE, limit.as_ptr(), old)
            })
            .map(drop)
        }
    }
}

/// How a process names who gets the signals of a file.
#[derive(Clone, Copy, Debug)]
pub enum Naming {
    /// `fcntl(F_SETOWN)`.
    Process,
    /// `fcntl(F_SETOWN)` of the process group with this number.
    Group,
    /// `fcntl(F_SETOWN_EX)` of the thread.
    Thread,
    /// `ioctl(FIOSETOWN)`, which sockets have.
    Ioctl,
}

/// Names `owner` as the one who gets the signals of a socket, and has the socket send `signal`: SIGURG by
/// urgent data, any other by `F_SETSIG` and data.
pub fn signal_by_file(naming: Naming, owner: libc::pid_t, signal: c_int) -> io::Result<()> {
    const FIOSETOWN: libc::c_ulong = 0x8901;
    const F_OWNER_TID: c_int = 0;
    let (near, far) = std::os::unix::net::UnixStream::pair()?;
    let socket = near.as_raw_fd();
    // SAFETY: the descriptor is open; `struct f_owner_ex` is two numbers, and so is what the ioctl reads one.
    unsafe {
        let named = match naming {
            Naming::Process => libc::fcntl(socket, libc::F_SETOWN, owner),
            Naming::Group => libc::fcntl(socket, libc::F_SETOWN, -owner),
            Naming::Thread => {
                const F_SETOWN_EX: c_int = 15;
                libc::fcntl(socket, F_SETOWN_EX, [F_OWNER_TID, owner].as_ptr())
            }
            Naming::Ioctl => libc::ioctl(socket, FIOSETOWN, &raw const owner),
        };
        checked(named.into())?;
        if signal == libc::SIGURG {
            checked(libc::send(far.as_raw_fd(), b"x".as_ptr().cast(), 1, libc::MSG_OOB) as c_long)?;
        } else {
            const F_SETSIG: c_int = 10;
            checked(libc::fcntl(socket, F_SETSIG, signal).into())?;
            checked(libc::fcntl(socket, libc::F_SETFL, libc::O_ASYNC).into())?;
            checked(libc::send(far.as_raw_fd(), b"x".as_ptr().cast(), 1, 0) as c_long)?;
        }
    }
    Ok(())
}

/// ptrace(2): becomes the tracer of a process without stopping it, or stops it if `stop`; a tracer that
/// ends lets go.
pub fn trace(pid: libc::pid_t, stop: bool) -> io::Result<()> {
    let request = if stop { libc::PTRACE_ATTACH } else { libc::PTRACE_SEIZE };
    numbers(libc::SYS_ptrace, [request as c_long, pid.into(), 0, 0, 0, 0]).map(drop)
}

/// ptrace(2): asks to be traced by the parent.
pub fn trace_me() -> io::Result<()> {
    numbers(libc::SYS_ptrace, [libc::PTRACE_TRACEME as c_long, 0, 0, 0, 0, 0]).map(drop)
}

/// process_vm_readv(2), or process_vm_writev(2) if `write`, of the word at an address that both processes
/// have mapped: a forked process has this program's memory.
pub fn process_memory(pid: libc::pid_t, write: bool, address: &AtomicU32) -> io::Result<()> {
    let mut word = 0u32;
    let local = libc::iovec { iov_base: (&raw mut word).cast(), iov_len: 4 };
    let remote = libc::iovec { iov_base: std::ptr::from_ref(address).cast_mut().cast(), iov_len: 4 };
    let call = if write { libc::SYS_process_vm_writev } else { libc::SYS_process_vm_readv };
    let (count, flags): (c_long, c_long) = (1, 0);
    // SAFETY: the local vector is this word; the remote one is memory of the other process.
    checked(unsafe {
        libc::syscall(call, c_long::from(pid), &raw const local, count, &raw const remote, count, flags)
    })
    .map(drop)
}

/// move_mount(2) of a detached mount to a directory.
pub fn move_mount(from: BorrowedFd<'_>, to: &Path) -> io::Result<()> {
    const FROM_EMPTY_PATH: c_int = 4;
    let to = c_path(to);
    // SAFETY: both strings are terminated.
    checked(unsafe {
        let empty = c"".as_ptr();
        libc::syscall(
            libc::SYS_move_mount,
            from.as_raw_fd(),
            empty,
            libc::AT_FDCWD,
            to.as_ptr(),
            FROM_EMPTY_PATH,
        )
    })
    .map(drop)
}

/// fsopen(2) of a file system type.
pub fn fsopen(kind: &CStr) -> io::Result<OwnedFd> {
    // SAFETY: the string is terminated.
    let fd = checked(unsafe { libc::syscall(libc::SYS_fsopen, kind.as_ptr(), 1) })?;
    // SAFETY: a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as c_int) })
}

/// finit_module(2) of an open file, or init_module(2) of a few bytes.
pub fn load_module(file: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let bytes = [0u8; 64];
    let options = c"";
    // SAFETY: the bytes are given with their number, and the string is terminated.
    checked(unsafe {
        match file {
            Some(file) => libc::syscall(libc::SYS_finit_module, file.as_raw_fd(), options.as_ptr(), 0),
            None => libc::syscall(libc::SYS_init_module, bytes.as_ptr(), bytes.len(), options.as_ptr()),
        }
    })
    .map(drop)
}

/// perf_event_open(2): a software clock of this process.
pub fn perf_event() -> io::Result<()> {
    // `struct perf_event_attr`: type (software), size, config (CPU clock), and nothing else.
    let mut attribute = [0u64; 16];
    attribute[0] = 1 | (size_of::<[u64; 16]>() as u64) << 32;
    // SAFETY: the structure has the size that it says.
    let fd = checked(unsafe { libc::syscall(libc::SYS_perf_event_open, attribute.as_ptr(), 0, -1, -1, 0) })?;
    // SAFETY: a new descriptor that nobody else owns.
    drop(unsafe { OwnedFd::from_raw_fd(fd as c_int) });
    Ok(())
}

/// Sets the clock so many seconds on, or back: settimeofday(2).
pub fn shift_clock(seconds: i64) -> io::Result<()> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let time = libc::timeval {
        tv_sec: now.as_secs() as libc::time_t + seconds,
        tv_usec: now.subsec_micros() as libc::suseconds_t,
    };
    // SAFETY: a whole structure, and no time zone.
    checked(unsafe { libc::settimeofday(&raw const time, std::ptr::null()) }.into()).map(drop)
}

/// Says that the clock is right, as a program that keeps it does: adjtimex(2).
pub fn synchronise() -> io::Result<()> {
    // SAFETY: all of the structure is zero, which is what is asked for: no error, and a status without STA_UNSYNC.
    let mut change: libc::timex = unsafe { std::mem::zeroed() };
    change.modes = libc::ADJ_STATUS | libc::ADJ_MAXERROR | libc::ADJ_ESTERROR;
    // SAFETY: a whole structure.
    checked(unsafe { libc::clock_adjtime(libc::CLOCK_REALTIME, &raw mut change) }.into()).map(drop)
}

/// Sets the clock to what it says: settimeofday(2), or clock_adjtime(2) if `adjust`.
pub fn set_clock(adjust: bool) -> io::Result<()> {
    if adjust {
        // SAFETY: all of the structure is zero, but what is asked to be changed: the maximal error.
        let mut change: libc::timex = unsafe { std::mem::zeroed() };
        change.modes = libc::ADJ_MAXERROR;
        // SAFETY: a whole structure.
        return checked(unsafe { libc::clock_adjtime(libc::CLOCK_REALTIME, &raw mut change) }.into())
            .map(drop);
    }
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let time = libc::timeval {
        tv_sec: now.as_secs() as libc::time_t,
        tv_usec: now.subsec_micros() as libc::suseconds_t,
    };
    // SAFETY: a whole structure, and no time zone.
    checked(unsafe { libc::settimeofday(&raw const time, std::ptr::null()) }.into()).map(drop)
}

/// A page of memory that forked processes share.
pub struct SharedCounters {
    address: *mut c_void,
}

impl SharedCounters {
    const COUNT: usize = 16;

    /// A page of zeros.
    pub fn new() -> io::Result<Self> {
        // SAFETY: a new mapping at an address of the kernel's choice.
        let address = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                4096,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if address == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(Self { address }) }
    }

    /// One of the counters on it.
    pub fn at(&self, index: usize) -> &AtomicU64 {
        assert!(index < Self::COUNT, "there are {} counters", Self::COUNT);
        // SAFETY: the page lives as long as `self`, is aligned, and is only used through atomics.
        unsafe { &*self.address.cast::<AtomicU64>().add(index) }
    }
}

impl Drop for SharedCounters {
    fn drop(&mut self) {
        // SAFETY: the mapping of `new`, to which no reference can be left.
        unsafe { libc::munmap(self.address, 4096) };
    }
}

/// ptrace(2): what a thread that stopped at a system call is about. `nix` passes no length, and is told nothing then.
pub fn system_call(thread: libc::pid_t) -> io::Result<libc::ptrace_syscall_info> {
    let mut info = std::mem::MaybeUninit::<libc::ptrace_syscall_info>::zeroed();
    let length = size_of::<libc::ptrace_syscall_info>();
    // SAFETY: the memory is as long as is said.
    let written = unsafe { libc::ptrace(libc::PTRACE_GET_SYSCALL_INFO, thread, length, info.as_mut_ptr()) };
    if written <= 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: zeros are a value of it, and so is what the kernel wrote.
    Ok(unsafe { info.assume_init() })
}

/// nice(2): takes less of the processors by so many steps, 19 being the least.
pub fn nice(steps: c_int) -> io::Result<()> {
    Errno::clear();
    // SAFETY: takes a number only.
    match unsafe { libc::nice(steps) } {
        // It is a valid answer as well.
        -1 if Errno::last_raw() != 0 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// The first word of an array map that can be mapped, which forked processes share with the kernel.
pub struct MappedWord {
    address: *mut c_void,
}

impl MappedWord {
    /// Maps it.
    pub fn new(map: BorrowedFd<'_>) -> io::Result<Self> {
        // SAFETY: a new mapping at an address of the kernel's choice.
        let address = unsafe {
            let protection = libc::PROT_READ | libc::PROT_WRITE;
            libc::mmap(std::ptr::null_mut(), 4096, protection, libc::MAP_SHARED, map.as_raw_fd(), 0)
        };
        if address == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(Self { address }) }
    }

    /// The word.
    pub fn word(&self) -> &AtomicU64 {
        // SAFETY: the mapping lives as long as `self`, is aligned, and is only used through atomics.
        unsafe { &*self.address.cast::<AtomicU64>() }
    }
}

impl Drop for MappedWord {
    fn drop(&mut self) {
        // SAFETY: the mapping of `new`, to which no reference can be left.
        unsafe { libc::munmap(self.address, 4096) };
    }
}

/// Memory that forked processes share, as words.
pub struct SharedPages {
    address: *mut c_void,
    words: usize,
}

impl SharedPages {
    /// Room for so many bytes, all zero.
    pub fn new(bytes: usize) -> io::Result<Self> {
        // SAFETY: a new mapping at an address of the kernel's choice.
        let address = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        let words = bytes / size_of::<AtomicU32>();
        if address == libc::MAP_FAILED {
            Err(io::Error::last_os_error())
        } else {
            Ok(Self { address, words })
        }
    }

    /// One of the words.
    pub fn word(&self, index: usize) -> &AtomicU32 {
        assert!(index < self.words, "there are {} words", self.words);
        // SAFETY: the mapping lives as long as `self`, is aligned, and is only used through atomics.
        unsafe { &*self.address.cast::<AtomicU32>().add(index) }
    }
}

impl Drop for SharedPages {
    fn drop(&mut self) {
        // SAFETY: the mapping of `new`, to which no reference can be left.
        unsafe { libc::munmap(self.address, self.words * size_of::<AtomicU32>()) };
    }
}

/// Sleeps while `word` is `value`; false if it was for a second, and not longer if `bounded`.
pub fn futex_wait(word: &AtomicU32, value: u32, bounded: bool) -> bool {
    let second = libc::timespec { tv_sec: 1, tv_nsec: 0 };
    let timeout = if bounded { &raw const second } else { std::ptr::null() };
    // SAFETY: the word and the time outlive the call; the word is in shared memory or this process's.
    let result = unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAIT, value, timeout) };
    result == 0 || io::Error::last_os_error().raw_os_error() != Some(libc::ETIMEDOUT)
}

/// Wakes who sleeps in [`futex_wait`] on `word`.
pub fn futex_wake(word: &AtomicU32) {
    // SAFETY: the word outlives the call.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, c_int::MAX) };
}

/// Replaces this process by the program at `path`, with no arguments but its name and an empty
/// environment. Returns only on failure.
pub fn execve(path: &Path) -> io::Error {
    let path = c_path(path);
    let arguments = [path.as_ptr(), std::ptr::null()];
    let environment = [std::ptr::null::<libc::c_char>()];
    // SAFETY: the string and both arrays are terminated.
    unsafe { libc::execve(path.as_ptr(), arguments.as_ptr(), environment.as_ptr()) };
    io::Error::last_os_error()
}
