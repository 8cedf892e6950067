//! What policy says about what was seen: Cedar answers, over the bundle and over each include alone.

use std::collections::BTreeSet;
use std::path::Path;

use super::seen::Seen;
use crate::analysis::question::Files as Attributes;
use crate::bundle::{Files, Opened};
use crate::host::Host;
use crate::policy::{self, Bundle, Diagnostic, Diagnostics, Oracle, Verdict, shipped_includes};

/// What a bundle says about one kind of operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judged {
    /// It is permitted.
    Permitted,
    /// Nothing permits it.
    ByDefault,
    /// These policies forbid it.
    Forbidden(Vec<String>),
    /// It cannot be asked, and why.
    Unclear(String),
}

/// What `bundle` says about each of `seen`, taken by `subject`.
///
/// # Errors
/// If the bundle has a policy without an exact counterpart.
pub fn judge(
    bundle: &Bundle,
    host: &Host,
    subject: &str,
    seen: &[&Seen],
) -> Result<Vec<Judged>, Diagnostics> {
    let oracle = Oracle::new(bundle, host, &policy::Facts::default())?;
    Ok(seen.iter().map(|one| ask(bundle, host, &oracle, subject, one)).collect())
}

fn ask(bundle: &Bundle, host: &Host, oracle: &Oracle<'_>, subject: &str, seen: &Seen) -> Judged {
    match decide(bundle, host, oracle, subject, seen) {
        Ok(Some(verdict)) if verdict.candidate.allow => Judged::Permitted,
        Ok(Some(verdict)) if verdict.candidate.policies.is_empty() => Judged::ByDefault,
        Ok(Some(verdict)) => Judged::Forbidden(verdict.candidate.policies),
        Ok(None) => Judged::Unclear(seen.thing.text()),
        Err(error) => Judged::Unclear(error.message),
    }
}

fn decide(
    bundle: &Bundle,
    host: &Host,
    oracle: &Oracle<'_>,
    subject: &str,
    seen: &Seen,
) -> Result<Option<Verdict>, Diagnostic> {
    let Some(words) = seen.thing.question(subject, &seen.action) else { return Ok(None) };
    let question = words.question(bundle, host, Attributes::Read)?;
    oracle.decide(&question.request).map(Some)
}

/// An include and what it would permit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cover {
    /// The include.
    pub include: String,
    /// How many templates it has.
    pub templates: usize,
    /// For each of what was seen, the template that permits it.
    pub by: Vec<Option<String>>,
}

/// What each shipped include would permit of `seen`.
///
/// # Errors
/// If the shipped includes cannot be read; that is a fault of Guard.
pub fn covers(host: &Host, seen: &[&Seen]) -> Result<Vec<Cover>, Diagnostics> {
    // One bundle with a subject for each include, which no process ever becomes.
    let includes = shipped_includes();
    let subject = |index: usize| format!("include-{index}");
    let mut toml = String::from("[bundle]\nname = \"includes\"\nversion = 1\nprofile = 1\n");
    for (index, include) in includes.iter().enumerate() {
        toml.push_str(&format!(
            "[subjects.{0}]\nselector = {{ exe = \"/nowhere/{0}\" }}\ngoverns = [\"*\"]\ninclude = [\"{include}\"]\n",
            subject(index)
        ));
    }
    let mut files = Files::new(Path::new("<includes>"));
    files.insert("guard.toml", toml.into_bytes())?;
    let bundle = policy::parse(&Opened { files, seal: None })?;
    let oracle = Oracle::new(&bundle, host, &policy::Facts::default())?;
    let of = |(index, include): (usize, &String)| {
        let subject = subject(index);
        let templates =
            oracle.set.policies.iter().filter(|one| one.subject.as_ref() == Some(&subject) && one.permit);
        let by = seen.iter().map(|one| match decide(&bundle, host, &oracle, &subject, one) {
            Ok(Some(verdict)) if verdict.candidate.allow => verdict.candidate.policies.into_iter().next(),
            _ => None,
        });
        Cover { include: include.clone(), templates: templates.count(), by: by.collect() }
    };
    Ok(includes.iter().enumerate().map(of).collect())
}

/// The includes to propose, in the order in which they cover most of what is left, and for each the
/// indices of what it covers. `wanted` says which of what was seen counts.
pub fn choose(covers: &[Cover], wanted: &[bool]) -> Vec<(String, Vec<usize>)> {
    let mut left: BTreeSet<usize> =
        wanted.iter().enumerate().filter(|(_, wanted)| **wanted).map(|(index, _)| index).collect();
    let mut chosen: Vec<(String, Vec<usize>)> = Vec::new();
    let plausible: Vec<&Cover> = covers.iter().filter(|cover| cover.is_plausible(&left)).collect();
    loop {
        let gain = |cover: &Cover| -> Vec<usize> {
            left.iter().copied().filter(|index| cover.by.get(*index).is_some_and(Option::is_some)).collect()
        };
        let best = plausible
            .iter()
            .map(|cover| (gain(cover), *cover))
            .filter(|(gain, _)| !gain.is_empty())
            .max_by_key(|(gain, cover)| (gain.len(), cover.is_general(), std::cmp::Reverse(&cover.include)));
        let Some((gain, cover)) = best else { return chosen };
        gain.iter().for_each(|index| {
            left.remove(index);
        });
        chosen.push((cover.include.clone(), gain));
    }
}

impl Cover {
    /// What almost every program needs, or every service: one operation is enough to propose it.
    fn is_general(&self) -> bool {
        self.include.starts_with("base/") || self.include.starts_with("service/")
    }

    /// Whether what was seen looks like what the include is for. A web server that reads one file of a
    /// run-time system's library does not run on it.
    fn is_plausible(&self, wanted: &BTreeSet<usize>) -> bool {
        // What builds its own namespaces is a person's decision.
        if ["sandbox/", "container/", "guard/"].iter().any(|kind| self.include.starts_with(kind)) {
            return false;
        }
        let used: BTreeSet<&String> =
            wanted.iter().filter_map(|index| self.by.get(*index)?.as_ref()).collect();
        !used.is_empty() && (self.is_general() || used.len() * 2 >= self.templates.max(2))
    }
}

#[cfg(test)]
mod tests {
    use super::super::seen::Thing;
    use super::*;
    use crate::host::Fixed;
    use std::sync::Arc;

    fn host() -> Host {
        let mount = "1 1 8:1 / / rw - ext4 /dev/sda rw\n";
        Host {
            mounts: crate::host::parse_mounts(mount.as_bytes()),
            resolvers: vec!["10.0.0.53".parse().unwrap()],
            protected: Vec::new(),
            undecided: 0,
            artifacts: Arc::default(),
            lookup: Arc::new(Fixed::default()),
        }
    }

    fn seen(action: &str, path: &str) -> Seen {
        Seen { action: action.into(), thing: Thing::Path(path.into()), count: 1, first: 0, last: 0 }
    }

    #[test]
    fn includes_come_before_literals_and_only_where_they_fit() {
        let all = [
            seen("file.read", "/etc/ld.so.cache"),
            seen("exec.map", "/usr/lib/x86_64-linux-gnu/libc.so.6"),
            seen("file.read", "/etc/resolv.conf"),
            seen("file.read", "/srv/www/index.html"),
            seen("file.read", "/usr/share/git-core/templates/description"),
        ];
        let seen: Vec<&Seen> = all.iter().collect();
        let covers = covers(&host(), &seen).unwrap();
        let chosen = choose(&covers, &[true; 5]);
        let names: Vec<_> = chosen.iter().map(|(name, _)| name.as_str()).collect();
        assert!(names.contains(&"base/dynamic-exec") && names.contains(&"base/name-resolution"), "{names:?}");
        assert!(
            !names.iter().any(|name| name.starts_with("lang/") || name.starts_with("sandbox/")),
            "{names:?}"
        );
        let covered: BTreeSet<usize> = chosen.iter().flat_map(|(_, indices)| indices.clone()).collect();
        assert!(!covered.contains(&3), "no include has the site");
    }

    #[test]
    fn no_shipped_include_permits_what_is_never_proposed() {
        let all = [
            "/etc/shadow",
            "/etc/gshadow",
            "/etc/ssl/private/host.key",
            "/etc/ssh/ssh_host_ed25519_key",
            "/root/.ssh/id_ed25519",
            "/home/ann/.aws/credentials",
            "/proc/kcore",
            "/run/secrets/token",
        ]
        .map(|path| seen("file.read", path));
        let seen: Vec<&Seen> = all.iter().collect();
        for cover in covers(&host(), &seen).unwrap() {
            let permitted: Vec<_> = cover
                .by
                .iter()
                .zip(&all)
                .filter(|(by, _)| by.is_some())
                .map(|(_, seen)| seen.thing.text())
                .collect();
            assert!(permitted.is_empty(), "{} permits {permitted:?}", cover.include);
        }
    }
}
