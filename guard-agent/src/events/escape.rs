//! Text that others choose, made safe to print without losing a byte.
//!
//! One rule: `\\` is a backslash and `\xNN` is one byte. Escaped are the bytes of everything that is
//! not UTF-8, and of every character that moves the cursor, ends a line, changes the direction of
//! the text or cannot be seen.

/// `bytes` as safe text, and their hexadecimal form if the text is not the bytes themselves.
pub fn lossless(bytes: &[u8]) -> (String, Option<String>) {
    let text = escape(bytes);
    let hex = (text.as_bytes() != bytes).then(|| hex(bytes));
    (text, hex)
}

/// `bytes` as safe text.
pub fn escape(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '\\' => out.push_str("\\\\"),
                _ if hostile(character) => push_bytes(&mut out, character),
                _ => out.push(character),
            }
        }
        chunk.invalid().iter().for_each(|byte| push_byte(&mut out, *byte));
    }
    out
}

/// One word for a line of fields: quoted if it has a space or a quote, so that it cannot pass for
/// two fields. `text` has been escaped or comes from somewhere trusted; it is never escaped twice.
pub fn word(text: &str) -> String {
    let safe = line(text);
    if !safe.is_empty() && !safe.contains([' ', '"']) {
        return safe;
    }
    format!("\"{}\"", safe.replace('"', "\\x22"))
}

/// A line of text for a terminal. Backslashes stay as they are: for text that was escaped before
/// it came here, or that nobody needs to turn back into bytes.
pub fn line(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        if hostile(character) {
            push_bytes(&mut out, character);
        } else {
            out.push(character);
        }
    }
    out
}

/// Lines of text for a terminal: like [`line`], but line ends stay.
pub fn block(text: &str) -> String {
    text.split('\n').map(line).collect::<Vec<_>>().join("\n")
}

/// Bytes as lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whether a character may not reach a terminal as it is: control characters, line and paragraph
/// separators, white space other than the blank, and what is invisible or turns the direction of
/// text (Unicode's `Cf` and the bidirectional controls of UAX #9).
fn hostile(character: char) -> bool {
    character.is_control()
        || (character.is_whitespace() && character != ' ')
        || matches!(u32::from(character),
            0xad | 0x34f | 0x61c | 0x115f | 0x1160 | 0x17b4 | 0x17b5 | 0x180b..=0x180f | 0x200b..=0x200f
            | 0x202a..=0x202e | 0x2060..=0x206f | 0x2800 | 0x3164 | 0xfe00..=0xfe0f | 0xfeff | 0xffa0
            | 0xfff0..=0xfffb | 0x1d173..=0x1d17a | 0xe0000..=0xe0fff)
}

fn push_bytes(out: &mut String, character: char) {
    let mut buffer = [0; 4];
    character.encode_utf8(&mut buffer).bytes().for_each(|byte| push_byte(out, byte));
}

fn push_byte(out: &mut String, byte: u8) {
    out.push_str(&format!("\\x{byte:02x}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rule of the module documentation, read backwards.
    fn unescape(text: &str) -> Vec<u8> {
        let mut out = Vec::new();
        let mut rest = text.as_bytes();
        while let Some((first, tail)) = rest.split_first() {
            rest = tail;
            match (first, tail) {
                (b'\\', [b'x', digits @ ..]) => {
                    let digits = std::str::from_utf8(&digits[..2]).unwrap();
                    out.push(u8::from_str_radix(digits, 16).unwrap());
                    rest = &tail[3..];
                }
                (b'\\', [b'\\', ..]) => {
                    out.push(b'\\');
                    rest = &tail[1..];
                }
                _ => out.push(*first),
            }
        }
        out
    }

    #[test]
    fn ordinary_names_stay_as_they_are() {
        for name in ["/srv/www/index.html", "/srv/Straße/日本語", "a b", "it's \"this\""] {
            assert_eq!(lossless(name.as_bytes()), (name.to_owned(), None));
        }
    }

    #[test]
    fn nothing_hostile_survives_and_nothing_is_lost() {
        let hostile: [&[u8]; 8] = [
            b"/tmp/\x1b]0;owned\x07",
            b"a\nverdict=allowed",
            "evil\u{202e}txt.exe".as_bytes(),
            b"\xff\xfe broken",
            b"back\\x41slash",
            "\u{9b}31m".as_bytes(),
            "a\u{2028}b\u{a0}c\u{200b}d".as_bytes(),
            b"\xe2\x80",
        ];
        for name in hostile {
            let (text, hex) = lossless(name);
            assert!(hex.is_some(), "{text}");
            assert_eq!(unescape(&text), name, "{text}");
            assert!(!text.chars().any(super::hostile), "{text}");
        }
        assert_eq!(escape(b"\x1b[2J"), "\\x1b[2J");
        assert_eq!(escape("\u{202e}".as_bytes()), "\\xe2\\x80\\xae");
        assert_eq!(lossless(b"\xff").1.as_deref(), Some("ff"));
    }

    #[test]
    fn a_word_cannot_pass_for_two() {
        assert_eq!(word("/srv/x"), "/srv/x");
        assert_eq!(word("/srv/x by policy"), "\"/srv/x by policy\"");
        assert_eq!(word("a\"b c"), "\"a\\x22b c\"");
        assert_eq!(word(""), "\"\"");
        assert_eq!(word("\\x1b"), "\\x1b", "escaped once, not twice");
    }

    #[test]
    fn a_block_keeps_its_lines_and_nothing_else() {
        assert_eq!(block("error\n --> a\x1b[1m\r\n"), "error\n --> a\\x1b[1m\\x0d\n");
    }
}
