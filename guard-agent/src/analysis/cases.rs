//! Tests of a bundle: requests with the answer that its author expects.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::question::{Files, Words};
use crate::bundle;
use crate::host::Host;
use crate::policy::{Bundle, Diagnostic, EffectivePolicy, Facts, Oracle, is_guards_own};

/// A file of tests: `tests/*.toml` or `tests/*.json` of a bundle.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    defaults: Defaults,
    #[serde(default)]
    tests: Vec<Case>,
}

/// What every test of a file assumes unless it says otherwise.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Defaults {
    #[serde(default)]
    leases: Vec<String>,
    #[serde(default)]
    windows: Vec<String>,
    #[serde(default)]
    posture: BTreeMap<String, Value>,
    #[serde(default)]
    session: BTreeMap<String, String>,
}

/// What a test expects.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Expect {
    /// Policy allows it.
    Allow,
    /// Policy denies it.
    Deny,
}

/// One test.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// Its name, for people.
    name: Option<String>,
    #[serde(rename = "as")]
    subject: String,
    #[serde(rename = "do")]
    action: String,
    /// The resource, with its type in front or without.
    on: Option<String>,
    /// What holds the resource besides what is known to: `DnsName …`, `Net …`.
    #[serde(default, rename = "in")]
    within: Vec<String>,
    #[serde(default)]
    with: BTreeMap<String, Value>,
    leases: Option<Vec<String>>,
    windows: Option<Vec<String>>,
    #[serde(default)]
    posture: BTreeMap<String, Value>,
    #[serde(default)]
    session: BTreeMap<String, String>,
    expect: Expect,
    /// The policies that decide, all of them; not checked if it is left out.
    by: Option<Vec<String>>,
}

/// How one test ended.
#[derive(Clone, Debug, Serialize)]
pub struct Ran {
    /// File and number, and what it asks.
    pub name: String,
    /// What was wrong; nothing if it passed.
    pub failure: Option<String>,
}

/// How all tests of a bundle ended.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The tests, in order.
    pub tests: Vec<Ran>,
    /// Policies of the bundle that decided some test.
    pub covered: Vec<String>,
    /// Policies of the bundle that decided none.
    pub untested: Vec<String>,
}

impl Report {
    /// How many tests failed.
    pub fn failed(&self) -> usize {
        self.tests.iter().filter(|test| test.failure.is_some()).count()
    }
}

/// The tests of a bundle's files: file name and test.
///
/// # Errors
/// If there are none, or a file cannot be understood.
pub fn read(files: &bundle::Files) -> Result<Vec<(String, Case)>, Diagnostic> {
    let mut cases = Vec::new();
    let below = |name: &str| name.strip_prefix("tests/").is_some_and(|name| !name.contains('/'));
    for name in files.names().filter(|name| below(name)) {
        let wrong = |why: String| Diagnostic::error("tests", format!("{}: {why}", files.display(name)));
        let toml = name.ends_with(".toml");
        if !toml && !name.ends_with(".json") {
            continue;
        }
        let source = files.source(name)?;
        let text = &*source.text;
        let file = if toml {
            toml::from_str(text).map_err(|error| wrong(error.to_string()))?
        } else if text.trim_start().starts_with('[') {
            // A bare list is a file without defaults.
            let tests = serde_json::from_str(text).map_err(|error| wrong(error.to_string()))?;
            File { defaults: Defaults::default(), tests }
        } else {
            serde_json::from_str(text).map_err(|error| wrong(error.to_string()))?
        };
        cases.extend(
            file.tests.into_iter().map(|case| (name.to_owned(), with_defaults(case, &file.defaults))),
        );
    }
    if cases.is_empty() {
        return Err(Diagnostic::error("tests", format!("there are no tests in {}/tests", files.origin())).help(
            "write tests/NAME.toml: [[tests]] as = \"SUBJECT\", do = \"file.read\", on = \"/path\", expect = \"deny\"",
        ));
    }
    Ok(cases)
}

fn with_defaults(mut case: Case, defaults: &Defaults) -> Case {
    case.leases.get_or_insert_with(|| defaults.leases.clone());
    case.windows.get_or_insert_with(|| defaults.windows.clone());
    for (name, value) in &defaults.posture {
        case.posture.entry(name.clone()).or_insert_with(|| value.clone());
    }
    for (name, value) in &defaults.session {
        case.session.entry(name.clone()).or_insert_with(|| value.clone());
    }
    case
}

/// Runs `cases` against `bundle` on `host`.
///
/// # Errors
/// If the bundle has no exact counterpart.
pub fn run(
    bundle: &Bundle,
    host: &Host,
    cases: &[(String, Case)],
) -> Result<Report, crate::policy::Diagnostics> {
    let mut oracles: HashMap<String, Oracle<'_>> = HashMap::new();
    let mut tests = Vec::new();
    let mut decided = BTreeSet::new();
    let mut numbers: HashMap<&str, usize> = HashMap::new();
    for (file, case) in cases {
        let number = numbers.entry(file).or_default();
        *number += 1;
        let name = format!("{file} {number}: {}", case.title());
        let failure = match case.words().question(bundle, host, Files::Assume) {
            Err(error) => {
                Some(error.message + &error.help.map_or_else(String::new, |help| format!("; {help}")))
            }
            Ok(question) => {
                let key = format!("{:?}", question.facts);
                if !oracles.contains_key(&key) {
                    oracles.insert(key.clone(), Oracle::new(bundle, host, &question.facts)?);
                }
                match oracles[&key].decide(&question.request) {
                    Err(error) => Some(error.message),
                    Ok(verdict) => {
                        decided.extend(verdict.candidate.policies.iter().cloned());
                        decided.extend(verdict.enforced.policies.iter().cloned());
                        case.judge(verdict.enforced.allow, &verdict.enforced.policies)
                    }
                }
            }
        };
        tests.push(Ran { name, failure });
    }
    let (covered, untested) = coverage(bundle, host, &decided)?;
    Ok(Report { tests, covered, untested })
}

impl Case {
    fn title(&self) -> String {
        match &self.name {
            Some(name) => name.clone(),
            None => format!("{} {} {}", self.subject, self.action, self.on.as_deref().unwrap_or("Machine")),
        }
    }

    fn words(&self) -> Words {
        let text = |value: &Value| match value {
            Value::String(text) => text.clone(),
            Value::Array(items) => items.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(","),
            other => other.to_string(),
        };
        let pairs = |map: &BTreeMap<String, Value>| -> Vec<(String, String)> {
            map.iter().map(|(name, value)| (name.clone(), text(value))).collect()
        };
        // The port is part of an endpoint's name; saying it again changes nothing.
        let said = |(key, value): &(String, String)| {
            key == "port" && self.on.as_deref().is_some_and(|on| on.ends_with(&format!(":{value}")))
        };
        let within = self.within.iter().filter_map(|text| text.split_once(' '));
        Words {
            subject: self.subject.clone(),
            action: self.action.clone(),
            resource: self.on.clone(),
            with: pairs(&self.with).into_iter().filter(|pair| !said(pair)).collect(),
            within: within.map(|(kind, id)| (kind.to_owned(), id.to_owned())).collect(),
            leases: self.leases.clone().unwrap_or_default(),
            windows: self.windows.clone().unwrap_or_default(),
            facts: pairs(&self.posture),
            session: self.session.clone().into_iter().collect(),
        }
    }

    /// What is wrong with an answer; nothing if it is the expected one.
    fn judge(&self, allow: bool, policies: &[String]) -> Option<String> {
        let by = if policies.is_empty() { "no policy permits it".to_owned() } else { policies.join(" ") };
        if allow != (self.expect == Expect::Allow) {
            let (wanted, got) = if allow { ("deny", "allow") } else { ("allow", "deny") };
            return Some(format!("expected {wanted}, got {got} ({by})"));
        }
        let wanted = self.by.as_ref()?;
        let (mut wanted, mut got) = (wanted.clone(), policies.to_vec());
        wanted.sort();
        got.sort();
        (wanted != got).then(|| format!("expected to be decided by {}, got {by}", wanted.join(" ")))
    }
}

/// Policies of the bundle that decided some test, and those that decided none. An include counts
/// once, whoever it is linked for.
fn coverage(
    bundle: &Bundle,
    host: &Host,
    decided: &BTreeSet<String>,
) -> Result<(Vec<String>, Vec<String>), crate::policy::Diagnostics> {
    let set = crate::policy::EffectiveSet::new(bundle, host, &Facts::default())?;
    let name = |id: &str| id.split_once('@').map_or(id, |(name, _)| name).to_owned();
    let own = |policy: &&EffectivePolicy| {
        policy.origin.as_ref().is_some_and(|origin| !is_guards_own(origin.file()))
    };
    let all: BTreeSet<String> = set
        .policies
        .iter()
        .filter(own)
        .map(|policy| name(&policy.id))
        .chain(set.without_value.iter().map(|one| name(&one.id)))
        .collect();
    let decided: BTreeSet<String> = decided.iter().map(|id| name(id)).collect();
    Ok(all.into_iter().partition(|id| decided.contains(id)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "[defaults]\nleases = [\"l\"]\n[[tests]]\nname = \"no\"\nas = \"web\"\ndo = \"exec\"\non = \"/bin/sh\"\nexpect = \"deny\"\nby = [\"a\", \"b\"]\n";

    #[test]
    fn an_answer_is_compared_with_what_is_expected() {
        let file: File = toml::from_str(ONE).unwrap();
        let case = with_defaults(file.tests[0].clone(), &file.defaults);
        assert_eq!(case.words().leases, ["l"]);
        let both = ["b".to_owned(), "a".to_owned()];
        assert_eq!(case.judge(false, &both), None);
        assert_eq!(case.judge(true, &both).unwrap(), "expected deny, got allow (b a)");
        assert_eq!(case.judge(false, &both[..1]).unwrap(), "expected to be decided by a b, got b");
        assert_eq!(
            case.judge(false, &[]).unwrap(),
            "expected to be decided by a b, got no policy permits it"
        );
    }

    #[test]
    fn unknown_keys_are_refused() {
        assert!(toml::from_str::<File>(&ONE.replace("expect", "expects")).is_err());
    }
}
