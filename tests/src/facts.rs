//! Facts from wherever they come: where the host is, what a command says, what two sources say, and who follows them.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::errno::Errno;
use serde_json::{Value, json};

use crate::attempt::{Outcome, eventually};
use crate::bundle::{Bundle, permit, within};
use crate::case::Case;
use crate::daemon::{Daemon, configure, spawn};
use crate::family::{Part, tests};
use crate::layout::{self, path};
use crate::lifecycle::{apply, ends_with, output, prepare};
use crate::puppet::Puppet;
use crate::users::{AGENT, CI};

pub(crate) const PART: Part = Part {
    name: "facts",
    bundle: Ok,
    prepare,
    tests: tests!(
        others: [
            the_network_of_the_host_counts_from_its_change_on,
            what_a_provider_says_counts_and_what_it_cannot_say_changes_nothing,
            where_two_sources_differ_the_fact_is_absent,
            a_fact_of_another_type_or_source_than_the_live_bundle_wants_does_not_count,
            a_fact_that_is_said_without_end_is_absent_and_holds_up_nobody,
            facts_are_followed_as_they_change,
            a_fact_without_an_end_counts_until_its_deadline_with_the_agent_dead,
        ],
    ),
};

/// With systemd as PID 1.
pub(crate) const UNITS: Part = Part {
    name: "units",
    bundle: Ok,
    prepare,
    tests: tests!(others: [the_state_of_a_unit_counts_while_it_is_so]),
};

fn file() -> PathBuf {
    path("flip/first")
}

/// `agent` may read a file where this holds.
fn bundle(version: u64, declared: &str, condition: &str) -> Bundle {
    let condition = format!("{} && {condition}", within(&[file()]));
    Bundle::new("facts")
        .version(version)
        .toml(&format!("[facts]\n{declared}\n"))
        .subject("agent", "user = \"agent\"")
        .policy("agent", permit("fact", "agent", &["file.read"], &condition))
}

/// A bundle with a number that has to be 3 or more.
fn trusting(version: u64, source: &str) -> Bundle {
    bundle(
        version,
        &format!("trust = {{ type = \"long\"{source} }}"),
        "context.posture has trust && context.posture.trust >= 3",
    )
}

fn a_fact_without_an_end_counts_until_its_deadline_with_the_agent_dead(case: &Case<'_>) -> Result<()> {
    const STALE: Duration = Duration::from_secs(8);
    let trusted = format!("{} && context.posture has trust && context.posture.trust >= 3", within(&[file()]));
    let bundle = Bundle::new("stale")
        .toml("[facts]\ntrust = { type = \"long\" }\n")
        .subject("agent", "user = \"agent\"")
        .toml("max_staleness = \"8s\"\n")
        .subject("ci", "user = \"ci\"")
        .toml("max_staleness = \"8s\"\nfail_mode = \"keep\"\n")
        .policy("agent", permit("agent", "agent", &["file.read"], &trusted))
        .policy("ci", permit("ci", "ci", &["file.read"], &trusted));
    let directory = configure("facts-stale", &bundle)?;
    let daemon = spawn(&directory)?.ready()?;
    let (mut agent, mut ci) = (Puppet::start(AGENT)?, Puppet::start(CI)?);
    agent.is_refused(&file())?;
    ends_with(&output(&mut daemon.control(&["posture", "set", "trust=3", "--source", "edr"]))?, 0)?;
    // The agent vouches for it for longer than it would count without.
    let begun = Instant::now();
    let mut vouched = 0u64;
    while begun.elapsed() < 2 * STALE {
        agent.is_allowed(&file()).with_context(|| format!("after {:?}", begun.elapsed()))?;
        vouched += 1;
    }
    ci.is_allowed(&file())?;
    drop(daemon);
    let dead = Instant::now();
    let wanted = if case.full { 100_000 } else { 1000 };
    let (mut admitted, mut refused, mut last) = (0u64, 0u64, Duration::ZERO);
    while refused < wanted {
        let at = dead.elapsed();
        match agent.read(&file())? {
            Outcome::Worked => {
                ensure!(refused == 0 && at < STALE, "admitted {at:?} after the agent's end");
                (admitted, last) = (admitted + 1, at);
            }
            Outcome::Failed(Errno::EACCES) => refused += 1,
            other => anyhow::bail!("neither: {other:?}"),
        }
    }
    println!(
        "  {vouched} reads with an agent, {admitted} without one until {last:?}, then {refused} refused"
    );
    case.tried(vouched + admitted + refused);
    ensure!(admitted > 0, "nothing was admitted");
    ci.is_allowed(&file()).context("a subject that keeps what was known")?;
    let daemon = spawn(&directory)?.ready()?;
    agent.is_allowed(&file()).context("once an agent vouches again")?;
    agent.end()?;
    ci.end()?;
    daemon.stop().map(drop)
}

/// Starts a daemon with more in its configuration.
fn start(name: &str, bundle: &Bundle, configuration: &str) -> Result<Daemon> {
    let directory = configure(name, bundle)?;
    let file = directory.join("agent.toml");
    let text = fs::read_to_string(&file).context("read agent.toml")?;
    fs::write(&file, text + configuration).context("write agent.toml")?;
    spawn(&directory)?.ready()
}

fn becomes_allowed(puppet: &mut Puppet, when: &str) -> Result<()> {
    eventually(when, || Ok(puppet.read(&file())? == Outcome::Worked))
}

fn becomes_refused(puppet: &mut Puppet, when: &str) -> Result<()> {
    eventually(when, || Ok(puppet.read(&file())? == Outcome::Failed(Errno::EACCES)))
}

/// Waits until the status says something of a source, or nothing.
fn status_says(daemon: &Daemon, source: &str, words: Option<&str>) -> Result<()> {
    eventually(&format!("the status says {words:?} of {source}"), || {
        let status = daemon.status()?;
        let lines = status["degraded"].as_array().context("a list")?;
        let mut about = lines.iter().filter_map(Value::as_str).filter(|line| line.contains(source));
        Ok(match words {
            Some(words) => about.any(|line| line.contains(words)),
            None => about.next().is_none(),
        })
    })
}

/// What `posture` does and says.
fn posture(daemon: &Daemon, words: &[&str]) -> Result<(i32, String)> {
    let all: Vec<&str> = ["posture"].into_iter().chain(words.iter().copied()).collect();
    let answer = output(&mut daemon.control(&all))?;
    let said = [answer.stdout, answer.stderr].concat();
    Ok((answer.status.code().context("an exit code")?, String::from_utf8_lossy(&said).into_owned()))
}

/// An interface that leads nowhere, until it is dropped.
pub(crate) struct Interface;

const INTERFACE: &str = "guard-net0";

impl Interface {
    /// One in 10.77.0.0/16, with a default route through a gateway there whose hardware address is 00:11:22:33:44:55.
    pub(crate) fn new() -> Result<Self> {
        layout::run("modprobe", &["dummy", "numdummies=0"])?;
        layout::run("ip", &["link", "add", INTERFACE, "type", "dummy"])?;
        let this = Self;
        layout::run("ip", &["link", "set", INTERFACE, "arp", "on"])?;
        layout::run("ip", &["address", "add", "10.77.1.2/16", "dev", INTERFACE])?;
        this.set("up")?;
        this.gateway("00:11:22:33:44:55")?;
        Ok(this)
    }

    fn set(&self, state: &str) -> Result<()> {
        layout::run("ip", &["link", "set", INTERFACE, state])
    }

    /// A default route through a gateway with this hardware address.
    pub(crate) fn gateway(&self, mac: &str) -> Result<()> {
        let neighbour =
            ["neighbour", "replace", "10.77.0.1", "lladdr", mac, "dev", INTERFACE, "nud", "permanent"];
        layout::run("ip", &neighbour)?;
        layout::run(
            "ip",
            &["route", "replace", "default", "via", "10.77.0.1", "dev", INTERFACE, "metric", "1"],
        )
    }

    fn no_gateway(&self) -> Result<()> {
        layout::run("ip", &["route", "delete", "default", "dev", INTERFACE])
    }
}

impl Drop for Interface {
    fn drop(&mut self) {
        let _ = layout::run("ip", &["link", "delete", INTERFACE]);
    }
}

const OFFICE: &str = "[networks.office]\ngateway = \"10.77.0.1\"\ngateway_mac = \"00:11:22:33:44:55\"\nprefix = \"10.77.0.0/16\"\n";

fn the_network_of_the_host_counts_from_its_change_on(_: &Case<'_>) -> Result<()> {
    let bundle = bundle(
        1,
        "place = { type = \"string\", source = \"collector:network\" }",
        "context.posture has place && context.posture.place == \"office\"",
    );
    let daemon = start("facts-network", &bundle, OFFICE)?;
    let mut puppet = Puppet::start(AGENT)?;
    puppet.is_refused(&file()).context("away")?;
    ensure!(posture(&daemon, &["get", "place"])?.0 == 1, "a place is known");
    let (code, said) = posture(&daemon, &["set", "place=office", "--source", "collector:network"])?;
    ensure!(code == 6 && said.contains("by itself"), "{code}: {said}");
    puppet.is_refused(&file()).context("after somebody said so")?;

    let interface = Interface::new()?;
    becomes_allowed(&mut puppet, "in the office")?;
    let (code, said) = posture(&daemon, &["get", "place"])?;
    ensure!(code == 0 && said.contains("place = \"office\"") && said.contains("collector:network"), "{said}");
    // The same numbers, and another machine behind them.
    interface.gateway("00:11:22:33:44:66")?;
    becomes_refused(&mut puppet, "the gateway is another machine")?;
    interface.gateway("00:11:22:33:44:55")?;
    becomes_allowed(&mut puppet, "the gateway is back")?;
    interface.no_gateway()?;
    becomes_refused(&mut puppet, "there is no way out")?;
    interface.gateway("00:11:22:33:44:55")?;
    becomes_allowed(&mut puppet, "there is one again")?;
    // Routes that go with a link are announced by nobody.
    interface.set("down")?;
    becomes_refused(&mut puppet, "the link is down")?;
    drop(daemon);
    puppet.end()?;

    // Where two networks look alike, nobody knows in which the host is.
    let twins = format!("{OFFICE}[networks.twin]\nprefix = \"10.77.0.0/16\"\n");
    interface.set("up")?;
    interface.gateway("00:11:22:33:44:55")?;
    let daemon = start("facts-twins", &bundle, &twins)?;
    let mut puppet = Puppet::start(AGENT)?;
    status_says(&daemon, "collector:network", Some("several fit: office, twin"))?;
    puppet.is_refused(&file()).context("in one of two networks")?;
    puppet.end()?;
    daemon.stop().map(drop)
}

/// A program that prints what lies in a file, or does not end while another one is there.
fn program(directory: &Path) -> Result<PathBuf> {
    let program = directory.join("say.sh");
    let text = format!(
        "#!/bin/sh\nif [ -e {hang} ]; then sleep 1000 & sleep 1000; fi\nexec cat {say}\n",
        hang = directory.join("hang").display(),
        say = directory.join("say").display(),
    );
    fs::write(&program, text).context("write a program")?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).context("make it executable")?;
    Ok(program)
}

fn what_a_provider_says_counts_and_what_it_cannot_say_changes_nothing(_: &Case<'_>) -> Result<()> {
    let place = Path::new("/run/guard-provider");
    let _ = fs::remove_dir_all(place);
    fs::create_dir_all(place).context("make a directory")?;
    let say = |text: &str| -> Result<()> {
        fs::write(place.join("say.new"), text).context("write what it says")?;
        fs::rename(place.join("say.new"), place.join("say")).context("rename it")
    };
    let fact = |value: Value, seconds: u64| json!({ "facts": [{ "name": "trust", "value": value, "seconds": seconds }] });
    say(&fact(json!(3), 600).to_string())?;
    let configuration = format!(
        "[providers.edr]\ncommand = [\"{}\"]\nuser = \"free\"\nfacts = [\"trust\"]\ninterval = \"1s\"\ntimeout = \"2s\"\n",
        program(place)?.display()
    );
    let daemon = start("facts-provider", &trusting(1, ", source = \"provider:edr\""), &configuration)?;
    let mut puppet = Puppet::start(AGENT)?;
    becomes_allowed(&mut puppet, "the provider has spoken")?;
    let (_, said) = posture(&daemon, &["get", "trust"])?;
    ensure!(said.contains("trust = 3") && said.contains("provider:edr"), "{said}");
    // Nobody else says it.
    let (code, said) = posture(&daemon, &["set", "trust=9", "--source", "provider:edr"])?;
    ensure!(code == 6 && said.contains("nobody else"), "{code}: {said}");

    // What it cannot say leaves what it said before.
    for (garbage, words) in [
        ("garbage".to_owned(), "not understood"),
        (fact(json!("high"), 600).to_string(), "whole number"),
        (json!({ "facts": [{ "name": "other", "value": 1 }] }).to_string(), "lets it say trust"),
    ] {
        say(&garbage)?;
        status_says(&daemon, "provider:edr", Some(words))?;
        puppet.is_allowed(&file()).with_context(|| format!("after {garbage}"))?;
    }
    fs::write(place.join("hang"), "").context("let it hang")?;
    status_says(&daemon, "provider:edr", Some("did not end within 2 s"))?;
    puppet.is_allowed(&file()).context("while it hangs")?;
    fs::remove_file(place.join("hang")).context("let it go on")?;
    say(&fact(json!(1), 600).to_string())?;
    becomes_refused(&mut puppet, "the provider says less")?;
    status_says(&daemon, "provider:edr", None)?;

    // What it said ends, and silence does not lengthen it.
    say(&fact(json!(3), 5).to_string())?;
    becomes_allowed(&mut puppet, "the provider says more")?;
    say("garbage")?;
    becomes_refused(&mut puppet, "what it said has ended")?;
    puppet.end()?;
    daemon.stop().map(drop)
}

fn where_two_sources_differ_the_fact_is_absent(_: &Case<'_>) -> Result<()> {
    let directory = configure("facts-two", &trusting(1, ""))?;
    let daemon = spawn(&directory)?.ready()?;
    let mut puppet = Puppet::start(AGENT)?;
    let set = |daemon: &Daemon, words: [&str; 3]| -> Result<()> {
        let (code, said) = posture(daemon, &["set", words[0], words[1], words[2]])?;
        ensure!(code == 0, "{code}: {said}");
        Ok(())
    };
    set(&daemon, ["trust=3", "--source", "edr"])?;
    puppet.is_allowed(&file()).context("one source")?;
    set(&daemon, ["trust=5", "--source", "desk"])?;
    puppet.is_refused(&file()).context("both would do, and they differ")?;
    let (_, said) = posture(&daemon, &["get", "trust"])?;
    ensure!(said.contains("desk says otherwise") && said.contains("edr says otherwise"), "{said}");
    drop(daemon);
    puppet.end()?;

    let daemon = spawn(&directory)?.ready()?;
    let mut puppet = Puppet::start(AGENT)?;
    puppet.is_refused(&file()).context("under the next agent")?;
    set(&daemon, ["trust=3", "--source", "desk"])?;
    puppet.is_allowed(&file()).context("they agree")?;
    set(&daemon, ["trust=0", "--source", "edr"])?;
    puppet.is_refused(&file()).context("they do not any more")?;
    let (code, said) = posture(&daemon, &["unset", "trust", "--source", "edr"])?;
    ensure!(code == 0, "{code}: {said}");
    puppet.is_allowed(&file()).context("one of them is silent")?;
    let (code, said) = posture(&daemon, &["unset", "trust"])?;
    ensure!(code == 0 && said.contains("desk"), "{code}: {said}");
    puppet.is_refused(&file()).context("both are")?;
    puppet.end()?;
    daemon.stop().map(drop)
}

fn a_fact_of_another_type_or_source_than_the_live_bundle_wants_does_not_count(_: &Case<'_>) -> Result<()> {
    // What is there and is not this value: a value of another type would be both.
    let text = |version: u64| {
        bundle(
            version,
            "trust = { type = \"string\" }",
            "context.posture has trust && context.posture.trust != \"none\"",
        )
    };
    let daemon = Daemon::start("facts-type", &trusting(1, ""))?;
    let mut puppet = Puppet::start(AGENT)?;
    ends_with(&output(&mut daemon.control(&["posture", "set", "trust=3", "--source", "edr"]))?, 0)?;
    puppet.is_allowed(&file()).context("a number")?;
    ends_with(&apply(&daemon, &text(2), "text")?, 0)?;
    puppet.is_refused(&file()).context("a number where a text is wanted")?;
    let (_, said) = posture(&daemon, &["get", "trust"])?;
    ensure!(said.contains("does not count") && said.contains("text"), "{said}");
    ends_with(&apply(&daemon, &trusting(3, ", source = \"desk\""), "desk")?, 0)?;
    puppet.is_refused(&file()).context("from elsewhere than is wanted")?;
    ends_with(&apply(&daemon, &trusting(4, ", source = \"edr\""), "edr")?, 0)?;
    puppet.is_allowed(&file()).context("as it is wanted")?;
    puppet.end()?;
    daemon.stop().map(drop)
}

fn a_fact_that_is_said_without_end_is_absent_and_holds_up_nobody(_: &Case<'_>) -> Result<()> {
    let daemon = Daemon::start("facts-flood", &trusting(1, ""))?;
    let mut puppet = Puppet::start(AGENT)?;
    ends_with(&output(&mut daemon.control(&["posture", "set", "trust=3", "--source", "edr"]))?, 0)?;
    puppet.is_allowed(&file())?;
    let spool = daemon.directory().join("state/facts");
    let flood: Vec<Value> =
        (0..400).map(|_| json!({ "name": "trust", "value": 3, "source": "edr" })).collect();
    fs::write(spool.join("flood.new"), json!({ "facts": flood }).to_string()).context("write facts")?;
    fs::rename(spool.join("flood.new"), spool.join("flood.json")).context("rename them")?;
    eventually("the flood is refused", || {
        // The daemon answers meanwhile.
        daemon.status()?;
        Ok(spool.join("flood.refused").exists())
    })?;
    puppet.is_refused(&file()).context("after the flood")?;
    ensure!(posture(&daemon, &["get", "trust"])?.0 == 1, "it is still known");
    let (code, said) = posture(&daemon, &["set", "trust=3", "--source", "edr"])?;
    ensure!(code != 0 && said.contains("too often"), "{code}: {said}");
    puppet.end()?;
    daemon.stop().map(drop)
}

fn facts_are_followed_as_they_change(_: &Case<'_>) -> Result<()> {
    let daemon = Daemon::start("facts-watch", &trusting(1, ""))?;
    let set = |words: &[&str]| -> Result<()> {
        let (code, said) = posture(&daemon, words)?;
        ensure!(code == 0, "{code}: {said}");
        Ok(())
    };
    set(&["set", "trust=1", "--source", "edr"])?;
    let mut watching = daemon
        .control(&["posture", "watch", "trust", "--json"])
        .stdout(Stdio::piped())
        .spawn()
        .context("follow facts")?;
    let mut lines = BufReader::new(watching.stdout.take().context("its output")?).lines();
    let mut next = |change: &str, value: i64| -> Result<()> {
        let line = lines.next().context("another line")?.context("read a line")?;
        let told: Value = serde_json::from_str(&line).with_context(|| line.clone())?;
        ensure!(
            told["schema"] == "guard.fact-change/1"
                && told["change"] == change
                && told["fact"]["value"] == value,
            "not {change} {value}: {line}"
        );
        Ok(())
    };
    next("known", 1)?;
    set(&["set", "trust=2", "--source", "edr"])?;
    next("changed", 2)?;
    set(&["unset", "trust"])?;
    next("gone", 2)?;
    // One that ends by itself is told as well.
    set(&["set", "trust=3", "--source", "edr", "--for", "2s"])?;
    next("new", 3)?;
    next("gone", 3)?;
    watching.kill().context("stop following")?;
    watching.wait().context("wait for it")?;
    daemon.stop().map(drop)
}

fn the_state_of_a_unit_counts_while_it_is_so(_: &Case<'_>) -> Result<()> {
    const UNIT: &str = "guard-edr.service";
    let bundle = bundle(
        1,
        &format!("edr = {{ type = \"string\", source = \"collector:unit:{UNIT}\" }}"),
        "context.posture has edr && context.posture.edr == \"active\"",
    );
    let daemon = Daemon::start("facts-units", &bundle)?;
    let mut puppet = Puppet::start(AGENT)?;
    puppet.is_refused(&file()).context("there is no such unit")?;
    let unit = format!("--unit={UNIT}");
    layout::run("systemd-run", &["--quiet", "--collect", &unit, "sleep", "1000"])?;
    becomes_allowed(&mut puppet, "the unit is active")?;
    layout::run("systemctl", &["stop", UNIT])?;
    becomes_refused(&mut puppet, "the unit was stopped")?;
    puppet.end()?;
    daemon.stop().map(drop)
}
