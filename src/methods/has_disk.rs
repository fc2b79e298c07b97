//! `has_disk(disk_cid)`: whether the disk exists, attached or not.

use serde_json::Value;

use super::Cpi;
use crate::disk;
use bosh_cpi::rpc::{Arguments, Result};

pub fn call(mut arguments: Arguments, cpi: &Cpi) -> Result<Value> {
    let disk_cid = arguments.cid("disk_cid")?;
    arguments.end()?;
    Ok(disk::exists(cpi.libvirt()?, &cpi.config, &disk_cid)?.into())
}
