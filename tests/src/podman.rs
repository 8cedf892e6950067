//! Containers that podman runs for root, selected by name and by image, with a root of their own.

use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use nix::errno::Errno;

use crate::attempt::eventually;
use crate::boxes::{self, LOOP, SHOWN, tell};
use crate::bundle::Bundle;
use crate::case::{Case, refusal};
use crate::family::{Part, tests};
use crate::layout;
use crate::users::{Identity, ROOT};

pub(crate) const PART: Part = Part {
    name: "podman",
    bundle,
    prepare,
    tests: tests!(
        others: [
            an_agent_in_podman_is_held_to_its_own_root,
            what_is_mounted_in_a_container_has_the_name_that_it_has_there,
            a_container_of_another_image_is_not_labelled,
            what_joins_a_container_is_labelled,
            nginx_in_podman_serves_one_tree_and_not_another,
        ],
    ),
};

/// The agent, in a container that is selected by its image.
const AGENT: Identity = ROOT.becoming("podman-agent");
/// The web server, in one that is selected by its name.
const WEB: Identity = ROOT.becoming("podman-web");
const PORT: u16 = 7026;

const AGENTS_IMAGE: &str = "localhost/guard-agents";
const OTHER_IMAGE: &str = "localhost/guard-other";
const WEB_IMAGE: &str = "localhost/guard-web";
/// Name of the engine in paths.
const ENGINE: &str = "podman";

fn bundle(bundle: Bundle) -> Result<Bundle> {
    let by_image = format!("container = {{ image = \"{AGENTS_IMAGE}\", engine = \"podman\" }}");
    let bundle = boxes::add_agent(bundle, AGENT.name, &by_image);
    Ok(boxes::add_server(bundle, WEB.name, "container = \"guard-web\"", PORT))
}

/// podman, without systemd and with what a guest has.
fn podman(words: &[&str]) -> Command {
    let mut command = Command::new("podman");
    command.args(["--cgroup-manager=cgroupfs", "--events-backend=none", "--runtime=crun"]).args(words);
    command
}

fn prepare() -> Result<()> {
    layout::create()?;
    let storage = Path::new("/var/lib/containers");
    layout::directory(storage)?;
    if !storage.join("storage").exists() {
        // The guest's root is an overlay itself, upon which podman can put none.
        layout::run("mount", &["-t", "tmpfs", "tmpfs", "/var/lib/containers"])?;
        layout::directory(&storage.join("storage"))?;
    }
    layout::file(
        Path::new("/etc/containers/policy.json"),
        b"{\"default\": [{\"type\": \"insecureAcceptAnything\"}]}",
    )?;
    boxes::directories(ENGINE)?;
    let agents = Path::new("/srv/boxes/agents-root");
    boxes::agents_root(agents)?;
    let servers = Path::new("/srv/boxes/servers-root");
    boxes::servers_root(servers, PORT)?;
    for (root, image) in [(agents, AGENTS_IMAGE), (agents, OTHER_IMAGE), (servers, WEB_IMAGE)] {
        let archive = Path::new("/srv/boxes/image.tar");
        layout::run("tar", &["-C", &root.display().to_string(), "-cf", &archive.display().to_string(), "."])?;
        boxes::output(&mut podman(&[
            "import",
            "--quiet",
            &archive.display().to_string(),
            &format!("{image}:1"),
        ]))
        .with_context(|| format!("make the image {image}"))?;
    }
    Ok(())
}

/// Starts a container anew. It is told apart by its name from the one that ran without Guard.
fn start(name: &str, image: &str, words: &[&str]) -> Result<()> {
    boxes::output(&mut podman(&["rm", "--force", "--ignore", "--time=0", name]))?;
    let work = format!("/srv/boxes/{ENGINE}/work:/work");
    let shown = format!("{SHOWN}:/host:ro");
    let image = format!("{image}:1");
    let run = ["run", "--detach", "--network=host", "--name", name, "--cap-add=sys_admin,sys_chroot"];
    let mounts = ["--volume", &work, "--volume", &shown, "--tmpfs", "/tmp"];
    boxes::output(&mut podman(&[&run[..], &mounts, &[&image], words].concat())).map(drop)
}

fn start_agent(name: &str, image: &str) -> Result<()> {
    start(name, image, &["/bin/sh", "-c", LOOP])
}

fn an_agent_in_podman_is_held_to_its_own_root(case: &Case<'_>) -> Result<()> {
    start_agent("guard-agent-1", AGENTS_IMAGE)?;
    let tell = |line: &str| tell(ENGINE, line);
    let read = |place: &'static str| refusal(AGENT, "file.read").at(place).only_labelled();
    // What an agent does: look round, read, write, run tools.
    case.allowed(ROOT, || {
        tell("ls /srv/data >/work/list")?;
        tell("cat /srv/data/notes >/work/notes")?;
        tell("cat /work/notes >/tmp/copy")?;
        tell("mkdir -p /work/tree; cp /work/notes /work/tree/notes; mv /work/tree/notes /work/tree/moved")?;
        tell("rm -r /work/tree")
    })?;
    // A program in what is mounted there.
    case.allowed(ROOT, || tell("/work/tools/busybox true"))?;
    let program = refusal(AGENT, "exec").at("/work/other/busybox").only_labelled();
    case.refused(program, || tell("/work/other/busybox true"))?;
    case.refused(read("/etc/secret"), || tell("cat /etc/secret >/dev/null"))?;
    // The policy's words mean the container's places, not those of the host, whatever shows them.
    case.refused(read("/host/srv/data/notes"), || tell("cat /host/srv/data/notes >/dev/null"))?;
    // Another root, later, is not the one that the policy means.
    case.refused(read("/jail/srv/data/notes"), || {
        tell("chroot /jail /busybox cat /srv/data/notes >/dev/null")
    })?;
    // Nothing gets another name.
    let mounts = refusal(AGENT, "sys.mount").with(Errno::EPERM).only_labelled();
    case.refused(mounts, || {
        tell("mount --bind /etc /srv/data")?;
        tell("busybox umount /srv/data")
    })?;
    case.refused(read("/etc/secret"), || tell("cat /proc/1/root/etc/secret >/dev/null"))?;
    stop("guard-agent-1")
}

fn what_is_mounted_in_a_container_has_the_name_that_it_has_there(case: &Case<'_>) -> Result<()> {
    start_agent("guard-agent-2", AGENTS_IMAGE)?;
    let tell = |line: &str| tell(ENGINE, line);
    case.allowed(ROOT, || {
        tell("echo x >/tmp/x; cat /tmp/x >/dev/null; rm /tmp/x")?;
        tell("cat /proc/self/status >/dev/null && echo lost >/dev/null")?;
        // The engine mounts it; an include permits it by this name.
        tell("cat /etc/hosts >/dev/null")
    })?;
    let refused = refusal(AGENT, "file.read").at("/run/.containerenv").only_labelled();
    case.refused(refused, || tell("cat /run/.containerenv >/dev/null"))?;
    let refused = refusal(AGENT, "file.create").at("/dev/shm/x").only_labelled();
    case.refused(refused, || tell("echo x >/dev/shm/x"))?;
    stop("guard-agent-2")
}

fn a_container_of_another_image_is_not_labelled(case: &Case<'_>) -> Result<()> {
    start_agent("guard-other", OTHER_IMAGE)?;
    case.allowed(ROOT, || {
        tell(ENGINE, "cat /etc/secret >/dev/null")?;
        tell(ENGINE, "mount --bind /etc /srv/data && busybox umount /srv/data")
    })?;
    stop("guard-other")
}

fn what_joins_a_container_is_labelled(case: &Case<'_>) -> Result<()> {
    start_agent("guard-agent-3", AGENTS_IMAGE)?;
    let exec = |file: &str| -> io::Result<()> {
        let output = podman(&["exec", "guard-agent-3", "/bin/cat", file]).output()?;
        match output.status.success() {
            true => Ok(()),
            false => Err(boxes::refused(&String::from_utf8_lossy(&output.stderr))),
        }
    };
    case.allowed(ROOT, || exec("/srv/data/notes"))?;
    case.refused(refusal(AGENT, "file.read").at("/etc/secret").only_labelled(), || exec("/etc/secret"))?;
    stop("guard-agent-3")
}

fn nginx_in_podman_serves_one_tree_and_not_another(case: &Case<'_>) -> Result<()> {
    start("guard-web", WEB_IMAGE, &["/usr/sbin/nginx"])?;
    eventually("nginx in a container serves", || Ok(boxes::get(PORT, "/good/page").is_ok())).with_context(
        || {
            let log = podman(&["logs", "guard-web"]).output();
            log.map(|log| String::from_utf8_lossy(&log.stderr).into_owned()).unwrap_or_default()
        },
    )?;
    case.allowed(ROOT, || boxes::get(PORT, "/good/page"))?;
    let refused = refusal(WEB, "file.read").at("/var/www/bad/page").only_labelled();
    case.refused(refused, || boxes::get(PORT, "/bad/page"))?;
    stop("guard-web")
}

fn stop(name: &str) -> Result<()> {
    boxes::output(&mut podman(&["rm", "--force", "--time=0", name]))?;
    ensure!(fs::exists("/srv/boxes")?, "the host's directories stay");
    Ok(())
}
