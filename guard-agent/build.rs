//! Embeds the BPF object that `cargo xtask build` leaves in `target/bpf`. Without it the agent
//! compiles and says at start that it has no programs, so that the library can be worked on alone.

use std::path::PathBuf;
use std::{env, fs};

fn main() {
    let manifest = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("set by cargo"));
    let object = manifest.join("../target/bpf/guard-ebpf.o");
    println!("cargo::rerun-if-changed={}", object.display());
    println!("cargo::rerun-if-changed=build.rs");
    let copy = PathBuf::from(env::var_os("OUT_DIR").expect("set by cargo")).join("guard-ebpf.o");
    let bytes = fs::read(&object).unwrap_or_default();
    fs::write(&copy, bytes).expect("the build directory can be written");
}
