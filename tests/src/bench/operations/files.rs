//! Operations on files and their names.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use guard_tests::raw;
use nix::libc;

use super::{Work, plain};
use crate::places::{BLOCK, MANY, Places};

pub(super) fn open(path: PathBuf) -> io::Result<Box<dyn Work>> {
    plain(move |_| File::open(&path).map(drop))
}

/// Each time another file, in a directory whose other files were just opened.
pub(super) fn open_together(places: &Places) -> io::Result<Box<dyn Work>> {
    let paths: Vec<PathBuf> = (0..MANY).map(|number| places.in_one_directory(number)).collect();
    plain(move |number| File::open(&paths[number % MANY]).map(drop))
}

/// Each time another file in another directory.
pub(super) fn open_scattered(places: &Places) -> io::Result<Box<dyn Work>> {
    let paths: Vec<PathBuf> = (0..MANY).map(|number| places.in_its_own_directory(number)).collect();
    plain(move |number| File::open(&paths[number % MANY]).map(drop))
}

pub(super) fn stat(places: &Places) -> io::Result<Box<dyn Work>> {
    let path = places.at_depth(8);
    plain(move |_| fs::metadata(&path).map(drop))
}

pub(super) fn create_and_unlink(places: &Places) -> io::Result<Box<dyn Work>> {
    let path = places.beside("created");
    plain(move |_| {
        File::create_new(&path)?;
        fs::remove_file(&path)
    })
}

/// There and back again.
pub(super) fn rename(places: &Places) -> io::Result<Box<dyn Work>> {
    let names = [places.beside("old"), places.beside("new")];
    plain(move |number| fs::rename(&names[number % 2], &names[1 - number % 2]))
}

pub(super) fn read(places: &Places) -> io::Result<Box<dyn Work>> {
    let (file, mut block) = (File::open(places.data())?, [0; BLOCK]);
    plain(move |_| file.read_exact_at(&mut block, 0))
}

pub(super) fn write(places: &Places) -> io::Result<Box<dyn Work>> {
    let (file, block) = (File::options().write(true).open(places.data())?, [b'x'; BLOCK]);
    plain(move |_| file.write_all_at(&block, 0))
}

pub(super) fn map(places: &Places) -> io::Result<Box<dyn Work>> {
    let file = File::open(places.data())?;
    plain(move |_| raw::map_page(Some(file.as_fd()), libc::PROT_READ))
}
