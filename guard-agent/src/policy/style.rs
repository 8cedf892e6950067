//! Cedar text in one style.

use super::diagnostics::{Diagnostic, Diagnostics, Source};
use super::nesting;
use super::policies::from_miette;

/// Columns of a line.
const WIDTH: usize = 100;

/// `text` of the file `name`, laid out. Comments stay; the policies are the same ones.
///
/// # Errors
/// If it does not parse.
pub fn format(name: &str, text: &str) -> Result<String, Diagnostics> {
    let source = Source::new(name, text);
    nesting::check(&source)?;
    if let Err(errors) = cedar_policy_core::parser::parse_policyset(text) {
        let found = errors.iter().map(|error| from_miette(&source, "syntax", error)).collect();
        return Diagnostics::refuse_if_errors(found).map(|_| String::new());
    }
    // The formatter has nothing to hold a comment by in a file without policies.
    if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with("//")) {
        return Ok(text.to_owned());
    }
    let laid_out = lay_out(name, text, WIDTH)?;
    Ok(format!("{}\n", laid_out.trim_end()))
}

/// Bytes of stack for laying out text: Cedar's formatter descends once for every element of a list.
const STACK: usize = 16 << 20;
/// And this much for every byte of the text; what is not used costs nothing.
const STACK_PER_BYTE: usize = 64;

/// Lays out text that parses, in lines of `width` columns.
pub(super) fn lay_out(name: &str, text: &str, width: usize) -> Result<String, Diagnostic> {
    let broken = |why: String| Diagnostic::error("internal", format!("{name}: cannot be laid out: {why}"));
    let config = cedar_policy_formatter::Config { line_width: width, indent_width: 2 };
    let work = || {
        cedar_policy_formatter::policies_str_to_pretty(text, &config).map_err(|error| format!("{error:?}"))
    };
    std::thread::scope(|scope| {
        let size = STACK + text.len() * STACK_PER_BYTE;
        let thread = std::thread::Builder::new().stack_size(size).spawn_scoped(scope, work);
        let thread = thread.map_err(|error| broken(error.to_string()))?;
        thread.join().unwrap_or_else(|_| Err("the formatter panicked".to_owned())).map_err(broken)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_stay_and_a_second_time_changes_nothing() {
        let text = "// who may read\n@id(\"a\")   permit (principal, action, resource) // all\nwhen { resource has x // why\n && resource.x == 1 };\n";
        let once = format("a.cedar", text).unwrap();
        for comment in ["// who may read", "// all", "// why"] {
            assert!(once.contains(comment), "{once}");
        }
        assert_eq!(format("a.cedar", &once).unwrap(), once);
        assert_eq!(format("a.cedar", "// nothing yet\n").unwrap(), "// nothing yet\n");
        let errors = format("a.cedar", "permit (principal").unwrap_err().to_string();
        assert!(errors.contains("a.cedar:1"), "{errors}");
    }
}
