//! What the kernels' verifiers say about the BPF object: whether each series loads it, and how many
//! instructions it walked per program.

use std::fs;

use anyhow::{Context, Result, bail};

use crate::command::say;
use crate::kernels::Series;
use crate::vm::{Ended, Guest, Stream};
use crate::{paths, setup};

/// Loads the object on every series and prints the counts; boots only for what it has not seen yet.
pub(crate) fn print_counts() -> Result<()> {
    for series in Series::all() {
        let environment = setup::guest(&series)?;
        let release = &environment.kernel.release;
        let object = paths::bpf_object();
        let known = object.with_file_name(format!("verified-{release}"));
        let modified = |path| fs::metadata(path).and_then(|meta| meta.modified()).ok();
        let text = match fs::read_to_string(&known) {
            Ok(text) if modified(&known) > modified(&object) => text,
            _ => {
                say!("loading the BPF object on {release}");
                let text = load(&environment)
                    .with_context(|| format!("the BPF object does not load on {release}"))?;
                fs::write(&known, &text).with_context(|| format!("write {}", known.display()))?;
                text
            }
        };
        println!("the BPF object loads on {release}; instructions verified per program:");
        for line in text.lines() {
            println!("  {line}");
        }
    }
    Ok(())
}

fn load(environment: &setup::GuestEnvironment) -> Result<String> {
    let guest =
        Guest { timeout: Some(std::time::Duration::from_secs(120)), ..Guest::new(["guard-agent", "probe"]) };
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let outcome = guest.run(environment, &mut |stream, bytes| {
        if stream == Stream::Stdout { &mut stdout } else { &mut stderr }.extend_from_slice(bytes);
        Ok(())
    })?;
    match outcome.ended {
        Ended::Exit(0) => Ok(String::from_utf8_lossy(&stdout).into_owned()),
        Ended::Exit(_) => bail!("{}", String::from_utf8_lossy(&stderr).trim_end()),
        Ended::Crash(why) | Ended::TimedOut(why) => bail!("{why}"),
    }
}
