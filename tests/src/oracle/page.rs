//! `docs/oracle.md`.

use std::fmt::Write as _;

use crate::differences::{Effect, TABLE};

const INTRODUCTION: &str = "\
# Guard beside Landlock

<!-- Made from tests/src/oracle; do not edit. To write it again: GUARD_BLESS=1 cargo test -p guard-tests the_page_lists -->

Landlock is the kernel's own way to confine a process, and has rules about files and TCP ports as Guard has. It was written by
others and is tested by others, so it can judge Guard: `cargo xtask oracle` makes random operations under a random rule set
of Landlock and under the translation of the rule set to a bundle, and compares.

| | |
|---|---|
| `cargo xtask oracle --kernel 6.12 --ops 100000` | compares so many operations in a guest; `--kernel all` on every series |
| `--seed X`, `--seed X --round N` | repeats a run, or one round of it |
| `--plant` | takes a right away from some rules in the translation only: there must be differences |

A round is a random tree on a tmpfs, on ext4 or on an overlay, a random rule set for it, and a hundred operations: open with
all its flags, reading, writing, truncating and ioctl of what was opened, truncate, readdir, mkdir, rmdir, unlink, symlink,
mknod of every kind, bind of a unix socket, link, rename, exchange, execution of programs, scripts and programs with an interpreter, bind and
connect of TCP. Three processes make each operation, one after the other, each in a tree of its own: one that nothing restricts, one under
Landlock, one with a label. What is compared: the error numbers of both calls, whether an open that creates has created,
and after the round names, kinds, modes, sizes, contents, links and devices of the three trees. Where they answer differently the trees are made equal
again, so that every operation is made in the same state. Each round first tries something that both must deny and the first process may do.

The last line is `N operations, N unexplained differences`. Tables before it count, by operation, what was allowed, denied by
both, explained, and what the kernel fails for everybody; and by right, how often it was given where an operation needed it, and how often it was
missing. In a run of 20 000 operations or more, a right that was never given or never missing is a failure.

## Translation
What Landlock *handles* is what the subject *governs*. A rule for a directory is about the directory and what is below it; rights to make and
remove belong to the directory that something is in, so the literal itself is excepted.

| Landlock | asked of | Guard | asked of |
|---|---|---|---|
| READ_FILE | the file | `file.read` | the file |
| WRITE_FILE | the file | `file.write`, `file.append` | the file |
| TRUNCATE (since 6.2) | the file | `file.truncate` | the file |
| EXECUTE with READ_FILE, which Landlock asks for as well | the program | `exec`, `exec.map` | the program |
| READ_DIR | the directory | `dir.list` | the directory |
| IOCTL_DEV (since 6.10) | the device | `file.ioctl`, which is permitted on what is no device | the device |
| MAKE_REG | its directory | `file.create` of what is no socket | the new name |
| MAKE_SOCK | its directory | `unix.bind`; `file.create` of what is a socket | the new name |
| MAKE_SYM, MAKE_DIR | its directory | `file.symlink`, `dir.create` | the new name |
| MAKE_CHAR, MAKE_BLOCK, MAKE_FIFO | its directory | `file.mknod` by `resource.kind` | the new name |
| REMOVE_FILE, REMOVE_DIR | its directory | `file.remove`, `dir.remove` | the name |
| REFER with REMOVE_FILE or REMOVE_DIR | its directory | `file.rename` of a file or of a directory | the old name |
| REFER | both directories | `file.link` | the old name |
| BIND_TCP, CONNECT_TCP (since 6.7) | the port | `net.bind`, `net.connect` where the protocol is tcp; others are permitted | the address |

Not translated: what Landlock has for signals, unix sockets and UDP.

## Explained differences
A difference is explained only if both answers are exactly what a model of each side foretells
(`tests/src/oracle/model.rs`) and the condition of an entry holds; the first that holds is counted.
";

/// The page.
pub(crate) fn text() -> String {
    let mut text = INTRODUCTION.to_owned();
    text.push_str("\n| name | effect | when | why |\n|---|---|---|---|\n");
    for difference in TABLE {
        let effect = difference.effect.words();
        let _ = writeln!(
            text,
            "| `{}` | {effect} | {} | {} |",
            difference.name, difference.when, difference.reason
        );
    }
    let wider = TABLE.iter().filter(|difference| difference.effect == Effect::Wider).count();
    let _ = write!(
        text,
        "\nIn {wider} of them Guard allows what Landlock denies; in the first, which of both allows more depends on what was renamed.\n"
    );
    text
}

#[test]
fn the_page_lists_every_difference() {
    let page = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/oracle.md");
    if std::env::var_os("GUARD_BLESS").is_some() {
        std::fs::write(&page, text()).unwrap();
    }
    assert!(
        std::fs::read_to_string(&page).unwrap_or_default() == text(),
        "docs/oracle.md is not what the table says: GUARD_BLESS=1 cargo test -p guard-tests the_page_lists"
    );
}
