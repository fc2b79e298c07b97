//! A VM's boot disk: an overlay on its stemcell, or a copy of it.

use super::NewVm;
use crate::cid::Cid;
use crate::config::BootDiskClone;
use crate::libvirt::{Connection, Pool, PoolKind, Volume};
use crate::logging;
use crate::rpc::{Error, Result};
use crate::xml::volume::{Backing, VolumeFormat, VolumeSpec, plain};

const MIB: u64 = 1024 * 1024;

/// The stemcell's volume, in whichever active pool it lives, this one first.
///
/// # Errors
/// `CloudError` naming the stemcell when it is nowhere.
pub fn find_stemcell(libvirt: &Connection, pool: &Pool, cid: &Cid) -> Result<Volume> {
    let missing = || {
        Error::cloud(format!(
            "stemcell {cid} does not exist in any active pool of {}; upload it again",
            libvirt.uri
        ))
    };
    let name = cid.stemcell_volume().ok_or_else(missing)?;
    libvirt
        .volume_in_any_pool(&name, &[&pool.name])?
        .ok_or_else(missing)
}

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
    let holds_files = pool.kind()? == PoolKind::Files;
    let overlay = match how {
        BootDiskClone::Overlay => true,
        BootDiskClone::Full => false,
        BootDiskClone::Auto => holds_files,
    };
    if overlay && !holds_files {
        return Err(Error::cloud(format!(
            "storage pool {} does not hold files, which overlays are; set settings.boot_disk_clone to auto or full",
            pool.name
        )));
    }
    if overlay {
        let backing = Some(Backing {
            path: stemcell.path()?,
            format,
        });
        let spec = VolumeSpec {
            name,
            capacity,
            format: VolumeFormat::Qcow2,
            backing,
        };
        return Ok((pool.create_volume(&plain(&spec), name)?, spec.format));
    }
    let format = if holds_files { format } else { VolumeFormat::Raw };
    let spec = VolumeSpec {
        name,
        capacity: state.capacity,
        format,
        backing: None,
    };
    let copy = pool.clone_volume(&plain(&spec), name, stemcell)?;
    if capacity > state.capacity {
        copy.resize(capacity)?;
    }
    Ok((copy, format))
}
