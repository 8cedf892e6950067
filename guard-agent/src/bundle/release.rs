//! `[release]`: who a bundle is for and how it is rolled out, in `guard.toml` and in the manifest.

use serde::{Deserialize, Serialize};
use toml::Spanned;

use super::keys::PublicKey;
use crate::policy::{Diagnostic, Source};

/// Where a bundle may run. What nothing reads yet is checked all the same, so that a bundle that is
/// signed today means the same to an agent that reads it.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Release {
    /// The oldest agent that may run it.
    pub requires: Option<Spanned<String>>,
    /// When it ceases to be accepted, RFC 3339.
    pub not_after: Option<Spanned<String>>,
    /// Labels of the hosts it is for, `key=value`. Reserved.
    #[serde(default)]
    pub targets: Vec<Spanned<String>>,
    /// Keys that are expected to sign it. Reserved.
    #[serde(default)]
    pub signers: Vec<Spanned<String>>,
    /// The version of the trusted keys it was signed under. Reserved.
    pub trust_version: Option<Spanned<u64>>,
    /// How it is rolled out over a fleet. Reserved.
    pub rollout: Option<Rollout>,
}

/// How a bundle is rolled out. Reserved.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rollout {
    /// Percent of the hosts, ascending; the last is 100.
    pub stages: Spanned<Vec<u8>>,
    /// How long each stage is watched.
    pub soak: Option<Spanned<String>>,
    /// What stops it.
    pub halt: Option<Halt>,
}

/// What stops a rollout. Reserved.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Halt {
    /// New denials in one stage.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub denials: Option<u64>,
    /// Hosts that became degraded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub degraded: Option<u64>,
}

impl Release {
    /// Checks every value, and that this agent is new enough.
    pub fn check(&self, source: &Source, found: &mut Vec<Diagnostic>) {
        let mut wrong = |span, message: String, help: &str| {
            found.push(source.error("release", span, message).help(help));
        };
        if let Some(requires) = &self.requires {
            let agent = semver::Version::parse(env!("CARGO_PKG_VERSION"));
            match (semver::Version::parse(requires.get_ref()), agent) {
                (Ok(oldest), Ok(agent)) if agent < oldest => wrong(
                    requires.span(),
                    format!("this bundle needs agent {oldest} or later, and this is {agent}"),
                    "update Guard on this host, or apply a bundle that was made for it",
                ),
                (Err(_), _) => {
                    wrong(requires.span(), "this is not a version".into(), "write three numbers: \"0.1.0\"");
                }
                _ => {}
            }
        }
        if let Some(not_after) = &self.not_after
            && not_after.get_ref().parse::<jiff::Timestamp>().is_err()
        {
            wrong(
                not_after.span(),
                "this is not an instant".into(),
                "write date, time and zone: \"2027-01-31T00:00:00Z\"",
            );
        }
        for target in &self.targets {
            let parts = target.get_ref().split_once('=');
            let plain = !target.get_ref().contains(|c: char| c.is_control() || c.is_whitespace());
            if !plain || parts.is_none_or(|(key, value)| key.is_empty() || value.is_empty()) {
                wrong(target.span(), "this is not a label".into(), "write key=value: \"role=web\"");
            }
        }
        for signer in &self.signers {
            if let Err(why) = signer.get_ref().parse::<PublicKey>() {
                wrong(signer.span(), why.into(), "write the line of the .pub file");
            }
        }
        if let Some(version) = &self.trust_version
            && *version.get_ref() == 0
        {
            wrong(version.span(), "versions count from 1".into(), "write trust_version = 1");
        }
        if let Some(rollout) = &self.rollout {
            let stages = rollout.stages.get_ref();
            if stages.last() != Some(&100) || stages[0] == 0 || !stages.is_sorted_by(|a, b| a < b) {
                wrong(
                    rollout.stages.span(),
                    "stages are percentages that rise to 100".into(),
                    "write stages = [1, 10, 100]",
                );
            }
            if let Some(soak) = &rollout.soak
                && crate::policy::duration(soak.get_ref()).is_none()
            {
                wrong(
                    soak.span(),
                    "this is not a duration".into(),
                    "write a number and s, m, h or d: \"1h\"",
                );
            }
        }
    }

    /// The instant after which it is not accepted. Nothing if there is none, or it is not valid.
    pub fn not_after(&self) -> Option<jiff::Timestamp> {
        self.not_after.as_ref().and_then(|text| text.get_ref().parse().ok())
    }

    /// Why it is not accepted any more at `now`, if so.
    pub fn expired(&self, now: jiff::Timestamp) -> Option<String> {
        let not_after = self.not_after().filter(|not_after| *not_after < now)?;
        Some(format!("the bundle was good until {not_after} (not_after): build a new version"))
    }

    /// The same without places, to be written and compared.
    pub fn plain(&self) -> toml::Table {
        let mut table = toml::Table::new();
        let mut set = |key: &str, value: toml::Value| {
            table.insert(key.to_owned(), value);
        };
        let list = |items: &[Spanned<String>]| {
            toml::Value::Array(items.iter().map(|item| item.get_ref().clone().into()).collect())
        };
        let number = |number: u64| toml::Value::Integer(i64::try_from(number).unwrap_or(i64::MAX));
        if let Some(requires) = &self.requires {
            set("requires", requires.get_ref().clone().into());
        }
        if let Some(not_after) = &self.not_after {
            set("not_after", not_after.get_ref().clone().into());
        }
        if !self.targets.is_empty() {
            set("targets", list(&self.targets));
        }
        if !self.signers.is_empty() {
            set("signers", list(&self.signers));
        }
        if let Some(version) = &self.trust_version {
            set("trust_version", number(*version.get_ref()));
        }
        if let Some(rollout) = &self.rollout {
            let mut inner = toml::Table::new();
            let stages = rollout.stages.get_ref().iter().map(|stage| i64::from(*stage).into()).collect();
            inner.insert("stages".to_owned(), toml::Value::Array(stages));
            if let Some(soak) = &rollout.soak {
                inner.insert("soak".to_owned(), soak.get_ref().clone().into());
            }
            if let Some(halt) = &rollout.halt {
                let counts = [("denials", halt.denials), ("degraded", halt.degraded)];
                let counts =
                    counts.into_iter().filter_map(|(key, count)| Some((key.to_owned(), number(count?))));
                inner.insert("halt".to_owned(), toml::Value::Table(counts.collect()));
            }
            set("rollout", toml::Value::Table(inner));
        }
        table
    }
}
