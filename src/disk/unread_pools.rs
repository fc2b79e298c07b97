//! Pools that overlays can be in and that libvirt cannot read, as they are inactive. Nothing that something could be based
//! on is deleted then.

use std::collections::BTreeSet;

use super::Attachments;
use super::layers::disks;
use bosh_cpi::rpc::{Error, ErrorType, Result};
use cpi_config::Config;
use libvirt_host::Connection;

/// Refuses where an inactive pool matters: one that the settings name, one that libvirt should have started, and one with
/// the disk of a VM whose XML does not tell what that disk is based on.
///
/// # Errors
/// `CloudError` naming the pool.
pub fn require_none(libvirt: &Connection, config: &Config) -> Result<()> {
    let inactive = libvirt.inactive_pools_of_files()?;
    if inactive.is_empty() {
        return Ok(());
    }
    let settings = &config.settings;
    let places = places_with_unknown_chains(libvirt)?;
    for pool in inactive {
        let matters = pool.autostart
            || pool.name == settings.storage_pool_name
            || pool.name == settings.stemcell_pool()
            || places.contains(&pool.name)
            || places.contains(&pool.target);
        if matters {
            return Err(Error::cloud(format!(
                "pool {0} is inactive, and a disk in it may be based on the volume (virsh pool-start {0}, or virsh \
                 pool-undefine {0})",
                pool.name
            )));
        }
    }
    Ok(())
}

/// Pool names and directories of the disks of VMs that do not run, where the XML names no backing chain.
fn places_with_unknown_chains(libvirt: &Connection) -> Result<BTreeSet<String>> {
    let mut places = BTreeSet::new();
    for domain in libvirt.all_domains()? {
        let attachments = match Attachments::of(&domain) {
            Err(e) if e.error_type == ErrorType::VmNotFound => continue,
            attachments => attachments?,
        };
        // A running VM tells its chains.
        let view = attachments.live.as_ref().or(attachments.persistent.as_ref());
        let unknown = view
            .into_iter()
            .flat_map(disks)
            .filter(|disk| disk.child("backingStore").is_none());
        for source in unknown.filter_map(|disk| disk.child("source")) {
            let directory = || {
                source
                    .attribute("file")?
                    .rsplit_once('/')
                    .map(|(directory, _)| directory)
            };
            places.extend(source.attribute("pool").or_else(directory).map(str::to_owned));
        }
    }
    Ok(places)
}
