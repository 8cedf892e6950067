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
    let config = cedar_policy_formatter::Config { line_width: WIDTH, indent_width: 2 };
    let laid_out = cedar_policy_formatter::policies_str_to_pretty(text, &config)
        .map_err(|error| Diagnostic::error("internal", format!("{name}: cannot be laid out: {error:?}")))?;
    Ok(format!("{}\n", laid_out.trim_end()))
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
