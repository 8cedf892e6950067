//! Denials that look as if there were nothing: `@errno`.

use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;

use anyhow::{Context, Result};
use nix::errno::Errno;

use crate::bundle::{Bundle, forbid, permit, within};
use crate::case::{Case, refusal};
use crate::family::{Part, tests};
use crate::file::read;
use crate::layout::{self, path};
use crate::users::AGENT;

pub(crate) const PART: Part = Part {
    name: "quiet",
    bundle,
    prepare,
    tests: tests!(
        others: [
            a_forbid_can_answer_that_a_file_is_not_there,
            a_program_can_be_refused_as_if_it_were_not_there,
            an_open_is_quiet_only_if_all_of_it_is,
            a_forbid_can_answer_that_nobody_listens,
        ],
    ),
};

/// A TCP port that only these tests use.
const PORT: u16 = 7031;
const QUIET: Ipv4Addr = Ipv4Addr::new(127, 30, 0, 1);
const LOUD: Ipv4Addr = Ipv4Addr::new(127, 30, 0, 2);
const OPEN: Ipv4Addr = Ipv4Addr::new(127, 30, 0, 3);

fn file(name: &str) -> PathBuf {
    path("quiet").join(name)
}

fn prepare() -> Result<()> {
    layout::create()?;
    for name in ["hidden/config", "hidden/notes", "refused/config", "open/config"] {
        layout::file(&file(name), b"content\n")?;
    }
    let program = file("hidden/true");
    fs::copy("/bin/true", &program).context("copy a program")?;
    for name in ["hidden.sock", "refused.sock", "open.sock"] {
        let name = file(name);
        let _ = fs::remove_file(&name);
        std::mem::forget(UnixListener::bind(&name).context("bind")?);
        fs::set_permissions(&name, std::os::unix::fs::PermissionsExt::from_mode(0o666)).context("chmod")?;
    }
    std::mem::forget(std::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).context("listen")?);
    Ok(())
}

fn bundle(bundle: Bundle) -> Result<Bundle> {
    let quietly = |errno: &str, policy: String| format!("@errno(\"{errno}\")\n{policy}");
    let everything = ["file.*", "exec.*"];
    let socket = |name: &str| format!("resource == Guard::Unix::\"{}\"", file(name).display());
    let address = |ip: Ipv4Addr| format!("resource in Guard::Net::\"{ip}/32\"");
    let policy = permit("all", "agent", &everything, &within(&[file("hidden"), file("open")]))
        + &quietly("ENOENT", forbid("hidden", "agent", &everything, &within(&[file("hidden")])))
        // Of what is hidden, this file is also refused writing in a way that can be heard.
        + &permit("notes", "agent", &["file.*"], &within(&[file("refused")]))
        + &quietly("ENOENT", forbid("read", "agent", &["file.read"], &within(&[file("refused")])))
        + &forbid("write", "agent", &["file.write"], &within(&[file("refused")]))
        + &permit("sockets", "agent", &["unix.connect"], &socket("open.sock"))
        + &quietly("ECONNREFUSED", forbid("socket", "agent", &["unix.*"], &socket("hidden.sock")))
        + &permit("connect", "agent", &["net.connect"], &address(OPEN))
        + &quietly("ECONNREFUSED", forbid("address", "agent", &["net.*"], &address(QUIET)));
    Ok(bundle.policy("quiet", policy))
}

fn a_forbid_can_answer_that_a_file_is_not_there(case: &Case<'_>) -> Result<()> {
    let name = file("hidden/config");
    case.refused(refusal(AGENT, "file.read").at(&name).with(Errno::ENOENT), || read(&name))?;
    let write = || File::options().write(true).open(&name).map(drop);
    case.refused(refusal(AGENT, "file.write").at(&name).with(Errno::ENOENT), write)?;
    let list = || fs::read_dir(file("hidden")).map(drop);
    case.refused(refusal(AGENT, "dir.list").with(Errno::ENOENT), list)?;
    // The name that leads to it makes no difference.
    let through_proc =
        || read(PathBuf::from("/proc/self/root").join(name.strip_prefix("/").unwrap_or(&name)));
    case.refused(refusal(AGENT, "file.read").at(&name).with(Errno::ENOENT), through_proc)?;
    case.allowed(AGENT, || read(file("open/config")))
}

fn a_program_can_be_refused_as_if_it_were_not_there(case: &Case<'_>) -> Result<()> {
    let run = |name: PathBuf| std::process::Command::new(name).status().map(drop);
    case.refused(refusal(AGENT, "exec").at(file("hidden/true")).with(Errno::ENOENT), || {
        run(file("hidden/true"))
    })
}

fn an_open_is_quiet_only_if_all_of_it_is(case: &Case<'_>) -> Result<()> {
    let name = file("refused/config");
    let open = |write: bool| {
        let name = name.clone();
        move || -> io::Result<()> { File::options().read(true).write(write).open(&name).map(drop) }
    };
    case.refused(refusal(AGENT, "file.read").at(&name).with(Errno::ENOENT), open(false))?;
    case.refused(refusal(AGENT, "file.write").at(&name), open(true))?;
    case.allowed(AGENT, || File::options().append(true).open(&name).map(drop))
}

fn a_forbid_can_answer_that_nobody_listens(case: &Case<'_>) -> Result<()> {
    let connect = |ip: Ipv4Addr| move || TcpStream::connect(SocketAddrV4::new(ip, PORT)).map(drop);
    let quiet = refusal(AGENT, "net.connect").at(format!("{QUIET}:{PORT}")).with(Errno::ECONNREFUSED);
    case.refused(quiet, connect(QUIET))?;
    case.refused(refusal(AGENT, "net.connect").at(format!("{LOUD}:{PORT}")), connect(LOUD))?;
    case.allowed(AGENT, connect(OPEN))?;
    let unix = |name: &'static str| move || UnixStream::connect(file(name)).map(drop);
    let quiet = refusal(AGENT, "unix.connect").at(file("hidden.sock")).with(Errno::ECONNREFUSED);
    case.refused(quiet, unix("hidden.sock"))?;
    case.refused(refusal(AGENT, "unix.connect").at(file("refused.sock")), unix("refused.sock"))?;
    case.allowed(AGENT, unix("open.sock"))
}
