//! Commands that say facts: how the agent's configuration describes them, and what they may print.

use crate::api::types::FactRequest;
use crate::policy::{FactValue, PROVIDER, duration};
use serde::{Deserialize, Deserializer, de};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

/// How long a command may take if the configuration does not say.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long one may be given.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(300);
/// Times between two runs that are allowed.
const INTERVALS: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(24 * 60 * 60);
/// Facts that one run may say.
const MAX_FACTS: usize = 1000;

/// The commands, by name.
pub type Providers = BTreeMap<String, Provider>;

/// `[providers.NAME]` of the agent's configuration.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Provider {
    /// The executable, by its whole path, and its arguments. There is no shell.
    pub command: Vec<String>,
    /// Who it runs as; not root.
    pub user: String,
    /// The facts that it may say.
    pub facts: Vec<String>,
    /// How long after the end of one run the next begins.
    #[serde(deserialize_with = "length")]
    pub interval: Duration,
    /// How long one run may take before it is killed.
    #[serde(default = "timeout", deserialize_with = "length")]
    pub timeout: Duration,
}

fn timeout() -> Duration {
    TIMEOUT
}

fn length<'de, D: Deserializer<'de>>(value: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(value)?;
    duration(&text)
        .ok_or_else(|| de::Error::custom(format!("{text:?} is not a duration: write 30s, 5m, 2h or 1d")))
}

/// What a command prints.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Printed {
    facts: Vec<Said>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Said {
    name: String,
    #[serde(default)]
    subject: Option<String>,
    value: FactValue,
    #[serde(default)]
    source: Option<String>,
    #[serde(default)]
    seconds: Option<u64>,
}

/// What the facts of a provider come from.
pub(crate) fn source(name: &str) -> String {
    format!("{PROVIDER}{name}")
}

/// Looks for what no configuration can mean.
///
/// # Errors
/// What is wrong, and what to write.
pub(crate) fn check(providers: &Providers) -> Result<(), String> {
    let mut writers: BTreeMap<&str, &str> = BTreeMap::new();
    for (name, provider) in providers {
        let wrong = |what: &str| Err(format!("[providers.{name}]: {what}"));
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if name.is_empty() || name.len() > 64 || !name.bytes().all(plain) {
            return wrong("a name has up to 64 letters, digits, -, _ and .");
        }
        if !provider.command.first().is_some_and(|path| Path::new(path).is_absolute()) {
            return wrong("command is a list that begins with the whole path of an executable");
        }
        if provider.facts.is_empty() {
            return wrong("facts names what it may say");
        }
        if matches!(provider.user.as_str(), "root" | "0" | "") {
            return wrong("user is an account that is not root");
        }
        if !INTERVALS.contains(&provider.interval) {
            return wrong("interval is from 1s to 1d");
        }
        if provider.timeout > LONGEST_TIMEOUT {
            return wrong("timeout is at most 5m");
        }
        for fact in &provider.facts {
            if let Some(other) = writers.insert(fact, name) {
                return wrong(&format!("{other} says {fact} already, and a fact has one provider"));
            }
        }
    }
    Ok(())
}

impl Provider {
    /// The facts in what it printed. Each ends: without a word on that, when the provider was silent three times.
    ///
    /// # Errors
    /// Why nothing of it is believed.
    pub(crate) fn read(&self, name: &str, printed: &[u8]) -> Result<Vec<FactRequest>, String> {
        let printed: Printed = serde_json::from_slice(printed)
            .map_err(|error| format!("what it printed is not understood: {error}"))?;
        if printed.facts.len() > MAX_FACTS {
            return Err(format!("it said more than {MAX_FACTS} facts"));
        }
        let source = source(name);
        let lasts = (3 * self.interval + self.timeout).as_secs();
        let request = |said: Said| {
            if !self.facts.contains(&said.name) {
                return Err(format!(
                    "it said {:?}, and the configuration lets it say {}",
                    said.name,
                    self.facts.join(", ")
                ));
            }
            if said.source.is_some_and(|other| other != source) {
                return Err(format!("it said where {} comes from, and that is {source}", said.name));
            }
            if said.seconds == Some(0) {
                return Err(format!("it said that {} lasts for no time", said.name));
            }
            Ok(FactRequest {
                name: said.name,
                subject: said.subject,
                value: said.value,
                source: source.clone(),
                seconds: Some(said.seconds.unwrap_or(lasts)),
            })
        };
        printed.facts.into_iter().map(request).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn providers(text: &str) -> Result<Providers, String> {
        let providers: Providers = toml::from_str(text).map_err(|error| error.to_string())?;
        check(&providers).map(|()| providers)
    }

    const EDR: &str = "[edr]\ncommand = [\"/usr/bin/edr\", \"--json\"]\nuser = \"edr\"\nfacts = [\"trust\", \"seen\"]\ninterval = \"1m\"\n";

    #[test]
    fn what_no_configuration_can_mean_is_named() {
        let edr = &providers(EDR).unwrap()["edr"];
        assert_eq!((edr.interval, edr.timeout), (Duration::from_secs(60), Duration::from_secs(10)));
        for (wrong, says) in [
            (EDR.replace("\"/usr/bin/edr\", ", ""), "whole path"),
            (EDR.replace("\"trust\", \"seen\"", ""), "what it may say"),
            (EDR.replace("user = \"edr\"", "user = \"root\""), "not root"),
            (EDR.replace("1m", "2d"), "1s to 1d"),
            (EDR.replace("1m", "0s"), "not a duration"),
            (format!("{EDR}timeout = \"1h\"\n"), "at most 5m"),
            (EDR.replace("[edr]", "[\"e d\"]"), "letters"),
            (
                format!("{EDR}\n{}", EDR.replace("[edr]", "[other]").replace("\"seen\"", "\"more\"")),
                "edr says trust already",
            ),
            (format!("{EDR}shell = true\n"), "shell"),
        ] {
            let error = providers(&wrong).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn what_it_prints_is_believed_whole_or_not_at_all() {
        let edr = &providers(EDR).unwrap()["edr"];
        let read = |text: &str| edr.read("edr", text.as_bytes());
        let facts = read(
            "{\"facts\":[{\"name\":\"trust\",\"value\":3,\"subject\":\"web\",\"seconds\":60},{\"name\":\"seen\",\"value\":true}]}",
        )
        .unwrap();
        assert_eq!((facts[0].subject.as_deref(), facts[0].seconds), (Some("web"), Some(60)));
        assert_eq!((facts[1].source.as_str(), facts[1].seconds), ("provider:edr", Some(190)));
        for (garbage, says) in [
            ("", "not understood"),
            ("trust=3", "not understood"),
            ("{\"facts\":[{\"name\":\"trust\",\"value\":3.5}]}", "not understood"),
            ("{\"facts\":[{\"name\":\"trust\",\"value\":[3]}]}", "not understood"),
            ("{\"facts\":[]}{\"facts\":[]}", "not understood"),
            (
                "{\"facts\":[{\"name\":\"trust\",\"value\":3},{\"name\":\"clock\",\"value\":true}]}",
                "lets it say trust, seen",
            ),
            ("{\"facts\":[{\"name\":\"trust\",\"value\":3,\"source\":\"operator\"}]}", "comes from"),
            ("{\"facts\":[{\"name\":\"trust\",\"value\":3,\"seconds\":0}]}", "no time"),
        ] {
            let error = read(garbage).unwrap_err();
            assert!(error.contains(says), "{garbage}: {error}");
        }
        let many = vec!["{\"name\":\"trust\",\"value\":3}"; MAX_FACTS + 1].join(",");
        assert!(read(&format!("{{\"facts\":[{many}]}}")).is_err());
    }
}
