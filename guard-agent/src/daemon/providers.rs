//! Commands that say facts, each run again and again on a thread of its own.
//!
//! What a command says is checked like what anybody says. One that fails says nothing: what it said before counts
//! until it ends, and the status says why nothing new comes.

use super::command::{self, Program};
use super::facts::Writer;
use super::found::Found;
use super::serve::Shared;
use crate::collect::provider::{Provider, Providers, source};
use crate::policy::{Bundle, PROVIDER};
use nix::unistd::User;
use std::io;
use std::path::Path;
use std::time::Duration;

/// Bytes that a command may print.
const MAX_OUTPUT: usize = 256 << 10;

/// Starts a thread for each command.
///
/// # Errors
/// If a thread cannot be started.
pub(super) fn start(providers: &Providers, found: &Found, shared: &Shared) -> io::Result<()> {
    let may_say = providers.iter().map(|(name, provider)| (source(name), provider.facts.clone()));
    found.set_providers(may_say.collect());
    for (name, provider) in providers {
        let (name, provider) = (name.clone(), provider.clone());
        let (found, shared) = (found.clone(), shared.clone());
        std::thread::Builder::new().name("provider".to_owned()).spawn(move || {
            loop {
                // Where no policy can ask for it there is nothing to say, and nothing wrong with that.
                let said =
                    if shared.declares(&provider.facts) { say(&name, &provider, &shared) } else { Ok(()) };
                found.trouble(&source(&name), said.err());
                std::thread::sleep(provider.interval);
            }
        })?;
    }
    Ok(())
}

/// What a bundle wants from providers and no provider may say, one sentence each.
pub(super) fn missing(bundle: &Bundle, found: &Found) -> Vec<String> {
    let absent = |fact: &String| {
        let source = bundle.source(fact).filter(|source| source.starts_with(PROVIDER))?;
        match found.provider(source) {
            None => Some(format!("facts from {source}: the agent's configuration has no such provider")),
            Some(facts) if !facts.contains(fact) => {
                Some(format!("facts from {source}: the agent's configuration does not let it say {fact}"))
            }
            Some(_) => None,
        }
    };
    let mut sentences: Vec<String> = bundle.facts().keys().filter_map(absent).collect();
    sentences.sort();
    sentences.dedup();
    sentences
}

/// Runs a command and takes what it says, each fact by itself.
fn say(name: &str, provider: &Provider, shared: &Shared) -> Result<(), String> {
    let (path, arguments) = provider.command.split_first().ok_or("it has no command")?;
    let program = Program {
        path: Path::new(path),
        arguments,
        user: Some(account(&provider.user)?),
        patience: provider.timeout,
        longest: MAX_OUTPUT,
    };
    let printed = command::run(&program).map_err(|error| error.to_string())?;
    let by = format!("the provider {name}");
    let refused = provider.read(name, &printed)?.into_iter().filter_map(|fact| {
        let error = shared.say(&fact, Duration::ZERO, &by, Writer::Provider).err()?;
        Some(format!("{}: {error}", fact.name))
    });
    let refused: Vec<String> = refused.collect();
    if refused.is_empty() { Ok(()) } else { Err(refused.join("; ")) }
}

/// User and group of an account that may do nothing special.
fn account(name: &str) -> Result<(u32, u32), String> {
    let found = match User::from_name(name) {
        Ok(None) => match name.parse() {
            Ok(uid) => User::from_uid(nix::unistd::Uid::from_raw(uid)),
            Err(_) => Ok(None),
        },
        found => found,
    };
    let user = found.map_err(|errno| format!("the account {name} cannot be looked up: {errno}"))?;
    let user =
        user.ok_or_else(|| format!("there is no account {name}: make one, or name another as user"))?;
    if user.uid.is_root() || user.gid.as_raw() == 0 {
        return Err(format!("{name} is root, or in its group: a provider runs as somebody else"));
    }
    Ok((user.uid.as_raw(), user.gid.as_raw()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_provider_may_say_is_told() {
        let directory = std::env::temp_dir().join(format!("guard-providers-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let toml = "[bundle]\nname = \"x\"\nversion = 1\nprofile = 1\n[facts]\n\
                    a = { type = \"long\", source = \"provider:edr\" }\n\
                    b = { type = \"long\", source = \"provider:edr\" }\n\
                    c = { type = \"long\", source = \"provider:mdm\" }\n\
                    d = { type = \"long\", source = \"desk\" }\n";
        std::fs::write(directory.join("guard.toml"), toml).unwrap();
        let bundle = crate::policy::load(&directory).unwrap();
        std::fs::remove_dir_all(&directory).unwrap();
        let found = Found::default();
        assert_eq!(missing(&bundle, &found).len(), 2, "two providers");
        found.set_providers([("provider:edr".to_owned(), vec!["a".to_owned()])].into());
        assert_eq!(
            missing(&bundle, &found),
            [
                "facts from provider:edr: the agent's configuration does not let it say b",
                "facts from provider:mdm: the agent's configuration has no such provider",
            ]
        );
    }

    #[test]
    fn a_provider_runs_as_somebody_who_exists_and_is_not_root() {
        for (name, says) in [("root", "is root"), ("0", "is root"), ("no-such-account", "no account")] {
            let error = account(name).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
        assert!(account("nobody").is_ok_and(|(uid, gid)| uid != 0 && gid != 0));
    }
}
