//! The daemon's configuration file.

use crate::bundle::TrustConfig;
use crate::collect::network::Networks;
use crate::collect::provider::{self, Providers};
use crate::rescue::Rescue;
use crate::roles::Roles;
use serde::{Deserialize, Deserializer};
use std::path::{Path, PathBuf};

/// `guard-agent run --config FILE`. Unknown keys are errors.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The bundle that is enforced from the start: a directory or an archive.
    pub bundle: PathBuf,
    /// Directory for the sockets and the lock; made with mode 0711: others find the self-service socket
    /// in it and nothing else.
    #[serde(default = "run_dir")]
    pub run_dir: PathBuf,
    /// Directory for what must outlive a restart: the numbers of subjects, copies of the bundles that
    /// were live, and the record of them.
    #[serde(default = "state_dir")]
    pub state_dir: PathBuf,
    /// Directory of a BPF file system in which programs and maps stay when the agent ends, so that enforcement
    /// goes on; nothing if they end with it (`"none"`).
    #[serde(default = "pins", deserialize_with = "directory_or_none")]
    pub pins: Option<PathBuf>,
    /// Whose signatures count.
    #[serde(default)]
    pub trust: TrustConfig,
    /// Who may ask for what, besides root.
    #[serde(default)]
    pub roles: Roles,
    /// What quarantines never cover.
    #[serde(default)]
    pub rescue: Rescue,
    /// Networks that this host can be in, by how they look from inside.
    #[serde(default)]
    pub networks: Networks,
    /// Commands that say facts.
    #[serde(default)]
    pub providers: Providers,
}

fn pins() -> Option<PathBuf> {
    Some(PathBuf::from("/sys/fs/bpf/guard"))
}

fn directory_or_none<'de, D: Deserializer<'de>>(value: D) -> Result<Option<PathBuf>, D::Error> {
    let path = PathBuf::deserialize(value)?;
    Ok((path != Path::new("none")).then_some(path))
}

fn run_dir() -> PathBuf {
    PathBuf::from("/run/guard")
}

fn state_dir() -> PathBuf {
    PathBuf::from("/var/lib/guard")
}

/// A configuration file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("cannot read the configuration {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is not valid; the message has line, column and the source line.
    #[error("invalid configuration {path}: {message}")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong, with its place.
        message: String,
    },
}

impl Config {
    /// Reads a configuration file. Relative paths in it count from the file's directory.
    ///
    /// # Errors
    /// If it cannot be read, does not parse, or has a key that is not known.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        let mut config: Self = toml::from_str(&text)
            .map_err(|error| ConfigError::Invalid { path: path.to_owned(), message: error.to_string() })?;
        config.check().map_err(|message| ConfigError::Invalid { path: path.to_owned(), message })?;
        let base = path.parent().unwrap_or(Path::new("."));
        for part in [&mut config.bundle, &mut config.run_dir, &mut config.state_dir, &mut config.trust.dir] {
            *part = base.join(&*part);
        }
        config.pins = config.pins.map(|pins| base.join(pins));
        Ok(config)
    }

    /// Looks for what no configuration can mean.
    fn check(&self) -> Result<(), String> {
        for (name, signature) in &self.networks {
            if name.is_empty() || name.len() > 64 || name.contains(char::is_control) {
                return Err(format!("[networks.{name:?}]: a name has from 1 to 64 bytes"));
            }
            if !signature.says_something() {
                return Err(format!("[networks.{name}]: write gateway, gateway_mac or prefix"));
            }
        }
        self.rescue.check()?;
        provider::check(&self.providers)
    }

    /// Path of the admin socket.
    pub fn admin_socket(&self) -> PathBuf {
        self.run_dir.join("admin.sock")
    }

    /// Path of the self-service socket.
    pub fn own_socket(&self) -> PathBuf {
        self.run_dir.join("self.sock")
    }

    /// A directory below `run_dir` for the agent alone.
    pub fn private_dir(&self) -> PathBuf {
        self.run_dir.join("private")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    fn read(text: &str) -> Result<Config, ConfigError> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let directory = std::env::temp_dir().join(format!("guard-config-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let file = directory.join("guard.toml");
        std::fs::write(&file, text).unwrap();
        let result = Config::read(&file);
        std::fs::remove_dir_all(&directory).unwrap();
        result
    }

    #[test]
    fn paths_have_defaults_and_count_from_the_file() {
        let config = read("bundle = \"policy\"\n").unwrap();
        assert!(config.bundle.ends_with("policy") && config.bundle.is_absolute());
        assert_eq!(config.admin_socket(), Path::new("/run/guard/admin.sock"));
    }

    #[test]
    fn trust_has_defaults_and_its_directory_counts_from_the_file() {
        let config = read("bundle = \"policy\"\n").unwrap();
        assert_eq!(config.trust, TrustConfig::default());
        assert!(!config.trust.allow_local && config.trust.dir == Path::new("/etc/guard/trust.d"));
        let config = read("bundle = \"policy\"\n[trust]\ndir = \"keys\"\nthreshold = 2\n").unwrap();
        assert!(config.trust.dir.is_absolute() && config.trust.dir.ends_with("keys"));
        assert_eq!(config.trust.threshold, Some(2));
        let error = read("bundle = \"policy\"\n[trust]\nallow-local = true\n").unwrap_err().to_string();
        assert!(error.contains("allow-local") && error.contains("line 3"), "{error}");
    }

    #[test]
    fn programs_stay_unless_the_file_says_otherwise() {
        let pins = |text: &str| read(&format!("bundle = \"policy\"\n{text}")).unwrap().pins;
        assert_eq!(pins("").as_deref(), Some(Path::new("/sys/fs/bpf/guard")));
        assert_eq!(pins("pins = \"none\"\n"), None);
        assert_eq!(pins("pins = \"/sys/fs/bpf/x\"\n").as_deref(), Some(Path::new("/sys/fs/bpf/x")));
    }

    #[test]
    fn roles_have_members_and_nobody_has_one_by_default() {
        let config = read("bundle = \"policy\"\n[roles]\nresponder = [\"group:oncall\"]\n").unwrap();
        assert!(!config.roles.is_empty() && config.roles.names().eq(["responder"]));
        assert!(read("bundle = \"policy\"\n").unwrap().roles.is_empty());
        let error = read("bundle = \"policy\"\n[roles]\nresponder = [\"oncall\"]\n").unwrap_err().to_string();
        assert!(error.contains("group:NAME") && error.contains("line 2"), "{error}");
    }

    #[test]
    fn networks_and_providers_are_read_and_checked() {
        let config = read("bundle = \"policy\"\n").unwrap();
        assert!(config.networks.is_empty() && config.providers.is_empty());
        let config = read("bundle = \"policy\"\n[networks.office]\ngateway = \"10.1.0.1\"\n").unwrap();
        assert!(config.networks.contains_key("office"));
        for (wrong, says) in [
            ("[networks.office]\n", "write gateway"),
            ("[networks.office]\ndns = [\"10.1.0.53\"]\n", "write gateway"),
            ("[networks.\"\"]\ngateway = \"10.1.0.1\"\n", "1 to 64"),
            (
                "[providers.edr]\ncommand = []\nuser = \"x\"\nfacts = [\"x\"]\ninterval = \"1m\"\n",
                "whole path",
            ),
        ] {
            let error = read(&format!("bundle = \"policy\"\n{wrong}")).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line() {
        let error = read("bundle = \"policy\"\nbundel = 1\n").unwrap_err().to_string();
        assert!(error.contains("bundel") && error.contains("line 2"), "{error}");
    }
}
