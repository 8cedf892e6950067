//! A set of cases in words: `port 443, tcp`, `named *.pem, not with .git on the path`.

use super::area::Area;
use super::choice::{About, Choice, UNLABELLED, Value};

/// How a case stands to the set that is described.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Membership {
    /// It belongs to it.
    In,
    /// It does not.
    Out,
    /// It cannot occur, so it makes no difference.
    Any,
}

/// What must hold of a resource besides lying in a region.
#[derive(Clone, Debug, Default)]
pub struct Condition {
    /// In words; empty if nothing must.
    pub text: String,
    /// The choices it depends on, with the values that it admits.
    admits: Vec<(About, Vec<(Value, bool)>)>,
}

impl Condition {
    /// Whether a path with these components, of which the last is the last of the path, cannot
    /// fulfil it, by its names alone.
    pub(super) fn excludes(&self, components: &[&[u8]]) -> bool {
        let last = components.last().copied().unwrap_or(b"/");
        self.admits.iter().any(|(about, values)| match about {
            About::Component(names) => {
                let present = names.iter().any(|name| components.contains(&name.as_bytes()));
                values.get(usize::from(present)).is_some_and(|(_, chosen)| !chosen)
            }
            About::Last => {
                let held = |value: &Value, patterns: &[String]| {
                    patterns.iter().all(|text| text_matches(text, last) == value.patterns.contains(text))
                };
                let mut patterns: Vec<String> =
                    values.iter().flat_map(|(value, _)| value.patterns.iter().cloned()).collect();
                patterns.sort_unstable();
                patterns.dedup();
                values.iter().any(|(value, chosen)| !chosen && held(value, &patterns))
            }
            _ => false,
        })
    }
}

/// Whether a name matches a pattern as [`super::choice::pattern_text`] writes it. A name that is
/// compared exactly has no `*`.
fn text_matches(pattern: &str, name: &[u8]) -> bool {
    match pattern.split_once('*') {
        Some((prefix, suffix)) => {
            name.len() >= prefix.len() + suffix.len()
                && name.starts_with(prefix.as_bytes())
                && name.ends_with(suffix.as_bytes())
        }
        None => pattern.as_bytes() == name,
    }
}

/// The cases of an area that are `In`, as alternatives.
pub fn conditions(area: &Area, of: &[Membership]) -> Vec<Condition> {
    let sizes: Vec<usize> = area.choices.iter().map(|choice| choice.values.len()).collect();
    let mut covered = vec![false; of.len()];
    let mut found = Vec::new();
    for start in 0..of.len() {
        if of[start] != Membership::In || covered[start] {
            continue;
        }
        let chosen = grow(&sizes, of, start);
        for number in members(&sizes, &chosen) {
            covered[number] = true;
        }
        let (mut phrases, mut admits) = (Vec::new(), Vec::new());
        for (choice, chosen) in area.choices.iter().zip(&chosen) {
            if let Some(phrase) = phrase(choice, chosen) {
                phrases.push(phrase);
                let values = choice.values.iter().cloned().zip(chosen.iter().copied());
                admits.push((choice.about.clone(), values.collect()));
            }
        }
        found.push(Condition { text: phrases.join(", "), admits });
    }
    found
}

/// The largest box around a case that holds nothing which is `Out`, greedily: for each choice the
/// values that can be added.
fn grow(sizes: &[usize], of: &[Membership], start: usize) -> Vec<Vec<bool>> {
    let mut chosen: Vec<Vec<bool>> = sizes.iter().map(|size| vec![false; *size]).collect();
    let mut rest = start;
    for (choice, size) in chosen.iter_mut().zip(sizes) {
        choice[rest % size] = true;
        rest /= size;
    }
    for (at, size) in sizes.iter().enumerate() {
        for value in 0..*size {
            if chosen[at][value] {
                continue;
            }
            let mut more = chosen.clone();
            more[at] = vec![false; *size];
            more[at][value] = true;
            if members(sizes, &more).all(|number| of[number] != Membership::Out) {
                chosen[at][value] = true;
            }
        }
    }
    chosen
}

/// The numbers of the cases in a box.
fn members<'a>(sizes: &'a [usize], chosen: &'a [Vec<bool>]) -> impl Iterator<Item = usize> + 'a {
    let mut numbers = vec![0usize];
    let mut weight = 1;
    for (size, choice) in sizes.iter().zip(chosen) {
        let with = |number: &usize| {
            let number = *number;
            (0..*size)
                .filter(|value| choice[*value])
                .map(move |value| number + value * weight)
                .collect::<Vec<_>>()
        };
        numbers = numbers.iter().flat_map(with).collect();
        weight *= size;
    }
    numbers.into_iter()
}

/// One choice in words; nothing if every value will do.
fn phrase(choice: &Choice, chosen: &[bool]) -> Option<String> {
    if chosen.iter().all(|yes| *yes) {
        return None;
    }
    let values = || choice.values.iter().zip(chosen);
    let listed = |yes: bool| -> Vec<&str> {
        values().filter(|(_, chosen)| **chosen == yes).map(|(value, _)| value.text.as_str()).collect()
    };
    // With "none of the others" among the chosen, what is left out says it shorter.
    let numbers = |word: &str| {
        if listed(true).contains(&"") {
            format!("{word}not {}", listed(false).join(" or "))
        } else {
            format!("{word}{}", listed(true).join(" or "))
        }
    };
    Some(match &choice.about {
        About::Component(names) => {
            let without = if chosen[0] { "not " } else { "" };
            format!("{without}with {} on the path", names.join(" or "))
        }
        About::Last => last(&choice.values, chosen),
        About::Owner => numbers("owner "),
        About::Kind => format!("kind {}", listed(true).join(" or ")),
        About::SetId => (if chosen[1] { "set-id" } else { "not set-id" }).to_owned(),
        About::Fileless => (if chosen[1] { "fileless" } else { "not fileless" }).to_owned(),
        About::Port => ports(&choice.values, chosen),
        About::Protocol => numbers(""),
        About::Subject => subjects(&choice.values, chosen, ["of", "not of"]),
        About::Given(text) => format!("{}{text}", if chosen[0] { "not " } else { "" }),
        About::Listener => subjects(&choice.values, chosen, ["listener", "listener not"]),
    })
}

/// Patterns over the last component: one that tells the chosen values from the others, if there is
/// one.
fn last(values: &[Value], chosen: &[bool]) -> String {
    let mut patterns: Vec<&String> = values.iter().flat_map(|value| &value.patterns).collect();
    patterns.sort_unstable();
    patterns.dedup();
    let holds = |value: &Value, pattern: &String| value.patterns.contains(pattern);
    let tells = |pattern: &&&String, yes: bool| {
        values.iter().zip(chosen).all(|(value, chosen)| holds(value, pattern) == (*chosen == yes))
    };
    if let Some(pattern) = patterns.iter().find(|pattern| tells(pattern, true)) {
        return format!("named {pattern}");
    }
    if let Some(pattern) = patterns.iter().find(|pattern| tells(pattern, false)) {
        return format!("not named {pattern}");
    }
    let sure: Vec<&str> = patterns
        .iter()
        .filter(|pattern| values.iter().zip(chosen).all(|(value, yes)| *yes || !holds(value, pattern)))
        .map(|pattern| pattern.as_str())
        .collect();
    let covers = |value: &Value| value.patterns.iter().any(|pattern| sure.contains(&pattern.as_str()));
    if values.iter().zip(chosen).all(|(value, yes)| *yes == covers(value)) {
        return format!("named {}", sure.join(" or "));
    }
    let never: Vec<&str> = patterns
        .iter()
        .filter(|pattern| values.iter().zip(chosen).all(|(value, yes)| !*yes || !holds(value, pattern)))
        .map(|pattern| pattern.as_str())
        .collect();
    let excluded = |value: &Value| value.patterns.iter().any(|pattern| never.contains(&pattern.as_str()));
    if values.iter().zip(chosen).all(|(value, yes)| *yes != excluded(value)) {
        return format!("not named {}", never.join(" or "));
    }
    let one = |value: &Value| {
        let not: Vec<&str> = patterns
            .iter()
            .filter(|pattern| !holds(value, pattern))
            .map(|pattern| pattern.as_str())
            .collect();
        match (value.patterns.is_empty(), not.is_empty()) {
            (true, _) => format!("not {}", not.join(" or ")),
            (false, true) => value.patterns.join(" and "),
            (false, false) => format!("{} but not {}", value.patterns.join(" and "), not.join(" or ")),
        }
    };
    let texts: Vec<String> =
        values.iter().zip(chosen).filter(|(_, yes)| **yes).map(|(value, _)| one(value)).collect();
    format!("named {}", texts.join("; or "))
}

/// Subjects, with the words for being one of them and for being none.
fn subjects(values: &[Value], chosen: &[bool], [one, none]: [&str; 2]) -> String {
    let listed = |yes: bool| -> Vec<&str> {
        let of = values.iter().zip(chosen).filter(|(_, chosen)| **chosen == yes);
        of.map(|(value, _)| value.text.as_str()).filter(|text| !text.is_empty()).collect()
    };
    let text = |names: &[&str]| {
        let word =
            |name: &&str| if *name == UNLABELLED { "without a label".to_owned() } else { (*name).to_owned() };
        names.iter().map(word).collect::<Vec<_>>().join(" or ")
    };
    let (yes, no) = (listed(true), listed(false));
    let other = values.iter().zip(chosen).any(|(value, chosen)| value.text.is_empty() && *chosen);
    match (other, yes.as_slice(), no.as_slice()) {
        (false, [UNLABELLED], _) => "without a label".to_owned(),
        (true, _, [UNLABELLED]) => "with a label".to_owned(),
        (true, _, no) => format!("{none} {}", text(no)),
        (false, yes, _) => format!("{one} {}", text(yes)),
    }
}

/// Ports as ranges, neighbours joined.
fn ports(values: &[Value], chosen: &[bool]) -> String {
    let mut ranges: Vec<(u16, u16)> = Vec::new();
    for (value, _) in values.iter().zip(chosen).filter(|(_, yes)| **yes) {
        let Some((first, last)) = value.ports else { continue };
        match ranges.last_mut() {
            Some((_, end)) if end.checked_add(1) == Some(first) => *end = last,
            _ => ranges.push((first, last)),
        }
    }
    let text: Vec<String> = ranges
        .iter()
        .map(|(first, last)| if first == last { first.to_string() } else { format!("{first}-{last}") })
        .collect();
    let word = if matches!(ranges.as_slice(), [(first, last)] if first == last) { "port" } else { "ports" };
    format!("{word} {}", text.join(" "))
}
