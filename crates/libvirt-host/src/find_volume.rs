//! Finding volumes without knowing their pool: by name, by path, by what they are overlays on.

use std::time::{Duration, Instant};

use virt::error::ErrorNumber;
use virt::sys;

use super::errors::{cpi_error, is};
use super::shares::in_shares;
use super::{Connection, Pool, PoolKind, Volume, VolumeState};
use crate::volume_name::VolumeName;
use bosh_cpi::interrupt;
use bosh_cpi::rpc::{Cause, Error, ErrorType, Result};
use libvirt_xml::disk::BackingFile;

/// More layers than QEMU opens.
const MAX_LAYERS: usize = 200;

/// How long a pool that the settings do not name is waited for, while another job works in it.
const BUSY_POOL: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(100);

/// A pool of files that is defined and inactive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InactivePool {
    pub name: String,
    /// The directory on the host.
    pub target: String,
    pub autostart: bool,
}

impl Connection {
    /// The volume of this name in whichever pool it lives; `first` are the pools to look in first. Libvirt answers from
    /// memory. Only where it knows of no such volume, pools are read anew: other hosts of a shared pool, a restore or an
    /// operator may have put it there. A volume must not seem lost because libvirt could not start its pool, either:
    /// those it should have started itself are started.
    ///
    /// # Errors
    /// `CloudError` when such a pool does not start, or a pool that has volumes of ours cannot be read, since nobody knows
    /// what is in it; retryable where another job works in one of the first pools for long.
    pub fn volume_in_any_pool(&self, name: &str, first: &[&str]) -> Result<Option<Volume>> {
        for pool in first {
            if let Some(volume) = self.pool(pool)?.volume(name)? {
                return Ok(Some(volume));
            }
        }
        let active = self.active_pools()?;
        for pool in &active {
            if first.contains(&pool.name.as_str()) {
                continue;
            }
            if let Some(Some(volume)) = pool.unless_stopped(pool.volume(name))? {
                return Ok(Some(volume));
            }
        }
        for pool in &active {
            let is_first = first.contains(&pool.name.as_str());
            if self.read_anew(pool, is_first)?
                && let Some(Some(volume)) = pool.unless_stopped(pool.volume(name))?
            {
                return Ok(Some(volume));
            }
        }
        let stopped =
            sys::VIR_CONNECT_LIST_STORAGE_POOLS_INACTIVE | sys::VIR_CONNECT_LIST_STORAGE_POOLS_AUTOSTART;
        for pool in self.pools(stopped)? {
            let started = self.pool(&pool.name);
            if let Some(volume) = started.and_then(|pool| pool.volume(name)).map_err(|e| {
                e.during(format!(
                    "looking for volume {name} in every pool that is to be started with libvirt"
                ))
            })? {
                return Ok(Some(volume));
            }
        }
        Ok(None)
    }

    /// Has libvirt read the pool anew, if volumes of ours can be expected there: it is one of ours, has one already, or is
    /// shared with other hosts. Returns whether it was read.
    fn read_anew(&self, pool: &Pool, is_ours: bool) -> Result<bool> {
        if is_ours {
            return pool.refresh().map(|()| true);
        }
        let expected = || {
            let volumes = pool.volumes()?;
            let has_ours = volumes
                .iter()
                .any(|volume| VolumeName::of(&volume.name).is_some());
            Ok(has_ours || pool.is_shared()?)
        };
        if pool.unless_stopped(expected())? != Some(true) {
            return Ok(false);
        }
        self.read_anew_unless_busy(pool)
    }

    /// Has libvirt read the pool anew. Returns false where a job goes on there for long, or the pool is stopped or gone.
    fn read_anew_unless_busy(&self, pool: &Pool) -> Result<bool> {
        let started = Instant::now();
        loop {
            match pool.refresh_if_idle() {
                Ok(Some(())) => return Ok(true),
                Ok(None) if started.elapsed() < BUSY_POOL => {
                    interrupt::check()?;
                    std::thread::sleep(PAUSE);
                }
                // The job that goes on there for long is none of ours, and libvirt reads the pool after it.
                Ok(None) => return Ok(false),
                // Somebody has stopped it since it was listed: it is as if it had been inactive before.
                Err(e) if e.cause == Cause::Stopped => return Ok(false),
                // A refresh that fails stops the pool, and a pool that was deleted is nobody's.
                Err(_) if self.find_pool(&pool.name)?.is_none() => return Ok(false),
                Err(e) => return Err(e),
            }
        }
    }

    /// The layers below a volume from the top, as libvirt knows them. None where a layer is no volume of an active pool
    /// or neither raw nor qcow2: then nobody can tell what comes below it.
    pub fn backing_chain(&self, volume: &VolumeState) -> Result<Option<Vec<BackingFile>>> {
        let mut chain: Vec<BackingFile> = Vec::new();
        let mut top = volume.clone();
        while let Some(path) = top.backing_path {
            let Some(format) = top.backing_format.filter(|_| chain.len() < MAX_LAYERS) else {
                return Ok(None);
            };
            let Some(layer) = self.volume_at(&path)? else {
                return Ok(None);
            };
            top = layer.state()?;
            chain.push(BackingFile { path, format });
        }
        Ok(Some(chain))
    }

    /// The volume of an active pool that has this path, if there is one.
    fn volume_at(&self, path: &str) -> Result<Option<Volume>> {
        match self.connect.lookup_storage_vol_by_path(path) {
            Ok(volume) => Volume::found(volume).map(Some),
            Err(e) if is(&e, ErrorNumber::NoStorageVolume) => Ok(None),
            Err(e) => Err(cpi_error(e).during(format!("looking up the volume at {path}"))),
        }
    }

    /// Every volume, of whatever name, in any active pool of files, that is an overlay on the file of this path. Pools are
    /// read anew first, so that an overlay which another host has just made is seen. A pool that is not among `ours` and
    /// that hosts do not share is taken as libvirt remembers it if it is busy for long.
    ///
    /// # Errors
    /// `CloudError`, retryable where another job works for long in one of the other pools.
    pub fn overlays_on(&self, path: &str, ours: &[&str]) -> Result<Vec<Volume>> {
        let mut overlays = Vec::new();
        for pool in self.pools_of_files()? {
            let is_ours = ours.contains(&pool.name.as_str());
            if is_ours || pool.unless_stopped(pool.is_shared())? == Some(true) {
                pool.unless_stopped(pool.refresh())?;
            } else {
                self.read_anew_unless_busy(&pool)?;
            }
            // A pool that is stopped meanwhile is one that nobody can read (`inactive_pools_of_files`).
            let found = pool.unless_stopped(overlays_in(&pool, path, |_| true, Err))?;
            overlays.extend(found.unwrap_or_default());
        }
        Ok(overlays)
    }

    /// Volumes of others, in active pools of files, that are overlays on the file of this path, as far as libvirt knows.
    /// For paths that nothing of ours is an overlay on.
    ///
    /// # Errors
    /// `CloudError` when libvirt cannot be asked.
    pub fn foreign_overlays_on(&self, path: &str) -> Result<Vec<Volume>> {
        let mut overlays = Vec::new();
        for pool in self.pools_of_files()? {
            let is_foreign = |volume: &Volume| VolumeName::of(&volume.name).is_none();
            let left_out = |error| {
                log::warn!("what another volume is an overlay on is not known: {error}");
                Ok(())
            };
            overlays.extend(overlays_in(&pool, path, is_foreign, left_out)?);
        }
        Ok(overlays)
    }

    /// Inactive pools whose volumes can be overlays: nobody knows what is in them.
    ///
    /// # Errors
    /// `CloudError` when libvirt cannot be asked.
    pub fn inactive_pools_of_files(&self) -> Result<Vec<InactivePool>> {
        let mut inactive = Vec::new();
        for pool in self.pools(sys::VIR_CONNECT_LIST_STORAGE_POOLS_INACTIVE)? {
            let looked_at = pool.kind().and_then(|kind| Ok((kind, pool.info()?)));
            // Pools of others come and go while we look.
            if let Some((PoolKind::Files, info)) = pool.unless_stopped(looked_at)? {
                inactive.push(InactivePool {
                    name: pool.name.clone(),
                    target: info.target.trim_end_matches('/').to_owned(),
                    autostart: info.autostart,
                });
            }
        }
        Ok(inactive)
    }

    /// Active pools whose volumes can be overlays. Of a pool that is just going away, listing its volumes tells.
    fn pools_of_files(&self) -> Result<Vec<Pool>> {
        let mut pools = self.active_pools()?;
        pools.retain(|pool| pool.kind().is_ok_and(|kind| kind == PoolKind::Files));
        Ok(pools)
    }
}

/// `unreadable` decides about a volume that libvirt knows and cannot read.
fn overlays_in(
    pool: &Pool,
    path: &str,
    is_wanted: impl Fn(&Volume) -> bool,
    unreadable: fn(Error) -> Result<()>,
) -> Result<Vec<Volume>> {
    let mut volumes = pool.unless_stopped(pool.volumes())?.unwrap_or_default();
    volumes.retain(is_wanted);
    let path = path.to_owned();
    in_shares(volumes, move |volumes| {
        let mut overlays = Vec::new();
        for volume in volumes {
            match volume.state() {
                Ok(state) if state.backing_path.as_ref() == Some(&path) => overlays.push(volume),
                Ok(_) => {}
                // Volumes come and go while we look.
                Err(error) if error.error_type == ErrorType::DiskNotFound => {}
                Err(error) => unreadable(error)?,
            }
        }
        Ok(overlays)
    })
}
