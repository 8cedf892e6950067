//! What is open already: files and connections are decided again at every use.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;
use nix::libc;
use serde_json::{Value, json};

use crate::attempt::{self, Outcome, Running};
use crate::bundle::{Bundle, permit, within};
use crate::case::Case;
use crate::daemon::{Daemon, configure, spawn};
use crate::family::{Part, tests};
use crate::layout::{self, path};
use crate::lifecycle::{ends_with, output, prepare};
use crate::users::{AGENT, Identity};

pub(crate) const PART: Part = Part {
    name: "using",
    bundle: Ok,
    prepare,
    tests: tests!(
        smoke: [every_use_of_an_open_file_ends_with_its_lease],
        others: [
            every_use_of_a_connection_ends_with_its_lease,
            a_connection_that_was_accepted_is_not_used_by_the_right_to_connect,
            a_file_is_used_until_the_deadline_with_the_agent_dead,
            what_a_process_was_started_with_and_its_pipes_work,
            a_quarantine_stops_what_runs_and_what_waits,
            a_quarantine_holds_through_policies_kills_and_new_processes,
            a_session_alone_is_put_in_quarantine,
            a_level_of_quarantine_denies_what_it_says,
            a_fork_bomb_is_contained_by_a_quarantine,
        ],
    ),
};

const BY_ROOT: &str = "change = { approvers = [\"user:root\"], max = \"1h\" }";
pub(crate) const TCP: u16 = 7101;
const UDP: u16 = 7102;

fn file() -> PathBuf {
    path("using/file")
}

fn directory() -> PathBuf {
    path("using/directory")
}

fn socket() -> PathBuf {
    path("using/socket")
}

fn log() -> PathBuf {
    path("using/log")
}

fn notes() -> PathBuf {
    path("using/free/notes")
}

/// `agent` may use a tree, a port and a socket while a lease lives, and one directory always.
fn bundle(version: u64) -> Bundle {
    let leased = |what: &str| format!("({what}) && context.leases.contains(\"change\")");
    let tree = leased(&within(&[file(), directory(), log()]));
    let ports = leased(&format!(
        "resource in Guard::Net::\"127.0.0.0/8\" && (resource.port == {TCP} || resource.port == {UDP})"
    ));
    let unix = leased(&format!("resource == Guard::Unix::\"{}\"", socket().display()));
    Bundle::new("using")
        .version(version)
        .toml(&format!("[approvals]\n{BY_ROOT}\n"))
        .subject("agent", "user = \"agent\", adopt = [\"user:root\"]")
        .policy(
            "agent",
            permit("programs", "agent", &["exec.*"], "true")
                + &permit(
                    "system",
                    "agent",
                    &["read"],
                    &within(&["/usr", "/lib", "/lib64", "/bin", "/etc", "/proc", "/dev"]),
                )
                + &permit("tree", "agent", &["file.*"], &tree)
                + &permit("notes", "agent", &["file.*"], &within(&[path("using/free")]))
                + &permit("ports", "agent", &["net.connect"], &ports)
                + &permit("unix", "agent", &["unix.connect"], &unix),
        )
}

fn scene() -> Result<()> {
    layout::empty_directory(&path("using"))?;
    layout::directory(&directory())?;
    layout::directory(&path("using/free"))?;
    for one in [file(), log(), notes(), directory().join("entry")] {
        layout::file(&one, &[b'x'; 8192])?;
        layout::mode(&one, 0o666)?;
    }
    for one in [path("using"), directory(), path("using/free")] {
        layout::mode(&one, 0o777)?;
    }
    Ok(())
}

/// Grants the lease; its number.
fn grant(daemon: &Daemon, seconds: u64) -> Result<i64> {
    let body = json!({ "name": "change", "subject": "agent", "seconds": seconds }).to_string();
    let (status, lease) = daemon.request("POST", "/v1/leases", &body)?;
    ensure!(status == 200, "{status}: {lease}");
    serde_json::from_str::<Value>(&lease).context("JSON")?["id"].as_i64().context("a number")
}

fn revoke(daemon: &Daemon, id: i64) -> Result<()> {
    let (status, answer) = daemon.request("POST", &format!("/v1/leases/{id}/revoke"), "{}")?;
    ensure!(status == 200, "{status}: {answer}");
    Ok(())
}

/// A process that holds things open and uses them when it is told to. Both talk by memory that they share: a
/// quarantine takes pipes away as well.
pub(crate) struct Holder {
    shared: &'static Channel,
    names: Vec<&'static str>,
    running: Running,
}

/// What is to be done, and what came of it.
struct Channel {
    /// Number of a use, from 1; 0 = nothing to do, [`END`].
    order: AtomicI32,
    /// Error number of the last one, 0 if it worked; [`NONE`] before.
    answer: AtomicI32,
}

const END: i32 = -1;
const NONE: i32 = -1;

impl Channel {
    fn new() -> Result<&'static Self> {
        let both = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
        // SAFETY: new memory, which is never given back.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), 4096, both, flags, -1, 0) };
        ensure!(at != libc::MAP_FAILED, "no memory to share");
        // SAFETY: as above; zeros are values of both words.
        let this: &Self = unsafe { &*at.cast() };
        this.answer.store(NONE, Ordering::SeqCst);
        Ok(this)
    }
}

/// Something a process does over and over with what it holds.
pub(crate) type Use = (&'static str, Box<dyn FnMut() -> io::Result<()>>);

impl Holder {
    /// Starts a process as `who` that opens what `open` opens, in the order of `names`.
    pub(crate) fn start(
        who: Identity,
        names: &[&'static str],
        open: impl Fn() -> io::Result<Vec<Use>>,
    ) -> Result<Self> {
        let shared = Channel::new()?;
        let running = attempt::start(who, || {
            let mut uses = open()?;
            loop {
                match shared.order.swap(0, Ordering::SeqCst) {
                    0 => std::thread::yield_now(),
                    END => return Ok(()),
                    number => {
                        let result = usize::try_from(number - 1).ok().and_then(|at| uses.get_mut(at));
                        let answer = match result.map(|(_, action)| action()) {
                            Some(Ok(())) => 0,
                            Some(Err(error)) => error.raw_os_error().unwrap_or(libc::EIO),
                            None => libc::ENOSYS,
                        };
                        shared.answer.store(answer, Ordering::SeqCst);
                    }
                }
            }
        })?;
        Ok(Self { shared, names: names.to_vec(), running })
    }

    fn does(&mut self, what: &str) -> Result<Outcome> {
        let at = self.names.iter().position(|name| *name == what).context("nothing is called so")?;
        self.shared.answer.store(NONE, Ordering::SeqCst);
        self.shared.order.store(i32::try_from(at).context("too many")? + 1, Ordering::SeqCst);
        let begun = Instant::now();
        loop {
            match self.shared.answer.load(Ordering::SeqCst) {
                NONE => ensure!(begun.elapsed() < Duration::from_secs(120), "{what}: no answer"),
                0 => return Ok(Outcome::Worked),
                number => return Ok(Outcome::Failed(Errno::from_raw(number))),
            }
            std::thread::yield_now();
        }
    }

    pub(crate) fn works(&mut self, what: &str) -> Result<()> {
        let outcome = self.does(what)?;
        ensure!(outcome == Outcome::Worked, "{what} should work: {outcome:?}");
        Ok(())
    }

    pub(crate) fn is_refused(&mut self, what: &str) -> Result<()> {
        let outcome = self.does(what)?;
        ensure!(outcome == Outcome::Failed(Errno::EACCES), "{what} should be refused: {outcome:?}");
        Ok(())
    }

    pub(crate) fn end(self) -> Result<()> {
        self.shared.order.store(END, Ordering::SeqCst);
        let outcome = self.running.outcome()?;
        ensure!(outcome == Outcome::Worked, "it ended with {outcome:?}");
        Ok(())
    }
}

fn done(result: isize) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Everything that can be done with files that are open.
fn file_uses() -> io::Result<Vec<Use>> {
    let open = |path: &Path| OpenOptions::new().read(true).write(true).open(path);
    let mut uses: Vec<Use> = Vec::new();
    let (read, written) = (open(&file())?, open(&file())?);
    uses.push(("pread", Box::new(move || read.read_at(&mut [0; 16], 0).map(drop))));
    uses.push(("pwrite", Box::new(move || written.write_at(b"y", 0).map(drop))));
    let mut stream = open(&file())?;
    uses.push((
        "read",
        Box::new(move || {
            stream.seek(SeekFrom::Start(0))?;
            stream.read(&mut [0; 16]).map(drop)
        }),
    ));
    let mut appended = OpenOptions::new().append(true).open(log())?;
    uses.push(("append", Box::new(move || appended.write(b"z").map(drop))));
    let truncated = open(&file())?;
    uses.push(("ftruncate", Box::new(move || truncated.set_len(8192))));
    let allocated = open(&file())?;
    uses.push((
        "fallocate",
        // SAFETY: a call about a descriptor.
        Box::new(move || done(unsafe { libc::fallocate(allocated.as_raw_fd(), 0, 0, 16) } as isize)),
    ));
    let listed = File::open(directory())?;
    uses.push((
        "getdents",
        Box::new(move || {
            let mut buffer = [0u8; 4096];
            // SAFETY: a call about a descriptor and memory of the size that is given.
            unsafe {
                libc::lseek(listed.as_raw_fd(), 0, libc::SEEK_SET);
                done(libc::syscall(libc::SYS_getdents64, listed.as_raw_fd(), buffer.as_mut_ptr(), 4096usize)
                    as isize)
            }
        }),
    ));
    let (from, to) = (open(&file())?, open(&notes())?);
    uses.push((
        "copy_file_range",
        Box::new(move || {
            let (mut start, mut end) = (0i64, 0i64);
            // SAFETY: a call about descriptors and two numbers.
            done(unsafe {
                libc::copy_file_range(from.as_raw_fd(), &raw mut start, to.as_raw_fd(), &raw mut end, 16, 0)
            })
        }),
    ));
    let (sent, target) = (open(&file())?, open(&notes())?);
    uses.push((
        "sendfile",
        Box::new(move || {
            let mut start = 0i64;
            // SAFETY: as above.
            done(unsafe { libc::sendfile(target.as_raw_fd(), sent.as_raw_fd(), &raw mut start, 16) })
        }),
    ));
    let spliced = open(&file())?;
    uses.push((
        "splice",
        Box::new(move || {
            let (_reader, writer) = io::pipe()?;
            let mut start = 0i64;
            let none = std::ptr::null_mut();
            // SAFETY: as above.
            done(unsafe {
                libc::splice(spliced.as_raw_fd(), &raw mut start, writer.as_raw_fd(), none, 16, 0)
            })
        }),
    ));
    for (name, protection, flags) in [
        ("mmap", libc::PROT_READ, libc::MAP_PRIVATE),
        ("mmap shared", libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED),
    ] {
        let mapped = open(&file())?;
        uses.push((
            name,
            // SAFETY: a new mapping, which is not looked at.
            Box::new(move || unsafe {
                let at = libc::mmap(std::ptr::null_mut(), 4096, protection, flags, mapped.as_raw_fd(), 0);
                if at == libc::MAP_FAILED {
                    return Err(io::Error::last_os_error());
                }
                libc::munmap(at, 4096);
                Ok(())
            }),
        ));
    }
    Ok(uses)
}

const FILE_USES: [&str; 12] = [
    "pread",
    "pwrite",
    "read",
    "append",
    "ftruncate",
    "fallocate",
    "getdents",
    "copy_file_range",
    "sendfile",
    "splice",
    "mmap",
    "mmap shared",
];

fn every_use_of_an_open_file_ends_with_its_lease(_: &Case<'_>) -> Result<()> {
    scene()?;
    let daemon = Daemon::start("using-files", &bundle(1))?;
    let lease = grant(&daemon, 600)?;
    let mut holder = Holder::start(AGENT, &FILE_USES, file_uses)?;
    for name in FILE_USES {
        holder.works(name).context("with the lease")?;
    }
    revoke(&daemon, lease)?;
    for name in FILE_USES {
        holder.is_refused(name).context("once it is revoked")?;
    }
    let lease = grant(&daemon, 600)?;
    for name in FILE_USES {
        holder.works(name).context("with another lease")?;
    }
    revoke(&daemon, lease)?;
    holder.end()?;
    daemon.stop().map(drop)
}

/// Serves whoever connects, from the first call on: what comes is sent back.
pub(crate) fn echo_tcp() -> Result<()> {
    static LISTENER: OnceLock<()> = OnceLock::new();
    if LISTENER.get().is_some() {
        return Ok(());
    }
    let listener = TcpListener::bind(("127.0.0.1", TCP)).context("listen")?;
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut stream = stream;
                let mut buffer = [0; 1024];
                while let Ok(read @ 1..) = stream.read(&mut buffer) {
                    if stream.write_all(&buffer[..read]).is_err() {
                        break;
                    }
                }
            });
        }
    });
    let _ = LISTENER.set(());
    Ok(())
}

fn socket_uses() -> io::Result<Vec<Use>> {
    let mut uses: Vec<Use> = Vec::new();
    let mut tcp = TcpStream::connect(("127.0.0.1", TCP))?;
    let mut both = tcp.try_clone()?;
    uses.push((
        "tcp",
        Box::new(move || {
            tcp.write_all(b"x")?;
            tcp.read_exact(&mut [0])
        }),
    ));
    uses.push((
        "tcp receive",
        Box::new(move || {
            both.set_nonblocking(true)?;
            let result = match both.read(&mut [0]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
                other => other.map(drop),
            };
            both.set_nonblocking(false)?;
            result
        }),
    ));
    let spliced = TcpStream::connect(("127.0.0.1", TCP))?;
    spliced.set_nonblocking(true)?;
    uses.push((
        "splice from tcp",
        Box::new(move || {
            let (_reader, writer) = io::pipe()?;
            let none = std::ptr::null_mut();
            let flags = libc::SPLICE_F_NONBLOCK;
            // SAFETY: a call about descriptors.
            let result =
                done(unsafe { libc::splice(spliced.as_raw_fd(), none, writer.as_raw_fd(), none, 16, flags) });
            match result {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
                other => other,
            }
        }),
    ));
    let sending = TcpStream::connect(("127.0.0.1", TCP))?;
    let open = File::open(notes())?;
    uses.push((
        "sendfile to tcp",
        Box::new(move || {
            let mut start = 0i64;
            // SAFETY: a call about descriptors and a number.
            done(unsafe { libc::sendfile(sending.as_raw_fd(), open.as_raw_fd(), &raw mut start, 16) })
        }),
    ));
    let udp = UdpSocket::bind(("127.0.0.1", 0)).or_else(|_| UdpSocket::bind(("127.0.0.1", 0)))?;
    udp.connect(("127.0.0.1", UDP))?;
    uses.push(("udp", Box::new(move || udp.send(b"x").map(drop))));
    let mut unix = UnixStream::connect(socket())?;
    uses.push(("unix", Box::new(move || unix.write(b"x").map(drop))));
    Ok(uses)
}

const SOCKET_USES: [&str; 6] = ["tcp", "tcp receive", "splice from tcp", "sendfile to tcp", "udp", "unix"];

fn every_use_of_a_connection_ends_with_its_lease(_: &Case<'_>) -> Result<()> {
    scene()?;
    echo_tcp()?;
    let _udp = UdpSocket::bind(("127.0.0.1", UDP)).context("receive")?;
    let _unix = UnixListener::bind(socket()).context("listen")?;
    layout::mode(&socket(), 0o777)?;
    let daemon = Daemon::start("using-sockets", &bundle(1).policy("any", any_port()))?;
    let lease = grant(&daemon, 600)?;
    let mut holder = Holder::start(AGENT, &SOCKET_USES, socket_uses)?;
    for name in SOCKET_USES {
        holder.works(name).context("with the lease")?;
    }
    revoke(&daemon, lease)?;
    for name in SOCKET_USES {
        holder.is_refused(name).context("once it is revoked")?;
    }
    let lease = grant(&daemon, 600)?;
    for name in ["tcp receive", "udp", "unix"] {
        holder.works(name).context("with another lease")?;
    }
    revoke(&daemon, lease)?;
    holder.end()?;
    daemon.stop().map(drop)
}

/// A connection that was accepted, and the same call that would have made it from this side.
fn accepted_uses() -> io::Result<Vec<Use>> {
    let (mut stream, peer) = TcpListener::bind(("127.0.0.1", ACCEPTS))?.accept()?;
    let again = stream.try_clone()?;
    let std::net::SocketAddr::V4(peer) = peer else { return Err(io::Error::other("no IPv4 address")) };
    let connect = move || {
        let address = nix::sys::socket::SockaddrIn::from(peer);
        match nix::sys::socket::connect(again.as_raw_fd(), &address) {
            Err(Errno::EISCONN) => Ok(()),
            Ok(()) => Err(io::Error::other("it connected")),
            Err(error) => Err(error.into()),
        }
    };
    Ok(vec![("send", Box::new(move || stream.write(b"x").map(drop))), ("connect", Box::new(connect))])
}

/// Where [`accepted_uses`] listens.
const ACCEPTS: u16 = 7719;

fn a_connection_that_was_accepted_is_not_used_by_the_right_to_connect(_: &Case<'_>) -> Result<()> {
    let leased = "resource in Guard::Net::\"127.0.0.0/8\" && context.leases.contains(\"change\")";
    let bundle = Bundle::new("accepted")
        .toml(&format!("[approvals]\n{BY_ROOT}\n"))
        .subject("agent", "user = \"agent\"")
        .policy(
            "agent",
            permit("listen", "agent", &["net.bind", "net.listen"], "true")
                + &permit("accept", "agent", &["net.accept"], leased)
                + &permit("connect", "agent", &["net.connect"], "resource in Guard::Net::\"127.0.0.0/8\""),
        );
    let daemon = Daemon::start("using-accepted", &bundle)?;
    let lease = grant(&daemon, 600)?;
    let mut holder = Holder::start(AGENT, &["send", "connect"], accepted_uses)?;
    let mut connected = None;
    attempt::eventually("it listens", || {
        connected = TcpStream::connect(("127.0.0.1", ACCEPTS)).ok();
        Ok(connected.is_some())
    })?;
    holder.works("send").context("with the lease")?;
    // The call is permitted and fails, since there is a connection.
    holder.works("connect")?;
    holder.works("send").context("with the lease, after the call")?;
    revoke(&daemon, lease)?;
    holder.is_refused("send").context("once it is revoked")?;
    holder.works("connect")?;
    holder.is_refused("send").context("after the call that fails")?;
    // The twin: a new lease, and it goes on.
    grant(&daemon, 600)?;
    holder.works("send").context("with another lease")?;
    holder.end()?;
    daemon.stop().map(drop)
}

/// Binding is not what this is about.
fn any_port() -> String {
    permit("bind", "agent", &["net.bind"], "true")
}

fn a_file_is_used_until_the_deadline_with_the_agent_dead(case: &Case<'_>) -> Result<()> {
    scene()?;
    let daemon = Daemon::start("using-dead", &bundle(1))?;
    const LASTS: Duration = Duration::from_secs(5);
    let before = Instant::now();
    grant(&daemon, LASTS.as_secs())?;
    let after = Instant::now();
    let mut holder = Holder::start(AGENT, &FILE_USES, file_uses)?;
    holder.works("pread")?;
    drop(daemon);
    let (mut admitted, mut refused) = (0u64, 0u64);
    while refused < if case.full { 100_000 } else { 1000 } {
        let (begun, outcome, ended) = (Instant::now(), holder.does("pread")?, Instant::now());
        match outcome {
            Outcome::Worked => {
                ensure!(begun < after + LASTS, "admitted {:?} after the lease", begun - (after + LASTS));
                admitted += 1;
            }
            Outcome::Failed(Errno::EACCES) => {
                ensure!(ended > before + LASTS, "refused {:?} before its end", before + LASTS - ended);
                refused += 1;
            }
            other => bail!("neither: {other:?}"),
        }
    }
    println!("  {admitted} uses admitted, then {refused} refused");
    holder.end()
}

fn what_a_process_was_started_with_and_its_pipes_work(_: &Case<'_>) -> Result<()> {
    scene()?;
    let daemon = Daemon::start("using-stdio", &bundle(1))?;
    // A file that the subject may not even open, as its standard output and input.
    let words = "read line; echo got $line; (echo a; echo b) | wc -l; exec 5>&1; echo again >&5";
    let run = |given: &Path, taken: &Path| -> Result<std::process::Output> {
        let own = daemon.directory().join("run/self.sock");
        let mut command = Command::new("guardctl");
        command.arg("--socket").arg(own).args(["run", "--as", "agent", "--", "sh", "-c", words]);
        command.stdin(File::open(given).context("open")?);
        command.stdout(OpenOptions::new().append(true).open(taken).context("open")?);
        command.output().context("run")
    };
    fs::write(file(), b"a line\n").context("write")?;
    fs::write(log(), b"").context("write")?;
    let ran = run(&file(), &log())?;
    let said = fs::read_to_string(log()).context("read")?;
    ensure!(said == "got a line\n2\nagain\n", "{said:?}: {ran:?}");
    // By its name it is as forbidden as before.
    let own = daemon.directory().join("run/self.sock");
    let mut command = Command::new("guardctl");
    command.arg("--socket").arg(own).args(["run", "--as", "agent", "--", "cat"]).arg(file());
    let refused = output(&mut command)?;
    ensure!(!refused.status.success() && refused.stdout.is_empty(), "{refused:?}");
    daemon.stop().map(drop)
}

/// Executes something. Who may not write cannot even say why it may not execute.
fn executes() -> io::Result<()> {
    if Command::new("/bin/true").status()?.success() {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(libc::EACCES))
    }
}

/// Orders a quarantine; the answer.
fn quarantine(daemon: &Daemon, target: &str, level: &str) -> Result<Value> {
    let words = ["quarantine", target, "--level", level, "--reason", "INC-1", "--yes", "--json"];
    let ordered = output(&mut daemon.control(&words))?;
    ends_with(&ordered, 0)?;
    serde_json::from_slice(&ordered.stdout).context("JSON")
}

fn release(daemon: &Daemon, answer: &Value, to: Option<&str>) -> Result<()> {
    let id = answer["quarantine"]["id"].to_string();
    let mut words = vec!["release", &id, "--reason", "INC-1"];
    if let Some(to) = to {
        words.extend(["--to", to]);
    }
    ends_with(&output(&mut daemon.control(&words))?, 0)
}

/// Holds a lease and does things without end; each line says when one was admitted.
struct Busy {
    running: Running,
    admitted: PathBuf,
}

impl Busy {
    /// `action` is done over and over; the boot clock after each that was admitted is written to a mapping that
    /// both see.
    fn begin(
        name: &str,
        who: Identity,
        action: impl Fn() -> io::Result<Box<dyn FnMut() -> io::Result<()>>>,
    ) -> Result<Self> {
        let admitted = path(&format!("using/free/{name}"));
        layout::file(&admitted, &[0; 16])?;
        layout::mode(&admitted, 0o666)?;
        let map = |path: &Path| -> io::Result<*mut u64> {
            let file = OpenOptions::new().read(true).write(true).open(path)?;
            let both = libc::PROT_READ | libc::PROT_WRITE;
            // SAFETY: a new mapping of a file of 16 bytes.
            let at =
                unsafe { libc::mmap(std::ptr::null_mut(), 16, both, libc::MAP_SHARED, file.as_raw_fd(), 0) };
            if at == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(at.cast()) }
        };
        let running = attempt::start(who, || {
            let words = map(&admitted)?;
            let mut action = action()?;
            let mut refused = 0;
            while refused < 1000 {
                match action() {
                    Ok(()) => {
                        refused = 0;
                        // SAFETY: the mapping has room for two words, and nobody else writes.
                        unsafe {
                            words.write_volatile(boot());
                            words.add(1).write_volatile(words.add(1).read_volatile() + 1);
                        }
                    }
                    Err(error) if error.raw_os_error() == Some(libc::EACCES) => refused += 1,
                    Err(error) => return Err(error),
                }
            }
            Ok(())
        })?;
        Ok(Self { running, admitted })
    }

    /// The same, and waits until some were admitted.
    fn start(
        name: &str,
        who: Identity,
        action: impl Fn() -> io::Result<Box<dyn FnMut() -> io::Result<()>>>,
    ) -> Result<Self> {
        let this = Self::begin(name, who, action)?;
        let begun = Instant::now();
        while last(&this.admitted)?.1 < 10 {
            ensure!(begun.elapsed() < Duration::from_secs(60), "{name} does nothing");
            std::thread::yield_now();
        }
        Ok(this)
    }

    fn end(self) -> Result<(u64, u64)> {
        let Self { running, admitted } = self;
        // It may be allowed nothing any more, an answer included.
        let _ = running.outcome();
        last(&admitted)
    }
}

/// When the last one was admitted, and how many were.
fn last(admitted: &Path) -> Result<(u64, u64)> {
    let bytes = fs::read(admitted).context("read")?;
    let word = |at: usize| u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap_or_default());
    Ok((word(0), word(8)))
}

/// CLOCK_BOOTTIME, in nanoseconds.
fn boot() -> u64 {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME);
    now.map_or(0, |now| Duration::from(now).as_nanos() as u64)
}

fn a_quarantine_stops_what_runs_and_what_waits(_: &Case<'_>) -> Result<()> {
    scene()?;
    echo_tcp()?;
    let daemon = Daemon::start("quarantine-runs", &bundle(1))?;
    grant(&daemon, 600)?;
    let streaming = Busy::start("streaming", AGENT, || {
        let mut stream = TcpStream::connect(("127.0.0.1", TCP))?;
        Ok(Box::new(move || {
            stream.write_all(&[b'x'; 64])?;
            stream.read_exact(&mut [0; 64])
        }))
    })?;
    let writing = Busy::start("writing", AGENT, || {
        let open = OpenOptions::new().write(true).open(file())?;
        Ok(Box::new(move || open.write_all_at(&[b'w'; 4096], 0)))
    })?;
    let (mut far, near) = UnixStream::pair().context("make a pair")?;
    let waiting = Busy::begin("waiting", AGENT, || {
        let mut near = near.try_clone()?;
        Ok(Box::new(move || near.read_exact(&mut [0])))
    })?;
    drop(near);
    let before = boot();
    let answer = quarantine(&daemon, "agent", "full")?;
    let after = boot();
    // It cannot receive what is sent from now on.
    let _ = far.write_all(b"x");
    for (name, busy) in [("streaming", streaming), ("writing", writing)] {
        let (last, count) = busy.end().with_context(|| name.to_owned())?;
        ensure!(last < after, "{name}: admitted {} ns after the command had returned", last - after);
        println!(
            "  {name}: the last of {count} was admitted {} µs after the command began",
            last.saturating_sub(before) / 1000
        );
    }
    let (_, received) = waiting.end()?;
    ensure!(received == 0, "who waited in a receive got {received}");
    println!("  the command says {} µs", answer["in_force_us"]);
    let evidence = answer["quarantine"]["evidence"].as_str().context("evidence")?;
    let evidence: Value = serde_json::from_slice(&fs::read(evidence).context("read")?).context("JSON")?;
    ensure!(evidence["processes"].as_array().is_some_and(|all| all.len() >= 3), "{evidence}");
    ensure!(answer["covers"]["processes"].as_array().is_some_and(|all| all.len() >= 3), "{answer}");
    daemon.stop().map(drop)
}

fn a_quarantine_holds_through_policies_kills_and_new_processes(_: &Case<'_>) -> Result<()> {
    scene()?;
    let directory = configure("quarantine-holds", &bundle(1))?;
    let daemon = spawn(&directory)?.ready()?;
    let open = || -> io::Result<Vec<Use>> { Ok(vec![("exec", Box::new(executes))]) };
    let mut old = Holder::start(AGENT, &["exec"], open)?;
    old.works("exec")?;
    let answer = quarantine(&daemon, "agent", "exec")?;
    old.is_refused("exec").context("at once")?;
    ends_with(&crate::lifecycle::apply(&daemon, &bundle(2), "next")?, 0)?;
    old.is_refused("exec").context("under the next policy")?;
    // A mode in which nothing is denied changes nothing of it.
    ends_with(
        &output(&mut daemon.control(&["mode", "monitor", "agent", "--for", "10m", "--reason", "x", "-y"]))?,
        0,
    )?;
    old.is_refused("exec").context("in monitor mode")?;
    drop(daemon);
    old.is_refused("exec").context("with the agent dead")?;
    let daemon = spawn(&directory)?.ready()?;
    old.is_refused("exec").context("under the next agent")?;
    let listed = output(&mut daemon.control(&["quarantine", "list"]))?;
    ensure!(String::from_utf8_lossy(&listed.stdout).contains("agent  exec"), "{listed:?}");
    let status = daemon.status()?;
    ensure!(status["quarantines"].as_array().is_some_and(|all| all.len() == 1), "{status}");
    release(&daemon, &answer, None)?;
    old.works("exec").context("once it is released")?;
    old.end()?;
    let twice = output(&mut daemon.control(&["release", "1", "--reason", "x"]))?;
    ends_with(&twice, 1)?;
    daemon.stop().map(drop)
}

fn a_session_alone_is_put_in_quarantine(_: &Case<'_>) -> Result<()> {
    scene()?;
    echo_tcp()?;
    let daemon = Daemon::start("quarantine-session", &bundle(1))?;
    grant(&daemon, 600)?;
    let own = daemon.directory().join("run/self.sock");
    let begin = || -> Result<(std::process::Child, BufReader<std::process::ChildStdout>)> {
        let connect = format!("(exec 3<>/dev/tcp/127.0.0.1/{TCP}) 2>/dev/null");
        let words = format!("while read x; do {connect} && echo yes || echo no; done");
        let mut child = Command::new("guardctl")
            .arg("--socket")
            .arg(&own)
            .args(["run", "--as", "agent", "--", "bash", "-c", &words])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .context("run")?;
        let lines = BufReader::new(child.stdout.take().context("its output")?);
        Ok((child, lines))
    };
    let ask = |session: &mut (std::process::Child, BufReader<std::process::ChildStdout>)| -> Result<String> {
        session.0.stdin.as_mut().context("its input")?.write_all(b"x\n").context("ask")?;
        let mut line = String::new();
        session.1.read_line(&mut line).context("hear")?;
        Ok(line.trim().to_owned())
    };
    let (mut one, mut two) = (begin()?, begin()?);
    ensure!(ask(&mut one)? == "yes" && ask(&mut two)? == "yes", "both connect");
    let pid = one.0.id().to_string();
    let words = ["quarantine", "--pid", &pid, "--level", "network", "--reason", "INC-1", "--yes", "--json"];
    let ordered = output(&mut daemon.control(&words))?;
    ends_with(&ordered, 0)?;
    let answer: Value = serde_json::from_slice(&ordered.stdout).context("JSON")?;
    ensure!(answer["target"].as_str().is_some_and(|target| target.starts_with("agent/")), "{answer}");
    ensure!(ask(&mut one)? == "no", "the session in quarantine reaches nobody");
    ensure!(ask(&mut two)? == "yes", "the other one does");
    release(&daemon, &answer, None)?;
    ensure!(ask(&mut one)? == "yes", "once it is released");
    for mut session in [one, two] {
        drop(session.0.stdin.take());
        session.0.wait().context("end")?;
    }
    daemon.stop().map(drop)
}

/// What `a_level_of_quarantine_denies_what_it_says` tries.
const USES: [&str; 5] = ["net", "write", "create", "exec", "read"];

fn a_level_of_quarantine_denies_what_it_says(_: &Case<'_>) -> Result<()> {
    scene()?;
    echo_tcp()?;
    let daemon = Daemon::start("quarantine-levels", &bundle(1))?;
    let lease = grant(&daemon, 600)?;
    let open = || -> io::Result<Vec<Use>> {
        let mut stream = TcpStream::connect(("127.0.0.1", TCP))?;
        let (read, written) = (File::open(notes())?, OpenOptions::new().write(true).open(notes())?);
        Ok(vec![
            ("net", Box::new(move || stream.write(b"x").map(drop))),
            ("write", Box::new(move || written.write_at(b"y", 0).map(drop))),
            ("create", Box::new(|| File::create(path("using/free/new")).map(drop))),
            ("exec", Box::new(executes)),
            ("read", Box::new(move || read.read_at(&mut [0], 0).map(drop))),
        ])
    };
    let mut holder = Holder::start(AGENT, &USES, open)?;
    for (level, denied) in [
        ("network", &["net"][..]),
        ("write", &["net", "write", "create"]),
        ("exec", &["net", "write", "create", "exec"]),
    ] {
        let answer = quarantine(&daemon, "agent", level)?;
        for what in USES {
            let outcome = if denied.contains(&what) { holder.is_refused(what) } else { holder.works(what) };
            outcome.with_context(|| format!("at level {level}"))?;
        }
        release(&daemon, &answer, None)?;
    }
    // Down step by step, and what is higher counts of two.
    let answer = quarantine(&daemon, "agent", "freeze")?;
    let other = quarantine(&daemon, "agent", "network")?;
    let state = fs::read_to_string(format!("/proc/{}/stat", holder.running.pid())).context("look at it")?;
    ensure!(
        state.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T')),
        "it is not stopped: {state}"
    );
    let higher = output(&mut daemon.control(&["release", "4", "--to", "freeze", "--reason", "x"]))?;
    ends_with(&higher, 6)?;
    release(&daemon, &answer, Some("write"))?;
    holder.is_refused("write").context("one step down")?;
    holder.works("exec").context("one step down")?;
    release(&daemon, &answer, None)?;
    holder.is_refused("net").context("by the other one")?;
    release(&daemon, &other, None)?;
    for what in ["net", "write", "exec"] {
        holder.works(what).context("released")?;
    }
    revoke(&daemon, lease)?;
    holder.end()?;
    daemon.stop().map(drop)
}

fn a_fork_bomb_is_contained_by_a_quarantine(case: &Case<'_>) -> Result<()> {
    scene()?;
    let daemon = Daemon::start("quarantine-bomb", &bundle(1))?;
    // Every process makes others for as long as it can, and none of them reads anything.
    let breadth = if case.full { 4000 } else { 200 };
    let bomb = attempt::start(AGENT, || {
        let mut made = 0;
        loop {
            // SAFETY: the child only calls what may be called after fork.
            match unsafe { libc::fork() } {
                0 => {
                    // SAFETY: a call without memory; it waits until it is killed.
                    unsafe { libc::pause() };
                }
                -1 => return Ok(()),
                _ => made += 1,
            }
            if made > breadth {
                // One ends, another begins.
                // SAFETY: kills nobody else than children of this process.
                unsafe { libc::wait(std::ptr::null_mut()) };
            }
        }
    })?;
    let ours = |daemon: &Daemon| -> Result<usize> {
        let words = ["quarantine", "agent", "--level", "full", "--reason", "x", "--dry-run", "--json"];
        let seen = output(&mut daemon.control(&words))?;
        ends_with(&seen, 0)?;
        let seen: Value = serde_json::from_slice(&seen.stdout).context("JSON")?;
        Ok(seen["covers"]["processes"].as_array().map_or(0, Vec::len))
    };
    let begun = Instant::now();
    while ours(&daemon)? < breadth / 2 {
        ensure!(begun.elapsed() < Duration::from_secs(120), "the bomb does not grow");
    }
    let answer = quarantine(&daemon, "agent", "full")?;
    let first = ours(&daemon)?;
    let second = ours(&daemon)?;
    ensure!(second <= first, "it grows: {first}, then {second}");
    println!("  {first} processes contained, {} µs", answer["in_force_us"]);
    layout::run("pkill", &["-KILL", "-u", "agent"])?;
    let _ = bomb.outcome();
    daemon.stop().map(drop)
}
