//! Regions in words: the fewest paths, networks and names that say where something holds.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use guard_common::class::{BUILTINS, UNNAMED_UNIX};

use super::region::Where;
use super::{Condition, Survey};
use crate::policy::formula::Atom;

/// Most exceptions that are named one by one.
const MAX_EXCEPTIONS: usize = 4;

/// A directory with the regions at and below it.
#[derive(Default)]
struct Tree {
    at: Option<bool>,
    below: Option<bool>,
    children: BTreeMap<PathBuf, Tree>,
}

impl Survey<'_> {
    /// The regions with these numbers, in words, one text for each piece that has to be named.
    /// `among` are all regions that could have been meant: what is left out of them is named as an
    /// exception.
    pub fn places(&self, regions: &[usize], among: &[usize]) -> Vec<String> {
        self.places_under(regions, among, &Condition::default())
    }

    /// As [`Survey::places`], for what `condition` is said of as well: a path whose name alone rules it
    /// out is no exception.
    pub fn places_under(&self, regions: &[usize], among: &[usize], condition: &Condition) -> Vec<String> {
        let wanted: BTreeSet<usize> = regions.iter().copied().collect();
        let mut texts = Vec::new();
        let mut tree = Tree::default();
        let (mut hidden, mut hidden_out) = (Vec::new(), false);
        for number in among {
            let Some((place, below)) = self.regions[*number].place() else { continue };
            let yes = wanted.contains(number);
            if !yes && !below && condition.excludes(&self.regions[*number].components().0) {
                continue;
            }
            let name = self.naming.name(&place);
            if !name.starts_with('/') {
                // A file system that no path of this mount namespace leads to.
                if yes {
                    hidden.push((name, below))
                } else {
                    hidden_out = true
                }
                continue;
            }
            tree.insert(Path::new(&name), below, yes);
        }
        tree.render(Path::new("/"), &mut texts);
        // Exceptions are named, so what has no name is meant as well.
        let everywhere = texts.first().is_some_and(|text| text.starts_with("any path"));
        if !(hidden.is_empty() || everywhere && !hidden_out) {
            texts.extend(hidden.into_iter().filter(|(_, below)| *below).map(|(name, _)| name));
        }
        texts.extend(self.networks(&wanted, among));
        for number in among.iter().filter(|number| wanted.contains(number)) {
            match &self.regions[*number].spot {
                Where::Abstract(name) => texts.push(format!("@{name}")),
                Where::OtherAbstract => texts.push("other abstract sockets".to_owned()),
                Where::Unclassified if !everywhere => {
                    texts.push("file systems that are not classified".to_owned())
                }
                Where::Builtin(UNNAMED_UNIX) => texts.push("unix sockets without a name".to_owned()),
                Where::Builtin(class) => texts.push(
                    BUILTINS
                        .iter()
                        .find(|builtin| builtin.class == *class)
                        .map_or_else(|| "other protocols".to_owned(), |builtin| builtin.id.to_owned()),
                ),
                _ => {}
            }
        }
        texts
    }

    /// Addresses, neighbours joined, as few networks as possible.
    fn networks(&self, wanted: &BTreeSet<usize>, among: &[usize]) -> Vec<String> {
        let (mut v4, mut v6) = (Vec::<(u128, u128)>::new(), Vec::<(u128, u128)>::new());
        let mut named = BTreeSet::new();
        for number in among.iter().filter(|number| wanted.contains(number)) {
            let region = &self.regions[*number];
            match region.spot {
                Where::V4(first, last) => v4.push((first.into(), last.into())),
                Where::V6(first, last) => v6.push((first, last)),
                _ => continue,
            }
            for id in self.classes.list()[region.class as usize].cover.iter() {
                if let Atom::Dns(name) = self.atoms.get(*id) {
                    named.insert(name.split('\0').next().unwrap_or_default().to_owned());
                }
            }
        }
        let (v4, v6) = (adjoined(v4), adjoined(v6));
        if v4 == [(0, u32::MAX.into())] && v6 == [(0, u128::MAX)] {
            return vec!["any address".to_owned()];
        }
        let text = |(first, last): &(u128, u128), bits: u32| {
            let address = |n: u128| match bits {
                32 => IpAddr::V4(Ipv4Addr::from(n as u32)),
                _ => IpAddr::V6(Ipv6Addr::from(n)),
            };
            let host = last - first;
            let length = bits - (128 - host.leading_zeros());
            let aligned = host.checked_add(1).is_none_or(|size| size.is_power_of_two()) && first & host == 0;
            match (host, aligned) {
                (0, _) => address(*first).to_string(),
                (_, true) => format!("{}/{length}", address(*first)),
                (_, false) => format!("{}-{}", address(*first), address(*last)),
            }
        };
        let mut texts: Vec<String> = v4.iter().map(|range| text(range, 32)).collect();
        texts.extend(v6.iter().map(|range| text(range, 128)));
        // A name's addresses say little without the name.
        if !named.is_empty() && texts.len() <= 16 {
            let named: Vec<String> = named.into_iter().collect();
            texts.iter_mut().for_each(|text| *text = format!("{text} ({})", named.join(" ")));
        }
        texts
    }
}

/// Ranges in order, neighbours as one.
fn adjoined(mut ranges: Vec<(u128, u128)>) -> Vec<(u128, u128)> {
    ranges.sort_unstable();
    let mut found: Vec<(u128, u128)> = Vec::new();
    for (first, last) in ranges {
        match found.last_mut() {
            Some((_, end)) if end.checked_add(1) == Some(first) => *end = last,
            _ => found.push((first, last)),
        }
    }
    found
}

impl Tree {
    fn insert(&mut self, path: &Path, below: bool, yes: bool) {
        let mut node = self;
        let mut passed = PathBuf::from("/");
        for component in path.components().skip(1) {
            passed.push(component);
            node = node.children.entry(passed.clone()).or_default();
        }
        let slot = if below { &mut node.below } else { &mut node.at };
        // Several mounts can show one place; a path is named if all of what it means is.
        *slot = Some(slot.unwrap_or(true) && yes);
    }

    /// Whether everything here and below has this answer.
    fn uniform(&self, wanted: bool) -> bool {
        let fits = |slot: Option<bool>| slot.is_none_or(|yes| yes == wanted);
        fits(self.at) && fits(self.below) && self.children.values().all(|child| child.uniform(wanted))
    }

    /// Whether something here or below has been said to be one or the other.
    fn is_empty(&self) -> bool {
        self.at.is_none() && self.below.is_none() && self.children.values().all(Self::is_empty)
    }

    fn render(&self, path: &Path, texts: &mut Vec<String>) {
        if self.is_empty() || self.uniform(false) {
            return;
        }
        if self.below == Some(true) {
            let mut exceptions = Vec::new();
            if self.at == Some(false) {
                exceptions.push(path.display().to_string());
            }
            let mut inside = Vec::new();
            self.exceptions(&mut exceptions, &mut inside);
            let whole = match path == Path::new("/") {
                true => "any path".to_owned(),
                false => format!("{}/**", path.display()),
            };
            texts.push(match exceptions.len() {
                0 => whole,
                1..=MAX_EXCEPTIONS => format!("{whole} except {}", exceptions.join(", ")),
                more => format!(
                    "{whole} except {}, and {} more",
                    exceptions[..MAX_EXCEPTIONS - 1].join(", "),
                    more + 1 - MAX_EXCEPTIONS
                ),
            });
            texts.extend(inside);
            return;
        }
        if self.at == Some(true) {
            texts.push(path.display().to_string());
        }
        for (path, child) in &self.children {
            child.render(path, texts);
        }
    }

    /// What below this directory is left out, and what within that is in again.
    fn exceptions(&self, out: &mut Vec<String>, inside: &mut Vec<String>) {
        for (path, child) in &self.children {
            if child.uniform(true) {
                continue;
            }
            match (child.at, child.below) {
                (_, Some(false)) => {
                    out.push(format!("{}/**", path.display()));
                    // The directory itself can be in although nothing below it is.
                    child.render(path, inside);
                }
                (Some(false), _) => {
                    out.push(path.display().to_string());
                    child.exceptions(out, inside);
                }
                _ => child.exceptions(out, inside),
            }
        }
    }
}
