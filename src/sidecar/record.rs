//! Sidecar records: small volumes of JSON.

use std::thread::sleep;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use bosh_cpi::rpc::{Error, Result};
use libvirt_host::Undo;
use libvirt_host::volume_name::VolumeName;
use libvirt_host::{Connection, Pool, Volume};

/// Larger records are refused, and nothing larger is read.
const MAX_BYTES: usize = 256 * 1024;

/// How often a record is read that another call may be writing, and how long the pauses between are.
const ATTEMPTS: usize = 5;
const PAUSE: Duration = Duration::from_millis(40);

/// What the record says. None for an empty one: a call that was killed had made the volume, and not filled it.
///
/// # Errors
/// `CloudError` for a volume that is no record: what it said is unknown, so nothing may go on as if it said nothing.
pub fn read<T: DeserializeOwned>(libvirt: &Connection, record: &Volume) -> Result<Option<T>> {
    let mut attempt = 1;
    loop {
        let bytes = record.download(libvirt, MAX_BYTES as u64)?;
        // A call that was killed may have grown the volume and not filled it.
        let length = bytes
            .iter()
            .rposition(|byte| *byte != 0)
            .map_or(0, |last| last + 1);
        if length == 0 && attempt == ATTEMPTS {
            return Ok(None);
        }
        match serde_json::from_slice(&bytes[..length]) {
            Ok(record) => return Ok(Some(record)),
            Err(_) if attempt < ATTEMPTS => sleep(PAUSE),
            Err(e) => {
                return Err(Error::cloud(format!(
                    "reading record {} in pool {}: {e} (restore the volume from a backup, or delete it if what it says can \
                     be lost: docs/STORAGE.md, \"Records\")",
                    record.name, record.pool
                )));
            }
        }
        attempt += 1;
    }
}

/// Puts the record in place of the one before, in the same volume, so that there is one at every moment.
///
/// # Errors
/// `NoDiskSpace`; `CloudError`, for a record of more than 256 KiB too. The one before is still there then.
pub fn write<T: Serialize>(libvirt: &Connection, pool: &Pool, name: &VolumeName, record: &T) -> Result<()> {
    let name = name.to_string();
    let bytes = serde_json::to_vec(record)
        .ok()
        .filter(|bytes| bytes.len() <= MAX_BYTES)
        .ok_or_else(|| {
            Error::cloud(format!(
                "writing record {name}: it is larger than {MAX_BYTES} bytes (make the metadata or tags shorter)"
            ))
        })?;
    if let Some(volume) = pool.volume(&name)? {
        return volume.replace_content(libvirt, &bytes, b' ');
    }
    let mut undo = Undo::new(libvirt);
    undo.push(format!("volume {name}"), |libvirt| {
        let pool = libvirt.pool(&pool.name)?;
        pool.volume(&name)?.map_or(Ok(()), |volume| volume.delete())
    });
    pool.create_with_content(libvirt, &name, &bytes)?;
    undo.disarm();
    Ok(())
}
