//! Text that is deep or long: parsing and everything after it must neither overflow a stack nor take
//! long, and what is said about it has an end.

use std::sync::Arc;
use std::time::Instant;

use super::*;
use crate::host::{Fixed, Host, parse_mounts};
use crate::policy::{self, Facts, Oracle, SubjectIds};

/// What the daemon's threads have. Optimised code needs a quarter of it, and code without optimisation more
/// than half.
const STACK: usize = 2 << 20;

/// From a file of policies to tables and an oracle, on such a stack; what it is refused with.
fn all_the_way(cedar: String) -> String {
    let work = move || -> Result<(), Diagnostics> {
        let mut files = Files::new(Path::new("x"));
        files.insert("guard.toml", TOML.into())?;
        files.insert("deep.cedar", cedar.into_bytes())?;
        let bundle = policy::parse(&Opened { files, seal: None })?;
        let host = Host {
            mounts: parse_mounts(b"1 0 8:1 / / rw - ext4 a rw\n"),
            resolvers: Vec::new(),
            protected: Vec::new(),
            undecided: 0,
            artifacts: Arc::default(),
            lookup: Arc::new(Fixed::default()),
        };
        policy::compile(&bundle, &host, &mut SubjectIds::default())?;
        Oracle::new(&bundle, &host, &Facts::default())?.set.text(&bundle, None)?;
        Ok(())
    };
    let thread = std::thread::Builder::new().stack_size(STACK).spawn(work).unwrap();
    thread.join().unwrap().err().map(|errors| errors.to_string()).unwrap_or_default()
}

fn when(condition: &str) -> String {
    format!(
        "@id(\"it\") permit (principal, action == Guard::Action::\"file.read\", resource) when {{ {condition} }};"
    )
}

/// `condition`, `depth` times inside itself.
fn nested(depth: usize, before: &str, inside: &str, behind: &str) -> String {
    when(&format!("{}{inside}{}", before.repeat(depth), behind.repeat(depth)))
}

#[test]
fn no_nesting_overflows_a_stack() {
    const LEAF: &str = "resource.owner == 1";
    let shapes: [(&str, &str, &str); 10] = [
        ("(", LEAF, ")"),
        ("!(", LEAF, ")"),
        ("if resource.set_id then true else (", LEAF, ")"),
        ("if resource.set_id then true else ", LEAF, ""),
        ("resource.owner == 2 || ", LEAF, ""),
        ("resource.set_id && ", LEAF, ""),
        ("", LEAF, " || resource.fileless"),
        ("[", "1", "]"),
        ("{\"a\": ", "1", "}"),
        ("", "context", ".posture"),
    ];
    for (before, inside, behind) in shapes {
        // At the limit, around it and far beyond it.
        for depth in [10, 11, 22, 23, 24, 65, 66, 98, 100, 198, 200, 1000, 200_000] {
            // An overflow ends the whole program: this says where.
            println!("{depth} times {before}{inside}{behind}");
            let text = all_the_way(nested(depth, before, inside, behind));
            assert!(text.is_empty() || text.starts_with("error["), "{before} {depth}: {text}");
            assert!(!text.starts_with("error[internal]"), "{before} {depth}: {text}");
            if depth >= 1000 {
                assert!(
                    text.starts_with("error[nesting]") && text.contains("deep.cedar:1:"),
                    "{before}: {text}"
                );
            }
        }
    }
    for text in ["!".repeat(100_000), "-".repeat(100_000), "principal.".repeat(100_000)] {
        assert!(all_the_way(when(&text)).starts_with("error[nesting]"));
    }
    // A long list is not deep.
    let list: Vec<String> = (0..20_000).map(|number| format!("Guard::Dir::\"/srv/{number}\"")).collect();
    assert_eq!(all_the_way(when(&format!("resource in [{}]", list.join(", ")))), "");
}

#[test]
fn a_schema_and_a_manifest_are_no_way_around_the_limit() {
    for depth in [40, 100, 100_000] {
        let deep = format!(
            "namespace Guard {{ type Posture = {}Long{}; }}",
            "{ a: ".repeat(depth),
            " }".repeat(depth)
        );
        let toml = TOML.replace("profile = 1", "profile = 1\nschema = [\"p.cedarschema\"]");
        let directory = Directory::new(&[("guard.toml", &toml), ("p.cedarschema", &deep)]);
        assert!(policy::load(&directory.0).unwrap_err().to_string().starts_with("error["), "{depth}");
        for text in [
            format!("x = {}{}", "[".repeat(depth), "]".repeat(depth)),
            format!("{}b = 1", "a.".repeat(depth)),
        ] {
            let directory = Directory::new(&[("guard.toml", &text)]);
            let text = policy::load(&directory.0).unwrap_err().to_string();
            assert!(text.starts_with("error[") && text.len() < 4000, "{depth}: {} bytes", text.len());
        }
    }
}

#[test]
fn the_name_of_a_fact_cannot_become_schema_text() {
    let toml = format!("{TOML}[facts]\n\"a?: Long }}; type Evil = {{ b\" = {{ type = \"long\" }}\n");
    let text = policy::load(&Directory::new(&[("guard.toml", &toml)]).0).unwrap_err().to_string();
    assert!(text.contains("error[schema]: the name of a fact is an identifier"), "{text}");
    assert!(text.contains("guard.toml:10:1"), "{text}");
}

#[test]
fn giant_strings_are_refused_shortly() {
    let giant = "a".repeat(8 << 20);
    let began = Instant::now();
    for text in [
        when(&format!("resource.name == \"{giant}\"")),
        when(&format!("resource in Guard::Dir::\"/{giant}\"")),
        when(&format!("resource.{giant}")),
        format!("@id(\"{giant}\") permit (principal, action, resource in Guard::Net::\"{giant}\");"),
        giant.clone(),
        format!("\"{giant}"),
        "/".repeat(8 << 20),
    ] {
        let error = all_the_way(text);
        assert!(error.len() < 10_000, "{} bytes about it", error.len());
    }
    for text in [
        format!("[bundle]\nname = \"{giant}"),
        format!("{giant} = 1"),
        format!("[bundle]\nname = \"{giant}\""),
    ] {
        let error = policy::load(&Directory::new(&[("guard.toml", &text)]).0).unwrap_err().to_string();
        assert!(error.starts_with("error[") && error.len() < 10_000, "{} bytes about it", error.len());
    }
    println!("{:?}", began.elapsed());
}

#[test]
fn every_policy_of_a_large_bundle_can_be_wrong() {
    let wrong = "permit (principal, action, resource);\n".repeat(19_000);
    let began = Instant::now();
    let text = all_the_way(wrong);
    assert!(
        text.starts_with("error[no-id]") && text.ends_with("and 18900 more\n"),
        "{}",
        &text[text.len() - 200..]
    );
    let twice = "@id(\"a\") permit (principal, action, resource);\n".repeat(19_000);
    assert!(all_the_way(twice).starts_with("error[duplicate-id]"));
    println!("{:?}", began.elapsed());
}
