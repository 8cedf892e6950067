//! nginx as it is packaged, as its unit starts it.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::errno::Errno;

use super::{Edit, Watch, address, bundle, ended_well, for_everybody, get, systemctl};
use crate::attempt::eventually;
use crate::case::{Case, refusal};
use crate::family::{Part, tests};
use crate::layout;
use crate::users::{Identity, ROOT};

pub(crate) const PART: Part = Part {
    name: "reference-nginx",
    bundle,
    prepare,
    tests: tests!(others: [
        the_packaged_nginx_works_under_the_reference_bundle,
        the_packaged_nginx_is_refused_peers_outside_of_the_lan,
        the_packaged_nginx_executes_no_shell,
    ]),
};

/// What the bundle needs to be changed for the packaged nginx.
pub(super) const EDITS: &[Edit] = &[
    (
        "guard.toml",
        "governs  = [\"exec.*\", \"net.*\", \"unix.*\", \"sys.*\", \"mutate\", \"file.read\"]",
        "governs  = [\"*\"]",
    ),
    // `user www-data`. The bundle was written when names of users were part of another include.
    (
        "guard.toml",
        "\"base/tls-roots\", \"service/systemd\"]\n\n[subjects.postgres]",
        "\"base/tls-roots\", \"service/systemd\", \"base/accounts\"]\n\n[subjects.postgres]",
    ),
    // It is opened for reading and writing, and read by `nginx -s reload`.
    (
        "nginx",
        "action in Guard::Action::\"mutate\", resource == Guard::File::\"/run/nginx.pid\"",
        "action in Guard::Action::\"file.*\", resource == Guard::File::\"/run/nginx.pid\"",
    ),
];

const UNIT: &str = "nginx.service";
const NGINX: Identity = ROOT.becoming("nginx");

/// An address of the network that may connect.
const LAN: &str = "10.1.2.3";
/// A page that lies elsewhere: what a worker must not read.
const SHADOW: &str = "/etc/shadow";
const ACCESS_LOG: &str = "/var/log/nginx/access.log";

const SITE: &str =
    "server {\n    listen 80;\n    root /srv/www;\n    location /shadow { alias /etc/shadow; }\n}\n";

fn server() -> Result<SocketAddr> {
    Ok((LAN.parse::<std::net::IpAddr>().context("an address")?, 80).into())
}

fn prepare() -> Result<()> {
    layout::which("nginx").context("the guest needs the package nginx")?;
    let packaged = fs::read_to_string("/etc/nginx/nginx.conf").context("read the packaged configuration")?;
    ensure!(
        packaged.contains("/etc/nginx/sites-enabled/"),
        "this is not the packaged configuration: {packaged}"
    );
    address(LAN)?;
    for_everybody("/etc/nginx/sites-enabled/reference", SITE)?;
    for_everybody("/srv/www/index.html", "a page\n")?;
    layout::mode(Path::new(SHADOW), 0o644)?;
    // What the package's scripts make when it is installed.
    for directory in ["/var/log/nginx", "/var/lib/nginx"] {
        fs::create_dir_all(directory).with_context(|| format!("create {directory}"))?;
    }
    layout::run("systemctl", &["daemon-reload"])
}

fn page(number: u16) -> io::Result<()> {
    match get(server().map_err(io::Error::other)?, if number == 200 { "/index.html" } else { "/shadow" })? {
        200 => Ok(()),
        // What nginx makes of EACCES.
        403 => Err(Errno::EACCES.into()),
        other => Err(io::Error::other(format!("nginx answers {other}"))),
    }
}

fn serves(case: &Case<'_>) -> Result<()> {
    case.allowed(NGINX, || page(200))
}

fn the_packaged_nginx_works_under_the_reference_bundle(case: &Case<'_>) -> Result<()> {
    let watch = Watch::begin(case, "nginx")?;
    systemctl(&["start"], UNIT)?;
    serves(case).context("after start")?;
    systemctl(&["reload"], UNIT)?;
    serves(case).context("after reload")?;
    rotate()?;
    // A worker that was not told yet still writes to the old one.
    eventually("a request is in the new log", || {
        serves(case).context("after log rotation")?;
        Ok(fs::metadata(ACCESS_LOG)?.len() > 0)
    })?;
    systemctl(&["restart"], UNIT)?;
    serves(case).context("after restart")?;
    case.refused(refusal(NGINX, "file.read").at(SHADOW).only_labelled(), || page(403))?;
    systemctl(&["stop"], UNIT)?;
    ended_well(UNIT)?;
    // The same for the events of the stop.
    systemctl(&["start"], UNIT)?;
    case.refused(refusal(NGINX, "file.read").at(SHADOW).only_labelled(), || page(403))?;
    watch.denied_nothing_but(DENIED)?;
    systemctl(&["stop"], UNIT)
}

/// What nginx and the programs of its unit try besides, and do without.
const DENIED: &[(&str, &str)] = &[
    ("file.read", SHADOW),
    // How many processors there are, which it then asks the scheduler.
    ("file.read", "/sys/devices/system/cpu/online"),
    ("file.read", "/proc/stat"),
    // Of the C library, for the groups of the workers' user.
    ("file.read", "/proc/sys/kernel/ngroups_max"),
    // Of nss-systemd, for names of users that systemd made up.
    ("file.read", "/proc/sys/kernel/random/boot_id"),
    ("file.read", "/etc/machine-id"),
    // Whether there is SELinux: start-stop-daemon, which the unit stops with.
    ("file.read", "/proc/filesystems"),
];

/// What logrotate(8) does by the package's configuration: a new name for the log, and a signal.
fn rotate() -> Result<()> {
    fs::rename(ACCESS_LOG, format!("{ACCESS_LOG}.1")).context("rename the log")?;
    systemctl(&["kill", "--kill-who=main", "--signal=USR1"], UNIT)?;
    eventually("nginx makes a new log", || Ok(Path::new(ACCESS_LOG).exists()))
}

fn the_packaged_nginx_is_refused_peers_outside_of_the_lan(case: &Case<'_>) -> Result<()> {
    systemctl(&["start"], UNIT)?;
    // The request is dropped, so the peer hears nothing.
    let refused = refusal(NGINX, "net.accept").heard_as(Errno::ETIMEDOUT).only_labelled();
    let wait = Duration::from_secs(3);
    case.refused(refused, || match TcpStream::connect_timeout(&([127, 0, 0, 1], 80).into(), wait) {
        Err(error) if error.kind() == io::ErrorKind::TimedOut => Err(Errno::ETIMEDOUT.into()),
        other => other.map(drop),
    })?;
    serves(case)?;
    systemctl(&["stop"], UNIT)
}

/// A configuration and a unit under which nginx, asked to replace itself by a newer program (USR2),
/// executes a shell: it executes what it was called.
const UPGRADE: &str = "user www-data;\nworker_processes 1;\npid /var/lib/nginx/upgrade.pid;\n\
    error_log /var/log/nginx/upgrade.log notice;\nevents {}\n\
    http { access_log off; server { listen 80; root /srv/www; } }\n";
const DROP_IN: &str = "/run/systemd/system/nginx.service.d";
const CALLED_A_SHELL: &str = "[Service]\nPIDFile=/var/lib/nginx/upgrade.pid\nExecStartPre=\nExecStart=\n\
    ExecStart=@/usr/sbin/nginx /bin/sh -c /etc/nginx/upgrade.conf\n";
const UPGRADE_LOG: &str = "/var/log/nginx/upgrade.log";

fn the_packaged_nginx_executes_no_shell(case: &Case<'_>) -> Result<()> {
    for_everybody("/etc/nginx/upgrade.conf", UPGRADE)?;
    for_everybody(&format!("{DROP_IN}/upgrade.conf"), CALLED_A_SHELL)?;
    layout::run("systemctl", &["daemon-reload"])?;
    systemctl(&["start"], UNIT)?;
    let result = case.refused(refusal(NGINX, "exec").at("bin/dash").only_labelled(), upgrade);
    systemctl(&["stop"], UNIT)?;
    fs::remove_dir_all(DROP_IN).context("remove the drop-in")?;
    layout::run("systemctl", &["daemon-reload"])?;
    result
}

/// Has nginx execute what it was called, and looks into its log for what came of it.
fn upgrade() -> io::Result<()> {
    let before = fs::read(UPGRADE_LOG)?.len();
    systemctl(&["kill", "--kill-who=main", "--signal=USR2"], UNIT).map_err(io::Error::other)?;
    let mut said = String::new();
    eventually("nginx says what came of the new program", || {
        let log = fs::read(UPGRADE_LOG)?;
        said = String::from_utf8_lossy(&log[before..]).into_owned();
        Ok(said.contains("new binary process") && said.contains("exited with code"))
    })
    .map_err(|error| io::Error::other(format!("{error:#}: {said}")))?;
    if said.contains("execve() failed") && said.contains("(13: ") {
        Err(Errno::EACCES.into())
    } else {
        Ok(())
    }
}
