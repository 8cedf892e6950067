//! Who may ask Guard for what.

use super::verbs::{TABLE, Verb};
use super::*;

const RULES: &str = "[facts]\ncalm = { type = \"bool\" }\n[approvals]\nl = { approvers = [\"group:x\"], max = \"1h\" }\n\
    [subjects.web]\nselector = { user = \"web\" }\ngroups = [\"critical\"]\ngoverns = [\"read\"]\n\
    [subjects.bot]\nselector = { user = \"ci\" }\ngoverns = [\"read\"]\n";

fn bundle(cedar: &str) -> Bundle {
    let directory = Directory::new(&[("guard.toml", &format!("{TOML}{RULES}")), ("ops.cedar", cedar)]);
    load(&directory.0).unwrap_or_else(|errors| panic!("{errors}"))
}

fn user(roles: &[&str]) -> Principal {
    let roles = roles.iter().map(|role| (*role).to_owned()).collect();
    Principal::User { name: "ann".to_owned(), roles }
}

fn subject(name: &str) -> Principal {
    Principal::Subject(name.to_owned())
}

fn on(name: &str) -> On {
    On::Subject(name.to_owned())
}

/// Something of each kind that an action can be asked on.
fn targets(verb: Verb) -> Vec<On> {
    let target = |target: &verbs::Target| match target {
        verbs::Target::Subject => on("web"),
        verbs::Target::Process => On::Processes("unit:x.service".to_owned()),
        verbs::Target::Approval => On::Approval("l".to_owned()),
        verbs::Target::Machine => On::Machine,
    };
    verb.row().targets.iter().map(target).collect()
}

fn may(gate: &Gate, who: &Principal, verb: Verb, on: &On) -> bool {
    gate.decide(who, verb, on, &Facts::default(), &Session::default()).is_permitted()
}

#[test]
fn every_role_has_what_its_name_says_and_nothing_else() {
    use Verb::*;
    let gate = Gate::new(&bundle("")).unwrap();
    let all: Vec<Verb> = TABLE.iter().map(|row| row.verb).collect();
    for (role, verbs) in [
        ("viewer", vec![View, Adopt]),
        ("responder", vec![View, Request, Adopt, Quarantine, Release, Inspect]),
        ("approver", vec![View, Adopt, Approve, Lease]),
        ("policy", vec![View, Adopt, Mode, Shadow, Apply, Rollback]),
        ("admin", all.clone()),
        // Nobody needs a role to open a session where the subject's definition lets them.
        ("nobody", vec![Adopt]),
    ] {
        let who = user(&[role]);
        for verb in &all {
            for on in targets(*verb) {
                assert_eq!(may(&gate, &who, *verb, &on), verbs.contains(verb), "{role} {} {on}", verb.name());
            }
            assert_eq!(gate.could(&who, *verb), verbs.contains(verb), "{role} {}", verb.name());
        }
    }
    // Several roles add up.
    let both = user(&["responder", "approver"]);
    assert!(
        may(&gate, &both, Quarantine, &on("web")) && may(&gate, &both, Approve, &On::Approval("l".into()))
    );
    assert!(!may(&gate, &both, Disarm, &On::Machine));
    let by = gate.decide(&both, View, &On::Machine, &Facts::default(), &Session::default());
    let roles = vec!["approver".to_owned(), "responder".to_owned()];
    assert_eq!(by, Ruling::Permitted { roles, policies: Vec::new() });
    assert_eq!(gate.roles_with(Approve), ["admin", "approver"]);
    assert_eq!(gate.verbs_of("viewer"), [View]);
}

#[test]
fn a_labelled_caller_has_only_what_concerns_itself() {
    let gate = Gate::new(&bundle("")).unwrap();
    for row in TABLE {
        for target in targets(row.verb) {
            let wanted = match row.verb {
                Verb::View => target == on("web"),
                Verb::Request | Verb::Adopt => true,
                _ => false,
            };
            assert_eq!(may(&gate, &subject("web"), row.verb, &target), wanted, "{} {target}", row.name);
        }
    }
    assert!(!may(&gate, &subject("bot"), Verb::View, &on("web")), "another subject");
}

#[test]
fn a_bundle_gives_and_takes_away() {
    let gate = Gate::new(&bundle(
        "@id(\"contain\") permit (principal == Guard::Subject::\"bot\", action == Guard::Action::\"guard.quarantine\", resource);\n\
         @id(\"pager\") permit (principal == Guard::User::\"ann\", action == Guard::Action::\"guard.quarantine\", resource is Guard::Subject);\n\
         @id(\"deployers\") permit (principal in Guard::Role::\"deployer\", action == Guard::Action::\"guard.apply\", resource);\n\
         @id(\"crown-jewels\") @reason(\"page a human\") forbid (principal, action == Guard::Action::\"guard.quarantine\", resource)\n\
         when { resource in Guard::Group::\"critical\" };\n\
         @id(\"no-requests\") forbid (principal == Guard::Subject::\"bot\", action == Guard::Action::\"guard.request\", resource);\n\
         @id(\"seen\") @mode(\"monitor\") permit (principal in Guard::Role::\"viewer\", action == Guard::Action::\"guard.disarm\", resource);\n",
    ))
    .unwrap();
    assert!(may(&gate, &subject("bot"), Verb::Quarantine, &On::Machine));
    assert!(may(&gate, &subject("bot"), Verb::Quarantine, &on("bot")));
    assert!(!may(&gate, &subject("web"), Verb::Quarantine, &on("bot")));
    assert!(
        may(&gate, &user(&[]), Verb::Quarantine, &on("bot"))
            && !may(&gate, &user(&[]), Verb::Release, &on("bot"))
    );
    assert!(may(&gate, &user(&["deployer"]), Verb::Apply, &On::Machine));
    assert!(!may(&gate, &user(&["viewer"]), Verb::Disarm, &On::Machine), "a policy in monitor mode");
    assert_eq!(gate.roles_with(Verb::Apply), ["admin", "deployer", "policy"]);
    for who in [subject("bot"), user(&["responder"])] {
        let ruling = gate.decide(&who, Verb::Quarantine, &on("web"), &Facts::default(), &Session::default());
        let (forbidden, reason) = (Some("ops/crown-jewels".to_owned()), Some("page a human".to_owned()));
        assert_eq!(ruling, Ruling::Refused { forbidden, reason });
    }
    let l = On::Approval("l".to_owned());
    assert!(
        !may(&gate, &subject("bot"), Verb::Request, &l) && may(&gate, &subject("web"), Verb::Request, &l)
    );
    let by = gate.decide(&user(&[]), Verb::Quarantine, &on("bot"), &Facts::default(), &Session::default());
    assert_eq!(by, Ruling::Permitted { roles: Vec::new(), policies: vec!["ops/pager".to_owned()] });
}

#[test]
fn a_permit_for_every_action_gives_nobody_the_agent_and_a_forbid_counts() {
    let gate = Gate::new(&bundle(
        "@id(\"all\") permit (principal, action, resource);\n\
         @id(\"read\") permit (principal, action in Guard::Action::\"*\", resource);\n",
    ))
    .unwrap();
    for row in TABLE.iter().filter(|row| row.verb != Verb::Adopt) {
        for target in targets(row.verb) {
            assert!(!may(&gate, &user(&[]), row.verb, &target), "{}", row.name);
        }
    }
    assert!(!may(&gate, &subject("web"), Verb::Quarantine, &on("web")));
    let gate = Gate::new(&bundle("@id(\"none\") forbid (principal, action, resource);\n")).unwrap();
    assert!(!may(&gate, &user(&["admin"]), Verb::View, &On::Machine));
}

#[test]
fn what_is_for_people_is_for_no_subject_whatever_a_policy_says() {
    let gate = Gate::new(&bundle(
        "@id(\"own\") permit (principal, action in Guard::Action::\"guard.*\", resource);\n",
    ))
    .unwrap();
    for row in TABLE {
        let can = row.askers.contains(&verbs::Asker::Subject);
        for target in targets(row.verb) {
            assert_eq!(may(&gate, &subject("web"), row.verb, &target), can, "{}", row.name);
            assert!(may(&gate, &user(&[]), row.verb, &target), "{}", row.name);
        }
    }
    // A policy that names one of them for subjects is a mistake, and said to be one.
    for (principal, verb) in [
        ("principal == Guard::Subject::\"web\"", "guard.apply"),
        ("principal in Guard::Group::\"critical\"", "guard.approve"),
        ("principal is Guard::Subject", "guard.disarm"),
    ] {
        let cedar =
            format!("@id(\"x\") permit ({principal}, action == Guard::Action::\"{verb}\", resource);");
        let error = Gate::new(&bundle(&cedar)).unwrap_err().to_string();
        assert!(error.contains(verb) && error.contains("for people"), "{error}");
        assert!(compile(&bundle(&cedar), &host(), &mut SubjectIds::default()).is_err(), "{verb}");
    }
}

#[test]
fn conditions_ask_for_what_holds_and_fail_closed() {
    let cedar = "@id(\"calm\") forbid (principal, action == Guard::Action::\"guard.apply\", resource)\n\
         when { context.posture has calm && !context.posture.calm };\n\
         @id(\"at-a-terminal\") permit (principal in Guard::Role::\"viewer\", action == Guard::Action::\"guard.rollback\", resource)\n\
         when { context.session.tty };\n";
    let bundle = bundle(cedar);
    let gate = Gate::new(&bundle).unwrap();
    assert!(gate.asks_for_context() && !Gate::new(&self::bundle("")).unwrap().asks_for_context());
    let policy = user(&["policy"]);
    let apply = |posture: Option<bool>| {
        let posture = posture.map(|calm| ("calm".to_owned(), FactValue::Bool(calm)));
        let facts = Facts { posture: posture.into_iter().collect(), ..Facts::default() };
        gate.decide(&policy, Verb::Apply, &On::Machine, &facts, &Session::default()).is_permitted()
    };
    assert_eq!([Some(true), Some(false), None].map(apply), [true, false, false], "the absent fact denies");
    let terminal = Session { tty: true, ..Session::default() };
    let rollback = |session: &Session| {
        gate.decide(&user(&["viewer"]), Verb::Rollback, &On::Machine, &Facts::default(), session)
            .is_permitted()
    };
    assert!(rollback(&terminal) && !rollback(&Session::default()));
}

#[test]
fn what_guards_own_api_is_about_is_in_no_table() {
    let cedar = "@id(\"api\") permit (principal, action in Guard::Action::\"guard.*\", resource);\n";
    let (plain, with) = (bundle(""), bundle(cedar));
    let host = host();
    let sizes = |bundle: &Bundle| {
        let compiled =
            compile(bundle, &host, &mut SubjectIds::default()).unwrap_or_else(|errors| panic!("{errors}"));
        format!("{:?}", compiled.sizes)
    };
    assert_eq!(sizes(&plain), sizes(&with));
}

#[test]
fn the_oracle_answers_as_the_gate_does() {
    let bundle = bundle(
        "@id(\"all\") permit (principal, action, resource);\n\
         @id(\"contain\") permit (principal == Guard::Subject::\"bot\", action == Guard::Action::\"guard.quarantine\", resource);\n",
    );
    let (gate, host) = (Gate::new(&bundle).unwrap(), host());
    let oracle = Oracle::new(&bundle, &host, &Facts::default()).unwrap();
    for name in ["web", "bot"] {
        for row in TABLE {
            for target in targets(row.verb) {
                let resource = match &target {
                    On::Subject(name) => Resource::Subject(name.clone()),
                    On::Processes(id) => Resource::Process { id: id.clone(), subject: None },
                    On::Approval(name) => Resource::Approval(name.clone()),
                    On::Machine => Resource::Machine,
                };
                let request = Request {
                    subject: name.to_owned(),
                    action: row.name.to_owned(),
                    resource,
                    attributes: Attributes::default(),
                    listener: None,
                    within: Vec::new(),
                };
                let verdict = oracle.decide(&request).unwrap();
                let wanted = may(&gate, &subject(name), row.verb, &target);
                assert_eq!(verdict.allowed(), wanted, "{name} {} {target}", row.name);
            }
        }
    }
}

#[test]
fn the_shipped_roles_are_shown_with_the_policies_in_force() {
    let (bundle, host) = (bundle(""), host());
    let set = EffectiveSet::new(&bundle, &host, &Facts::default()).unwrap();
    let text = set.text(&bundle, None).unwrap();
    for id in
        ["roles/viewer", "roles/responder", "roles/approver", "roles/policy", "roles/admin", "roles/ask"]
    {
        assert!(text.contains(&format!("@id(\"{id}\")")), "{id} is missing in\n{text}");
    }
    let web = set.text(&bundle, Some("web")).unwrap();
    assert!(web.contains("roles/own-denials") && !web.contains("roles/viewer"), "{web}");
}
