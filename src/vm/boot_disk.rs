//! A VM's boot disk: an overlay on its stemcell, or a copy of it.

use super::{NewVm, OwnDisk};
use bosh_cpi::logging;
use bosh_cpi::rpc::{Error, Result};
use cpi_config::BootDiskClone;
use libvirt_host::volume_name::BOOT;
use libvirt_host::{Connection, Pool, PoolKind, Volume, VolumeState};
use libvirt_xml::disk::BackingFile;
use libvirt_xml::volume::{Backing, VolumeFormat, VolumeSpec, plain};

const MIB: u64 = 1024 * 1024;

/// Makes the boot disk in this pool. An overlay takes milliseconds and no space; pools that hold no files get a full
/// copy.
///
/// # Errors
/// `NoDiskSpace`; `CloudError` when `boot_disk` is smaller than the stemcell.
pub fn create(
    libvirt: &Connection,
    vm: &NewVm,
    how: BootDiskClone,
    pool: &Pool,
    stemcell: &Volume,
    name: &str,
) -> Result<OwnDisk> {
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
    let (format_made, chain) = layout(libvirt, how, pool, &state)?;
    if !matches!(&chain, Some(chain) if chain.is_empty()) {
        let backing = Some(Backing {
            path: state.path.clone(),
            format,
        });
        let spec = VolumeSpec {
            name,
            capacity,
            format: format_made,
            backing,
        };
        let volume = pool.create_volume(&plain(&spec), name)?;
        return OwnDisk::of(&volume, format_made, chain, BOOT);
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
    OwnDisk::of(&copy, format_made, Some(Vec::new()), BOOT)
}

/// The boot disk's format and its backing chain, empty for a copy and None where it cannot be told whole, in this pool
/// and for this stemcell.
///
/// # Errors
/// `CloudError` for overlays where there can be none, and for a stemcell that is neither raw nor qcow2.
pub fn layout(
    libvirt: &Connection,
    how: BootDiskClone,
    pool: &Pool,
    stemcell: &VolumeState,
) -> Result<(VolumeFormat, Option<Vec<BackingFile>>)> {
    let format = stemcell.format.ok_or_else(|| {
        Error::cloud(format!(
            "stemcell volume {} is neither raw nor qcow2",
            stemcell.path
        ))
    })?;
    let holds_files = pool.kind()? == PoolKind::Files;
    let overlay = match how {
        BootDiskClone::Overlay => true,
        BootDiskClone::Full => false,
        BootDiskClone::Auto => holds_files,
    };
    match (overlay, holds_files) {
        (true, true) => {
            // A light stemcell can be an overlay itself.
            let below = libvirt.backing_chain(stemcell)?;
            let path = stemcell.path.clone();
            let chain = below.map(|below| [vec![BackingFile { path, format }], below].concat());
            Ok((VolumeFormat::Qcow2, chain))
        }
        (true, false) => Err(Error::cloud(format!(
            "storage pool {} does not hold files, which overlays are; set settings.boot_disk_clone to auto or full",
            pool.name
        ))),
        (false, true) => Ok((format, Some(Vec::new()))),
        (false, false) => Ok((VolumeFormat::Raw, Some(Vec::new()))),
    }
}
