//! What podman knows of the containers whose cgroups carry their ids.
//!
//! A container is in podman's list before its runtime makes the cgroup, so whoever looks after that finds it
//! there. The list is root's: nobody else can call a container by another name or image.

use crate::tables::Podman;
use serde::Deserialize;
use std::cell::OnceCell;
use std::fs;
use std::io;
use std::path::Path;

/// Where podman keeps what root's containers are made of (`graphroot` in containers-storage.conf(5)).
const STORAGE: &str = "/var/lib/containers/storage";
/// How the name of a container's cgroup begins, before the id.
const PREFIX: &str = "libpod-";
/// Characters of an id.
const ID: usize = 64;
/// Characters that are enough to mean one.
const SHORT_ID: usize = 12;

/// Podman's containers, read when the first of them is asked for.
#[derive(Default)]
pub(super) struct Containers(OnceCell<Vec<Container>>);

/// One container, as the list has it.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Container {
    id: String,
    #[serde(default)]
    names: Vec<String>,
    #[serde(default)]
    image: String,
    /// A document of podman's own in the storage library's.
    #[serde(default)]
    metadata: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct Metadata {
    image_name: String,
}

impl Containers {
    /// Whether the container that the cgroup at this path belongs to is one that `wanted` means. A cgroup of no
    /// container is none.
    pub(super) fn fits(&self, path: &Path, wanted: &Podman) -> bool {
        let Some(id) = path.file_name().and_then(|name| id(name.to_str()?)) else { return false };
        let list = self.0.get_or_init(|| {
            read(Path::new(STORAGE)).unwrap_or_else(|error| {
                tracing::error!(
                    "podman's containers cannot be found by name or image: {STORAGE} cannot be read: {error}"
                );
                Vec::new()
            })
        });
        list.iter().any(|container| container.id == id && container.fits(wanted))
    }
}

/// The id in the name of a container's own cgroup: `libpod-ID.scope`, or without systemd `libpod-ID`.
fn id(name: &str) -> Option<&str> {
    let id = name.strip_prefix(PREFIX)?;
    let id = id.strip_suffix(".scope").unwrap_or(id);
    (id.len() == ID && id.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(id)
}

/// How engines name the cgroup of a container: podman, Docker, containerd and CRI-O, with systemd or without.
pub(super) fn names(id: &str) -> Vec<String> {
    let prefixes = ["libpod-", "docker-", "cri-containerd-", "crio-"];
    let scopes = prefixes.iter().map(|prefix| format!("{prefix}{id}.scope"));
    scopes.chain([format!("{PREFIX}{id}"), id.to_owned()]).collect()
}

/// Whether an engine named the cgroup of a container so.
pub(super) fn is_named(name: &str, of: &str) -> bool {
    names(of).iter().any(|known| known == name)
}

/// The whole id of a container that is meant by its id, the beginning of that, or by the name that podman knows it
/// by; nothing if it is none, or not one alone.
pub(super) fn meant(wanted: &str) -> Option<String> {
    let listed = read(Path::new(STORAGE)).unwrap_or_default();
    if let Some(container) = listed.iter().find(|container| container.names.iter().any(|name| name == wanted))
    {
        return Some(container.id.clone());
    }
    let is_beginning = wanted.len() >= SHORT_ID && wanted.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !is_beginning {
        return None;
    }
    let mut found: Vec<String> = listed.into_iter().map(|container| container.id).collect();
    found.extend(ids_below(Path::new("/sys/fs/cgroup")));
    found.retain(|id| id.starts_with(wanted));
    found.sort();
    found.dedup();
    if found.len() == 1 { found.pop() } else { None }
}

/// The ids of containers that have a cgroup.
fn ids_below(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut waiting = vec![root.to_owned()];
    while let Some(directory) = waiting.pop() {
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            let name = entry.file_name();
            let bare = name.to_str().map(|name| name.strip_suffix(".scope").unwrap_or(name));
            let last = bare.and_then(|name| name.rsplit('-').next()).unwrap_or_default();
            if last.len() == ID && last.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                found.push(last.to_owned());
            }
            waiting.push(entry.path());
        }
    }
    found
}

/// The lists of all storage drivers.
fn read(storage: &Path) -> io::Result<Vec<Container>> {
    let mut found = Vec::new();
    let entries = match fs::read_dir(storage) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let directory = entry?.path();
        if !directory.file_name().is_some_and(|name| name.as_encoded_bytes().ends_with(b"-containers")) {
            continue;
        }
        match fs::read(directory.join("containers.json")) {
            Ok(text) => found.extend(serde_json::from_slice::<Vec<Container>>(&text)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

impl Container {
    fn fits(&self, wanted: &Podman) -> bool {
        let named = wanted.name.as_ref().is_none_or(|name| self.names.contains(name));
        named && wanted.image.as_ref().is_none_or(|image| self.is_of(image))
    }

    /// Whether it was made of this image: by its id, by its whole name, or by the name without the tag.
    fn is_of(&self, image: &str) -> bool {
        let metadata: Metadata = serde_json::from_str(&self.metadata).unwrap_or_default();
        let name = metadata.image_name.as_str();
        let tagged = |name: &str| name.rsplit('/').next().is_some_and(|last| last.contains([':', '@']));
        let untagged = || name.rsplit_once(':').map(|(untagged, _)| untagged);
        !name.is_empty() && (name == image || !tagged(image) && tagged(name) && untagged() == Some(image))
            || !self.image.is_empty() && self.image == image
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WEB: &str = "3f1c0f6f4b0f8f2c4f6b9d1e7a5c3b2d1f0e9d8c7b6a5f4e3d2c1b0a99887766";

    fn web() -> Container {
        let text = format!(
            r#"{{"id":"{WEB}","names":["web"],"image":"aa11","layer":"x","metadata":"{{\"image-name\":\"localhost:5000/site/nginx:1.2\",\"name\":\"web\"}}"}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    fn wanted(name: Option<&str>, image: Option<&str>) -> Podman {
        Podman { name: name.map(str::to_owned), image: image.map(str::to_owned) }
    }

    #[test]
    fn a_cgroup_is_told_by_the_id_in_its_name() {
        for name in [format!("libpod-{WEB}"), format!("libpod-{WEB}.scope")] {
            assert_eq!(id(&name), Some(WEB), "{name}");
        }
        for name in
            [format!("libpod-conmon-{WEB}.scope"), "libpod-abc".into(), WEB.into(), "libpod_parent".into()]
        {
            assert_eq!(id(&name), None, "{name}");
        }
    }

    #[test]
    fn the_cgroup_of_a_container_is_told_by_the_name_that_an_engine_gives_it() {
        for name in names(WEB) {
            assert!(is_named(&name, WEB) && name.len() <= 126, "{name}");
        }
        assert!(!is_named(&format!("libpod-conmon-{WEB}.scope"), WEB) && !is_named("web", WEB));
    }

    #[test]
    fn a_container_is_found_by_name_and_by_image_with_or_without_the_tag() {
        let web = web();
        assert!(web.fits(&wanted(Some("web"), None)) && !web.fits(&wanted(Some("we"), None)));
        for image in ["localhost:5000/site/nginx:1.2", "localhost:5000/site/nginx", "aa11"] {
            assert!(web.fits(&wanted(None, Some(image))), "{image}");
            assert!(
                web.fits(&wanted(Some("web"), Some(image))) && !web.fits(&wanted(Some("db"), Some(image)))
            );
        }
        for image in
            ["nginx", "localhost:5000/site/nginx:1.3", "localhost", "localhost:5000/site/nginx:1", "aa1"]
        {
            assert!(!web.fits(&wanted(None, Some(image))), "{image}");
        }
    }
}
