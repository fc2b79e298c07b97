//! Finding a stemcell: its own volume, or the operator's volume that a light stemcell stands for.

use super::Record;
use super::record::{NamedVolume, record_name};
use crate::sidecar::marker;
use bosh_cpi::cid::Cid;
use bosh_cpi::rpc::{Error, Result};
use libvirt_host::volume_name::VolumeName;
use libvirt_host::{Connection, Pool, Volume};

/// What there is of a stemcell.
pub struct Stemcell {
    pub record: Record,
    /// The volume that was uploaded; none for a light stemcell.
    pub volume: Option<Volume>,
    /// The pool with the record, where there is one, and with the volume.
    pub pool: Pool,
}

/// The stemcell in whichever active pool it lives, this one first.
pub fn find(libvirt: &Connection, pool: &Pool, cid: &Cid) -> Result<Option<Stemcell>> {
    let Some(name) = cid.stemcell_volume() else {
        return Ok(None);
    };
    if let Some(volume) = pool.volume(&name)? {
        return found(libvirt, cid, &pool.name, Some(volume)).map(Some);
    }
    let record = record_name(cid).to_string();
    if pool.volume(&record)?.is_some() {
        return found(libvirt, cid, &pool.name, None).map(Some);
    }
    if let Some(volume) = libvirt.volume_in_any_pool(&name, &[&pool.name])? {
        let pool = volume.pool.clone();
        return found(libvirt, cid, &pool, Some(volume)).map(Some);
    }
    libvirt
        .volume_in_any_pool(&record, &[&pool.name])?
        .map(|record| found(libvirt, cid, &record.pool, None))
        .transpose()
}

fn found(libvirt: &Connection, cid: &Cid, pool: &str, volume: Option<Volume>) -> Result<Stemcell> {
    let pool = libvirt.pool(pool)?;
    Ok(Stemcell {
        record: Record::read(libvirt, &pool, cid)?,
        volume,
        pool,
    })
}

/// The volume that VMs of this stemcell boot from, and what is remembered about the stemcell.
///
/// # Errors
/// `CloudError` naming the stemcell when it is nowhere, and the volume of a light stemcell when that is gone.
pub fn get(libvirt: &Connection, pool: &Pool, cid: &Cid) -> Result<(Volume, Record)> {
    let stemcell = find(libvirt, pool, cid)?;
    let volume = match stemcell {
        Some(Stemcell {
            record,
            volume: Some(volume),
            ..
        }) => return Ok((volume, record)),
        Some(Stemcell {
            record, volume: None, ..
        }) => record.volume.clone().map(|volume| (volume, record)),
        None => None,
    };
    let Some((volume, record)) = volume else {
        return Err(Error::cloud(format!(
            "stemcell {cid} does not exist in any active pool of {}; upload it again",
            libvirt.uri
        )));
    };
    let volume =
        operators_volume(libvirt, &volume).map_err(|e| e.during(format!("stemcell {cid} is light")))?;
    Ok((volume, record))
}

/// For a call that has just made an overlay on the stemcell's volume: that nobody deletes the stemcell at this time, or has
/// deleted it.
///
/// # Errors
/// `CloudError`.
pub fn require_kept(libvirt: &Connection, volume: &Volume) -> Result<()> {
    let pool = libvirt.pool(&volume.pool)?;
    let deleting = marker::exists(&pool, &VolumeName::Deleting(volume.name.clone()))?;
    if !deleting && pool.volume(&volume.name)?.is_some() {
        return Ok(());
    }
    Err(Error::cloud(format!(
        "stemcell {} is being deleted, or its deletion was interrupted (delete it again, and upload it anew)",
        volume.name
    )))
}

/// The volume that a light stemcell names.
///
/// # Errors
/// `CloudError` when it, or its pool, is not there.
pub fn operators_volume(libvirt: &Connection, name: &NamedVolume) -> Result<Volume> {
    libvirt.pool(&name.pool)?.volume(&name.volume)?.ok_or_else(|| {
        Error::cloud(format!(
            "volume {} does not exist in pool {}; make it, or delete the stemcell",
            name.volume, name.pool
        ))
    })
}
