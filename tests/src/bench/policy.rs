//! The policy that a labelled task is measured under.

use guard_tests::bundle::{Bundle, permit};
use guard_tests::users::AGENT;

use crate::places::Places;

/// Literals in one policy.
const TERMS: usize = 50;

/// A subject that may do what is measured: by one of so many directories, and one of so many networks.
pub(crate) fn bundle(places: &Places, literals: usize, version: u64) -> Bundle {
    let used = places.permitted();
    let mut paths = vec![format!("resource in Guard::Dir::\"{}\"", used.display())];
    let mut networks = vec!["resource in Guard::Net::\"127.0.0.0/8\"".to_owned()];
    for number in 1..literals {
        let (high, low) = (number / 64, number % 64);
        paths.push(format!("resource in Guard::Dir::\"/srv/other/{high}/{low}/data\""));
        networks.push(format!("resource in Guard::Net::\"10.{}.{}.0/25\"", number / 256, number % 256));
    }
    let policies = |name: &str, actions: &[&str], terms: &[String]| -> String {
        let each = terms.chunks(TERMS).enumerate();
        each.map(|(number, terms)| permit(&format!("{name}-{number}"), "agent", actions, &terms.join(" || ")))
            .collect()
    };
    let policy = policies("files", &["file.*", "exec.*"], &paths)
        + &policies("networks", &["net.*"], &networks)
        + &permit("sockets", "agent", &["unix.*"], &paths[0])
        + &permit("posture", "agent", &["file.read"], &posture(places));
    Bundle::new("bench")
        .version(version)
        .toml("[facts]\ntrust = { type = \"long\" }\n[approvals]\nchange = { approvers = [\"user:root\"], max = \"1h\" }\n")
        .subject("agent", &format!("user = \"{}\"", AGENT.uid))
        .policy("bench", policy)
}

/// What a fact or a lease decides: a file that is in none of the other directories.
fn posture(places: &Places) -> String {
    let trusted =
        "(context.posture has trust && context.posture.trust >= 3) || context.leases.contains(\"change\")";
    format!("resource == Guard::File::\"{}\" && ({trusted})", places.posture().display())
}
