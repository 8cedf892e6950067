//! Guest kernels: Debian's generic builds, resolved to the newest of a series and kept in the cache.

use std::fmt;
use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Result, bail};

use crate::apt::Apt;
use crate::command::{CommandExt, say};
use crate::guest_packages::GuestPackages;
use crate::paths;

/// The series that Guard supports and tests.
pub(crate) const SERIES: [&str; 4] = ["6.1", "6.12", "6.18", "7"];

/// A kernel series such as `6.12`; `7` is the newest 7.x.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Series(String);

impl Series {
    /// All supported series.
    pub(crate) fn all() -> Vec<Self> {
        SERIES.iter().map(|name| Self((*name).to_owned())).collect()
    }

    /// Whether a kernel release such as `6.12.95+deb12-amd64` belongs to the series.
    fn contains(&self, release: &str) -> bool {
        release.strip_prefix(&self.0).is_some_and(|rest| rest.starts_with('.'))
    }
}

impl fmt::Display for Series {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Series {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let name = text.strip_suffix(".x").unwrap_or(text);
        let numbers: Vec<&str> = name.split('.').collect();
        let is_number = |part: &&str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        if numbers.len() > 2 || !numbers.iter().all(is_number) {
            return Err(format!("expected a kernel series: {} or another MAJOR.MINOR", SERIES.join(", ")));
        }
        Ok(Self(name.to_owned()))
    }
}

/// One series or all of them, as given on a command line.
#[derive(Clone, Debug)]
pub(crate) enum Selection {
    /// Every supported series.
    All,
    /// Only this one.
    One(Series),
}

impl Selection {
    /// The series it stands for.
    pub(crate) fn series(&self) -> Vec<Series> {
        match self {
            Self::All => Series::all(),
            Self::One(series) => vec![series.clone()],
        }
    }
}

impl FromStr for Selection {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "all" { Ok(Self::All) } else { text.parse().map(Self::One) }
    }
}

/// A kernel in the cache.
#[derive(Clone, Debug)]
pub(crate) struct Kernel {
    /// What `uname -r` prints.
    pub(crate) release: String,
    /// The bootable image.
    pub(crate) image: PathBuf,
    /// Its modules: `…/lib/modules/RELEASE`.
    pub(crate) modules: PathBuf,
}

/// The newest cached kernel of `series`, or the newest Debian has, fetched now.
pub(crate) fn find_or_fetch(series: &Series, tools: &GuestPackages) -> Result<Kernel> {
    match cached(series)? {
        Some(kernel) => Ok(kernel),
        None => fetch(series, tools),
    }
}

/// Fetches the newest kernel of `series` unless it is in the cache already.
pub(crate) fn fetch(series: &Series, tools: &GuestPackages) -> Result<Kernel> {
    let apt = Apt::open()?;
    let pattern = format!("^linux-image-{}\\.[0-9.]+[-+.a-z0-9]*-amd64$", series.0.replace('.', "\\."));
    let mut releases: Vec<String> = apt
        .names(&pattern)?
        .iter()
        .filter_map(|name| name.strip_prefix("linux-image-"))
        .filter(|release| {
            series.contains(release) && !release.contains("-cloud-") && !release.contains("-rt-")
        })
        .map(str::to_owned)
        .collect();
    releases.sort_by_key(|release| numbers(release));
    let release =
        releases.pop().with_context(|| format!("Debian has no kernel of the series {series} now"))?;
    let dir = paths::cache()?.join("kernels").join(&release);
    if let Some(kernel) = at(&dir, &release) {
        return Ok(kernel);
    }

    let newest = |name: &str| -> Result<_> {
        apt.versions(name)?
            .into_iter()
            .next()
            .with_context(|| format!("Debian does not have the package {name}"))
    };
    let image = newest(&format!("linux-image-{release}"))?;
    let mut packages = Vec::new();
    // From 6.19 on the image is split; the packages it depends on have the parts.
    for name in &image.depends {
        if ["linux-binary-", "linux-modules-"].iter().any(|prefix| name.starts_with(prefix)) {
            packages.push(newest(name)?);
        } else if name.starts_with("linux-base-") {
            // A guest starts without it, and an archive may lose it before it loses the image.
            packages.extend(apt.versions(name)?.into_iter().next());
        }
    }
    packages.push(image);
    say!("fetching kernel {release} (about 100 MB)");
    apt.extract(&packages, &dir)?;
    // One program behind many names; its links are absolute and lead nowhere in an unpacked tree.
    tools.command("usr/bin/kmod").arg0("depmod").arg("--basedir").arg(&dir).arg(&release).run()?;
    match at(&dir, &release) {
        Some(kernel) => Ok(kernel),
        None => {
            bail!("the kernel package {release} has no image where it was expected, in {}", dir.display())
        }
    }
}

fn cached(series: &Series) -> Result<Option<Kernel>> {
    let dir = paths::cache()?.join("kernels");
    let Ok(entries) = fs::read_dir(&dir) else { return Ok(None) };
    let mut releases: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|release| series.contains(release))
        .collect();
    releases.sort_by_key(|release| numbers(release));
    Ok(releases.iter().rev().find_map(|release| at(&dir.join(release), release)))
}

/// The kernel unpacked in `dir`, if it is complete: `modules.dep` is written last.
fn at(dir: &Path, release: &str) -> Option<Kernel> {
    let modules = dir.join("usr/lib/modules").join(release);
    let images = [dir.join("boot").join(format!("vmlinuz-{release}")), modules.join("vmlinuz")];
    let image = images.into_iter().find(|path| path.exists())?;
    modules.join("modules.dep").exists().then(|| Kernel { release: release.to_owned(), image, modules })
}

/// The numbers in a release, which order releases of one series.
fn numbers(release: &str) -> Vec<u64> {
    let release = release.strip_suffix("-amd64").unwrap_or(release);
    release.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_release_is_the_one_with_the_highest_numbers() {
        let mut releases = ["6.12.90+deb12.1-amd64", "6.12.9+deb12-amd64", "6.12.90+deb12-amd64"];
        releases.sort_by_key(|release| numbers(release));
        assert_eq!(releases[2], "6.12.90+deb12.1-amd64");
    }

    #[test]
    fn a_series_is_a_whole_number_prefix() {
        let series: Series = "6.1".parse().unwrap();
        assert!(series.contains("6.1.0-50-amd64"));
        assert!(!series.contains("6.12.95+deb12-amd64"));
        assert_eq!("7.x".parse::<Series>().unwrap(), "7".parse().unwrap());
        assert!("latest".parse::<Series>().is_err());
    }
}
