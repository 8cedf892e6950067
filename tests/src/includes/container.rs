//! A container runtime that root runs.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::json;

use super::{SECRET, START, command, run};
use crate::bundle::{Bundle, permit, within};
use crate::case::{Case, refusal};
use crate::family::{Part, tests};
use crate::layout::{self, which};
use crate::users::{Identity, ROOT};

/// Root, as the subject that has the include.
const WITH: Identity = ROOT.becoming("inc-crun");
/// Root, as a subject alike that lacks it.
const WITHOUT: Identity = ROOT.becoming("inc-crun-less");

pub(crate) const PART: Part = Part {
    name: "includes-container",
    bundle,
    prepare,
    tests: tests!(
        others: [
            a_container_needs_crun,
            what_is_denied_outside_is_denied_in_a_container,
            a_program_copied_into_a_container_is_not_executed,
        ],
    ),
};

/// What a subject has: the program that attaches its label, an image, configurations and a state directory.
fn tree(who: Identity) -> PathBuf {
    Path::new("/srv/inc-container").join(who.name)
}

fn bundle(mut bundle: Bundle) -> Result<Bundle> {
    for (who, include) in [(WITH, &["container/crun"][..]), (WITHOUT, &[])] {
        let (name, tree) = (who.name, tree(who));
        let includes: Vec<String> =
            [START, include].concat().iter().map(|include| format!("{include:?}")).collect();
        let policy = permit("state", name, &["file.*", "unix.*"], &within(&[tree.join("run")]))
            + &permit("image", name, &["read", "exec.*"], &within(&[tree.join("image")]));
        bundle = bundle
            .toml(&format!(
                "[subjects.{name}]\nselector = {{ exe = \"{}\" }}\ngoverns = [\"*\"]\ninclude = [{}]\n",
                starter(who).display(),
                includes.join(", ")
            ))
            .policy(name, policy);
    }
    Ok(bundle)
}

/// Executing this attaches the label.
fn starter(who: Identity) -> PathBuf {
    tree(who).join("start")
}

fn prepare() -> Result<()> {
    let (env, busybox) = (which("env")?, which("busybox")?);
    for who in [WITH, WITHOUT] {
        let tree = tree(who);
        for name in ["run/state", "image/bin", "image/proc", "image/dev", "image/tmp", "image/mnt"] {
            layout::directory(&tree.join(name))?;
        }
        for (from, to) in [(&env, starter(who)), (&busybox, tree.join("image/bin/busybox"))] {
            let program = fs::read(from).with_context(|| format!("read {}", from.display()))?;
            layout::program(&to, &program)?;
        }
    }
    layout::file(Path::new(SECRET), b"a key\n")
}

/// Runs a script in a container that also shows the directory of the secret.
fn contained(who: Identity, script: &str) -> io::Result<String> {
    let tree = tree(who);
    let name = format!("box-{}", std::process::id());
    let bundle = tree.join("run").join(&name);
    fs::create_dir_all(&bundle)?;
    let tmpfs = |at: &str, options: &[&str]| {
        let kind = "tmpfs";
        json!({ "destination": at, "type": kind, "source": kind, "options": options })
    };
    let secrets = Path::new(SECRET).parent();
    let namespaces = ["pid", "ipc", "uts", "mount", "network"].map(|kind| json!({ "type": kind }));
    let config = json!({
        "ociVersion": "1.0.0",
        "process": {
            "terminal": false,
            "user": { "uid": 0, "gid": 0 },
            "args": ["/bin/busybox", "sh", "-euc", script],
            "env": ["PATH=/bin"],
            "cwd": "/",
            "noNewPrivileges": true,
            "capabilities": { "bounding": [], "effective": [], "permitted": [] },
        },
        "root": { "path": tree.join("image"), "readonly": true },
        "hostname": "box",
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc" },
            tmpfs("/dev", &["nosuid", "mode=755"]),
            { "destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["newinstance"] },
            tmpfs("/dev/shm", &["mode=1777"]),
            tmpfs("/tmp", &["mode=1777"]),
            { "destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue" },
            { "destination": "/mnt", "source": secrets, "options": ["rbind", "ro"] },
        ],
        "linux": {
            "namespaces": namespaces,
            "maskedPaths": ["/proc/kcore"],
            "readonlyPaths": ["/proc/sys"],
        },
    });
    fs::write(bundle.join("config.json"), config.to_string())?;
    let state = tree.join("run/state").display().to_string();
    let words = ["/usr/bin/crun", "--root", &state, "--cgroup-manager=disabled", "run", "--bundle"];
    let at = bundle.display().to_string();
    let words = [&words[..], &[&at, &name]].concat();
    let said = run(command(&starter(who).display().to_string(), &words, &bundle), &[]);
    fs::remove_dir_all(&bundle)?;
    said
}

/// What a job does in a container: throws output away, has temporary files, looks at itself.
const WORK: &str = "
echo lost >/dev/null
echo shared >/dev/shm/block
read line </dev/shm/block
test \"$line\" = shared
echo x >/tmp/x
busybox ls / /tmp >/dev/null
busybox grep -q ^Pid: /proc/self/status
test $$ = 1
echo done";

fn a_container_needs_crun(case: &Case<'_>) -> Result<()> {
    let work = |who: Identity| match contained(who, WORK)?.as_str() {
        "done\n" => Ok(()),
        said => Err(io::Error::other(said.to_owned())),
    };
    case.allowed(WITH, || work(WITH)).context("with container/crun")?;
    let refused = refusal(WITHOUT, "exec").at("bin/crun").only_labelled();
    case.refused(refused, || work(WITHOUT)).context("without container/crun")
}

fn what_is_denied_outside_is_denied_in_a_container(case: &Case<'_>) -> Result<()> {
    // By the name under which the container has it.
    let refused = refusal(WITH, "file.read").at(SECRET).only_labelled();
    case.refused(refused, || contained(WITH, "busybox cat /mnt/id_ed25519").map(drop))
}

fn a_program_copied_into_a_container_is_not_executed(case: &Case<'_>) -> Result<()> {
    let refused = refusal(WITH, "exec").at("/busybox").only_labelled();
    case.refused(refused, || {
        contained(WITH, "busybox cp /bin/busybox /tmp/busybox; /tmp/busybox true").map(drop)
    })
}
