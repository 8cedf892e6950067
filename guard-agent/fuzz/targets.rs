//! What is done with hostile bytes, as functions that a fuzzer can call and `tests/corpus.rs` calls with
//! the corpus. Nothing may panic, and whatever is refused must be refused in words.

use std::path::Path;
use std::sync::Arc;

use guard_agent::bundle::{Files, MANIFEST, Opened, SIGNATURES, open_archive, open_files};
use guard_agent::host::{Fixed, Host, parse_mounts};
use guard_agent::policy::{Diagnostics, Facts, Oracle, SubjectIds, compile, parse};

const TOML: &str = "[bundle]\nname = \"f\"\nversion = 1\nprofile = 1\n\
    [approvals]\nl = { approvers = [\"group:x\"], max = \"1h\" }\n[facts]\ntrust = { type = \"long\" }\n\
    [subjects.web]\nselector = { user = \"33\" }\ngoverns = [\"*\"]\ninclude = [\"base/devices\"]\n";
const MOUNTS: &[u8] = b"1 0 8:1 / / rw - ext4 a rw\n2 1 0:20 / /proc rw - proc p rw\n";

/// A target: the name of its corpus, and what it does.
pub(crate) type Target = (&'static str, fn(&[u8]));

/// Every target.
pub(crate) const TARGETS: [Target; 5] = [
    ("archive", archive),
    ("manifest", manifest),
    ("guard_toml", guard_toml),
    ("literal", literal),
    ("cedar", cedar),
];

/// What begins like zstd is an archive; anything else is the tar in one.
pub(crate) fn archive(data: &[u8]) {
    let bytes = if data.starts_with(&ZSTD) { data.to_vec() } else { stored(data) };
    said(open_archive(&bytes, Path::new("f.tar.zst")).and_then(|opened| whole(&opened)));
}

/// How a zstd frame begins (RFC 8878, 3.1.1).
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// A zstd frame of blocks that are stored as they are, so that a change of the contents stays one.
fn stored(contents: &[u8]) -> Vec<u8> {
    const BLOCK: usize = 64 << 10;
    // A single segment with a content size of four bytes.
    let mut frame = [&ZSTD[..], &[0xa0], &(contents.len() as u32).to_le_bytes()].concat();
    let blocks = contents.len().div_ceil(BLOCK).max(1);
    for index in 0..blocks {
        let block = &contents[index * BLOCK..contents.len().min((index + 1) * BLOCK)];
        let header = (block.len() as u32) << 3 | u32::from(index + 1 == blocks);
        frame.extend(&header.to_le_bytes()[..3]);
        frame.extend(block);
    }
    frame
}

/// The manifest and, behind a zero byte, the signatures of a sealed bundle.
pub(crate) fn manifest(data: &[u8]) {
    let mut parts = data.splitn(2, |byte| *byte == 0);
    let mut files = files(&[("guard.toml", TOML.as_bytes())]);
    for name in [MANIFEST, SIGNATURES] {
        if let Some(bytes) = parts.next() {
            files.insert(name, bytes.to_vec()).expect("the name is one of a bundle");
        }
    }
    said(open_files(files, true).and_then(|opened| whole(&opened)));
}

/// `guard.toml`.
pub(crate) fn guard_toml(data: &[u8]) {
    plain(&[("guard.toml", data)]);
}

/// The text of entity ids, names and patterns, as they are written between quotation marks.
pub(crate) fn literal(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let text = text.replace('\\', "\\\\").replace('"', "\\\"");
    let conditions = ["Dir", "File", "Name"].map(|kind| format!("resource in Guard::{kind}::\"{text}\""));
    for condition in conditions
        .into_iter()
        .chain([format!("resource.name like \"{text}\""), format!("resource.name == \"{text}\"")])
    {
        one("file.read", &condition);
    }
    for kind in ["Net", "DnsName"] {
        one("net.connect", &format!("resource in Guard::{kind}::\"{text}\""));
    }
    one("unix.connect", &format!("resource == Guard::Unix::\"{text}\""));
    one("net.raw", &format!("resource == Guard::Protocol::\"{text}\""));
}

fn one(action: &str, condition: &str) {
    let cedar = format!(
        "@id(\"x\") permit (principal, action == Guard::Action::\"{action}\", resource) when {{ {condition} }};"
    );
    plain(&[("guard.toml", TOML.as_bytes()), ("p.cedar", cedar.as_bytes())]);
}

/// A file of policies.
pub(crate) fn cedar(data: &[u8]) {
    plain(&[("guard.toml", TOML.as_bytes()), ("p.cedar", data)]);
}

fn files(all: &[(&str, &[u8])]) -> Files {
    let mut files = Files::new(Path::new("f"));
    for (name, bytes) in all {
        files.insert(name, bytes.to_vec()).expect("the name is one of a bundle");
    }
    files
}

fn plain(all: &[(&str, &[u8])]) {
    said(whole(&Opened { files: files(all), seal: None }));
}

/// From files to tables and to an oracle.
fn whole(opened: &Opened) -> Result<(), Diagnostics> {
    let host = Host {
        mounts: parse_mounts(MOUNTS),
        resolvers: Vec::new(),
        protected: Vec::new(),
        undecided: 0,
        artifacts: Arc::default(),
        lookup: Arc::new(Fixed::default()),
    };
    let bundle = parse(opened)?;
    compile(&bundle, &host, &mut SubjectIds::default())?;
    let oracle = Oracle::new(&bundle, &host, &Facts::default())?;
    oracle.set.text(&bundle, None)?;
    Ok(())
}

/// What is refused is refused with a code and a message, on lines that a terminal can show.
fn said(result: Result<(), Diagnostics>) {
    let Err(errors) = result else { return };
    let text = errors.to_string();
    assert!(text.starts_with("error["), "not an error: {text}");
    assert!(!text.starts_with("error[internal]"), "a fault of Guard: {text}");
    assert!(
        text.chars().all(|c| c == '\n' || c == '\t' || !c.is_control()),
        "a control character would reach the terminal: {text:?}"
    );
}
