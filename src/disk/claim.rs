//! A claim on a disk: nobody attaches it while it is being deleted or copied. The claim is a marker volume
//! `<disk cid>.deleting` beside the disk, made before the users of the disk are checked. attach_disk puts the disk into
//! the VM's definition before it checks for the marker. So at least one of the two sees the other, and refuses.

use super::users;
use crate::sidecar::{self, marker};
use bosh_cpi::cid::Cid;
use bosh_cpi::rpc::{Error, ErrorType, Result};
use cpi_config::Config;
use libvirt_host::Undo;
use libvirt_host::volume_name::VolumeName;
use libvirt_host::{Connection, Pool, Volume};

fn marker_of(cid: &str) -> VolumeName {
    VolumeName::Deleting(cid.to_owned())
}

/// A disk that nobody can attach until this is dropped or released.
pub struct Claim<'a> {
    undo: Undo<'a>,
    pool: Pool,
    marker: VolumeName,
    /// False where the pool had no room for the marker.
    marked: bool,
}

impl<'a> Claim<'a> {
    /// Claims the disk. A claim of a call that was killed is taken over.
    ///
    /// # Errors
    /// `CloudError` naming the VMs that have the disk, running, defined or saved.
    pub fn on(libvirt: &'a Connection, cid: &Cid, volume: &Volume) -> Result<Self> {
        let mut claim = Self {
            undo: Undo::new(libvirt),
            pool: libvirt.pool(&volume.pool)?,
            marker: marker_of(cid.as_str()),
            marked: true,
        };
        if !marker::exists(&claim.pool, &claim.marker)? {
            let (pool, marker) = (claim.pool.name.clone(), claim.marker.clone());
            claim.undo.push(format!("volume {marker}"), move |libvirt| {
                marker::remove(&libvirt.pool(&pool)?, &marker).map(drop)
            });
            match marker::put(&claim.pool, &claim.marker) {
                // To delete the disk is what helps then.
                Err(e) if e.error_type == ErrorType::NoDiskSpace => {
                    log::warn!(
                        "pool {} has no room for the marker {}: {e}",
                        claim.pool.name,
                        claim.marker
                    );
                    claim.marked = false;
                }
                outcome => outcome?,
            }
        }
        users::require_only(None, &users::of(libvirt, &volume.name)?)?;
        Ok(claim)
    }

    /// That the claim has lasted: nobody can have attached the disk since it was made.
    ///
    /// # Errors
    /// `CloudError`, retryable.
    pub fn require_held(&self) -> Result<()> {
        if self.marked && marker::exists(&self.pool, &self.marker)? {
            return Ok(());
        }
        Err(Error::cloud(format!(
            "the claim on it (volume {} in pool {}) was lost while it was copied; try again",
            self.marker, self.pool.name
        ))
        .retryable())
    }

    /// The disk is gone, and the claim with it.
    pub fn disarm(self) {
        self.undo.disarm();
    }
}

/// Removes what claims there are on a disk that is gone. Earlier versions kept them in another pool.
pub(super) fn release(libvirt: &Connection, cid: &Cid) -> Result<()> {
    sidecar::delete_everywhere(libvirt, &marker_of(cid.as_str()))
}

/// For a call that has just put the disk into a VM's definition: that nobody deletes or copies the disk at this time, or
/// has deleted it.
///
/// # Errors
/// `CloudError`, `DiskNotFound`.
pub fn require_unclaimed(libvirt: &Connection, config: &Config, volume: &Volume) -> Result<()> {
    let (marker, pool) = (marker_of(&volume.name), libvirt.pool(&volume.pool)?);
    if pool.is_shared()? {
        // Libvirt does not know what other hosts have made there, but nobody can make the same volume twice.
        let probed = marker::put(&pool, &marker);
        if probed.is_ok() {
            marker::remove(&pool, &marker)?;
            return volume.path().map(drop);
        }
        pool.refresh()?;
        if !marker::exists(&pool, &marker)? {
            return probed.map_err(|e| e.during(format!("checking for a claim on disk {}", volume.name)));
        }
    }
    // Earlier versions kept markers with the stemcells.
    for pool in [pool, libvirt.pool(config.settings.stemcell_pool())?] {
        if marker::exists(&pool, &marker)? {
            return Err(Error::cloud(format!(
                "a delete or an update of it is in progress or was interrupted (repeat that call; or, to keep the disk: \
                 virsh vol-delete {marker} {}, as `cpi prune` does once the marker is old)",
                pool.name
            )));
        }
    }
    volume.path().map(drop)
}
