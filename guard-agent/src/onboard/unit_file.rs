//! The text of a systemd unit, as `systemctl cat` prints it: the unit's file and its drop-ins, one
//! after the other. `systemd.syntax(7)` is the format.

use std::collections::BTreeMap;

/// The assignments of a unit, by section and key, in the order in which they count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnitFile {
    values: BTreeMap<(String, String), Vec<String>>,
}

impl UnitFile {
    /// Reads the text. Lines that are no assignment are left out, as the service manager does.
    pub fn parse(text: &str) -> Self {
        let mut this = Self::default();
        let mut section = String::new();
        for line in logical_lines(text) {
            let line = line.trim();
            if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                section = name.to_owned();
            } else if let Some((key, value)) = line.split_once('=') {
                let values = this.values.entry((section.clone(), key.trim().to_owned())).or_default();
                match value.trim() {
                    // An empty assignment forgets what came before it.
                    "" => values.clear(),
                    value => values.push(value.to_owned()),
                }
            }
        }
        this
    }

    /// All values of a key, for keys that hold lists.
    pub fn all(&self, section: &str, key: &str) -> &[String] {
        self.values.get(&(section.to_owned(), key.to_owned())).map_or(&[], Vec::as_slice)
    }

    /// The value of a key: the last one counts.
    pub fn last(&self, section: &str, key: &str) -> Option<&str> {
        self.all(section, key).last().map(String::as_str)
    }

    /// Whether a switch is on.
    pub fn is_on(&self, section: &str, key: &str) -> bool {
        self.last(section, key).is_some_and(|value| {
            ["1", "yes", "true", "on"].iter().any(|word| value.eq_ignore_ascii_case(word))
        })
    }
}

/// Lines without comments, continued ones joined.
fn logical_lines(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut continues = false;
    for line in text.lines() {
        // Comments are skipped in the middle of a continued line too.
        if line.trim_start().starts_with(['#', ';']) {
            continue;
        }
        let (part, more) = match line.strip_suffix('\\') {
            Some(part) => (part, true),
            None => (line, false),
        };
        match lines.last_mut() {
            Some(last) if continues => {
                last.push(' ');
                last.push_str(part.trim_start());
            }
            _ => lines.push(part.to_owned()),
        }
        continues = more;
    }
    lines
}

/// The words of a value: separated by blanks, with quotes and backslashes taken away.
pub(super) fn words(value: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    let mut characters = value.chars();
    while let Some(c) = characters.next() {
        match (c, quote) {
            ('\\', _) => word.get_or_insert_default().extend(characters.next()),
            (c, Some(open)) if c == open => quote = None,
            ('"' | '\'', None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (c, None) if c.is_whitespace() => words.extend(word.take()),
            (c, _) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_value_counts_and_an_empty_one_forgets() {
        let file = UnitFile::parse(
            "# /lib/systemd/system/x.service\n[Unit]\nDescription=x\n[Service]\nUser=a\nExecStart=/bin/a\n\
             ReadWritePaths=/a \\\n# why\n  /b\n\n# /etc/systemd/system/x.service.d/o.conf\n[Service]\n\
             ExecStart=\nExecStart=/bin/b -x\nUser=b\nPrivateTmp=Yes\nnonsense\n",
        );
        assert_eq!(file.all("Service", "ExecStart"), ["/bin/b -x"]);
        assert_eq!(file.last("Service", "User"), Some("b"));
        assert_eq!(words(&file.all("Service", "ReadWritePaths").join(" ")), ["/a", "/b"]);
        assert!(file.is_on("Service", "PrivateTmp") && !file.is_on("Unit", "PrivateTmp"));
    }

    #[test]
    fn words_lose_their_quotes() {
        assert_eq!(words(r#" /bin/x  "a b" 'c'\ d "" "#), ["/bin/x", "a b", "c d", ""]);
        assert!(words("  ").is_empty());
    }
}
