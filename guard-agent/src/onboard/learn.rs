//! A proposal for a subject, from what monitor mode reported of it. It is made of text; nothing is
//! applied.

use super::edit::Edited;
use super::judge::{Judged, choose, covers, judge};
use super::permits::{Permit, permits};
use super::places::Width;
use super::secrets::Secrets;
use super::seen::{Seen, Thing};
use super::shape::Shape;
use crate::bundle::Opened;
use crate::host::Host;
use crate::policy::{self, Bundle, Diagnostics, SubjectIds};

/// An include of a proposal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Used {
    /// Its name.
    pub include: String,
    /// Kinds of operations it covers.
    pub kinds: usize,
    /// Operations it covers.
    pub count: u64,
    /// Some of what it covers.
    pub examples: Vec<String>,
}

/// What the proposal does not cover.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// The action.
    pub action: String,
    /// What it was taken on.
    pub on: String,
    /// How often.
    pub count: u64,
    /// Why it is left out.
    pub why: String,
}

/// What would make enforcement go unnoticed.
#[derive(Debug)]
pub struct Proposal {
    /// Includes, those that cover most first.
    pub includes: Vec<Used>,
    /// Permits for what no include covers.
    pub permits: Vec<Permit>,
    /// Kinds of operations that the bundle permits by now.
    pub permitted: usize,
    /// Attempts on secrets. Nothing is proposed for them.
    pub secrets: Vec<LeftOut>,
    /// What a policy of the bundle forbids.
    pub forbidden: Vec<LeftOut>,
    /// What cannot be proposed for another reason.
    pub left_out: Vec<LeftOut>,
    /// The bundle with the includes and permits in it.
    pub edited: Edited,
}

impl Proposal {
    /// Whether there is nothing to add.
    pub fn is_empty(&self) -> bool {
        self.includes.is_empty() && self.permits.is_empty()
    }
}

/// Proposes what `bundle`, opened from `opened`, lacks for `seen` of `subject`.
///
/// # Errors
/// If the bundle or the proposal does not compile on this host.
pub fn propose(
    opened: &Opened,
    bundle: &Bundle,
    host: &Host,
    subject: &str,
    seen: &[Seen],
    secrets: &Secrets,
) -> Result<Proposal, Diagnostics> {
    let all: Vec<&Seen> = seen.iter().collect();
    let mut proposal = Proposal {
        includes: Vec::new(),
        permits: Vec::new(),
        permitted: 0,
        secrets: Vec::new(),
        forbidden: Vec::new(),
        left_out: Vec::new(),
        edited: Edited::new(opened.files.clone()),
    };
    let mut wanted: Vec<&Seen> = Vec::new();
    for (one, judged) in all.iter().zip(judge(bundle, host, subject, &all)?) {
        let left_out =
            |why: String| LeftOut { action: one.action.clone(), on: one.thing.text(), count: one.count, why };
        match judged {
            Judged::Permitted => proposal.permitted += 1,
            Judged::Forbidden(by) => {
                proposal.forbidden.push(left_out(format!("forbidden by {}", by.join(", "))))
            }
            Judged::Unclear(why) => proposal.left_out.push(left_out(why)),
            Judged::ByDefault => {
                match (one.thing.path().is_some_and(|path| secrets.holds(path)), unsafe_to_name(one)) {
                    (true, _) => proposal.secrets.push(left_out("a secret is never proposed".to_owned())),
                    (false, Some(why)) => proposal.left_out.push(left_out(why)),
                    (false, None) => wanted.push(one),
                }
            }
        }
    }
    let included = bundle.subjects().find(|known| known.name == subject).map(|known| known.include.clone());
    let included = included.unwrap_or_default();
    let covers: Vec<_> =
        covers(host, &wanted)?.into_iter().filter(|cover| !included.contains(&cover.include)).collect();
    let mut left = vec![true; wanted.len()];
    for (include, covered) in choose(&covers, &left.clone()) {
        covered.iter().for_each(|index| left[*index] = false);
        proposal
            .includes
            .push(used(include, &covered.iter().map(|index| wanted[*index]).collect::<Vec<_>>()));
    }
    let rest: Vec<&Seen> = wanted.iter().zip(&left).filter(|(_, left)| **left).map(|(one, _)| *one).collect();
    // What is proposed first may need more name patterns than a bundle can have.
    let mut first_error = None;
    for width in [Width::Siblings, Width::Exact] {
        let mut permits = permits(&rest, secrets, width);
        permits.sort_by(|a, b| b.kinds.cmp(&a.kinds).then_with(|| a.id.cmp(&b.id)));
        let mut edited = Edited::new(opened.files.clone());
        let includes: Vec<&str> = proposal.includes.iter().map(|one| one.include.as_str()).collect();
        if !includes.is_empty() {
            edited.include(subject, &includes)?;
        }
        if !permits.is_empty() {
            edited.permit(subject, &permits, secrets)?;
        }
        match compiled(&edited, host) {
            Ok(after) => {
                for (one, judged) in wanted.iter().zip(judge(&after, host, subject, &wanted)?) {
                    if judged != Judged::Permitted {
                        proposal.left_out.push(LeftOut {
                            action: one.action.clone(),
                            on: one.thing.text(),
                            count: one.count,
                            why: "what is proposed does not cover it: please report this".to_owned(),
                        });
                    }
                }
                proposal.permits = permits;
                proposal.edited = edited;
                return Ok(proposal);
            }
            Err(error) => {
                first_error.get_or_insert(error);
            }
        }
    }
    Err(first_error.unwrap_or_else(|| policy::Diagnostic::error("internal", "nothing was tried").into()))
}

/// The bundle as it would be, which compiles on this host.
///
/// # Errors
/// If it does not.
pub(super) fn compiled(edited: &Edited, host: &Host) -> Result<Bundle, Diagnostics> {
    let bundle = policy::parse(&Opened { files: edited.after.clone(), seal: None })?;
    policy::compile(&bundle, host, &mut SubjectIds::default())?;
    Ok(bundle)
}

fn used(include: String, covered: &[&Seen]) -> Used {
    const EXAMPLES: usize = 3;
    let mut by_count: Vec<&&Seen> = covered.iter().collect();
    by_count.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.thing.cmp(&b.thing)));
    let mut examples: Vec<String> = Vec::new();
    for one in by_count {
        let text = one.thing.text();
        if examples.len() < EXAMPLES && !examples.contains(&text) {
            examples.push(text);
        }
    }
    Used { include, kinds: covered.len(), count: covered.iter().map(|one| one.count).sum(), examples }
}

/// Why a person has to decide about it: what is proposed would be much more than what was seen, or
/// cannot be written.
fn unsafe_to_name(seen: &Seen) -> Option<String> {
    let path = seen.thing.path().or(match &seen.thing {
        Thing::Abstract(name) => Some(name.as_str()),
        _ => None,
    })?;
    if path.contains('*') || path.contains("${") || path.chars().any(char::is_control) {
        return Some("a policy cannot name it: it holds a *, a ${ or a control character".to_owned());
    }
    let name = path.rsplit('/').next().unwrap_or(path);
    if seen.action == "exec" && Shape::of(name) != Shape::Fixed && !name.contains("python") {
        let why = "it executes a file whose name looks made by chance: permit it by name if it is yours";
        return Some(why.to_owned());
    }
    let process =
        path.strip_prefix("/proc/").is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_digit()));
    if process {
        return Some(
            "the directory of another process: /proc as a whole shows every process's secrets".to_owned(),
        );
    }
    None
}

#[cfg(test)]
mod tests {
    use super::super::secrets::SHIPPED;
    use super::*;
    use crate::bundle::Files;
    use crate::host::Fixed;
    use std::path::Path;
    use std::sync::Arc;

    const TOML: &str = "[bundle]\nname = \"nginx\"\nversion = 1\nprofile = 1\n[modes]\nnginx = \"monitor\"\n\
         [subjects.nginx]\nselector = { unit = \"nginx.service\" }\ngoverns = [\"*\"]\ninclude = [\"base/devices\"]\n";
    const CEDAR: &str = "@id(\"program\")\npermit (principal == Guard::Subject::\"nginx\", action == Guard::Action::\"exec\", resource == Guard::File::\"/usr/sbin/nginx\");\n\
         @id(\"no-uploads\")\nforbid (principal == Guard::Subject::\"nginx\", action, resource in Guard::Dir::\"/srv/uploads\");\n";

    fn host() -> Host {
        let mounts = "1 1 8:1 / / rw - ext4 /dev/sda rw\n2 1 0:5 / /proc rw - proc proc rw\n3 1 0:6 / /dev rw - devtmpfs d rw\n";
        Host {
            mounts: crate::host::parse_mounts(mounts.as_bytes()),
            resolvers: Vec::new(),
            protected: Vec::new(),
            undecided: 0,
            artifacts: Arc::default(),
            lookup: Arc::new(Fixed::default()),
        }
    }

    fn opened() -> Opened {
        let mut files = Files::new(Path::new("bundle"));
        files.insert("guard.toml", TOML.into()).unwrap();
        files.insert("nginx.cedar", CEDAR.into()).unwrap();
        Opened { files, seal: None }
    }

    /// A morning of a web server under monitor mode.
    fn morning() -> Vec<Seen> {
        let path = |action: &str, path: &str, count| Seen {
            action: action.into(),
            thing: Thing::Path(path.into()),
            count,
            first: 0,
            last: 0,
        };
        let mut seen = vec![
            path("exec", "/usr/sbin/nginx", 2),
            path("file.read", "/dev/null", 4),
            path("file.read", "/etc/ld.so.cache", 2),
            path("file.read", "/usr/lib/x86_64-linux-gnu/libpcre2-8.so.0.11.2", 2),
            path("exec.map", "/usr/lib/x86_64-linux-gnu/libpcre2-8.so.0.11.2", 2),
            path("file.read", "/etc/nsswitch.conf", 2),
            path("file.read", "/etc/resolv.conf", 2),
            path("file.read", "/etc/passwd", 2),
            path("file.append", "/var/log/nginx/access.log", 2),
            path("file.append", "/var/log/nginx/error.log", 3),
            path("file.write", "/run/nginx.pid", 1),
            path("file.read", "/etc/shadow", 2),
            path("file.read", "/srv/uploads/x", 1),
            path("exec", "/tmp/aB3dE9", 1),
            path("dir.list", "/proc/812", 1),
            path("dir.list", "/etc/nginx/conf.d", 1),
            path("file.read", "/srv/we*rd", 1),
            Seen { thing: Thing::Builtin("Dir".into(), "guard:own-proc".into()), ..path("file.read", "", 7) },
            Seen {
                thing: Thing::Endpoint { address: [127, 0, 0, 1].into(), port: 8000, protocol: "tcp".into() },
                ..path("net.connect", "", 900)
            },
            Seen { thing: Thing::Nameless("no mount shows it".into()), ..path("file.read", "", 1) },
        ];
        for file in [
            "nginx.conf",
            "mime.types",
            "fastcgi.conf",
            "sites-enabled/default",
            "conf.d/a.conf",
            "proxy_params",
            "koi-utf",
        ] {
            seen.push(path("file.read", &format!("/etc/nginx/{file}"), 2));
        }
        for number in 1..=9 {
            seen.push(path("file.write", &format!("/var/lib/nginx/body/000000000{number}"), 1));
        }
        for page in ["index", "about", "news", "shop", "terms", "login"] {
            seen.push(path("file.read", &format!("/srv/www/{page}.html"), 1000));
        }
        seen
    }

    #[test]
    fn a_morning_becomes_few_policies_that_cover_it() {
        let (opened, host) = (opened(), host());
        let bundle = policy::parse(&opened).unwrap();
        let proposal = propose(&opened, &bundle, &host, "nginx", &morning(), &SHIPPED).unwrap();
        assert_eq!(proposal.permitted, 2, "the program and /dev/null");
        let includes: Vec<_> = proposal.includes.iter().map(|one| one.include.as_str()).collect();
        assert_eq!(includes[0], "base/dynamic-exec", "{includes:?}");
        assert!(
            includes.contains(&"base/own-proc") && includes.contains(&"base/name-resolution"),
            "{includes:?}"
        );
        assert!(includes.iter().all(|name| name.starts_with("base/")), "{includes:?}");
        let covers: Vec<_> = proposal
            .permits
            .iter()
            .map(|permit| format!("{} {}", permit.actions.join("+"), permit.covers))
            .collect();
        for wanted in [
            "file.write /var/lib/nginx/body and below",
            "file.read /srv/www and below",
            "read /etc/nginx and below",
            "file.append 2 files in /var/log/nginx",
            "file.write /run/nginx.pid",
            "net.connect 127.0.0.1/32, port 8000, tcp",
        ] {
            assert!(covers.iter().any(|text| text == wanted), "{wanted}: {covers:?}");
        }
        let texts = |left_out: &[LeftOut]| left_out.iter().map(|one| one.on.clone()).collect::<Vec<_>>();
        assert_eq!(texts(&proposal.secrets), ["/etc/shadow"]);
        assert_eq!(texts(&proposal.forbidden), ["/srv/uploads/x"]);
        assert!(proposal.forbidden[0].why.contains("nginx/no-uploads"));
        assert_eq!(
            texts(&proposal.left_out),
            ["/tmp/aB3dE9", "/proc/812", "/srv/we*rd", "no mount shows it"]
        );
    }

    #[test]
    fn what_is_proposed_is_never_a_secret() {
        let (opened, host) = (opened(), host());
        let bundle = policy::parse(&opened).unwrap();
        let proposal = propose(&opened, &bundle, &host, "nginx", &morning(), &SHIPPED).unwrap();
        let after = compiled(&proposal.edited, &host).unwrap();
        let secrets = [
            "/srv/www/.env",
            "/srv/www/.ssh/id_rsa",
            "/etc/nginx/site.key",
            "/etc/nginx/privkey.pem",
            "/var/lib/nginx/body/.aws/credentials",
            "/etc/shadow",
            "/etc/ssh/ssh_host_rsa_key",
        ];
        for (action, path) in
            ["file.read", "file.write"].iter().flat_map(|action| secrets.map(|path| (action, path)))
        {
            let seen = Seen {
                action: (*action).into(),
                thing: Thing::Path(path.into()),
                count: 1,
                first: 0,
                last: 0,
            };
            assert_eq!(
                judge(&after, &host, "nginx", &[&seen]).unwrap(),
                [Judged::ByDefault],
                "{action} {path}"
            );
        }
    }

    #[test]
    fn a_second_time_there_is_nothing_left() {
        let (opened, host) = (opened(), host());
        let bundle = policy::parse(&opened).unwrap();
        let proposal = propose(&opened, &bundle, &host, "nginx", &morning(), &SHIPPED).unwrap();
        let again = Opened { files: proposal.edited.after.clone(), seal: None };
        let bundle = policy::parse(&again).unwrap();
        let second = propose(&again, &bundle, &host, "nginx", &morning(), &SHIPPED).unwrap();
        assert!(second.is_empty() && second.edited.diff().is_empty(), "{second:?}");
        assert_eq!(second.secrets, proposal.secrets);
    }
}
