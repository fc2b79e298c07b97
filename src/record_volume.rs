//! Small volumes of JSON beside the volume they tell about, since volumes have no metadata of their own: a disk's
//! record, a stemcell's record.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::libvirt::{Connection, Pool};
use crate::rpc::{Error, Result};
use crate::undo::Undo;

const SUFFIX: &str = ".record";

/// Larger records are refused, and nothing larger is read.
const MAX_BYTES: usize = 256 * 1024;

/// The name of the record of the disk or stemcell whose volume, or cid, has this name.
pub fn name_for(volume: &str) -> String {
    format!("{volume}{SUFFIX}")
}

/// The volume, or cid, whose record has this name.
pub fn of_record(name: &str) -> Option<&str> {
    name.strip_suffix(SUFFIX)
}

/// The record of this name in this pool, which must hold files. None when there is none, and, with a warning, when the
/// volume holds something else.
pub fn read<T: DeserializeOwned>(libvirt: &Connection, pool: &Pool, name: &str) -> Result<Option<T>> {
    let Some(volume) = pool.volume(name)? else {
        return Ok(None);
    };
    let bytes = volume.download(libvirt, MAX_BYTES as u64)?;
    // What a call that was killed had grown it by, and not filled.
    let length = bytes
        .iter()
        .rposition(|byte| *byte != 0)
        .map_or(0, |last| last + 1);
    let record = serde_json::from_slice(&bytes[..length]).ok();
    if record.is_none() {
        log::warn!("volume {name} in pool {} is no record; ignoring it", pool.name);
    }
    Ok(record)
}

/// Puts the record in place of the one before, in the same volume, so that there is one at every moment; `None` leaves
/// no record. `what` is for messages.
///
/// # Errors
/// `NoDiskSpace`; `CloudError`, for a record of more than 256 KiB too. The one before is still there then.
pub fn write<T: Serialize>(
    libvirt: &Connection,
    pool: &Pool,
    name: &str,
    record: Option<&T>,
    what: &str,
) -> Result<()> {
    let too_large = || Error::cloud(format!("{what} is larger than {MAX_BYTES} bytes"));
    let bytes = record
        .map(|record| {
            serde_json::to_vec(record)
                .ok()
                .filter(|bytes| bytes.len() <= MAX_BYTES)
                .ok_or_else(too_large)
        })
        .transpose()?;
    match (pool.volume(name)?, bytes) {
        (Some(volume), Some(bytes)) => volume.replace_content(libvirt, &bytes, b' '),
        (Some(volume), None) => volume.delete(),
        (None, Some(bytes)) => upload(libvirt, pool, name, &bytes),
        (None, None) => Ok(()),
    }
}

/// Forgets the record; none is fine.
pub fn delete(pool: &Pool, name: &str) -> Result<()> {
    pool.volume(name)?.map_or(Ok(()), |volume| volume.delete())
}

fn upload(libvirt: &Connection, pool: &Pool, name: &str, bytes: &[u8]) -> Result<()> {
    let mut undo = Undo::new();
    undo.push(format!("volume {name}"), || delete(pool, name));
    pool.create_with_content(libvirt, name, bytes)?;
    undo.disarm();
    Ok(())
}
