//! Persistent disks: where they are, who uses them, and what is remembered about them.

mod attachment;
mod claim;
mod detach;
mod layers;
mod properties;
mod record;
mod state;
pub mod unread_pools;
pub mod users;
mod volume;

pub use attachment::Attachments;
pub use claim::{Claim, require_unclaimed};
pub use detach::detach_live;
pub use layers::{Layer, cid_of, disk_cids_in, disks, layer_of, name_of, volumes_of};
pub use properties::DiskProperties;
pub use record::Record;
pub use state::{format, require_unwritten, state};
pub use volume::{
    create_volume, delete, delete_claimed, delete_copy_if_there, delete_empty_if_there, require_format,
    require_growth, resize,
};

use bosh_cpi::cid::Cid;
use bosh_cpi::rpc::{Error, ErrorType, Result};
use cpi_config::{Config, DiskBus};
use libvirt_host::{Connection, Volume};

/// The disk's volume, in whichever active pool it lives, the configured one first. A volume whose name is none of
/// our cids is not ours, hence not found.
pub fn find(libvirt: &Connection, config: &Config, cid: &Cid) -> Result<Option<Volume>> {
    if cid.names_disk() {
        libvirt.volume_in_any_pool(cid.as_str(), &[&config.settings.storage_pool_name])
    } else {
        Ok(None)
    }
}

/// Whether the disk's data is there: libvirt may know a volume whose file is gone.
///
/// # Errors
/// `CloudError` when libvirt cannot be asked.
pub fn exists(libvirt: &Connection, config: &Config, cid: &Cid) -> Result<bool> {
    let Some(volume) = find(libvirt, config, cid)? else {
        return Ok(false);
    };
    if volume.state().is_ok() {
        return Ok(true);
    }
    libvirt.pool(&volume.pool)?.refresh()?;
    Ok(find(libvirt, config, cid)?.is_some())
}

/// The path of the disk's volume, for messages: also where the volume is gone.
///
/// # Errors
/// `CloudError` when libvirt cannot be asked.
pub fn path(libvirt: &Connection, config: &Config, cid: &Cid) -> Result<String> {
    match find(libvirt, config, cid)? {
        Some(volume) => volume.path(),
        None => Ok(format!("PATH_FOR_{cid}")),
    }
}

/// The disk's volume.
///
/// # Errors
/// `DiskNotFound`.
pub fn get(libvirt: &Connection, config: &Config, cid: &Cid) -> Result<Volume> {
    if let Some(volume) = find(libvirt, config, cid)? {
        return Ok(volume);
    }
    let inactive: Vec<String> = libvirt
        .inactive_pools()?
        .into_iter()
        .map(|pool| pool.name)
        .collect();
    let hint = if inactive.is_empty() {
        String::new()
    } else {
        format!(" (inactive pools: {})", inactive.join(", "))
    };
    Err(Error::new(
        ErrorType::DiskNotFound,
        format!(
            "disk {cid} does not exist in any active pool of {}{hint}",
            libvirt.uri
        ),
    ))
}

/// The volume of a disk that is to be deleted. Where it is gone, so is the claim of the call that deleted it and was
/// interrupted afterwards.
///
/// # Errors
/// `DiskNotFound`.
pub fn get_to_delete(libvirt: &Connection, config: &Config, cid: &Cid) -> Result<Volume> {
    get(libvirt, config, cid).inspect_err(|error| {
        if error.error_type == ErrorType::DiskNotFound
            && let Err(e) = claim::release(libvirt, cid)
        {
            log::warn!("removing the claim on disk {cid}, which does not exist: {e}");
        }
    })
}

/// What the agent finds the disk by, whatever order the guest numbers its disks in.
pub fn hint(cid: &Cid, bus: DiskBus) -> serde_json::Value {
    match bus {
        DiskBus::Virtio => format!("/dev/disk/by-id/virtio-{}", cid.disk_serial()).into(),
        DiskBus::Scsi => serde_json::json!({"id": cid.disk_serial()}),
    }
}
