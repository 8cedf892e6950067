//! Programs that do what a text says, and programs that start others: both have the rights of their
//! subject and pass none on.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail};
use nix::libc;

use crate::bundle::{Bundle, ORDINARY, one_of, permit, within};
use crate::case::{Case, refusal};
use crate::family::{Part, tests};
use crate::layout::{self, ROOT, canary, path, which};
use crate::users::SCRIPTER;
use crate::{elf, step};

pub(crate) const PART: Part = Part {
    name: "interpreter",
    bundle,
    prepare,
    tests: tests!(
        others: [
            a_script_has_the_rights_of_its_subject_only,
            what_a_permitted_program_starts_is_judged_by_itself,
        ],
    ),
};

/// The interpreters that are tried, and what each is told to read a file with.
const INTERPRETERS: [&str; 5] = ["sh", "bash", "perl", "python3", "busybox"];

/// Programs that can start others.
const STARTERS: [&str; 12] =
    ["awk", "bash", "env", "find", "git", "nice", "perl", "python3", "setsid", "tar", "timeout", "xargs"];

fn prepare() -> Result<()> {
    layout::create()?;
    for (directory, status) in [("starter/run", 0), ("starter/data", 0)] {
        layout::program(&path(directory).join("program"), &elf::exits_with(status))?;
    }
    layout::directory(&path("open/scripts"))?;
    layout::file(&path("open/archive/file"), b"content\n")
}

fn bundle(bundle: Bundle) -> Result<Bundle> {
    let mut programs: Vec<PathBuf> =
        INTERPRETERS.into_iter().chain(STARTERS).map(which).collect::<Result<_>>()?;
    programs.sort();
    programs.dedup();
    let libraries =
        ["/usr/lib", "/usr/local/lib", "/usr/share/perl", "/usr/share/perl5", "/usr/share/git-core"];
    let subject = format!(
        "[subjects.scripter]\nselector = {{ user = \"scripter\" }}\ngoverns = [\"*\"]\n\
         include = [{ORDINARY}, \"base/accounts\", \"base/proc-facts\", \"lang/python\", \"tool/git\"]\n"
    );
    let policy = permit("scripter-programs", "scripter", &["file.read", "exec"], &one_of(&programs))
        + &permit("scripter-libraries", "scripter", &["read"], &within(&libraries))
        + &permit("scripter-open", "scripter", &["file.*", "dir.list"], &within(&[path("open")]))
        + &permit("scripter-run", "scripter", &["read", "exec.*"], &within(&[path("starter/run")]))
        + &permit("scripter-read", "scripter", &["read"], &within(&[path("starter/data")]));
    Ok(bundle.toml(&subject).policy("interpreter", policy))
}

/// The script by which an interpreter reads a file, and ends with the error that it met.
fn script(interpreter: &str, file: &Path) -> String {
    let file = file.display();
    match interpreter {
        "perl" => format!("open(my $f, '<', '{file}') or exit($!+0); read($f, my $b, 1) == 1 or exit(99);\n"),
        "python3" => format!(
            "import sys\ntry:\n    open('{file}').read(1)\nexcept OSError as error:\n    sys.exit(error.errno)\n"
        ),
        // A shell tells no error number: what it says is looked at.
        _ => format!("read -r line < '{file}' || exit 77\n"),
    }
}

/// How a script reaches its interpreter.
#[derive(Clone, Copy, Debug)]
enum Way {
    Argument,
    Input,
    File,
    Descriptor,
}

fn interpret(interpreter: &str, way: Way, file: &Path) -> io::Result<()> {
    let text = script(interpreter, file);
    let place = path("open/scripts").join(format!("{interpreter}-{}", std::process::id()));
    fs::write(&place, &text)?;
    let mut command = Command::new(interpreter);
    if interpreter == "busybox" {
        command.arg("sh");
    }
    let option = if interpreter == "perl" { "-e" } else { "-c" };
    match way {
        Way::Argument => command.args([option, &text]),
        Way::Input => command.stdin(File::open(&place)?),
        Way::File => command.arg(&place),
        Way::Descriptor => command.arg("/dev/fd/0").stdin(File::open(&place)?),
    };
    let output = command.env("LC_ALL", "C").stdout(Stdio::null()).output();
    fs::remove_file(&place)?;
    refused_or_done(output?)
}

/// The result of a program that tells error numbers, or says that something was not permitted.
fn refused_or_done(output: Output) -> io::Result<()> {
    let said = String::from_utf8_lossy(&output.stderr);
    match output.status.code() {
        Some(0) => Ok(()),
        _ if said.contains("ermission denied") => Err(io::Error::from_raw_os_error(libc::EACCES)),
        Some(libc::EACCES) => Err(io::Error::from_raw_os_error(libc::EACCES)),
        _ => Err(io::Error::other(format!("{}: {said}", output.status))),
    }
}

fn a_script_has_the_rights_of_its_subject_only(case: &Case<'_>) -> Result<()> {
    for interpreter in INTERPRETERS {
        for way in [Way::Argument, Way::Input, Way::File, Way::Descriptor] {
            let context = || format!("{interpreter}, {way:?}");
            let refused = refusal(SCRIPTER, "file.read").at("shut/secret");
            case.refused(refused, || interpret(interpreter, way, &canary(ROOT))).with_context(context)?;
            case.allowed(SCRIPTER, || interpret(interpreter, way, &path("open/notes")))
                .with_context(context)?;
        }
    }
    Ok(())
}

/// The command line by which a program starts another one.
fn starter(name: &str, program: &Path) -> Result<Vec<String>> {
    let program = program.display();
    let words: Vec<String> = match name {
        "awk" => vec![format!("BEGIN {{ exit system(\"{program}\") != 0 }}")],
        "bash" => vec!["-c".to_owned(), format!("{program} && :")],
        "env" | "setsid" | "xargs" => vec![program.to_string()],
        "find" => ["/srv/gt/open/notes", "-exec"]
            .map(str::to_owned)
            .into_iter()
            .chain([program.to_string(), "{}".to_owned(), "+".to_owned()])
            .collect(),
        "git" => ["-c".to_owned(), format!("alias.x=!{program}"), "x".to_owned()].into(),
        "nice" => vec!["-n".to_owned(), "1".to_owned(), program.to_string()],
        "timeout" => vec!["60".to_owned(), program.to_string()],
        "perl" => vec!["-e".to_owned(), format!("exit(system('{program}') != 0)")],
        "python3" => {
            vec!["-c".to_owned(), format!("import subprocess, sys; sys.exit(subprocess.call(['{program}']))")]
        }
        "tar" => vec![
            "--create".to_owned(),
            "--file=/dev/null".to_owned(),
            "--checkpoint=1".to_owned(),
            format!("--checkpoint-action=exec={program}"),
            "/srv/gt/open/archive".to_owned(),
        ],
        _ => bail!("nothing is known of {name}"),
    };
    Ok(words)
}

fn what_a_permitted_program_starts_is_judged_by_itself(case: &Case<'_>) -> Result<()> {
    let run = |name: &str, program: PathBuf| {
        let words = starter(name, &program).map_err(io::Error::other)?;
        let mut command = Command::new(name);
        command
            .args(words)
            .current_dir(path("open/archive"))
            .env("LC_ALL", "C")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("HOME", path("open"));
        let output = command.stdin(Stdio::null()).stdout(Stdio::null()).output()?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        // Each says in its own way that it could not; the event tells what Guard refused.
        if said.to_lowercase().contains("permission denied") || said.contains("PermissionError") {
            return Err(io::Error::from_raw_os_error(libc::EACCES));
        }
        match (name, step::result(output.status)) {
            // They tell nothing but that it failed.
            ("perl", Err(error)) if said.is_empty() && error.raw_os_error() == Some(1) => {
                Err(io::Error::from_raw_os_error(libc::EACCES))
            }
            (_, Err(error)) => Err(io::Error::other(format!("{error}: {said}"))),
            (_, Ok(())) => Ok(()),
        }
    };
    for name in STARTERS {
        let refused = refusal(SCRIPTER, "exec").at("starter/data/program");
        case.refused(refused, || run(name, path("starter/data/program"))).context(name)?;
        case.allowed(SCRIPTER, || run(name, path("starter/run/program"))).context(name)?;
    }
    Ok(())
}
