//! Signed programs: what is executed is what somebody signed, byte for byte, or it is not executed.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, bail, ensure};
use guard_agent::artifact::{Artifact, ArtifactList, DIRECTORY, digest_of};
use guard_agent::bundle::PrivateKey;
use nix::errno::Errno;
use nix::libc;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::ForkResult;

use crate::attempt::{Outcome, attempt, eventually};
use crate::bundle::{Bundle, one_of, permit, within};
use crate::case::{Case, NotHere, Refusal, refusal};
use crate::exec::run_in_child;
use crate::family::{Part, tests};
use crate::fuse::Fuse;
use crate::identity::fork;
use crate::layout::{self, EMPTY, TREES, in_all_trees, path};
use crate::lifecycle::output;
use crate::users::{AGENT, FREE};
use crate::{elf, raw, step};

pub(crate) const PART: Part = Part {
    name: "signed",
    bundle,
    prepare,
    tests: tests!(
        smoke: [a_program_runs_only_as_it_was_signed],
        others: [
            what_replaces_a_signed_program_or_is_copied_over_it_is_refused,
            a_program_that_is_rewritten_while_others_execute_it_runs_only_as_it_was_signed,
            of_a_file_whose_content_is_not_held_nobody_can_tell_the_signers,
            a_script_that_only_its_signature_would_allow_is_refused,
            an_interpreter_runs_only_as_it_was_signed,
            a_signature_on_an_elf_interpreter_allows_nothing,
            a_forbid_for_a_signer_counts_where_nobody_can_tell,
            who_signed_is_shown_and_explained,
            a_list_counts_from_when_it_is_there_until_it_is_gone,
        ],
    ),
};

/// File systems that hold what they have: on them the digest of a program is taken.
const HOLDING: [&str; 5] = ["tmpfs", "ext4", "xfs", "btrfs", "btrfs subvolume"];
/// Where a FUSE file system is mounted.
const FUSE: &str = "/scratch/fuse";
/// What a program that nobody signed ends with.
const CHANGED: u8 = 42;
/// How often a program is executed while it is rewritten.
const ROUNDS: u32 = 300;
const ALL_ROUNDS: u32 = 3000;

/// The keys that the bundle knows, and one that it does not.
struct Keys {
    release: PrivateKey,
    recalled: PrivateKey,
    strange: PrivateKey,
}

fn keys() -> Result<&'static Keys> {
    static KEYS: OnceLock<Keys> = OnceLock::new();
    if let Some(keys) = KEYS.get() {
        return Ok(keys);
    }
    let new = || PrivateKey::generate().context("make a key");
    let keys = Keys { release: new()?, recalled: new()?, strange: new()? };
    Ok(KEYS.get_or_init(|| keys))
}

/// The FUSE file system, from before the agent starts: what is mounted later is known to no policy.
static SERVED: OnceLock<Result<Fuse>> = OnceLock::new();

fn tree(kind: &str) -> PathBuf {
    TREES.iter().find(|(name, _)| *name == kind).map_or_else(PathBuf::new, |(_, root)| root.into())
}

/// Directories in which only signed programs may run.
fn signed() -> Vec<PathBuf> {
    in_all_trees("signed")
}

/// A directory in which every program may run that was not recalled.
fn free() -> PathBuf {
    tree("ext4").join("free")
}

fn on_ext4(name: &str) -> PathBuf {
    tree("ext4").join("signed").join(name)
}

fn good() -> Vec<u8> {
    elf::exits_with(0)
}

fn prepare() -> Result<()> {
    layout::create()?;
    for directory in signed() {
        layout::directory(&directory)?;
        layout::program(&directory.join("program"), &good())?;
    }
    layout::program(&free().join("program"), &good())?;
    layout::program(&path("signed-not/interpreter"), &elf::interpreter())?;
    layout::directory(Path::new(DIRECTORY))?;
    layout::mode(Path::new(DIRECTORY), 0o755)?;
    for entry in fs::read_dir(DIRECTORY).context("list the artifact lists")? {
        fs::remove_file(entry.context("list the artifact lists")?.path()).context("remove a list")?;
    }
    list("release", &keys()?.release, &[&good()])?;
    SERVED.get_or_init(|| Fuse::mount(Path::new(FUSE), &good()));
    Ok(())
}

/// Puts a list of these contents, signed by `key`, where the agent finds it.
fn list(name: &str, key: &PrivateKey, contents: &[&[u8]]) -> Result<()> {
    let mut artifacts = Vec::new();
    let scratch = Path::new("/run/guard-tests-artifact");
    for content in contents {
        fs::write(scratch, content).context("write what is signed")?;
        artifacts.push(Artifact { digest: digest_of(scratch)?, name: name.to_owned() });
    }
    place(name, ArtifactList::sign(&artifacts, key)?.as_bytes())
}

/// The same by `release`, with what tells that the agent has seen it.
fn list_seen(case: &Case<'_>, name: &str, content: &[u8]) -> Result<()> {
    let (marker, marking) = (on_ext4(&format!("marker-{name}")), [good(), name.as_bytes().to_vec()].concat());
    layout::program(&marker, &marking)?;
    list(name, &keys()?.release, &[content, &marking])?;
    until(case, &marker, Outcome::Worked)
}

/// Puts a list there in one step.
fn place(name: &str, text: &[u8]) -> Result<()> {
    let temporary = Path::new(DIRECTORY).join(format!(".{name}"));
    fs::write(&temporary, text).context("write a list")?;
    layout::mode(&temporary, 0o644)?;
    fs::rename(&temporary, list_path(name)).context("name a list")
}

fn list_path(name: &str) -> PathBuf {
    Path::new(DIRECTORY).join(format!("{name}.artifacts"))
}

fn bundle(bundle: Bundle) -> Result<Bundle> {
    let keys = keys()?;
    let by_release = |places: &str| format!("({places}) && resource.signed_by.contains(\"release\")");
    let mut places = signed();
    places.push(FUSE.into());
    let policy = permit("signed", "agent", &["exec"], &by_release(&within(&places)))
        + &permit("memfd", "agent", &["exec"], &by_release(&within(&["guard:own-anonymous"])))
        + &permit("files", "agent", &["file.*", "dir.list"], &within(&places))
        + &permit(
            "not-recalled",
            "agent",
            &["exec"],
            &format!("{} && !resource.signed_by.contains(\"recalled\")", within(&[free()])),
        )
        + &permit("free", "agent", &["file.*"], &within(&[free()]))
        + &permit(
            "plain",
            "agent",
            &["file.read", "exec"],
            &one_of(&["script", "interpreter"].map(|name| path("signed-not").join(name))),
        );
    Ok(bundle
        .toml(&format!(
            "[signers]\nrelease = {{ key = \"{}\" }}\nrecalled = {{ key = \"{}\" }}\n",
            keys.release.public(),
            keys.recalled.public()
        ))
        .subject("agent", "user = \"agent\"")
        .policy("signed", policy))
}

fn run(program: impl AsRef<Path>) -> io::Result<()> {
    step::result(Command::new(program.as_ref()).status()?)
}

fn refused_at(place: &str) -> Refusal {
    refusal(AGENT, "exec").at(place)
}

/// Nobody can tell who signed it.
fn untold(place: &str) -> Refusal {
    refused_at(place).because("signers-unknown")
}

/// What the family's agent makes of a change of the lists is waited for.
fn until(case: &Case<'_>, program: &Path, wanted: Outcome) -> Result<()> {
    if case.daemon().is_none() {
        return Ok(());
    }
    eventually(&format!("{} ends with {wanted:?}", program.display()), || {
        Ok(attempt(AGENT, || run(program))? == wanted)
    })
}

fn a_program_runs_only_as_it_was_signed(case: &Case<'_>) -> Result<()> {
    for kind in HOLDING {
        let directory = tree(kind).join("signed");
        let program = directory.join("program");
        until(case, &program, Outcome::Worked)?;
        case.allowed(AGENT, || run(&program)).with_context(|| format!("the signed program on {kind}"))?;
        let longer = [good(), vec![0]].concat();
        for (name, content) in [("unsigned", [good(), b"another".to_vec()].concat()), ("longer", longer)] {
            layout::program(&directory.join(name), &content)?;
            case.refused(refused_at(&format!("signed/{name}")), || run(directory.join(name)))
                .with_context(|| format!("{name} on {kind}"))?;
        }
        // The same content has the same signers, whatever its name.
        layout::program(&directory.join("copy"), &good())?;
        case.allowed(AGENT, || run(directory.join("copy")))?;
    }
    Ok(())
}

fn what_replaces_a_signed_program_or_is_copied_over_it_is_refused(case: &Case<'_>) -> Result<()> {
    let program = on_ext4("replaced");
    let other = [good(), vec![1]].concat();
    layout::program(&program, &good())?;
    case.allowed(AGENT, || run(&program))?;
    layout::program(&on_ext4("new"), &other)?;
    fs::rename(on_ext4("new"), &program).context("put another file in its place")?;
    case.refused(refused_at("signed/replaced"), || run(&program))?;
    layout::program(&program, &good())?;
    case.allowed(AGENT, || run(&program))?;
    // The same file, with other content and as long as before: a byte that nothing reads (`e_ident`, elf(5)).
    let mut changed = good();
    changed[15] ^= 1;
    for content in [&other, &changed] {
        fs::write(&program, content).context("copy over it")?;
        case.refused(refused_at("signed/replaced"), || run(&program))?;
        fs::write(&program, good()).context("copy the signed content over it")?;
        case.allowed(AGENT, || run(&program))?;
    }
    Ok(())
}

/// Rewrites a program in place and exchanges it for another file, with the signed content and with another in
/// turn, until it is killed.
fn rewrite(program: &Path) -> io::Result<()> {
    let (good, bad) = (good(), elf::exits_with(CHANGED));
    let aside = program.with_extension("aside");
    loop {
        for content in [&bad, &good] {
            // Refused while somebody executes it.
            if let Ok(mut file) = File::options().write(true).open(program) {
                let _ = file.write_all(content);
            }
        }
        for content in [&bad, &good] {
            fs::write(&aside, content)?;
            fs::set_permissions(&aside, fs::Permissions::from_mode(0o755))?;
            fs::rename(&aside, program)?;
        }
    }
}

fn a_program_that_is_rewritten_while_others_execute_it_runs_only_as_it_was_signed(
    case: &Case<'_>,
) -> Result<()> {
    let program = on_ext4("raced");
    layout::program(&program, &good())?;
    let writer = match fork().context("fork")? {
        ForkResult::Child => {
            let _ = rewrite(&program);
            raw::exit_now(1)
        }
        ForkResult::Parent { child } => child,
    };
    let rounds = if case.full { ALL_ROUNDS } else { ROUNDS };
    let (guarded, program) = (case.daemon().is_some(), &program);
    let outcome = attempt(AGENT, || {
        let mut ran = 0;
        for _ in 0..rounds {
            match Command::new(program).status().map(|status| status.code()) {
                Ok(Some(0)) => ran += 1,
                Ok(Some(code)) if code == i32::from(CHANGED) => {
                    if guarded {
                        return Err(io::Error::other("what nobody signed ran"));
                    }
                    // Without Guard, this is how it goes.
                    return Ok(());
                }
                // Half of it was written, or it was being written, or it was refused.
                Ok(_) => {}
                Err(error)
                    if matches!(
                        error.raw_os_error(),
                        Some(libc::ETXTBSY | libc::EACCES | libc::ENOEXEC | libc::ENOENT)
                    ) => {}
                Err(error) => return Err(error),
            }
        }
        if guarded && ran > 0 { Ok(()) } else { Err(io::Error::other(format!("it ran {ran} times"))) }
    });
    let ended = kill(writer, Signal::SIGKILL).and_then(|()| waitpid(writer, None));
    ended.context("end the writer")?;
    case.tried(rounds.into());
    ensure!(outcome? == Outcome::Worked, "a race that was lost, or none");
    layout::program(program, &good())?;
    case.allowed(AGENT, || run(program))
}

fn of_a_file_whose_content_is_not_held_nobody_can_tell_the_signers(case: &Case<'_>) -> Result<()> {
    for kind in ["root overlay", "overlay on ext4"] {
        let program = tree(kind).join("signed/program");
        case.refused(untold("signed/program"), || run(&program)).with_context(|| format!("on {kind}"))?;
    }
    case.refused(refusal(AGENT, "exec").because("signers-unknown"), || {
        let memory = memfd_create("program", MFdFlags::empty())?;
        File::from(memory.try_clone()?).write_all(&good())?;
        run_in_child(fork, || raw::execveat(memory.as_fd(), EMPTY, libc::AT_EMPTY_PATH))
    })
    .context("in a memfd")?;
    let program = match SERVED.get() {
        Some(Ok(fuse)) => fuse.file(),
        other => {
            return Err(NotHere(format!("FUSE: {:?}", other.and_then(|served| served.as_ref().err()))).into());
        }
    };
    case.refused(untold("fuse/program"), || run(&program)).context("on FUSE")
}

fn a_script_that_only_its_signature_would_allow_is_refused(case: &Case<'_>) -> Result<()> {
    let script = on_ext4("script");
    let text = format!("#!{}\n", free().join("program").display());
    layout::program(&script, text.as_bytes())?;
    list_seen(case, "scripts", text.as_bytes())?;
    // Its interpreter may run by itself.
    case.allowed(AGENT, || run(free().join("program")))?;
    case.refused(refusal(AGENT, "exec").because("signers-unknown"), || run(&script))
}

fn an_interpreter_runs_only_as_it_was_signed(case: &Case<'_>) -> Result<()> {
    let interpreter = on_ext4("interpreter");
    layout::program(&interpreter, &good())?;
    let script = path("signed-not/script");
    layout::program(&script, format!("#!{}\n", interpreter.display()).as_bytes())?;
    case.allowed(AGENT, || run(&script))?;
    layout::program(&interpreter, &[good(), vec![2]].concat())?;
    case.refused(refused_at("signed/interpreter"), || run(&script))?;
    layout::program(&interpreter, &good())?;
    case.allowed(AGENT, || run(&script))
}

fn a_signature_on_an_elf_interpreter_allows_nothing(case: &Case<'_>) -> Result<()> {
    let (interpreter, program) = (on_ext4("elf-interpreter"), free().join("interpreted"));
    layout::program(&interpreter, &elf::interpreter())?;
    layout::program(&program, &elf::interpreted_by(&interpreter.display().to_string()))?;
    list_seen(case, "interpreters", &elf::interpreter())?;
    let ordinary = elf::interpreted_by(&path("signed-not/interpreter").display().to_string());
    layout::program(&free().join("ordinary"), &ordinary)?;
    case.allowed(AGENT, || run(free().join("ordinary")))?;
    // Nothing stands between the open of an interpreter and its use, so the process ends.
    let outcome = attempt(AGENT, || run(&program))?;
    match (case.daemon(), &outcome) {
        (None, Outcome::Worked) => Ok(()),
        (Some(_), Outcome::Broke(_) | Outcome::Failed(_)) => {
            let outcome = attempt(FREE, || run(&program))?;
            ensure!(outcome == Outcome::Worked, "an unlabelled process: {outcome:?}");
            Ok(())
        }
        _ => bail!("a program with an interpreter that is only signed: {outcome:?}"),
    }
}

fn a_forbid_for_a_signer_counts_where_nobody_can_tell(case: &Case<'_>) -> Result<()> {
    let program = free().join("recalled");
    let content = [good(), b"recalled".to_vec()].concat();
    layout::program(&program, &content)?;
    fs::remove_file(list_path("recalled")).or_else(|error| match error.kind() {
        io::ErrorKind::NotFound => Ok(()),
        _ => Err(error),
    })?;
    until(case, &program, Outcome::Worked)?;
    case.allowed(AGENT, || run(&program))?;
    list("recalled", &keys()?.recalled, &[&content])?;
    until(case, &program, Outcome::Failed(Errno::EACCES))?;
    case.refused(refused_at("free/recalled"), || run(&program))?;
    // A script could be made to do what was recalled.
    let script = free().join("script");
    layout::program(&script, format!("#!{}\n", free().join("program").display()).as_bytes())?;
    case.refused(refusal(AGENT, "exec").because("signers-unknown"), || run(&script))
}

fn who_signed_is_shown_and_explained(case: &Case<'_>) -> Result<()> {
    let Some(daemon) = case.daemon() else { return Ok(()) };
    let (program, other) = (on_ext4("program"), on_ext4("unknown"));
    layout::program(&other, &[good(), vec![3]].concat())?;
    until(case, &program, Outcome::Worked)?;
    let bundle = daemon.directory().join("bundle");
    let can = |file: &Path| {
        let mut command = Command::new("guardctl");
        command.args(["can", "--as", "agent", "exec"]).arg(file).arg("--bundle").arg(&bundle);
        said(&mut command)
    };
    let (signed, unsigned) = (can(&program)?, can(&other)?);
    ensure!(signed.contains("signed by") && signed.contains("release"), "can: {signed}");
    ensure!(unsigned.contains("no key of the bundle"), "can: {unsigned}");
    let outcome = attempt(AGENT, || run(&other))?;
    ensure!(outcome == Outcome::Failed(Errno::EACCES), "an unsigned program: {outcome:?}");
    let socket = daemon.directory().join("run/admin.sock");
    eventually("the last denial says that nobody signed the program", || {
        let why =
            said(Command::new("guardctl").arg("--socket").arg(&socket).args(["why", "--last", "agent"]))?;
        Ok(why.contains("signed/unknown")
            && why.contains("signed by")
            && why.contains("no key of the bundle"))
    })
}

/// What a command prints.
fn said(command: &mut Command) -> Result<String> {
    Ok(String::from_utf8_lossy(&output(command)?.stdout).into_owned())
}

fn a_list_counts_from_when_it_is_there_until_it_is_gone(case: &Case<'_>) -> Result<()> {
    let program = on_ext4("listed");
    let content = [good(), b"listed".to_vec()].concat();
    layout::program(&program, &content)?;
    case.refused(refused_at("signed/listed"), || run(&program))?;
    // A key that the bundle does not name, a signature over something else, and no list at all.
    list("strange", &keys()?.strange, &[&content])?;
    let digest = {
        list("listed", &keys()?.release, &[b"something else"])?;
        fs::read_to_string(list_path("listed")).context("read a list")?
    };
    let mine = hexadecimal(&digest_of(&program)?);
    let forged: Vec<String> = digest
        .lines()
        .map(|line| if line.contains("  listed") { format!("{mine}  listed") } else { line.to_owned() })
        .collect();
    place("listed", (forged.join("\n") + "\n").as_bytes())?;
    place("garbage", &[0xff; 4096])?;
    // Whatever the agent made of them, it has seen what came after.
    list_seen(case, "last", b"nothing")?;
    case.refused(refused_at("signed/listed"), || run(&program))?;
    list("listed", &keys()?.release, &[&content])?;
    until(case, &program, Outcome::Worked)?;
    case.allowed(AGENT, || run(&program))?;
    // A list that others could have replaced by an older one.
    layout::mode(&list_path("listed"), 0o666)?;
    until(case, &program, Outcome::Failed(Errno::EACCES))?;
    layout::mode(&list_path("listed"), 0o644)?;
    until(case, &program, Outcome::Worked)?;
    fs::remove_file(list_path("listed")).context("remove the list")?;
    until(case, &program, Outcome::Failed(Errno::EACCES))?;
    case.refused(refused_at("signed/listed"), || run(&program))?;
    for name in ["strange", "garbage", "last"] {
        fs::remove_file(list_path(name)).context("remove a list")?;
    }
    Ok(())
}

fn hexadecimal(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}
