//! `resize_disk(disk_cid, new_size)`: grows a disk, detached or under a running guest. A disk never shrinks: what
//! would be cut off is data.

use serde_json::Value;

use super::Cpi;
use crate::disk::{self, Record};
use bosh_cpi::rpc::{Arguments, Result};

pub fn call(mut arguments: Arguments, cpi: &Cpi) -> Result<Value> {
    let disk_cid = arguments.cid("disk_cid")?;
    let size = arguments.size_mib("new_size")?;
    arguments.end()?;
    let libvirt = cpi.libvirt()?;
    let volume = disk::get(libvirt, &cpi.config, &disk_cid)?;
    let record = Record::read(libvirt, &cpi.config, &volume)?;
    disk::resize(libvirt, &disk_cid, &volume, &record, size)?;
    Ok(Value::Null)
}
