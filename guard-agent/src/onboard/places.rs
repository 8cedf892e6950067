//! From the paths that were seen to the places that a permit names.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::plan::is_shared;
use super::secrets::Secrets;
use super::shape::Shape;

/// So many siblings with the same actions stand for their directory.
const MANY: usize = 5;

/// A place that a permit names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    /// Exactly this file, directory or socket.
    At(String),
    /// Everything below a directory, and the directory.
    Below(String),
    /// What lies somewhere below a directory, in directories of these names, and is called so.
    Named {
        /// The directory.
        directory: String,
        /// Directories on the way, wherever they are.
        through: Vec<String>,
        /// The last component.
        last: Last,
    },
}

/// The last component of a path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Last {
    /// This name.
    Is(String),
    /// A beginning and an end.
    Like(String, String),
}

/// How often something was seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// Kinds of operations.
    pub(super) kinds: usize,
    /// Operations.
    pub(super) count: u64,
}

impl Tally {
    pub(super) fn add(&mut self, other: Self) {
        self.kinds += other.kinds;
        self.count += other.count;
    }
}

/// Actions that are permitted on one place, and what was seen of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) place: Place,
    pub(super) actions: BTreeSet<String>,
    pub(super) tally: Tally,
}

/// One path with one action.
#[derive(Clone, Debug)]
pub(super) struct Path1<'a> {
    pub(super) path: &'a str,
    pub(super) action: &'a str,
    pub(super) count: u64,
}

/// How far a proposal goes beyond what was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Width {
    /// Not at all: literals.
    Exact,
    /// Numbers, versions and random parts of names vary.
    Chance,
    /// And many siblings stand for their directory or network.
    Siblings,
}

/// Everything that is needed for `seen`, which are operations of one family of actions.
pub(super) fn generalise(seen: &[Path1<'_>], secrets: &Secrets, width: Width) -> Vec<Entry> {
    let mut places: BTreeMap<Place, (BTreeSet<String>, Tally)> = BTreeMap::new();
    let shared = shared_shapes(seen);
    for one in seen {
        let place = match width {
            Width::Exact => Place::At(one.path.to_owned()),
            _ => place(one.path, shared.get(one.path), secrets),
        };
        let (actions, tally) = places.entry(place).or_default();
        actions.insert(one.action.to_owned());
        tally.add(Tally { kinds: 1, count: one.count });
    }
    let mut entries: Vec<Entry> =
        places.into_iter().map(|(place, (actions, tally))| Entry { place, actions, tally }).collect();
    if width == Width::Siblings {
        while widen_once(&mut entries, secrets) {}
        entries = absorb(entries);
    }
    entries
}

/// Shapes that only several names of one directory show, by path.
fn shared_shapes<'a>(seen: &[Path1<'a>]) -> BTreeMap<&'a str, Shape> {
    let mut groups: BTreeMap<(&str, usize), BTreeSet<&str>> = BTreeMap::new();
    for one in seen {
        let (directory, name) = split(one.path);
        if Shape::of(name) == Shape::Fixed {
            groups.entry((directory, name.len())).or_default().insert(one.path);
        }
    }
    let mut found = BTreeMap::new();
    for paths in groups.into_values() {
        let names: Vec<&str> = paths.iter().map(|path| split(path).1).collect();
        if let Some(shape) = Shape::shared(&names) {
            found.extend(paths.into_iter().map(|path| (path, shape.clone())));
        }
    }
    found
}

/// The place of one path: exactly it, unless a part of it is chance.
fn place(path: &str, shared: Option<&Shape>, secrets: &Secrets) -> Place {
    let components: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let Some((last, directories)) = components.split_last() else { return Place::At(path.to_owned()) };
    let varies = |name: &&str| Shape::of(name) != Shape::Fixed;
    let fixed = directories.iter().position(varies).unwrap_or(directories.len());
    let last = match shared.cloned().unwrap_or_else(|| Shape::of(last)) {
        Shape::Fixed if fixed == directories.len() => return Place::At(path.to_owned()),
        Shape::Fixed => Some(Last::Is((*last).to_owned())),
        Shape::Like { prefix, suffix } if prefix.is_empty() && suffix.is_empty() => None,
        Shape::Like { prefix, suffix } => Some(Last::Like(prefix, suffix)),
    };
    let directory = format!("/{}", directories[..fixed].join("/"));
    let mut through: Vec<String> = Vec::new();
    for name in directories[fixed..].iter().filter(|name| !varies(name)) {
        if !directories[..fixed].contains(name) && !through.iter().any(|known| known == name) {
            through.push((*name).to_owned());
        }
    }
    match last {
        // Only the directory is left to name: too much, if others keep things there.
        None if through.is_empty() && (is_shared(Path::new(&directory)) || secrets.within(&directory)) => {
            Place::At(path.to_owned())
        }
        None if through.is_empty() => Place::Below(directory),
        None => Place::Named { directory, through, last: Last::Like(String::new(), String::new()) },
        Some(last) => Place::Named { directory, through, last },
    }
}

/// The directory and the name of a path.
pub(super) fn split(path: &str) -> (&str, &str) {
    match path.rsplit_once('/') {
        Some(("", name)) => ("/", name),
        Some(parts) => parts,
        None => ("", path),
    }
}

/// Replaces the children of one directory, if they are many and have the same actions, by the
/// directory. Whether there was one.
fn widen_once(entries: &mut Vec<Entry>, secrets: &Secrets) -> bool {
    let mut groups: BTreeMap<(String, BTreeSet<String>), Vec<usize>> = BTreeMap::new();
    for (index, entry) in entries.iter().enumerate() {
        if let Place::At(path) | Place::Below(path) = &entry.place {
            let directory = split(path).0;
            if !is_shared(Path::new(directory)) && !secrets.within(directory) {
                groups.entry((directory.to_owned(), entry.actions.clone())).or_default().push(index);
            }
        }
    }
    let Some(((directory, actions), members)) = groups.into_iter().find(|(_, members)| members.len() >= MANY)
    else {
        return false;
    };
    let mut tally = Tally::default();
    members.iter().for_each(|index| tally.add(entries[*index].tally));
    let mut index = 0;
    entries.retain(|_| {
        index += 1;
        !members.contains(&(index - 1))
    });
    entries.push(Entry { place: Place::Below(directory), actions, tally });
    true
}

/// Lets a directory that is permitted take what lies in it: all of it whose actions it has, and the
/// listing of directories, which says no more than their files do.
fn absorb(entries: Vec<Entry>) -> Vec<Entry> {
    let (mut directories, others): (Vec<Entry>, Vec<Entry>) =
        entries.into_iter().partition(|entry| matches!(entry.place, Place::Below(_)));
    directories.sort_by_key(|entry| match &entry.place {
        Place::Below(path) => path.len(),
        _ => 0,
    });
    let (mut kept, mut rest): (Vec<Entry>, Vec<Entry>) = (Vec::new(), Vec::new());
    for entry in directories.into_iter().chain(others) {
        let path = match &entry.place {
            Place::At(path) | Place::Below(path) | Place::Named { directory: path, .. } => path,
        };
        let fits = |own: &&mut Entry| {
            let inside = matches!(&own.place, Place::Below(directory) if is_below(path, directory));
            inside && entry.actions.iter().all(|action| action == "dir.list" || own.actions.contains(action))
        };
        match kept.iter_mut().find(fits) {
            Some(own) => {
                own.actions.extend(entry.actions);
                own.tally.add(entry.tally);
            }
            None if matches!(entry.place, Place::Below(_)) => kept.push(entry),
            None => rest.push(entry),
        }
    }
    rest.extend(kept);
    rest.sort_by(|a, b| a.place.cmp(&b.place));
    rest
}

/// Whether `path` is the directory or lies below it.
pub(super) fn is_below(path: &str, directory: &str) -> bool {
    directory == "/"
        || path == directory
        || path.strip_prefix(directory).is_some_and(|rest| rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::super::secrets::SHIPPED;
    use super::*;

    fn entries(seen: &[(&str, &str)]) -> Vec<(String, String)> {
        let seen: Vec<_> = seen.iter().map(|(action, path)| Path1 { path, action, count: 2 }).collect();
        let show = |place: &Place| match place {
            Place::At(path) => path.clone(),
            Place::Below(path) => format!("{path}/**"),
            Place::Named { directory, through, last } => {
                let last = match last {
                    Last::Is(name) => name.clone(),
                    Last::Like(front, back) => format!("{front}*{back}"),
                };
                format!(
                    "{directory}/**/{}{last}",
                    through.iter().map(|name| format!("{name}/")).collect::<String>()
                )
            }
        };
        generalise(&seen, &SHIPPED, Width::Siblings)
            .iter()
            .map(|entry| {
                let actions: Vec<_> = entry.actions.iter().map(String::as_str).collect();
                (show(&entry.place), format!("{} {}", actions.join("+"), entry.tally.count))
            })
            .collect()
    }

    fn of(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter().map(|(place, rest)| ((*place).to_owned(), (*rest).to_owned())).collect()
    }

    #[test]
    fn few_files_stay_files_and_many_become_their_directory() {
        let few = [("file.read", "/srv/www/a"), ("file.read", "/srv/www/b")];
        assert_eq!(entries(&few), of(&[("/srv/www/a", "file.read 2"), ("/srv/www/b", "file.read 2")]));
        let many: Vec<String> = ["a", "b", "c", "d", "e"].map(|name| format!("/srv/www/{name}.html")).into();
        let mut seen: Vec<_> = many.iter().map(|path| ("file.read", path.as_str())).collect();
        seen.push(("dir.list", "/srv/www"));
        seen.push(("file.append", "/srv/www/log"));
        assert_eq!(
            entries(&seen),
            of(&[("/srv/www/log", "file.append 2"), ("/srv/www/**", "dir.list+file.read 12")])
        );
    }

    #[test]
    fn directories_that_others_share_or_that_hold_secrets_are_never_one() {
        let files =
            |directory: &str| ["a", "b", "c", "d", "e", "f"].map(|name| format!("{directory}/{name}"));
        for directory in ["/etc", "/usr", "/var/lib", "/etc/ssl", "/home"] {
            let files = files(directory);
            let seen: Vec<_> = files.iter().map(|path| ("file.read", path.as_str())).collect();
            assert_eq!(entries(&seen).len(), 6, "{directory}");
        }
    }

    #[test]
    fn many_directories_become_their_parent() {
        let paths: Vec<String> = ["a", "b", "c", "d", "e"]
            .iter()
            .flat_map(|site| {
                ["1.html", "two.html", "three.css", "four.js", "five.png", "six.png"]
                    .map(|file| format!("/srv/www/{site}/{file}"))
            })
            .collect();
        let seen: Vec<_> = paths.iter().map(|path| ("file.read", path.as_str())).collect();
        assert_eq!(entries(&seen), of(&[("/srv/www/**", "file.read 60")]));
    }

    #[test]
    fn chance_is_named_by_what_is_fixed_around_it() {
        let seen = [
            ("file.read", "/proc/812/stat"),
            ("file.read", "/proc/90/stat"),
            ("file.create", "/tmp/tmpab12cd34"),
            ("file.create", "/tmp/tmpzz98yy76"),
            ("file.write", "/var/lib/nginx/body/0000000001"),
            ("file.read", "/opt/app/2.1.0/etc/app.conf"),
            ("file.read", "/opt/app/2.1.1/etc/app.conf"),
            ("file.append", "/var/log/app/app.log"),
            ("file.append", "/var/log/app/app.log.1"),
        ];
        assert_eq!(
            entries(&seen),
            of(&[
                ("/var/log/app/app.log", "file.append 2"),
                ("/var/lib/nginx/body/**", "file.write 2"),
                ("/opt/app/**/etc/app.conf", "file.read 4"),
                ("/proc/**/stat", "file.read 4"),
                ("/tmp/**/tmp*", "file.create 4"),
                ("/var/log/app/**/app.log*", "file.append 2"),
            ])
        );
    }

    #[test]
    fn siblings_of_chance_are_one_pattern() {
        let seen = [
            ("file.create", "/run/app/job-abcde1"),
            ("file.create", "/run/app/job-fghij2"),
            ("file.create", "/run/app/job-klmno3"),
        ];
        assert_eq!(entries(&seen), of(&[("/run/app/**/job-*", "file.create 6")]));
    }

    #[test]
    fn a_number_below_a_shared_directory_stays_what_it_is() {
        assert_eq!(entries(&[("dir.list", "/proc/812")]), of(&[("/proc/812", "dir.list 2")]));
    }
}
