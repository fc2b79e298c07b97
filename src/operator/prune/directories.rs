//! Directories of private keys, which a CPI that is killed while it connects cannot remove. They are on the machine that
//! the CPI ran on, not on the libvirt host.

use std::fs::{self, Metadata};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::{Leftover, Target};
use bosh_cpi::measures::span;
use bosh_cpi::rpc::{Error, Result};
use libvirt_host::PRIVATE_DIRECTORY_PREFIX;

/// Where they are: TMPDIR.
pub fn place() -> PathBuf {
    std::env::temp_dir()
}

pub fn find(older_than: Duration) -> Vec<Leftover> {
    let directory = place();
    let Ok(entries) = fs::read_dir(&directory) else {
        return Vec::new();
    };
    let mut found: Vec<Leftover> = entries
        .flatten()
        .filter_map(|entry| leftover(&directory, &entry.file_name().into_string().ok()?, older_than))
        .collect();
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

fn leftover(directory: &Path, name: &str, older_than: Duration) -> Option<Leftover> {
    if !name.starts_with(PRIVATE_DIRECTORY_PREFIX) {
        return None;
    }
    // Not through a symbolic link, which anybody can make there.
    let metadata = fs::symlink_metadata(directory.join(name)).ok()?;
    if !metadata.is_dir() {
        return None;
    }
    let written_at = metadata.modified().ok();
    let age = written_at.and_then(|time| SystemTime::now().duration_since(time).ok());
    let spared = match age {
        _ if !is_our_users(&metadata) => Some(format!("it is user {}'s", metadata.uid())),
        Some(age) if age >= older_than => None,
        _ => Some(format!("younger than {}", span(older_than))),
    };
    Some(Leftover {
        kind: "private keys",
        name: name.to_owned(),
        place: directory.display().to_string(),
        bytes: 0,
        written_at,
        spared,
        deleted: false,
        target: Target::Directory,
    })
}

fn is_our_users(metadata: &Metadata) -> bool {
    metadata.uid() == rustix::process::geteuid().as_raw()
}

/// Deletes the directory; one that is gone is fine.
pub fn delete(leftover: &Leftover) -> Result<()> {
    let path = Path::new(&leftover.place).join(&leftover.name);
    match fs::remove_dir_all(&path) {
        Err(e) if e.kind() != ErrorKind::NotFound => {
            Err(Error::cpi(format!("removing {}: {e}", path.display())))
        }
        _ => Ok(()),
    }
}
