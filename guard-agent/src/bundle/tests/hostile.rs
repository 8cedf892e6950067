//! Archives and directories that somebody made to do harm.

use std::os::unix::ffi::OsStrExt;

use tar::{Builder, EntryType, Header};

use super::*;

/// A tar archive of entries whose headers are made as they are told.
#[derive(Default)]
struct Tar(Vec<u8>);

impl Tar {
    fn entry(mut self, kind: EntryType, name: &[u8], bytes: &[u8]) -> Self {
        let mut header = Header::new_ustar();
        header.as_mut_bytes()[..name.len()].copy_from_slice(name);
        header.set_entry_type(kind);
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(bytes);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn file(self, name: &[u8], bytes: &[u8]) -> Self {
        self.entry(EntryType::Regular, name, bytes)
    }

    fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        zstd(&self.0)
    }
}

#[test]
fn names_that_lead_elsewhere_are_refused() {
    let cases: [(&[u8], &str); 11] = [
        (b"../x.cedar", "\"../x.cedar\" leads out of the bundle"),
        (b"a/../../x.cedar", "leads out of the bundle"),
        (b"..", "leads out of the bundle"),
        (b"/etc/cron.d/x", "\"/etc/cron.d/x\" is absolute"),
        (b"./guard.toml", "an empty component or a dot"),
        (b"a//b", "an empty component or a dot"),
        (b"a/", "an empty component or a dot"),
        (b"", "is empty"),
        (b"a\nb", "\"a\\nb\" has a control character"),
        (b"a\\b", "backslash"),
        (b"\xff\xfe.cedar", "entry 1 (\\xff\\xfe.cedar): its name is not UTF-8"),
    ];
    for (name, wanted) in cases {
        let error = refused(&Tar::default().file(name, b"x").end());
        assert!(error.contains(wanted) && error.contains("x.tar.zst"), "{name:?}: {error}");
        assert!(!error.contains("a\nb"), "a name must not break the line: {error}");
    }
}

#[test]
fn a_name_that_is_there_twice_is_refused() {
    let error = refused(&Tar::default().file(b"guard.toml", b"a").file(b"guard.toml", b"b").end());
    assert!(error.contains("guard.toml is there twice"), "{error}");
}

#[test]
fn everything_that_is_no_plain_file_is_refused() {
    for (kind, wanted) in [
        (EntryType::Symlink, "a symbolic link"),
        (EntryType::Link, "a hard link"),
        (EntryType::Char, "a device"),
        (EntryType::Block, "a device"),
        (EntryType::Fifo, "a named pipe"),
        (EntryType::XHeader, "a pax header"),
        (EntryType::XGlobalHeader, "a pax header"),
        (EntryType::GNULongName, "a long name"),
        (EntryType::GNULongLink, "a long name"),
        (EntryType::GNUSparse, "a sparse file"),
        (EntryType::Continuous, "an entry of this type"),
        (EntryType::new(b'Z'), "an entry of this type"),
    ] {
        let error = refused(&Tar::default().entry(kind, b"guard.toml", b"").end());
        assert!(error.contains(&format!("entry 1 (guard.toml): {wanted}")), "{kind:?}: {error}");
    }
    let error = refused(&Tar::default().entry(EntryType::Directory, b"tests", b"hidden").end());
    assert!(error.contains("a directory with contents"), "{error}");
    let harmless = Tar::default().entry(EntryType::Directory, b"tests/", b"").file(b"a", b"b").end();
    assert!(refused(&harmless).contains("there is no bundle.toml"));
}

#[test]
fn what_is_cut_off_or_follows_the_end_is_refused() {
    let whole = packed(&sealed(&[]));
    assert!(opened(&whole).is_ok());
    for length in [0, 1, 4, 10, whole.len() / 2, whole.len() - 1] {
        let error = refused(&whole[..length]);
        assert!(error.contains("error[archive]: x.tar.zst: "), "{length}: {error}");
    }
    assert!(refused(&[whole.clone(), b"x".to_vec()].concat()).contains("1 bytes follow the end"));
    assert!(refused(&[whole.clone(), whole].concat()).contains("follow the end of its zstd frame"));
    // A skippable frame, which some readers step over.
    let skippable = [&[0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0][..], b"skip"].concat();
    assert!(refused(&skippable).contains("not zstd"));

    let mut tar = Tar::default().file(b"guard.toml", b"x").0;
    assert!(refused(&zstd(&tar)).contains("the two empty blocks at its end are missing"));
    tar.resize(tar.len() + 1024, 0);
    let behind = [&tar[..], b"hidden"].concat();
    assert!(refused(&zstd(&behind)).contains("there is something behind its last entry"));
    let mut padded = tar.clone();
    padded.resize(10240, 0);
    assert!(refused(&zstd(&padded)).contains("there is no bundle.toml"), "padding is no contents");
    let mut second = tar.clone();
    second.extend(Tar::default().file(b"hidden.cedar", b"x").0);
    assert!(refused(&zstd(&second)).contains("there is something behind its last entry"));
    let inside = Tar::default().file(b"guard.toml", &[b'x'; 300]).0;
    assert!(refused(&zstd(&inside[..600])).contains("it ends after 88 of 300 bytes"));
}

#[test]
fn a_header_that_lies_is_refused() {
    let mut tar = Tar::default().file(b"guard.toml", b"x").0;
    tar[0] ^= 1;
    assert!(refused(&zstd(&tar)).contains("checksum"));
    for size in [u64::MAX, 1 << 40, 65 << 20, 4096] {
        let mut header = Header::new_gnu();
        header.as_mut_bytes()[..1].copy_from_slice(b"a");
        header.set_entry_type(EntryType::Regular);
        header.set_size(size);
        header.set_cksum();
        let mut tar = header.as_bytes().to_vec();
        tar.resize(2048, 0);
        let error = refused(&zstd(&tar));
        assert!(error.starts_with("error["), "{size}: {error}");
    }
}

#[test]
fn a_bomb_is_refused_before_it_fills_memory() {
    let error = refused(&zstd(&vec![0; 48 << 20]));
    assert!(error.contains("more than 200 times larger than itself"), "{error}");
    // A frame that only says that it needs a large window.
    let huge = [0x28, 0xb5, 0x2f, 0xfd, 0b0000_0000, 0b1011_0000, 1, 0, 0];
    assert!(refused(&huge).contains("not zstd"), "{}", refused(&huge));
    let mut many = Builder::new(Vec::new());
    for number in 0..=MAX_FILES {
        let mut header = Header::new_ustar();
        header.set_path(format!("f{number}")).unwrap();
        header.set_size(0);
        header.set_cksum();
        many.append(&header, &b""[..]).unwrap();
    }
    // Names differ, so this stays below the ratio.
    let error = refused(&zstd(&many.into_inner().unwrap()));
    assert!(error.contains("more than 4096 files") || error.contains("200 times"), "{error}");
}

#[test]
fn a_directory_that_would_hang_or_confuse_the_reader_is_refused() {
    let directory = plain();
    let fifo = directory.0.join("pipe.cedar");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert!(open(&directory.0).unwrap_err().to_string().contains("pipe.cedar: it is not a file"));
    std::fs::remove_file(&fifo).unwrap();
    std::os::unix::fs::symlink("/dev/zero", directory.0.join("zero.cedar")).unwrap();
    assert!(open(&directory.0).unwrap_err().to_string().contains("zero.cedar: it is not a file"));
    std::fs::remove_file(directory.0.join("zero.cedar")).unwrap();
    std::os::unix::fs::symlink("/proc/self/maps", directory.0.join("maps.cedar")).unwrap();
    let error = open(&directory.0).unwrap_err().to_string();
    assert!(error.contains("maps.cedar: it is not a file") && !error.contains("r-xp"), "{error}");
    std::fs::remove_file(directory.0.join("maps.cedar")).unwrap();
    std::fs::write(directory.0.join(std::ffi::OsStr::from_bytes(b"\xff.cedar")), CEDAR).unwrap();
    let error = open(&directory.0).unwrap_err().to_string();
    assert!(
        error.contains("error[name]: the name \"\\xFF.cedar\"") && error.contains("not UTF-8"),
        "{error}"
    );
    let directory = plain();
    directory.write("web.cedar", b"one\ntwo \xff\n");
    let opened = open(&directory.0).unwrap();
    let error = crate::policy::parse(&opened).unwrap_err().to_string();
    assert!(error.contains("web.cedar: it is not UTF-8 text (line 2)"), "{error}");
    for path in ["/nowhere/at/all", "/dev/zero", "/dev/null"] {
        assert!(open(Path::new(path)).unwrap_err().to_string().contains("cannot read"), "{path}");
    }
}

#[test]
fn leavings_of_editors_do_not_belong_to_a_plain_directory() {
    let directory = plain();
    for name in [".web.cedar.swp", "web.cedar~", "README.md", ".git/config", ".#web.cedar"] {
        directory.write(name, b"\xff");
    }
    directory.write("tests/site.toml", b"");
    let names: Vec<String> = open(&directory.0).unwrap().files.names().map(str::to_owned).collect();
    assert_eq!(names, ["guard.toml", "tests/site.toml", "web.cedar"]);
}
