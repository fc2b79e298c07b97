//! Deleting volumes that are left over.

use super::Leftover;
use bosh_cpi::rpc::{Error, Result};
use cpi_config::Config;
use libvirt_host::Connection;

/// Deletes the volume, if it has not been written to since it was judged; one that is gone is fine.
pub fn delete(libvirt: &Connection, config: &Config, pool: &str, leftover: &Leftover) -> Result<()> {
    let Some(pool) = libvirt.find_pool(pool)? else {
        return Ok(());
    };
    let Some(volume) = pool.volume(&leftover.name)? else {
        return Ok(());
    };
    let details = volume.details()?;
    if matches!((details.state.modified, leftover.written_at), (Some(now), Some(then)) if now > then) {
        return Err(Error::cloud("it is being written to"));
    }
    // Blocks tell no time, but a VM's settings drive beside them may.
    pool.delete_volume(&volume, config.settings.wipe_block_volumes)
}

/// Whether a volume of this name is in any active pool.
pub fn exists(libvirt: &Connection, name: &str) -> Result<bool> {
    for pool in libvirt.active_pools()? {
        if pool.volume(name)?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}
