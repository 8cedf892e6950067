//! With systemd as PID 1: a packaged, hardened service, selected by its unit.

use std::fs;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::bundle::{Bundle, permit, within};
use crate::case::{Case, refusal};
use crate::family::{Part, tests};
use crate::identity::helper;
use crate::layout::{self, ROOT, canary, path};
use crate::users::ROOT as AS_ROOT;
use crate::{nginx, step};

pub(crate) const PART: Part = Part {
    name: "systemd",
    bundle,
    prepare,
    tests: tests!(
        others: [
            a_hardened_nginx_unit_serves_one_tree_and_not_another,
            a_transient_unit_is_selected_by_its_name,
            other_units_are_not_labelled,
            a_service_that_notifies_its_manager_needs_the_sockets,
            sockets_of_the_service_manager_are_refused,
        ],
    ),
};

/// Two services of type notify, of which one has the include for it.
const TELLS: &str = "tells";
const MUTE: &str = "mute";

/// What an administrator adds to the packaged unit. The main process is root's, so it serves what it
/// may read whatever the sandbox is.
const HARDENING: &str = "[Service]
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
PrivateDevices=yes
ProtectKernelTunables=yes
ProtectControlGroups=yes
RestrictSUIDSGID=yes
ReadWritePaths=/run /var/log/nginx /var/lib/nginx
";

fn prepare() -> Result<()> {
    nginx::prepare()?;
    layout::directory(&path("programs"))?;
    let socket = path("open/own.sock");
    let _ = fs::remove_file(&socket);
    std::mem::forget(UnixListener::bind(&socket).context("bind a socket")?);
    layout::program(&helper(), &fs::read("/proc/self/exe").context("read this program")?)?;
    // The packaged unit knows only the packaged configuration file.
    fs::copy(nginx::configuration(), "/etc/nginx/nginx.conf").context("configure nginx")?;
    let directory = "/etc/systemd/system/nginx.service.d";
    fs::create_dir_all(directory).context("create the drop-in directory")?;
    fs::write(format!("{directory}/hardening.conf"), HARDENING).context("write the drop-in")?;
    layout::run("systemctl", &["daemon-reload"])
}

fn bundle(bundle: Bundle) -> Result<Bundle> {
    let programs = within(&[path("programs")]);
    let own_socket = format!("resource == Guard::Unix::\"{}\"", path("open/own.sock").display());
    let policy = permit("probe-programs", "probe", &["read", "exec.*"], &programs)
        + &permit("probe-open", "probe", &["file.*"], &within(&[path("open")]))
        + &permit("probe-socket", "probe", &["unix.connect"], &own_socket);
    let bundle = bundle.subject("probe", "unit = \"guard-probe.service\"").policy("probe", policy);
    let bundle =
        [(TELLS, "\"service/systemd\""), (MUTE, "")].into_iter().fold(bundle, |bundle, (name, include)| {
            let policy = permit(&format!("{name}-programs"), name, &["read", "exec.*"], &programs);
            let subject = format!(
                "[subjects.{name}]\nselector = {{ unit = \"guard-{name}.service\" }}\ngoverns = [\"*\"]\n\
             include = [\"base/dynamic-exec\", \"base/devices\", \"base/stdio\", \"base/anonymous\", \
             \"base/own-proc\", {include}]\n"
            );
            bundle.toml(&subject).policy(name, policy)
        });
    Ok(nginx::add(bundle, "unit = \"nginx.service\""))
}

fn systemctl(verb: &str) -> Result<()> {
    let result = layout::run("systemctl", &[verb, "nginx.service"]);
    result.map_err(|error| {
        let status = Command::new("systemctl").args(["status", "--no-pager", "nginx.service"]).output();
        let status = status.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
        error.context(status.unwrap_or_default())
    })
}

fn a_hardened_nginx_unit_serves_one_tree_and_not_another(case: &Case<'_>) -> Result<()> {
    let web = AS_ROOT.becoming("web");
    let serves = || {
        case.allowed(web, || nginx::get("/good/page"))?;
        case.refused(refusal(web, "file.read").at("www/bad/page").only_labelled(), || nginx::get("/bad/page"))
    };
    systemctl("start")?;
    serves().context("after start")?;
    systemctl("reload")?;
    serves().context("after reload")?;
    systemctl("restart")?;
    serves().context("after restart")?;
    systemctl("stop")
}

fn probe(unit: &str, file: &Path) -> std::io::Result<()> {
    probe_step(unit, "read", file)
}

fn probe_step(unit: &str, verb: &str, file: &Path) -> std::io::Result<()> {
    let unit = format!("--unit={unit}");
    let arguments = ["--quiet", "--wait", "--collect", "--service-type=exec", &unit];
    let status =
        Command::new("systemd-run").args(arguments).arg(helper()).args(["step", verb]).arg(file).status()?;
    step::result(status)
}

fn sockets_of_the_service_manager_are_refused(case: &Case<'_>) -> Result<()> {
    const UNIT: &str = "guard-probe.service";
    let who = AS_ROOT.becoming("probe");
    for socket in ["/run/systemd/private", "/run/dbus/system_bus_socket"] {
        let refused = refusal(who, "unix.connect").at(socket).only_labelled();
        case.refused(refused, || probe_step(UNIT, "connect", Path::new(socket))).context(socket)?;
    }
    case.allowed(who, || probe_step(UNIT, "connect", &path("open/own.sock")))
}

fn a_transient_unit_is_selected_by_its_name(case: &Case<'_>) -> Result<()> {
    let who = AS_ROOT.becoming("probe");
    let refused = refusal(who, "file.read").at("shut/secret").only_labelled();
    case.refused(refused, || probe("guard-probe.service", &canary(ROOT)))?;
    case.allowed(who, || probe("guard-probe.service", &path("open/notes")))
}

fn a_service_that_notifies_its_manager_needs_the_sockets(case: &Case<'_>) -> Result<()> {
    let start = |name: &str| -> std::io::Result<()> {
        let mut run = Command::new("systemd-run");
        run.args(["--quiet", "--collect", "--service-type=notify", &format!("--unit=guard-{name}.service")]);
        for property in ["ProtectSystem=strict", "ProtectHome=yes", "PrivateTmp=yes", "NoNewPrivileges=yes"] {
            run.arg(format!("--property={property}"));
        }
        // It waits until the service is ready or has failed, and does not say why.
        match run.arg(helper()).args(["step", "notify"]).status()?.success() {
            true => Ok(()),
            false => Err(nix::errno::Errno::EACCES.into()),
        }
    };
    case.allowed(AS_ROOT.becoming(TELLS), || start(TELLS))?;
    let journal = refusal(AS_ROOT.becoming(MUTE), "unix.send").at("/run/systemd/journal/socket");
    case.refused(journal.only_labelled(), || start(MUTE))
}

fn other_units_are_not_labelled(case: &Case<'_>) -> Result<()> {
    for unit in ["guard-probe-2.service", "other.service"] {
        case.allowed(AS_ROOT, || probe(unit, &canary(ROOT)))?;
    }
    let running =
        Command::new("systemctl").args(["is-system-running"]).output().context("start systemctl")?;
    let state = String::from_utf8_lossy(&running.stdout).trim().to_owned();
    ensure!(["running", "degraded", "starting"].contains(&state.as_str()), "the system is {state}");
    Ok(())
}
