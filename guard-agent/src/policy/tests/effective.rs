//! The effective policy set, as it is shown and as it is asked.

use super::*;

const RULES: &str = "[facts]\ntrust = { type = \"long\" }\n[approvals]\nl = { approvers = [\"group:x\"], max = \"1h\" }\n\
    [subjects.web]\nselector = { user = \"web\" }\ngroups = [\"g\"]\ngoverns = [\"read\"]\ninclude = [\"base/devices\"]\n\
    [subjects.job]\nselector = { user = \"ci\" }\ngoverns = [\"*\"]\n";

const CEDAR: &str = "@id(\"python\") permit (principal, action == Guard::Action::\"file.read\", resource == Guard::File::\"/bin/python\");\n\
    @id(\"served\") permit (principal == Guard::Subject::\"web\", action in Guard::Action::\"read\", resource in Guard::Dir::\"/mnt/www\");\n\
    @id(\"trusted\") @reason(\"only \\\"trusted\\\" hosts\") forbid (principal in Guard::Group::\"g\", action == Guard::Action::\"file.read\", resource in Guard::Dir::\"/home\") \
    when { context.posture has trust && context.posture.trust < 3 };\n\
    @id(\"tree\") permit (principal == Guard::Subject::\"job\", action, resource in Guard::Dir::\"${session.tree}\");\n";

fn bundle() -> Bundle {
    let toml = format!("{TOML}{RULES}");
    let directory = Directory::new(&[("guard.toml", &toml), ("p.cedar", CEDAR)]);
    load(&directory.0).unwrap_or_else(|errors| panic!("{errors}"))
}

fn reads(subject: &str, path: &str) -> Request {
    Request {
        subject: subject.into(),
        action: "file.read".into(),
        resource: Resource::File(Spot::Path(path.into())),
        attributes: file(0, false),
        within: Vec::new(),
    }
}

#[test]
fn the_effective_set_is_valid_cedar_that_shows_what_is_meant() {
    let (bundle, host) = (bundle(), host());
    let set = EffectiveSet::new(&bundle, &host, &Facts::default()).unwrap();
    valid(&bundle, &set);
    let text = set.text(&bundle, None).unwrap();
    for expected in [
        "Guard::File::\"/usr/bin/python3.11\"",
        "@id(\"base/devices@web\")",
        "principal == Guard::Subject::\"web\"",
        "!(context.posture has trust)",
        ", rewritten to fail closed",
        "@reason(\"only \\\"trusted\\\" hosts\")",
        "generated/ungoverned@web",
        "left out: p/tree, the session variable tree has no value",
        "builtin/canary",
    ] {
        assert!(text.contains(expected), "{expected} is missing in\n{text}");
    }
    let job = set.text(&bundle, Some("job")).unwrap();
    assert!(job.contains("p/python") && !job.contains("p/served") && !job.contains("p/trusted"), "{job}");
    assert_eq!(set.get("p/trusted").unwrap().origin.as_ref().unwrap().line(), 3);
}

#[test]
fn an_answer_names_the_policies_that_decided() {
    let (bundle, host) = (bundle(), host());
    let decide = |facts: &Facts, request: &Request| {
        let verdict = Oracle::new(&bundle, &host, facts).unwrap().decide(request).unwrap();
        (verdict.allowed(), verdict.enforced.policies)
    };
    let facts = Facts::default();
    let named = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    assert_eq!(decide(&facts, &reads("web", "/usr/bin/python3.11")), (true, named(&["p/python"])));
    assert_eq!(decide(&facts, &reads("web", "/srv/www/a")), (true, named(&["p/served"])), "the same place");
    assert_eq!(decide(&facts, &reads("web", "/etc/x")), (false, named(&[])));
    assert_eq!(
        decide(&facts, &reads("web", "/home/x")),
        (false, named(&["p/trusted"])),
        "the fact is absent"
    );
    let trusted = Facts { posture: [("trust".to_owned(), FactValue::Long(3))].into(), ..Facts::default() };
    assert_eq!(decide(&trusted, &reads("web", "/home/x")), (false, named(&[])));
    assert_eq!(decide(&facts, &reads("nobody", "/usr/bin/python3.11")), (false, named(&[])));
    let writes = Request { action: "file.write".into(), ..reads("web", "/etc/x") };
    assert_eq!(decide(&facts, &writes), (true, named(&["generated/ungoverned@web"])));
    let tree = Facts { session: [("tree".to_owned(), "/data".to_owned())].into(), ..Facts::default() };
    assert_eq!(decide(&tree, &reads("job", "/data/deep/mount/x")), (true, named(&["p/tree"])));
}
