//! A web server with two trees, of which policy permits one.

use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::errno::Errno;

use crate::bundle::{Bundle, permit, within};
use crate::layout::{self, path};
use crate::programs::exchange;

/// Where it listens.
pub(crate) const PORT: u16 = 7020;

/// Its configuration file.
pub(crate) fn configuration() -> PathBuf {
    path("nginx/nginx.conf")
}

/// Makes its configuration and its trees.
pub(crate) fn prepare() -> Result<()> {
    layout::create()?;
    layout::which("nginx").context("the guest needs the package nginx")?;
    for tree in ["good", "bad"] {
        layout::file(&path("www").join(tree).join("page"), b"a page\n")?;
    }
    let text = format!(
        "user websrv;\nworker_processes 1;\nerror_log stderr;\npid /run/nginx.pid;\nevents {{}}\nhttp {{\n\
         access_log off;\nserver {{ listen 127.0.0.1:{PORT}; root {}; }}\n}}\n",
        path("www").display()
    );
    layout::file(&configuration(), text.as_bytes())?;
    for directory in ["/var/log/nginx", "/var/lib/nginx"] {
        layout::directory(Path::new(directory))?;
    }
    Ok(())
}

/// Adds the subject `web` with this selector.
pub(crate) fn add(bundle: Bundle, selector: &str) -> Bundle {
    let trees = within(&[
        path("www/good"),
        path("nginx"),
        "/etc/nginx".into(),
        "/usr/lib/nginx".into(),
        "/usr/share/nginx".into(),
    ]);
    let files = crate::bundle::one_of(&[
        "/etc/passwd",
        "/etc/group",
        "/etc/localtime",
        "/etc/ssl/openssl.cnf",
        "/usr/lib/ssl/openssl.cnf",
        "/run/nginx.pid",
    ]);
    let subject = format!(
        "[subjects.web]\nselector = {{ {selector} }}\ngoverns = [\"exec.*\", \"net.out\", \"unix.*\", \"file.read\"]\n\
         include = [{}, \"base/tls-roots\", \"base/proc-facts\", \"service/systemd\"]\n",
        crate::bundle::ORDINARY
    );
    let policy = permit("web", "web", &["file.read"], &format!("{trees} || {files}"))
        + &permit("web-map", "web", &["exec.map"], &within(&["/usr/lib/nginx"]))
        + &permit("web-exec", "web", &["exec"], "resource == Guard::File::\"/usr/sbin/nginx\"");
    bundle.toml(&subject).policy("web", policy)
}

/// Fetches a page; 403 is what nginx makes of EACCES.
pub(crate) fn get(page: &str) -> io::Result<()> {
    let answer = exchange(PORT, &format!("GET {page} HTTP/1.0\r\nHost: localhost\r\n\r\n"))?;
    match answer.split_whitespace().nth(1) {
        Some("200") => Ok(()),
        Some("403") => Err(Errno::EACCES.into()),
        _ => Err(io::Error::other(format!("nginx answered {answer:?}"))),
    }
}
