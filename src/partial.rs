//! Marks of what is being made: a call that is killed cannot undo, so what takes long is marked before it is begun and
//! until it is complete. A mark says that nobody has been told of the thing, so that it may go.

use crate::libvirt::Pool;
use crate::rpc::{Error, Result};
use crate::xml::volume::{VolumeFormat, VolumeSpec, plain};

/// A mark's name is the thing's cid with this after it.
pub const SUFFIX: &str = ".partial";

/// Marks the thing of this cid: an empty volume in this pool, which must hold files. To be called before anything of the
/// thing is there.
///
/// # Errors
/// `NoDiskSpace`, `CloudError`.
pub fn begin(pool: &Pool, cid: &str) -> Result<()> {
    put(pool, &format!("{cid}{SUFFIX}"))
}

/// Takes the mark away: the thing is gone again. No mark is fine.
///
/// # Errors
/// What libvirt says.
pub fn end(pool: &Pool, cid: &str) -> Result<()> {
    take_away(pool, &format!("{cid}{SUFFIX}")).map(drop)
}

/// Takes the mark away: the thing is complete. If this fails, the thing has to go.
///
/// # Errors
/// What libvirt says; `CloudError`, ok to retry, where there is no mark: `cpi prune` took the thing for left over.
pub fn complete(pool: &Pool, cid: &str) -> Result<()> {
    if take_away(pool, &format!("{cid}{SUFFIX}"))? {
        return Ok(());
    }
    Err(Error::cloud(format!(
        "{cid} was deleted while it was being made; did `cpi prune` run? Give it an --older-than that is longer than any \
         call takes"
    ))
    .retryable())
}

/// An empty volume of this name, which is all that a mark is.
pub fn put(pool: &Pool, name: &str) -> Result<()> {
    let spec = VolumeSpec {
        name,
        capacity: 1,
        format: VolumeFormat::Raw,
        backing: None,
    };
    pool.create_volume(&plain(&spec), name).map(drop)
}

/// Returns whether it was there.
pub fn take_away(pool: &Pool, name: &str) -> Result<bool> {
    pool.volume(name)?
        .map_or(Ok(false), |volume| volume.delete().map(|()| true))
}
