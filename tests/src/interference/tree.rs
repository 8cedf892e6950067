//! A directory in lines that can be compared: what everything is, without times and numbers of inodes.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use anyhow::{Context, Result};

/// One line for everything below `root`, in order of names.
pub(crate) fn describe(root: &Path) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    below(root, root, &mut lines)?;
    Ok(lines)
}

fn below(root: &Path, directory: &Path, lines: &mut Vec<String>) -> Result<()> {
    let entries = fs::read_dir(directory).with_context(|| format!("list {}", directory.display()))?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    paths.sort();
    for path in paths {
        let metadata = path.symlink_metadata().with_context(|| format!("look at {}", path.display()))?;
        let kind = metadata.file_type();
        let what = if kind.is_file() {
            let content = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
            let mut hasher = DefaultHasher::new();
            content.hash(&mut hasher);
            format!("{} bytes {:016x} links {}", content.len(), hasher.finish(), metadata.nlink())
        } else if kind.is_symlink() {
            let target = fs::read_link(&path).with_context(|| format!("read {}", path.display()))?;
            format!("link to {}", target.display())
        } else if kind.is_char_device() || kind.is_block_device() {
            format!("device {:x}", metadata.rdev())
        } else {
            String::new()
        };
        let name = path.strip_prefix(root).unwrap_or(&path).display();
        lines.push(format!("{name} {:o} {} {} {what}", metadata.mode(), metadata.uid(), metadata.gid()));
        if kind.is_dir() {
            below(root, &path, lines)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contents_and_modes_count_and_times_do_not() {
        let root = std::env::temp_dir().join(format!("guard-tree-{}", std::process::id()));
        fs::create_dir_all(root.join("a")).unwrap();
        fs::write(root.join("a/b"), "x").unwrap();
        let first = describe(&root).unwrap();
        fs::write(root.join("a/b"), "x").unwrap();
        assert_eq!(describe(&root).unwrap(), first);
        fs::write(root.join("a/b"), "y").unwrap();
        assert_ne!(describe(&root).unwrap(), first);
        fs::remove_dir_all(&root).unwrap();
    }
}
