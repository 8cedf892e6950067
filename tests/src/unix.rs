//! Unix sockets: by path however it is written, abstract, datagrams, and pairs without a name.

use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, IntoRawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::bundle::{Bundle, permit, within};
use crate::case::{Case, refusal};
use crate::family::{Part, tests};
use crate::layout::{self, path};
use crate::users::AGENT;

pub(crate) const PART: Part = Part {
    name: "unix",
    bundle,
    prepare,
    tests: tests!(
        smoke: [connecting_to_a_unix_socket_is_refused],
        others: [
            a_unix_socket_is_refused_through_every_name_of_it,
            an_abstract_socket_is_refused,
            sending_to_a_datagram_socket_is_refused,
            a_socket_pair_of_the_subject_works,
            a_renamed_socket_is_judged_by_its_new_name,
        ],
    ),
};

const DOCKER: &str = "/run/docker.sock";

fn prepare() -> Result<()> {
    layout::create()?;
    layout::directory(&path("sockets"))?;
    for name in [Path::new(DOCKER), &path("sockets/good"), &path("sockets/bad")] {
        let _ = std::fs::remove_file(name);
        let listener = UnixListener::bind(name).with_context(|| format!("bind {}", name.display()))?;
        keep(listener, name)?;
    }
    for name in ["sockets/good-datagrams", "sockets/bad-datagrams"] {
        let name = path(name);
        let _ = std::fs::remove_file(&name);
        keep(UnixDatagram::bind(&name).context("bind a datagram socket")?, &name)?;
    }
    for name in ["guard-tests-good", "guard-tests-bad"] {
        let address = SocketAddr::from_abstract_name(name).context("make an abstract name")?;
        match UnixListener::bind_addr(&address) {
            Ok(listener) => std::mem::forget(listener),
            Err(error) => return Err(error).context("bind an abstract socket"),
        }
    }
    Ok(())
}

/// Leaves a socket open for as long as this program runs, for everybody to connect to.
fn keep(socket: impl IntoRawFd, name: &Path) -> Result<()> {
    let _ = socket.into_raw_fd();
    let everybody = std::fs::Permissions::from_mode(0o666);
    std::fs::set_permissions(name, everybody).with_context(|| format!("chmod {}", name.display()))
}

fn bundle(bundle: Bundle) -> Result<Bundle> {
    let unix = |name: &str| format!("resource == Guard::Unix::\"{name}\"");
    let good = path("sockets/good").display().to_string();
    let datagrams = path("sockets/good-datagrams").display().to_string();
    let anonymous = within(&["guard:own-anonymous"]);
    let policy = permit("unix", "agent", &["unix.connect"], &unix(&good))
        + &permit("unix-abstract", "agent", &["unix.connect"], &unix("@guard-tests-good"))
        + &permit("unix-send", "agent", &["unix.send"], &unix(&datagrams))
        + &permit("unix-own", "agent", &["unix.*"], &anonymous);
    Ok(bundle.policy("unix", policy))
}

fn connect(name: impl AsRef<Path>) -> io::Result<()> {
    UnixStream::connect(name).map(drop)
}

fn connecting_to_a_unix_socket_is_refused(case: &Case<'_>) -> Result<()> {
    case.refused(refusal(AGENT, "unix.connect").at("/docker.sock"), || connect(DOCKER))?;
    case.refused(refusal(AGENT, "unix.connect").at("sockets/bad"), || connect(path("sockets/bad")))?;
    case.allowed(AGENT, || connect(path("sockets/good")))
}

fn a_unix_socket_is_refused_through_every_name_of_it(case: &Case<'_>) -> Result<()> {
    for (link, target) in [("bad-link", "sockets/bad"), ("good-link", "sockets/good")] {
        let link = path("open").join(link);
        let _ = std::fs::remove_file(&link);
        std::os::unix::fs::symlink(path(target), &link).context("make a link")?;
    }
    let refused = || refusal(AGENT, "unix.connect").at("sockets/bad");
    case.refused(refused(), || connect(path("open/bad-link")))?;
    case.refused(refused(), || connect(path("open/../sockets/bad")))?;
    case.refused(refused(), || {
        nix::unistd::chdir(&path("sockets"))?;
        connect("bad")
    })?;
    case.refused(refused(), || {
        let handle = crate::raw::open_path(&path("sockets/bad"))?;
        connect(format!("/proc/self/fd/{}", handle.as_raw_fd()))
    })?;
    case.allowed(AGENT, || connect(path("open/good-link")))?;
    case.allowed(AGENT, || {
        nix::unistd::chdir(&path("sockets"))?;
        connect("good")
    })
}

fn an_abstract_socket_is_refused(case: &Case<'_>) -> Result<()> {
    let connect = |name: &str| UnixStream::connect_addr(&SocketAddr::from_abstract_name(name)?).map(drop);
    case.refused(refusal(AGENT, "unix.connect").at("guard-tests-bad"), || connect("guard-tests-bad"))?;
    case.allowed(AGENT, || connect("guard-tests-good"))
}

fn sending_to_a_datagram_socket_is_refused(case: &Case<'_>) -> Result<()> {
    let (good, bad) = (path("sockets/good-datagrams"), path("sockets/bad-datagrams"));
    let send = |name: &PathBuf| UnixDatagram::unbound()?.send_to(b"x", name).map(drop);
    let connected = |name: &PathBuf| {
        let socket = UnixDatagram::unbound()?;
        socket.connect(name)?;
        socket.send(b"x").map(drop)
    };
    case.refused(refusal(AGENT, "unix.send").at("sockets/bad-datagrams"), || send(&bad))?;
    case.refused(refusal(AGENT, "unix.send").at("sockets/bad-datagrams"), || connected(&bad))?;
    case.allowed(AGENT, || send(&good))?;
    case.allowed(AGENT, || connected(&good))
}

fn a_socket_pair_of_the_subject_works(case: &Case<'_>) -> Result<()> {
    case.allowed(AGENT, || {
        let (mut one, mut other) = UnixStream::pair()?;
        one.write_all(b"x")?;
        other.read_exact(&mut [0])?;
        let (one, other) = UnixDatagram::pair()?;
        one.send(b"x")?;
        other.recv(&mut [0]).map(drop)
    })
}

fn a_renamed_socket_is_judged_by_its_new_name(case: &Case<'_>) -> Result<()> {
    let (good, other) = (path("sockets/good"), path("sockets/renamed"));
    case.allowed(AGENT, || connect(&good))?;
    std::fs::rename(&good, &other).context("rename the socket")?;
    let result = case.refused(refusal(AGENT, "unix.connect").at("sockets/renamed"), || connect(&other));
    std::fs::rename(&other, &good).context("rename it back")?;
    result
}
