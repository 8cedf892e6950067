//! Containers of systemd-nspawn, selected by name, whose root is a directory of the host's file system.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use nix::errno::Errno;

use crate::attempt::eventually;
use crate::boxes::{self, LOOP, SHOWN, tell};
use crate::bundle::Bundle;
use crate::case::{Case, refusal};
use crate::family::{Part, tests};
use crate::layout;
use crate::users::{Identity, ROOT};

pub(crate) const PART: Part = Part {
    name: "nspawn",
    bundle,
    prepare,
    tests: tests!(
        others: [
            an_agent_in_nspawn_is_held_to_its_own_root,
            a_machine_with_another_name_is_not_labelled,
            nginx_in_nspawn_serves_one_tree_and_not_another,
        ],
    ),
};

const AGENT: Identity = ROOT.becoming("nspawn-agent");
const WEB: Identity = ROOT.becoming("nspawn-web");
const PORT: u16 = 7027;
/// Name of the engine in paths.
const ENGINE: &str = "nspawn";

fn bundle(bundle: Bundle) -> Result<Bundle> {
    let bundle =
        boxes::add_agent(bundle, AGENT.name, "container = { name = \"guard-agents\", engine = \"nspawn\" }");
    Ok(boxes::add_server(bundle, WEB.name, "container = \"guard-web\"", PORT))
}

/// Where the root of a machine lies on the host.
fn tree(name: &str) -> PathBuf {
    Path::new("/var/lib/machines").join(name)
}

fn prepare() -> Result<()> {
    layout::create()?;
    boxes::directories(ENGINE)?;
    boxes::agents_root(&tree("agents"))?;
    boxes::servers_root(&tree("web"), PORT)
}

/// Starts a machine in a unit of its own.
fn start(machine: &str, root: &str, words: &[&str]) -> Result<()> {
    stop(machine)?;
    let unit = format!("--unit=guard-test-{machine}.service");
    let shown = format!("--bind-ro={SHOWN}:/host");
    let work = format!("--bind=/srv/boxes/{ENGINE}/work:/work");
    let root = tree(root).display().to_string();
    let nspawn = ["systemd-nspawn", "--quiet", "--machine", machine, "--directory", &root, &shown, &work];
    let run = ["--quiet", "--collect", "--service-type=exec", &unit, "--"];
    layout::run("systemd-run", &[&run[..], &nspawn, words].concat())
}

fn start_agent(machine: &str) -> Result<()> {
    start(machine, "agents", &["/bin/sh", "-c", LOOP])
}

fn an_agent_in_nspawn_is_held_to_its_own_root(case: &Case<'_>) -> Result<()> {
    start_agent("guard-agents")?;
    let tell = |line: &str| tell(ENGINE, line);
    let read = |place: &'static str| refusal(AGENT, "file.read").at(place).only_labelled();
    case.allowed(ROOT, || {
        tell("ls / /srv/data >/work/list")?;
        tell("cat /srv/data/notes >/work/notes")?;
        tell("cat /work/notes >/tmp/copy; rm /tmp/copy")
    })?;
    // A program in what is mounted there.
    case.allowed(ROOT, || tell("/work/tools/busybox true"))?;
    let program = refusal(AGENT, "exec").at("/work/other/busybox").only_labelled();
    case.refused(program, || tell("/work/other/busybox true"))?;
    case.refused(read("/etc/secret"), || tell("cat /etc/secret >/dev/null"))?;
    case.refused(read("/host/srv/data/notes"), || tell("cat /host/srv/data/notes >/dev/null"))?;
    case.refused(read("/jail/srv/data/notes"), || {
        tell("chroot /jail /busybox cat /srv/data/notes >/dev/null")
    })?;
    let mounts = refusal(AGENT, "sys.mount").with(Errno::EPERM).only_labelled();
    case.refused(mounts, || {
        tell("mount --bind /etc /srv/data")?;
        tell("busybox umount /srv/data")
    })?;
    let refused = refusal(AGENT, "file.create").at("/run/x").only_labelled();
    case.refused(refused, || tell("echo x >/run/x"))?;
    stop("guard-agents")
}

fn a_machine_with_another_name_is_not_labelled(case: &Case<'_>) -> Result<()> {
    start_agent("guard-agents-2")?;
    case.allowed(ROOT, || tell(ENGINE, "cat /etc/secret >/dev/null"))?;
    stop("guard-agents-2")
}

fn nginx_in_nspawn_serves_one_tree_and_not_another(case: &Case<'_>) -> Result<()> {
    start("guard-web", "web", &["/usr/sbin/nginx"])?;
    eventually("nginx in a machine serves", || Ok(boxes::get(PORT, "/good/page").is_ok())).with_context(
        || {
            let log = Command::new("journalctl").args(["--no-pager", "-n", "40"]).output();
            log.map(|log| String::from_utf8_lossy(&log.stdout).into_owned()).unwrap_or_default()
        },
    )?;
    case.allowed(ROOT, || boxes::get(PORT, "/good/page"))?;
    let refused = refusal(WEB, "file.read").at("/var/www/bad/page").only_labelled();
    case.refused(refused, || boxes::get(PORT, "/bad/page"))?;
    stop("guard-web")
}

fn stop(machine: &str) -> Result<()> {
    let _ = Command::new("systemctl").args(["stop", &format!("guard-test-{machine}.service")]).status();
    Ok(())
}
