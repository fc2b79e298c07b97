//! A VM's boot disk: an overlay on its stemcell, or a copy of it.

use super::NewVm;
use crate::config::BootDiskClone;
use crate::libvirt::{Pool, PoolKind, Volume};
use crate::logging;
use crate::rpc::{Error, Result};
use crate::xml::volume::{Backing, VolumeFormat, VolumeSpec, plain};

const MIB: u64 = 1024 * 1024;

/// Makes the boot disk in this pool. An overlay takes milliseconds and no space; pools that hold no files get a full
/// copy.
///
/// # Errors
/// `NoDiskSpace`; `CloudError` when `boot_disk` is smaller than the stemcell.
pub fn create(
    vm: &NewVm,
    how: BootDiskClone,
    pool: &Pool,
    stemcell: &Volume,
    name: &str,
) -> Result<(Volume, VolumeFormat)> {
    let _step = logging::step(format!("creating boot disk {name}"));
    let state = stemcell.state()?;
    let format = state.format.ok_or_else(|| {
        Error::cloud(format!(
            "volume {} in pool {} is neither raw nor qcow2",
            stemcell.name, stemcell.pool
        ))
    })?;
    let capacity = vm
        .properties
        .boot_disk
        .map_or(state.capacity, |size| size.saturating_mul(MIB));
    if capacity < state.capacity {
        return Err(Error::cloud(format!(
            "boot_disk is smaller than the stemcell, which has {} MiB",
            state.capacity.div_ceil(MIB)
        )));
    }
    let (overlay, format_made) = layout(how, pool, format)?;
    if overlay {
        let backing = Some(Backing {
            path: stemcell.path()?,
            format,
        });
        let spec = VolumeSpec {
            name,
            capacity,
            format: format_made,
            backing,
        };
        return Ok((pool.create_volume(&plain(&spec), name)?, spec.format));
    }
    let resizes = pool.resizes()?;
    let spec = VolumeSpec {
        name,
        capacity: if resizes { state.capacity } else { capacity },
        format: format_made,
        backing: None,
    };
    let copy = pool.clone_volume(&plain(&spec), name, stemcell)?;
    if resizes && capacity > state.capacity {
        copy.resize(capacity)?;
    }
    Ok((copy, format_made))
}

/// Whether the boot disk is an overlay, and its format, in this pool and for a stemcell of this format.
///
/// # Errors
/// `CloudError` for overlays where there can be none.
pub fn layout(how: BootDiskClone, pool: &Pool, stemcell: VolumeFormat) -> Result<(bool, VolumeFormat)> {
    let holds_files = pool.kind()? == PoolKind::Files;
    let overlay = match how {
        BootDiskClone::Overlay => true,
        BootDiskClone::Full => false,
        BootDiskClone::Auto => holds_files,
    };
    match (overlay, holds_files) {
        (true, true) => Ok((true, VolumeFormat::Qcow2)),
        (true, false) => Err(Error::cloud(format!(
            "storage pool {} does not hold files, which overlays are; set settings.boot_disk_clone to auto or full",
            pool.name
        ))),
        (false, true) => Ok((false, stemcell)),
        (false, false) => Ok((false, VolumeFormat::Raw)),
    }
}
