//! Deleting a VM: all that lives and dies with it, found by its cid alone.

use super::volumes::{delete_all, own_pools};
use crate::cid::Cid;
use crate::config::Config;
use crate::libvirt::Connection;
use crate::logging;
use crate::network;
use crate::rpc::{ErrorType, Result};

/// Stops and forgets the VM and deletes what belongs to it, its persistent disks excepted. Returns whether there was
/// anything.
///
/// # Errors
/// `CloudError`; called again, it ends what was begun.
pub fn delete(libvirt: &Connection, config: &Config, vm_cid: &Cid) -> Result<bool> {
    let wipe_blocks = config.settings.wipe_block_volumes;
    let domain = libvirt.find_domain(vm_cid.as_str())?;
    let mut pools = vec![config.settings.stemcell_pool().to_owned()];
    if let Some(domain) = &domain {
        match domain.persistent_xml() {
            Ok(xml) => pools.extend(own_pools(vm_cid, &xml)),
            // Another call deletes it too. What it has not got to yet goes here.
            Err(e) if e.error_type == ErrorType::VmNotFound => {}
            Err(e) => return Err(e),
        }
        {
            let _step = logging::step(format!("stopping VM {vm_cid}"));
            domain.destroy()?;
        }
        if pools.iter().any(|pool| waits_to_start(libvirt, pool)) {
            // Only the domain tells where the rest is, so it stays until that is gone: the next call finds it.
            delete_all(libvirt, vm_cid, &pools, wipe_blocks)?;
        }
        domain.undefine()?;
    }
    let host_entries = network::unreserve(libvirt, vm_cid)?;
    let volumes = delete_all(libvirt, vm_cid, &pools, wipe_blocks)?;
    Ok(domain.is_some() || volumes > 0 || host_entries > 0)
}

/// Whether there is a pool of this name that cannot be started now.
fn waits_to_start(libvirt: &Connection, pool: &str) -> bool {
    libvirt.pool(pool).is_err() && !matches!(libvirt.find_pool(pool), Ok(None))
}
