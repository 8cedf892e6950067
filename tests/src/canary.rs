//! The agent never says that it enforces unless its own programs decide: the start-up check, when
//! something is broken.

use anyhow::{Context, Result, ensure};

use crate::bpf::Foreign;
use crate::case::Case;
use crate::daemon::Daemon;
use crate::family::{Part, tests};
use crate::lifecycle::{prepare, small};
use crate::requirements::daemon_refuses;

pub(crate) const PART: Part = Part {
    name: "canary",
    bundle: Ok,
    prepare,
    tests: tests!(
        others: [
            a_program_that_is_not_attached_is_noticed,
            a_policy_that_is_not_live_is_noticed,
            what_another_module_refuses_from_the_start_proves_nothing,
            what_another_module_refuses_later_proves_nothing,
            a_hook_that_others_fill_is_named,
        ],
    ),
};

/// More links than one hook can have: `BPF_MAX_TRAMP_LINKS` (include/linux/bpf.h) is 38, and the code that
/// calls them must fit into a page.
const MANY: usize = 64;
/// How the child of the start-up check is called, because it is executed as /proc/self/exe.
const CHILD: [u8; 4] = *b"exe\0";

fn refuses(fault: Option<&str>, wanted: &[&str]) -> Result<()> {
    daemon_refuses(&[], fault, wanted)
}

fn a_program_that_is_not_attached_is_noticed(case: &Case<'_>) -> Result<()> {
    let programs = [
        ("file_open", "file.read"),
        ("socket_connect", "net.connect"),
        ("unix_stream_connect", "unix.connect"),
    ];
    for (program, action) in &programs[..if case.full { 3 } else { 1 }] {
        let said = format!("the kernel does not enforce: {action}");
        refuses(Some(program), &[&said]).context(*program)?;
    }
    Ok(())
}

fn a_policy_that_is_not_live_is_noticed(_: &Case<'_>) -> Result<()> {
    // Labelled tasks are refused everything then, with the same errno.
    refuses(Some("LIVE"), &["the kernel does not enforce the policy", "no-generation"])
}

fn what_another_module_refuses_from_the_start_proves_nothing(_: &Case<'_>) -> Result<()> {
    let _foreign = Foreign::denying("socket_connect", CHILD, 0)?;
    refuses(None, &["proves nothing: net.connect already fails without Guard"])
}

fn what_another_module_refuses_later_proves_nothing(_: &Case<'_>) -> Result<()> {
    // Both connections of the first round are spared; in the second, the other module answers with the
    // very errno that is expected, in the place of a program that is not there.
    let _foreign = Foreign::denying("socket_connect", CHILD, 2)?;
    refuses(Some("socket_connect"), &["net.connect was refused, but not by Guard's own program"])
}

fn a_hook_that_others_fill_is_named(_: &Case<'_>) -> Result<()> {
    let mut others = Vec::new();
    while let Some(other) = Foreign::harmless_if_there_is_room("unix_may_send")? {
        others.push(other);
        ensure!(others.len() < MANY, "a hook takes {MANY} programs");
    }
    refuses(None, &["hook unix_may_send is full", "bpftool link list"])?;
    // With room again it starts.
    others.truncate(others.len() - 2);
    Daemon::start_apart("canary", &small(1, &[]))?.stop().map(drop)
}
