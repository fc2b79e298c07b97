//! The volumes that live and die with a VM. Their names derive from the VM's cid alone, so that whatever is left
//! of a VM can be found without its domain.

use crate::cid::Cid;
use crate::libvirt::Connection;
use crate::rpc::Result;

/// Serials that the guest finds these volumes by.
pub const BOOT: &str = "boot";
pub const EPHEMERAL: &str = "ephemeral";
/// Also what the design calls the config drive's, whatever kind of drive it is.
pub const SETTINGS: &str = "config";

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
        Self {
            boot: format!("{vm_cid}-{BOOT}"),
            ephemeral: format!("{vm_cid}-{EPHEMERAL}"),
            settings: format!("{vm_cid}-{SETTINGS}"),
        }
    }
}

/// Every name a volume of this VM may have, the names that the seed's CPI gave included.
fn all_names(vm_cid: &Cid) -> Vec<String> {
    let VolumeNames {
        boot,
        ephemeral,
        settings,
    } = VolumeNames::of(vm_cid);
    let mut names = vec![boot, ephemeral, settings];
    if let Some(uuid) = vm_cid.vm_uuid() {
        names.extend(["bdisk", "edisk", "cdisk"].map(|prefix| format!("{prefix}-{uuid}")));
    }
    names
}

/// Deletes the VM's volumes in whichever active pool they are; returns how many there were.
///
/// # Errors
/// The first error, after all other volumes were tried.
pub fn delete_all(libvirt: &Connection, vm_cid: &Cid) -> Result<usize> {
    let names = all_names(vm_cid);
    let mut deleted = 0;
    let mut first_error = None;
    for pool in libvirt.active_pools()? {
        for name in &names {
            let outcome = pool
                .volume(name)
                .and_then(|volume| volume.map(|volume| volume.delete()).transpose());
            match outcome {
                Ok(Some(())) => deleted += 1,
                Ok(None) => {}
                Err(error) => {
                    log::warn!("{error}");
                    first_error.get_or_insert(error);
                }
            }
        }
    }
    first_error.map_or(Ok(deleted), Err)
}
