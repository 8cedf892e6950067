//! Which parts of a name are chance: numbers, versions, dates, hashes, and what `mkstemp(3)` makes.

/// Bytes on each side of the `*` of a pattern, at most (docs/policy.md).
const PATTERN_MAX: usize = 24;

/// The shape of one component of a path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Shape {
    /// A name that somebody chose.
    Fixed,
    /// Between a fixed beginning and a fixed end, one of which may be empty, everything varies.
    Like {
        /// The beginning.
        prefix: String,
        /// The end.
        suffix: String,
    },
}

impl Shape {
    /// The shape of a name by itself.
    pub(super) fn of(name: &str) -> Self {
        let varying = |name| {
            rotated(name)
                .or_else(|| number(name))
                .or_else(|| hash(name))
                .or_else(|| version(name))
                .or_else(|| random(name))
        };
        let Some((front, mut back)) = varying(name) else { return Self::Fixed };
        // A pattern has one `*`: it reaches to the end of the last part that varies.
        while let Some((_, more)) = varying(&name[back..]) {
            back += more;
        }
        Self::like(&name[..front], &name[back..])
    }

    /// The shape that `names`, siblings of each other, share: the same beginning and end around a part
    /// of the same length, which is different in each and long enough to be chance.
    pub(super) fn shared(names: &[&str]) -> Option<Self> {
        const FEW: usize = 3;
        const SHORTEST: usize = 6;
        let (first, rest) = names.split_first().filter(|(_, rest)| rest.len() + 1 >= FEW)?;
        if rest.iter().any(|name| name.len() != first.len() || !name.is_ascii()) || !first.is_ascii() {
            return None;
        }
        let front = common(names.iter().map(|name| name.bytes()));
        let back = common(names.iter().map(|name| name.bytes().rev()));
        // What chance made alike in a few names still belongs to the part that varies.
        let front = first[..front].trim_end_matches(|c: char| c.is_ascii_alphanumeric()).len();
        let tail = &first[first.len() - back.min(first.len() - front)..];
        let back = tail.trim_start_matches(|c: char| c.is_ascii_alphanumeric()).len();
        let varies = first.len() - front - back;
        let plain =
            |name: &&str| name[front..name.len() - back].bytes().all(|byte| byte.is_ascii_alphanumeric());
        let chance =
            names.iter().any(|name| name[front..name.len() - back].bytes().any(|byte| byte.is_ascii_digit()));
        (varies >= SHORTEST && chance && names.iter().all(plain))
            .then(|| Self::like(&first[..front], &first[first.len() - back..]))
    }

    fn like(prefix: &str, suffix: &str) -> Self {
        let front = (0..=prefix.len().min(PATTERN_MAX)).rev().find(|at| prefix.is_char_boundary(*at));
        let start = suffix.len().saturating_sub(PATTERN_MAX);
        let back = (start..=suffix.len()).find(|at| suffix.is_char_boundary(*at));
        Self::Like {
            prefix: prefix[..front.unwrap_or(0)].to_owned(),
            suffix: suffix[back.unwrap_or(suffix.len())..].to_owned(),
        }
    }
}

fn common<I: Iterator<Item = u8>>(names: impl Iterator<Item = I>) -> usize {
    let mut names: Vec<I> = names.collect();
    let mut length = 0;
    loop {
        let mut heads = names.iter_mut().map(Iterator::next);
        match heads.next().flatten() {
            Some(first) if heads.all(|byte| byte == Some(first)) => length += 1,
            _ => return length,
        }
    }
}

/// The range of bytes that varies.
type Varying = Option<(usize, usize)>;

/// `access.log.1`, `access.log.2.gz`, `app-20260131`, `app.2026-01-31.zst`: everything behind the
/// name of the log varies.
fn rotated(name: &str) -> Varying {
    const PACKED: [&str; 5] = [".gz", ".xz", ".bz2", ".zst", ".old"];
    let stem = PACKED.iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
    let digits = stem.len() - stem.trim_end_matches(|c: char| c.is_ascii_digit()).len();
    let log = |front: &str| front.contains("log") || stem.len() != name.len();
    let before = &stem[..stem.len() - digits];
    if (1..=3).contains(&digits) && before.ends_with('.') && log(before) && !before.ends_with(".so.") {
        return Some((before.len() - 1, name.len()));
    }
    let date = date(stem)?;
    let front = &stem[..date];
    front.ends_with(['-', '.', '_']).then_some((front.len() - 1, name.len()))
}

/// Where a date at the end of the text begins.
fn date(text: &str) -> Option<usize> {
    let year = |digits: &str| digits.starts_with("19") || digits.starts_with("20");
    for (length, form) in [(8, "dddddddd"), (10, "dddd-dd-dd"), (10, "dddddddddd")] {
        let Some(start) = text.len().checked_sub(length).filter(|start| text.is_char_boundary(*start)) else {
            continue;
        };
        let part = &text[start..];
        let fits = part.bytes().zip(form.bytes()).all(|(byte, wanted)| match wanted {
            b'd' => byte.is_ascii_digit(),
            other => byte == other,
        });
        if fits && year(part) {
            return Some(start);
        }
    }
    None
}

/// `812`: a process, a user, a queue entry.
fn number(name: &str) -> Varying {
    (!name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit())).then_some((0, name.len()))
}

/// A UUID, or sixteen and more hexadecimal digits.
fn hash(name: &str) -> Varying {
    const SHORTEST: usize = 16;
    let hexadecimal = |byte: u8| byte.is_ascii_hexdigit() || byte == b'-';
    let bytes = name.as_bytes();
    let mut start = 0;
    while start < bytes.len() {
        let length = bytes[start..].iter().take_while(|byte| hexadecimal(**byte)).count();
        if length == 0 {
            // This may be in the middle of a character.
            start += 1;
            continue;
        }
        let run = name[start..start + length].trim_matches('-');
        let digits = run.bytes().filter(u8::is_ascii_hexdigit).count();
        let mixed = run.bytes().any(|byte| byte.is_ascii_digit());
        // A word such as `de-facade` is in front of a hash only by chance; it varies with it then.
        if digits >= SHORTEST && mixed && run.split('-').all(|part| part.len() >= 4 || part.is_empty()) {
            let front = start + name[start..].find(run).unwrap_or(0);
            return Some((front, front + run.len()));
        }
        start += length;
    }
    None
}

/// `1.2.3`, `python3.11`, `app-v2.0.1-linux`, `libz.so.1.3`.
fn version(name: &str) -> Varying {
    let bytes = name.as_bytes();
    let digit = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_digit);
    if let Some(at) = name.find(".so.").filter(|at| digit(at + 4)) {
        return Some((at + 3, name.len()));
    }
    let mut start = 0;
    while start < bytes.len() {
        if !digit(start) {
            start += 1;
            continue;
        }
        let length = bytes[start..].iter().take_while(|byte| byte.is_ascii_digit() || **byte == b'.').count();
        let run = name[start..start + length].trim_end_matches('.');
        if run.contains('.') && !run.contains("..") {
            let front = if name[..start].ends_with('v') { start - 1 } else { start };
            return Some((front, start + run.len()));
        }
        start += length;
    }
    None
}

/// What `mkstemp(3)` and its like make of a template: a part of six and more letters and digits at
/// the end, or before an extension.
fn random(name: &str) -> Varying {
    const SHORTEST: usize = 6;
    for prefix in ["tmp", "temp", ".tmp", "pymp-", "scoped_dir"] {
        let rest = name.strip_prefix(prefix).map(|rest| rest.trim_start_matches(['.', '-', '_']));
        if rest.is_some_and(|rest| (SHORTEST..=12).contains(&rest.len()) && !rest.contains('.')) {
            return Some((prefix.len(), name.len()));
        }
    }
    let mut at = 0;
    for part in name.split(['.', '-', '_', '~', '#', '@', '+']) {
        if part.len() >= SHORTEST && looks_random(part) {
            return Some((at, at + part.len()));
        }
        at += part.len() + 1;
    }
    None
}

/// Whether letters and digits change their kind as often as chance makes them: names that people
/// choose, such as `utf8`, `Makefile` or `base64url`, do it once or twice.
fn looks_random(part: &str) -> bool {
    const CHANGES: usize = 3;
    let kind = |byte: u8| match byte {
        b'0'..=b'9' => Some(0),
        b'a'..=b'z' => Some(1),
        b'A'..=b'Z' => Some(2),
        _ => None,
    };
    let Some(kinds) = part.bytes().map(kind).collect::<Option<Vec<_>>>() else { return false };
    // `CamelCaseName` changes with every word, but always from an upper to a lower letter and back.
    let camel = kinds.iter().all(|kind| *kind != 0)
        && part.split(|c: char| c.is_ascii_uppercase()).skip(1).all(|word| word.len() >= 2);
    let changes = kinds.windows(2).filter(|pair| pair[0] != pair[1]).count();
    changes >= CHANGES && !camel
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(name: &str) -> String {
        match Shape::of(name) {
            Shape::Fixed => name.to_owned(),
            Shape::Like { prefix, suffix } => format!("{prefix}*{suffix}"),
        }
    }

    #[test]
    fn chance_is_told_from_choice() {
        for (name, wanted) in [
            // Numbers.
            ("812", "*"),
            ("0000000001", "*"),
            // Hashes and ids.
            ("6f1c2a3b-4d5e-6f70-8192-a3b4c5d6e7f8.json", "*.json"),
            ("cache-0123456789abcdef0123456789abcdef", "cache-*"),
            ("systemd-private-0f1e2d3c4b5a69788796a5b4c3d2e1f0-nginx.service-Ab3dEf", "systemd-private-*"),
            // What mkstemp makes.
            ("tmpk3v9x_zq", "tmp*"),
            ("sess_aB3dE9", "sess_*"),
            ("upload.x7Q2mP.part", "upload.*.part"),
            // Versions.
            ("1.2.3", "*"),
            ("python3.11", "python*"),
            ("app-v2.0.1-linux", "app-*-linux"),
            ("libz.so.1", "libz.so*"),
            ("libcrypto.so.3.0.11", "libcrypto.so*"),
            // Rotated logs.
            ("access.log.1", "access.log*"),
            ("access.log.14.gz", "access.log*"),
            ("syslog.2.gz", "syslog*"),
            ("error.log-20260131", "error.log*"),
            ("app-2026-01-31.zst", "app*"),
        ] {
            assert_eq!(shape(name), wanted, "{name}");
        }
    }

    #[test]
    fn names_that_people_choose_stay() {
        for name in [
            "nginx.conf",
            "access.log",
            "Makefile",
            "README",
            "id_ed25519",
            "utf8",
            "base64url",
            "x86_64-linux-gnu",
            "libc.so",
            "mod-http-geoip2.conf",
            "CamelCaseName",
            "sites-enabled",
            "default",
            "de-facade",
            "index.html",
            "openssl.cnf",
            "ld.so.cache",
            "en_US.UTF-8",
            "ISO8859-1",
            "sha256sums",
            "50-mod.conf",
            "tmp",
            "temp.txt",
            "gconv-modules.cache",
            "C.utf8",
            "nginx.pid",
            "resolv.conf",
            "php8",
            "lib64",
            "www.example.org",
        ] {
            assert_eq!(Shape::of(name), Shape::Fixed, "{name}");
        }
    }

    #[test]
    fn siblings_show_what_one_name_does_not() {
        let like =
            |prefix: &str, suffix: &str| Some(Shape::Like { prefix: prefix.into(), suffix: suffix.into() });
        assert_eq!(Shape::shared(&["job-abcde1", "job-fghij2", "job-klmno3"]), like("job-", ""));
        assert_eq!(Shape::shared(&["a1aaaa.sock", "b2bbbb.sock", "c3cccc.sock"]), like("", ".sock"));
        assert_eq!(Shape::shared(&["monday", "friday", "sunday"]), None, "no digit: words");
        assert_eq!(Shape::shared(&["abcde1", "fghij2"]), None, "two are too few");
        assert_eq!(Shape::shared(&["a.conf", "b.conf", "c.conf"]), None, "too short to be chance");
    }

    #[test]
    fn patterns_keep_the_limits_of_the_compiler() {
        let long = format!("{}-0123456789abcdef0123456789abcdef", "x".repeat(40));
        assert_eq!(Shape::of(&long), Shape::Like { prefix: "x".repeat(24), suffix: String::new() });
        assert!(
            matches!(Shape::of("é0123456789abcdef0"), Shape::Like { .. }),
            "not in the middle of a character"
        );
    }
}
