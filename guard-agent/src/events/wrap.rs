//! Words in columns.

/// Words in lines of at most `width` characters, for a column that begins at `indent`.
pub fn wrapped(words: &[impl AsRef<str>], indent: usize, width: usize) -> String {
    let mut out = String::new();
    let mut column = indent;
    for word in words.iter().map(AsRef::as_ref) {
        let length = word.chars().count();
        if column > indent && column + 1 + length > width {
            out.push('\n');
            out.push_str(&" ".repeat(indent));
            column = indent;
        } else if column > indent {
            out.push(' ');
            column += 1;
        }
        out.push_str(word);
        column += length;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_wrap_below_their_column() {
        let words = ["aaa", "bbb", "ccc"];
        assert_eq!(wrapped(&words, 2, 9), "aaa bbb\n  ccc");
        assert_eq!(wrapped(&words, 2, 3), "aaa\n  bbb\n  ccc");
        assert_eq!(wrapped(&[""; 0], 2, 9), "");
    }
}
