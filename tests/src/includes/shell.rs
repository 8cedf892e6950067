//! Shells and what scripts are made of.

use std::io;
use std::path::Path;

use anyhow::Result;

use super::{SHELL, START, Twins, add_all, bash, cat, command, run};
use crate::bundle::Bundle;
use crate::case::Case;
use crate::family::{Part, tests};

pub(crate) const TWINS: &[Twins] = &[POSIX, BASH, COREUTILS];

const POSIX: Twins = Twins::new(10, "shell/posix", TOOLS, ["inc-posix", "inc-posix-less"]);
const BASH: Twins = Twins::new(11, "shell/bash", TOOLS, ["inc-bash", "inc-bash-less"]);
const COREUTILS: Twins =
    Twins::new(12, "shell/coreutils", &[START, SHELL], ["inc-coreutils", "inc-coreutils-less"]);

const TOOLS: &[&[&str]] = &[START, &["base/accounts", "base/terminal"], super::COREUTILS];

pub(crate) const PART: Part = Part {
    name: "includes-shell",
    bundle,
    prepare,
    tests: tests!(
        others: [
            a_posix_script_needs_the_posix_shell,
            a_login_shell_needs_bash,
            pipelines_of_coreutils_need_coreutils,
        ],
    ),
};

fn bundle(bundle: Bundle) -> Result<Bundle> {
    Ok(add_all(bundle, TWINS, &[]))
}

fn prepare() -> Result<()> {
    TWINS.iter().try_for_each(Twins::prepare)
}

/// A script with its first line: the interpreter is started by the kernel.
fn script(tree: &Path, text: &str) -> io::Result<String> {
    use std::os::unix::fs::PermissionsExt;
    let file = tree.join(format!("script-{}", std::process::id()));
    std::fs::write(&file, text)?;
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755))?;
    let result = run(command(&file.display().to_string(), &[], tree), &[]);
    std::fs::remove_file(&file)?;
    result
}

fn a_posix_script_needs_the_posix_shell(case: &Case<'_>) -> Result<()> {
    let text = "#!/bin/sh
set -eu
count() { n=0; while read -r _; do n=$((n + 1)); done; echo \"$n\"; }
lines=$(printf 'a\\nb\\nc\\n' | count)
cat >note.$$ <<END
$lines lines, $(umask)
END
[ \"$(cut -d' ' -f1 <note.$$)\" = 3 ]
rm note.$$
(exit 3) || test $? = 3
";
    let work = |tree: &Path| script(tree, text).map(drop);
    POSIX.does(case, work)?;
    POSIX.needs(case, "exec", "bin/dash", work)?;
    POSIX.keeps_the_secret(case, |tree, secret| {
        script(tree, &format!("#!/bin/sh\nread -r line <{secret}\n")).map(drop)
    })
}

fn a_login_shell_needs_bash(case: &Case<'_>) -> Result<()> {
    let work = |tree: &Path| {
        let text = "declare -A seen=([pear]=1 [fig]=2); sum=0; for key in \"${!seen[@]}\"; do ((sum += seen[$key])); done
            mapfile -t words < <(printf '%s\\n' one two three); [[ ${#words[@]} == 3 && $sum == 3 && ~ == $HOME ]]
            { sleep 0 & wait \"$!\"; }; trap 'echo \"$sum\"' EXIT";
        let login = command("/usr/bin/bash", &["-l", "-euo", "pipefail", "-c", text], tree);
        let said = run(login, &[])?;
        if said.ends_with("3\n") { Ok(()) } else { Err(io::Error::other(said)) }
    };
    BASH.does(case, work)?;
    BASH.needs(case, "exec", "bin/bash", work)?;
    BASH.keeps_the_secret(case, |tree, secret| bash(&format!("words=$(<{secret})"), tree).map(drop))
}

fn pipelines_of_coreutils_need_coreutils(case: &Case<'_>) -> Result<()> {
    let text = "mkdir -p d/e; printf '%s\\n' pear apple fig >d/fruit
sort d/fruit | tee d/sorted | head -n 2 | tr a-z A-Z >d/first
test \"$(tail -n 1 d/first)\" = FIG
cp d/sorted d/e/copy; mv d/e/copy d/e/moved; ln -sf e/moved d/link; cmp d/sorted d/link; diff d/sorted d/link
find d -name 'm*' -print0 | xargs -0 cat | grep -c ea | sed 's/^/lines /' >d/count
awk '{ print $2 + 1 }' d/count >d/next; test \"$(cat d/next)\" = 2
ls -l d >/dev/null; stat -c %U d >/dev/null; du -s d >/dev/null; id -un >/dev/null
sha256sum d/fruit | cut -c 1-64 | base64 -w 0 | wc -c >/dev/null; date +%s >/dev/null; seq 3 | paste -s -d+ >/dev/null
scratch=$(mktemp -d); touch \"$scratch/x\"; chmod 600 \"$scratch/x\"; rm -r \"$scratch\" d";
    let work = |tree: &Path| bash(text, tree).map(drop);
    COREUTILS.does(case, work)?;
    COREUTILS.needs(case, "exec", "bin/mkdir", work)?;
    COREUTILS.keeps_the_secret(case, cat)
}
