//! What is taken for a program: copies, mounts over it, registered formats, forged arguments, 32-bit code,
//! overlays.

use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use nix::libc;
use nix::mount::{MsFlags, mount};
use nix::sched::CloneFlags;

use crate::attempt::{Outcome, attempt};
use crate::bundle::{Bundle, permit, within};
use crate::case::{Case, NotHere, refusal};
use crate::elf::Call;
use crate::family::{Part, tests};
use crate::identity::{fork, own_user_namespace};
use crate::layout::{self, ROOT, canary, path};
use crate::network::bytes;
use crate::raw::{self, Arguments};
use crate::users::{AGENT, CHROOT, FREE};
use crate::{elf, exec, step};

pub(crate) const PART: Part = Part {
    name: "image",
    bundle,
    prepare,
    tests: tests!(
        others: [
            a_copy_of_a_program_is_another_program,
            a_program_mounted_over_a_permitted_one_is_refused,
            a_program_registered_for_a_format_is_refused,
            arguments_change_nothing,
            a_32_bit_program_is_judged_like_any_other,
            a_program_on_an_overlay_is_judged_by_the_name_used,
        ],
    ),
};

/// A TCP port that only these tests use.
const PORT: u16 = 7051;
const GOOD: Ipv4Addr = Ipv4Addr::new(127, 50, 0, 1);
const BAD: Ipv4Addr = Ipv4Addr::new(127, 51, 0, 1);

const BINFMT: &str = "/proc/sys/fs/binfmt_misc";
/// The overlay of the guest whose layers lie on ext4, and its lower layer.
const OVERLAY: &str = "/scratch/overlay/gt";
const LOWER: &str = "/scratch/ext4/layers/lower/gt";

/// A program that may run, at a place where the subject may write as well.
fn permitted() -> PathBuf {
    path("image/run/program")
}

/// One that may not.
fn denied() -> PathBuf {
    path("image/data/program")
}

fn prepare() -> Result<()> {
    layout::create()?;
    for directory in ["image/run", "image/data", "image/copies", "image/root/image/run", "image/mnt"] {
        layout::directory(&path(directory))?;
    }
    for program in [permitted(), denied(), path("image/root/image/run/program")] {
        layout::program(&program, &elf::exits_with(0))?;
    }
    let address = |ip: Ipv4Addr| -> Result<[u8; 16]> {
        bytes(SocketAddr::new(ip.into(), PORT)).try_into().ok().context("an IPv4 address has 16 bytes")
    };
    let (secret, notes) = (canary(ROOT).display().to_string(), path("open/notes").display().to_string());
    let (bad, good) = (denied().display().to_string(), permitted().display().to_string());
    for (name, call) in [
        ("open-bad", Call::Open(&secret)),
        ("open-good", Call::Open(&notes)),
        ("execute-bad", Call::Execute(&bad)),
        ("execute-good", Call::Execute(&good)),
        ("connect-bad", Call::Connect(address(BAD)?)),
        ("connect-good", Call::Connect(address(GOOD)?)),
    ] {
        layout::program(&path("image/run").join(name), &elf::i386(call))?;
    }
    std::mem::forget(TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).context("listen")?);
    for name in ["bad-format", "good-format"] {
        layout::program(&path("image/run").join(name), format!("guard-tests {name}\n").as_bytes())?;
    }
    // Made below the overlay before anybody looks there, so that the overlay shows them.
    for tree in ["run", "data"] {
        let program = Path::new(LOWER).join("image").join(tree).join("program");
        if !program.exists() {
            layout::program(&program, &elf::exits_with(0))?;
        }
    }
    Ok(())
}

fn bundle(bundle: Bundle) -> Result<Bundle> {
    let overlay = Path::new(OVERLAY).join("image");
    let run = within(&[path("image/run"), overlay.join("run")]);
    let data = within(&[path("image/data"), path("image/copies"), overlay.join("data")]);
    let good = format!("resource in Guard::Net::\"{GOOD}/32\"");
    let policy = permit("image-run", "agent", &["file.*", "exec.*"], &run)
        + &permit("image-data", "agent", &["file.*"], &data)
        + &permit("image-connect", "agent", &["net.connect"], &good);
    Ok(bundle.policy("image", policy))
}

fn run(program: impl AsRef<Path>) -> io::Result<()> {
    step::result(Command::new(program.as_ref()).status()?)
}

/// A way to make a program of one's own.
type Make = fn(&Path) -> io::Result<()>;

fn a_copy_of_a_program_is_another_program(case: &Case<'_>) -> Result<()> {
    let copy = path("image/copies/program");
    let ways: [(&str, Make); 4] = [
        ("a copy", |copy| fs::copy(permitted(), copy).map(drop)),
        ("a copy with another byte", |copy| {
            fs::copy(permitted(), copy)?;
            io::Write::write_all(&mut File::options().append(true).open(copy)?, b"x")
        }),
        ("a hard link", |copy| fs::hard_link(permitted(), copy)),
        ("a file of one's own", |copy| {
            fs::write(copy, elf::exits_with(0))?;
            fs::set_permissions(copy, std::os::unix::fs::PermissionsExt::from_mode(0o755))
        }),
    ];
    for (way, make) in ways {
        let _ = fs::remove_file(&copy);
        // Made by the runner: what is tried is executing it.
        make(&copy).context(way)?;
        case.refused(refusal(AGENT, "exec").at("image/copies/program"), || run(&copy)).context(way)?;
    }
    fs::remove_file(&copy).context("remove the copy")?;
    std::os::unix::fs::symlink(denied(), &copy).context("make a link")?;
    case.refused(refusal(AGENT, "exec").at("image/data/program"), || run(&copy)).context("a link")?;
    fs::remove_file(&copy).context("remove the link")?;
    std::os::unix::fs::symlink(permitted(), &copy).context("make a link")?;
    case.allowed(AGENT, || run(&copy))
}

fn a_program_mounted_over_a_permitted_one_is_refused(case: &Case<'_>) -> Result<()> {
    const NONE: Option<&str> = None;
    let bound = |from: &Path| {
        own_user_namespace(CloneFlags::CLONE_NEWNS)?;
        mount(Some(from), &permitted(), NONE, MsFlags::MS_BIND, NONE)?;
        run(permitted())
    };
    case.refused(refusal(AGENT, "exec").at("image/data/program"), || bound(&denied()))?;
    let other = path("image/run/other");
    layout::program(&other, &elf::exits_with(0))?;
    case.allowed(AGENT, || bound(&other))?;
    // A tree that looks like the host's to whoever has it as root.
    let agent = AGENT.with(CHROOT);
    case.refused(refusal(agent, "exec").at("image/root/image/run/program"), || {
        nix::unistd::chroot(&path("image/root"))?;
        run("/image/run/program")
    })?;
    case.allowed(agent, || {
        nix::unistd::chroot(&path("image/run"))?;
        run("/program")
    })
}

/// Has the kernel run programs that begin with a text by an interpreter.
fn register(name: &str, interpreter: &Path) -> Result<()> {
    let entry = Path::new(BINFMT).join(name);
    if entry.exists() {
        fs::write(&entry, "-1").context("remove the old format")?;
    }
    let rule = format!(":{name}:M::guard-tests {name}::{}:", interpreter.display());
    fs::write(Path::new(BINFMT).join("register"), rule).context("register a format")
}

fn a_program_registered_for_a_format_is_refused(case: &Case<'_>) -> Result<()> {
    if !Path::new(BINFMT).join("register").exists() {
        layout::run("modprobe", &["binfmt_misc"])?;
        mount(Some("none"), BINFMT, Some("binfmt_misc"), MsFlags::empty(), None::<&str>)
            .context("mount binfmt_misc")?;
    }
    register("bad-format", &denied())?;
    register("good-format", &permitted())?;
    let formatted = |name: &str| run(path("image/run").join(name));
    case.refused(refusal(AGENT, "exec").at("image/data/program"), || formatted("bad-format"))?;
    case.allowed(AGENT, || formatted("good-format"))?;
    // Registering is writing to a file.
    layout::mode(&Path::new(BINFMT).join("register"), 0o222)?;
    let result = case.refused(refusal(AGENT, "file.write").at("/register"), || {
        File::options().write(true).open(Path::new(BINFMT).join("register")).map(drop)
    });
    for name in ["bad-format", "good-format"] {
        fs::write(Path::new(BINFMT).join(name), "-1").context("remove the format")?;
    }
    result
}

fn arguments_change_nothing(case: &Case<'_>) -> Result<()> {
    for arguments in [Arguments::None, Arguments::Many, Arguments::Forgotten] {
        let context = || format!("arguments: {arguments:?}");
        let execute =
            |program: PathBuf| exec::run_in_child(fork, || Err(raw::execve_with(&program, arguments)));
        let refused = refusal(AGENT, "exec").at("image/data/program");
        case.refused(refused, || execute(denied())).with_context(context)?;
        case.allowed(AGENT, || execute(permitted())).with_context(context)?;
    }
    Ok(())
}

fn a_32_bit_program_is_judged_like_any_other(case: &Case<'_>) -> Result<()> {
    let program = |name: &str| run(path("image/run").join(name));
    if attempt(FREE, || program("open-good"))? == Outcome::Failed(nix::errno::Errno::ENOEXEC) {
        return Err(NotHere("this kernel runs no 32-bit programs".to_owned()).into());
    }
    case.refused(refusal(AGENT, "file.read").at("shut/secret"), || program("open-bad"))?;
    case.allowed(AGENT, || program("open-good"))?;
    case.refused(refusal(AGENT, "exec").at("image/data/program"), || program("execute-bad"))?;
    case.allowed(AGENT, || program("execute-good"))?;
    let refused = refusal(AGENT, "net.connect").at(format!("{BAD}:{PORT}"));
    case.refused(refused, || program("connect-bad"))?;
    case.allowed(AGENT, || program("connect-good"))
}

fn a_program_on_an_overlay_is_judged_by_the_name_used(case: &Case<'_>) -> Result<()> {
    let on_overlay = |tree: &str| Path::new(OVERLAY).join("image").join(tree).join("program");
    let below = |tree: &str| Path::new(LOWER).join("image").join(tree).join("program");
    ensure!(on_overlay("run").exists(), "the overlay does not show what lies in its lower layer");
    let map = |file: PathBuf| {
        let protection = libc::PROT_READ | libc::PROT_EXEC;
        raw::map_page(Some(File::open(file)?.as_fd()), protection)
    };
    case.refused(refusal(AGENT, "exec").at("gt/image/data/program"), || run(on_overlay("data")))?;
    case.refused(refusal(AGENT, "exec.map").at("gt/image/data/program"), || map(on_overlay("data")))?;
    case.allowed(AGENT, || run(on_overlay("run")))?;
    case.allowed(AGENT, || map(on_overlay("run")))?;
    // The layer's own file has another name.
    case.refused(refusal(AGENT, "exec").at("lower/gt/image/run/program"), || run(below("run")))
}
