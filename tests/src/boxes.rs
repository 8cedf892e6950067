//! Containers of real engines, and what runs in them: a shell that does what it is told, and a web server.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use nix::errno::Errno;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use crate::bundle::{Bundle, ORDINARY, permit, within};
use crate::layout::{self, which};
use crate::programs::exchange;

/// Directory of the host that an agent's container shows as `/work`.
fn work(engine: &str) -> PathBuf {
    Path::new("/srv/boxes").join(engine).join("work")
}

/// Directory of the host that it shows as `/host`.
pub(crate) const SHOWN: &str = "/srv/boxes/shown";

/// What is told to the shell comes line by line; it answers with a status and what it said of errors.
pub(crate) const LOOP: &str =
    "while read -r line </work/ask; do (eval \"$line\") 2>/work/error; echo $? >/work/answer; done";

/// Programs of the busybox that an agent has.
const TOOLS: [&str; 10] = ["sh", "cat", "ls", "mount", "chroot", "mkdir", "rm", "sleep", "cp", "mv"];

/// Makes the root of an agent's container in `root`.
pub(crate) fn agents_root(root: &Path) -> Result<()> {
    let busybox = fs::read(which("busybox")?).context("read busybox")?;
    for directory in
        ["proc", "sys", "dev", "tmp", "run", "work", "host", "srv/data", "jail/srv/data", "etc", "var"]
    {
        layout::directory(&root.join(directory))?;
    }
    layout::program(&root.join("usr/bin/busybox"), &busybox)?;
    for tool in TOOLS {
        link("busybox", &root.join("usr/bin").join(tool))?;
    }
    link("usr/bin", &root.join("bin"))?;
    let text = |path: &str, text: &str| layout::file(&root.join(path), text.as_bytes());
    text("etc/passwd", "root:x:0:0::/:/bin/sh\n")?;
    text("etc/group", "root:x:0:\n")?;
    text("etc/os-release", "ID=box\n")?;
    text("etc/secret", "a secret\n")?;
    text("srv/data/notes", "notes\n")?;
    text("jail/srv/data/notes", "notes of a jail\n")?;
    layout::program(&root.join("jail/busybox"), &busybox)
}

/// Makes the root of a web server's container in `root`, from the guest's own nginx.
pub(crate) fn servers_root(root: &Path, port: u16) -> Result<()> {
    let nginx = which("nginx")?;
    let list = Command::new("ldd").arg(&nginx).output().context("start ldd")?;
    let list = String::from_utf8_lossy(&list.stdout).into_owned();
    let libraries = list.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from);
    for file in libraries.chain([nginx.clone()]) {
        // As the dynamic loader names it; /usr is merged.
        let name = file.strip_prefix("/").unwrap_or(&file);
        let name = if name.starts_with("usr") { name.to_owned() } else { Path::new("usr").join(name) };
        let bytes = fs::read(&file).with_context(|| format!("read {}", file.display()))?;
        layout::program(&root.join(name), &bytes)?;
    }
    for merged in ["lib", "lib64", "sbin", "bin"] {
        layout::directory(&root.join("usr").join(merged))?;
        link(&format!("usr/{merged}"), &root.join(merged))?;
    }
    for directory in ["proc", "sys", "dev", "tmp", "run", "var/log/nginx", "var/lib/nginx"] {
        layout::directory(&root.join(directory))?;
    }
    let text = |path: &str, text: &str| layout::file(&root.join(path), text.as_bytes());
    text("etc/passwd", "root:x:0:0::/:/bin/sh\n")?;
    text("etc/group", "root:x:0:\n")?;
    for tree in ["good", "bad"] {
        text(&format!("var/www/{tree}/page"), "a page\n")?;
    }
    text(
        "etc/nginx/nginx.conf",
        &format!(
            "user root;\ndaemon off;\nmaster_process off;\nerror_log stderr;\npid /run/nginx.pid;\nevents {{}}\nhttp {{\n\
             access_log off;\nserver {{ listen 127.0.0.1:{port}; root /var/www; }}\n}}\n"
        ),
    )
}

fn link(target: &str, at: &Path) -> Result<()> {
    match std::os::unix::fs::symlink(target, at) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(error).with_context(|| format!("make the link {}", at.display()))
        }
        _ => Ok(()),
    }
}

/// Makes the directories that an agent's container shows.
pub(crate) fn directories(engine: &str) -> Result<PathBuf> {
    let work = work(engine);
    layout::directory(&work)?;
    for name in ["ask", "answer"] {
        let path = work.join(name);
        let _ = fs::remove_file(&path);
        mkfifo(&path, Mode::from_bits_truncate(0o666)).with_context(|| format!("make {}", path.display()))?;
    }
    let busybox = fs::read(layout::which("busybox")?).context("read busybox")?;
    for directory in ["tools", "other"] {
        layout::program(&work.join(directory).join("busybox"), &busybox)?;
    }
    // A place of the host that the agent may read by the name it has in the container, and may not here.
    layout::file(&Path::new(SHOWN).join("srv/data/notes"), b"notes of the host\n")?;
    layout::file(Path::new("/srv/data/notes"), b"notes of the host\n")?;
    Ok(work)
}

/// Adds the subject of an agent.
pub(crate) fn add_agent(bundle: Bundle, name: &str, selector: &str) -> Bundle {
    let subject = format!(
        "[subjects.{name}]\nroot = \"own\"\nselector = {{ {selector} }}\ngoverns = [\"*\"]\ninclude = [{ORDINARY}]\n"
    );
    let read = "resource == Guard::File::\"/etc/passwd\" || resource == Guard::Dir::\"/\"";
    let policy = permit(&format!("{name}-work"), name, &["file.*"], &within(&["/work", "/tmp"]))
        + &permit(&format!("{name}-data"), name, &["read"], &within(&["/srv/data"]))
        + &permit(&format!("{name}-read"), name, &["read"], read)
        + &permit(
            &format!("{name}-exec"),
            name,
            &["exec"],
            "resource == Guard::File::\"/usr/bin/busybox\" || resource == Guard::File::\"/jail/busybox\" || \
             resource in Guard::Dir::\"/work/tools\"",
        )
        + &permit(&format!("{name}-machine"), name, &["sys.*", "proc.*"], "true");
    bundle.toml(&subject).policy(name, policy)
}

/// Adds the subject of a web server that listens on `port`.
pub(crate) fn add_server(bundle: Bundle, name: &str, selector: &str, port: u16) -> Bundle {
    let subject = format!(
        "[subjects.{name}]\nroot = \"own\"\nselector = {{ {selector} }}\ngoverns = [\"*\"]\ninclude = [{ORDINARY}]\n"
    );
    let files = "resource == Guard::File::\"/etc/passwd\" || resource == Guard::File::\"/etc/group\"";
    let here = format!("resource in Guard::Net::\"127.0.0.1/32\" && resource.port == {port}");
    let own =
        within(&["/var/lib/nginx", "/var/log/nginx"]) + " || resource == Guard::File::\"/run/nginx.pid\"";
    let policy = permit(&format!("{name}-pages"), name, &["read"], &within(&["/var/www/good", "/etc/nginx"]))
        + &permit(&format!("{name}-files"), name, &["read"], files)
        + &permit(&format!("{name}-own"), name, &["file.*"], &own)
        + &permit(&format!("{name}-exec"), name, &["exec"], "resource == Guard::File::\"/usr/sbin/nginx\"")
        + &permit(&format!("{name}-map"), name, &["read", "exec.map"], &within(&["/usr/lib", "/usr/lib64"]))
        + &permit(&format!("{name}-listen"), name, &["net.bind", "net.listen"], &here)
        + &permit(
            &format!("{name}-clients"),
            name,
            &["net.accept"],
            "resource in Guard::Net::\"127.0.0.0/8\"",
        )
        + &permit(&format!("{name}-machine"), name, &["sys.*", "proc.*"], "true");
    bundle.toml(&subject).policy(name, policy)
}

/// Has the shell in an engine's container do one line. What fails with one of the two refusals fails so here.
pub(crate) fn tell(engine: &str, line: &str) -> io::Result<()> {
    let work = work(engine);
    fs::write(work.join("ask"), format!("{line}\n"))?;
    let status = fs::read_to_string(work.join("answer"))?;
    if status.trim() == "0" {
        return Ok(());
    }
    Err(refused(&fs::read_to_string(work.join("error"))?))
}

/// The error in what a program said.
pub(crate) fn refused(said: &str) -> io::Error {
    // What busybox's mount says of EPERM.
    let not_permitted = ["Operation not permitted", "permission denied (are you root?)"];
    if not_permitted.iter().any(|words| said.contains(words)) {
        Errno::EPERM.into()
    } else if said.contains("Permission denied") {
        Errno::EACCES.into()
    } else {
        io::Error::other(said.trim().to_owned())
    }
}

/// Fetches a page; 403 is what nginx makes of EACCES.
pub(crate) fn get(port: u16, page: &str) -> io::Result<()> {
    let answer = exchange(port, &format!("GET {page} HTTP/1.0\r\nHost: localhost\r\n\r\n"))?;
    match answer.split_whitespace().nth(1) {
        Some("200") => Ok(()),
        Some("403") => Err(Errno::EACCES.into()),
        _ => Err(io::Error::other(format!("nginx answered {answer:?}"))),
    }
}

/// Runs a program and returns what it wrote to its standard output.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let done = command.stdin(Stdio::null()).output().with_context(|| format!("start {command:?}"))?;
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    ensure!(done.status.success(), "{command:?} ended with {}: {said}", done.status);
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}
