//! One name for each place: what path literals and requests are called in the effective policy set.
//!
//! Cedar compares entities by their ids. Several paths can lead to one place (symbolic links in a
//! literal, a file system mounted twice), so literals that are compared for equality and the
//! resource of a request are both called by the place's one name.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use guard_common::path::OWN_ROOT;

use super::places::{Mounts, OWN_ROOT_POINT, Place, resolve};
use crate::host::Host;

/// Names of places on one host.
pub(super) struct Naming<'a> {
    host: &'a Host,
    pub(super) mounts: Mounts<'a>,
}

impl<'a> Naming<'a> {
    pub(super) fn new(host: &'a Host) -> Self {
        Self { host, mounts: Mounts::new(&host.mounts) }
    }

    /// The path of a literal with its symbolic links followed; the literal itself if that is
    /// refused, which the compiler reports.
    pub(super) fn resolved(&self, literal: &str) -> PathBuf {
        resolve(self.host, Path::new(literal)).map_or_else(|_| literal.into(), |resolved| resolved.path)
    }

    /// The place a literal means.
    pub(super) fn place(&self, literal: &str) -> Option<Place> {
        self.mounts.locate(&self.resolved(literal))
    }

    /// The name of the place a literal means.
    pub(super) fn literal(&self, literal: &str) -> String {
        self.place(literal).map_or_else(|| literal.to_owned(), |place| self.name(&place))
    }

    /// The one name of a place: a path that leads there, through the mount that shows most of the
    /// file system, then the shortest. A place that no path leads to has a name that is no path.
    pub(super) fn name(&self, place: &Place) -> String {
        let mut best: Option<(usize, PathBuf)> = None;
        for mount in self.mounts.visible().filter(|mount| mount.device == place.device) {
            let Ok(rest) = place.path.strip_prefix(&mount.root) else { continue };
            let path = if rest.as_os_str().is_empty() { mount.point.clone() } else { mount.point.join(rest) };
            // Another mount may hide it.
            if self.mounts.locate(&path).as_ref() != Some(place) {
                continue;
            }
            let better = |(depth, known): &(usize, PathBuf)| {
                let key = |depth: usize, path: &Path| (depth, path.as_os_str().len(), path.to_owned());
                key(mount.root.components().count(), &path) < key(*depth, known)
            };
            if best.as_ref().is_none_or(better) {
                best = Some((mount.root.components().count(), path));
            }
        }
        if best.is_none() && place.device == OWN_ROOT {
            return match place.path.to_str() {
                Some("/") => OWN_ROOT_POINT.to_owned(),
                Some(path) => format!("{OWN_ROOT_POINT}{path}"),
                None => format!("guard:bytes:{}", place.path.as_os_str().as_bytes().escape_ascii()),
            };
        }
        match best.as_ref().map(|(_, path)| path.to_str().ok_or(path)) {
            Some(Ok(path)) => path.to_owned(),
            // No literal is spelt like this, and none can mean such a place.
            Some(Err(path)) => format!("guard:bytes:{}", path.as_os_str().as_bytes().escape_ascii()),
            None => format!(
                "guard:device-{}-{}:{}",
                place.device >> 20,
                place.device & 0xf_ffff,
                place.path.as_os_str().as_bytes().escape_ascii()
            ),
        }
    }
}

/// The path that a literal leads to on `host`, with symbolic links followed as far as policy follows
/// them; the literal itself where that is refused.
pub fn resolved(host: &Host, literal: &str) -> PathBuf {
    Naming::new(host).resolved(literal)
}
