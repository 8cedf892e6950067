//! Large bundles compile in seconds.

use std::fmt::Write;
use std::time::Instant;

use super::*;

#[test]
fn ten_thousand_literals_for_a_hundred_subjects() {
    let (mut toml, mut cedar) = (TOML.to_owned(), String::new());
    for subject in 0..100 {
        let _ = writeln!(
            toml,
            "[subjects.s{subject}]\nselector = {{ user = \"{}\" }}\ngoverns = [\"*\"]\ngroups = [\"all\"]",
            subject + 1000
        );
        for literal in 0..100 {
            let _ = writeln!(
                cedar,
                "@id(\"p{subject}-{literal}\") permit (principal == Guard::Subject::\"s{subject}\", action in Guard::Action::\"file.*\", \
                 resource in Guard::Dir::\"/srv/d{subject}/e{literal}\");"
            );
        }
    }
    cedar.push_str("@id(\"dots\") forbid (principal in Guard::Group::\"all\", action in Guard::Action::\"read\", resource) when { resource.name like \".*\" };");
    let directory = Directory::new(&[("guard.toml", &toml), ("all.cedar", &cedar)]);
    let start = Instant::now();
    let bundle = load(&directory.0).unwrap_or_else(|errors| panic!("{errors}"));
    let loaded = start.elapsed();
    let compiled =
        compile(&bundle, &host(), &mut SubjectIds::default()).unwrap_or_else(|errors| panic!("{errors}"));
    let took = start.elapsed() - loaded;
    println!("load {loaded:?}, compile {took:?}, {:?}", compiled.sizes);
    assert!(allowed(&compiled, "s7", "file.read", "/srv/d7/e9/x"));
    assert!(!allowed(&compiled, "s7", "file.read", "/srv/d8/e9/x"));
    assert!(!allowed(&compiled, "s7", "file.read", "/srv/d7/e9/.x"));
    assert!(took.as_secs() < 20, "compiling took {took:?}");
}
