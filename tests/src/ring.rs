//! io_uring: whoever acts in a process's name, and however an operation is submitted.

use std::fs::{self, Permissions};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use nix::libc::{AF_INET, SOCK_STREAM};
use nix::unistd::{Uid, setresuid};

use crate::bundle::{Bundle, permit};
use crate::case::{Case, refusal};
use crate::family::{Part, tests};
use crate::layout::{self, ROOT, canary, path};
use crate::network::bytes;
use crate::raw;
use crate::uring::{self, How, Ring};
use crate::users::{AGENT, FREE, ROOT as AS_ROOT};

pub(crate) const PART: Part = Part {
    name: "ring",
    bundle,
    prepare,
    tests: tests!(
        others: [
            credentials_registered_with_a_ring_change_nothing,
            a_polling_thread_of_a_ring_keeps_the_label,
            opening_by_a_ring_is_refused_however_it_is_submitted,
        ],
    ),
};

/// A TCP port that only these tests use.
const PORT: u16 = 7041;
const GOOD: Ipv4Addr = Ipv4Addr::new(127, 40, 0, 1);
const BAD: Ipv4Addr = Ipv4Addr::new(127, 41, 0, 1);

fn prepare() -> Result<()> {
    layout::create()?;
    ensure!(uring::is_there()?, "this kernel has no io_uring, or it is switched off");
    for name in ["open/roots", "shut/roots"] {
        layout::file(&path(name), b"content\n")?;
        fs::set_permissions(path(name), Permissions::from_mode(0o600)).context("chmod")?;
    }
    std::mem::forget(std::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).context("listen")?);
    Ok(())
}

fn bundle(bundle: Bundle) -> Result<Bundle> {
    let good = format!("resource in Guard::Net::\"{GOOD}/32\"");
    Ok(bundle.policy("ring", permit("ring", "agent", &["net.connect"], &good)))
}

fn secret() -> PathBuf {
    canary(ROOT)
}

fn notes() -> PathBuf {
    path("open/notes")
}

fn credentials_registered_with_a_ring_change_nothing(case: &Case<'_>) -> Result<()> {
    // Root leaves its credentials in a ring, becomes a user, and opens what only root may open.
    let open = |uid: u32, file: PathBuf| {
        let mut ring = Ring::new()?;
        let as_root = ring.register_credentials()?;
        let uid = Uid::from_raw(uid);
        setresuid(uid, uid, uid)?;
        ring.open(&file, as_root)
    };
    let agent = AS_ROOT.becoming("agent");
    let refused = refusal(agent, "file.read").at("shut/roots").only_labelled();
    case.refused(refused, || open(AGENT.uid, path("shut/roots")))?;
    case.allowed(AS_ROOT, || open(FREE.uid, path("shut/roots")))?;
    case.allowed(agent, || open(AGENT.uid, path("open/roots")))
}

fn a_polling_thread_of_a_ring_keeps_the_label(case: &Case<'_>) -> Result<()> {
    let open = |file: &Path| Ring::polled()?.open(file, How::Plain);
    case.refused(refusal(AGENT, "file.read").at("shut/secret"), || open(&secret()))?;
    case.allowed(AGENT, || open(&notes()))?;
    let connect = |ip: Ipv4Addr| {
        let socket = raw::socket(AF_INET, SOCK_STREAM, 0)?;
        Ring::polled()?.connect(socket.as_fd(), &bytes(SocketAddr::new(ip.into(), PORT)))
    };
    case.refused(refusal(AGENT, "net.connect").at(format!("{BAD}:{PORT}")), || connect(BAD))?;
    case.allowed(AGENT, || connect(GOOD))
}

fn opening_by_a_ring_is_refused_however_it_is_submitted(case: &Case<'_>) -> Result<()> {
    for polled in [false, true] {
        let ring = || if polled { Ring::polled() } else { Ring::new() };
        for how in [How::Plain, How::Worker, How::Chained, How::Structured, How::Slot] {
            let context = || format!("{how:?}, polled: {polled}");
            let refused = refusal(AGENT, "file.read").at("shut/secret");
            case.refused(refused, || ring()?.open(&secret(), how)).with_context(context)?;
            case.allowed(AGENT, || ring()?.open(&notes(), how)).with_context(context)?;
        }
    }
    Ok(())
}
