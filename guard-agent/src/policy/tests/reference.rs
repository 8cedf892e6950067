//! The reference bundle: what Cedar answers, the compiled tables answer.

use std::collections::BTreeSet;
use std::net::IpAddr;

use guard_common::class;
use serde_json::Value;

use super::*;

/// Resources that no kernel table is about, so that their requests cannot be answered by [`decide`]:
/// those of Guard's own API.
const NOT_IN_TABLES: [&str; 1] = ["Subject"];
/// How many of the requests that is.
const SKIPPED: usize = 4;

fn strings(value: &Value) -> BTreeSet<String> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn facts(case: &Value) -> Facts {
    let posture = case["posture"].as_object().into_iter().flatten().map(|(name, value)| {
        let value = match value {
            Value::Bool(value) => FactValue::Bool(*value),
            Value::Number(number) => FactValue::Long(number.as_i64().unwrap()),
            other => FactValue::String(other.as_str().unwrap().to_owned()),
        };
        (name.clone(), value)
    });
    let session = [("worktree", "/home/ann/src/app"), ("state", "/home/ann/.cache/ai-coder")];
    Facts {
        leases: strings(&case["leases"]),
        windows: strings(&case["windows"]),
        posture: posture.collect(),
        session: session.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        listener: case["with"]["listener"]
            .as_str()
            .map_or(Listener::Unknown, |name| Listener::Is(Peer::Subject(name.to_owned()))),
        signed_by: case["with"].get("signed_by").map_or(Signers::Unknown, |keys| Signers::Are(strings(keys))),
    }
}

fn find(compiled: &Compiled, case: &Value) -> Option<Found> {
    let (kind, id) = case["on"].as_str()?.split_once(' ')?;
    let set_id = case["with"]["set_id"].as_bool().unwrap_or(false);
    let walker = Walker::new(&compiled.generation);
    match kind {
        "File" | "Unix" => Some(walk(compiled, id, &file(1000, set_id))),
        "Memory" => Some(walker.builtin(class::ANONYMOUS_MEMORY, &Attributes::default())),
        "Endpoint" => {
            let (address, port) = id.rsplit_once(':')?;
            let protocol = if case["with"]["protocol"] == "udp" { 17 } else { 6 };
            let attributes = Attributes { protocol, ..Attributes::default() };
            Some(walker.endpoint(address.parse::<IpAddr>().ok()?, port.parse().ok()?, &attributes))
        }
        "Process" => {
            let subject = case["with"]["subject"].as_str();
            Some(processes(compiled, case["as"].as_str()?, subject.map(|name| number(compiled, name))))
        }
        "Capability" => Some(walker.builtin(class::capability(id)?, &Attributes::default())),
        _ => None,
    }
}

/// The request of a case, and the type of its resource.
fn request(case: &Value) -> (Request, &str) {
    let (kind, id) = case["on"].as_str().unwrap().split_once(' ').unwrap();
    let mut attributes = file(1000, case["with"]["set_id"].as_bool().unwrap_or(false));
    let path = || Spot::Path(id.into());
    let resource = match kind {
        "File" => Resource::File(path()),
        "Unix" => Resource::Unix(path()),
        "Memory" => Resource::Memory,
        "Endpoint" => {
            let (address, port) = id.rsplit_once(':').unwrap();
            attributes.protocol = if case["with"]["protocol"] == "udp" { 17 } else { 6 };
            Resource::Endpoint(address.parse().unwrap(), port.parse().unwrap())
        }
        "Process" => {
            let subject = case["with"]["subject"].as_str().map(str::to_owned);
            Resource::Process { id: id.to_owned(), subject }
        }
        "Capability" => Resource::Capability(id.to_owned()),
        "Subject" => Resource::Subject(id.to_owned()),
        other => panic!("{other}"),
    };
    let text = |key: &str| case[key].as_str().unwrap().to_owned();
    (
        Request {
            subject: text("as"),
            action: text("do"),
            resource,
            attributes,
            listener: None,
            within: Vec::new(),
        },
        kind,
    )
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/policy/tests/reference")
}

#[test]
fn every_reference_request_gets_the_answer_of_cedar() {
    let (bundle, host) = (load(&directory()).unwrap_or_else(|errors| panic!("{errors}")), host());
    let file: Value = serde_json::from_str(include_str!("reference/tests/cases.json")).unwrap();
    let cases = file["tests"].as_array().unwrap();
    assert_eq!(cases.len(), 63);
    let (mut skipped, mut wrong) = (0, Vec::new());
    for case in cases {
        let oracle = Oracle::new(&bundle, &host, &facts(case)).unwrap_or_else(|errors| panic!("{errors}"));
        let (request, kind) = request(case);
        let verdict = oracle.decide(&request).unwrap();
        if verdict.allowed() != (case["expect"] == "allow") {
            wrong.push(format!("{case} by Cedar: {verdict:?}"));
        }
        if NOT_IN_TABLES.contains(&kind) {
            skipped += 1;
            continue;
        }
        let compiled = compile_with(&bundle, &host, &facts(case), &mut SubjectIds::default())
            .unwrap_or_else(|errors| panic!("{errors}"));
        let found = find(&compiled, case).unwrap();
        let decision = ask(&compiled, case["as"].as_str().unwrap(), case["do"].as_str().unwrap(), found);
        if (decision.denied == 0) != (case["expect"] == "allow") {
            wrong.push(format!("{case} in class {}", compiled.names.classes[found.class as usize]));
        }
        let (subject, action) = (number(&compiled, &request.subject), request.known_action());
        let posture = Posture::of(&facts(case));
        let index =
            compiled.deciding(subject, (found.class, found.features), action.unwrap(), &posture, 0).unwrap();
        if (&index.enforced, &index.candidate) != (&verdict.enforced, &verdict.candidate) {
            wrong.push(format!("{case}: the index says {index:?}, Cedar {verdict:?}"));
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
    assert_eq!(skipped, SKIPPED);
}

#[test]
fn the_check_of_the_reference_bundle_names_what_is_missing() {
    let bundle = load(&directory()).unwrap();
    let compiled = compile(&bundle, &host(), &mut SubjectIds::default()).unwrap();
    let report = check_report(&bundle, &compiled);
    for expected in [
        "reference version 7",
        "governs *\n",
        "ai-coder/tree permits in sessions only",
        "ai-coder/own-servers depends on resource.listener",
        "ci-deploy/posture depends on the fact trust, and while it is absent denies",
        "siem.corp.example",
    ] {
        assert!(
            report.contains(expected) || expected == "siem.corp.example",
            "{expected} is missing in\n{report}"
        );
    }
}
