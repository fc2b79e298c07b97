//! Deleting a VM: all that lives and dies with it, found by its cid alone.

use super::volumes::{OwnPools, delete_all, own_pools};
use crate::disk::{self, Attachments};
use crate::network;
use bosh_cpi::cid::Cid;
use bosh_cpi::logging;
use bosh_cpi::rpc::{Error, ErrorType, Result};
use cpi_config::Config;
use libvirt_host::volume_name::all_of_vm;
use libvirt_host::{Connection, Domain};

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
        match Attachments::of(domain) {
            Ok(attachments) => {
                require_no_newer_data(libvirt, config, vm_cid, domain, &attachments)?;
                let xml = attachments.persistent.or(attachments.live);
                if let Some(xml) = xml {
                    let of_domain = own_pools(libvirt, vm_cid, &xml)?;
                    own.pools.extend(of_domain.pools);
                    own.unknown = of_domain.unknown;
                }
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

/// Refuses while only this VM knows of the newest data of a persistent disk, as another tool has put an overlay on the
/// disk's volume, or moved it.
///
/// # Errors
/// `CloudError` with the command that ends this.
fn require_no_newer_data(
    libvirt: &Connection,
    config: &Config,
    vm_cid: &Cid,
    domain: &Domain,
    attachments: &Attachments,
) -> Result<()> {
    for (volume, file) in attachments.overlays_on(&all_of_vm(vm_cid)) {
        log::warn!(
            "{file}, an overlay of another tool's on volume {volume}, stays when VM {vm_cid} is deleted"
        );
    }
    for disk in attachments.all_disk_cids() {
        let cid = Cid::new(&disk).map_err(Error::cpi)?;
        attachments
            .require_top_layer(domain, &disk, || disk::path(libvirt, config, &cid))
            .map_err(|e| e.during(format!("deleting VM {}", domain.name)))?;
    }
    Ok(())
}

/// Whether there is a pool of this name that cannot be started now.
fn waits_to_start(libvirt: &Connection, pool: &str) -> bool {
    libvirt.pool(pool).is_err() && !matches!(libvirt.find_pool(pool), Ok(None))
}
