//! What is measured.

use std::io;

use crate::places::Places;

mod files;
mod processes;
mod sockets;

pub(crate) use sockets::PORTS;

/// Operations that are prepared and cleaned up together, outside of what is measured.
pub(crate) const BATCH: usize = 100;

/// One operation, ready to be done again and again.
pub(crate) trait Work {
    /// Gets ready for so many.
    fn prepare(&mut self, _count: usize) -> io::Result<()> {
        Ok(())
    }

    /// Does it once; the numbers go up.
    fn once(&mut self, number: usize) -> io::Result<()>;

    /// Clears away what so many left.
    fn clean(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What needs neither.
struct Plain<F>(F);

impl<F: FnMut(usize) -> io::Result<()>> Work for Plain<F> {
    fn once(&mut self, number: usize) -> io::Result<()> {
        (self.0)(number)
    }
}

fn plain(once: impl FnMut(usize) -> io::Result<()> + 'static) -> io::Result<Box<dyn Work>> {
    Ok(Box::new(Plain(once)))
}

/// What is known of an operation.
pub(crate) struct Operation {
    pub(crate) key: &'static str,
    pub(crate) title: &'static str,
    /// How many one loop has: a multiple of [`BATCH`].
    pub(crate) count: usize,
    /// Whether budgets are about it.
    pub(crate) is_budgeted: bool,
    /// Makes it ready, in the process that does it.
    pub(crate) make: fn(&Places) -> io::Result<Box<dyn Work>>,
}

const fn operation(
    key: &'static str,
    title: &'static str,
    count: usize,
    make: fn(&Places) -> io::Result<Box<dyn Work>>,
) -> Operation {
    Operation { key, title, count, is_budgeted: false, make }
}

impl Operation {
    const fn budgeted(self) -> Self {
        Self { is_budgeted: true, ..self }
    }
}

/// All of them.
pub(crate) const OPERATIONS: &[Operation] = &[
    operation("open-2", "open+close, depth 2", 1000, |places| files::open(places.at_depth(2))),
    operation("open-8", "open+close, depth 8", 1000, |places| files::open(places.at_depth(8))).budgeted(),
    operation("open-32", "open+close, depth 32", 1000, |places| files::open(places.at_depth(32))),
    operation("open-directory", "… new file, warm directory", 1000, files::open_together).budgeted(),
    operation("open-cold", "… cold directory", 1000, files::open_scattered).budgeted(),
    operation("stat", "stat", 1000, files::stat).budgeted(),
    operation("create", "create+unlink", 500, files::create_and_unlink).budgeted(),
    operation("rename", "rename", 500, files::rename),
    operation("read", "read 4 KiB", 1000, files::read).budgeted(),
    operation("write", "write 4 KiB", 1000, files::write).budgeted(),
    operation("mmap", "mmap+munmap", 1000, files::map),
    operation("fork", "fork+exit+wait", 100, processes::fork),
    operation("exec", "vfork+exec+exit+wait", 100, processes::exec).budgeted(),
    operation("tcp-connect", "TCP connect+close", 300, sockets::tcp_connect).budgeted(),
    operation("udp-send", "UDP send", 1000, sockets::udp_send).budgeted(),
    operation("accept", "TCP accept+close", 300, sockets::accept),
    operation("unix-connect", "unix connect+close", 500, sockets::unix_connect),
    operation("pipe-write", "pipe write", 1000, sockets::pipe_write).budgeted(),
];
