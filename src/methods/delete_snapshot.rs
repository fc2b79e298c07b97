//! `delete_snapshot(snapshot_cid)`: a snapshot is a disk of its own, so it is deleted as one; one that is attached
//! for a restore is refused.

use serde_json::Value;

use super::Cpi;
use crate::disk;
use bosh_cpi::rpc::{Arguments, Error, ErrorType, Result};

/// What the seed's CPI answers to every snapshot_disk, which it does not implement: the Director has it in its
/// database, and could not delete the disk otherwise.
const SEEDS_SNAPSHOT: &str = "snap-cid";

pub fn call(mut arguments: Arguments, cpi: &Cpi) -> Result<Value> {
    let snapshot_cid = arguments.cid("snapshot_cid")?;
    arguments.end()?;
    if snapshot_cid.as_str() == SEEDS_SNAPSHOT {
        return Ok(Value::Null);
    }
    if !snapshot_cid.names_snapshot() {
        return Err(Error::new(
            ErrorType::DiskNotFound,
            format!("{snapshot_cid} is no snapshot of this CPI's"),
        ));
    }
    let libvirt = cpi.libvirt()?;
    let volume = disk::get_to_delete(libvirt, &cpi.config, &snapshot_cid)?;
    disk::delete(libvirt, &cpi.config, &snapshot_cid, &volume)?;
    Ok(Value::Null)
}
