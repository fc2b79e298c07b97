//! What a disk's volume is, whatever its guest has made of it. Libvirt reads the format of a file, its size and the files
//! it is based on out of the file, each time it reads the pool; the file of a raw disk is the guest's to write. Taken for
//! a qcow2, it could have the host read any file for it.

use super::{Record, users};
use bosh_cpi::rpc::{Error, Result};
use libvirt_host::{Connection, Volume, VolumeState};
use libvirt_xml::volume::VolumeFormat;

/// The format that QEMU is to take the disk for.
///
/// # Errors
/// `CloudError` for a disk that is a qcow2 and is not known to have been made as one, and for a qcow2 that is an overlay
/// on another file.
pub fn format(volume: &Volume, state: &VolumeState, record: &Record) -> Result<VolumeFormat> {
    let is_qcow2 = state.format == Some(VolumeFormat::Qcow2);
    let what = format!("volume {} in pool {}", volume.name, volume.pool);
    match record.format {
        Some(VolumeFormat::Qcow2) if is_qcow2 && state.backing_path.is_none() => Ok(VolumeFormat::Qcow2),
        Some(VolumeFormat::Qcow2) => Err(Error::cloud(format!(
            "{what} was made as a qcow2, and is none any more or is an overlay on another file"
        ))),
        Some(VolumeFormat::Raw) if is_qcow2 => Err(Error::cloud(format!(
            "{what} was made raw, but has a qcow2 header: its guest may have written that, to have the host read other \
             files for it"
        ))),
        // Records are written for every qcow2.
        None if is_qcow2 => Err(Error::cloud(format!(
            "the format of {what} is unknown: no record says qcow2, but it has a qcow2 header, which its guest may have \
             written (make the record again if its record was lost: docs/STORAGE.md, \"Records\")"
        ))),
        // Whatever else libvirt takes it for, as LUKS, we make no such disks.
        Some(VolumeFormat::Raw) | None => Ok(VolumeFormat::Raw),
    }
}

/// What libvirt knows of the disk, where that is what the disk was made as: for what is done on the host, by libvirt's
/// idea of its format.
///
/// # Errors
/// As `format`, and for anything else in a raw disk that libvirt knows as a format.
pub fn state(volume: &Volume, record: &Record) -> Result<VolumeState> {
    let state = volume.state()?;
    let format = format(volume, &state, record)?;
    if state.format == Some(format) {
        return Ok(state);
    }
    Err(Error::cloud(format!(
        "its guest has written an image to volume {} in pool {} that is neither raw nor qcow2, and libvirt can't do \
         this with it",
        volume.name, volume.pool
    )))
}

/// That what was copied is what the disk was at one moment: it had this state before the copy, has that one after it, and
/// no running VM has got it meanwhile.
///
/// # Errors
/// `CloudError`, ok to retry.
pub fn require_unwritten(
    libvirt: &Connection,
    volume: &Volume,
    before: &VolumeState,
    after: &VolumeState,
) -> Result<()> {
    let by = if before.modified == after.modified {
        None
    } else {
        Some("something has written to it".to_owned())
    };
    let running = users::of(libvirt, &volume.name)?
        .into_iter()
        .find(|user| user.attachments.live_disk(&volume.name).is_some())
        .map(|user| format!("{} has got it", user.domain.name));
    match running.or(by) {
        None => Ok(()),
        Some(what) => Err(Error::cloud(format!(
            "{what} while it was copied, so that the copy is of no use; try again"
        ))
        .retryable()),
    }
}
