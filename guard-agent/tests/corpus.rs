//! The corpus of hostile bytes: every input that was ever interesting, on every change.

use std::path::Path;

#[path = "../fuzz/targets.rs"]
mod targets;

#[test]
fn nothing_in_the_corpus_panics_or_is_refused_without_a_word() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    for (name, target) in targets::TARGETS {
        let mut inputs: Vec<_> = std::fs::read_dir(corpus.join(name))
            .unwrap_or_else(|error| panic!("the corpus of {name}: {error}"))
            .map(|entry| entry.unwrap().path())
            .collect();
        inputs.sort();
        assert!(inputs.len() >= 5, "the corpus of {name} is all but empty");
        for input in inputs {
            println!("{}", input.display());
            target(&std::fs::read(&input).unwrap());
        }
    }
}
