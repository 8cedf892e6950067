//! Bundles of a size that nobody writes by hand.

use std::fmt::Write;
use std::time::Instant;

use super::*;
use crate::policy;

fn policies(count: usize) -> Directory {
    let mut cedar = String::new();
    for number in 0..count {
        let _ = writeln!(
            cedar,
            "@id(\"p{number}\") permit (principal, action in Guard::Action::\"read\", resource in Guard::Dir::\"/srv/{number}\");"
        );
    }
    Directory::new(&[("guard.toml", TOML), ("web.cedar", &cedar)])
}

#[test]
fn a_hundred_thousand_policies_are_refused_at_the_first_that_is_too_many() {
    let directory = policies(100_000);
    let started = Instant::now();
    let error = policy::load(&directory.0).unwrap_err().to_string();
    println!("refused after {:?}", started.elapsed());
    assert!(error.contains("error[limit]: a bundle holds at most 20000 policies"), "{error}");
    // The built-in policies count, so the place is near the limit.
    let line = error.split("web.cedar:").nth(1).and_then(|rest| rest.split(':').next());
    let line: usize = line.and_then(|line| line.parse().ok()).unwrap();
    assert!((19_900..=20_001).contains(&line), "{error}");
    assert_eq!(error.matches("error[").count(), 1, "one error, not one a policy");
}
