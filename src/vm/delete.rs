//! Deleting a VM: all that lives and dies with it, found by its cid alone.

use super::volumes::{OwnPools, delete_all, own_pools};
use crate::cid::Cid;
use crate::config::Config;
use crate::libvirt::Connection;
use crate::logging;
use crate::network;
use crate::rpc::{Error, ErrorType, Result};

/// Stops and forgets the VM and deletes what belongs to it, its persistent disks excepted. Returns whether there was
/// anything.
///
/// # Errors
/// `CloudError`; called again, it ends what was begun.
pub fn delete(libvirt: &Connection, config: &Config, vm_cid: &Cid) -> Result<bool> {
    let wipe_blocks = config.settings.wipe_block_volumes;
    let domain = libvirt.find_domain(vm_cid.as_str())?;
    let mut own = OwnPools::default();
    own.pools.insert(config.settings.stemcell_pool().to_owned());
    if let Some(domain) = &domain {
        match domain.persistent_xml() {
            Ok(xml) => {
                let of_domain = own_pools(libvirt, vm_cid, &xml)?;
                own.pools.extend(of_domain.pools);
                own.unknown = of_domain.unknown;
            }
            // Another call deletes it too. What it has not got to yet goes here.
            Err(e) if e.error_type == ErrorType::VmNotFound => {}
            Err(e) => return Err(e),
        }
        {
            let _step = logging::step(format!("stopping VM {vm_cid}"));
            domain.destroy()?;
        }
        if own.pools.iter().any(|pool| waits_to_start(libvirt, pool)) {
            // Only the domain tells where the rest is, so it stays until that is gone: the next call finds it.
            delete_all(libvirt, vm_cid, &own.pools, wipe_blocks)?;
        }
        domain.undefine()?;
    }
    let host_entries = network::unreserve(libvirt, vm_cid)?;
    let volumes = delete_all(libvirt, vm_cid, &own.pools, wipe_blocks)?;
    if let Some(directory) = own.unknown.first() {
        return Err(Error::cloud(format!(
            "deleting VM {vm_cid}: its domain is gone, but no storage pool has the directory {directory} of its volumes \
             (delete {directory}/{vm_cid}-* on the host)"
        )));
    }
    Ok(domain.is_some() || volumes > 0 || host_entries > 0)
}

/// Whether there is a pool of this name that cannot be started now.
fn waits_to_start(libvirt: &Connection, pool: &str) -> bool {
    libvirt.pool(pool).is_err() && !matches!(libvirt.find_pool(pool), Ok(None))
}
