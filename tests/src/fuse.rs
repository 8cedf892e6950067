//! A file system that a process serves, with one program in it, by the kernel's own protocol
//! (include/uapi/linux/fuse.h).

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid};

use crate::case::NotHere;
use crate::identity::fork;
use crate::raw;

/// The file's name.
const NAME: &str = "program";
/// The numbers of the root directory and of the file.
const ROOT: u64 = 1;
const FILE: u64 = 2;

// Requests.
const LOOKUP: u32 = 1;
const FORGET: u32 = 2;
const GETATTR: u32 = 3;
const OPEN: u32 = 14;
const READ: u32 = 15;
const RELEASE: u32 = 18;
const FLUSH: u32 = 25;
const INIT: u32 = 26;
const OPENDIR: u32 = 27;
const RELEASEDIR: u32 = 29;
const INTERRUPT: u32 = 36;
const BATCH_FORGET: u32 = 42;

const ENOENT: i32 = 2;
const ENOSYS: i32 = 38;
/// How long the kernel may believe an answer, in seconds.
const VALID: u64 = 3600;
/// `struct fuse_in_header`, `struct fuse_out_header`.
const HEADER: usize = 40;
const ANSWER: usize = 16;
/// Largest request.
const BUFFER: usize = 1 << 17;

/// The mounted file system and who serves it. Both end with this.
pub(crate) struct Fuse {
    point: PathBuf,
    server: Pid,
}

impl Fuse {
    /// Mounts one at `point` whose file has this content.
    pub(crate) fn mount(point: &Path, content: &[u8]) -> Result<Self> {
        if !Path::new("/dev/fuse").exists() {
            let _ = Command::new("modprobe").arg("fuse").status();
        }
        let device = match File::options().read(true).write(true).open("/dev/fuse") {
            Ok(device) => device,
            Err(error) => return Err(NotHere(format!("this guest has no FUSE: {error}")).into()),
        };
        fs::create_dir_all(point).with_context(|| format!("create {}", point.display()))?;
        let options = format!("fd={},rootmode=40000,user_id=0,group_id=0,allow_other", device.as_raw_fd());
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        mount(Some("guard-tests"), point, Some("fuse"), flags, Some(options.as_str()))
            .with_context(|| format!("mount a FUSE file system at {}", point.display()))?;
        match fork().context("fork the server")? {
            ForkResult::Child => {
                let _ = serve(device, content);
                raw::exit_now(0)
            }
            ForkResult::Parent { child } => Ok(Self { point: point.to_owned(), server: child }),
        }
    }

    /// The one file in it.
    pub(crate) fn file(&self) -> PathBuf {
        self.point.join(NAME)
    }
}

impl Drop for Fuse {
    fn drop(&mut self) {
        let _ = umount2(&self.point, MntFlags::MNT_DETACH);
        let _ = kill(self.server, Signal::SIGKILL);
        let _ = waitpid(self.server, None);
    }
}

/// Answers until the file system is unmounted.
fn serve(mut device: File, content: &[u8]) -> io::Result<()> {
    let mut request = vec![0; BUFFER];
    loop {
        let length = device.read(&mut request)?;
        let Some(request) = request.get(..length).filter(|request| request.len() >= HEADER) else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        let word = |at: usize| number(request, at, 4) as u32;
        let (operation, unique, node) = (word(4), number(request, 8, 8), number(request, 16, 8));
        let body = &request[HEADER..];
        let answer: std::result::Result<Vec<u8>, i32> = match operation {
            FORGET | BATCH_FORGET | INTERRUPT => continue,
            INIT => Ok(init(body)),
            LOOKUP if node == ROOT && body.strip_suffix(b"\0") == Some(NAME.as_bytes()) => {
                Ok(entry(FILE, content.len()))
            }
            LOOKUP => Err(ENOENT),
            GETATTR => Ok(attributes(node, content.len())),
            OPEN | OPENDIR => Ok(vec![0; 16]),
            READ => {
                let (offset, size) = (number(body, 8, 8) as usize, number(body, 16, 4) as usize);
                let rest = content.get(offset..).unwrap_or_default();
                Ok(rest[..rest.len().min(size)].to_vec())
            }
            RELEASE | RELEASEDIR | FLUSH => Ok(Vec::new()),
            _ => Err(ENOSYS),
        };
        let (error, answer) = match answer {
            Ok(answer) => (0, answer),
            Err(number) => (-number, Vec::new()),
        };
        let mut message = Vec::with_capacity(ANSWER + answer.len());
        message.extend(((ANSWER + answer.len()) as u32).to_le_bytes());
        message.extend(error.to_le_bytes());
        message.extend(unique.to_le_bytes());
        message.extend(answer);
        // Who asked may have gone.
        let _ = device.write(&message);
    }
}

/// A number of `size` bytes.
fn number(bytes: &[u8], at: usize, size: usize) -> u64 {
    let bytes = bytes.get(at..at + size).unwrap_or_default();
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// `struct fuse_init_out`: the kernel's own version, as far as this is older, and nothing special.
fn init(asked: &[u8]) -> Vec<u8> {
    let mut answer = Vec::new();
    for word in [7u32, 31.min(number(asked, 4, 4) as u32), number(asked, 8, 4) as u32, 0] {
        answer.extend(word.to_le_bytes());
    }
    // Requests in the background, and the largest write.
    answer.extend([16u16.to_le_bytes(), 12u16.to_le_bytes()].concat());
    answer.extend(4096u32.to_le_bytes());
    answer.resize(64, 0);
    answer
}

/// `struct fuse_entry_out`.
fn entry(node: u64, size: usize) -> Vec<u8> {
    let mut answer = Vec::new();
    for word in [node, 0, VALID, VALID, 0] {
        answer.extend(word.to_le_bytes());
    }
    answer.extend(attribute(node, size));
    answer
}

/// `struct fuse_attr_out`.
fn attributes(node: u64, size: usize) -> Vec<u8> {
    let mut answer = VALID.to_le_bytes().to_vec();
    answer.extend([0; 8]);
    answer.extend(attribute(node, size));
    answer
}

/// `struct fuse_attr`.
fn attribute(node: u64, size: usize) -> Vec<u8> {
    let (mode, size): (u32, u64) = if node == ROOT { (0o040_755, 0) } else { (0o100_755, size as u64) };
    let mut answer = Vec::new();
    for word in [node, size, size.div_ceil(512), 0, 0, 0] {
        answer.extend(word.to_le_bytes());
    }
    for word in [0, 0, 0, mode, 1, 0, 0, 0, 4096, 0] {
        answer.extend(word.to_le_bytes());
    }
    answer
}
