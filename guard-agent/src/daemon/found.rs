//! What the agent's own threads have found out of the host, for whoever computes posture, and what keeps them from it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The findings, shared by those who make and those who use them. What is not in it is not known.
#[derive(Clone, Debug, Default)]
pub(super) struct Found(Arc<Mutex<Contents>>);

#[derive(Debug, Default)]
struct Contents {
    network: Option<String>,
    units: BTreeMap<String, String>,
    /// Why a source cannot say what it should, by the source.
    troubles: BTreeMap<String, String>,
    /// The facts that each provider of the configuration may say, by the source.
    providers: BTreeMap<String, Vec<String>>,
}

impl Found {
    fn contents(&self) -> MutexGuard<'_, Contents> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Name of the network that the host is in.
    pub(super) fn network(&self) -> Option<String> {
        self.contents().network.clone()
    }

    /// Notes where the host is. Says whether that is new.
    pub(super) fn set_network(&self, network: Option<String>) -> bool {
        let mut contents = self.contents();
        let is_new = contents.network != network;
        contents.network = network;
        is_new
    }

    /// State of a systemd unit.
    pub(super) fn unit(&self, name: &str) -> Option<String> {
        self.contents().units.get(name).cloned()
    }

    /// Notes the states of all units that are asked for. Says whether one is new.
    pub(super) fn set_units(&self, units: BTreeMap<String, String>) -> bool {
        let mut contents = self.contents();
        let is_new = contents.units != units;
        contents.units = units;
        is_new
    }

    /// Notes which providers there are, by their sources, and what they may say.
    pub(super) fn set_providers(&self, providers: BTreeMap<String, Vec<String>>) {
        self.contents().providers = providers;
    }

    /// The facts that a provider may say; nothing if there is no such provider.
    pub(super) fn provider(&self, source: &str) -> Option<Vec<String>> {
        self.contents().providers.get(source).cloned()
    }

    /// Notes why a source cannot say what it should, or that it can.
    pub(super) fn trouble(&self, source: &str, why: Option<String>) {
        let mut contents = self.contents();
        let before = match &why {
            Some(why) => contents.troubles.insert(source.to_owned(), why.clone()),
            None => contents.troubles.remove(source),
        };
        match (&before, &why) {
            (before, Some(why)) if before.as_ref() != Some(why) => {
                tracing::error!(source, "nothing new is known from there: {why}");
            }
            (Some(_), None) => tracing::info!(source, "it says again what it should"),
            _ => {}
        }
    }

    /// Notes that a source says nothing because it is not set up: no fault unless a bundle asks for it.
    pub(super) fn not_set_up(&self, source: &str, why: &str) {
        self.contents().troubles.insert(source.to_owned(), why.to_owned());
    }

    /// What keeps sources from saying what they should, by the source.
    pub(super) fn troubles(&self) -> BTreeMap<String, String> {
        self.contents().troubles.clone()
    }
}
