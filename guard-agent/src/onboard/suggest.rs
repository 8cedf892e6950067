//! What would permit one operation that was denied: a few changes of the bundle, from the narrowest
//! on. They are text; nothing is applied.

use std::path::Path;

use super::edit::Edited;
use super::judge::{Judged, covers, judge};
use super::learn::compiled;
use super::peers::{is_passive, network, single};
use super::permits::{Permit, permits, slug};
use super::places::{Width, split};
use super::plan::{is_shared, quoted};
use super::secrets::Secrets;
use super::seen::{Seen, Thing, kind_of};
use crate::bundle::Opened;
use crate::host::Host;
use crate::policy::{Bundle, Diagnostics, EffectiveSet, Facts};

/// One way to permit it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suggestion {
    /// In a few words.
    pub title: String,
    /// What it would newly allow besides the operation, a line each.
    pub allows: Vec<String>,
    /// The change of the bundle's files, a unified diff.
    pub diff: String,
}

/// What can be said about a denial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Advice {
    /// The bundle permits it by now.
    Permitted,
    /// These policies forbid it, and no permit changes that.
    Forbidden(Vec<String>),
    /// It is one of what Guard never proposes to permit.
    Secret,
    /// It cannot be named, and why.
    Unclear(String),
    /// Nothing permits it; these changes would. What could not be suggested is said behind.
    Suggestions(Vec<Suggestion>, Vec<String>),
}

/// Includes of one list, at most.
const INCLUDES: usize = 2;

/// What would permit `seen` of `subject`.
///
/// # Errors
/// If the bundle does not compile on this host.
pub fn suggest(
    opened: &Opened,
    bundle: &Bundle,
    host: &Host,
    subject: &str,
    seen: &Seen,
    secrets: &Secrets,
) -> Result<Advice, Diagnostics> {
    match judge(bundle, host, subject, &[seen])?.into_iter().next() {
        Some(Judged::ByDefault) => {}
        Some(Judged::Permitted) => return Ok(Advice::Permitted),
        Some(Judged::Forbidden(by)) => return Ok(Advice::Forbidden(by)),
        Some(Judged::Unclear(why)) => return Ok(Advice::Unclear(why)),
        None => return Ok(Advice::Unclear(seen.thing.text())),
    }
    if seen.thing.path().is_some_and(|path| secrets.holds(path)) {
        return Ok(Advice::Secret);
    }
    let job = Job { opened, bundle, host, subject, seen, secrets };
    let (mut found, mut missing) = (Vec::new(), Vec::new());
    for permit in permits(&[seen], secrets, Width::Exact) {
        found.extend(job.permit("this", Permit { kinds: 0, ..permit }, Vec::new()));
    }
    // Where chance made the name, the next one will be another.
    for permit in permits(&[seen], secrets, Width::Chance) {
        if permit.except_secrets {
            let title = format!("what is called so: {}", permit.covers);
            found.extend(job.permit(&title, Permit { kinds: 0, ..permit }, Vec::new()));
        }
    }
    let includes = job.includes()?;
    if includes.is_empty() {
        missing.push("no include covers it".to_owned());
    }
    found.extend(includes);
    match job.wider() {
        Ok(suggestion) => found.extend(suggestion),
        Err(why) => missing.push(why),
    }
    Ok(Advice::Suggestions(found, missing))
}

struct Job<'a> {
    opened: &'a Opened,
    bundle: &'a Bundle,
    host: &'a Host,
    subject: &'a str,
    seen: &'a Seen,
    secrets: &'a Secrets,
}

impl Job<'_> {
    /// The suggestion to add a permit; nothing if that would not help.
    fn permit(&self, title: &str, permit: Permit, allows: Vec<String>) -> Option<Suggestion> {
        let title = if title == "this" { format!("this only: {}", permit.covers) } else { title.to_owned() };
        let mut edited = Edited::new(self.opened.files.clone());
        edited.permit(self.subject, &[permit], self.secrets).ok()?;
        self.if_it_helps(title, edited, allows)
    }

    fn if_it_helps(&self, title: String, edited: Edited, allows: Vec<String>) -> Option<Suggestion> {
        let after = compiled(&edited, self.host).ok()?;
        let judged = judge(&after, self.host, self.subject, &[self.seen]).ok()?;
        (judged == [Judged::Permitted]).then(|| Suggestion { title, allows, diff: edited.diff() })
    }

    /// The includes that would cover it, those with the fewest templates first.
    fn includes(&self) -> Result<Vec<Suggestion>, Diagnostics> {
        let included = self.bundle.subjects().find(|known| known.name == self.subject);
        let included = included.map(|known| known.include.clone()).unwrap_or_default();
        let mut covers = covers(self.host, &[self.seen])?;
        covers.retain(|cover| !included.contains(&cover.include) && cover.by.iter().any(Option::is_some));
        covers.sort_by_key(|cover| {
            (!cover.include.starts_with("base/"), cover.templates, cover.include.clone())
        });
        let mut found = Vec::new();
        for cover in covers.iter().take(INCLUDES) {
            let mut edited = Edited::new(self.opened.files.clone());
            edited.include(self.subject, &[&cover.include])?;
            let allows = match compiled(&edited, self.host) {
                Ok(after) => rights(&after, self.host, self.subject, &cover.include),
                Err(_) => continue,
            };
            found.extend(self.if_it_helps(format!("the include {}", cover.include), edited, allows));
        }
        Ok(found)
    }

    /// The directory or the network, or why there is none to suggest.
    fn wider(&self) -> Result<Option<Suggestion>, String> {
        match &self.seen.thing {
            Thing::Path(path) if self.seen.action == "exec" => {
                Err(format!("what may be executed is named one by one, so not {}", split(path).0))
            }
            Thing::Path(path) | Thing::Directory(path) => self.directory(path),
            Thing::Endpoint { address, port, protocol } => {
                let (base, length) = network(*address);
                if address.is_loopback() || address.is_unspecified() {
                    return Err("no network: other services of this host are there too".to_owned());
                }
                let net = format!("{base}/{length}");
                let verb = self.seen.action.trim_start_matches("net.");
                // Far ends choose their ports by chance.
                let (id, on, text) = if is_passive(&self.seen.action) {
                    (verb.to_owned(), String::new(), "any port".to_owned())
                } else {
                    (format!("{verb}-{port}"), format!(" && resource.port == {port}"), format!("port {port}"))
                };
                let permit = Permit {
                    id: slug(&id),
                    actions: vec![self.seen.action.clone()],
                    resources: vec![format!(
                        "resource in Guard::Net::\"{net}\"{on} && resource.protocol == {}",
                        quoted(protocol)
                    )],
                    except_secrets: false,
                    kinds: 0,
                    count: 0,
                    covers: format!("{net}, {text}, {protocol}"),
                };
                let allows = vec![format!("{text} of every address in {net}, not only {}", single(*address))];
                Ok(self.permit(&format!("its network: {net}"), permit, allows))
            }
            _ => Ok(None),
        }
    }

    fn directory(&self, path: &str) -> Result<Option<Suggestion>, String> {
        let directory = if kind_of(&self.seen.action) == "Dir" { path } else { split(path).0 };
        if is_shared(Path::new(directory)) {
            return Err(format!("no directory: {directory} holds the files of others too"));
        }
        if self.secrets.within(directory) {
            return Err(format!("no directory: {directory} holds secrets that Guard never proposes"));
        }
        let permit = Permit {
            id: slug(directory),
            actions: vec![self.seen.action.clone()],
            resources: vec![format!("resource in Guard::Dir::{}", quoted(directory))],
            except_secrets: true,
            kinds: 0,
            count: 0,
            covers: format!("{directory} and below"),
        };
        let there = match files_below(Path::new(directory)) {
            Some(1) => "1 file that is".to_owned(),
            Some(count) => format!("{count} files that are"),
            None => format!("more than {MANY_FILES} files that are"),
        };
        let allows = vec![
            format!("{}: {there} below {directory} now, and all that come later", self.seen.action),
            "not: what is secret by its name, such as .ssh and *.key".to_owned(),
        ];
        Ok(self.permit(&format!("its directory: {directory}"), permit, allows))
    }
}

/// What an include permits, a line for each of its policies.
fn rights(bundle: &Bundle, host: &Host, subject: &str, include: &str) -> Vec<String> {
    let Ok(set) = EffectiveSet::new(bundle, host, &Facts::default()) else { return Vec::new() };
    let own = set.policies.iter().filter(|policy| {
        policy.permit
            && policy.subject.as_deref() == Some(subject)
            && policy.id.split(['@', ':']).next() == Some(include)
    });
    own.map(|policy| {
        let what = policy.condition_text().unwrap_or_else(|| policy.resource_text());
        format!("{}: {}", policy.actions_text(), what.replace("Guard::", ""))
    })
    .collect()
}

/// More files than this are not counted.
const MANY_FILES: usize = 10_000;

/// How many files are below a directory now; nothing if they are too many to count.
fn files_below(directory: &Path) -> Option<usize> {
    let (mut count, mut steps, mut rest) = (0, 0, vec![directory.to_owned()]);
    while let Some(directory) = rest.pop() {
        for entry in std::fs::read_dir(&directory).into_iter().flatten().flatten() {
            steps += 1;
            if steps > MANY_FILES {
                return None;
            }
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => rest.push(entry.path()),
                _ => count += 1,
            }
        }
    }
    Some(count)
}

#[cfg(test)]
mod tests {
    use super::super::secrets::SHIPPED;
    use super::*;
    use crate::bundle::Files;
    use crate::host::Fixed;
    use crate::policy;
    use std::sync::Arc;

    const TOML: &str = "[bundle]\nname = \"web\"\nversion = 1\nprofile = 1\n[subjects.web]\nselector = { unit = \"web.service\" }\n\
         governs = [\"*\"]\ninclude = [\"base/devices\"]\n";
    const CEDAR: &str = "@id(\"site\")\npermit (principal == Guard::Subject::\"web\", action == Guard::Action::\"file.read\", resource in Guard::Dir::\"/srv/www\");\n\
         @id(\"no-uploads\")\nforbid (principal == Guard::Subject::\"web\", action, resource in Guard::Dir::\"/srv/uploads\");\n";

    fn advice(action: &str, thing: Thing) -> Advice {
        let host = Host {
            mounts: crate::host::parse_mounts(b"1 1 8:1 / / rw - ext4 /dev/sda rw\n"),
            resolvers: Vec::new(),
            protected: Vec::new(),
            undecided: 0,
            artifacts: Arc::default(),
            lookup: Arc::new(Fixed::default()),
        };
        let mut files = Files::new(Path::new("bundle"));
        files.insert("guard.toml", TOML.into()).unwrap();
        files.insert("web.cedar", CEDAR.into()).unwrap();
        let opened = Opened { files, seal: None };
        let bundle = policy::parse(&opened).unwrap();
        let seen = Seen { action: action.into(), thing, count: 1, first: 0, last: 0 };
        suggest(&opened, &bundle, &host, "web", &seen, &SHIPPED).unwrap()
    }

    fn path(action: &str, path: &str) -> Advice {
        advice(action, Thing::Path(path.into()))
    }

    #[test]
    fn a_file_is_suggested_by_itself_and_with_its_directory() {
        let Advice::Suggestions(found, missing) = path("file.read", "/srv/private/x") else { panic!() };
        let titles: Vec<_> = found.iter().map(|one| one.title.as_str()).collect();
        assert_eq!(titles, ["this only: /srv/private/x", "its directory: /srv/private"]);
        assert_eq!(missing, ["no include covers it"]);
        assert!(found[0].diff.contains("\n+permit (principal == Guard::Subject::\"web\", action == Guard::Action::\"file.read\",\n+        resource == Guard::File::\"/srv/private/x\");\n"), "{}", found[0].diff);
        assert!(
            found[0].diff.starts_with("--- a/web.cedar\n+++ b/web.cedar\n@@ -2,3 +2,8 @@\n"),
            "{}",
            found[0].diff
        );
        assert!(
            found[1].diff.contains("resource in Guard::Dir::\"/srv/private\")")
                && found[1].diff.contains("unless {")
        );
    }

    #[test]
    fn an_include_is_a_change_of_guard_toml_with_what_it_allows() {
        let Advice::Suggestions(found, missing) = path("file.read", "/etc/resolv.conf") else { panic!() };
        let include = found.iter().find(|one| one.title == "the include base/name-resolution").unwrap();
        assert!(
            include.diff.contains("+include = [\"base/devices\", \"base/name-resolution\"]"),
            "{}",
            include.diff
        );
        assert!(include.allows.iter().any(|line| line.contains("/etc/hosts")), "{:?}", include.allows);
        assert_eq!(missing, ["no directory: /etc holds the files of others too"]);
    }

    #[test]
    fn addresses_are_suggested_with_their_port() {
        let thing = Thing::Endpoint { address: [10, 1, 2, 3].into(), port: 5432, protocol: "tcp".into() };
        let Advice::Suggestions(found, _) = advice("net.connect", thing) else { panic!() };
        let titles: Vec<_> = found.iter().map(|one| one.title.as_str()).collect();
        assert_eq!(titles, ["this only: 10.1.2.3/32, port 5432, tcp", "its network: 10.1.2.0/24"]);
    }

    #[test]
    fn a_name_of_chance_is_suggested_by_what_is_fixed_of_it() {
        let Advice::Suggestions(found, _) = path("file.write", "/var/spool/app/job-6f1c2a3b4d5e6f70") else {
            panic!()
        };
        assert_eq!(found[1].title, "what is called so: job-* below /var/spool/app");
    }

    #[test]
    fn what_no_permit_can_help_is_said() {
        assert_eq!(path("file.read", "/srv/www/index.html"), Advice::Permitted);
        assert_eq!(path("file.read", "/srv/uploads/x"), Advice::Forbidden(vec!["web/no-uploads".to_owned()]));
        assert_eq!(path("file.read", "/etc/shadow"), Advice::Secret);
        assert_eq!(path("file.read", "/srv/tls/site.key"), Advice::Secret);
        let nameless = Thing::Nameless("no mount shows it".to_owned());
        assert_eq!(advice("file.read", nameless), Advice::Unclear("no mount shows it".to_owned()));
    }
}
