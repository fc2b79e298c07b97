//! The volumes that live and die with a VM. Their names derive from the VM's cid alone, so that whatever is left
//! of a VM can be found without its domain.

use std::collections::BTreeSet;

use bosh_cpi::cid::Cid;
use bosh_cpi::rpc::{Error, Result};
use libvirt_host::Connection;
use libvirt_host::volume_name::{BOOT, EPHEMERAL, SETTINGS, VolumeName, all_of_vm};
use libvirt_xml::element::Element;

/// Places on the VM's bus, in which create_vm lists its disks. On SCSI they are the disks' targets: agents that look for
/// a disk by number take the one on target 0 for the boot disk.
pub const BOOT_POSITION: usize = 0;
pub const EPHEMERAL_POSITION: usize = 1;

/// Names of a new VM's volumes.
pub struct VolumeNames {
    /// Overlay on, or copy of, the stemcell.
    pub boot: String,
    pub ephemeral: String,
    /// Config drive or CD-ROM with the agent's settings.
    pub settings: String,
}

impl VolumeNames {
    pub fn of(vm_cid: &Cid) -> Self {
        let name = |part| VolumeName::OfVm(vm_cid.to_string(), part).to_string();
        Self {
            boot: name(BOOT),
            ephemeral: name(EPHEMERAL),
            settings: name(SETTINGS),
        }
    }
}

/// Where the VM's own volumes are according to its domain's XML.
#[derive(Default)]
pub struct OwnPools {
    /// Names of pools, active or not.
    pub pools: BTreeSet<String>,
    /// Directories of the host that are no pool's.
    pub unknown: BTreeSet<String>,
}

/// Where the VM's own volumes are. Disks of earlier versions name their pool, those of this one a path in it.
///
/// # Errors
/// `CloudError` when libvirt cannot be asked.
pub fn own_pools(libvirt: &Connection, vm_cid: &Cid, domain: &Element) -> Result<OwnPools> {
    let names = all_of_vm(vm_cid);
    let is_own = |name: &str| names.iter().any(|own| own == name);
    let mut found = OwnPools::default();
    let mut directories = BTreeSet::new();
    let sources = domain
        .child("devices")
        .into_iter()
        .flat_map(|devices| devices.children_named("disk"))
        .filter_map(|disk| disk.child("source"));
    for source in sources {
        if let (Some(pool), Some(volume)) = (source.attribute("pool"), source.attribute("volume"))
            && is_own(volume)
        {
            found.pools.insert(pool.to_owned());
        }
        if let Some(path) = source.attribute("file").or(source.attribute("dev"))
            && let Some((directory, name)) = path.rsplit_once('/')
            && is_own(name)
        {
            directories.insert(directory);
        }
    }
    for directory in directories {
        match libvirt.pool_at(directory)? {
            Some(pool) => found.pools.insert(pool),
            None => found.unknown.insert(directory.to_owned()),
        };
    }
    Ok(found)
}

/// Deletes the VM's volumes in whichever active pool they are; returns how many there were. `sure` are the pools that
/// they can be in: stopped, they are started, since what is in them would be left behind. Raw blocks are wiped if
/// `wipe_blocks`.
///
/// # Errors
/// The first error, after all other volumes were tried.
pub fn delete_all(
    libvirt: &Connection,
    vm_cid: &Cid,
    sure: &BTreeSet<String>,
    wipe_blocks: bool,
) -> Result<usize> {
    let names = all_of_vm(vm_cid);
    let mut deleted = 0;
    let mut first_error = None;
    let mut note = |error: Error| {
        log::warn!("{error}");
        first_error.get_or_insert(error);
    };
    for name in sure {
        if let Err(error) = libvirt.pool(name) {
            note(error);
        }
    }
    for pool in libvirt.active_pools()? {
        for name in &names {
            let outcome = pool.volume(name).and_then(|volume| {
                volume
                    .map(|volume| pool.delete_volume(&volume, wipe_blocks))
                    .transpose()
            });
            let outcome = if sure.contains(&pool.name) {
                outcome.map(Some)
            } else {
                pool.unless_stopped(outcome)
            };
            match outcome {
                Ok(Some(Some(()))) => deleted += 1,
                Ok(_) => {}
                Err(error) => note(error),
            }
        }
    }
    first_error.map_or(Ok(deleted), Err)
}
