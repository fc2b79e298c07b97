//! Marks of what is being made: a call that is killed cannot undo, so what takes long is marked before it is begun and
//! until it is complete. A mark says that nobody has been told of the thing, so that it may go.

use crate::libvirt::Pool;
use crate::rpc::Result;
use crate::xml::volume::{VolumeFormat, VolumeSpec, plain};

/// A mark's name is the thing's cid with this after it.
pub const SUFFIX: &str = ".partial";

/// Marks the thing of this cid: an empty volume in this pool, which must hold files. To be called before anything of the
/// thing is there.
///
/// # Errors
/// `NoDiskSpace`, `CloudError`.
pub fn begin(pool: &Pool, cid: &str) -> Result<()> {
    let name = format!("{cid}{SUFFIX}");
    let spec = VolumeSpec {
        name: &name,
        capacity: 1,
        format: VolumeFormat::Raw,
        backing: None,
    };
    pool.create_volume(&plain(&spec), &name).map(drop)
}

/// Takes the mark away: the thing is complete, or gone again. No mark is fine. If this fails, the thing has to go.
///
/// # Errors
/// What libvirt says.
pub fn end(pool: &Pool, cid: &str) -> Result<()> {
    pool.volume(&format!("{cid}{SUFFIX}"))?
        .map_or(Ok(()), |volume| volume.delete())
}
