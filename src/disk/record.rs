//! What is remembered about a persistent disk, in its sidecar record. A disk that nothing was said about has none.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::sidecar;
use bosh_cpi::cid::Cid;
use bosh_cpi::rpc::Result;
use cpi_config::Config;
use libvirt_host::Undo;
use libvirt_host::volume_name::VolumeName;
use libvirt_host::{Connection, Volume};
use libvirt_xml::disk::RunTimeOptions;
use libvirt_xml::volume::VolumeFormat;

/// The content of a disk's sidecar record.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// From `set_disk_metadata`: deployment, instance and so on.
    #[serde(default)]
    pub metadata: Map<String, Value>,
    /// From the disk's cloud properties: used by every attachment.
    #[serde(default)]
    pub options: RunTimeOptions,
    /// The format that the volume was made in; None where this record does not say. What libvirt says of a file, it has
    /// read out of the file, and what is in a raw one is the guest's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<VolumeFormat>,
    /// The cid of the disk that this one is a copy of, made by update_disk to take its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<String>,
}

fn name_of(cid: &str) -> VolumeName {
    VolumeName::Record(cid.to_owned())
}

impl Record {
    /// The record of the disk in this volume; an empty one when there is none.
    ///
    /// # Errors
    /// `CloudError` naming a record that cannot be read.
    pub fn read(libvirt: &Connection, config: &Config, volume: &Volume) -> Result<Self> {
        sidecar::find(libvirt, config, &volume.pool, &name_of(&volume.name))?
            .map_or_else(|| Ok(Self::default()), |record| Self::read_from(libvirt, &record))
    }

    /// What this record says.
    ///
    /// # Errors
    /// `CloudError` naming a record that cannot be read.
    pub fn read_from(libvirt: &Connection, record: &Volume) -> Result<Self> {
        Ok(sidecar::read(libvirt, record)?.unwrap_or_default())
    }

    /// The cid of the disk that has taken this one's place; every disk's record is read for it. Where a copy was made twice,
    /// since the first call was killed, the disk may have been used in between: the last one counts.
    pub fn of_replacement(libvirt: &Connection, disk_cid: &Cid) -> Result<Option<Cid>> {
        let mut replacements = Vec::new();
        for pool in libvirt.active_pools()? {
            for volume in pool.unless_stopped(pool.volumes())?.unwrap_or_default() {
                let Some(VolumeName::Record(of)) = VolumeName::of(&volume.name) else {
                    continue;
                };
                let Some(cid) = Cid::new(&of).ok().filter(Cid::names_disk) else {
                    continue;
                };
                let record = Self::read_from(libvirt, &volume)?;
                if record.replaces.as_deref() == Some(disk_cid.as_str()) {
                    replacements.push((volume.state()?.modified, cid));
                }
            }
        }
        let last = replacements.into_iter().max_by_key(|(written, _)| *written);
        Ok(last.map(|(_, cid)| cid))
    }

    /// Puts the record in place of the one before, beside the disk; one that says nothing is not kept.
    ///
    /// # Errors
    /// `NoDiskSpace`, `CloudError`.
    pub fn write(&self, libvirt: &Connection, config: &Config, volume: &Volume) -> Result<()> {
        let name = name_of(&volume.name);
        let before = sidecar::find(libvirt, config, &volume.pool, &name)?;
        let home = sidecar::home(libvirt, config, &volume.pool)?;
        if *self == Self::default() {
            return before.map_or(Ok(()), |before| before.delete());
        }
        sidecar::write(libvirt, &home, &name, self)?;
        match before {
            // An earlier version's, which another pool has.
            Some(before) if before.pool != home.name => before.delete(),
            _ => Ok(()),
        }
    }

    /// As `write`, for a disk that stays whatever happens: where there was no record, there is none after an error, also
    /// when the connection is lost.
    ///
    /// # Errors
    /// As for `write`.
    pub fn write_or_leave_none(&self, libvirt: &Connection, config: &Config, volume: &Volume) -> Result<()> {
        let name = name_of(&volume.name);
        let mut undo = Undo::new(libvirt);
        if sidecar::find(libvirt, config, &volume.pool, &name)?.is_none() {
            undo.push(format!("volume {name}"), |libvirt| {
                sidecar::delete_everywhere(libvirt, &name_of(&volume.name))
            });
        }
        self.write(libvirt, config, volume)?;
        undo.disarm();
        Ok(())
    }

    /// Deletes the disk's record; none is fine.
    ///
    /// # Errors
    /// `CloudError` when libvirt cannot be asked or refuses.
    pub fn delete(libvirt: &Connection, disk_cid: &Cid) -> Result<()> {
        sidecar::delete_everywhere(libvirt, &name_of(disk_cid.as_str()))
    }
}
