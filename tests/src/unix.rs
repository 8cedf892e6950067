//! Unix sockets: by path however it is written, abstract, datagrams, and pairs without a name.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, IntoRawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::bundle::{Bundle, forbid, permit, within};
use crate::case::{Case, refusal};
use crate::family::{Part, tests};
use crate::layout::{self, path};
use crate::users::{AGENT, CI, FREE, Identity};

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
            binding_to_a_name_is_refused_however_it_is_written,
            binding_an_abstract_name_is_refused,
            accepting_is_decided_by_the_sockets_own_name,
            a_socket_is_reached_by_the_subject_that_listens,
            a_socket_is_not_reached_if_a_named_subject_listens,
            datagrams_are_sent_to_sockets_of_the_subject,
        ],
    ),
};

const DOCKER: &str = "/run/docker.sock";
/// Where sockets are reached if the subject itself listens.
const OWN: &str = "listened/own";
/// Where they are reached unless `ci` listens.
const ALL_BUT: &str = "listened/all-but";

fn prepare() -> Result<()> {
    layout::create()?;
    for directory in ["sockets", OWN, ALL_BUT] {
        layout::directory(&path(directory))?;
    }
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
    let any = |names: &[&str]| {
        let one = |name: &&str| unix(&path(name).display().to_string());
        names.iter().map(one).collect::<Vec<_>>().join(" || ")
    };
    let good = path("sockets/good").display().to_string();
    let datagrams = path("sockets/good-datagrams").display().to_string();
    let anonymous = within(&["guard:own-anonymous"]);
    let policy = permit("unix", "agent", &["unix.connect"], &unix(&good))
        + &permit("unix-abstract", "agent", &["unix.connect"], &unix("@guard-tests-good"))
        + &permit("unix-send", "agent", &["unix.send"], &unix(&datagrams))
        + &permit(
            "unix-bind",
            "agent",
            &["unix.bind", "unix.connect"],
            &any(&["sockets/mine", "sockets/deaf"]),
        )
        + &permit("unix-nodes", "agent", &["file.*"], &within(&[path("sockets")]))
        + &permit("unix-bind-abstract", "agent", &["unix.bind"], &unix("@guard-tests-mine"))
        + &permit("unix-accept", "agent", &["unix.accept"], &any(&["sockets/mine"]))
        + &permit("unix-own", "agent", &["unix.*"], &anonymous)
        + &permit(
            "unix-listener",
            "agent",
            &["unix.*"],
            &format!("({}) && resource has listener && resource.listener == principal", within(&[path(OWN)])),
        )
        + &permit("unix-listener-nodes", "agent", &["file.*"], &within(&[path(OWN)]))
        + &permit("unix-all-but", "agent", &["unix.connect"], &within(&[path(ALL_BUT)]))
        + &forbid(
            "unix-but",
            "agent",
            &["unix.connect"],
            &format!(
                "({}) && resource has listener && resource.listener == Guard::Subject::\"ci\"",
                within(&[path(ALL_BUT)])
            ),
        );
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

/// Binds a new socket to a path at which nothing is.
fn bind(name: impl AsRef<Path>) -> io::Result<UnixListener> {
    let _ = std::fs::remove_file(&name);
    let listener = UnixListener::bind(&name)?;
    // Whoever tries next is another user.
    std::fs::remove_file(&name)?;
    Ok(listener)
}

fn binding_to_a_name_is_refused_however_it_is_written(case: &Case<'_>) -> Result<()> {
    let refused = || refusal(AGENT, "unix.bind").at("sockets/theirs");
    case.refused(refused(), || bind(path("sockets/theirs")).map(drop))?;
    case.refused(refused(), || bind(path("open/../sockets/theirs")).map(drop))?;
    case.refused(refused(), || {
        nix::unistd::chdir(&path("sockets"))?;
        bind("theirs").map(drop)
    })?;
    case.refused(refused(), || {
        let _ = std::fs::remove_file(path("sockets/theirs"));
        let socket = UnixDatagram::bind(path("sockets/theirs"))?;
        std::fs::remove_file(path("sockets/theirs"))?;
        drop(socket);
        Ok(())
    })?;
    case.allowed(AGENT, || bind(path("sockets/mine")).map(drop))
}

fn binding_an_abstract_name_is_refused(case: &Case<'_>) -> Result<()> {
    let bind = |name: &str| UnixListener::bind_addr(&SocketAddr::from_abstract_name(name)?).map(drop);
    case.refused(refusal(AGENT, "unix.bind").at("guard-tests-theirs"), || bind("guard-tests-theirs"))?;
    case.allowed(AGENT, || bind("guard-tests-mine"))?;
    // The kernel makes up a name.
    case.refused(refusal(AGENT, "unix.bind"), || {
        let socket = crate::raw::socket(nix::libc::AF_UNIX, nix::libc::SOCK_DGRAM, 0)?;
        crate::raw::bind(socket.as_fd(), &(nix::libc::AF_UNIX as u16).to_ne_bytes())
    })
}

fn accepting_is_decided_by_the_sockets_own_name(case: &Case<'_>) -> Result<()> {
    let accept = |name: &str| {
        let _ = std::fs::remove_file(path(name));
        let listener = UnixListener::bind(path(name))?;
        let connected = UnixStream::connect(path(name))?;
        let accepted = listener.accept();
        std::fs::remove_file(path(name))?;
        drop(connected);
        accepted.map(drop)
    };
    case.refused(refusal(AGENT, "unix.accept").at("sockets/deaf"), || accept("sockets/deaf"))?;
    case.allowed(AGENT, || accept("sockets/mine"))
}

/// A socket in `directory` at which an unlabelled process listens, for everybody to connect to.
fn listening(directory: &str) -> Result<(PathBuf, UnixListener)> {
    let name = path(directory).join("socket");
    let _ = std::fs::remove_file(&name);
    let listener = UnixListener::bind(&name).context("bind a socket")?;
    layout::mode(&name, 0o666)?;
    Ok((name, listener))
}

/// Has `who` listen at a socket that is there: from then on it is who listens.
fn takes_over(case: &Case<'_>, who: Identity, listener: &UnixListener) -> Result<()> {
    case.allowed(who, || crate::raw::listen(listener.as_fd()))
}

fn a_socket_is_reached_by_the_subject_that_listens(case: &Case<'_>) -> Result<()> {
    let (name, listener) = listening(OWN)?;
    let refused = || refusal(AGENT, "unix.connect").at(&name);
    case.refused(refused(), || connect(&name)).context("nobody with a label listens")?;
    takes_over(case, CI, &listener)?;
    case.refused(refused(), || connect(&name)).context("another subject listens")?;
    takes_over(case, AGENT, &listener)?;
    case.allowed(AGENT, || connect(&name)).context("the subject listens")?;
    // Nobody without a label takes it away.
    takes_over(case, FREE, &listener)?;
    case.allowed(AGENT, || connect(&name))?;
    // The same with a socket that it makes itself, which binding and accepting belong to.
    case.allowed(AGENT, || {
        let name = path(OWN).join("mine");
        let listener = bind_in_place(&name)?;
        let connected = UnixStream::connect(&name)?;
        let accepted = listener.accept();
        std::fs::remove_file(&name)?;
        drop(connected);
        accepted.map(drop)
    })
}

/// Binds a new socket to a path.
fn bind_in_place(name: &Path) -> io::Result<UnixListener> {
    let _ = std::fs::remove_file(name);
    UnixListener::bind(name)
}

fn a_socket_is_not_reached_if_a_named_subject_listens(case: &Case<'_>) -> Result<()> {
    let (name, listener) = listening(ALL_BUT)?;
    case.allowed(AGENT, || connect(&name)).context("nobody with a label listens")?;
    takes_over(case, CI, &listener)?;
    case.refused(refusal(AGENT, "unix.connect").at(&name), || connect(&name))?;
    takes_over(case, AGENT, &listener)?;
    case.allowed(AGENT, || connect(&name)).context("the subject listens")
}

fn datagrams_are_sent_to_sockets_of_the_subject(case: &Case<'_>) -> Result<()> {
    let (theirs, own) = (path(OWN).join("their-datagrams"), path(OWN).join("own-datagrams"));
    let _ = std::fs::remove_file(&theirs);
    let socket = UnixDatagram::bind(&theirs).context("bind a socket")?;
    layout::mode(&theirs, 0o666)?;
    let send = |name: &Path| UnixDatagram::unbound()?.send_to(b"x", name).map(drop);
    case.refused(refusal(AGENT, "unix.send").at(&theirs), || send(&theirs))?;
    drop(socket);
    case.allowed(AGENT, || {
        let _ = std::fs::remove_file(&own);
        let _socket = UnixDatagram::bind(&own)?;
        send(&own)?;
        std::fs::remove_file(&own)
    })
}
