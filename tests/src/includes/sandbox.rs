//! bubblewrap, with the command lines of coding agents.

use std::io;
use std::path::Path;

use anyhow::{Result, ensure};

use super::{SCRIPT, Twins, add_all, command, run};
use crate::bundle::{Bundle, one_of, permit, within};
use crate::case::{Case, refusal};
use crate::family::{Part, tests};
use crate::users::Identity;

pub(crate) const TWINS: &[Twins] = &[BUBBLEWRAP];

const BUBBLEWRAP: Twins =
    Twins::new(40, "sandbox/bubblewrap", SCRIPT, ["inc-bubblewrap", "inc-bubblewrap-less"]);
/// May execute bubblewrap and do what it did before it had a tmpfs of its own.
pub(crate) const WITHOUT_TMPFS: Identity = Identity::new("inc-bubblewrap-no-tmpfs", 2199);

/// A file that file modes let everybody write to.
const OUTSIDE: &str = "/srv/inc-outside/file";

pub(crate) const PART: Part = Part {
    name: "includes-sandbox",
    bundle,
    prepare,
    tests: tests!(
        others: [
            a_sandbox_over_the_whole_root_needs_bubblewrap,
            a_sandbox_that_hides_places_needs_bubblewrap,
            a_sandbox_of_parts_needs_bubblewrap,
            a_sandbox_needs_a_tmpfs_of_its_own,
            what_is_denied_outside_is_denied_in_a_sandbox,
            a_program_copied_into_a_sandbox_is_not_executed,
        ],
    ),
};

fn bundle(bundle: Bundle) -> Result<Bundle> {
    let name = WITHOUT_TMPFS.name;
    let includes: Vec<String> = SCRIPT.concat().iter().map(|include| format!("{include:?}")).collect();
    let facts = ["/proc/sys/kernel/overflowuid", "/proc/sys/kernel/overflowgid"];
    let policy = permit("exec", name, &["exec"], &one_of(&["/usr/bin/bwrap"]))
        + &permit("facts", name, &["file.read"], &one_of(&facts))
        + &permit("loopback", name, &["net.raw"], "resource == Guard::Protocol::\"netlink/route\"")
        + &permit("namespaces", name, &["sys.userns", "sys.mount", "sys.cap"], "true")
        + &permit("proc", name, &["file.*"], &within(&["guard:own-proc"]))
        + &permit("tree", name, &["file.*"], &within(&[Twins::tree(WITHOUT_TMPFS)]));
    let bundle = bundle
        .toml(&format!(
            "[subjects.{name}]\nselector = {{ user = {name:?} }}\ngoverns = [\"*\"]\ninclude = [{}]\n",
            includes.join(", ")
        ))
        .policy(name, policy);
    Ok(add_all(bundle, TWINS, &[]))
}

fn prepare() -> Result<()> {
    ensure!(Path::new("/usr/bin/bwrap").is_file(), "this guest has no /usr/bin/bwrap: install bubblewrap");
    crate::layout::empty_directory(&Twins::tree(WITHOUT_TMPFS))?;
    TWINS.iter().try_for_each(Twins::prepare)
}

/// Everything can be seen, and the work tree changed: Codex.
fn whole_root(tree: &str) -> Vec<String> {
    words(&[
        "--new-session --die-with-parent --ro-bind / / --dev /dev --proc /proc --bind",
        tree,
        tree,
        "--unshare-user --unshare-pid --unshare-net",
    ])
}

/// Directories and files that are not to be seen are covered: Claude Code's sandbox runtime.
fn hiding(tree: &str) -> Vec<String> {
    words(&[
        "--new-session --die-with-parent --unshare-net --ro-bind / / --bind",
        tree,
        tree,
        "--tmpfs /home --ro-bind /dev/null /etc/machine-id --dev /dev --unshare-pid --proc /proc",
    ])
}

/// A root made of parts, with links and a place for temporary files.
fn parts(tree: &str) -> Vec<String> {
    words(&[
        "--unshare-all --die-with-parent --ro-bind /usr /usr --ro-bind /etc /etc --symlink usr/bin /bin",
        "--symlink usr/lib /lib --symlink usr/lib64 /lib64 --tmpfs /tmp --dev /dev --proc /proc --bind",
        tree,
        tree,
        "--setenv TMPDIR /tmp",
    ])
}

fn words(parts: &[&str]) -> Vec<String> {
    parts.iter().flat_map(|part| part.split_whitespace()).map(str::to_owned).collect()
}

/// Runs a script in a sandbox.
fn sandboxed(tree: &Path, sandbox: &[String], script: &str) -> io::Result<String> {
    let mut all: Vec<&str> = sandbox.iter().map(String::as_str).collect();
    all.extend(["--", "/usr/bin/bash", "-euo", "pipefail", "-c", script]);
    run(command("/usr/bin/bwrap", &all, tree), &[])
}

/// What a coding agent does in a sandbox: reads and writes the work tree, throws output away, has temporary
/// files, looks at itself.
const WORK: &str = "
echo made >out
test \"$(cat out)\" = made
rm out
echo lost >/dev/null
echo shared >/dev/shm/block
test \"$(cat <(cat /dev/shm/block))\" = shared
grep -q '^Pid:' /proc/self/status
test $$ -lt 10
echo done";

fn works(tree: &Path, sandbox: fn(&str) -> Vec<String>, more: &str) -> io::Result<()> {
    let said = sandboxed(tree, &sandbox(&tree.display().to_string()), &format!("{WORK}\n{more}"))?;
    if said.starts_with("done\n") { Ok(()) } else { Err(io::Error::other(said)) }
}

fn does_and_needs(case: &Case<'_>, sandbox: fn(&str) -> Vec<String>, more: &str) -> Result<()> {
    BUBBLEWRAP.does(case, |tree| works(tree, sandbox, more))?;
    BUBBLEWRAP.needs(case, "exec", "bin/bwrap", |tree| works(tree, sandbox, more))
}

fn a_sandbox_over_the_whole_root_needs_bubblewrap(case: &Case<'_>) -> Result<()> {
    does_and_needs(case, whole_root, "")
}

fn a_sandbox_that_hides_places_needs_bubblewrap(case: &Case<'_>) -> Result<()> {
    does_and_needs(case, hiding, "test -z \"$(ls /home)\"; test -z \"$(cat /etc/machine-id)\"")
}

fn a_sandbox_of_parts_needs_bubblewrap(case: &Case<'_>) -> Result<()> {
    does_and_needs(case, parts, "echo x >/tmp/x; ls / /tmp; mkdir -p /tmp/a/b; mktemp; find /tmp")
}

fn a_sandbox_needs_a_tmpfs_of_its_own(case: &Case<'_>) -> Result<()> {
    for sandbox in [whole_root, parts] {
        // The first directory it makes on the tmpfs that becomes its root.
        case.refused(refusal(WITHOUT_TMPFS, "dir.create").at("/newroot"), || {
            works(&Twins::tree(WITHOUT_TMPFS), sandbox, "")
        })?;
    }
    Ok(())
}

fn what_is_denied_outside_is_denied_in_a_sandbox(case: &Case<'_>) -> Result<()> {
    BUBBLEWRAP.keeps_the_secret(case, |tree, secret| {
        sandboxed(tree, &whole_root(&tree.display().to_string()), &format!("cat {secret}")).map(drop)
    })?;
    // The same file where the sandbox shows it under another name.
    for sandbox in [whole_root, hiding, parts] {
        BUBBLEWRAP.keeps_the_secret(case, |tree, secret| {
            let elsewhere = words(&["--ro-bind", secret, "/dev/shm/notes"]);
            let sandbox = [sandbox(&tree.display().to_string()), elsewhere].concat();
            sandboxed(tree, &sandbox, "cat /dev/shm/notes").map(drop)
        })?;
    }
    // And a file that may not be written to.
    let outside = Path::new(OUTSIDE);
    crate::layout::file(outside, b"outside\n")?;
    case.refused(refusal(BUBBLEWRAP.with, "file.write").at(OUTSIDE), || {
        let tree = Twins::tree(BUBBLEWRAP.with);
        let parent = outside.parent().unwrap_or(outside).display().to_string();
        let sandbox = [whole_root(&tree.display().to_string()), words(&["--bind", &parent, "/mnt"])].concat();
        sandboxed(&tree, &sandbox, "echo x >/mnt/file").map(drop)
    })
}

fn a_program_copied_into_a_sandbox_is_not_executed(case: &Case<'_>) -> Result<()> {
    for (sandbox, copy) in [(whole_root as fn(&str) -> Vec<String>, "/dev/shm/copy"), (parts, "/tmp/copy")] {
        case.refused(refusal(BUBBLEWRAP.with, "exec").at("/copy"), || {
            let tree = Twins::tree(BUBBLEWRAP.with);
            let script = format!("cp /usr/bin/bash {copy}; {copy} -c 'echo executed'");
            sandboxed(&tree, &sandbox(&tree.display().to_string()), &script).map(drop)
        })?;
    }
    Ok(())
}
