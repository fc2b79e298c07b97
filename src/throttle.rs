//! Keeps slow hosts from being swamped: a lock file that the heavy parts of calls are done under.

use std::fs::{File, OpenOptions};
use std::path::Path;

use fs2::FileExt;

use crate::config::{Throttle, ThrottleName};
use crate::logging;
use crate::rpc::{Error, Result};

/// Held while heavy work is done. The kernel lets go of the lock when the process ends, however it ends.
pub struct Turn(#[expect(dead_code, reason = "the lock lives as long as the open file")] Option<File>);

/// Waits for this process' turn; at once when nothing is throttled.
///
/// # Errors
/// `CpiError` naming the lock file when it cannot be opened or locked.
pub fn wait(config: &Throttle) -> Result<Turn> {
    match config.name {
        ThrottleName::Noop => Ok(Turn(None)),
        ThrottleName::FileLock => lock(&config.path).map(|file| Turn(Some(file))),
    }
}

fn lock(path: &Path) -> Result<File> {
    let _step = logging::step(format!("waiting for the lock {}", path.display()));
    let failed = |e| Error::cpi(format!("locking throttle.path {}: {e}", path.display()));
    // Opened for writing, as NFS wants it for an exclusive lock; the content is nobody's business.
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .map_err(failed)?;
    FileExt::lock_exclusive(&file).map_err(failed)?;
    Ok(file)
}
