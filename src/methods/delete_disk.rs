//! `delete_disk(disk_cid)`: the only way by which a persistent disk goes. Refused while any VM refers to it.

use serde_json::Value;

use super::Cpi;
use crate::disk;
use bosh_cpi::rpc::{Arguments, Result};

pub fn call(mut arguments: Arguments, cpi: &Cpi) -> Result<Value> {
    let disk_cid = arguments.cid("disk_cid")?;
    arguments.end()?;
    let libvirt = cpi.libvirt()?;
    let volume = disk::get_to_delete(libvirt, &cpi.config, &disk_cid)?;
    disk::delete(libvirt, &cpi.config, &disk_cid, &volume)?;
    Ok(Value::Null)
}
