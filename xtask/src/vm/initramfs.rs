//! The initramfs of a guest: busybox, the modules it takes to mount the host's root, and a script.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use cpio::newc::{Builder, trailer};

use crate::guest_packages::GuestPackages;
use crate::kernels::Kernel;

const INIT: &str = include_str!("init.sh");
/// Modules needed before the root file system is there, without their dependencies.
const MODULES: [&str; 6] = ["virtio_pci", "virtio_console", "virtio_blk", "9p", "9pnet_virtio", "overlay"];
const DIR: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const FILE: u32 = 0o100_644;

/// The part that depends on the kernel only; written once per kernel, into the cache.
pub(super) fn base(kernel: &Kernel, packages: &GuestPackages) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    for dir in ["bin", "dev", "modules"] {
        archive.add(dir, DIR, b"")?;
    }
    let busybox = packages.file("usr/bin/busybox");
    archive.add("bin/busybox", PROGRAM, &read(&busybox)?)?;
    archive.add("init", PROGRAM, INIT.as_bytes())?;
    let mut order = String::new();
    for path in load_order(kernel)? {
        let (name, bytes) = module(&kernel.modules.join(&path), &busybox)?;
        archive.add(&format!("modules/{name}"), FILE, &bytes)?;
        order.push_str(&name);
        order.push('\n');
    }
    archive.add("modules/order", FILE, order.as_bytes())?;
    archive.finish()
}

/// The part that belongs to one run, to be appended to the base.
pub(super) fn config(json: &[u8], program: &Path) -> Result<Vec<u8>> {
    let quoted = program.to_str().context("the path of the checkout is not UTF-8")?.replace('\'', r"'\''");
    let mut archive = Archive::default();
    archive.add("config.json", FILE, json)?;
    archive.add("config.sh", FILE, format!("guest='{quoted}'\n").as_bytes())?;
    archive.finish()
}

#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    inode: u32,
}

impl Archive {
    fn add(&mut self, name: &str, mode: u32, content: &[u8]) -> Result<()> {
        self.inode += 1;
        let size = u32::try_from(content.len())?;
        let mut entry = Builder::new(name).ino(self.inode).mode(mode).nlink(1).write(&mut self.bytes, size);
        entry.write_all(content).and_then(|()| entry.finish().map(|_| ())).context("build the initramfs")
    }

    fn finish(mut self) -> Result<Vec<u8>> {
        trailer(&mut self.bytes).context("build the initramfs")?;
        // Archives that follow one another start at multiples of four.
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
        Ok(self.bytes)
    }
}

/// Paths of [`MODULES`] and what they depend on, each after what it needs.
fn load_order(kernel: &Kernel) -> Result<Vec<PathBuf>> {
    let text = |name: &str| {
        let path = kernel.modules.join(name);
        fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
    };
    let (deps, builtin) = (text("modules.dep")?, text("modules.builtin")?);
    let deps: HashMap<&str, Vec<&str>> = deps
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(path, needs)| (path, needs.split_whitespace().collect()))
        .collect();
    let mut order = Vec::new();
    let mut seen = HashSet::new();
    for name in MODULES {
        match deps.keys().find(|path| module_name(path) == name) {
            Some(path) => visit(path, &deps, &mut seen, &mut order),
            None if builtin.lines().any(|path| module_name(path) == name) => {}
            None => {
                bail!("kernel {} has no module {name}; is it one of the small cloud kernels?", kernel.release)
            }
        }
    }
    Ok(order)
}

fn visit<'a>(
    path: &'a str,
    deps: &HashMap<&'a str, Vec<&'a str>>,
    seen: &mut HashSet<&'a str>,
    order: &mut Vec<PathBuf>,
) {
    if seen.insert(path) {
        for need in deps.get(path).into_iter().flatten() {
            visit(need, deps, seen, order);
        }
        order.push(path.into());
    }
}

fn module_name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split('.').next().unwrap_or(file).replace('-', "_")
}

/// Name and content of a module, unpacked: the initramfs loads it with plain `insmod`.
fn module(path: &Path, busybox: &Path) -> Result<(String, Vec<u8>)> {
    let name = path.file_name().and_then(|name| name.to_str()).context("a module has a name")?;
    if let Some(name) = name.strip_suffix(".xz") {
        let output =
            Command::new(busybox).args(["xzcat"]).arg(path).output().context("start busybox xzcat")?;
        ensure!(output.status.success(), "{} cannot be unpacked", path.display());
        return Ok((name.to_owned(), output.stdout));
    }
    ensure!(name.ends_with(".ko"), "{} is compressed in a way that is not supported here", path.display());
    Ok((name.to_owned(), read(path)?))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("read {}", path.display()))
}
