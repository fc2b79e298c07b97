//! What is remembered about a disk wherever it is: a small volume beside it, since volumes have no metadata of
//! their own. A disk that nothing was said about has none.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::RunTimeOptions;
use crate::cid::Cid;
use crate::libvirt::{Connection, Pool};
use crate::rpc::Result;
use crate::undo::Undo;

/// Larger records are refused, and nothing larger is read.
const MAX_BYTES: usize = 256 * 1024;

/// The content of a disk's record volume.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// From `set_disk_metadata`: deployment, instance and so on.
    #[serde(default)]
    pub metadata: Map<String, Value>,
    /// From the disk's cloud properties: used by every attachment.
    #[serde(default)]
    pub options: RunTimeOptions,
}

fn volume_name(disk_cid: &Cid) -> String {
    format!("{disk_cid}.record")
}

fn upload(libvirt: &Connection, pool: &Pool, name: &str, bytes: &[u8]) -> Result<()> {
    let mut undo = Undo::new();
    undo.push(format!("volume {name}"), || {
        pool.volume(name)?.map_or(Ok(()), |volume| volume.delete())
    });
    pool.create_with_content(libvirt, name, bytes)?;
    undo.disarm();
    Ok(())
}

impl Record {
    /// The disk's record in this pool, which must hold files; an empty one when there is none.
    pub fn read(libvirt: &Connection, pool: &Pool, disk_cid: &Cid) -> Result<Self> {
        let Some(volume) = pool.volume(&volume_name(disk_cid))? else {
            return Ok(Self::default());
        };
        let bytes = volume.download(libvirt, MAX_BYTES as u64)?;
        Ok(serde_json::from_slice(&bytes).unwrap_or_else(|_| {
            log::warn!(
                "volume {} in pool {} is no record of a disk; ignoring it",
                volume.name,
                pool.name
            );
            Self::default()
        }))
    }

    /// Puts the record in place of the one before; one that says nothing is not kept.
    pub fn write(&self, libvirt: &Connection, pool: &Pool, disk_cid: &Cid) -> Result<()> {
        let name = volume_name(disk_cid);
        let too_large = || {
            crate::rpc::Error::cloud(format!(
                "the metadata of disk {disk_cid} is larger than {MAX_BYTES} bytes"
            ))
        };
        let bytes = serde_json::to_vec(self)
            .ok()
            .filter(|b| b.len() <= MAX_BYTES)
            .ok_or_else(too_large)?;
        let before = match pool.volume(&name)? {
            Some(volume) => {
                let bytes = volume.download(libvirt, MAX_BYTES as u64)?;
                volume.delete()?;
                Some(bytes)
            }
            None => None,
        };
        if *self == Self::default() {
            return Ok(());
        }
        upload(libvirt, pool, &name, &bytes).inspect_err(|_| {
            // What a full pool had room for a moment ago it may have room for again.
            if let Some(Err(e)) = before.map(|bytes| upload(libvirt, pool, &name, &bytes)) {
                log::warn!("volume {name} is lost: {e}");
            }
        })
    }

    /// Forgets the record; none is fine.
    pub fn delete(pool: &Pool, disk_cid: &Cid) -> Result<()> {
        pool.volume(&volume_name(disk_cid))?
            .map_or(Ok(()), |volume| volume.delete())
    }
}
