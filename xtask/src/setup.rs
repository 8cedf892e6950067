//! `cargo xtask setup`: everything the other commands need, found or fetched once.

use anyhow::Result;

use crate::command::say;
use crate::guest_packages::GuestPackages;
use crate::kernels::{self, Kernel, Series};
use crate::qemu::Qemu;
use crate::scratch::{self, Disk};
use crate::{linker, paths, rust_src};

/// Find or fetch what building and testing need.
///
/// Fetches only what this machine lacks; a second run changes nothing and needs no network.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Also fetch newer kernels of the same series where Debian has them.
    #[arg(long)]
    update: bool,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<()> {
    bpf_toolchain()?;
    for series in Series::all() {
        let guest = guest(&series)?;
        let kernel = if args.update { kernels::fetch(&series, &guest.packages)? } else { guest.kernel };
        say!("QEMU {}, kernel {series}: {}", guest.qemu.version, kernel.release);
    }
    say!("everything is there; downloads are in {}", paths::cache()?.display());
    Ok(())
}

/// What compiling for the BPF target takes.
pub(crate) struct BpfToolchain {
    /// Path or name of the linker.
    pub(crate) linker: std::path::PathBuf,
    /// Sources of `core`.
    pub(crate) rust_src: rust_src::RustSrc,
}

/// Finds or provides the BPF toolchain.
pub(crate) fn bpf_toolchain() -> Result<BpfToolchain> {
    let _lock = paths::lock_cache()?;
    Ok(BpfToolchain { rust_src: rust_src::find_or_fetch()?, linker: linker::find_or_install()? })
}

/// What booting a guest takes.
pub(crate) struct GuestEnvironment {
    /// The emulator.
    pub(crate) qemu: Qemu,
    /// Its kernel.
    pub(crate) kernel: Kernel,
    /// Programs that this machine lacks.
    pub(crate) packages: GuestPackages,
    /// Disks with empty file systems.
    pub(crate) disks: Vec<Disk>,
}

/// Finds or provides a guest with a kernel of `series`.
pub(crate) fn guest(series: &Series) -> Result<GuestEnvironment> {
    let _lock = paths::lock_cache()?;
    let packages = GuestPackages::find_or_fetch()?;
    Ok(GuestEnvironment {
        qemu: Qemu::find_or_fetch()?,
        kernel: kernels::find_or_fetch(series, &packages)?,
        disks: scratch::find_or_make(&packages)?,
        packages,
    })
}
