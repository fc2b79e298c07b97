//! Marker volumes: empty volumes whose existence says something of the volume that they are named after.

use bosh_cpi::rpc::{Error, Result};
use libvirt_host::Pool;
use libvirt_host::volume_name::VolumeName;
use libvirt_xml::volume::{VolumeFormat, VolumeSpec, plain};

/// Marks the stemcell or snapshot of this cid as incomplete, before anything of it exists: nobody has been told of it,
/// so it may be deleted if its call is killed.
///
/// # Errors
/// `NoDiskSpace`, `CloudError`.
pub fn begin(pool: &Pool, cid: &str) -> Result<()> {
    put(pool, &VolumeName::Incomplete(cid.to_owned()))
}

/// Removes the marker of what is gone again. No marker is fine.
///
/// # Errors
/// What libvirt says.
pub fn end(pool: &Pool, cid: &str) -> Result<()> {
    remove(pool, &VolumeName::Incomplete(cid.to_owned())).map(drop)
}

/// Removes the marker of what is complete. If this fails, the stemcell or snapshot has to be deleted.
///
/// # Errors
/// What libvirt says; `CloudError`, retryable, where there is no marker: `cpi prune` took the volume for orphaned.
pub fn complete(pool: &Pool, cid: &str) -> Result<()> {
    if remove(pool, &VolumeName::Incomplete(cid.to_owned()))? {
        return Ok(());
    }
    Err(Error::cloud(format!(
        "{cid} was deleted while it was being made; did `cpi prune` run? Give it an --older-than that is longer than any \
         call takes"
    ))
    .retryable())
}

/// Makes the marker.
///
/// # Errors
/// `NoDiskSpace`, `CloudError`, also where it exists already.
pub fn put(pool: &Pool, name: &VolumeName) -> Result<()> {
    let name = name.to_string();
    let spec = VolumeSpec {
        name: &name,
        capacity: 1,
        format: VolumeFormat::Raw,
        backing: None,
    };
    pool.create_volume(&plain(&spec), &name).map(drop)
}

/// Whether libvirt knows of the marker.
pub fn exists(pool: &Pool, name: &VolumeName) -> Result<bool> {
    Ok(pool.volume(&name.to_string())?.is_some())
}

/// Removes the marker. Returns whether it was there.
pub fn remove(pool: &Pool, name: &VolumeName) -> Result<bool> {
    pool.volume(&name.to_string())?
        .map_or(Ok(false), |volume| volume.delete().map(|()| true))
}
