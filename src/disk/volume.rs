//! Making, growing and deleting the volume of a persistent disk.

use super::claim::{Claim, release};
use super::{DiskProperties, Record, find, state, unread_pools, users};
use crate::sidecar;
use bosh_cpi::cid::Cid;
use bosh_cpi::logging;
use bosh_cpi::rpc::{Error, Result};
use cpi_config::Config;
use libvirt_host::volume_name::VolumeName;
use libvirt_host::{Connection, PoolKind, Volume, VolumeState};
use libvirt_xml::volume::{Preallocation, VolumeFormat, VolumeSpec, allocate_fully, from_template};

const MIB: u64 = 1024 * 1024;

/// What LVM makes volumes of, if it is not told otherwise, bytes.
const EXTENT: u64 = 4 * MIB;

/// An empty volume of this size (MiB) where the disk's cloud properties want it.
///
/// # Errors
/// `NoDiskSpace`; `CloudError` for a pool that is not there or cannot hold the format.
pub fn create_volume(
    libvirt: &Connection,
    config: &Config,
    cid: &Cid,
    size: u64,
    properties: &DiskProperties,
) -> Result<Volume> {
    let pool_name = properties
        .storage_pool
        .as_ref()
        .unwrap_or(&config.settings.storage_pool_name);
    let pool = libvirt.pool(pool_name)?;
    let kind = pool.kind()?;
    require_format(pool_name, kind, properties.format)?;
    if properties.preallocation == Preallocation::Full && kind == PoolKind::Rbd {
        return Err(Error::cloud(format!(
            "storage pool {pool_name} is of type rbd, where nothing can be allocated ahead; \
             leave out cloud property preallocation"
        )));
    }
    let spec = VolumeSpec {
        name: cid.as_str(),
        capacity: size * MIB,
        format: properties.format,
        backing: None,
    };
    let mut xml = from_template(&spec, &config.settings.storage_volume)?;
    let _step = logging::step(format!("creating disk {cid} in pool {pool_name}"));
    match properties.preallocation {
        Preallocation::Off => pool.create_volume(&xml, spec.name),
        Preallocation::Metadata => pool.create_volume_with_metadata(&xml, spec.name),
        Preallocation::Full => {
            allocate_fully(&mut xml);
            match properties.format {
                VolumeFormat::Raw => pool.create_volume(&xml, spec.name),
                // Libvirt looks at the allocation of a qcow2 only together with its tables.
                VolumeFormat::Qcow2 => pool.create_volume_with_metadata(&xml, spec.name),
            }
        }
    }
}

/// Refuses a format that the pool's volumes cannot have.
///
/// # Errors
/// `CloudError`.
pub fn require_format(pool_name: &str, kind: PoolKind, format: VolumeFormat) -> Result<()> {
    if format != VolumeFormat::Raw && kind != PoolKind::Files {
        return Err(Error::cloud(format!(
            "storage pool {pool_name} does not hold files, so its disks are raw; leave out cloud property format"
        )));
    }
    Ok(())
}

/// Refuses to shrink a disk. A volume of blocks is as large as was asked for, or less than an extent larger.
///
/// # Errors
/// `NotSupported`.
pub fn require_growth(
    libvirt: &Connection,
    cid: &Cid,
    volume: &Volume,
    state: &VolumeState,
    size: u64,
) -> Result<()> {
    let too_large = state.capacity.saturating_sub(size * MIB);
    if too_large == 0 {
        return Ok(());
    }
    if too_large < EXTENT && libvirt.pool(&volume.pool)?.kind()? == PoolKind::Blocks {
        return Ok(());
    }
    Err(Error::not_supported(format!(
        "disk {cid} has {} MiB and cannot shrink to {size} MiB",
        state.capacity.div_ceil(MIB)
    )))
}

/// Grows the disk to this size (MiB), under the running guest if a VM has it; nothing happens when it has that size.
///
/// # Errors
/// `NotSupported` for a smaller size, and where libvirt cannot do it, whereupon the Director makes a new disk and copies
/// within a VM; `NoDiskSpace`, `CloudError`.
pub fn resize(libvirt: &Connection, cid: &Cid, volume: &Volume, record: &Record, size: u64) -> Result<()> {
    let state = state(volume, record)?;
    require_growth(libvirt, cid, volume, &state, size)?;
    let bytes = size * MIB;
    if bytes <= state.capacity {
        return Ok(());
    }
    let users = users::of(libvirt, &volume.name)?;
    for user in &users {
        user.attachments
            .require_top_layer(&user.domain, &volume.name, || Ok(state.path.clone()))
            .and_then(|()| user.attachments.require_not_saved(&user.domain))
            .map_err(|e| e.during(format!("growing disk {cid}")))?;
    }
    users::require_no_overlay(libvirt, volume).map_err(|e| e.during(format!("growing disk {cid}")))?;
    let pool = libvirt.pool(&volume.pool)?;
    if !pool.resizes()? {
        return Err(Error::not_supported(format!(
            "growing disk {cid}: libvirt cannot change the size of volumes in pool {}",
            volume.pool
        )));
    }
    for user in &users {
        let disk = user.attachments.live_disk(&volume.name);
        if let Some(target) = disk.and_then(|disk| disk.child("target")?.attribute("dev")) {
            return user
                .domain
                .resize_disk(target, bytes)
                .map_err(|e| e.during(format!("growing disk {cid}")));
        }
    }
    pool.grow_volume(volume, bytes)
        .map_err(|e| e.during(format!("growing disk {cid}")))
}

/// Rolls back the making of an empty disk, which no VM has seen yet.
pub fn delete_empty_if_there(libvirt: &Connection, config: &Config, cid: &Cid) -> Result<()> {
    delete_if_there(libvirt, config, cid, false)
}

/// Rolls back the making of a copy of a disk.
pub fn delete_copy_if_there(libvirt: &Connection, config: &Config, cid: &Cid) -> Result<()> {
    delete_if_there(libvirt, config, cid, config.settings.wipe_block_volumes)
}

fn delete_if_there(libvirt: &Connection, config: &Config, cid: &Cid, wipe_blocks: bool) -> Result<()> {
    Record::delete(libvirt, cid)?;
    find(libvirt, config, cid)?.map_or(Ok(()), |volume| {
        libvirt.pool(&volume.pool)?.delete_volume(&volume, wipe_blocks)
    })
}

/// Deletes the disk with all that is remembered about it.
///
/// # Errors
/// `CloudError` naming the VMs that have it, running, defined or saved, and what is an overlay on it.
pub fn delete(libvirt: &Connection, config: &Config, cid: &Cid, volume: &Volume) -> Result<()> {
    let doing = || format!("deleting disk {cid}");
    let claim = Claim::on(libvirt, cid, volume).map_err(|e| e.during(doing()))?;
    // What QEMU has made in the pool, as an overlay, libvirt knows only once it has read the pool anew.
    // While another job works in the pool, what libvirt knows has to do: it reads the pool anew after that job.
    libvirt.pool(&volume.pool)?.refresh_if_idle()?;
    users::require_no_overlay(libvirt, volume).map_err(|e| e.during(doing()))?;
    unread_pools::require_none(libvirt, config).map_err(|e| e.during(doing()))?;
    delete_claimed(libvirt, config, cid, volume)?;
    claim.disarm();
    Ok(())
}

/// Deletes a disk that was claimed, with all that is remembered about it. The claim goes with it.
pub fn delete_claimed(libvirt: &Connection, config: &Config, cid: &Cid, volume: &Volume) -> Result<()> {
    let pool = libvirt.pool(&volume.pool)?;
    match pool.kind()? {
        PoolKind::Rbd => volume
            .delete_with_snapshots()
            .map_err(|e| e.during(format!("deleting disk {cid}")))?,
        PoolKind::Files | PoolKind::Blocks | PoolKind::Other => {
            pool.delete_volume(volume, config.settings.wipe_block_volumes)?;
        }
    }
    Record::delete(libvirt, cid)?;
    if cid.names_snapshot() {
        sidecar::delete_everywhere(libvirt, &VolumeName::Incomplete(cid.to_string()))?;
    }
    release(libvirt, cid)
}
