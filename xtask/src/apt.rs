//! Debian packages, fetched through the machine's own apt and unpacked into the cache.
//!
//! apt brings what matters: the machine's mirror and proxy, and signatures verified against the
//! Debian archive keyring. It works on state directories of its own here, so neither the machine's
//! package lists nor its sources change, and nothing is installed.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::command::{self, CommandExt, say};
use crate::paths;

/// Suites that have what no single release has: old and new kernels, a newer QEMU, Rust sources.
const EXTRA_SUITES: [&str; 3] = ["bookworm", "bookworm-backports", "trixie-backports"];
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// How long fetched package lists count as fresh.
const FRESH: Duration = Duration::from_secs(3600);

/// One version of a package, as apt knows it.
#[derive(Clone, Debug)]
pub(crate) struct Package {
    /// The package's name.
    pub(crate) name: String,
    /// Debian version, with epoch.
    pub(crate) version: String,
    /// Names in its `Depends`, without versions and alternatives.
    pub(crate) depends: Vec<String>,
}

/// The machine's apt, pointed at our own lists.
pub(crate) struct Apt {
    dir: PathBuf,
    codename: String,
}

impl Apt {
    /// Prepares the lists, fetching them when they are older than an hour.
    pub(crate) fn open() -> Result<Self> {
        ensure!(
            command::exists("apt-get") && Path::new(KEYRING).exists(),
            "this step takes packages from Debian, and this machine has no apt with Debian's archive keyring"
        );
        let dir = paths::cache()?.join("apt");
        for part in ["lists/partial", "cache/archives/partial", "parts"] {
            fs::create_dir_all(dir.join(part)).with_context(|| format!("create {}", dir.display()))?;
        }
        let apt = Self { dir, codename: codename()? };
        apt.write_sources()?;
        let stamp = apt.dir.join("updated");
        let age =
            fs::metadata(&stamp).and_then(|meta| meta.modified()).ok().and_then(|time| time.elapsed().ok());
        if age.is_none_or(|age| age > FRESH) {
            say!("fetching package lists (15 MB, not installed on this machine)");
            apt.tool("apt-get").args(["-qq", "--error-on=any", "update"]).run()?;
            fs::write(&stamp, "")?;
        }
        Ok(apt)
    }

    /// Every version of `name` in the lists, newest first as apt prints them.
    pub(crate) fn versions(&self, name: &str) -> Result<Vec<Package>> {
        let text = self.tool("apt-cache").args(["show", name]).read()?;
        Ok(text.split("\n\n").filter_map(parse_package).collect())
    }

    /// Names of all packages that match the regular expression.
    pub(crate) fn names(&self, pattern: &str) -> Result<Vec<String>> {
        let text = self.tool("apt-cache").args(["search", "--names-only", pattern]).read()?;
        Ok(text.lines().filter_map(|line| line.split_once(" - ")).map(|(name, _)| name.to_owned()).collect())
    }

    /// What installing `names` would add to this machine: themselves and dependencies it lacks.
    pub(crate) fn missing(&self, names: &[&str], from_backports: bool) -> Result<Vec<Package>> {
        let mut apt = self.tool("apt-get");
        apt.args(["install", "--simulate", "--no-install-recommends", "--no-upgrade"]);
        if from_backports {
            apt.arg(format!("--target-release={}-backports", self.codename));
        }
        let text = apt.args(names).read()?;
        Ok(text.lines().filter_map(parse_simulated).collect())
    }

    /// Downloads the packages and unpacks them as one tree in `dir`, which appears when complete.
    pub(crate) fn extract(&self, packages: &[Package], dir: &Path) -> Result<()> {
        let debs = tempfile::Builder::new().prefix("debs-").tempdir_in(&self.dir)?;
        let wanted = packages.iter().map(|package| format!("{}={}", package.name, package.version));
        self.tool("apt-get").args(["-q", "download"]).args(wanted).current_dir(debs.path()).run()?;
        paths::publish_dir(dir, |partial| {
            // Debian has /usr merged; old packages still ship these as directories.
            for link in ["bin", "lib", "lib64", "sbin"] {
                fs::create_dir_all(partial.join("usr").join(link))?;
                std::os::unix::fs::symlink(Path::new("usr").join(link), partial.join(link))?;
            }
            let mut count = 0;
            for entry in fs::read_dir(debs.path())? {
                unpack(&entry?.path(), partial)?;
                count += 1;
            }
            ensure!(count == packages.len(), "apt downloaded {count} of {} packages", packages.len());
            Ok(())
        })
    }

    /// `apt-get` or `apt-cache` on our lists and sources, in an untranslated voice.
    fn tool(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let at = |key: &str, part: &str| format!("{key}={}", self.dir.join(part).display());
        for option in [
            at("Dir::Etc::SourceList", "sources.list"),
            at("Dir::Etc::SourceParts", "parts"),
            at("Dir::State::Lists", "lists"),
            at("Dir::Cache", "cache"),
            "APT::Sandbox::User=root".into(),
            "Acquire::Languages=none".into(),
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false".into(),
            "APT::Update::Post-Invoke::=true".into(),
            "Debug::NoLocking=true".into(),
        ] {
            command.arg("-o").arg(option);
        }
        command.env("LC_ALL", "C.UTF-8").env("DEBIAN_FRONTEND", "noninteractive");
        command
    }

    /// Our sources: the machine's own Debian suites, and the extra ones on the same mirror.
    fn write_sources(&self) -> Result<()> {
        let own = Command::new("apt-get")
            .args(["indextargets", "--format", "$(REPO_URI) $(RELEASE)", "Created-By: Packages"])
            .read()?;
        let own: BTreeSet<(&str, &str)> = own.lines().filter_map(|line| line.split_once(' ')).collect();
        let (mirror, _) = own.iter().find(|(_, suite)| *suite == self.codename).with_context(|| {
            format!("apt's sources on this machine do not contain the suite {}", self.codename)
        })?;
        let mut suites: BTreeSet<(&str, String)> = ["", "-updates", "-security", "-backports"]
            .into_iter()
            .map(|suffix| format!("{}{suffix}", self.codename))
            .flat_map(|suite| {
                own.iter().filter(move |(_, own)| *own == suite).map(|(uri, own)| (*uri, (*own).to_owned()))
            })
            .collect();
        suites.insert((mirror, format!("{}-backports", self.codename)));
        suites.extend(EXTRA_SUITES.map(|suite| (*mirror, suite.to_owned())));
        let list: String = suites
            .iter()
            .map(|(uri, suite)| format!("deb [signed-by={KEYRING}] {uri} {suite} main\n"))
            .collect();
        let path = self.dir.join("sources.list");
        fs::write(&path, list).with_context(|| format!("write {}", path.display()))
    }
}

/// Unpacks one package; unlike `dpkg-deb --extract` it goes through the links of a merged /usr.
fn unpack(deb: &Path, dir: &Path) -> Result<()> {
    let mut reader = Command::new("dpkg-deb")
        .arg("--fsys-tarfile")
        .arg(deb)
        .stdout(Stdio::piped())
        .spawn()
        .context("start dpkg-deb")?;
    let archive = reader.stdout.take().context("dpkg-deb has an output")?;
    Command::new("tar").args(["-x", "--keep-directory-symlink", "-C"]).arg(dir).stdin(archive).run()?;
    let status = reader.wait().context("wait for dpkg-deb")?;
    ensure!(status.success(), "{} cannot be unpacked ({status})", deb.display());
    Ok(())
}

fn codename() -> Result<String> {
    let text = fs::read_to_string("/etc/os-release").context("read /etc/os-release")?;
    let field = |key: &str| {
        text.lines().find_map(|line| line.strip_prefix(key)).map(|value| value.trim_matches('"').to_owned())
    };
    match (field("ID="), field("VERSION_CODENAME=")) {
        (Some(id), Some(codename)) if id == "debian" => Ok(codename),
        (id, _) => {
            bail!("this step takes packages from Debian, and this machine runs {}", id.unwrap_or_default())
        }
    }
}

/// One paragraph of `apt-cache show`.
fn parse_package(paragraph: &str) -> Option<Package> {
    let field = |key: &str| paragraph.lines().find_map(|line| line.strip_prefix(key)).map(str::trim);
    let depends =
        field("Depends:").unwrap_or_default().split(',').filter_map(|item| item.split_whitespace().next());
    Some(Package {
        name: field("Package:")?.to_owned(),
        version: field("Version:")?.to_owned(),
        depends: depends.map(str::to_owned).collect(),
    })
}

/// One line of `apt-get --simulate`: `Inst name [old] (version suite [arch])`.
fn parse_simulated(line: &str) -> Option<Package> {
    let (name, rest) = line.strip_prefix("Inst ")?.split_once(' ')?;
    let version = rest.split_once('(')?.1.split_whitespace().next()?;
    Some(Package { name: name.to_owned(), version: version.to_owned(), depends: Vec::new() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_simulated_install_names_package_and_new_version() {
        let package = parse_simulated("Inst libc6 [2.36-9] (2.36-10 Debian:12/oldstable [amd64])").unwrap();
        assert_eq!((package.name.as_str(), package.version.as_str()), ("libc6", "2.36-10"));
        assert!(parse_simulated("Conf libc6 (2.36-10 Debian:12/oldstable [amd64])").is_none());
    }

    #[test]
    fn a_paragraph_gives_the_names_it_depends_on() {
        let package = parse_package("Package: a\nVersion: 1\nDepends: b (= 1), c | d\n").unwrap();
        assert_eq!(package.depends, ["b", "c"]);
    }
}
