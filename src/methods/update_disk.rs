//! `update_disk(disk_cid, new_size, cloud_properties)`: in place (null) where only the size or run-time options change;
//! another pool or format means a copy in a new volume, whose cid is the answer. The old volume goes last; a call
//! that was killed then is made again, and finds the copy.

use serde_json::Value;

use super::Cpi;
use crate::disk::{self, Claim, DiskProperties, Record, users};
use bosh_cpi::cid::Cid;
use bosh_cpi::logging;
use bosh_cpi::rpc::{Arguments, Error, ErrorType, Result};
use libvirt_host::Undo;
use libvirt_host::{Connection, PoolKind, Volume, VolumeState};
use libvirt_xml::volume::{VolumeFormat, VolumeSpec, plain};

const MIB: u64 = 1024 * 1024;

pub fn call(mut arguments: Arguments, cpi: &Cpi) -> Result<Value> {
    let disk_cid = arguments.cid("disk_cid")?;
    let size = arguments.size_mib("new_size")?;
    let cloud_properties = arguments.optional_object("cloud_properties")?;
    arguments.end()?;
    let properties = DiskProperties::parse("argument 3 (cloud_properties)", cloud_properties)?;

    let libvirt = cpi.libvirt()?;
    let (current, volume) = locate(libvirt, cpi, &disk_cid)?;
    let copy = update(libvirt, cpi, &current, &volume, size, &properties)
        .map_err(|e| e.during(format!("updating disk {disk_cid}")))?;
    // Null: the disk has the cid that the caller knows.
    let new_cid = copy.or((current != disk_cid).then_some(current));
    Ok(new_cid.map_or(Value::Null, |cid| cid.as_str().into()))
}

/// The disk, or what an update of it that was killed has put in its place, before it could tell.
fn locate(libvirt: &Connection, cpi: &Cpi, disk_cid: &Cid) -> Result<(Cid, Volume)> {
    match disk::get(libvirt, &cpi.config, disk_cid) {
        Err(error) if error.error_type == ErrorType::DiskNotFound => {
            let cid = Record::of_replacement(libvirt, disk_cid)?.ok_or(error)?;
            log::info!("disk {disk_cid} was replaced by {cid} earlier");
            let volume = disk::get(libvirt, &cpi.config, &cid)?;
            Ok((cid, volume))
        }
        found => Ok((disk_cid.clone(), found?)),
    }
}

/// The new cid, if there has to be a new volume.
fn update(
    libvirt: &Connection,
    cpi: &Cpi,
    disk_cid: &Cid,
    volume: &Volume,
    size: u64,
    properties: &DiskProperties,
) -> Result<Option<Cid>> {
    users::require_none(libvirt, volume)?;
    let old_record = Record::read(libvirt, &cpi.config, volume)?;
    let state = disk::state(volume, &old_record)?;
    // Before anything changes: NotSupported makes the Director start over with a new disk.
    disk::require_growth(libvirt, disk_cid, volume, &state, size)?;

    let mut record = Record {
        options: properties.run_time.clone(),
        format: Some(properties.format),
        ..old_record.clone()
    };
    let pool_name = properties
        .storage_pool
        .as_ref()
        .unwrap_or(&cpi.config.settings.storage_pool_name);
    if *pool_name == volume.pool && state.format == Some(properties.format) {
        disk::resize(libvirt, disk_cid, volume, &old_record, size)?;
        // A raw disk without options needs no record that says so.
        if old_record.format.is_none() && properties.format == VolumeFormat::Raw {
            record.format = None;
        }
        if record != old_record {
            record.write_or_leave_none(libvirt, &cpi.config, volume)?;
        }
        return Ok(None);
    }

    require_copies(libvirt, volume, pool_name, properties)?;
    // From here on no VM gets the old volume. One that got it meanwhile, or had it, has newer data there.
    let claim = Claim::on(libvirt, disk_cid, volume)?;
    let new_cid = Cid::new_disk();
    record.replaces = Some(disk_cid.as_str().to_owned());
    let mut undo = Undo::new(libvirt);
    undo.push(format!("disk {new_cid}"), |libvirt| {
        disk::delete_copy_if_there(libvirt, &cpi.config, &new_cid)
    });
    let copy = copy(libvirt, volume, &state, &new_cid, pool_name, size, properties)?;
    // Out of a pool that rounds up, it is larger than was asked for.
    let size = size.max(state.capacity.div_ceil(MIB));
    disk::resize(libvirt, &new_cid, &copy, &record, size)?;
    record.write(libvirt, &cpi.config, &copy)?;
    claim.require_held()?;
    // Also looks at the format: libvirt may have read the pool just before it copied.
    disk::require_unwritten(libvirt, volume, &state, &disk::state(volume, &old_record)?)?;
    undo.disarm();
    // The data is in the new volume; an old one that cannot be deleted now is only a waste of space.
    match disk::delete_claimed(libvirt, &cpi.config, disk_cid, volume) {
        Ok(()) => claim.disarm(),
        Err(error) => {
            log::warn!("disk {disk_cid} was replaced by {new_cid}, but its volume is still there: {error}");
        }
    }
    Ok(Some(new_cid))
}

/// Whether libvirt can copy the volume to a pool.
///
/// # Errors
/// `NotSupported`, whereupon the Director makes a new disk and copies within a VM; `CloudError` for the format.
fn require_copies(
    libvirt: &Connection,
    volume: &Volume,
    pool_name: &str,
    properties: &DiskProperties,
) -> Result<()> {
    let from = libvirt.pool(&volume.pool)?.kind()?;
    let to = libvirt.pool(pool_name)?.kind()?;
    disk::require_format(pool_name, to, properties.format)?;
    if *pool_name != volume.pool && (from == PoolKind::Rbd || to == PoolKind::Rbd) {
        return Err(Error::not_supported(format!(
            "libvirt cannot copy from pool {} to pool {pool_name}: one of them is of type rbd",
            volume.pool
        )));
    }
    Ok(())
}

/// Copies the volume and looks whether the copy is what was asked for.
fn copy(
    libvirt: &Connection,
    volume: &Volume,
    state: &VolumeState,
    new_cid: &Cid,
    pool_name: &str,
    size: u64,
    properties: &DiskProperties,
) -> Result<Volume> {
    let _step = logging::step(format!(
        "copying volume {} to {new_cid} in pool {pool_name}",
        volume.name
    ));
    let pool = libvirt.pool(pool_name)?;
    let capacity = if pool.resizes()? {
        state.capacity
    } else {
        state.capacity.max(size * MIB)
    };
    let spec = VolumeSpec {
        name: new_cid.as_str(),
        capacity,
        format: properties.format,
        backing: None,
    };
    let copy = pool.clone_volume(&plain(&spec), spec.name, volume)?;
    let copied = copy.state()?;
    // LVM rounds up.
    let has_size = if pool.kind()? == PoolKind::Blocks {
        copied.capacity >= capacity
    } else {
        copied.capacity == capacity
    };
    if !has_size || copied.format != Some(properties.format) {
        return Err(Error::cloud(format!(
            "the copy in pool {pool_name} has {} bytes as {:?}, not {} bytes as {:?}",
            copied.capacity, copied.format, capacity, properties.format
        )));
    }
    Ok(copy)
}
