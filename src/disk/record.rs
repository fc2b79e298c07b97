//! What is remembered about a disk, wherever it is, in a record volume in the stemcells' pool. A disk that nothing was
//! said about has none.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::RunTimeOptions;
use crate::cid::Cid;
use crate::libvirt::{Connection, Pool};
use crate::record_volume::{self, name_for, of_record};
use crate::rpc::Result;
use crate::undo::Undo;
use crate::xml::volume::VolumeFormat;

/// The content of a disk's record volume.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// From `set_disk_metadata`: deployment, instance and so on.
    #[serde(default)]
    pub metadata: Map<String, Value>,
    /// From the disk's cloud properties: used by every attachment.
    #[serde(default)]
    pub options: RunTimeOptions,
    /// The format that the volume was made in. What libvirt says of a file, it has read out of the file, and what is in
    /// a raw one is the guest's.
    #[serde(default, skip_serializing_if = "is_raw")]
    pub format: VolumeFormat,
    /// The cid of the disk that this one is a copy of, made by update_disk to take its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<String>,
}

fn is_raw(format: &VolumeFormat) -> bool {
    *format == VolumeFormat::Raw
}

impl Record {
    /// The disk's record in this pool, which must hold files; an empty one when there is none.
    pub fn read(libvirt: &Connection, pool: &Pool, disk_cid: &Cid) -> Result<Self> {
        Ok(record_volume::read(libvirt, pool, &name_for(disk_cid.as_str()))?.unwrap_or_default())
    }

    /// The cid of the disk that has taken this one's place; every disk's record is read for it. Where a copy was made twice,
    /// since the first call was killed, the disk may have been used in between: the last one counts.
    pub fn of_replacement(libvirt: &Connection, pool: &Pool, disk_cid: &Cid) -> Result<Option<Cid>> {
        let mut replacements = Vec::new();
        for volume in pool.volumes()? {
            let Some(cid) = of_record(&volume.name)
                .and_then(|name| Cid::new(name).ok())
                .filter(Cid::names_disk)
            else {
                continue;
            };
            if Self::read(libvirt, pool, &cid)?.replaces.as_deref() == Some(disk_cid.as_str()) {
                replacements.push((volume.state()?.modified, cid));
            }
        }
        let last = replacements.into_iter().max_by_key(|(written, _)| *written);
        Ok(last.map(|(_, cid)| cid))
    }

    /// Puts the record in place of the one before; one that says nothing is not kept.
    pub fn write(&self, libvirt: &Connection, pool: &Pool, disk_cid: &Cid) -> Result<()> {
        let name = name_for(disk_cid.as_str());
        let record = Some(self).filter(|record| **record != Self::default());
        let what = format!("the metadata of disk {disk_cid}");
        record_volume::write(libvirt, pool, &name, record, &what)
    }

    /// As `write`, for a disk that stays whatever happens: where there was no record, there is none after an error, also
    /// when the connection is lost.
    pub fn write_or_leave_none<'a>(
        &self,
        libvirt: &Connection,
        pool: &Pool,
        disk_cid: &Cid,
        libvirt_for_undo: &dyn Fn() -> Result<&'a Connection>,
    ) -> Result<()> {
        let name = name_for(disk_cid.as_str());
        let mut undo = Undo::new();
        if pool.volume(&name)?.is_none() {
            undo.push(format!("volume {name}"), || {
                record_volume::delete(&libvirt_for_undo()?.pool(&pool.name)?, &name)
            });
        }
        self.write(libvirt, pool, disk_cid)?;
        undo.disarm();
        Ok(())
    }

    /// Forgets the record; none is fine.
    pub fn delete(pool: &Pool, disk_cid: &Cid) -> Result<()> {
        record_volume::delete(pool, &name_for(disk_cid.as_str()))
    }
}
