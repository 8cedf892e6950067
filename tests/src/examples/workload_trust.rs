//! `examples/workload-trust`: trusted where it is, and as it is now.

use std::fs::File;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::errno::Errno;

use super::{REPORTS, passes_its_own_tests, start};
use crate::attempt::{Outcome, attempt, eventually};
use crate::case::Case;
use crate::daemon::Daemon;
use crate::facts::Interface;
use crate::layout;
use crate::lifecycle::{ends_with, output};
use crate::using::{Holder, Use};

const CUSTOMERS: &str = "/srv/customers/2026";
const WAREHOUSE: &str = "10.30.0.10:5432";
/// How the test's network looks.
const DATACENTRE: &str = "[networks.datacentre]\ngateway = \"10.77.0.1\"\ngateway_mac = \"00:11:22:33:44:55\"\nprefix = \"10.77.0.0/16\"\n";

fn connect() -> io::Result<TcpStream> {
    let address: SocketAddr = WAREHOUSE.parse().map_err(io::Error::other)?;
    TcpStream::connect_timeout(&address, Duration::from_secs(5))
}

/// A file that is read and a connection that is used.
fn open() -> io::Result<Vec<Use>> {
    let (customers, mut warehouse) = (File::open(CUSTOMERS)?, connect()?);
    Ok(vec![
        ("customers", Box::new(move || customers.read_at(&mut [0; 8], 0).map(drop))),
        ("warehouse", Box::new(move || warehouse.write_all(b"select"))),
    ])
}

fn trusts(daemon: &Daemon, trust: u8) -> Result<()> {
    let fact = format!("trust={trust}");
    ends_with(&output(&mut daemon.control(&["posture", "set", &fact, "--source", "edr", "--for", "5m"]))?, 0)
}

pub(super) fn a_workload_is_trusted_where_it_is_and_as_it_is_now(_: &Case<'_>) -> Result<()> {
    passes_its_own_tests("workload-trust")?;
    layout::file(Path::new(CUSTOMERS), b"customers\n")?;
    let warehouse = TcpListener::bind(WAREHOUSE).context("play the warehouse")?;
    let admits = |expected: &Outcome, when: &str| -> Result<()> {
        for (what, outcome) in [
            ("customers", attempt(REPORTS, || File::open(CUSTOMERS).map(drop))?),
            ("warehouse", attempt(REPORTS, || connect().map(drop))?),
        ] {
            ensure!(outcome == *expected, "{what} {when}: {outcome:?}");
        }
        Ok(())
    };
    let refused = Outcome::Failed(Errno::EACCES);
    admits(&Outcome::Worked, "without Guard")?;
    let daemon = start("workload-trust", DATACENTRE)?;
    admits(&refused, "where nothing is known")?;
    trusts(&daemon, 3)?;
    admits(&refused, "on a trusted host that is nowhere")?;
    let interface = Interface::new()?;
    eventually("the host is in the data centre", || {
        Ok(attempt(REPORTS, || File::open(CUSTOMERS).map(drop))? == Outcome::Worked)
    })?;
    admits(&Outcome::Worked, "on a trusted host in the data centre")?;

    // What it holds from then on is asked about at each use.
    let mut holder = Holder::start(REPORTS, &["customers", "warehouse"], open)?;
    for what in ["customers", "warehouse"] {
        holder.works(what)?;
    }
    trusts(&daemon, 1)?;
    for what in ["customers", "warehouse"] {
        holder.is_refused(what).context("once it is trusted less")?;
    }
    trusts(&daemon, 3)?;
    for what in ["customers", "warehouse"] {
        holder.works(what).context("once it is trusted again")?;
    }
    // Another machine answers for the gateway.
    interface.gateway("00:11:22:33:44:66")?;
    eventually("the host is elsewhere", || {
        Ok(attempt(REPORTS, || File::open(CUSTOMERS).map(drop))? == Outcome::Failed(Errno::EACCES))
    })?;
    for what in ["customers", "warehouse"] {
        holder.is_refused(what).context("elsewhere")?;
    }
    holder.end()?;
    drop(warehouse);
    daemon.stop().map(drop)
}
