//! PostgreSQL as it is packaged, as its unit starts it.

use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use nix::errno::Errno;

use super::{Edit, Watch, address, ended_well, for_everybody, run, systemctl};
use crate::case::{Case, refusal};
use crate::family::{Part, tests};
use crate::layout;
use crate::users::{Identity, ROOT};

pub(crate) const PART: Part = Part {
    name: "reference-postgres",
    bundle: Ok,
    prepare,
    tests: tests!(others: [
        the_packaged_postgresql_works_under_the_reference_bundle,
        the_packaged_postgresql_starts_no_program_and_reads_no_other_file,
    ]),
};

/// What the bundle needs to be changed for the packaged PostgreSQL.
pub(super) const EDITS: &[Edit] = &[
    // The version that this system packages.
    ("postgres", "postgresql/17", "postgresql/VERSION"),
    // The unit starts the server by pg_ctlcluster, a Perl script that becomes another user, and by pg_ctl,
    // which uses a shell; under `governs = ["*"]` all of it would have to be permitted to the server.
    (
        "guard.toml",
        "selector = { unit = \"postgresql@17-main.service\" }",
        "selector = { exe = \"/usr/lib/postgresql/VERSION/bin/postgres\" }",
    ),
    ("guard.toml", "governs  = [\"exec.*\", \"net.*\", \"unix.*\", \"mutate\"]", "governs  = [\"*\"]"),
    // The name of the user that a peer is, and the configuration of the TLS library.
    (
        "guard.toml",
        "\"base/name-resolution\", \"service/systemd\"]\n\n[subjects.ir-bot]",
        "\"base/name-resolution\", \"service/systemd\", \"base/accounts\", \"base/tls-roots\"]\n\n[subjects.ir-bot]",
    ),
    // The lock beside the socket is opened for reading too.
    (
        "postgres",
        "action in Guard::Action::\"mutate\", resource in Guard::Dir::\"/run/postgresql\"",
        "action in Guard::Action::\"file.*\", resource in Guard::Dir::\"/run/postgresql\"",
    ),
    // Debian's servers speak TLS with the certificate of the host.
    (
        "postgres",
        "@id(\"share\")",
        "@id(\"tls-key\") permit (principal == Guard::Subject::\"postgres\", action == Guard::Action::\"file.read\", \
         resource == Guard::File::\"/etc/ssl/private/ssl-cert-snakeoil.key\");\n@id(\"share\")",
    ),
];

const POSTGRES: Identity = ROOT.becoming("postgres");

/// An address of the network of replicas, which may connect.
const REPLICA: &str = "10.40.0.5";
/// What a query must not read.
const DATA: &str = "/srv/outside/data.csv";

/// The version that is installed.
pub(super) fn version() -> Result<String> {
    let versions = fs::read_dir("/usr/lib/postgresql").context("the guest needs the package postgresql")?;
    let names = versions.filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()));
    names.max().context("/usr/lib/postgresql has no version")
}

fn unit() -> Result<String> {
    Ok(format!("postgresql@{}-main.service", version()?))
}

fn prepare() -> Result<()> {
    let version = version()?;
    let configuration = format!("/etc/postgresql/{version}/main");
    if !Path::new(&configuration).exists() {
        // What the package's scripts do when it is installed.
        layout::run("pg_createcluster", &[&version, "main"])?;
    }
    address(REPLICA)?;
    for_everybody(
        &format!("{configuration}/conf.d/reference.conf"),
        &format!("listen_addresses = 'localhost,{REPLICA}'\n"),
    )?;
    let rules = format!("{configuration}/pg_hba.conf");
    let text = fs::read_to_string(&rules).context("read the rules of who may connect")?;
    fs::write(&rules, format!("host all all {REPLICA}/32 trust\n{text}")).context("write them")?;
    for_everybody(DATA, "1\n")?;
    layout::run("systemctl", &["daemon-reload"])
}

/// A program of the database's administrator.
fn administrator(words: &[&str]) -> io::Result<String> {
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--init-groups", "--"]).args(words);
    run(command.current_dir("/").env("HOME", "/var/lib/postgresql").env("LC_ALL", "C.UTF-8"))
}

fn query(text: &str) -> io::Result<String> {
    administrator(&["psql", "--no-psqlrc", "--tuples-only", "--no-align", "--command", text])
}

fn work() -> io::Result<()> {
    administrator(&["dropdb", "--if-exists", "bench"])?;
    administrator(&["createdb", "bench"])?;
    administrator(&["pgbench", "--initialize", "--quiet", "bench"])?;
    administrator(&["pgbench", "--client=2", "--transactions=20", "bench"])?;
    administrator(&[
        "pgbench",
        "--host",
        REPLICA,
        "--username=postgres",
        "--client=2",
        "--transactions=20",
        "bench",
    ])?;
    query("set jit_above_cost = 0; select sum(g) from generate_series(1, 1000) g").map(drop)
}

fn the_packaged_postgresql_works_under_the_reference_bundle(case: &Case<'_>) -> Result<()> {
    let unit = unit()?;
    let watch = Watch::begin(case, "postgres")?;
    systemctl(&["start"], &unit)?;
    case.allowed(POSTGRES, work).context("after start")?;
    systemctl(&["reload"], &unit)?;
    systemctl(&["restart"], &unit)?;
    case.allowed(POSTGRES, || query("select 1").map(drop)).context("after restart")?;
    systemctl(&["stop"], &unit)?;
    ended_well(&unit)?;
    // Their events come after those of the stop.
    systemctl(&["start"], &unit)?;
    case.refused(refusal(POSTGRES, "file.read").at(DATA).only_labelled(), read_data)?;
    watch.denied_nothing_but(DENIED)?;
    systemctl(&["stop"], &unit)
}

/// What PostgreSQL tries besides, and does without.
const DENIED: &[(&str, &str)] = &[
    ("file.read", DATA),
    // Of libraries that it is linked with: how many capabilities there are.
    ("file.read", "/proc/sys/kernel/cap_last_cap"),
    // How large huge pages are, which there are none of.
    ("file.read", "/proc/meminfo"),
    // Backends make themselves more likely to be killed for lack of memory than the first process.
    ("file.write", "/oom_score_adj"),
];

fn read_data() -> io::Result<()> {
    query(&format!("create temporary table t (x int); copy t from '{DATA}'")).map(drop)
}

fn the_packaged_postgresql_starts_no_program_and_reads_no_other_file(case: &Case<'_>) -> Result<()> {
    let unit = unit()?;
    systemctl(&["start"], &unit)?;
    // popen(3) does not say why it fails, and PostgreSQL takes that for a lack of memory.
    let shell = refusal(POSTGRES, "exec").at("bin/dash").heard_as(Errno::ENOMEM).only_labelled();
    case.refused(shell, || match query("copy (select 1) to program 'cat >/dev/null'") {
        Err(error) if error.to_string().contains("could not execute command") => Err(Errno::ENOMEM.into()),
        other => other.map(drop),
    })?;
    case.refused(refusal(POSTGRES, "file.read").at(DATA).only_labelled(), read_data)?;
    case.allowed(POSTGRES, || query("copy (select 1) to stdout").map(drop))?;
    systemctl(&["stop"], &unit)
}
