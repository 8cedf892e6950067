//! git, certificates and names of hosts.

use std::fs;
use std::io::{self, BufRead, BufReader};
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use nix::errno::Errno;
use nix::libc::{AF_INET, SOCK_DGRAM};

use super::lang::python;
use super::{START, Twins, add_all, command, run};
use crate::bundle::{Bundle, one_of};
use crate::case::{Case, refusal};
use crate::family::{Part, tests};
use crate::layout::which;
use crate::raw;

pub(crate) const TWINS: &[Twins] = &[GIT, CLONE, TLS, NAMES];

const GIT: Twins = Twins::new(30, "tool/git", &[START, &["base/accounts"]], ["inc-git", "inc-git-less"]);
/// Git starts a shell for what it clones from a path of this host.
const CLONE: Twins =
    Twins::new(31, "shell/posix", &[START, &["base/accounts", "tool/git"]], ["inc-clone", "inc-clone-less"]);
const TLS: Twins = Twins::new(32, "base/tls-roots", &[START, &["lang/python"]], ["inc-tls", "inc-tls-less"]);
const NAMES: Twins = Twins::new(33, "base/name-resolution", &[START], ["inc-names", "inc-names-less"]);

pub(crate) const PART: Part = Part {
    name: "includes-tool",
    bundle,
    prepare,
    tests: tests!(
        others: [
            a_repository_needs_git,
            a_clone_of_a_path_needs_a_shell,
            trusting_a_certificate_needs_the_roots,
            the_name_of_a_host_needs_the_resolver,
        ],
    ),
};

fn bundle(bundle: Bundle) -> Result<Bundle> {
    Ok(add_all(bundle, TWINS, &[(&["exec"], one_of(&[which("getent")?]))]))
}

fn prepare() -> Result<()> {
    fs::write("/etc/resolv.conf", format!("nameserver {RESOLVER}\noptions timeout:20 attempts:1\n"))
        .context("write /etc/resolv.conf")?;
    TWINS.iter().try_for_each(Twins::prepare)
}

/// Runs git commands in a new directory of the tree, which is removed afterwards.
fn git(tree: &Path, commands: &[&[&str]]) -> io::Result<String> {
    let work = tree.join(format!("git-{}", std::process::id()));
    fs::create_dir_all(&work)?;
    fs::write(work.join("file"), "one\n")?;
    let each = || -> io::Result<String> {
        let mut said = String::new();
        for words in commands {
            let mut git = command("git", words, &work);
            for role in ["AUTHOR", "COMMITTER"] {
                git.env(format!("GIT_{role}_NAME"), "Somebody").env(format!("GIT_{role}_EMAIL"), "a@b.test");
            }
            git.env("HOME", tree).env("GIT_CONFIG_GLOBAL", "/dev/null");
            said = run(git, &[])?;
        }
        Ok(said)
    };
    let said = each();
    fs::remove_dir_all(work)?;
    said
}

const COMMIT: [&[&str]; 4] = [
    &["init", "--quiet", "--initial-branch=main", "."],
    &["add", "."],
    &["commit", "--quiet", "--message=first"],
    &["checkout", "--quiet", "-b", "side"],
];

fn a_repository_needs_git(case: &Case<'_>) -> Result<()> {
    let work = |tree: &Path| {
        let more: [&[&str]; 5] = [
            &["mv", "file", "moved"],
            &["commit", "--quiet", "--all", "--message=second"],
            &["merge-base", "--is-ancestor", "main", "side"],
            &["gc", "--quiet"],
            &["log", "--oneline", "--stat", "--follow", "moved"],
        ];
        let said = git(tree, &[&COMMIT[..], &more].concat())?;
        if said.contains("second") && said.contains("first") { Ok(()) } else { Err(io::Error::other(said)) }
    };
    GIT.does(case, work)?;
    GIT.needs(case, "exec", "bin/git", work)?;
    GIT.keeps_the_secret(case, |tree, secret| git(tree, &[&["hash-object", secret]]).map(drop))
}

fn a_clone_of_a_path_needs_a_shell(case: &Case<'_>) -> Result<()> {
    let work = |tree: &Path| {
        // A file URL is fetched by another git, which a shell starts.
        let origin = tree.join(format!("git-{}/.git", std::process::id()));
        let url = format!("file://{}", origin.display());
        let clone: [&[&str]; 2] =
            [&["clone", "--quiet", &url, "copy"], &["-C", "copy", "log", "--format=%s"]];
        let said = git(tree, &[&COMMIT[..], &clone].concat())?;
        if said == "first\n" { Ok(()) } else { Err(io::Error::other(said)) }
    };
    CLONE.does(case, work)?;
    CLONE.needs(case, "exec", "bin/dash", |tree: &Path| {
        // Git says that it could not read from the other side.
        work(tree).map_err(|error| if error.raw_os_error().is_none() { Errno::EACCES.into() } else { error })
    })
}

fn trusting_a_certificate_needs_the_roots(case: &Case<'_>) -> Result<()> {
    const ROOTS: &str = "/etc/ssl/certs/ca-certificates.crt";
    ensure!(Path::new(ROOTS).is_file(), "this guest has no {ROOTS}: install ca-certificates");
    let work = |tree: &Path| {
        let code = format!(
            "import ssl
context = ssl.create_default_context()
context.load_verify_locations({ROOTS:?})
assert context.cert_store_stats()['x509_ca'] > 50"
        );
        python(tree, &code)
    };
    TLS.does(case, work)?;
    TLS.needs(case, "file.read", ROOTS, work)?;
    TLS.keeps_the_secret(case, |tree, secret| python(tree, &format!("open({secret:?}).read()")))
}

/// Where the resolver of these tests listens.
const RESOLVER: &str = "127.0.0.77";
const HOST: &str = "somewhere.guard.test";
const ADDRESS: &str = "192.0.2.7";

/// Answers every question for an IPv4 address, and says that there is no other record.
const SERVER: &str = "
import socket, struct, sys
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind((sys.argv[1], 53))
print('listening', flush=True)
while True:
    question, who = server.recvfrom(512)
    end = question.index(b'\\0', 12) + 5
    is_ipv4 = question[end - 4:end - 2] == b'\\0\\1'
    head = question[:2] + struct.pack('>HHHHH', 0x8180, 1, 1 if is_ipv4 else 0, 0, 0)
    record = b'\\xc0\\x0c' + struct.pack('>HHIH', 1, 1, 60, 4) + socket.inet_aton(sys.argv[2])
    server.sendto(head + question[12:end] + (record if is_ipv4 else b''), who)
";

/// A resolver that ends with the test.
struct Resolver(Child);

impl Resolver {
    fn start() -> Result<Self> {
        let mut python = Command::new("/usr/bin/python3");
        python.args(["-c", SERVER, RESOLVER, ADDRESS]).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut resolver = Self(python.spawn().context("start a resolver")?);
        let output = resolver.0.stdout.take().context("output of the resolver")?;
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line).context("hear from the resolver")?;
        ensure!(line == "listening\n", "the resolver does not listen");
        Ok(resolver)
    }
}

impl Drop for Resolver {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn the_name_of_a_host_needs_the_resolver(case: &Case<'_>) -> Result<()> {
    let resolver = Resolver::start()?;
    let ask = |tree: &Path| {
        let said = run(command("/usr/bin/getent", &["hosts", HOST], tree), &[]);
        match said {
            Ok(said) if said.starts_with(ADDRESS) => Ok(()),
            Ok(said) => Err(io::Error::other(said)),
            // getent does not say why it has found nothing.
            Err(error) if error.raw_os_error().is_none() => Err(Errno::EACCES.into()),
            Err(error) => Err(error),
        }
    };
    NAMES.does(case, ask)?;
    NAMES.needs(case, "file.read", "/etc/resolv.conf", ask)?;
    NAMES.keeps_the_secret(case, |_, secret| fs::read(secret).map(drop))?;
    // The resolver is for questions, and nothing else is reached through the include.
    for (address, port) in [(RESOLVER, 54), ("127.0.0.78", 53)] {
        case.refused(refusal(NAMES.with, "net.connect").at(format!("{address}:{port}")), || {
            // Without binding it, for which there is no permit either.
            let to = SocketAddr::new(address.parse().map_err(io::Error::other)?, port);
            raw::connect(raw::socket(AF_INET, SOCK_DGRAM, 0)?.as_fd(), &crate::network::bytes(to))
        })?;
    }
    drop(resolver);
    Ok(())
}
