//! What a coding agent runs, in a session of a developer.

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::unix::fs::chown;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use nix::errno::Errno;

use super::{Edit, Watch, address, for_everybody, run};
use crate::case::{Case, NotHere, Refusal, refusal};
use crate::family::{Part, tests};
use crate::layout;
use crate::users::{Identity, ROOT};

pub(crate) const PART: Part = Part {
    name: "reference-coder",
    bundle: Ok,
    prepare,
    tests: tests!(others: [
        a_coding_agent_works_under_the_reference_bundle,
        a_coding_agent_runs_npm_under_the_reference_bundle,
        a_coding_agent_builds_its_own_sandbox_under_the_reference_bundle,
        a_coding_agent_does_not_see_the_configuration_of_its_home,
        a_coding_agent_is_refused_secrets_sockets_addresses_and_sudo,
    ]),
};

/// What the bundle needs to be changed for this version and this guest.
pub(super) const EDITS: &[Edit] = &[
    // `hide` is accepted and does nothing in this version; this is what it stands for.
    (
        "ai-coder",
        "@id(\"env-files\")",
        "@id(\"hidden\") @errno(\"ENOENT\")\n\
         forbid (principal == Guard::Subject::\"ai-coder\", action in Guard::Action::\"read\", resource)\n\
         when { resource == Guard::File::\"/home/ann/.gitconfig\" || resource in Guard::Dir::\"/home/ann/.config\" };\n@id(\"env-files\")",
    ),
    // Names of users, for authors of commits and for shells.
    ("guard.toml", "\"lang/python\", \"tool/git\"]", "\"lang/python\", \"tool/git\", \"base/accounts\"]"),
    // The developer's user id, which policy cannot say in another way yet.
    ("ai-coder", "resource.owner == 1000", "resource.owner == 2600"),
];

/// The developer whose session it is.
pub(super) const DEVELOPER: Identity = Identity::new("ann", 2600);
/// The group whose members may open one.
pub(super) const DEVELOPERS: Identity = Identity::new("developers", 2601);
const CODER: Identity = ROOT.becoming("ai-coder");

const HOME: &str = "/home/ann";
const TREE: &str = "/home/ann/src/app";
/// Where the session may keep what it likes.
const STATE: &str = "/home/ann/.cache/ai-coder";
const DOCKER: &str = "/run/docker.sock";
const KUBECONFIG: &str = "/etc/guard-demo/prod.kubeconfig";
/// An address that no policy names.
const OUTSIDE: &str = "203.0.113.9";

fn prepare() -> Result<()> {
    for program in ["git", "node", "bwrap", "sudo", "cc", "python3"] {
        layout::which(program)?;
    }
    layout::empty_directory(Path::new(HOME))?;
    for directory in [TREE, STATE, "/home/ann/.config/git"] {
        fs::create_dir_all(directory).with_context(|| format!("create {directory}"))?;
    }
    let nickname = "[user]\n\tnickname = from-home\n";
    for (file, text) in [
        (".gitconfig", nickname),
        (".config/git/config", nickname),
        (".ssh/id_ed25519", "a key\n"),
        (".aws/credentials", "a key\n"),
        ("src/app/.env", "a key\n"),
        ("src/app/main.c", "#include <stdio.h>\nint main(void) { puts(\"hello\"); return 0; }\n"),
        ("src/app/main.js", SCRIPT),
    ] {
        for_everybody(&format!("{HOME}/{file}"), text)?;
    }
    // It is the developer's, with the hooks that git makes: an agent may not make one.
    layout::run("git", &["init", "-q", TREE])?;
    own(Path::new(HOME))?;
    for_everybody(KUBECONFIG, "a key\n")?;
    let _ = fs::remove_file(DOCKER);
    std::mem::forget(UnixListener::bind(DOCKER).context("listen")?);
    layout::mode(Path::new(DOCKER), 0o666)?;
    address(OUTSIDE)?;
    let outside: IpAddr = OUTSIDE.parse().context("an address")?;
    std::mem::forget(TcpListener::bind(SocketAddr::new(outside, 443)).context("listen")?);
    Ok(())
}

/// Gives a tree to the developer.
fn own(path: &Path) -> Result<()> {
    chown(path, Some(DEVELOPER.uid), Some(DEVELOPER.uid))
        .with_context(|| format!("chown {}", path.display()))?;
    if path.is_dir() {
        for entry in fs::read_dir(path).with_context(|| format!("list {}", path.display()))? {
            own(&entry?.path())?;
        }
    }
    Ok(())
}

/// Runs a command in the work tree as the developer: in a session of the subject, or without Guard.
fn session(case: &Case<'_>, words: &[&str]) -> io::Result<String> {
    let mut command = Command::new("setpriv");
    command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin").env("LANG", "C.UTF-8").env("HOME", HOME);
    command.args([format!("--reuid={}", DEVELOPER.uid), format!("--regid={}", DEVELOPER.uid)]);
    command.arg(format!("--groups={},{}", DEVELOPER.uid, DEVELOPERS.uid)).arg("--");
    if let Some(daemon) = case.daemon() {
        command.arg(layout::which("guardctl").map_err(io::Error::other)?);
        command.arg("--socket").arg(daemon.directory().join("run/self.sock"));
        command.args(["run", "--as", "ai-coder", "--set", "worktree=PWD", "--"]);
    }
    run(command.args(words).current_dir(TREE))
}

/// Runs a script of bash that stops at the first failure.
fn bash(case: &Case<'_>, script: &str) -> io::Result<String> {
    session(case, &["bash", "-euo", "pipefail", "-c", script])
}

/// Work that ends with the word `done`.
fn works(case: &Case<'_>, script: &str) -> Result<()> {
    case.allowed(CODER, || match bash(case, &format!("{script}\necho done"))? {
        said if said.ends_with("done\n") => Ok(()),
        said => Err(io::Error::other(said)),
    })
}

/// Keeps V8 busy until it compiles, and compiles for itself.
const SCRIPT: &str = "let sum = 0;
for (let i = 0; i < 3e5; i++) sum = (sum + i * 3) % 1000003;
const wasm = new WebAssembly.Module(Uint8Array.of(0, 97, 115, 109, 1, 0, 0, 0));
const fs = require('fs');
fs.writeFileSync('out.txt', String(sum));
if (!(wasm instanceof WebAssembly.Module) || fs.readFileSync('out.txt', 'utf8') !== String(sum)) process.exit(1);
fs.unlinkSync('out.txt');
";

/// Without the configuration of the home: git asks access(2) for it, which hides nothing, and ends when it
/// then cannot open the file, whatever the error number.
const GIT: &str = "
export GIT_CONFIG_GLOBAL=/dev/null
export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@example.org GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@example.org
date +%N >stamp
git add stamp main.c main.js
git commit -q -m again
git status --short
git log --format=%s | grep -q again
git diff HEAD --stat
";

const BUILD: &str = "
cc -O1 -o main main.c
test \"$(./main)\" = hello
rm main
";

const LOOK: &str = "
ls -la >/dev/null
find . -type f -not -path './.git/*' | sort | { xargs grep -sl main || true; } | grep -q main.c
sed -n 1p main.c
cp main.c copy.c && mv copy.c moved.c && rm moved.c
mkdir -p a/b && rmdir a/b a
echo x >/tmp/coder-$$ && rm /tmp/coder-$$
python3 -c 'import json, subprocess, sys; subprocess.run([sys.executable, \"--version\"], check=True)'
python3 -ISc '
import os, socket
server = socket.socket(socket.AF_UNIX)
server.bind(\"own.sock\")
server.listen()
socket.socket(socket.AF_UNIX).connect(\"own.sock\")
server.accept()
os.remove(\"own.sock\")'
";

/// What these programs try besides, and do without.
const DENIED: &[(&str, &str)] = &[("file.read", "/.env")];

/// A denial, after whose event all earlier ones are there.
fn is_refused_the_environment(case: &Case<'_>) -> Result<()> {
    case.refused(refused("file.read", "src/app/.env"), || bash(case, "cat .env").map(drop))
}

fn refused(action: &'static str, place: &str) -> Refusal {
    refusal(CODER, action).at(place).only_labelled()
}

fn a_coding_agent_works_under_the_reference_bundle(case: &Case<'_>) -> Result<()> {
    let watch = Watch::begin(case, "ai-coder")?;
    works(case, GIT).context("git")?;
    works(case, "node main.js").context("node")?;
    works(case, BUILD).context("a compiler")?;
    works(case, LOOK).context("a shell")?;
    is_refused_the_environment(case)?;
    watch.denied_nothing_but(DENIED)
}

fn a_coding_agent_runs_npm_under_the_reference_bundle(case: &Case<'_>) -> Result<()> {
    if layout::which("npm").is_err() {
        return Err(NotHere("this guest's Node.js comes without npm".to_owned()).into());
    }
    let watch = Watch::begin(case, "ai-coder")?;
    // What npm keeps lies where the session may keep it.
    works(case, &format!("export HOME={STATE}\nnpm --version\nnpm ls"))?;
    is_refused_the_environment(case)?;
    watch.denied_nothing_but(DENIED)
}

fn a_coding_agent_builds_its_own_sandbox_under_the_reference_bundle(case: &Case<'_>) -> Result<()> {
    let watch = Watch::begin(case, "ai-coder")?;
    let sandbox = format!(
        "bwrap --new-session --die-with-parent --ro-bind / / --dev /dev --proc /proc --bind {TREE} {TREE} \
         --unshare-user --unshare-pid --unshare-net -- bash -euc"
    );
    works(
        case,
        &format!("{sandbox} 'echo x >out; test \"$(cat out)\" = x; rm out; grep -q Pid: /proc/self/status'"),
    )?;
    // What is refused outside is refused inside.
    case.refused(refused("file.read", "src/app/.env"), || {
        bash(case, &format!("{sandbox} 'cat .env'")).map(drop)
    })?;
    watch.denied_nothing_but(DENIED)
}

fn a_coding_agent_does_not_see_the_configuration_of_its_home(case: &Case<'_>) -> Result<()> {
    let hidden = refused("file.read", "/home/ann/.gitconfig").with(Errno::ENOENT);
    case.refused(hidden, || match bash(case, "git config user.nickname || echo none")?.trim() {
        "from-home" => Ok(()),
        "none" => Err(Errno::ENOENT.into()),
        other => Err(io::Error::other(other.to_owned())),
    })
}

fn a_coding_agent_is_refused_secrets_sockets_addresses_and_sudo(case: &Case<'_>) -> Result<()> {
    for file in ["/home/ann/.ssh/id_ed25519", "/home/ann/.aws/credentials", KUBECONFIG] {
        case.refused(refused("file.read", file), || session(case, &["cat", file]).map(drop)).context(file)?;
    }
    let hook = format!("{TREE}/.git/hooks/post-commit");
    case.refused(refused("file.create", &hook), || {
        bash(case, &format!("echo true >{hook}; rm {hook}")).map(drop)
    })?;
    let connect = |family: &str, to: &str| {
        let code = format!("import socket\nsocket.socket(socket.{family}).connect({to})");
        session(case, &["python3", "-ISc", &code]).map(drop)
    };
    case.refused(refused("unix.connect", DOCKER), || connect("AF_UNIX", &format!("'{DOCKER}'")))?;
    case.refused(refused("net.connect", &format!("{OUTSIDE}:443")), || {
        connect("AF_INET", &format!("('{OUTSIDE}', 443)"))
    })?;
    let sudo = layout::which("sudo")?.display().to_string();
    case.refused(refused("exec", &sudo), || bash(case, "sudo --version").map(drop))?;
    Ok(())
}
