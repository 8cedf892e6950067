//! Ask and steer the Guard agent of this host. See `guardctl --help`.
#![forbid(unsafe_code)]

use guard_agent::cli::{self, Exit};

fn main() -> Exit {
    cli::main()
}
