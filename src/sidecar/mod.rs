//! What is remembered beside a volume, since libvirt keeps no metadata for volumes: sidecar records (JSON) and marker
//! volumes (empty). Their names are in `volume_name.rs`.
//!
//! A marker is in the pool of its volume, whatever kind of pool that is: every host that sees the volume sees the
//! marker. A record is there too where the pool holds files. Other pools take no uploads (rbd) or would waste an extent
//! on each record (logical), so records about their volumes are in `settings.stemcell_pool_name`. A record is found in
//! any active pool: earlier versions kept all of them in the pool that the settings named then.

pub mod marker;
mod record;

pub use record::{read, write};

use bosh_cpi::rpc::Result;
use cpi_config::Config;
use libvirt_host::volume_name::VolumeName;
use libvirt_host::{Connection, Pool, PoolKind, Volume};

/// The pool for records about volumes of this pool.
///
/// # Errors
/// `CloudError` when libvirt cannot be asked, or that pool does not start.
pub fn home(libvirt: &Connection, config: &Config, pool: &str) -> Result<Pool> {
    let pool = libvirt.pool(pool)?;
    match pool.kind()? {
        PoolKind::Files => Ok(pool),
        PoolKind::Blocks | PoolKind::Rbd | PoolKind::Other => libvirt.pool(config.settings.stemcell_pool()),
    }
}

/// The record of this name about a volume in this pool: at home, or where an earlier version or other settings put it.
///
/// # Errors
/// `CloudError` when libvirt cannot be asked.
pub fn find(libvirt: &Connection, config: &Config, pool: &str, name: &VolumeName) -> Result<Option<Volume>> {
    let (home, name) = (home(libvirt, config, pool)?, name.to_string());
    if let Some(record) = home.volume(&name)? {
        return Ok(Some(record));
    }
    let stemcells = libvirt.pool(config.settings.stemcell_pool())?;
    if stemcells.name != home.name
        && let Some(record) = stemcells.volume(&name)?
    {
        return Ok(Some(record));
    }
    for other in libvirt.active_pools()? {
        if other.name != home.name
            && other.name != stemcells.name
            && let Some(Some(record)) = other.unless_stopped(other.volume(&name))?
        {
            return Ok(Some(record));
        }
    }
    Ok(None)
}

/// Deletes the sidecar of this name in every active pool; none is fine.
///
/// # Errors
/// `CloudError` when libvirt cannot be asked or refuses.
pub fn delete_everywhere(libvirt: &Connection, name: &VolumeName) -> Result<()> {
    let name = name.to_string();
    for pool in libvirt.active_pools()? {
        if let Some(Some(volume)) = pool.unless_stopped(pool.volume(&name))? {
            volume.delete()?;
        }
    }
    Ok(())
}
