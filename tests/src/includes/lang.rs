//! Python and Node.js.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result};

use super::{START, Twins, add_all, command, run};
use crate::bundle::Bundle;
use crate::case::{Case, refusal};
use crate::family::{Part, tests};
use crate::layout;

pub(crate) const TWINS: &[Twins] = &[PYTHON, PYTHON_LIBS, NODE];

const PYTHON: Twins = Twins::new(20, "lang/python", &[START], ["inc-python", "inc-python-less"]);
/// The interpreter alone, without the rest of the include.
const PYTHON_LIBS: Twins =
    Twins::new(21, "lang/python", START_AND_PYTHON, ["inc-python-libs", "inc-python-exec"]);
const NODE: Twins = Twins::new(22, "lang/node", NODE_BOTH, ["inc-node", "inc-node-less"]);

const START_AND_PYTHON: &[&[&str]] = &[START, &["test/python-exec"]];
const NODE_BOTH: &[&[&str]] = &[START, &["base/proc-facts", "base/accounts"]];

/// The part of an include that lets the interpreter start, and nothing else of it.
const EXEC_ONLY: &str = r#"
@id("test/python-exec")
permit (principal == ?principal, action == Guard::Action::"exec", resource == Guard::File::"/usr/bin/python3");
"#;

pub(crate) const PART: Part = Part {
    name: "includes-lang",
    bundle,
    prepare,
    tests: tests!(
        others: [
            python_with_tls_databases_and_processes_needs_python,
            python_without_its_library_does_not_start,
            node_runs_compiled_code_and_scripts,
        ],
    ),
};

fn bundle(bundle: Bundle) -> Result<Bundle> {
    Ok(add_all(bundle, TWINS, &[]).policy("test-includes", EXEC_ONLY))
}

/// Files of root that file modes let everybody write: in directories with the sticky bit, nobody may
/// open what another user made there as if to make it (fs.protected_regular).
const CLOSED: [&str; 2] = ["/dev/shm/other", "/tmp/inc-python"];

fn prepare() -> Result<()> {
    for file in CLOSED.map(Path::new) {
        layout::file(file, b"")?;
        fs::set_permissions(file, Permissions::from_mode(0o666)).context("set the mode")?;
    }
    TWINS.iter().try_for_each(Twins::prepare)
}

const PYTHON_WORK: &str = "
import hashlib, json, multiprocessing, os, sqlite3, ssl, subprocess, sys, tempfile, zoneinfo
from multiprocessing import shared_memory

def square(number):
    return number * number

if __name__ == '__main__':
    ssl.create_default_context if sys.argv[1:] else None
    assert ssl.OPENSSL_VERSION and ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    with sqlite3.connect('work.db') as db:
        db.execute('create table if not exists t (x)')
        db.execute('insert into t values (?)', (hashlib.sha256(b'x').hexdigest(),))
        assert db.execute('select count(*) from t').fetchone()[0] >= 1
    os.remove('work.db')
    lock = multiprocessing.get_context('fork').Lock()
    with lock, multiprocessing.get_context('fork').Pool(2) as pool:
        assert pool.map(square, [1, 2, 3]) == [1, 4, 9]
    block = shared_memory.SharedMemory(create=True, size=64)
    block.close(); block.unlink()
    out = subprocess.run([sys.executable, '-c', 'print(6 * 7)'], capture_output=True, check=True, text=True).stdout
    assert json.loads(out) == 42
    with tempfile.TemporaryFile() as file:
        file.write(b'x')
    assert zoneinfo.ZoneInfo('Europe/Berlin').key
";

/// Python, with the errno of an OSError that ends it as the result.
pub(super) fn python(tree: &Path, code: &str) -> io::Result<()> {
    let file = tree.join(format!("work-{}.py", std::process::id()));
    fs::write(&file, code)?;
    let result = run(command("/usr/bin/python3", &["-I", &file.display().to_string()], tree), &[]);
    fs::remove_file(&file)?;
    result.map(drop)
}

fn python_with_tls_databases_and_processes_needs_python(case: &Case<'_>) -> Result<()> {
    let work = |tree: &Path| python(tree, PYTHON_WORK);
    PYTHON.does(case, work)?;
    // The link leads to one version of the interpreter, which is what is refused.
    let interpreter = Path::new("/usr/bin/python3").canonicalize().context("resolve python3")?;
    PYTHON.needs(case, "exec", &interpreter.display().to_string(), work)?;
    PYTHON.keeps_the_secret(case, |tree, secret| python(tree, &format!("open({secret:?}).read()")))?;
    // Other things in /dev/shm stay closed, and so does every directory that is not the tree.
    for place in CLOSED {
        let code = format!("open({place:?}, 'w').write('x')");
        let refused = refusal(PYTHON.with, "file.write").at(place);
        case.refused(refused, || python(&Twins::tree(PYTHON.with), &code))?;
    }
    Ok(())
}

fn python_without_its_library_does_not_start(case: &Case<'_>) -> Result<()> {
    let work = |tree: &Path| {
        let mut command = command("/usr/bin/python3", &["-I", "-c", "import json"], tree);
        command.env("LC_ALL", "C.UTF-8");
        // The first library it misses is the one of text encodings.
        run(command, &["No module named"]).map(drop)
    };
    PYTHON_LIBS.does(case, work)?;
    PYTHON_LIBS.needs(case, "dir.list", "", work)
}

fn node(tree: &Path, code: &str) -> io::Result<String> {
    run(command("/usr/bin/node", &["-e", code], tree), &["EACCES", "Fatal"])
}

fn node_runs_compiled_code_and_scripts(case: &Case<'_>) -> Result<()> {
    let work = |tree: &Path| {
        let code = "const fs = require('fs'), crypto = require('crypto'), path = require('path');
            let sum = 0; for (let i = 0; i < 3e5; i++) sum = (sum + i * 3) % 1000003;
            const file = path.join(process.cwd(), 'x' + process.pid);
            fs.writeFileSync(file, crypto.createHash('sha256').update(String(sum)).digest('hex'));
            fs.unlinkSync(file);
            const wasm = new WebAssembly.Module(Uint8Array.of(0, 97, 115, 109, 1, 0, 0, 0));
            console.log(require('os').userInfo().username, wasm instanceof WebAssembly.Module);";
        let said = node(tree, code)?;
        if !said.ends_with(" true\n") {
            return Err(io::Error::other(said));
        }
        // As npm and its like are started: by their first line.
        let program = tree.join(format!("cli-{}", std::process::id()));
        layout::program(&program, b"#!/usr/bin/env node\nconsole.log(process.argv[2]);\n")
            .map_err(io::Error::other)?;
        let said = run(command(&program.display().to_string(), &["hello"], tree), &[])?;
        std::fs::remove_file(program)?;
        if said == "hello\n" { Ok(()) } else { Err(io::Error::other(said)) }
    };
    NODE.does(case, work)?;
    NODE.needs(case, "exec", "/node", work)?;
    NODE.keeps_the_secret(case, |tree, secret| {
        node(tree, &format!("require('fs').readFileSync({secret:?})")).map(drop)
    })
}
