//! How deeply Cedar text may be nested.
//!
//! Parsing, validating, translating and dropping an expression all descend into it, on a stack that is
//! as large as the thread's: about 20 KiB for a bracket and 2 KiB for an operator, of the 2 MiB of a
//! thread of the daemon. So what is nested too deeply is refused before it is parsed. Operators count
//! like brackets: `a || b || c` is `(a || b) || c`.

use super::diagnostics::{Diagnostic, Source};

/// Brackets around one place, at most.
const MAX_BRACKETS: usize = 24;
/// Operators and brackets above one place, at most. A policy with more alternatives than this writes
/// them as a list: `resource in [ … ]`.
const MAX_DEPTH: usize = 200;

/// Refuses text that is nested too deeply.
pub(super) fn check(source: &Source) -> Result<(), Diagnostic> {
    let mut levels = vec![0usize];
    let mut depth = 0usize;
    for token in tokens(&source.text) {
        let text = &source.text[token.clone()];
        match text {
            "(" | "[" | "{" => {
                levels.push(0);
                depth += 1;
            }
            ")" | "]" | "}" => {
                // What is behind a block is not below what is in it.
                if levels.len() > 1 {
                    depth = depth.saturating_sub(levels.pop().unwrap_or_default() + 1);
                }
            }
            "," | ";" => {
                if let Some(level) = levels.last_mut() {
                    depth = depth.saturating_sub(std::mem::take(level));
                }
            }
            _ => {
                if let Some(level) = levels.last_mut() {
                    *level += 1;
                    depth += 1;
                }
            }
        }
        if levels.len() > MAX_BRACKETS + 1 || depth > MAX_DEPTH {
            let what = if depth > MAX_DEPTH {
                format!("more than {MAX_DEPTH} operators and brackets")
            } else {
                format!("more than {MAX_BRACKETS} brackets")
            };
            let message = format!("this is nested too deeply: {what}");
            let help = "write alternatives as a list, `resource in [ … ]`, or as several policies";
            return Err(source.error("nesting", token, message).help(help));
        }
    }
    Ok(())
}

/// Brackets, separators and operators with their places, outside of strings and comments.
fn tokens(text: &str) -> impl Iterator<Item = std::ops::Range<usize>> {
    let bytes = text.as_bytes();
    let mut at = 0;
    std::iter::from_fn(move || {
        while let Some(byte) = bytes.get(at) {
            let start = at;
            at += 1;
            match byte {
                b'"' => {
                    while let Some(inside) = bytes.get(at) {
                        at += if *inside == b'\\' { 2 } else { 1 };
                        if *inside == b'"' {
                            break;
                        }
                    }
                }
                b'/' if bytes.get(at) == Some(&b'/') => {
                    at += bytes[at..].iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len() - at);
                }
                b'(' | b')' | b'[' | b']' | b'{' | b'}' | b',' | b';' | b'!' | b'-' | b'+' | b'*' | b'<'
                | b'.' => {
                    return Some(start..at);
                }
                b'&' | b'|' | b'=' | b'>' => {
                    // Two of them are one operator.
                    if bytes.get(at) == Some(byte) {
                        at += 1;
                    }
                    return Some(start..at);
                }
                byte if byte.is_ascii_alphabetic() || *byte == b'_' => {
                    while bytes.get(at).is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_') {
                        at += 1;
                    }
                    if matches!(&bytes[start..at], b"if" | b"in" | b"has" | b"like" | b"is") {
                        return Some(start..at);
                    }
                }
                _ => {}
            }
        }
        None
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> Option<String> {
        check(&Source::new("x", text)).err().map(|error| error.to_string())
    }

    #[test]
    fn brackets_and_chains_have_a_limit_and_what_is_beside_does_not_count() {
        let nested = |count| format!("when {{ {}true{} }}", "(".repeat(count), ")".repeat(count));
        assert_eq!(refused(&nested(MAX_BRACKETS - 1)), None);
        let error = refused(&nested(MAX_BRACKETS)).unwrap();
        assert!(error.contains("error[nesting]") && error.contains("x:1:31"), "{error}");
        let chain = |count| format!("when {{ {}true }};", "true || ".repeat(count));
        assert_eq!(refused(&chain(MAX_DEPTH - 1)), None);
        assert!(refused(&chain(MAX_DEPTH)).unwrap().contains("200 operators"));
        assert_eq!(refused(&chain(150).repeat(50)), None, "policies are beside each other");
        let list = format!("when {{ resource in [{}] }};", "Guard::Dir::\"/a\", ".repeat(5000));
        assert_eq!(refused(&list), None);
        assert_eq!(refused(&format!("// {}\n", "(".repeat(5000))), None);
        assert_eq!(refused(&format!("\"{}\\\"((\"", "(".repeat(5000))), None);
        assert!(refused(&"!".repeat(MAX_DEPTH + 1)).is_some());
        assert_eq!(refused(&")".repeat(1000)), None, "the parser says what is wrong");
        assert_eq!(refused("\"\\"), None);
    }
}
